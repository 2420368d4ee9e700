//! From values to the configuration that the host works with.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use codeq_plugin::{
    Millis,
    rules::{Backoff, Rules},
};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{AuthProvider, Config, LogFormat, Problem, source::Values};
use crate::plugins::default_dirs;

/// The provider when nobody names one, as codeQ has always had it.
pub(crate) const DEFAULT_PROVIDER: &str = "redis";

/// Makes the configuration; nothing if a value that it needs is unusable.
pub(crate) fn interpret(values: &Values, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut reader = Reader { values, problems };
    let producer_auth =
        reader.auth("producerAuthProvider", "producerAuthConfig", "identityJwksUrl");
    let worker_auth = reader.auth("workerAuthProvider", "workerAuthConfig", "workerJwksUrl");
    let has_auth = producer_auth.is_some() || worker_auth.is_some();
    let provider = reader.text("persistenceProvider").unwrap_or(DEFAULT_PROVIDER).to_owned();
    reader.check_rate_limits();
    let (bind, timezone, plugin_digests) =
        (reader.bind(has_auth), reader.timezone(), reader.digests());
    Some(Config {
        port: u16::try_from(reader.integer("port", 8080)).ok()?,
        bind: bind?,
        max_body_bytes: usize::try_from(reader.integer("maxBodyBytes", 16 << 20)).ok()?,
        persistence_config: reader.persistence_config(&provider),
        persistence_provider: provider,
        plugin_dirs: reader.plugin_dirs(),
        plugin_digests,
        timezone,
        env: reader.text("env").unwrap_or("dev").to_owned(),
        log_level: reader.text("logLevel").unwrap_or("info").parse().ok()?,
        log_format: reader.text("logFormat").map(|format| match format {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        }),
        default_lease: reader.seconds("defaultLeaseSeconds", 300),
        requeue_inspect_limit: u32::try_from(reader.integer("requeueInspectLimit", 200)).ok()?,
        rules: reader.rules()?,
        producer_auth,
        worker_auth,
        allow_producer_as_worker: reader.switch("allowProducerAsWorker"),
    })
}

struct Reader<'a> {
    values: &'a Values,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn integer(&self, name: &str, default: i64) -> i64 {
        self.values.get(name).and_then(Value::as_i64).unwrap_or(default)
    }

    fn seconds(&self, name: &str, default: i64) -> Millis {
        Millis::from_secs(self.integer(name, default))
    }

    fn switch(&self, name: &str) -> bool {
        self.values.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    fn wrong(&mut self, name: &str, message: String) {
        self.problems.push(Problem { place: self.values.place(name), message });
    }

    fn bind(&mut self, has_auth: bool) -> Option<IpAddr> {
        let default = if has_auth { "0.0.0.0" } else { "127.0.0.1" };
        let text = self.text("bind").unwrap_or(default);
        let Ok(address) = text.parse::<IpAddr>() else {
            self.wrong(
                "bind",
                format!("is `{text}`, which is not an IP address such as 127.0.0.1"),
            );
            return None;
        };
        if !has_auth && !address.is_loopback() {
            self.wrong(
                "bind",
                format!(
                    "is {address}, but without an auth provider anybody who reaches that address \
                     could use the queue; set producerAuthProvider and workerAuthProvider, or bind 127.0.0.1"
                ),
            );
        }
        Some(address)
    }

    /// The address and password of codeQ's older keys go to redis, where its own do not say.
    fn persistence_config(&self, provider: &str) -> Value {
        let mut config = match self.values.get("persistenceConfig") {
            Some(Value::Object(config)) => config.clone(),
            _ => Map::new(),
        };
        if provider == DEFAULT_PROVIDER {
            let addr = self.text("redisAddr").unwrap_or("localhost:6379");
            config.entry("addr").or_insert_with(|| addr.into());
            if let Some(password) = self.text("redisPassword") {
                config.entry("password").or_insert_with(|| password.into());
            }
        }
        Value::Object(config)
    }

    fn plugin_dirs(&self) -> Vec<PathBuf> {
        match self.values.get("pluginDirs").and_then(Value::as_array) {
            Some(dirs) => dirs.iter().filter_map(Value::as_str).map(PathBuf::from).collect(),
            None => default_dirs(),
        }
    }

    fn digests(&mut self) -> BTreeMap<String, String> {
        let mut digests = BTreeMap::new();
        let Some(Value::Object(pinned)) = self.values.get("pluginDigests") else {
            return digests;
        };
        for (plugin, digest) in pinned {
            let hex = digest.as_str().map(|text| text.strip_prefix("sha256:").unwrap_or(text));
            match hex.filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())) {
                Some(hex) => {
                    digests.insert(plugin.clone(), hex.to_ascii_lowercase());
                }
                None => self.wrong(
                    "pluginDigests",
                    format!("pins `{plugin}` to {digest}, which is not a SHA-256 of 64 hexadecimal digits"),
                ),
            }
        }
        digests
    }

    fn timezone(&mut self) -> String {
        let name = self.text("timezone").unwrap_or("UTC");
        if TimeZone::get(name).is_err() {
            self.wrong(
                "timezone",
                format!("is `{name}`, which is not an IANA time zone such as Europe/Berlin"),
            );
        }
        name.to_owned()
    }

    fn rules(&mut self) -> Option<Rules> {
        let backoff = Backoff {
            policy: self.text("backoffPolicy").unwrap_or("exp_full_jitter").parse().ok()?,
            base: self.seconds("backoffBaseSeconds", 5),
            max: self.seconds("backoffMaxSeconds", 900),
        };
        let max_attempts = u32::try_from(self.integer("maxAttemptsDefault", 5)).ok()?;
        Some(Rules { backoff, max_attempts, ..Rules::default() })
    }

    /// An auth provider by its name, or by the older spelling of the one called `jwks`.
    fn auth(&mut self, provider: &str, config: &str, jwks_url: &str) -> Option<AuthProvider> {
        let name = match (self.text(provider), self.text(jwks_url)) {
            (Some(name), _) => name,
            (None, Some(_)) => {
                self.wrong(jwks_url, JWKS_MISSING.into());
                return None;
            }
            (None, None) => {
                let empty = |value: &&Value| value.as_object().is_some_and(Map::is_empty);
                if self.values.get(config).is_some_and(|value| !empty(&value)) {
                    self.wrong(config, format!("configures no provider: set {provider}, too"));
                }
                return None;
            }
        };
        match name {
            "static" => {
                let config = self.values.get(config).cloned().unwrap_or_else(|| json!({}));
                Some(AuthProvider { name: name.into(), config })
            }
            "jwks" => {
                self.wrong(provider, JWKS_MISSING.into());
                None
            }
            other => {
                self.wrong(
                    provider,
                    format!("is `{other}`, which is no auth provider; there is `static`"),
                );
                None
            }
        }
    }

    fn check_rate_limits(&mut self) {
        let Some(Value::Object(scopes)) = self.values.get("rateLimit") else {
            return;
        };
        for (scope, limits) in scopes {
            if !["producer", "worker", "admin", "webhook"].contains(&scope.as_str()) {
                self.wrong(
                    "rateLimit",
                    format!("has the unknown scope `{scope}`; there are producer, worker, admin, webhook"),
                );
                continue;
            }
            let known = |name: &str| ["requestsPerMinute", "burstSize"].contains(&name);
            let sound = limits.as_object().is_some_and(|limits| {
                limits.iter().all(|(name, limit)| known(name) && limit.as_u64().is_some())
            });
            if !sound {
                self.wrong(
                    "rateLimit",
                    format!("`{scope}` takes requestsPerMinute and burstSize, each a whole number from 0"),
                );
            }
        }
    }
}

const JWKS_MISSING: &str = "the auth provider `jwks` is not part of this version, and serving without \
    it would let strangers in; use the provider `static`";
