//! Requests to a host over HTTP, and what comes back.

use std::{fs, time::Duration};

use reqwest::{
    Certificate, Method, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::Value;

use super::{
    error::{ClientError, Refused},
    target::{Role, Source, Target, Token},
};
use crate::cli::Failure;

/// How long a host may take to be reached.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to answer, beyond what it was asked to wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longer answers are no host's: a page of the largest tasks is shorter.
const LARGEST_ANSWER: usize = 1 << 30;

/// A host, asked in one role.
pub(super) struct Api {
    http: reqwest::Client,
    token: Option<HeaderValue>,
    asked: Asked,
}

/// Who is asked and as what, as far as an error tells it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) url: Url,
    pub(super) url_from: Source,
    pub(super) role: Role,
    pub(super) token_from: Option<Source>,
    pub(super) passed_over: Option<String>,
}

/// What a host is asked.
pub(super) struct Request<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    body: Option<String>,
    wait: Duration,
    scope: Option<&'static str>,
}

/// What it answered.
pub(super) struct Answer {
    /// The JSON as it stands; empty if the host had nothing to say.
    pub(super) text: String,
    /// The same, read.
    pub(super) value: Value,
}

impl<'a> Request<'a> {
    pub(super) fn get(path: &'a [&'a str]) -> Request<'a> {
        Request::new(Method::GET, path)
    }

    pub(super) fn post(path: &'a [&'a str]) -> Request<'a> {
        Request::new(Method::POST, path)
    }

    pub(super) fn delete(path: &'a [&'a str]) -> Request<'a> {
        Request::new(Method::DELETE, path)
    }

    fn new(method: Method, path: &'a [&'a str]) -> Request<'a> {
        Request { method, path, query: Vec::new(), body: None, wait: Duration::ZERO, scope: None }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Request<'a> {
        self.query.push((name, value.to_string()));
        self
    }

    /// With a body of JSON.
    pub(super) fn body(self, json: impl ToString) -> Request<'a> {
        Request { body: Some(json.to_string()), ..self }
    }

    /// The host may take this much longer to answer.
    pub(super) fn wait(self, wait: Duration) -> Request<'a> {
        Request { wait, ..self }
    }

    /// The scope that a token needs for it.
    pub(super) fn scope(self, scope: &'static str) -> Request<'a> {
        Request { scope: Some(scope), ..self }
    }
}

impl Api {
    /// Makes ready to ask a host in a role.
    pub(super) fn new(target: &Target, role: Role) -> Result<Api, Failure> {
        let token = target.token(role)?;
        Ok(Api {
            http: client(target)?,
            token: token.as_ref().map(header).transpose()?,
            asked: Asked {
                url: target.url.clone(),
                url_from: target.url_from.clone(),
                role,
                token_from: token.map(|token| token.source),
                passed_over: target.passed_over.clone(),
            },
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.asked.url
    }

    /// Asks, and reads the answer.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Answer, ClientError> {
        let url = self.url_of(&request);
        let mut sent = self
            .http
            .request(request.method.clone(), url.clone())
            .timeout(request.wait + ANSWER_LIMIT)
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            sent = sent.header(AUTHORIZATION, token.clone());
        }
        if let Some(body) = request.body {
            sent = sent.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = sent.send().await.map_err(|error| ClientError::lost(&self.asked, &error))?;
        let status = response.status();
        let header = |name| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let (retry_after, location) = (header(RETRY_AFTER), header(LOCATION));
        let (kind, request_id) =
            (header(CONTENT_TYPE), header(HeaderName::from_static("x-request-id")));
        if status.is_redirection() {
            return Err(ClientError::Redirected {
                asked: self.asked.clone(),
                to: location.unwrap_or_else(|| "nowhere".into()),
            });
        }
        let text = self.read(response).await?;
        if status == StatusCode::NO_CONTENT {
            return Ok(Answer { text: String::new(), value: Value::Null });
        }
        let Some(value) = object(&text) else {
            return Err(ClientError::NotCodeq { asked: self.asked.clone(), status, kind });
        };
        if status.is_success() {
            return Ok(Answer { text: text.trim().to_owned(), value });
        }
        Err(ClientError::Refused(Box::new(Refused {
            asked: self.asked.clone(),
            scope: request.scope,
            request: format!("{} {}", request.method, url.path()),
            status,
            retry_after: value["retryAfterSeconds"]
                .as_u64()
                .or_else(|| retry_after?.trim().parse().ok()),
            request_id,
            body: value,
        })))
    }

    async fn read(&self, mut response: Response) -> Result<String, ClientError> {
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await;
            match chunk.map_err(|error| ClientError::lost(&self.asked, &error))? {
                Some(_) if bytes.len() > LARGEST_ANSWER => {
                    return Err(ClientError::TooLong { asked: self.asked.clone() });
                }
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            }
        }
    }

    fn url_of(&self, request: &Request<'_>) -> Url {
        let mut url = self.asked.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "codeq"]).extend(request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        url
    }
}

/// Every answer of a host that has a body is an object.
fn object(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// A token as it is sent, and never logged.
fn header(token: &Token) -> Result<HeaderValue, Failure> {
    let mut header =
        HeaderValue::from_str(&format!("Bearer {}", token.secret.reveal())).map_err(|_| {
            Failure::Wrong(format!(
                "the token ({}) has characters that cannot be sent",
                token.source
            ))
        })?;
    header.set_sensitive(true);
    Ok(header)
}

fn client(target: &Target) -> Result<reqwest::Client, Failure> {
    // If there is one already, it is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder()
        .user_agent(concat!("codeq/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_LIMIT)
        // Whoever follows sends a token to where it was not meant for, and a POST as a GET.
        .redirect(Policy::none())
        .tcp_nodelay(true);
    if is_this_machine(&target.url) {
        // A proxy, which the environment may name, is another machine.
        client = client.no_proxy();
    }
    match &target.ca_file {
        // The system's authorities are not needed, and a bare machine has none.
        _ if target.url.scheme() == "http" => client = client.tls_certs_only([]),
        Some((file, source)) => {
            let place = format!("the CA file {} ({source})", file.display());
            let wrong = |problem: String| Failure::Wrong(format!("{place} {problem}"));
            let pem = fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
            let authorities = Certificate::from_pem_bundle(&pem)
                .map_err(|error| wrong(format!("is not in PEM: {error}")))?;
            if authorities.is_empty() {
                return Err(wrong("has no certificate in PEM in it".into()));
            }
            client = client.tls_certs_only(authorities);
        }
        None => {}
    }
    client.build().map_err(|error| {
        let error = crate::causes::with_causes(&error);
        Failure::Wrong(format!(
            "cannot make ready for TLS: {error}; --ca-file names the authorities to trust"
        ))
    })
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
