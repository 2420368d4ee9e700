//! The log of a command that runs plugins, on standard error.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::style;
use crate::config::{Config, LogFormat};

/// Starts the log as it is configured.
pub(super) fn start(config: &Config) {
    let level = LevelFilter::from_level(config.log_level);
    // The libraries underneath have little to say to an operator.
    let libraries = level.min(LevelFilter::WARN);
    let targets = Targets::new().with_default(libraries).with_target("codeq", level);
    let targets = targets.with_target("codeq_host", level);
    let terminal = io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(targets);
    let started = match format(config) {
        LogFormat::Text => registry.with(layer.with_ansi(terminal).with_target(false)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init()
        }
    };
    if let Err(error) = started {
        style::warning(format_args!("no log: {error}"));
    }
}

/// How the log is written.
pub(super) fn format(config: &Config) -> LogFormat {
    let default = if io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    config.log_format.unwrap_or(default)
}
