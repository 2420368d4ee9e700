//! Reading the file and the environment into one value for each key.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    DEFAULT_FILE, Problem,
    keys::{self, FOREIGN, KEYS, Key, Kind, MOST_SECONDS},
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
    /// What people should know of it, because it is not what was written.
    remark: Option<String>,
    /// The places in it, as JSON pointers, of what was written as one variable and nothing else.
    pub(crate) references: Vec<String>,
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
        for (name, value) in entries {
            let place = format!("{}: `{name}`", path.display());
            let Some(key) = keys::find(&name) else {
                unknown(&name, place, &mut values.warnings, problems);
                continue;
            };
            // Before variables are replaced, so that what they hold cannot end a JSON text.
            let mut value = read_json(&key.kind, value.clone()).unwrap_or(value);
            let mut references = Vec::new();
            find_references(&value, String::new(), &mut references);
            expand(&mut value, environment, &place, problems);
            let origin = Origin::File(path.clone());
            if values.admit(key, value, origin, place, problems)
                && let Some(setting) = values.set.get_mut(key.name)
            {
                setting.references = references;
            }
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
                    values.admit(key, value, Origin::Environment(variable), place, problems);
                }
                Err(message) => problems.push(Problem { place, message }),
            }
        }
    }
    values.warn_of_foreign_variables(environment);
    values.warn_of_remarks();
    values
}

/// What is said of a feature that only codeQ has.
const NO_SUCH_FEATURE: &str = "has no effect: this host does not have that feature of codeQ";

impl Values {
    /// Takes a value, unless there is none or it is wrong; answers whether it did.
    fn admit(
        &mut self,
        key: &'static Key,
        value: Value,
        origin: Origin,
        place: String,
        problems: &mut Vec<Problem>,
    ) -> bool {
        // A key without a value is how YAML leaves one out.
        if value.is_null() {
            return false;
        }
        match coerce(key, value) {
            Ok(Coerced { value, remark }) => {
                let setting = Setting { value, origin, remark, references: Vec::new() };
                self.set.insert(key.name, setting);
                true
            }
            Err(message) => {
                problems.push(Problem { place, message });
                false
            }
        }
    }

    fn warn_of_foreign_variables(&mut self, environment: &BTreeMap<String, String>) {
        for foreign in FOREIGN {
            for variable in foreign.variables(environment) {
                self.warnings.push(Problem {
                    place: format!("environment variable {variable}"),
                    message: NO_SUCH_FEATURE.into(),
                });
            }
        }
    }

    /// Only of what is in effect: the environment may have replaced what the file says.
    fn warn_of_remarks(&mut self) {
        let remarked = KEYS.iter().filter_map(|key| {
            let message = self.set.get(key.name)?.remark.clone()?;
            Some(Problem { place: self.place(key.name), message })
        });
        let remarked: Vec<Problem> = remarked.collect();
        self.warnings.extend(remarked);
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
    // An empty document, or one of comments only, sets nothing.
    match yaml(text) {
        Ok(None | Some(Value::Null)) => Ok(Map::new()),
        Ok(Some(Value::Object(entries))) => Ok(entries),
        Ok(Some(_)) => Err("must hold a mapping of keys to values, such as `port: 8080`".into()),
        Err(error) => Err(format!("is not valid YAML: {error}")),
    }
}

/// The number or switch that a text is in YAML.
pub(super) fn scalar(text: &str) -> Option<Value> {
    yaml(text).ok()?.filter(|value| value.is_number() || value.is_boolean())
}

fn yaml(text: &str) -> Result<Option<Value>, serde_saphyr::Error> {
    // As in codeQ's own reader, only true and false are switches: `no` is a text, and may be a name.
    // The lines around a mistake may hold a secret.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
}

/// A text in place of a mapping or a list, which codeQ takes as JSON; anything else as it is.
/// Messages never show the text.
fn read_json(kind: &Kind, mut value: Value) -> Result<Value, String> {
    if !matches!(kind, Kind::Mapping | Kind::Credentials) {
        return Ok(value);
    }
    if let Some(text) = value.as_str().filter(|text| text.trim_start().starts_with(['{', '['])) {
        value = serde_json::from_str(text).map_err(|error| {
            format!("is a text that begins like JSON but is none ({error}): mend it, or write YAML")
        })?;
    }
    let nested = value.get_mut("providers").and_then(Value::as_array_mut);
    if let (Kind::Credentials, Some(providers)) = (kind, nested) {
        for config in providers.iter_mut().filter_map(|provider| provider.get_mut("config")) {
            *config = read_json(kind, config.take())?;
        }
    }
    Ok(value)
}

fn unknown(name: &str, place: String, warnings: &mut Vec<Problem>, problems: &mut Vec<Problem>) {
    if keys::is_foreign(name) {
        return warnings.push(Problem { place, message: NO_SUCH_FEATURE.into() });
    }
    let message = match nearest(name, KEYS.iter().map(|key| key.name)) {
        Some(near) => format!("is unknown; did you mean `{near}`?"),
        None => "is unknown; `codeq config show` lists the known keys".into(),
    };
    problems.push(Problem { place, message });
}

/// Where texts are that consist of one variable and nothing else.
fn find_references(value: &Value, at: String, found: &mut Vec<String>) {
    let mut below = |name: &str, value: &Value| {
        // As RFC 6901 has it.
        let name = name.replace('~', "~0").replace('/', "~1");
        find_references(value, format!("{at}/{name}"), found);
    };
    match value {
        Value::Object(entries) => entries.iter().for_each(|(name, value)| below(name, value)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| below(&index.to_string(), value));
        }
        Value::String(text) => {
            let variable = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            if variable.is_some_and(|name| !name.contains('}')) {
                found.push(at);
            }
        }
        _ => {}
    }
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
        let (name, after) = after.split_once('}').ok_or("has a `${` without its `}`")?;
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

/// A value of its setting's kind.
#[derive(Debug)]
pub(super) struct Coerced {
    pub(super) value: Value,
    /// Why it is not what was written.
    pub(super) remark: Option<String>,
}

impl From<Value> for Coerced {
    fn from(value: Value) -> Coerced {
        Coerced { value, remark: None }
    }
}

/// Brings a value to its setting's kind. Numbers and switches may be written as text, which is what
/// the environment and `${VAR}` make of them.
pub(super) fn coerce(key: &Key, value: Value) -> Result<Coerced, String> {
    let shown = shown(&key.kind, &value);
    let wrong = |right: String| Err(format!("is {shown}, which is not {right}"));
    let by_default = |value: Value| Coerced {
        remark: Some(format!("is {shown}, for which the default {value} is taken, as in codeQ")),
        value,
    };
    match (&key.kind, read_json(&key.kind, value)?) {
        (Kind::Text | Kind::Secret, Value::String(text)) => Ok(Value::from(text).into()),
        (Kind::Text | Kind::Secret, Value::Number(number)) => {
            Ok(Value::from(number.to_string()).into())
        }
        (Kind::Text | Kind::Secret, _) => wrong("a text".into()),
        (Kind::Integer { min, max }, value) => match whole(&value) {
            Some(number) if (*min..=*max).contains(&number) => Ok(Value::from(number).into()),
            _ => wrong(format!("a whole number from {min} to {max}")),
        },
        (Kind::Count { max }, value) => match whole(&value) {
            Some(number) if number <= 0 => Ok(by_default(number_of(key.default))),
            Some(number) if number <= *max => Ok(Value::from(number).into()),
            _ => wrong(format!("a whole number from 1 to {max}")),
        },
        (Kind::Pause, Value::String(text)) if text.trim() == NONE => Ok(Value::from(NONE).into()),
        (Kind::Pause, value) => match whole(&value) {
            Some(number) if number < 0 => Ok(by_default(number_of(key.default))),
            Some(number) if number <= MOST_SECONDS => Ok(Value::from(number).into()),
            _ => wrong(format!("{NONE}, or a whole number up to {MOST_SECONDS}")),
        },
        (Kind::Ratio, value) => match number(&value) {
            Some(number) if (0.0..=1.0).contains(&number) => Ok(Value::from(number).into()),
            Some(_) => Ok(by_default(number_of(key.default))),
            None => wrong("a number from 0 to 1".into()),
        },
        (Kind::Switch, Value::Bool(on)) => Ok(Value::from(on).into()),
        (Kind::Switch, Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Ok(Value::from(true).into()),
            "false" | "0" | "no" => Ok(Value::from(false).into()),
            _ => wrong("true or false".into()),
        },
        (Kind::Switch, _) => wrong("true or false".into()),
        (Kind::Choice(choices), value) => match choose(&choices(), &value) {
            Ok(choice) => Ok(Value::from(choice).into()),
            Err(right) => wrong(right),
        },
        (Kind::Leniently(choices, otherwise), value) => Ok(match choose(&choices(), &value) {
            Ok(choice) => Value::from(choice).into(),
            Err(right) => Coerced {
                value: (*otherwise).into(),
                remark: Some(format!(
                    "is {shown}, which is not {right}; {otherwise} is taken, as in codeQ"
                )),
            },
        }),
        (Kind::Paths, Value::Array(paths)) if paths.iter().all(Value::is_string) => {
            Ok(Value::from(paths).into())
        }
        (Kind::Paths, Value::String(path)) => Ok(Value::Array(vec![path.into()]).into()),
        (Kind::Paths, _) => wrong("a list of directories".into()),
        (Kind::Mapping | Kind::Credentials, value @ Value::Object(_)) => Ok(value.into()),
        (Kind::Credentials, value @ (Value::String(_) | Value::Array(_))) => Ok(value.into()),
        (Kind::Mapping, _) => wrong("a mapping of keys to values".into()),
        (Kind::Credentials, _) => wrong("a mapping of keys to values, a text, or a list".into()),
    }
}

/// How a pause of no time at all is written.
const NONE: &str = "none";

/// A whole number, which may be written as a text.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A number, which may be written as a text.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A number as the table of keys has it.
fn number_of(default: &str) -> Value {
    serde_json::from_str(default).unwrap_or_default()
}

/// The choice that a value stands for, else what would be right.
fn choose(choices: &[&'static str], value: &Value) -> Result<String, String> {
    let text = value.as_str().map(|text| text.trim().to_ascii_lowercase()).unwrap_or_default();
    let text = if text == "warning" { "warn" } else { &text };
    if choices.contains(&text) {
        return Ok(text.into());
    }
    let hint = nearest(text, choices.iter().copied());
    let hint = hint.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Err(format!("one of {}{hint}", choices.join(", ")))
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
