//! `codeq config`.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::PathBuf,
};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{ConfigFile, Failure, style};
use crate::{
    config::{self, Config, Entry, Loaded, Origin, Problem},
    http::Auth,
    plugins::Plugins,
};

/// Reads the configuration; what has no effect in it goes to standard error.
pub(super) fn load(file: &ConfigFile) -> Result<Loaded, Failure> {
    let mut loaded =
        Config::load(file.config.as_deref()).map_err(|error| Failure::Wrong(error.to_string()))?;
    loaded.warnings.iter().for_each(style::warning);
    if loaded.has_references() {
        let plugins = Plugins::discover(&loaded.config.plugin_dirs);
        if let Some(plugin) = plugins.get(&loaded.config.persistence_provider) {
            loaded.fit(&plugin.manifest.config_schema);
        }
    }
    Ok(loaded)
}

/// Shows the effective configuration.
pub(super) fn show(file: &ConfigFile, json: bool) -> Result<(), Failure> {
    let Loaded { config, mut shown, .. } = load(file)?;
    let plugins = Plugins::discover(&config.plugin_dirs);
    if let Some(plugin) = plugins.get(&config.persistence_provider) {
        shown.mask_secrets_of(&plugin.manifest.config_schema);
    }
    if json {
        let entry = |entry: &Entry| {
            let value = json!({ "value": entry.value, "origin": entry.origin.to_string() });
            (entry.name.to_owned(), value)
        };
        let entries: Map<String, Value> = shown.entries.iter().map(entry).collect();
        style::line(Value::Object(entries));
        return Ok(());
    }
    match &shown.file {
        Some(path) => {
            style::line(style::in_style(style::FAINT, format!("# read from {}", path.display())))
        }
        None => style::line(style::in_style(style::FAINT, "# no configuration file")),
    }
    let row = |Entry { name, value, origin }: &Entry| {
        let comment = style::in_style(style::FAINT, format!("# {origin}"));
        let set = *origin != Origin::Default;
        let name = if set { style::in_style(style::NAME, name) } else { (*name).to_owned() };
        // JSON is YAML, so what is shown can be put in a file.
        format!("{name}: {value}\t{comment}")
    };
    style::table(&shown.entries.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

/// Checks the configuration without serving.
pub(super) fn check(file: &ConfigFile) -> Result<(), Failure> {
    let Loaded { config, shown, .. } = load(file)?;
    Auth::new(&config).map_err(|error| Failure::Wrong(error.to_string()))?;
    let plugins = Plugins::discover(&config.plugin_dirs);
    let provider = plugins
        .check(&config.persistence_provider, &config.persistence_config, &config.open_options())
        .map_err(|error| Failure::Wrong(format!("{}: {error}", error.code())))?;
    let file = shown
        .file
        .map_or_else(|| "defaults and environment".into(), |path| path.display().to_string());
    style::table(&[
        format!("{}\t{file}", style::in_style(style::GOOD, "configuration ok")),
        format!("persistence plugin\t{} {}", provider.manifest.name, provider.manifest.version),
        format!("loaded from\t{}", provider.path.display()),
        format!("listens on\t{}:{}", config.bind, config.port),
    ]);
    Ok(())
}

/// Arguments of `codeq config import`.
#[derive(Args)]
pub(super) struct Import {
    /// The codeQ server's configuration file.
    from: PathBuf,
    /// Where to write this host's; nothing may be there yet. Without it, it is printed.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Carries a codeQ server's configuration over; what becomes of it goes to standard error.
pub(super) fn import(args: &Import) -> Result<(), Failure> {
    let import = config::import(&args.from, &config::environment())
        .map_err(|error| Failure::Wrong(error.to_string()))?;
    match &args.output {
        None => style::line(import.yaml.trim_end()),
        Some(path) => {
            let written = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)
                .and_then(|mut file| file.write_all(import.yaml.as_bytes()));
            written.map_err(|error| {
                let why = match error.kind() {
                    ErrorKind::AlreadyExists => "is there already: name another file".to_owned(),
                    _ => format!("cannot be written: {error}"),
                };
                Failure::Wrong(format!("{} {why}", path.display()))
            })?;
        }
    }
    let tell = |what: &str, problems: &[Problem]| {
        problems.iter().for_each(|problem| style::note(what, problem));
    };
    tell("changed", &import.changed);
    tell("left out", &import.left_out);
    if import.lost_auth {
        return Err(Failure::Failed(
            "producers have no auth provider any more: set one before this host serves others than \
             this machine"
                .into(),
        ));
    }
    Ok(())
}
