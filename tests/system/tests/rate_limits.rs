//! How often callers may call.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use codeq_system_tests::{Answer, Client, Host, PATIENCE, plugin_dir};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Two callers of each kind, and a limit for each scope that is named: a few at once, and then one
/// in two minutes.
fn start(limits: &Value) -> Host {
    let caller = |token: &str, role: &str| {
        json!({
            "token": token,
            "subject": token,
            "scopes": ["codeq:claim", "codeq:heartbeat", "codeq:result"],
            "eventTypes": ["*"],
            "raw": { "tid": "acme", "role": role },
        })
    };
    launch(json!({
        "producerAuthProvider": "static",
        "producerAuthConfig": [caller("ann", "ADMIN"), caller("amy", "ADMIN")],
        "workerAuthProvider": "static",
        "workerAuthConfig": [caller("bob", ""), caller("ben", "")],
        "rateLimit": limits,
    }))
}

fn launch(mut config: Value) -> Host {
    config["persistenceProvider"] = "memory".into();
    Host::start(plugin_dir(&["memory"]).path(), config)
}

fn limit(burst: u32) -> Value {
    json!({ "requestsPerMinute": 1, "burstSize": burst })
}

fn create(client: &Client) -> Answer {
    client.post("/tasks", json!({ "command": "a", "payload": 1 }))
}

fn claim(client: &Client) -> Answer {
    client.post("/tasks/claim", json!({ "commands": ["b"] }))
}

/// An answer to somebody who called too often.
fn expect_refusal(answer: Answer, scope: &str, operation: &str) {
    let header: u64 = answer.headers["Retry-After"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&header), "{header}");
    let expected = json!({
        "error": "rate limit exceeded",
        "scope": scope,
        "operation": operation,
        "retryAfterSeconds": header,
    });
    assert_eq!(answer.expect(429), expected);
}

#[test]
fn a_producer_creates_no_more_than_its_limit() {
    let host = start(&json!({ "producer": limit(3) }));
    let ann = host.client().with_token("ann");
    let batch =
        json!({ "tasks": [{ "command": "a", "payload": 1 }, { "command": "a", "payload": 2 }] });
    let id = create(&ann).expect(202)["id"].as_str().unwrap().to_owned();
    ann.post("/tasks/batch", batch.clone()).expect(200);
    // What makes no sense counts as well.
    ann.post("/tasks", json!({})).expect(400);
    expect_refusal(create(&ann), "producer", "create_task");
    expect_refusal(ann.post("/tasks/batch", batch), "producer", "create_task");
    // Reading is not limited, nor are others.
    ann.get(&format!("/tasks/{id}")).expect(200);
    create(&host.client().with_token("amy")).expect(202);
    claim(&host.client().with_token("bob")).expect(204);
}

#[test]
fn a_worker_claims_no_more_than_its_limit() {
    let host = start(&json!({ "worker": limit(2) }));
    let (ann, bob) = (host.client().with_token("ann"), host.client().with_token("bob"));
    let id = ann.create("a");
    assert_eq!(bob.claim("a").unwrap()["id"], *id);
    bob.post("/tasks/claim/batch", json!({ "commands": ["b"], "count": 1 })).expect(204);
    expect_refusal(claim(&bob), "worker", "claim");
    let batch = bob.post("/tasks/claim/batch", json!({ "commands": ["b"], "count": 1 }));
    expect_refusal(batch, "worker", "claim");
    // Work that was begun can be finished.
    bob.post(&format!("/tasks/{id}/heartbeat"), json!({})).expect(200);
    bob.complete(&id).expect(200);
    claim(&host.client().with_token("ben")).expect(204);
}

#[test]
fn an_operator_does_no_more_than_its_limit_on_any_route() {
    let host = start(&json!({ "admin": limit(2) }));
    let ann = host.client().with_token("ann");
    ann.get("/admin/queues").expect(200);
    ann.get("/admin/queues/a").expect(200);
    expect_refusal(ann.get("/admin/queues"), "admin", "admin");
    expect_refusal(ann.post("/admin/tasks/cleanup", json!({})), "admin", "cleanup");
    create(&ann).expect(202);
    host.client().with_token("amy").get("/admin/queues").expect(200);
}

#[test]
fn whoever_is_not_let_in_does_not_count() {
    let host = start(&json!({ "producer": limit(1), "worker": limit(1), "admin": limit(1) }));
    let (ann, bob) = (host.client().with_token("ann"), host.client().with_token("bob"));
    for _ in 0..5 {
        create(&host.client()).expect(401);
        create(&host.client().with_token("wrong")).expect(401);
        create(&bob).expect(401);
        bob.get("/admin/queues").expect(403);
    }
    create(&ann).expect(202);
    claim(&bob).expect(204);
}

#[test]
fn whoever_has_waited_as_he_was_told_is_served() {
    let limit = json!({ "requestsPerMinute": 30, "burstSize": 1 });
    let host = start(&json!({ "producer": limit }));
    let ann = host.client().with_token("ann");
    create(&ann).expect(202);
    let began = Instant::now();
    let refusal = create(&ann).expect(429);
    assert!((1..=2).contains(&refusal["retryAfterSeconds"].as_u64().unwrap()), "{refusal}");
    while create(&ann).status == 429 {
        assert!(began.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(1), "served after {waited:?}");
}

#[test]
fn a_host_without_tokens_has_one_caller() {
    let host = launch(json!({ "rateLimit": { "producer": limit(2) } }));
    create(&host.client()).expect(202);
    create(&host.client().with_token("any")).expect(202);
    expect_refusal(create(&host.client().with_token("other")), "producer", "create_task");
}

#[test]
fn a_limit_without_a_burst_is_off() {
    let host = start(&json!({
        "producer": { "requestsPerMinute": 1 },
        "worker": { "requestsPerMinute": 0, "burstSize": 1 },
    }));
    for _ in 0..20 {
        create(&host.client().with_token("ann")).expect(202);
        claim(&host.client().with_token("bob")).expect(204);
    }
}
