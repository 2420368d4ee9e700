//! `codeq plugins`.

use std::path::Path;

use codeq_plugin::{Capability, manifest::Manifest};
use serde_json::{Value, json};

use super::{ConfigFile, Failure, config, style};
use crate::{
    config::Config,
    plugins::{self, Found, Plugins, Refusal},
};

/// The plugins of a configuration; those that were refused go to the log.
pub(super) fn discover(config: &Config) -> Plugins {
    let plugins = Plugins::discover(&config.plugin_dirs);
    for refusal in &plugins.refused {
        tracing::warn!(code = refusal.code(), "{refusal}");
    }
    plugins
}

/// Lists the plugins that are there.
pub(super) fn list(file: &ConfigFile, json: bool) -> Result<(), Failure> {
    let config = config::load(file)?.config;
    let plugins = Plugins::discover(&config.plugin_dirs);
    if json {
        style::line(listing(&plugins, &config.persistence_provider));
        return Ok(());
    }
    if plugins.found.is_empty() {
        style::line("no plugins found");
    } else {
        let heading = ["", "NAME", "VERSION", "DURABILITY", "CAPABILITIES", "FILE"];
        let heading = heading.map(|title| style::in_style(style::HEADING, title)).join("\t");
        let rows = plugins.found.iter().map(|found| row(found, &config.persistence_provider));
        style::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
    }
    let refused = plugins.refused.iter().chain(plugins.hidden.iter().map(|hidden| &hidden.refusal));
    let refused: Vec<String> = refused
        .map(|refusal| format!("{} {refusal}", style::in_style(style::BAD, refusal.code())))
        .collect();
    if !refused.is_empty() {
        style::line(format_args!("\n{}", style::in_style(style::HEADING, "refused")));
        refused.iter().for_each(style::line);
    }
    style::line(format_args!("\n{}", style::in_style(style::HEADING, "searched")));
    for dir in &plugins.dirs {
        let missing = if dir.is_dir() { "" } else { " (does not exist)" };
        style::line(format_args!("{}{}", dir.display(), style::in_style(style::FAINT, missing)));
    }
    Ok(())
}

/// Shows what a compiled plugin says about itself.
pub(super) fn inspect(path: &Path, json: bool) -> Result<(), Failure> {
    let inspected = plugins::inspect(path);
    if json {
        let report = match &inspected {
            Ok(found) => described(found),
            Err(refusal) => refused(refusal),
        };
        style::line(report);
    }
    let found =
        inspected.map_err(|refusal| Failure::Failed(format!("{} {refusal}", refusal.code())))?;
    if !json {
        let Manifest {
            name,
            version,
            description,
            interface,
            target,
            rustc,
            panic,
            durability,
            ..
        } = &found.manifest;
        style::table(&[
            format!("{}\t{version}", style::in_style(style::NAME, name)),
            format!("\t{description}"),
            format!("file\t{} ({} KiB)", found.path.display(), found.size.div_ceil(1024)),
            format!("interface\t{}.{}", interface.major, interface.minor),
            format!("target\t{target}, built by rustc {rustc}, panic={panic}"),
            format!("durability\t{}", durability.as_str()),
            format!("capabilities\t{}", capabilities(&found.manifest)),
        ]);
        settings(&found.manifest.config_schema);
    }
    Ok(())
}

fn row(Found { path, manifest, .. }: &Found, selected: &str) -> String {
    let mark =
        if manifest.name == selected { style::in_style(style::GOOD, "*") } else { String::new() };
    format!(
        "{mark}\t{}\t{}\t{}\t{}\t{}",
        style::in_style(style::NAME, &manifest.name),
        manifest.version,
        manifest.durability.as_str(),
        capabilities(manifest),
        path.display(),
    )
}

fn capabilities(manifest: &Manifest) -> String {
    let names: Vec<_> = manifest.capabilities.iter().copied().map(Capability::as_str).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// The settings of a plugin, as far as its schema tells them one by one.
fn settings(schema: &Value) {
    let Some(properties) = schema["properties"].as_object().filter(|all| !all.is_empty()) else {
        return style::line("\nThis plugin has no settings.");
    };
    style::line(format_args!("\n{}", style::in_style(style::HEADING, "persistenceConfig")));
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let row = |(name, about): (&String, &Value)| {
        let kind = text(&about["type"]);
        let default = match &about["default"] {
            Value::Null => String::new(),
            default => format!("default {default}"),
        };
        let about = text(&about["description"]);
        format!("{}\t{kind}\t{default}\t{about}", style::in_style(style::NAME, name))
    };
    style::table(&properties.iter().map(row).collect::<Vec<_>>());
}

fn listing(plugins: &Plugins, selected: &str) -> Value {
    let hidden = plugins.hidden.iter().map(|hidden| &hidden.refusal);
    json!({
        "selected": selected,
        "plugins": plugins.found.iter().map(described).collect::<Vec<_>>(),
        "refused": plugins.refused.iter().chain(hidden).map(refused).collect::<Vec<_>>(),
        "searched": plugins.dirs,
    })
}

fn described(found: &Found) -> Value {
    json!({ "path": found.path, "size": found.size, "manifest": found.manifest })
}

fn refused(refusal: &Refusal) -> Value {
    json!({ "path": refusal.path, "code": refusal.code(), "reason": refusal.kind.to_string() })
}
