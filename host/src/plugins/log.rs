//! The host's end of the plugins' logs.

use codeq_plugin::log::{LogLevel, LogRecord, LogSink};
use tracing::level_filters::LevelFilter;

/// A sink into this process's log.
pub(crate) fn sink() -> LogSink {
    let level = match LevelFilter::current() {
        LevelFilter::OFF => LogLevel::Off,
        LevelFilter::ERROR => LogLevel::Error,
        LevelFilter::WARN => LogLevel::Warn,
        LevelFilter::INFO => LogLevel::Info,
        LevelFilter::DEBUG => LogLevel::Debug,
        LevelFilter::TRACE => LogLevel::Trace,
    };
    LogSink { level, write }
}

extern "C" fn write(record: &LogRecord) {
    macro_rules! emit {
        ($level:ident) => {
            tracing::$level!(
                target: "codeq::plugin",
                plugin = record.provider.as_str(),
                module = record.target.as_str(),
                "{}", record.message
            )
        };
    }
    match record.level {
        LogLevel::Off => {}
        LogLevel::Error => emit!(error),
        LogLevel::Warn => emit!(warn),
        LogLevel::Info => emit!(info),
        LogLevel::Debug => emit!(debug),
        LogLevel::Trace => emit!(trace),
    }
}
