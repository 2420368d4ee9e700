//! The configuration as people see it: what is in effect, and where it came from.

use std::path::PathBuf;

use serde_json::Value;

use super::{
    Config, Origin,
    keys::{KEYS, Key, Kind},
    source::Values,
};

/// Every setting, secrets masked.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// The settings, in the order of the documentation.
    pub entries: Vec<Entry>,
}

/// A setting as it is shown.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub name: &'static str,
    /// The value in effect; nothing for a key that nothing sets and whose default depends.
    pub value: Value,
    /// Where the value came from.
    pub origin: Origin,
}

/// What stands where a secret was.
const MASK: &str = "******";

impl Shown {
    pub(crate) fn new(values: &Values, config: &Config) -> Shown {
        let entries = KEYS.iter().map(|key| {
            let set = values.set.get(key.name);
            let origin = set.map_or(Origin::Default, |setting| setting.origin.clone());
            let mut value = match key.name {
                "bind" => config.bind.to_string().into(),
                "persistenceConfig" => config.persistence_config.clone(),
                "pluginDirs" => {
                    config.plugin_dirs.iter().map(|dir| dir.display().to_string()).collect()
                }
                _ => set.map_or_else(|| default_of(key), |setting| setting.value.clone()),
            };
            match &key.kind {
                Kind::Secret => mask_text(&mut value),
                Kind::Credentials => mask_credentials(&mut value),
                _ => mask(&mut value),
            }
            Entry { name: key.name, value, origin }
        });
        Shown { file: values.file.clone(), entries: entries.collect() }
    }
}

impl Shown {
    /// Replaces a value of the plugin's configuration, unless it is masked.
    pub(super) fn replace(&mut self, at: &str, old: &Value, new: &Value) {
        let settings = self.entries.iter_mut().filter(|entry| entry.name == "persistenceConfig");
        for value in settings.filter_map(|entry| entry.value.pointer_mut(at)) {
            if value == old {
                *value = new.clone();
            }
        }
    }

    /// Masks what the plugin's schema calls secret: its settings with `"writeOnly": true`.
    pub(crate) fn mask_secrets_of(&mut self, schema: &Value) {
        let settings = self.entries.iter_mut().filter(|entry| entry.name == "persistenceConfig");
        for (name, value) in settings.filter_map(|entry| entry.value.as_object_mut()).flatten() {
            if schema["properties"][name.as_str()]["writeOnly"] == true {
                mask_text(value);
            }
        }
    }
}

/// A default in the form in which a file would set it; nothing if it depends.
fn default_of(key: &Key) -> Value {
    match &key.kind {
        Kind::Leniently(choices, _) if !choices().contains(&key.default) => Value::Null,
        Kind::Text | Kind::Secret | Kind::Choice(_) | Kind::Leniently(..) => key.default.into(),
        _ => serde_json::from_str(key.default).unwrap_or_default(),
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.iter_mut().for_each(|(name, value)| mask_entry(name, value));
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::String(text) => mask_url(text),
        _ => {}
    }
}

fn mask_entry(name: &str, value: &mut Value) {
    let name = name.to_lowercase();
    let secret = ["password", "secret", "token", "key", "credential"];
    if secret.iter().any(|part| name.contains(part)) && !name.ends_with("keylayout") {
        mask_text(value);
    } else {
        mask(value);
    }
}

/// Texts in place of mappings are tokens, also below the `providers` of `multi`.
fn mask_credentials(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                match name.as_str() {
                    "providers" | "config" => mask_credentials(value),
                    _ => mask_entry(name, value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_credentials),
        Value::Null => {}
        token => mask_text(token),
    }
}

fn mask_text(value: &mut Value) {
    if *value != Value::String(String::new()) {
        *value = MASK.into();
    }
}

/// Masks the password of a URL such as `redis://user:password@host`.
fn mask_url(text: &mut String) {
    let Some((scheme, rest)) = text.split_once("://") else {
        return;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let Some((userinfo, _)) = authority.rsplit_once('@') else {
        return;
    };
    let Some((user, _)) = userinfo.split_once(':') else {
        return;
    };
    *text = format!("{scheme}://{user}:{MASK}{}", &rest[userinfo.len()..]);
}
