//! What goes wrong between this program and a host, and what to do about it.

use std::{error::Error as StdError, fmt, io, time::Duration};

use reqwest::StatusCode;
use rustls::{CertificateError, Error as TlsError};
use serde_json::Value;
use thiserror::Error;

use super::{
    api::Asked,
    show::plain,
    target::{Role, Source},
};
use crate::cli::Failure;

/// Nobody is believed who asks for a longer pause, in seconds.
const LONGEST_PAUSE: u64 = 300;

/// Why a host did not do what it was asked.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error(
        "no host answers at {}: {cause}; start one with `codeq serve`, or name another with --url, \
         CODEQ_URL or `codeq profile use`",
        place(asked)
    )]
    Unreachable { asked: Asked, cause: String },
    #[error(
        "the host at {} does not answer in time; is it overloaded, or its backend away?",
        place(asked)
    )]
    Silent { asked: Asked },
    #[error("the connection to {} is not safe: {cause}; {remedy}", place(asked))]
    Untrusted { asked: Asked, cause: String, remedy: &'static str },
    #[error(
        "the connection to {} broke off, and what was asked may have been done or not: {cause}{}",
        place(asked),
        if asked.url.scheme() == "http" { "; if that port wants TLS, write https://" } else { "" }
    )]
    BrokeOff { asked: Asked, cause: String },
    #[error(
        "what answers at {} is no codeQ host: it sent {} ({}); name the host with --url, CODEQ_URL \
         or a profile",
        place(asked),
        kind.as_deref().map_or("no JSON".into(), plain),
        status
    )]
    NotCodeq { asked: Asked, status: StatusCode, kind: Option<String> },
    #[error("{} redirects to {}; if that is the host, name it with --url", place(asked), plain(to))]
    Redirected { asked: Asked, to: String },
    #[error("the answer of {} is too long to be read; ask for less at once", place(asked))]
    TooLong { asked: Asked },
    #[error("{0}")]
    Refused(Box<Refused>),
}

/// A host's answer that it will not, or cannot.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) asked: Asked,
    pub(super) request: String,
    /// The scope that the token needs.
    pub(super) scope: Option<&'static str>,
    pub(super) status: StatusCode,
    /// In how many seconds another try makes sense.
    pub(super) retry_after: Option<u64>,
    pub(super) request_id: Option<String>,
    pub(super) body: Value,
}

impl ClientError {
    /// What became of a request that was not answered.
    pub(super) fn lost(asked: &Asked, error: &reqwest::Error) -> ClientError {
        let asked = asked.clone();
        let causes = causes(error);
        // The first two say that a request failed, and repeat its URL.
        let cause = causes.iter().skip(1).map(ToString::to_string).collect::<Vec<_>>();
        let mut cause = cause.last().cloned().unwrap_or_else(|| error.to_string());
        if let Some(tls) = causes.iter().find_map(|cause| cause.downcast_ref::<TlsError>()) {
            return ClientError::Untrusted { asked, cause: tls.to_string(), remedy: remedy(tls) };
        }
        if causes.iter().any(|cause| cause.to_string().contains("dns error")) {
            cause = format!("there is no such name in the network ({cause})");
        }
        if error.is_connect() {
            ClientError::Unreachable { asked, cause }
        } else if error.is_timeout() {
            ClientError::Silent { asked }
        } else {
            ClientError::BrokeOff { asked, cause }
        }
    }

    /// Whether it may pass by itself, and after which time at the earliest.
    pub(super) fn passes(&self) -> Option<Duration> {
        match self {
            ClientError::Unreachable { .. }
            | ClientError::Silent { .. }
            | ClientError::BrokeOff { .. } => Some(Duration::ZERO),
            // A proxy in front of a host that restarts.
            ClientError::NotCodeq { status, .. } if status.is_server_error() => {
                Some(Duration::ZERO)
            }
            ClientError::Refused(refused) => {
                let passes = match refused.status {
                    StatusCode::NOT_IMPLEMENTED => false,
                    StatusCode::TOO_MANY_REQUESTS => true,
                    status => status.is_server_error(),
                };
                let pause = refused.retry_after.unwrap_or(0).min(LONGEST_PAUSE);
                passes.then(|| Duration::from_secs(pause))
            }
            _ => None,
        }
    }

    /// Whether the host said this, in these words.
    pub(super) fn is(&self, status: StatusCode, message: &str) -> bool {
        matches!(self, ClientError::Refused(refused)
            if refused.status == status && refused.body["error"] == message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.said();
        match self.status {
            StatusCode::UNAUTHORIZED => match &self.asked.token_from {
                Some(source) => write!(
                    f,
                    "the host refuses the token {source}: {said}; another is set with --token, CODEQ_TOKEN \
                     or `codeq profile set NAME --token -`"
                ),
                None => {
                    write!(
                        f,
                        "the host wants a token, and there is none{}: {said}; set one with CODEQ_TOKEN or \
                         `codeq profile set NAME --token -`",
                        self.for_role()
                    )?;
                    match &self.asked.passed_over {
                        Some(name) => write!(
                            f,
                            "; the profile `{name}` is for another host: if its tokens are meant, say \
                             --profile {name}"
                        ),
                        None => Ok(()),
                    }
                }
            },
            StatusCode::FORBIDDEN => {
                write!(f, "the host forbids it: {said}; {}", self.missing(&said))
            }
            StatusCode::NOT_FOUND if said == "no such route" => write!(
                f,
                "the host does not know the request {}: it may be older than this program ({})",
                self.request,
                env!("CARGO_PKG_VERSION")
            ),
            StatusCode::NOT_FOUND => {
                write!(f, "there is no such task, or it is another tenant's: {said}")
            }
            StatusCode::CONFLICT => match conflict(&said) {
                Some(meaning) => write!(f, "{meaning} ({said})"),
                None => write!(f, "the task is not in a state for that: {said}"),
            },
            StatusCode::PAYLOAD_TOO_LARGE => write!(
                f,
                "the host does not take that much: {said}; its settings say how much it takes"
            ),
            StatusCode::TOO_MANY_REQUESTS => {
                let scope = [&self.body["scope"], &self.body["operation"]];
                let scope: Vec<_> =
                    scope.into_iter().filter_map(Value::as_str).map(plain).collect();
                let of = if scope.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", scope.join(", "))
                };
                write!(f, "too many requests{of}: {said}; {}", self.later())
            }
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT => {
                write!(f, "the host cannot do it just now: {said}; {}", self.later())
            }
            StatusCode::NOT_IMPLEMENTED => write!(f, "the host is not able to do that: {said}"),
            status if status.is_server_error() => {
                let id = self.request_id.as_deref().map(plain);
                let id = id.map(|id| format!(" of request {id}")).unwrap_or_default();
                write!(f, "the host failed: {said}; its log says why{id}")
            }
            _ => write!(f, "the host refuses it: {said}"),
        }
    }
}

impl Refused {
    /// The host's own words.
    fn said(&self) -> String {
        let message = self.body["error"].as_str().or_else(|| self.body["message"].as_str());
        let message = message.map_or_else(|| self.status.to_string(), plain);
        match self.body["detail"].as_str() {
            Some(detail) => format!("{message}: {}", plain(detail)),
            None => message,
        }
    }

    fn for_role(&self) -> &'static str {
        match (&self.asked.url_from, self.asked.role) {
            (Source::Profile { .. }, Role::Admin) => " for an admin in the profile",
            (Source::Profile { .. }, Role::Worker) => " for a worker in the profile",
            (Source::Profile { .. }, Role::Producer) => " for a producer in the profile",
            _ => "",
        }
    }

    /// What a token lacks.
    fn missing(&self, said: &str) -> String {
        if said == "not-owner" {
            return "the lease is another worker's: `codeq task get` shows whose".into();
        }
        if said.contains("event type") {
            return "name only commands that are among the token's eventTypes".into();
        }
        if said.contains("tenant") {
            return "the token's claims must name one tenant, in lower case".into();
        }
        match (self.scope, self.asked.role) {
            (Some(scope), _) => format!("the token needs the scope `{scope}`"),
            (None, Role::Admin) => {
                "the token needs the scope `codeq:admin` or the claim `role: ADMIN`; a profile may hold \
                 one of its own for that, see `codeq profile set --help`"
                    .into()
            }
            (None, _) => "it takes another token".into(),
        }
    }

    fn later(&self) -> String {
        match self.retry_after {
            Some(seconds) => format!("try again in {seconds} s"),
            None => "try again later".into(),
        }
    }
}

fn conflict(said: &str) -> Option<&'static str> {
    Some(match said {
        "not-in-progress" => {
            "nobody holds the task: its lease has run out, or it is finished; `codeq task get` shows it"
        }
        "task_not_in_dlq" => "the task is not among the dead letters",
        "task_in_progress" => "a worker holds the task: wait until it is finished or given back",
        _ => return None,
    })
}

fn place(asked: &Asked) -> String {
    format!("{} ({})", asked.url.as_str().trim_end_matches('/'), asked.url_from)
}

fn remedy(error: &TlsError) -> &'static str {
    match error {
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "use the name that the certificate is for",
        TlsError::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "renew the certificate, or set the clock right",
        TlsError::InvalidCertificate(_) => {
            "if a private authority signed the certificate, name its file with --ca-file, CODEQ_CA_FILE \
             or `codeq profile set NAME --ca-file FILE`"
        }
        TlsError::InvalidMessage(_) => "if that port does not speak TLS, write http://",
        _ => "its TLS does not go together with this program's",
    }
}

/// An error and all that is behind it.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut all = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        all.push(error);
        // An error that is wrapped for `io` is not its own source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    all
}
