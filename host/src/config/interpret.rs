//! From values to the configuration that the host works with.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use codeq_plugin::{
    Millis,
    rules::{Backoff, Rules},
};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{
    Artifacts, AuthProvider, Config, Listener, LogFormat, OtlpProtocol, Problem, RateLimit,
    RateLimits, Secret, Tls, Tracing, Webhooks,
    source::{Values, whole},
};
use crate::plugins::default_dirs;

/// The provider when nobody names one, as codeQ has always had it.
pub(crate) const DEFAULT_PROVIDER: &str = "redis";

/// Makes the configuration; nothing if a value that it needs is unusable.
pub(crate) fn interpret(values: &Values, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut reader = Reader { values, problems };
    let (producer_auth, worker_auth) = (reader.auth(&PRODUCERS), reader.auth(&WORKERS));
    let has_auth = producer_auth.is_some() || worker_auth.is_some();
    let provider = reader.text("persistenceProvider").unwrap_or(DEFAULT_PROVIDER).to_owned();
    let (rate_limits, listener, public_url) =
        (reader.rate_limits(), reader.listener(), reader.public_url());
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
        env: reader.env(),
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
        listener,
        public_url,
        webhooks: reader.webhooks()?,
        rate_limits,
        artifacts: reader.artifacts()?,
        tracing: reader.tracing(),
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
        match self.values.get(name) {
            // The only text that a number may be is `none`.
            Some(Value::String(_)) => 0,
            value => value.and_then(Value::as_i64).unwrap_or(default),
        }
    }

    fn count(&self, name: &str, default: usize) -> usize {
        self.values
            .get(name)
            .and_then(Value::as_u64)
            .and_then(|n| n.try_into().ok())
            .unwrap_or(default)
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

    /// In any case and with blanks around it, `dev` is what codeQ takes for it, too.
    fn env(&self) -> String {
        let env = self.text("env").unwrap_or("dev").trim();
        if env.eq_ignore_ascii_case("dev") { "dev".into() } else { env.into() }
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
    fn auth(&mut self, keys: &AuthKeys) -> Option<AuthProvider> {
        let older = self.text(keys.jwks_url).or(keys.service.and_then(|key| self.text(key)));
        let name = match (self.text(keys.provider), older) {
            (Some(name), _) => name,
            (None, Some(_)) => "jwks",
            (None, None) => {
                let empty = |value: &&Value| value.as_object().is_some_and(Map::is_empty);
                if self.values.get(keys.config).is_some_and(|value| !empty(&value)) {
                    let provider = keys.provider;
                    self.wrong(keys.config, format!("configures no provider: set {provider}, too"));
                }
                return None;
            }
        };
        if !AUTH_PROVIDERS.contains(&name) {
            let known = AUTH_PROVIDERS.map(|name| format!("`{name}`")).join(", ");
            let message = format!("is `{name}`, which is no auth provider; there are {known}");
            self.wrong(keys.provider, message);
            return None;
        }
        let mut config = self.values.get(keys.config).cloned().unwrap_or_else(|| json!({}));
        if let ("jwks", Value::Object(entries)) = (name, &mut config) {
            self.add_older_jwks(keys, entries);
        }
        Some(AuthProvider { name: name.into(), config })
    }

    /// The older keys say what the provider's own configuration does not.
    fn add_older_jwks(&mut self, keys: &AuthKeys, entries: &mut Map<String, Value>) {
        let service = keys.service.and_then(|key| self.text(key));
        let service = service.map(|url| url.trim_end_matches('/'));
        let url = match (self.text(keys.jwks_url), service) {
            (Some(url), _) => Some((keys.jwks_url, url.to_owned())),
            // Where codeQ looks for the keys of its identity service.
            (None, Some(url)) => keys.service.zip(Some(format!("{url}/v1/.well-known/jwks.json"))),
            (None, None) => None,
        };
        if let Some((set, url)) = url {
            entries.entry("jwksUrl").or_insert_with(|| url.into());
            let rest =
                [("issuer", keys.issuer, service), ("audience", keys.audience, keys.for_whom)];
            for (name, older, default) in rest {
                match self.text(older).or(default) {
                    Some(text) => {
                        entries.entry(name).or_insert_with(|| text.into());
                    }
                    None if entries.contains_key(name) => {}
                    None => self.wrong(
                        set,
                        format!("is set without `{older}`, which says whose tokens are accepted"),
                    ),
                }
            }
        }
        let skew = self.integer("allowedClockSkewSeconds", 60);
        entries.entry("clockSkew").or_insert_with(|| format!("{skew}s").into());
    }

    fn listener(&mut self) -> Listener {
        let tls = match (self.text("tlsCertFile"), self.text("tlsKeyFile")) {
            (Some(cert), Some(key)) => Some(Tls { cert_file: cert.into(), key_file: key.into() }),
            (None, None) => None,
            (Some(_), None) => self.half("tlsCertFile", "tlsKeyFile"),
            (None, Some(_)) => self.half("tlsKeyFile", "tlsCertFile"),
        };
        Listener {
            tls,
            max_connections: self.count("maxConnections", 10_000),
            request_timeout: self.seconds("requestTimeoutSeconds", 30).into(),
            idle_timeout: self.seconds("idleTimeoutSeconds", 120).into(),
        }
    }

    /// One setting of two that only make sense together.
    fn half<T>(&mut self, set: &str, missing: &str) -> Option<T> {
        self.wrong(set, format!("is set without `{missing}`; set both, or none"));
        None
    }

    fn public_url(&mut self) -> Option<String> {
        let url = self.text("publicUrl")?.trim_end_matches('/');
        let good = url.parse::<axum::http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
        });
        if !good {
            self.wrong(
                "publicUrl",
                format!("is `{url}`, which is not a URL such as https://queue.example.org"),
            );
        }
        Some(url.to_owned())
    }

    fn webhooks(&self) -> Option<Webhooks> {
        let seconds = |name, default| Duration::from(self.seconds(name, default));
        Some(Webhooks {
            hmac_secret: self.text("webhookHmacSecret").map(Secret::from),
            allow_private: self.switch("webhookAllowPrivate"),
            subscription_min_interval: seconds("subscriptionMinIntervalSeconds", 5),
            subscription_cleanup_interval: seconds("subscriptionCleanupIntervalSeconds", 60),
            result_max_attempts: u32::try_from(self.integer("resultWebhookMaxAttempts", 5)).ok()?,
            result_base_backoff: seconds("resultWebhookBaseBackoffSeconds", 2),
            result_max_backoff: seconds("resultWebhookMaxBackoffSeconds", 60),
        })
    }

    fn artifacts(&self) -> Option<Artifacts> {
        Some(Artifacts {
            dir: self.text("localArtifactsDir").unwrap_or("./codeq-artifacts").into(),
            max_bytes: usize::try_from(self.integer("maxArtifactBytes", 10 << 20)).ok()?,
        })
    }

    fn tracing(&self) -> Option<Tracing> {
        self.switch("tracingEnabled").then(|| Tracing {
            service_name: self.text("tracingServiceName").unwrap_or("codeq").to_owned(),
            otlp_endpoint: self.text("tracingOtlpEndpoint").map(ToOwned::to_owned),
            otlp_insecure: self.switch("tracingOtlpInsecure"),
            otlp_protocol: match self.text("tracingOtlpProtocol") {
                Some("http/protobuf") => OtlpProtocol::Http,
                _ => OtlpProtocol::Grpc,
            },
            sample_ratio: self
                .values
                .get("tracingSampleRatio")
                .and_then(Value::as_f64)
                .unwrap_or(1.0),
        })
    }

    fn rate_limits(&mut self) -> RateLimits {
        let mut limits = RateLimits::default();
        let Some(Value::Object(scopes)) = self.values.get("rateLimit") else {
            return limits;
        };
        for (scope, limit) in scopes {
            let place = match scope.as_str() {
                "producer" => &mut limits.producer,
                "worker" => &mut limits.worker,
                "admin" => &mut limits.admin,
                "webhook" => &mut limits.webhook,
                _ => {
                    self.wrong(
                        "rateLimit",
                        format!("has the unknown scope `{scope}`; there are producer, worker, admin, webhook"),
                    );
                    continue;
                }
            };
            match rate_limit(limit) {
                Some(limit) => *place = limit,
                None => self.wrong(
                    "rateLimit",
                    format!("`{scope}` takes requestsPerMinute and burstSize, each a whole number from 0"),
                ),
            }
        }
        limits
    }
}

/// A limit as it is written; nothing if it is written wrongly, and no limit if it is off.
fn rate_limit(limit: &Value) -> Option<Option<RateLimit>> {
    let limit = limit.as_object()?;
    let known = |name: &String| ["requestsPerMinute", "burstSize"].contains(&name.as_str());
    if !limit.keys().all(known) {
        return None;
    }
    let number = |name: &str| match limit.get(name) {
        None | Some(Value::Null) => Some(0),
        // As in codeQ, less than nothing is off.
        Some(number) => u32::try_from(whole(number)?.max(0)).ok(),
    };
    let (requests_per_minute, burst) = (number("requestsPerMinute")?, number("burstSize")?);
    // As in codeQ, a limit without a burst is off, too.
    let is_on = requests_per_minute > 0 && burst > 0;
    Some(is_on.then_some(RateLimit { requests_per_minute, burst }))
}

const AUTH_PROVIDERS: [&str; 3] = ["static", "jwks", "multi"];

/// The keys that configure an auth provider: the present ones, and the older ones of `jwks`.
struct AuthKeys {
    provider: &'static str,
    config: &'static str,
    /// The service whose keys and name are taken where nothing sets them.
    service: Option<&'static str>,
    jwks_url: &'static str,
    issuer: &'static str,
    audience: &'static str,
    /// The audience when nothing sets it.
    for_whom: Option<&'static str>,
}

const PRODUCERS: AuthKeys = AuthKeys {
    provider: "producerAuthProvider",
    config: "producerAuthConfig",
    service: Some("identityServiceUrl"),
    jwks_url: "identityJwksUrl",
    issuer: "identityIssuer",
    audience: "identityAudience",
    for_whom: None,
};

const WORKERS: AuthKeys = AuthKeys {
    provider: "workerAuthProvider",
    config: "workerAuthConfig",
    service: None,
    jwks_url: "workerJwksUrl",
    issuer: "workerIssuer",
    audience: "workerAudience",
    for_whom: Some("codeq-worker"),
};
