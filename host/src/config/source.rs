//! Reading the file and the environment into one value for each key.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    DEFAULT_FILE, Problem,
    keys::{self, FOREIGN, KEYS, Key, Kind},
};
use crate::nearest::nearest;

/// What was set, by key.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) set: BTreeMap<&'static str, Setting>,
    pub(crate) warnings: Vec<Problem>,
    pub(crate) file: Option<PathBuf>,
}

/// A value of the right kind, and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "environment: {name}"),
        }
    }
}

impl Values {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.set.get(name).map(|setting| &setting.value)
    }

    /// How a problem with a key names its place.
    pub(crate) fn place(&self, name: &str) -> String {
        match self.set.get(name).map(|setting| &setting.origin) {
            Some(Origin::Environment(variable)) => {
                format!("environment variable {variable} (`{name}`)")
            }
            Some(Origin::File(path)) => format!("{}: `{name}`", path.display()),
            Some(Origin::Default) | None => format!("`{name}`"),
        }
    }
}

/// Reads the file and lays the environment over it.
pub(crate) fn read(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Values {
    let mut values = Values::default();
    if let Some((path, entries)) = read_file(file, problems) {
        for (name, mut value) in entries {
            let place = format!("{}: `{name}`", path.display());
            let Some(key) = keys::find(&name) else {
                unknown(&name, place, &mut values.warnings, problems);
                continue;
            };
            expand(&mut value, environment, &place, problems);
            let origin = Origin::File(path.clone());
            values.admit(key, value, origin, place, problems);
        }
        values.file = Some(path);
    }
    for key in KEYS {
        // A variable that is set to nothing is how compose files leave one out.
        let set = key.env.iter().find_map(|name| {
            Some((*name, environment.get(*name).filter(|value| !value.is_empty())?))
        });
        if let Some((variable, text)) = set {
            let place = format!("environment variable {variable} (`{}`)", key.name);
            match from_environment(key, text) {
                Ok(value) => {
                    values.admit(key, value, Origin::Environment(variable), place, problems)
                }
                Err(message) => problems.push(Problem { place, message }),
            }
        }
    }
    values
}

impl Values {
    fn admit(
        &mut self,
        key: &'static Key,
        value: Value,
        origin: Origin,
        place: String,
        problems: &mut Vec<Problem>,
    ) {
        // A key without a value is how YAML leaves one out.
        if value.is_null() {
            return;
        }
        match coerce(&key.kind, value) {
            Ok(value) => {
                self.set.insert(key.name, Setting { value, origin });
            }
            Err(message) => problems.push(Problem { place, message }),
        }
    }
}

fn read_file(
    file: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> Option<(PathBuf, Map<String, Value>)> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut fail = |message: String| {
        problems.push(Problem { place: path.display().to_string(), message });
        None
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => return None,
        Err(error) => return fail(format!("cannot be read: {error}")),
    };
    match parse(&text) {
        Ok(entries) => Some((path.to_owned(), entries)),
        Err(message) => fail(message),
    }
}

/// The entries of a file.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, String> {
    // As in codeQ's own reader, only true and false are switches: `no` is a text, and may be a name.
    // The lines around a mistake may hold a secret.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    // An empty document, or one of comments only, sets nothing.
    match serde_saphyr::from_str_with_options::<Option<Value>>(text, options) {
        Ok(None | Some(Value::Null)) => Ok(Map::new()),
        Ok(Some(Value::Object(entries))) => Ok(entries),
        Ok(Some(_)) => Err("must hold a mapping of keys to values, such as `port: 8080`".into()),
        Err(error) => Err(format!("is not valid YAML: {error}")),
    }
}
fn unknown(name: &str, place: String, warnings: &mut Vec<Problem>, problems: &mut Vec<Problem>) {
    if FOREIGN.contains(&name) {
        let message = "has no effect: this host does not have that feature of codeQ".into();
        return warnings.push(Problem { place, message });
    }
    let message = match nearest(name, KEYS.iter().map(|key| key.name)) {
        Some(near) => format!("is unknown; did you mean `{near}`?"),
        None => "is unknown; `codeq config show` lists the known keys".into(),
    };
    problems.push(Problem { place, message });
}

/// Replaces `${VAR}` in every text of a value.
fn expand(
    value: &mut Value,
    environment: &BTreeMap<String, String>,
    place: &str,
    problems: &mut Vec<Problem>,
) {
    match value {
        Value::String(text) if text.contains("${") => match expand_text(text, environment) {
            Ok(expanded) => *text = expanded,
            Err(message) => problems.push(Problem { place: place.into(), message }),
        },
        Value::Array(items) => {
            items.iter_mut().for_each(|item| expand(item, environment, place, problems))
        }
        Value::Object(entries) => entries.iter_mut().for_each(|(name, value)| {
            let place = format!("{}.{name}`", place.trim_end_matches('`'));
            expand(value, environment, &place, problems);
        }),
        _ => {}
    }
}

/// A text with `${VAR}` replaced in it.
pub(crate) fn expand_text(
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| format!("`{text}` has a `${{` without its `}}`"))?;
        let value = environment
            .get(name)
            .ok_or_else(|| format!("`${{{name}}}` names a variable that is not set; set {name}"))?;
        expanded.push_str(before);
        expanded.push_str(value);
        rest = after;
    }
    Ok(expanded + rest)
}

pub(super) fn from_environment(key: &Key, text: &str) -> Result<Value, String> {
    match key.kind {
        Kind::Mapping => serde_json::from_str(text).map_err(|error| {
            format!("is not JSON ({error}): write it like {{\"key\": \"value\"}}")
        }),
        // What is no JSON is the text itself: a token need not be quoted.
        Kind::Credentials => Ok(serde_json::from_str(text)
            .ok()
            .filter(|value: &Value| value.is_object() || value.is_array() || value.is_string())
            .unwrap_or_else(|| text.into())),
        Kind::Paths => Ok(text.split(':').filter(|path| !path.is_empty()).collect()),
        _ => Ok(text.into()),
    }
}

/// Brings a value to its setting's kind. Numbers and switches may be written as text, which is what
/// the environment and `${VAR}` make of them.
pub(super) fn coerce(kind: &Kind, value: Value) -> Result<Value, String> {
    let shown = shown(kind, &value);
    let wrong = |right: String| Err(format!("is {shown}, which is not {right}"));
    match (kind, value) {
        (Kind::Text | Kind::Secret, Value::String(text)) => Ok(text.into()),
        (Kind::Text | Kind::Secret, Value::Number(number)) => Ok(number.to_string().into()),
        (Kind::Text | Kind::Secret, _) => wrong("a text".into()),
        (Kind::Integer { min, max }, value) => {
            let number = match &value {
                Value::Number(number) => number.as_i64(),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            match number.filter(|number| (min..=max).contains(&number)) {
                Some(number) => Ok(number.into()),
                None => wrong(format!("a whole number from {min} to {max}")),
            }
        }
        (Kind::Ratio, value) => {
            let number = match &value {
                Value::Number(number) => number.as_f64(),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            match number.filter(|number| (0.0..=1.0).contains(number)) {
                Some(number) => Ok(number.into()),
                None => wrong("a number from 0 to 1".into()),
            }
        }
        (Kind::Switch, Value::Bool(on)) => Ok(on.into()),
        (Kind::Switch, Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Ok(true.into()),
            "false" | "0" | "no" => Ok(false.into()),
            _ => wrong("true or false".into()),
        },
        (Kind::Switch, _) => wrong("true or false".into()),
        (Kind::Choice(choices), value) => {
            let choices = choices();
            let text = value.as_str().map(str::to_ascii_lowercase).unwrap_or_default();
            if choices.contains(&text.as_str()) {
                return Ok(text.into());
            }
            let hint = nearest(&text, choices.iter().copied())
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            wrong(format!("one of {}{hint}", choices.join(", ")))
        }
        (Kind::Paths, Value::Array(paths)) if paths.iter().all(Value::is_string) => {
            Ok(paths.into())
        }
        (Kind::Paths, Value::String(path)) => Ok(Value::Array(vec![path.into()])),
        (Kind::Paths, _) => wrong("a list of directories".into()),
        (Kind::Mapping | Kind::Credentials, value @ Value::Object(_)) => Ok(value),
        (Kind::Credentials, value @ (Value::String(_) | Value::Array(_))) => Ok(value),
        (Kind::Mapping, _) => wrong("a mapping of keys to values".into()),
        (Kind::Credentials, _) => wrong("a mapping of keys to values, a text, or a list".into()),
    }
}

/// A value as it may stand in a message.
fn shown(kind: &Kind, value: &Value) -> String {
    match kind {
        Kind::Secret | Kind::Mapping | Kind::Credentials => match value {
            Value::Array(_) => "a list".into(),
            Value::Object(_) => "a mapping".into(),
            _ => "a single value".into(),
        },
        _ => format!("`{value}`"),
    }
}
