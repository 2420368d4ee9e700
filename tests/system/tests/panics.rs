//! A plugin that panics, or never answers: an error with its name, and the host serves on.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod embedded;

use std::time::{Duration, Instant as Clock};

use codeq_host::{Store, plugins::OpenError};
use codeq_plugin::{ErrorKind, Queue};
use codeq_system_tests::{Host, plugin_dir};
use embedded::{claim, enqueue, open};
use serde_json::json;

/// What the test plugin panics with.
const PAYLOAD: &str = "the payload of the panic";

async fn hostile(at: &str) -> Result<Store, OpenError> {
    open(plugin_dir(&["hostile"]).path(), "hostile", json!({ "at": at })).await
}

fn assert_tells(said: &str, payload: &str) {
    assert!(said.contains("`hostile`"), "the plugin is not named in: {said}");
    assert!(said.contains("it panicked") && said.contains(payload), "{said}");
}

#[tokio::test]
async fn a_panic_while_opening_is_an_error() {
    for at in ["start", "open", "durability"] {
        let Err(error) = hostile(at).await else { panic!("it opened in spite of {at}") };
        assert_tells(&error.to_string(), PAYLOAD);
    }
}

#[tokio::test]
async fn a_panic_in_a_call_is_an_error_and_the_store_goes_on() {
    for (at, payload) in
        [("call", PAYLOAD), ("poll", PAYLOAD), ("value", "a value that is no text")]
    {
        let store = hostile(at).await.unwrap();
        let error = enqueue(&store, "a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_tells(&error.to_string(), payload);
        assert!(store.health().await.is_ok());
    }
}

#[tokio::test]
async fn a_panic_while_a_future_is_dropped_does_not_get_out() {
    let store = hostile("future").await.unwrap();
    // At its end, where somebody waits for it, and before it.
    assert_tells(&claim(&store).await.unwrap_err().to_string(), PAYLOAD);
    let dropped = tokio::time::timeout(Duration::from_millis(5), claim(&store)).await;
    assert!(dropped.is_err());
    assert!(store.health().await.is_ok());
}

#[tokio::test]
async fn a_panic_while_closing_is_an_error() {
    let store = hostile("close").await.unwrap();
    assert_tells(&store.close().await.unwrap_err().to_string(), PAYLOAD);
}

#[tokio::test]
async fn a_panic_while_a_store_is_dropped_does_not_get_out() {
    drop(hostile("drop").await.unwrap());
    assert!(hostile("nowhere").await.is_ok());
}

#[tokio::test]
async fn a_batch_with_too_few_answers_is_an_error() {
    let store = hostile("count").await.unwrap();
    let error = enqueue(&store, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("0 answers to 1 items"), "{error}");
}

#[tokio::test]
async fn an_operation_that_a_plugin_lacks_is_unsupported() {
    let store = hostile("nowhere").await.unwrap();
    let error = store.queue_stats(Queue::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(store.remove_expired(1).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

fn host(at: &str) -> Host {
    let dir = plugin_dir(&["hostile"]);
    let config = json!({ "persistenceProvider": "hostile", "persistenceConfig": { "at": at } });
    Host::spawn(dir.path(), config)
}

#[test]
fn a_host_whose_plugin_panics_serves_on_and_logs_the_payload_under_its_name() {
    for at in ["call", "poll", "value"] {
        let host = host(at);
        let client = host.client();
        for _ in 0..3 {
            let task = json!({ "command": "a", "payload": 1 });
            let answer = client.post("/tasks", task);
            assert_eq!((answer.status, &answer.body["error"]), (500, &json!("internal error")));
            assert_eq!(client.get("/healthz").status, 200);
        }
        let payload = if at == "value" { "a value that is no text" } else { PAYLOAD };
        host.wait_for(|log| {
            log.iter().any(|line| line.contains("`hostile`") && line.contains(payload))
        });
    }
}

#[test]
fn a_host_whose_plugin_panics_in_destructors_serves_on_and_says_so() {
    let host = host("future");
    let client = host.client();
    for _ in 0..3 {
        client.post("/tasks/claim", json!({}));
        assert_eq!(client.get("/healthz").status, 200);
    }
    let tells = |line: &String| line.contains("\"plugin\":\"hostile\"") && line.contains(PAYLOAD);
    host.wait_for(|log| log.iter().any(tells));
}

#[test]
fn a_host_whose_plugin_panics_at_the_end_stops_in_order_and_says_so() {
    for at in ["close", "drop"] {
        let mut host = host(at);
        host.terminate();
        assert!(host.wait().success(), "{:#?}", host.log());
        host.wait_for(|log| log.iter().any(|line| line.contains(PAYLOAD)));
    }
}

#[test]
fn a_host_whose_plugin_panics_at_the_start_says_so_and_ends() {
    let dir = plugin_dir(&["hostile"]);
    let env = [("PERSISTENCE_PROVIDER", "hostile"), ("PERSISTENCE_CONFIG", r#"{"at": "open"}"#)];
    let output = Host::run(dir.path(), &["serve"], &env);
    assert_eq!(output.status.code(), Some(1));
    assert_tells(&String::from_utf8_lossy(&output.stderr), PAYLOAD);
}

#[test]
fn readiness_is_answered_although_the_plugin_never_does() {
    let host = host("health");
    let begin = Clock::now();
    let answer = host.client().get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(host.client().get("/healthz").status, 200);
}

#[test]
fn what_a_plugin_logs_is_in_the_log_of_the_host_under_its_name() {
    let host = host("nowhere");
    host.wait_for(|log| {
        log.iter().any(|line| {
            line.contains("\"plugin\":\"hostile\"")
                && line.contains("opening")
                && line.contains("\"level\":\"WARN\"")
        })
    });
}
