//! A client of the HTTP API.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::{
    Agent,
    http::{HeaderMap, Method, Request},
};

/// A caller with a token, or without.
#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    agent: Agent,
}

/// An answer of the host.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; nothing if it is empty or no JSON.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that has to have this status.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl Client {
    pub(crate) fn new(base: String) -> Client {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Client { base, token: None, agent }
    }

    /// The same client with a token.
    pub fn with_token(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Sends a request with a body, or without.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let path = if path.starts_with("/healthz") || path.starts_with("/readyz") {
            path.to_owned()
        } else {
            format!("/v1/codeq{path}")
        };
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match body {
            Some(body) => self.agent.run(request.body(body).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        };
        let mut response = sent.expect("the host answers");
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.body_mut().read_json().unwrap_or(Value::Null),
        }
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None, &[])
    }

    /// A POST of JSON.
    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body.to_string().as_bytes()), &[])
    }

    /// Creates a task of a command; answers its id.
    pub fn create(&self, command: &str) -> String {
        self.create_with(json!({ "command": command, "payload": { "n": 1 } }))["id"]
            .as_str()
            .unwrap()
            .into()
    }

    /// Creates a task; answers it.
    pub fn create_with(&self, body: Value) -> Value {
        self.post("/tasks", body).expect(202)
    }

    /// Claims a task of a command, if there is one.
    pub fn claim(&self, command: &str) -> Option<Value> {
        self.claim_with(json!({ "commands": [command] }))
    }

    /// Claims a task, if there is one.
    pub fn claim_with(&self, body: Value) -> Option<Value> {
        let answer = self.post("/tasks/claim", body);
        if answer.status == 204 { None } else { Some(answer.expect(200)) }
    }

    /// Completes a task.
    pub fn complete(&self, id: &str) -> Answer {
        self.post(
            &format!("/tasks/{id}/result"),
            json!({ "status": "COMPLETED", "result": { "ok": true } }),
        )
    }

    /// The counts of a queue: ready, delayed, inProgress, dlq.
    pub fn counts(&self, command: &str) -> [u64; 4] {
        let stats = self.get(&format!("/admin/queues/{command}")).expect(200);
        ["ready", "delayed", "inProgress", "dlq"].map(|name| stats[name].as_u64().unwrap())
    }
}

/// A client for many requests at a time.
pub fn many() -> reqwest::ClientBuilder {
    // An error means that somebody was here before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}
