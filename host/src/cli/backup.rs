//! `codeq backup`.

use std::{
    path::{self, Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use codeq_plugin::BackedUp;
use serde_json::json;
use tokio::runtime::Builder;

use super::{ConfigFile, Failure, Json, config, log, plugins, style};
use crate::{config::Config, plugins::BackupError};

/// Arguments of `codeq backup`.
#[derive(Args)]
pub(super) struct Backup {
    /// Where to write it; nothing may be there yet.
    to: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    output: Json,
}

/// Writes a backup, and says what is in it.
pub(super) fn run(args: &Backup) -> Result<(), Failure> {
    let config = config::load(&args.config)?.config;
    log::start(&config);
    let to = path::absolute(&args.to)
        .map_err(|error| Failure::Wrong(format!("TO `{}`: {error}", args.to.display())))?;
    let began = Instant::now();
    let written = write(&config, &to)?;
    show(&config.persistence_provider, &to, &written, began.elapsed(), args.output.json);
    Ok(())
}

fn write(config: &Config, to: &Path) -> Result<BackedUp, Failure> {
    let runtime = Builder::new_current_thread()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let (name, settings) = (&config.persistence_provider, &config.persistence_config);
    let options = config.open_options();
    let backup = plugins::discover(config).backup(name, settings, &options, to);
    runtime.block_on(backup).map_err(|error: BackupError| {
        let message = error.to_string();
        if error.is_usage() { Failure::Wrong(message) } else { Failure::Failed(message) }
    })
}

fn show(plugin: &str, to: &Path, written: &BackedUp, took: Duration, json: bool) {
    let BackedUp { bytes, tasks, .. } = written;
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if json {
        style::line(json!({
            "path": to, "plugin": plugin, "tasks": tasks, "bytes": bytes, "millis": millis,
        }));
        return;
    }
    style::table(&[
        format!("{}\t{}", style::in_style(style::GOOD, "backup written"), to.display()),
        format!("persistence plugin\t{plugin}"),
        format!("tasks\t{tasks}"),
        format!("bytes\t{bytes}"),
        format!("took\t{:.1} s", took.as_secs_f64()),
    ]);
}
