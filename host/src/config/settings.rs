//! Settings that belong together.

use std::{fmt, path::PathBuf, time::Duration};

/// A text that nobody gets to see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for those who need it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

/// How connections are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// With what the connections are encrypted; nothing if they are not.
    pub tls: Option<Tls>,
    /// At most how many connections are open at once; more wait to be taken.
    pub max_connections: usize,
    /// How long a caller may take to send a request, or to take in what he is sent, before he is
    /// given up.
    pub request_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
}

/// The files of a server's certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, and those between it and its authority.
    pub cert_file: PathBuf,
    /// The certificate's private key.
    pub key_file: PathBuf,
}

/// How webhooks are called: those of tasks, and those of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhooks {
    /// What calls are signed with; nothing if they are not.
    pub hmac_secret: Option<Secret>,
    /// Whether a webhook may be in a private network, on this machine, or anywhere else that is not
    /// public.
    pub allow_private: bool,
    /// The least time between two notices to a subscriber who does not say.
    pub subscription_min_interval: Duration,
    /// How often expired subscriptions are removed.
    pub subscription_cleanup_interval: Duration,
    /// How often a result is sent before it is given up.
    pub result_max_attempts: u32,
    /// How long to wait after the first failure; twice as long after each further one.
    pub result_base_backoff: Duration,
    /// The longest wait.
    pub result_max_backoff: Duration,
}

/// How often callers may call, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Each token that creates tasks.
    pub producer: Option<RateLimit>,
    /// Each token that claims.
    pub worker: Option<RateLimit>,
    /// Each token of an operator.
    pub admin: Option<RateLimit>,
    /// Calls of this host to each webhook of a subscription.
    pub webhook: Option<RateLimit>,
}

/// How often somebody may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// In the long run.
    pub requests_per_minute: u32,
    /// At once.
    pub burst: u32,
}

/// Where the contents of artifacts are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// The directory.
    pub dir: PathBuf,
    /// Larger contents are refused.
    pub max_bytes: usize,
}

/// Where traces go.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Under which name.
    pub service_name: String,
    /// To which OTLP endpoint, as it is configured; nothing for the collector of this machine.
    pub otlp_endpoint: Option<String>,
    /// Whether they go there without TLS, where the endpoint does not say.
    pub otlp_insecure: bool,
    /// What the collector speaks there.
    pub otlp_protocol: OtlpProtocol,
    /// Which part of the traces that begin here is kept, from 0 to 1.
    pub sample_ratio: f64,
}

/// What an OTLP collector speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC, as with codeQ.
    #[default]
    Grpc,
    /// Protobuf in HTTP requests.
    Http,
}

impl Tracing {
    /// The URL to which traces go.
    pub fn endpoint(&self) -> String {
        let (default, path) = match self.otlp_protocol {
            OtlpProtocol::Grpc => ("localhost:4317", ""),
            OtlpProtocol::Http => ("localhost:4318", "/v1/traces"),
        };
        let endpoint = self.otlp_endpoint.as_deref().unwrap_or(default).trim_end_matches('/');
        let endpoint = endpoint.strip_suffix(path).unwrap_or(endpoint);
        let scheme = match endpoint {
            with if with.contains("://") => "",
            _ if self.otlp_insecure => "http://",
            _ => "https://",
        };
        format!("{scheme}{endpoint}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_where_codeqs_would() {
        let endpoint = |endpoint: Option<&str>, otlp_insecure, otlp_protocol| {
            let tracing = Tracing {
                service_name: "codeq".into(),
                otlp_endpoint: endpoint.map(ToOwned::to_owned),
                otlp_insecure,
                otlp_protocol,
                sample_ratio: 1.0,
            };
            tracing.endpoint()
        };
        let (grpc, http) = (OtlpProtocol::Grpc, OtlpProtocol::Http);
        assert_eq!(endpoint(None, true, grpc), "http://localhost:4317");
        assert_eq!(endpoint(None, false, grpc), "https://localhost:4317");
        assert_eq!(endpoint(Some("otel:4317"), true, grpc), "http://otel:4317");
        assert_eq!(endpoint(Some("http://otel:4317/"), false, grpc), "http://otel:4317");
        assert_eq!(endpoint(None, true, http), "http://localhost:4318/v1/traces");
        assert_eq!(endpoint(Some("https://otel"), true, http), "https://otel/v1/traces");
        assert_eq!(endpoint(Some("https://otel/v1/traces"), false, http), "https://otel/v1/traces");
    }
}
