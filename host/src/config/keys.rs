//! The table of everything that can be set.

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
    /// From 0 to 1.
    Ratio,
    Switch,
    Choice(fn() -> Vec<&'static str>),
    /// In the environment, separated by colons.
    Paths,
    /// In the environment, as JSON.
    Mapping,
    /// As `Mapping`, or a secret text, or a list of either.
    Credentials,
}

const SECONDS: Kind = Kind::Integer { min: 0, max: 365 * 24 * 60 * 60 };
const POSITIVE_SECONDS: Kind = Kind::Integer { min: 1, max: 365 * 24 * 60 * 60 };
const COUNT: Kind = Kind::Integer { min: 1, max: 1_000_000 };

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
    key("logLevel", &["LOG_LEVEL"], Kind::Choice(log_levels), "info"),
    key("logFormat", &["LOG_FORMAT"], Kind::Choice(log_formats), "text on a terminal, else json"),
    key("defaultLeaseSeconds", &["DEFAULT_LEASE_SECONDS"], POSITIVE_SECONDS, "300"),
    key("requeueInspectLimit", &["REQUEUE_INSPECT_LIMIT"], COUNT, "200"),
    key("maxAttemptsDefault", &["MAX_ATTEMPTS_DEFAULT"], COUNT, "5"),
    key("backoffPolicy", &["BACKOFF_POLICY"], Kind::Choice(backoff_policies), "exp_full_jitter"),
    key("backoffBaseSeconds", &["BACKOFF_BASE_SECONDS"], SECONDS, "5"),
    key("backoffMaxSeconds", &["BACKOFF_MAX_SECONDS"], SECONDS, "900"),
    key("producerAuthProvider", &["PRODUCER_AUTH_PROVIDER"], Kind::Text, ""),
    key("producerAuthConfig", &["PRODUCER_AUTH_CONFIG"], Kind::Credentials, "{}"),
    key("workerAuthProvider", &["WORKER_AUTH_PROVIDER"], Kind::Text, ""),
    key("workerAuthConfig", &["WORKER_AUTH_CONFIG"], Kind::Credentials, "{}"),
    key("identityJwksUrl", &["IDENTITY_JWKS_URL"], Kind::Text, ""),
    key("identityIssuer", &["IDENTITY_ISSUER"], Kind::Text, ""),
    key("identityAudience", &["IDENTITY_AUDIENCE"], Kind::Text, ""),
    key("workerJwksUrl", &["WORKER_JWKS_URL"], Kind::Text, ""),
    key("workerIssuer", &["WORKER_ISSUER"], Kind::Text, ""),
    key("workerAudience", &["WORKER_AUDIENCE"], Kind::Text, "codeq-worker"),
    key("allowedClockSkewSeconds", &["ALLOWED_CLOCK_SKEW_SECONDS"], SECONDS, "60"),
    key("allowProducerAsWorker", &["ALLOW_PRODUCER_AS_WORKER"], Kind::Switch, "false"),
    key("webhookHmacSecret", &["WEBHOOK_HMAC_SECRET"], Kind::Secret, ""),
    key("webhookAllowPrivate", &["WEBHOOK_ALLOW_PRIVATE"], Kind::Switch, "false"),
    key("subscriptionMinIntervalSeconds", &["SUBSCRIPTION_MIN_INTERVAL_SECONDS"], SECONDS, "5"),
    key(
        "subscriptionCleanupIntervalSeconds",
        &["SUBSCRIPTION_CLEANUP_INTERVAL_SECONDS"],
        POSITIVE_SECONDS,
        "60",
    ),
    key("resultWebhookMaxAttempts", &["RESULT_WEBHOOK_MAX_ATTEMPTS"], COUNT, "5"),
    key("resultWebhookBaseBackoffSeconds", &["RESULT_WEBHOOK_BASE_BACKOFF_SECONDS"], SECONDS, "2"),
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
    key("maxConnections", &["MAX_CONNECTIONS"], COUNT, "10000"),
    key("requestTimeoutSeconds", &["REQUEST_TIMEOUT_SECONDS"], POSITIVE_SECONDS, "30"),
    key("idleTimeoutSeconds", &["IDLE_TIMEOUT_SECONDS"], POSITIVE_SECONDS, "120"),
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

/// Keys of codeQ features that this host does not have. Their presence is a warning, not an error.
pub(crate) const FOREIGN: &[&str] =
    &["raft", "cluster", "sharding", "identityServiceUrl", "identityServiceApiKey"];

/// The setting of a name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
