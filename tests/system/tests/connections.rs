//! Connections: slow callers, callers who say nothing, too many of them, TLS and HTTP/2.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    fs, thread,
    time::{Duration, Instant as Clock},
};

use codeq_system_tests::{Host, PROVIDERS, Raw, Setup, many, on_every_provider, plugin_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Limits that pass while a test waits, and with a look at them every quarter of a second.
fn hasty() -> Value {
    json!({ "persistenceProvider": "memory", "requestTimeoutSeconds": 1, "idleTimeoutSeconds": 2 })
}

/// What a connection takes from its begin to its end by the host.
fn ended_after(raw: Raw) -> (Duration, u16, String) {
    let begin = Clock::now();
    let (status, text) = raw.read();
    (begin.elapsed(), status, text)
}

#[test]
fn a_caller_who_has_said_all_he_had_to_say_gets_his_answer() {
    on_every_provider(|host, client| {
        let body = br#"{"command":"half","payload":1}"#;
        for _ in 0..20 {
            let mut raw = Raw::connect(host);
            raw.post("/v1/codeq/tasks", body.len(), body);
            raw.end();
            assert_eq!(raw.read().0, 202);
        }
        assert_eq!(client.counts("half"), [20, 0, 0, 0]);
        let claim = br#"{"commands":["half"]}"#;
        let mut raw = Raw::connect(host);
        raw.post("/v1/codeq/tasks/claim", claim.len(), claim);
        raw.end();
        assert_eq!(raw.read().0, 200);
        assert_eq!(client.counts("half"), [19, 0, 1, 0]);
    });
}

#[test]
fn a_worker_who_left_while_he_waited_takes_no_task_with_him() {
    for provider in PROVIDERS {
        let setup = Setup::start(provider, &json!({}));
        let client = setup.host.client();
        let claim = br#"{"commands":["gone"],"waitSeconds":30}"#;
        let waiting: Vec<Raw> = (0..8)
            .map(|_| {
                let mut raw = Raw::connect(&setup.host);
                raw.post("/v1/codeq/tasks/claim", claim.len(), claim);
                raw
            })
            .collect();
        // By then they wait. Nothing outside the host tells when they do.
        thread::sleep(Duration::from_millis(300));
        drop(waiting);
        let id = client.create("gone");
        let task = client.claim_with(json!({ "commands": ["gone"], "waitSeconds": 20 })).unwrap();
        assert_eq!(task["id"], id.as_str());
    }
}

#[test]
fn a_body_that_does_not_come_is_waited_for_only_so_long() {
    let host = Host::start(plugin_dir(&["memory"]).path(), hasty());
    for length in [100, 1 << 20] {
        let mut raw = Raw::connect(&host);
        raw.post("/v1/codeq/tasks", length, b"{");
        let (_, status, text) = ended_after(raw);
        assert_eq!(status, 408, "{text}");
        assert!(text.contains("the body did not arrive in time (1 s)"), "{text}");
    }
}

#[test]
fn a_body_that_is_said_to_be_too_large_is_not_waited_for() {
    let host =
        Host::start(plugin_dir(&["memory"]).path(), json!({ "persistenceProvider": "memory" }));
    let mut raw = Raw::connect(&host);
    raw.post("/v1/codeq/tasks", 1 << 40, b"{");
    let (_, status, text) = ended_after(raw);
    assert_eq!(status, 413, "{text}");
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let host = Host::start(plugin_dir(&["memory"]).path(), hasty());
    let mut raw = Raw::connect(&host);
    raw.send(b"POST /v1/codeq/tasks HTTP/1.1\r\nHost:");
    let (time, ..) = ended_after(raw);
    assert!(time < Duration::from_secs(20), "{time:?}");
}

#[test]
fn a_connection_without_requests_ends_and_one_that_waits_for_a_task_does_not() {
    let host = Host::start(plugin_dir(&["memory"]).path(), hasty());
    let mut waiting = Raw::connect(&host);
    let claim = br#"{"commands":["idle"],"waitSeconds":6}"#;
    waiting.post("/v1/codeq/tasks/claim", claim.len(), claim);
    let mut idle = Raw::connect(&host);
    idle.send(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
    let (time, status, _) = ended_after(idle);
    assert_eq!(status, 200);
    assert!((Duration::from_secs(1)..Duration::from_secs(20)).contains(&time), "{time:?}");
    let (time, status, _) = ended_after(waiting);
    assert_eq!(status, 204);
    assert!(time > Duration::from_secs(1), "{time:?}");
}

#[test]
fn more_connections_than_there_may_be_wait_for_one_to_end() {
    let config = json!({
        "persistenceProvider": "memory", "maxConnections": 3, "idleTimeoutSeconds": 2,
    });
    let host = Host::start(plugin_dir(&["memory"]).path(), config);
    let idle: Vec<Raw> = (0..3).map(|_| Raw::connect(&host)).collect();
    // It is answered once the idle ones have been ended.
    host.client().get("/healthz").expect(200);
    drop(idle);
}

/// A certificate for this machine, in files.
struct Certificate {
    dir: TempDir,
    pem: String,
}

impl Certificate {
    fn new() -> Certificate {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Certificate { dir, pem: made.cert.pem() }
    }

    fn config(&self) -> Value {
        json!({
            "persistenceProvider": "memory",
            "tlsCertFile": self.dir.path().join("cert.pem"),
            "tlsKeyFile": self.dir.path().join("key.pem"),
        })
    }
}

async fn answer(client: &reqwest::Client, url: &str) -> (reqwest::Version, u16) {
    let response = client.get(url).send().await.unwrap();
    (response.version(), response.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_certificate_speaks_https_in_both_versions_and_nothing_else() {
    let certificate = Certificate::new();
    let plugins = plugin_dir(&["memory"]);
    let host = Host::spawn(plugins.path(), certificate.config());
    assert!(host.log().iter().any(|line| line.contains("https://127.0.0.1")), "{:?}", host.log());
    let port = host.addr().rsplit(':').next().unwrap().to_owned();
    let url = format!("https://localhost:{port}/readyz");
    let root = reqwest::Certificate::from_pem(certificate.pem.as_bytes()).unwrap();
    let client = || many().tls_certs_only([root.clone()]);
    let any = client().build().unwrap();
    assert_eq!(answer(&any, &url).await, (reqwest::Version::HTTP_2, 200));
    let old = client().http1_only().build().unwrap();
    assert_eq!(answer(&old, &url).await, (reqwest::Version::HTTP_11, 200));
    let stranger = many().tls_certs_only([]).build().unwrap();
    assert!(stranger.get(&url).send().await.is_err());
    assert!(old.get(format!("http://localhost:{port}/readyz")).send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_both_versions_are_spoken_as_they_are() {
    let host =
        Host::start(plugin_dir(&["memory"]).path(), json!({ "persistenceProvider": "memory" }));
    let url = format!("http://{}/healthz", host.addr());
    let new = many().http2_prior_knowledge().build().unwrap();
    assert_eq!(answer(&new, &url).await, (reqwest::Version::HTTP_2, 200));
    let old = many().build().unwrap();
    assert_eq!(answer(&old, &url).await, (reqwest::Version::HTTP_11, 200));
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_at_the_start() {
    let certificate = Certificate::new();
    let other = Certificate::new();
    let plugins = plugin_dir(&["memory"]);
    let path = |certificate: &Certificate, file| {
        certificate.dir.path().join(file).to_str().unwrap().to_owned()
    };
    let cases = [
        (
            "/nowhere/cert.pem".to_owned(),
            path(&certificate, "key.pem"),
            "cannot read /nowhere/cert.pem",
        ),
        (
            path(&certificate, "key.pem"),
            path(&certificate, "key.pem"),
            "holds no certificate in PEM",
        ),
        (
            path(&certificate, "cert.pem"),
            path(&certificate, "cert.pem"),
            "holds no private key in PEM",
        ),
        (path(&certificate, "cert.pem"), path(&other, "key.pem"), "cannot be used with the key"),
    ];
    for (cert, key, expected) in cases {
        let env = [
            ("PERSISTENCE_PROVIDER", "memory"),
            ("TLS_CERT_FILE", cert.as_str()),
            ("TLS_KEY_FILE", key.as_str()),
            ("PORT", "0"),
        ];
        let output = Host::run(plugins.path(), &["serve"], &env);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
