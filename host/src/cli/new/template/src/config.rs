//! The settings: `persistenceConfig` of the host.
//!
//! The host checks them against `config.schema.json` first, so what arrives here has the right
//! types. What a schema cannot say, such as whether a directory exists, `Store::open` checks.

use std::num::NonZeroUsize;

use serde::Deserialize;

/// The settings of the store.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The most tasks it keeps, finished ones included.
    pub max_tasks: Option<NonZeroUsize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_the_schema_spells_them() {
        let config: Config = serde_json::from_str(r#"{"maxTasks": 3}"#).unwrap();
        assert_eq!(config.max_tasks, NonZeroUsize::new(3));
        let config: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(config.max_tasks, None);
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"maxTask": 3}"#).is_err());
    }
}
