//! The log, as a program reads it.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use codeq_system_tests::{Client, Host, Setup, on_every_provider_with, plugin_dir};
use serde_json::{Value, json};

const ID: &str = "the-request-that-is-looked-for";

fn with_tokens(more: &Value) -> Value {
    let mut config = json!({
        "producerAuthProvider": "static",
        "producerAuthConfig": {
            "token": "secret-producer", "subject": "ann", "raw": { "tid": "acme" },
        },
        "workerAuthProvider": "static",
        "workerAuthConfig": {
            "token": "secret-worker",
            "subject": "bob",
            "eventTypes": ["*"],
            "scopes": ["codeq:claim", "codeq:nack", "codeq:result"],
            "raw": { "tid": "acme" },
        },
        "webhookHmacSecret": "secret-hmac",
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// The lines of a host's log with this message.
fn lines(host: &Host, message: &str) -> Vec<Value> {
    let read = |line: &String| serde_json::from_str::<Value>(line).expect(line);
    host.log().iter().map(read).filter(|line| line["message"] == message).collect()
}

fn wait_for(host: &Host, message: &str) -> Value {
    host.wait_for(|_| !lines(host, message).is_empty());
    lines(host, message).remove(0)
}

fn post(client: &Client, path: &str, body: &Value) -> Value {
    let headers = [("X-Request-Id", ID)];
    client.send("POST", path, Some(body.to_string().as_bytes()), &headers).body
}

/// A task is created with something private in it, claimed, and dead-lettered.
fn bury(client: &Client) -> String {
    let (producer, worker) =
        (client.with_token("secret-producer"), client.with_token("secret-worker"));
    let task = json!({ "command": "Doomed", "payload": "secret-payload", "maxAttempts": 1 });
    let id = post(&producer, "/tasks", &task)["id"].as_str().unwrap().to_owned();
    post(&worker, "/tasks/claim", &json!({ "commands": ["doomed"] }));
    post(&worker, &format!("/tasks/{id}/nack"), &json!({ "reason": "it broke" }));
    id
}

#[test]
fn a_line_about_a_task_names_it_and_the_request() {
    on_every_provider_with(&with_tokens(&json!({})), |host, client| {
        let id = bury(client);
        let line = wait_for(host, "task dead-lettered");
        assert_eq!(line["level"], "WARN");
        assert_eq!((&line["task"], &line["command"]), (&json!(id), &json!("Doomed")));
        assert_eq!(line["tenant"], "acme");
        let request = &line["span"];
        assert_eq!(request["request_id"], ID, "{line}");
        assert_eq!(
            (&request["method"], &request["route"]),
            (&json!("POST"), &json!("/v1/codeq/tasks/:id/nack"))
        );
        assert_eq!((&request["tenant"], &request["subject"]), (&json!("acme"), &json!("bob")));
        assert!(lines(host, "answered").is_empty(), "requests are told at debug only");
    });
}

#[test]
fn at_debug_each_request_and_each_step_has_a_line() {
    on_every_provider_with(&with_tokens(&json!({ "logLevel": "debug" })), |host, client| {
        let id = bury(client);
        let answered = wait_for(host, "answered");
        assert_eq!((&answered["path"], &answered["status"]), (&json!("/readyz"), &json!(200)));
        host.wait_for(|_| lines(host, "answered").len() >= 4);
        let created = lines(host, "answered")
            .into_iter()
            .find(|line| line["path"] == "/v1/codeq/tasks")
            .expect("a line for each request");
        assert_eq!((&created["status"], &created["span"]["request_id"]), (&json!(202), &json!(ID)));
        assert!(created["ms"].as_f64().unwrap() > 0.0);
        for message in ["task created", "task claimed"] {
            let line = wait_for(host, message);
            assert_eq!((&line["task"], &line["tenant"]), (&json!(id), &json!("acme")));
            assert_eq!(line["span"]["request_id"], ID, "{line}");
        }
    });
}

#[test]
fn nothing_private_is_in_the_log() {
    on_every_provider_with(&with_tokens(&json!({ "logLevel": "trace" })), |host, client| {
        bury(client);
        wait_for(host, "task dead-lettered");
        let log = host.log().join("\n");
        assert!(!log.contains("secret"), "{log}");
    });
}

#[test]
fn an_error_of_the_backend_names_the_request() {
    let mut setup = Setup::start("redis", &json!({ "logLevel": "debug" }));
    setup.redis.as_mut().unwrap().kill();
    let client = setup.host.client();
    post(&client, "/tasks", &json!({ "command": "lost", "payload": 1 }));
    let line = wait_for(&setup.host, "a request failed: the backend is unavailable");
    assert_eq!(line["span"]["request_id"], ID, "{line}");
}

#[test]
fn the_start_says_what_is_served_and_how() {
    let dir = plugin_dir(&["memory"]);
    let config = with_tokens(&json!({
        "persistenceProvider": "memory",
        "rateLimit": { "producer": { "requestsPerMinute": 60, "burstSize": 10 } },
        "publicUrl": "https://queue.example.org/",
    }));
    let host = Host::start(dir.path(), config);
    let line = wait_for(&host, "serving");
    let (_, port) = host.addr().rsplit_once(':').unwrap();
    assert_eq!(line["address"], format!("http://0.0.0.0:{port}"), "with tokens, for everybody");
    assert_eq!(line["public_url"], "https://queue.example.org");
    assert_eq!((&line["plugin"], &line["durability"]), (&json!("memory"), &json!("volatile")));
    assert!(line["file"].as_str().unwrap().starts_with(dir.path().to_str().unwrap()), "{line}");
    assert_eq!(line["auth"], "producers by static, workers by static");
    assert_eq!((&line["webhooks"], &line["tls"]), (&json!("signed"), &json!("off")));
    assert_eq!(line["rate_limits"], "producer 60/min, 10 at once");
    assert_eq!(line["traces"], "off");
}

#[test]
fn people_are_told_in_a_table() {
    let config = json!({ "persistenceProvider": "memory" });
    let env = [("LOG_FORMAT", "text".into())];
    let dir = plugin_dir(&["memory"]);
    let host = Host::launch_with_env(dir.path(), config, &env);
    host.wait_for(|log| log.iter().any(|line| line.contains("/metrics")));
    let log = host.log().join("\n");
    let version = env!("CARGO_PKG_VERSION");
    assert!(log.contains(&format!("codeq {version} serves http://{}\n", host.addr())), "{log}");
    assert!(log.contains("  durability   volatile: what is answered survives nothing\n"), "{log}");
    assert!(log.contains("  webhooks     not signed\n"), "{log}");
}
