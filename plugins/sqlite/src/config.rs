//! The plugin's settings: `persistenceConfig` of the host's configuration.

use std::{path::PathBuf, time::Duration};

use codeq_plugin::{Error, Result};
use serde::Deserialize;

/// Where everything is kept, and what a write has survived once it is answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// The file that everything is kept in.
    pub path: PathBuf,
    /// What an answered write survives.
    pub durability: Durability,
    /// How much of the file is kept in memory, in MiB.
    pub cache_megabytes: u32,
    /// How long opening waits for another host to let go of the file.
    pub open_timeout_ms: u64,
    /// How long an operation may take.
    pub operation_timeout_ms: u64,
}

/// What an answered write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Power loss of the machine.
    #[default]
    Disk,
    /// The host being killed.
    Process,
}

impl Config {
    /// Checks what the schema cannot say.
    pub(crate) fn checked(self) -> Result<Config> {
        let directory = self.directory();
        let path = self.path.display();
        if !directory.is_dir() {
            return Err(Error::invalid_config(format!(
                "persistenceConfig.path is `{path}`: there is no directory {0}; make it (mkdir -p {0}) \
                 or mount what belongs there",
                directory.display()
            )));
        }
        if self.path.is_dir() {
            return Err(Error::invalid_config(format!(
                "persistenceConfig.path is `{path}`, which is a directory: name a file in it, such as \
                 {path}/codeq.db"
            )));
        }
        if self.path.file_name().is_none() {
            return Err(Error::invalid_config(format!(
                "persistenceConfig.path is `{path}`: name a file, such as codeq.db"
            )));
        }
        Ok(self)
    }

    /// The directory of the file.
    pub(crate) fn directory(&self) -> PathBuf {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    /// A file beside the one that everything is kept in, with `suffix` at the end of its name.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    pub(crate) fn open_timeout(&self) -> Duration {
        Duration::from_millis(self.open_timeout_ms)
    }

    pub(crate) fn operation_timeout(&self) -> Duration {
        Duration::from_millis(self.operation_timeout_ms)
    }

    /// How long a write waits for another program that has locked the file: less than the caller
    /// does, so that he hears why.
    pub(crate) fn lock_timeout(&self) -> Duration {
        self.operation_timeout() / 2
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            path: "codeq.db".into(),
            durability: Durability::Disk,
            cache_megabytes: 16,
            open_timeout_ms: 5_000,
            operation_timeout_ms: 10_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_schema() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("config.schema.json")).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let defaults = properties.iter().map(|(key, of)| (key.clone(), of["default"].clone()));
        let written = serde_json::Value::Object(defaults.collect());
        let config: Config = serde_json::from_value(written).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        assert!(properties.values().all(|property| property["description"].is_string()));
    }

    #[test]
    fn a_path_that_cannot_be_is_refused_with_what_to_do() {
        let refusal = |path: &str| {
            let config = Config { path: path.into(), ..Config::default() };
            config.checked().unwrap_err().to_string()
        };
        let dir = tempfile::TempDir::new().unwrap();
        let dir = dir.path().to_str().unwrap();
        let missing = refusal(&format!("{dir}/missing/codeq.db"));
        assert!(missing.contains(&format!("mkdir -p {dir}/missing")), "{missing}");
        assert!(refusal(dir).contains("which is a directory"));
        assert!(refusal("..").contains("which is a directory"));
    }
}
