//! Calling the URLs of others, safely.
//!
//! What callers of this host name as a webhook, this host calls from inside the operator's network.
//! So a webhook has to be [public](target), by its text when somebody names it and by what its name
//! resolves to when it is called; redirects are not followed, proxies are not asked, and no more of
//! an answer is read than lets the connection be used again. Calls are [signed](signature), and
//! [places] for them are few, so that a receiver that hangs does not hold up the others.
//!
//! Nothing here knows of tasks and queues.

mod address;
mod places;
mod resolver;
mod signature;
mod target;

use std::time::Duration;

use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use thiserror::Error;

pub(crate) use places::{Place, Places};
pub(crate) use target::Target;

use crate::{causes::with_causes, config::Webhooks, trace::WebhookCall};
use resolver::Resolver;
use signature::Signer;
use target::NotPublic;

/// How long a connection may take, and a call in all.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Connections that are kept for the next call.
const KEPT_CONNECTIONS: usize = 4;
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Of an answer's body, this much is read so that its connection can be used again.
const LONGEST_ANSWER: usize = 4096;

/// Who calls webhooks. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    signer: Option<Signer>,
    allow_private: bool,
}

/// There is no way to call webhooks.
#[derive(Debug, Error)]
#[error("webhooks cannot be called: {0}")]
pub struct ClientError(String);

/// A call: JSON for a webhook.
pub(crate) struct Call<'a> {
    /// `task_result` or `queue_ready`.
    pub(crate) kind: &'static str,
    /// The command that it is about.
    pub(crate) command: &'a str,
    /// How often it was made, this time included.
    pub(crate) attempt: u32,
    pub(crate) target: &'a Target,
    pub(crate) body: Vec<u8>,
    /// The W3C trace that the call belongs to; empty if there is none.
    pub(crate) trace_parent: &'a str,
    pub(crate) trace_state: &'a str,
}

/// Why a call failed. The text names no path of the URL, which may contain a secret.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("it answered {0}")]
    Status(u16),
    #[error("{0}; set webhookAllowPrivate to allow it")]
    NotPublic(NotPublic),
    #[error("it did not answer within {} s", CALL_LIMIT.as_secs())]
    TimedOut,
    #[error("{0}")]
    Failed(String),
}

impl Client {
    /// A client that signs and is careful as the configuration says.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub fn new(webhooks: &Webhooks) -> Result<Client, ClientError> {
        // One that is installed already is this one, too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = builder(webhooks.allow_private)
            .build()
            .or_else(|error| {
                let error = with_causes(&error);
                tracing::warn!(%error, "no authorities for TLS: webhooks with https will fail");
                builder(webhooks.allow_private).tls_certs_only([]).build()
            })
            .map_err(|error| ClientError(with_causes(&error)))?;
        let secret = webhooks.hmac_secret.as_ref();
        let signer = secret
            .map(|secret| Signer::new(secret.reveal()))
            .transpose()
            .map_err(|error| ClientError(error.to_string()))?;
        Ok(Client { http, signer, allow_private: webhooks.allow_private })
    }

    /// Reads the URL of a webhook.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for whoever named it.
    pub(crate) fn target(&self, url: &str) -> Result<Target, target::TargetError> {
        Target::parse(url, self.allow_private)
    }

    /// Calls a webhook. Any answer but a 2xx is a failure.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<(), CallError> {
        let Call { kind, command, attempt, trace_parent, trace_state, .. } = call;
        let host = call.target.authority();
        let span = WebhookCall::begin(kind, command, host, attempt, trace_parent, trace_state);
        let headers = self.headers(&call, &span);
        let request = self.http.post(call.target.url().clone()).headers(headers).body(call.body);
        let called = send(request).await;
        span.end(called.as_ref().err().map(ToString::to_string).as_deref());
        called
    }

    fn headers(&self, call: &Call<'_>, span: &WebhookCall) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut insert = |name: &'static str, value: &str| {
            // A value that is no header is nobody's trace.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        span.headers().for_each(|(name, value)| insert(name, value));
        if let Some(signer) = &self.signer {
            let signed = signer.sign(&call.body);
            insert("x-codeq-timestamp", &signed.timestamp);
            insert("x-codeq-signature", &signed.signature);
        }
        headers
    }
}

/// Sends a request, and looks at the answer.
async fn send(request: reqwest::RequestBuilder) -> Result<(), CallError> {
    let mut response = request.send().await.map_err(failure)?;
    let status = response.status();
    let mut read = 0;
    // What becomes of the rest of the answer changes nothing.
    while let Ok(Some(chunk)) = response.chunk().await
        && read < LONGEST_ANSWER
    {
        read += chunk.len();
    }
    if status.is_success() { Ok(()) } else { Err(CallError::Status(status.as_u16())) }
}

fn builder(allow_private: bool) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("codeq/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        // A proxy would be asked for private addresses, too.
        .no_proxy()
        .dns_resolver(Resolver::new(allow_private))
        .connect_timeout(CONNECT_LIMIT)
        .timeout(CALL_LIMIT)
        .pool_max_idle_per_host(KEPT_CONNECTIONS)
        .pool_idle_timeout(KEPT_FOR)
}

fn failure(error: reqwest::Error) -> CallError {
    if error.is_timeout() {
        return CallError::TimedOut;
    }
    let error = error.without_url();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(next) = cause {
        if let Some(refusal) = next.downcast_ref::<NotPublic>() {
            return CallError::NotPublic(refusal.clone());
        }
        cause = next.source();
    }
    CallError::Failed(with_causes(&error))
}

/// The host and port of a URL, as they are called.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
