//! The table of everything that can be set.

use std::collections::BTreeMap;

use codeq_plugin::rules::BackoffPolicy;

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The variables that set it, the first that is set wins.
    pub(crate) env: &'static [&'static str],
    pub(crate) kind: Kind,
    /// As it is shown when nothing sets it.
    pub(crate) default: &'static str,
}

/// What values a setting takes.
#[derive(Debug)]
pub(crate) enum Kind {
    Text,
    Secret,
    Integer {
        min: i64,
        max: i64,
    },
    /// A whole number from 1. As in codeQ, zero or less stands for the default.
    Count {
        max: i64,
    },
    /// Seconds, which may be `none`, and 0 is the same. As in codeQ, less stands for the default.
    Pause,
    /// From 0 to 1. As in codeQ, anything else stands for the default.
    Ratio,
    Switch,
    Choice(fn() -> Vec<&'static str>),
    /// As `Choice`, but as in codeQ, anything else stands for the one that is named here.
    Leniently(fn() -> Vec<&'static str>, &'static str),
    /// In the environment, separated by colons.
    Paths,
    /// In the environment, as JSON.
    Mapping,
    /// As `Mapping`, or a secret text, or a list of either.
    Credentials,
}

pub(super) const MOST_SECONDS: i64 = 365 * 24 * 60 * 60;
const SECONDS: Kind = Kind::Count { max: MOST_SECONDS };
const COUNT: Kind = Kind::Count { max: MOST };
const MOST: i64 = 1_000_000;
/// A setting that codeQ does not have.
const OWN_SECONDS: Kind = Kind::Integer { min: 1, max: MOST_SECONDS };
const OWN_COUNT: Kind = Kind::Integer { min: 1, max: MOST };

const fn key(
    name: &'static str,
    env: &'static [&'static str],
    kind: Kind,
    default: &'static str,
) -> Key {
    Key { name, env, kind, default }
}

fn log_levels() -> Vec<&'static str> {
    vec!["error", "warn", "info", "debug", "trace"]
}

fn log_formats() -> Vec<&'static str> {
    vec!["text", "json"]
}

fn otlp_protocols() -> Vec<&'static str> {
    vec!["grpc", "http/protobuf"]
}

fn backoff_policies() -> Vec<&'static str> {
    BackoffPolicy::ALL.map(BackoffPolicy::as_str).to_vec()
}

/// Everything that can be set, in the order in which it is shown.
pub(crate) static KEYS: &[Key] = &[
    key("port", &["PORT"], Kind::Integer { min: 0, max: 65535 }, "8080"),
    key("bind", &["BIND"], Kind::Text, "127.0.0.1 without auth providers, else 0.0.0.0"),
    key("maxBodyBytes", &["MAX_BODY_BYTES"], Kind::Integer { min: 1024, max: 1 << 30 }, "16777216"),
    key("persistenceProvider", &["PERSISTENCE_PROVIDER"], Kind::Text, "redis"),
    key("persistenceConfig", &["PERSISTENCE_CONFIG"], Kind::Mapping, "{}"),
    key("redisAddr", &["REDIS_ADDR"], Kind::Text, "localhost:6379"),
    key("redisPassword", &["REDIS_PASSWORD", "KVROCKS_PASSWORD"], Kind::Secret, ""),
    key(
        "pluginDirs",
        &["CODEQ_PLUGIN_PATH"],
        Kind::Paths,
        "plugins beside the program, then the system's",
    ),
    key("pluginDigests", &["CODEQ_PLUGIN_DIGESTS"], Kind::Mapping, "{}"),
    key("timezone", &["TIMEZONE"], Kind::Text, "UTC"),
    key("env", &["ENV"], Kind::Text, "dev"),
    key("logLevel", &["LOG_LEVEL"], Kind::Leniently(log_levels, "info"), "info"),
    key(
        "logFormat",
        &["LOG_FORMAT"],
        Kind::Leniently(log_formats, "json"),
        "text on a terminal, else json",
    ),
    key("defaultLeaseSeconds", &["DEFAULT_LEASE_SECONDS"], SECONDS, "300"),
    key("requeueInspectLimit", &["REQUEUE_INSPECT_LIMIT"], COUNT, "200"),
    key("maxAttemptsDefault", &["MAX_ATTEMPTS_DEFAULT"], COUNT, "5"),
    key("backoffPolicy", &["BACKOFF_POLICY"], Kind::Choice(backoff_policies), "exp_full_jitter"),
    key("backoffBaseSeconds", &["BACKOFF_BASE_SECONDS"], Kind::Pause, "5"),
    key("backoffMaxSeconds", &["BACKOFF_MAX_SECONDS"], SECONDS, "900"),
    key("producerAuthProvider", &["PRODUCER_AUTH_PROVIDER"], Kind::Text, ""),
    key("producerAuthConfig", &["PRODUCER_AUTH_CONFIG"], Kind::Credentials, "{}"),
    key("workerAuthProvider", &["WORKER_AUTH_PROVIDER"], Kind::Text, ""),
    key("workerAuthConfig", &["WORKER_AUTH_CONFIG"], Kind::Credentials, "{}"),
    key("identityServiceUrl", &["IDENTITY_SERVICE_URL"], Kind::Text, ""),
    key("identityJwksUrl", &["IDENTITY_JWKS_URL"], Kind::Text, ""),
    key("identityIssuer", &["IDENTITY_ISSUER"], Kind::Text, ""),
    key("identityAudience", &["IDENTITY_AUDIENCE"], Kind::Text, ""),
    key("workerJwksUrl", &["WORKER_JWKS_URL"], Kind::Text, ""),
    key("workerIssuer", &["WORKER_ISSUER"], Kind::Text, ""),
    key("workerAudience", &["WORKER_AUDIENCE"], Kind::Text, "codeq-worker"),
    key("allowedClockSkewSeconds", &["ALLOWED_CLOCK_SKEW_SECONDS"], Kind::Pause, "60"),
    key("allowProducerAsWorker", &["ALLOW_PRODUCER_AS_WORKER"], Kind::Switch, "false"),
    key("webhookHmacSecret", &["WEBHOOK_HMAC_SECRET"], Kind::Secret, ""),
    key("webhookAllowPrivate", &["WEBHOOK_ALLOW_PRIVATE"], Kind::Switch, "false"),
    key("subscriptionMinIntervalSeconds", &["SUBSCRIPTION_MIN_INTERVAL_SECONDS"], Kind::Pause, "5"),
    key(
        "subscriptionCleanupIntervalSeconds",
        &["SUBSCRIPTION_CLEANUP_INTERVAL_SECONDS"],
        SECONDS,
        "60",
    ),
    key("resultWebhookMaxAttempts", &["RESULT_WEBHOOK_MAX_ATTEMPTS"], COUNT, "5"),
    key(
        "resultWebhookBaseBackoffSeconds",
        &["RESULT_WEBHOOK_BASE_BACKOFF_SECONDS"],
        Kind::Pause,
        "2",
    ),
    key("resultWebhookMaxBackoffSeconds", &["RESULT_WEBHOOK_MAX_BACKOFF_SECONDS"], SECONDS, "60"),
    key("rateLimit", &[], Kind::Mapping, "{}"),
    key("localArtifactsDir", &["LOCAL_ARTIFACTS_DIR"], Kind::Text, "./codeq-artifacts"),
    key(
        "maxArtifactBytes",
        &["MAX_ARTIFACT_BYTES"],
        Kind::Integer { min: 0, max: 1 << 30 },
        "10485760",
    ),
    key("publicUrl", &["PUBLIC_URL"], Kind::Text, ""),
    key("tlsCertFile", &["TLS_CERT_FILE"], Kind::Text, ""),
    key("tlsKeyFile", &["TLS_KEY_FILE"], Kind::Text, ""),
    key("maxConnections", &["MAX_CONNECTIONS"], OWN_COUNT, "10000"),
    key("requestTimeoutSeconds", &["REQUEST_TIMEOUT_SECONDS"], OWN_SECONDS, "30"),
    key("idleTimeoutSeconds", &["IDLE_TIMEOUT_SECONDS"], OWN_SECONDS, "120"),
    key("tracingEnabled", &["TRACING_ENABLED"], Kind::Switch, "false"),
    key("tracingServiceName", &["TRACING_SERVICE_NAME", "OTEL_SERVICE_NAME"], Kind::Text, "codeq"),
    key(
        "tracingOtlpEndpoint",
        &["TRACING_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
        Kind::Text,
        "",
    ),
    key(
        "tracingOtlpInsecure",
        &["TRACING_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"],
        Kind::Switch,
        "false",
    ),
    key(
        "tracingOtlpProtocol",
        &["TRACING_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
        Kind::Choice(otlp_protocols),
        "grpc",
    ),
    key("tracingSampleRatio", &["TRACING_SAMPLE_RATIO"], Kind::Ratio, "1"),
];

/// A key of a codeQ feature that this host does not have. Its presence is a warning, not an error.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) name: &'static str,
    /// The variables that set it in codeQ; one that ends in `_` stands for all that begin so.
    env: &'static [&'static str],
}

impl Foreign {
    /// Those of a list of variables that set it in codeQ.
    pub(crate) fn variables<'a>(&self, environment: &'a BTreeMap<String, String>) -> Vec<&'a str> {
        let is_ours = |name: &str| {
            self.env
                .iter()
                .any(|ours| *ours == name || ours.ends_with('_') && name.starts_with(ours))
        };
        let set = environment.iter().filter(|(name, value)| is_ours(name) && !value.is_empty());
        set.map(|(name, _)| name.as_str()).collect()
    }
}

/// Every key of codeQ that this host does not have.
pub(crate) static FOREIGN: &[Foreign] = &[
    Foreign { name: "raft", env: &["RAFT_"] },
    Foreign {
        name: "cluster",
        env: &["CLUSTER_ENABLED", "CLUSTER_SELF_ID", "CLUSTER_GRPC_ADDR", "CLUSTER_NODES"],
    },
    Foreign { name: "sharding", env: &[] },
    Foreign { name: "workerStreamAddr", env: &["WORKER_STREAM_ADDR"] },
    Foreign { name: "producerStreamAddr", env: &["PRODUCER_STREAM_ADDR"] },
    Foreign { name: "identityServiceApiKey", env: &["IDENTITY_SERVICE_API_KEY"] },
];

/// Whether a key is one of those.
pub(crate) fn is_foreign(name: &str) -> bool {
    FOREIGN.iter().any(|foreign| foreign.name == name)
}

/// The setting of a name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
