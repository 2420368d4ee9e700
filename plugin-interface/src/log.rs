//! The way of a plugin's log into the host's.
//!
//! Every library has its own copy of `tracing`, with its own global subscriber, so what a plugin
//! logs would go nowhere. The host hands each store a [`LogSink`]; when the store is opened, a
//! subscriber is set up inside the plugin that sends every event there. Authors use `tracing`'s
//! macros and think no further.

use std::{
    fmt::{self, Write},
    panic,
    sync::{
        Once, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use abi_stable::{StableAbi, std_types::RString};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// The host's end of a plugin's log.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct LogSink {
    /// The least severe level that the host wants to have.
    pub level: LogLevel,
    /// Takes a record into the host's log. It must not panic.
    pub write: extern "C" fn(&LogRecord),
}

/// How severe a record is, most severe first.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing at all.
    Off,
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Every step.
    Trace,
}

/// One event of a plugin's log.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct LogRecord {
    /// How severe it is.
    pub level: LogLevel,
    /// The name under which the plugin was selected.
    pub provider: RString,
    /// The module it comes from.
    pub target: RString,
    /// The message, with the event's other fields behind it as `name=value`.
    pub message: RString,
}

impl LogSink {
    /// A sink that throws everything away, for tests.
    pub fn none() -> LogSink {
        extern "C" fn ignore(_: &LogRecord) {}
        LogSink { level: LogLevel::Off, write: ignore }
    }

    pub(crate) fn error(&self, provider: &str, message: String) {
        (self.write)(&LogRecord {
            level: LogLevel::Error,
            provider: provider.into(),
            target: env!("CARGO_PKG_NAME").into(),
            message: message.into(),
        });
    }
}

impl From<&tracing::Level> for LogLevel {
    fn from(level: &tracing::Level) -> LogLevel {
        match *level {
            tracing::Level::ERROR => LogLevel::Error,
            tracing::Level::WARN => LogLevel::Warn,
            tracing::Level::INFO => LogLevel::Info,
            tracing::Level::DEBUG => LogLevel::Debug,
            tracing::Level::TRACE => LogLevel::Trace,
        }
    }
}

/// Sends this library's events and panics to `sink`, from the first call on.
pub(crate) fn install(provider: &str, sink: &LogSink) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let forward =
            Forward { provider: provider.into(), sink: sink.clone(), next_span: AtomicU64::new(1) };
        // A library that is linked statically shares the program's subscriber; that one stays.
        if tracing::subscriber::set_global_default(forward).is_ok() {
            forward_panics(provider, sink);
        }
    });
}

/// Panics are caught and answered as errors; where they happened is worth a line of the log.
fn forward_panics(provider: &str, sink: &LogSink) {
    static TARGET: OnceLock<(RString, LogSink)> = OnceLock::new();
    if TARGET.set((provider.into(), sink.clone())).is_err() {
        return;
    }
    panic::set_hook(Box::new(|info| {
        if let Some((provider, sink)) = TARGET.get() {
            sink.error(provider, info.to_string().replace('\n', " "));
        }
    }));
}

/// Hands every event on. Spans are told apart but not kept: the host has its own around each call.
struct Forward {
    provider: RString,
    sink: LogSink,
    next_span: AtomicU64,
}

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && LogLevel::from(metadata.level()) <= self.sink.level
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(self.next_span.fetch_add(1, Ordering::Relaxed))
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        (self.sink.write)(&LogRecord {
            level: event.metadata().level().into(),
            provider: self.provider.clone(),
            target: event.metadata().target().into(),
            message: (message.text + &message.fields).into(),
        });
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
