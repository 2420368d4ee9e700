//! The configuration: one YAML file, then environment variables on top.
//!
//! [`keys`] is the table of everything that can be set. [`source`] reads the file and the
//! environment into one value for each key, and remembers where each came from. [`Config`] is what
//! the rest of the host works with. Whatever is wrong is collected, so that people mend all of it at
//! once; each [`Problem`] names the place, the value and what would be right.

mod import;
mod interpret;
mod keys;
mod settings;
mod show;
mod source;
mod tenants;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use codeq_plugin::{Millis, rules::Rules};
use serde_json::Value;

use crate::plugins::OpenOptions;

pub use import::{Import, import};
pub use settings::{
    Artifacts, Listener, OtlpProtocol, RateLimit, RateLimits, Secret, Tls, Tracing, Webhooks,
};
pub use show::{Entry, Shown};
pub use source::Origin;
pub(crate) use source::expand_text;
#[cfg(test)]
pub(crate) use tenants::tokens_of_no_tenant;

/// The effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The port to listen on; 0 lets the system choose one.
    pub port: u16,
    /// The address to listen on.
    pub bind: IpAddr,
    /// The name of the persistence plugin.
    pub persistence_provider: String,
    /// The plugin's own configuration.
    pub persistence_config: Value,
    /// Larger request bodies are refused, in bytes.
    pub max_body_bytes: usize,
    /// Where plugins are looked for, in order.
    pub plugin_dirs: Vec<PathBuf>,
    /// The SHA-256 that a plugin's file must have, by the plugin's name.
    pub plugin_digests: BTreeMap<String, String>,
    /// The IANA name of the zone in which times are shown to people.
    pub timezone: String,
    /// `dev`, or the name of another environment.
    pub env: String,
    /// How much is logged.
    pub log_level: tracing::Level,
    /// How it is written; by what the log goes to if nothing is said.
    pub log_format: Option<LogFormat>,
    /// How long a lease is when the worker does not say.
    pub default_lease: Millis,
    /// At most how many tasks one repair step touches.
    pub requeue_inspect_limit: u32,
    /// The rules of the queues.
    pub rules: Rules,
    /// Who may produce; nobody is asked if neither this nor the next is set.
    pub producer_auth: Option<AuthProvider>,
    /// Who may work.
    pub worker_auth: Option<AuthProvider>,
    /// Whether a producer's token lets its bearer work, too.
    pub allow_producer_as_worker: bool,
    /// How connections are taken.
    pub listener: Listener,
    /// Under which URL callers reach this host, without a slash at its end; nothing if that is not
    /// known.
    pub public_url: Option<String>,
    /// How webhooks are called.
    pub webhooks: Webhooks,
    /// How often callers may call.
    pub rate_limits: RateLimits,
    /// Where the contents of artifacts are kept.
    pub artifacts: Artifacts,
    /// Where traces go; nothing if none are made.
    pub tracing: Option<Tracing>,
}

/// An authentication provider with its configuration.
#[derive(Clone, PartialEq)]
pub struct AuthProvider {
    /// The provider's name.
    pub name: String,
    /// The provider's own configuration.
    pub config: Value,
}

impl fmt::Debug for AuthProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthProvider").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

/// Something in the configuration that is wrong, or that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: the file or the variable, and the key.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is wrong:\n  {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
pub struct ConfigError {
    /// What is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What is in effect.
    pub config: Config,
    /// What was set but has no effect.
    pub warnings: Vec<Problem>,
    /// Where each value came from, for showing.
    pub shown: Shown,
    /// The places in the plugin's configuration, as JSON pointers, of what was written as one
    /// variable and nothing else.
    references: Vec<String>,
}

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "codeq.yml";

/// The process's environment.
pub fn environment() -> BTreeMap<String, String> {
    // Variables that are not UTF-8 are nobody's configuration.
    let named = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    named.collect()
}

impl Config {
    /// Reads `file`, or [`DEFAULT_FILE`] if there is one, and the process's environment.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
        Config::load_with(file, &environment())
    }

    /// As [`Config::load`], with an environment of one's own.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn load_with(
        file: Option<&Path>,
        environment: &BTreeMap<String, String>,
    ) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let values = source::read(file, environment, &mut problems);
        let config = interpret::interpret(&values, &mut problems);
        match config {
            Some(config) if problems.is_empty() => {
                let shown = Shown::new(&values, &config);
                let plugin = values.set.get("persistenceConfig");
                let references = plugin.map(|set| set.references.clone()).unwrap_or_default();
                let mut warnings = values.warnings.clone();
                warnings.extend(config.tokens_of_no_tenant(&values));
                Ok(Loaded { config, warnings, shown, references })
            }
            _ => Err(ConfigError { problems }),
        }
    }

    /// What a store is told when it is opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            rules: self.rules,
            timezone: self.timezone.clone(),
            repair_limit: self.requeue_inspect_limit,
            digests: self.plugin_digests.clone(),
        }
    }

    fn tokens_of_no_tenant(&self, values: &source::Values) -> Vec<Problem> {
        let configured =
            [("producerAuthConfig", &self.producer_auth), ("workerAuthConfig", &self.worker_auth)];
        let configured =
            configured.into_iter().filter_map(|(key, auth)| Some((key, auth.as_ref()?)));
        let problems = configured.flat_map(|(key, auth)| {
            let place = values.place(key);
            let messages = tenants::tokens_of_no_tenant(auth).into_iter();
            messages.map(move |message| Problem { place: place.clone(), message })
        });
        problems.collect()
    }

    /// Whether callers have to show who they are.
    pub fn has_auth(&self) -> bool {
        self.producer_auth.is_some() || self.worker_auth.is_some()
    }
}

impl Loaded {
    /// Whether [`Loaded::fit`] has something to do.
    pub fn has_references(&self) -> bool {
        !self.references.is_empty()
    }

    /// Reads what was written as one variable as YAML would read its value, where the plugin's
    /// schema takes no text: `db: ${REDIS_DB}` is a number.
    pub fn fit(&mut self, schema: &Value) {
        for at in &self.references {
            let Some(value) = self.config.persistence_config.pointer_mut(at) else { continue };
            let Some(read) =
                value.as_str().filter(|_| takes_no_text(schema, at)).and_then(source::scalar)
            else {
                continue;
            };
            self.shown.replace(at, value, &read);
            *value = read;
        }
    }
}

/// Whether the schema says what a place in a configuration takes, and that is no text.
fn takes_no_text(schema: &Value, at: &str) -> bool {
    let below = at.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
    let at_place = below.fold(schema, |schema, name| match &schema["items"] {
        Value::Null => &schema["properties"][name],
        items => items,
    });
    match &at_place["type"] {
        Value::String(kind) => kind != "string",
        Value::Array(kinds) => !kinds.contains(&Value::from("string")),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
