//! Carrying a codeQ server's configuration over: what its file and environment set, and what it does
//! when nothing is set and this host would do otherwise.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use serde_json::{Map, Value};

use super::{
    ConfigError, Problem,
    keys::{self, FOREIGN, KEYS, Key, Kind},
    source::{self, Coerced},
};

/// A configuration for this host, and what became of codeQ's.
#[derive(Debug, Default)]
pub struct Import {
    /// The file for this host.
    pub yaml: String,
    /// What was carried over with a change, or has another effect here.
    pub changed: Vec<Problem>,
    /// What could not be carried over.
    pub left_out: Vec<Problem>,
    /// Whether somebody who had to show who he is would not have to any more.
    pub lost_auth: bool,
}

/// What codeQ does when nothing is set, where this host does otherwise. From codeQ's
/// `pkg/config/config.go`.
const DEFAULTS: [(&str, &str, &str); 3] = [
    ("timezone", "America/Sao_Paulo", "codeQ's default; times in records have its offset"),
    ("logFormat", "json", "codeQ's default"),
    ("localArtifactsDir", "/tmp/codeq-artifacts", "codeQ's default"),
];

/// Reads codeQ's file, and lays its environment over it as codeQ does.
///
/// # Errors
///
/// The file cannot be read, or is no YAML mapping.
pub fn import(file: &Path, environment: &BTreeMap<String, String>) -> Result<Import, ConfigError> {
    let mut importer = Importer { environment, import: Import::default() };
    let mut entries = entries(file)?;
    importer.write(&format!("# Carried over from {}", file.display()));
    let mut set = Vec::new();
    for key in KEYS {
        let in_file = entries.remove(key.name);
        if importer.carry(key, in_file, file) {
            set.push(key.name);
        }
    }
    for name in entries.keys() {
        let place = format!("{}: `{name}`", file.display());
        let message = match keys::is_foreign(name) {
            true => NO_SUCH_FEATURE,
            false => "is no setting of codeQ that this host knows",
        };
        importer.left_out(place, message);
    }
    for variable in FOREIGN.iter().flat_map(|foreign| foreign.variables(environment)) {
        importer.left_out(format!("environment variable {variable}"), NO_SUCH_FEATURE);
    }
    importer.add_defaults(&set);
    importer.look_at_auth(&set);
    importer.look_at_webhooks(&set);
    Ok(importer.import)
}

const NO_SUCH_FEATURE: &str = "this host does not have that feature of codeQ";

fn entries(file: &Path) -> Result<Map<String, Value>, ConfigError> {
    let wrong = |message: String| ConfigError {
        problems: vec![Problem { place: file.display().to_string(), message }],
    };
    let text =
        fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    source::parse(&text).map_err(wrong)
}

struct Importer<'a> {
    environment: &'a BTreeMap<String, String>,
    import: Import,
}

impl Importer<'_> {
    fn write(&mut self, line: &str) {
        // Writing to a text does not fail.
        let _ = writeln!(self.import.yaml, "{line}");
    }

    fn changed(&mut self, place: String, message: impl Into<String>) {
        self.import.changed.push(Problem { place, message: message.into() });
    }

    fn left_out(&mut self, place: String, message: impl Into<String>) {
        self.import.left_out.push(Problem { place, message: message.into() });
    }

    /// Carries a setting over. Answers whether it is set for this host now.
    fn carry(&mut self, key: &'static Key, in_file: Option<Value>, file: &Path) -> bool {
        let in_environment = key.env.iter().find_map(|name| {
            Some((*name, self.environment.get(*name).filter(|value| !value.is_empty())?.clone()))
        });
        if let Some((variable, text)) = in_environment {
            let place = format!("environment variable {variable} (`{}`)", key.name);
            let is_number = matches!(key.kind, Kind::Integer { .. } | Kind::Ratio);
            if is_number && text.trim().parse::<f64>().is_err() {
                // What the file says counts then, as in codeQ.
                self.changed(place, format!("is `{text}`, which is no number; codeQ ignores it"));
            } else if matches!(key.kind, Kind::Secret | Kind::Mapping | Kind::Credentials) {
                return self.leave_in_environment(key, variable, place);
            } else {
                return self.admit(key, source::from_environment(key, &text), place);
            }
        }
        let place = format!("{}: `{}`", file.display(), key.name);
        match in_file {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) if text.is_empty() => false,
            Some(value) => self.admit(key, Ok(value), place),
        }
    }

    /// What may be secret is not written into a file; this host reads the same variable.
    fn leave_in_environment(&mut self, key: &Key, variable: &str, place: String) -> bool {
        if matches!(key.kind, Kind::Secret) {
            self.write(&format!("{}: ${{{variable}}}", key.name));
        }
        self.changed(place, "stays there: this host reads it, too");
        true
    }

    fn admit(&mut self, key: &'static Key, value: Result<Value, String>, place: String) -> bool {
        let number = value.as_ref().ok().and_then(source::number);
        let codeq_takes_its_default = number.is_some_and(|number| match &key.kind {
            Kind::Integer { .. } | Kind::Count { .. } | Kind::Pause => number <= 0.0,
            Kind::Ratio => number <= 0.0 || number > 1.0,
            _ => false,
        });
        if let (Some(number), true) = (number, codeq_takes_its_default) {
            self.changed(
                place,
                format!("is {number}; codeQ takes its default for that, and so it is left out"),
            );
            return false;
        }
        // A value that names a variable is looked at once that is known.
        let names_variable = value.as_ref().is_ok_and(|value| value.to_string().contains("${"));
        let checked = value.and_then(|value| match names_variable {
            true => Ok(value.into()),
            false => source::coerce(key, value),
        });
        match checked {
            Ok(Coerced { value, remark }) => {
                self.write(&format!("{}: {value}", key.name));
                if let Some(remark) = remark {
                    self.changed(place, remark);
                }
                true
            }
            Err(message) => {
                self.left_out(place, message);
                false
            }
        }
    }

    fn add_defaults(&mut self, set: &[&str]) {
        if !set.contains(&"persistenceProvider") {
            self.write("persistenceProvider: redis");
        }
        for (name, value, why) in DEFAULTS {
            if !set.contains(&name) {
                self.write(&format!("{name}: {}", Value::from(value)));
                self.changed(format!("`{name}`"), format!("was not set and is {value} now: {why}"));
            }
        }
    }

    fn look_at_auth(&mut self, set: &[&str]) {
        let is_set = |names: &[&str]| names.iter().any(|name| set.contains(name));
        let producers = is_set(&["producerAuthProvider", "identityJwksUrl", "identityServiceUrl"]);
        let workers = is_set(&["workerAuthProvider", "workerJwksUrl"]);
        if !producers {
            self.import.lost_auth = true;
            self.left_out(
                "`producerAuthProvider`".into(),
                "codeQ asks its own identity service who a producer is, which this host cannot: set \
                 producerAuthProvider and producerAuthConfig",
            );
        }
        if producers && !is_set(&["producerAuthProvider", "identityAudience"]) {
            self.left_out(
                "`identityAudience`".into(),
                "is not set, and the host does not start without it: say whom the producers' tokens \
                 are for, or set producerAuthProvider and producerAuthConfig",
            );
        }
        if !producers && !workers {
            self.changed(
                "`bind`".into(),
                "codeQ listens on all addresses; without auth providers this host listens on 127.0.0.1 only",
            );
        }
    }

    fn look_at_webhooks(&mut self, set: &[&str]) {
        if !set.contains(&"webhookAllowPrivate") {
            self.changed(
                "`webhookAllowPrivate`".into(),
                "is not set: codeQ calls webhooks wherever they are, this host only those in public \
                 networks; set it to true if yours are in a private network or on this machine",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, keys};

    fn imported(yaml: &str, environment: &[(&str, &str)]) -> Import {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("codeq.yml");
        fs::write(&file, yaml).unwrap();
        let environment =
            environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        import(&file, &environment).unwrap()
    }

    fn says(problems: &[Problem], part: &str) -> bool {
        problems.iter().any(|problem| problem.to_string().contains(part))
    }

    #[test]
    fn what_is_set_is_set_again_and_can_be_loaded() {
        let import = imported(
            "port: 9000\nredisAddr: queue:6379\nbackoffBaseSeconds: 0\nraft: {nodes: 3}\n\
             defaultLeaseSeconds: 30\nlogLevel: loud\ntracingSampleRatio: 0\n",
            &[
                ("REDIS_PASSWORD", "hunter2"),
                ("MAX_ATTEMPTS_DEFAULT", "7"),
                ("PORT", "x"),
                ("RAFT_PEERS", "a=b:1"),
            ],
        );
        assert!(!import.yaml.contains("hunter2"), "{}", import.yaml);
        assert!(import.lost_auth && says(&import.left_out, "`producerAuthProvider`"));
        assert!(says(&import.left_out, "`raft`") && says(&import.left_out, "RAFT_PEERS"));
        assert!(says(&import.changed, "`logLevel`: is `\"loud\"`"));
        assert!(says(&import.changed, "`tracingSampleRatio`: is 0"));
        assert!(says(&import.changed, "PORT (`port`): is `x`"));
        assert!(says(&import.changed, "`backoffBaseSeconds`: is 0"));
        assert!(says(&import.changed, "America/Sao_Paulo"));

        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("ours.yml");
        fs::write(&file, &import.yaml).unwrap();
        let environment = [("REDIS_PASSWORD".to_owned(), "hunter2".to_owned())].into();
        let config = Config::load_with(Some(&file), &environment).unwrap().config;
        assert_eq!((config.port, config.rules.max_attempts), (9000, 7));
        assert_eq!(config.timezone, "America/Sao_Paulo");
        assert_eq!(config.persistence_config["addr"], "queue:6379");
        assert_eq!(config.persistence_config["password"], "hunter2");
    }

    #[test]
    fn an_identity_service_goes_on_to_say_who_producers_are() {
        let service = "identityServiceUrl: https://id.example.org\n";
        let import = imported(&format!("{service}identityAudience: queue\n"), &[]);
        assert!(!import.lost_auth && import.left_out.is_empty(), "{import:?}");
        assert!(import.yaml.contains("identityServiceUrl: \"https://id.example.org\""));
        let import = imported(service, &[]);
        assert!(!import.lost_auth && says(&import.left_out, "`identityAudience`"), "{import:?}");
    }

    #[test]
    fn whoever_has_private_webhooks_is_told_how_to_have_them() {
        let import = imported("port: 1\n", &[]);
        assert!(says(&import.changed, "`webhookAllowPrivate`: is not set"), "{import:?}");
        let import = imported("port: 1\nwebhookAllowPrivate: true\n", &[]);
        assert!(!says(&import.changed, "webhookAllowPrivate"), "{import:?}");
    }

    #[test]
    fn what_is_wrong_is_left_out_with_a_reason() {
        let import = imported("backoffPolicy: sometimes\ncolour: red\n", &[]);
        assert!(says(&import.left_out, "`backoffPolicy`: is `\"sometimes\"`"), "{import:?}");
        assert!(says(&import.left_out, "`colour`"), "{import:?}");
        assert!(!import.yaml.contains("sometimes") && !import.yaml.contains("colour"));
    }

    #[test]
    fn every_default_that_differs_is_a_setting() {
        for (name, ..) in DEFAULTS {
            assert!(keys::find(name).is_some(), "{name}");
        }
    }
}
