//! Who may do what, by the token.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use codeq_system_tests::{
    Client, Host, Setup, on_every_provider, on_every_provider_with, plugin_dir, start_on,
};
use serde_json::{Value, json};

const PRODUCER: &str = "the-producers-secret";
const WORKER: &str = "the-workers-secret";
const EVERYTHING: [&str; 5] =
    ["codeq:claim", "codeq:heartbeat", "codeq:abandon", "codeq:nack", "codeq:result"];

/// A configuration with a producer and a worker of the tenant `acme`; `more` goes into the claims of
/// both.
fn claims(producer: &Value, worker: &Value) -> Value {
    let with = |token: &str, subject: &str, more: &Value| {
        let mut claims = json!({
            "token": token,
            "subject": subject,
            "email": format!("{subject}@example.org"),
            "scopes": EVERYTHING,
            "eventTypes": ["*"],
            "raw": { "tid": "acme" },
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    json!({
        "producerAuthProvider": "static",
        "producerAuthConfig": with(PRODUCER, "ann", producer),
        "workerAuthProvider": "static",
        "workerAuthConfig": with(WORKER, "bob", worker),
        "env": "prod",
    })
}

fn plain() -> Value {
    claims(&json!({}), &json!({}))
}

fn and(mut config: Value, more: &Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// Runs a test on every provider with a producer and a worker.
fn with(config: &Value, test: impl Fn(&Client, &Client)) {
    on_every_provider_with(config, |_, client| {
        test(&client.with_token(PRODUCER), &client.with_token(WORKER));
    });
}

fn create(client: &Client) -> u16 {
    client.post("/tasks", json!({ "command": "a", "payload": 1 })).status
}

fn claim(client: &Client) -> u16 {
    client.post("/tasks/claim", json!({ "commands": ["a"] })).status
}

#[test]
fn a_producer_creates_and_a_worker_completes() {
    with(&plain(), |producer, worker| {
        let id = producer.create("a");
        let claimed = worker.claim("a").unwrap();
        assert_eq!((&claimed["id"], &claimed["workerId"]), (&json!(id), &json!("bob")));
        worker.complete(&id).expect(200);
        for reader in [producer, worker] {
            assert_eq!(reader.get(&format!("/tasks/{id}")).expect(200)["status"], "COMPLETED");
            reader.get(&format!("/tasks/{id}/result")).expect(200);
        }
    });
}

#[test]
fn a_token_may_be_written_as_plain_text() {
    let config = json!({
        "producerAuthProvider": "static",
        "producerAuthConfig": PRODUCER,
        "workerAuthProvider": "static",
        "workerAuthConfig": WORKER,
    });
    with(&config, |producer, worker| {
        let id = producer.create("a");
        assert_eq!(worker.claim("a").unwrap()["id"], *id);
        worker.complete(&id).expect(200);
        assert_eq!((create(worker), claim(producer)), (401, 401));
    });
}

#[test]
fn a_request_without_the_right_token_is_refused_on_every_route() {
    on_every_provider_with(&plain(), |_, client| {
        let routes = [
            ("POST", "/tasks"),
            ("POST", "/tasks/batch"),
            ("POST", "/tasks/batch/results"),
            ("POST", "/tasks/claim"),
            ("POST", "/tasks/claim/batch"),
            ("GET", "/tasks/x"),
            ("POST", "/tasks/x/heartbeat"),
            ("POST", "/tasks/x/abandon"),
            ("POST", "/tasks/x/nack"),
            ("POST", "/tasks/x/result"),
            ("GET", "/tasks/x/result"),
            ("GET", "/admin/queues"),
            ("GET", "/admin/queues/a"),
            ("POST", "/admin/tasks/cleanup"),
        ];
        let almost = &PRODUCER[1..];
        let headers = [
            None,
            Some(String::new()),
            Some("Bearer".into()),
            Some("Bearer ".into()),
            Some("Bearer wrong".into()),
            Some(format!("Bearer {almost}")),
            Some(format!("Bearer {PRODUCER}x")),
            Some(format!("Basic {PRODUCER}")),
            Some(PRODUCER.to_owned()),
        ];
        for (method, path) in routes {
            for header in &headers {
                let header = header.as_deref().map(|text| ("Authorization", text));
                let body: Option<&[u8]> = (method == "POST").then_some(b"{}");
                let answer = client.send(method, path, body, header.as_slice());
                let what = format!("{method} {path} with {header:?}");
                assert_eq!(answer.status, 401, "{what}");
                assert!(answer.body["error"].is_string(), "{what}");
            }
        }
        client.get("/healthz").expect(200);
        client.get("/readyz").expect(200);
    });
}

#[test]
fn the_scheme_may_be_written_in_any_case() {
    on_every_provider_with(&plain(), |_, client| {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let header = format!("{scheme} {PRODUCER}");
            let headers = [("Authorization", header.as_str())];
            let body: &[u8] = br#"{"command":"a","payload":1}"#;
            client.send("POST", "/tasks", Some(body), &headers).expect(202);
        }
    });
}

#[test]
fn the_token_of_one_role_is_not_the_others() {
    with(&plain(), |producer, worker| {
        assert_eq!((create(producer), claim(worker)), (202, 200));
        assert_eq!((create(worker), claim(producer)), (401, 401));
    });
}

#[test]
fn a_producer_may_work_where_that_is_allowed() {
    let config = and(plain(), &json!({ "allowProducerAsWorker": true }));
    let config = and(
        config,
        &json!({ "producerAuthConfig": {
            "token": PRODUCER, "subject": "ann", "raw": { "tid": "acme" },
        }}),
    );
    with(&config, |producer, worker| {
        let id = producer.create("a");
        assert_eq!(producer.claim("a").unwrap()["workerId"], "ann");
        producer.post(&format!("/tasks/{id}/heartbeat"), json!({})).expect(200);
        producer.post(&format!("/tasks/{id}/nack"), json!({})).expect(200);
        assert_eq!(producer.claim("a").unwrap()["id"], *id);
        producer.post(&format!("/tasks/{id}/abandon"), json!({})).expect(200);
        assert_eq!(producer.claim("a").unwrap()["id"], *id);
        producer.complete(&id).expect(200);
        assert_eq!((create(worker), claim(worker)), (401, 204));
    });
}

#[test]
fn each_action_needs_its_scope() {
    for missing in EVERYTHING {
        let scopes: Vec<&str> = EVERYTHING.into_iter().filter(|s| *s != missing).collect();
        with(&claims(&json!({}), &json!({ "scopes": scopes })), |producer, worker| {
            let id = producer.create("a");
            let other = |scope: &str, status: u16| if scope == missing { 403 } else { status };
            let done = json!({ "status": "COMPLETED", "result": {} });
            let claim = |path: &str, status: u16| {
                let body = json!({ "commands": ["a"], "count": 1 });
                worker.post(path, body).expect(other("codeq:claim", status))
            };
            claim("/tasks/claim", 200);
            claim("/tasks/claim/batch", 204);
            // Without the first scope the task is held by nobody.
            let held = |status| if missing == "codeq:claim" { 409 } else { status };
            let act = |action: &str, scope: &str, body: Value| {
                let path = format!("/tasks/{id}/{action}");
                let answer = worker.post(&path, body).expect(other(scope, held(200)));
                if scope == missing {
                    assert_eq!(answer["error"], "missing scope");
                }
            };
            act("heartbeat", "codeq:heartbeat", json!({}));
            act("nack", "codeq:nack", json!({}));
            if missing != "codeq:nack" {
                claim("/tasks/claim", 200);
            }
            act("abandon", "codeq:abandon", json!({}));
            if missing != "codeq:abandon" {
                claim("/tasks/claim", 200);
            }
            act("result", "codeq:result", done.clone());
            let results = json!({ "results": [done] });
            worker.post("/tasks/batch/results", results).expect(other("codeq:result", 200));
        });
    }
}

#[test]
fn a_worker_without_scopes_or_event_types_is_none() {
    for name in ["scopes", "eventTypes"] {
        with(&claims(&json!({}), &json!({ name: [] })), |producer, worker| {
            producer.create("a");
            assert_eq!(claim(worker), 401);
        });
    }
}

#[test]
fn a_worker_claims_only_what_its_token_names() {
    with(&claims(&json!({}), &json!({ "eventTypes": ["a", "B"] })), |producer, worker| {
        for command in ["c", "b", "a"] {
            producer.create(command);
        }
        for commands in [json!(["c"]), json!(["a", "c"]), json!(["*"])] {
            let body = json!({ "commands": commands, "count": 1 });
            for path in ["/tasks/claim", "/tasks/claim/batch"] {
                worker.post(path, body.clone()).expect(403);
            }
        }
        assert_eq!(worker.claim("A").unwrap()["command"], "a");
        assert_eq!(worker.claim_with(json!({})).unwrap()["command"], "b");
        assert!(worker.claim_with(json!({})).is_none());
    });
}

// Operators.

fn admin(client: &Client, role: Option<&str>) -> [u16; 3] {
    let role = role.map(|role| ("X-Role", role));
    [("GET", "/admin/queues"), ("GET", "/admin/queues/a"), ("POST", "/admin/tasks/cleanup")]
        .map(|(method, path)| client.send(method, path, None, role.as_slice()).status)
}

#[test]
fn an_operator_has_the_scope_of_one() {
    with(&claims(&json!({ "scopes": ["codeq:admin"] }), &json!({})), |producer, worker| {
        assert_eq!(admin(producer, None), [200; 3]);
        assert_eq!(admin(worker, None), [403; 3]);
    });
}

#[test]
fn an_operator_has_the_role_of_one() {
    let role = |role: &str| json!({ "raw": { "tid": "acme", "role": role } });
    with(&claims(&role("USER"), &role("ADMIN")), |producer, worker| {
        assert_eq!(admin(producer, None), [403; 3]);
        assert_eq!(admin(worker, None), [200; 3]);
    });
}

#[test]
fn a_header_makes_an_operator_in_development_only() {
    with(&plain(), |producer, worker| {
        for client in [producer, worker] {
            assert_eq!(admin(client, Some("ADMIN")), [403; 3]);
        }
    });
    with(&and(plain(), &json!({ "env": "dev" })), |producer, worker| {
        for client in [producer, worker] {
            assert_eq!(admin(client, Some("ADMIN")), [200; 3]);
            assert_eq!(admin(client, Some("USER")), [403; 3]);
            assert_eq!(admin(client, None), [403; 3]);
            assert_eq!(admin(&client.with_token("wrong"), Some("ADMIN")), [401; 3]);
        }
    });
}

// Tenants.

#[test]
fn each_of_the_claims_names_the_tenant() {
    for name in ["tid", "tenantId", "tenant_id", "organizationId", "organization_id"] {
        let config = claims(
            &json!({ "raw": { name: "globex", "email": "x" } }),
            &json!({ "raw": { "tid": "globex", "organization_id": "globex" } }),
        );
        with(&config, |producer, worker| {
            let id = producer.create("a");
            let claimed = worker.claim("a").unwrap();
            assert_eq!((&claimed["id"], &claimed["tenantId"]), (&json!(id), &json!("globex")));
        });
    }
}

#[test]
fn without_a_claim_the_subject_is_the_tenant() {
    let config = claims(&json!({ "raw": {} }), &json!({ "raw": { "tid": "ann" } }));
    with(&config, |producer, worker| {
        producer.create("a");
        assert_eq!(worker.claim("a").unwrap()["tenantId"], "ann");
    });
}

#[test]
fn tenants_that_contradict_each_other_or_are_no_labels_are_refused() {
    for raw in [
        json!({ "tid": "acme", "tenantId": "globex" }),
        json!({ "tenant_id": "acme", "organization_id": "globex" }),
        json!({ "tid": "Acme" }),
        json!({ "tid": "a" }),
        json!({ "tid": "acme:globex" }),
        json!({ "tid": "" }),
        json!({ "tid": 7 }),
    ] {
        let raw = json!({ "raw": raw });
        let config = claims(&raw, &raw);
        with(&config, |producer, worker| {
            assert_eq!((create(producer), claim(worker)), (403, 403));
            let answer = producer.get("/tasks/x").expect(403);
            assert_eq!(answer["error"], "invalid tenant claims");
        });
    }
}

#[test]
fn a_tenant_sees_nothing_of_anothers_tasks() {
    let admin = ["codeq:admin", "codeq:claim", "codeq:heartbeat", "codeq:abandon", "codeq:nack"];
    let admin = [&admin[..], &["codeq:result"]].concat();
    let config = and(
        claims(
            &json!({ "scopes": admin }),
            &json!({ "scopes": admin, "raw": { "tid": "globex" } }),
        ),
        &json!({ "allowProducerAsWorker": true }),
    );
    with(&config, |acme, globex| {
        let id = acme.create("a");
        assert!(globex.claim("a").is_none());
        assert!(globex.claim_with(json!({})).is_none());
        acme.claim("a").unwrap();
        let body = json!({ "status": "COMPLETED", "result": {} });
        for action in ["heartbeat", "abandon", "nack", "result"] {
            globex.post(&format!("/tasks/{id}/{action}"), body.clone()).expect(404);
        }
        let results = json!({ "results": [{ "taskId": id, "status": "COMPLETED", "result": {} }] });
        let answer = globex.post("/tasks/batch/results", results).expect(200);
        assert_eq!(answer["results"][0]["error"], "task not found");
        let unknown = globex.get("/tasks/unknown").expect(404);
        assert_eq!(globex.get(&format!("/tasks/{id}")).expect(404), unknown);
        acme.complete(&id).expect(200);
        let answer = globex.get(&format!("/tasks/{id}/result?waitSeconds=60")).expect(404);
        assert_eq!(answer["error"], "task not found");
        acme.create("a");
        assert_eq!(globex.counts("a"), [0; 4]);
        assert_eq!(acme.counts("a"), [1, 0, 0, 0]);
        assert_eq!(globex.get("/admin/queues").expect(200)["queues"], json!([]));
        let cleanup = json!({ "before": "2999-01-01T00:00:00Z" });
        let removed = globex.post("/admin/tasks/cleanup", cleanup).expect(200);
        assert_eq!(removed["deleted"], 0);
        acme.get(&format!("/tasks/{id}")).expect(200);
    });
}

#[test]
fn an_arrival_does_not_wake_another_tenants_claim() {
    let config = claims(&json!({}), &json!({ "raw": { "tid": "globex" } }));
    with(&config, |acme, globex| {
        std::thread::scope(|scope| {
            let claim = json!({ "waitSeconds": 1 });
            let waiter = scope.spawn(move || globex.claim_with(claim));
            acme.create("a");
            assert!(waiter.join().unwrap().is_none());
        });
    });
}

#[test]
fn idempotency_keys_of_different_tenants_never_meet() {
    let tenant = |name: &str| claims(&json!({ "raw": { "tid": name } }), &json!({}));
    let Setup { host: acme, redis } = Setup::start("redis", &tenant("acme"));
    let globex = start_on("redis", redis.as_ref(), &tenant("globex"));
    let body = json!({ "command": "a", "payload": 1, "idempotencyKey": "same" });
    let create =
        |host: &Host| host.client().with_token(PRODUCER).create_with(body.clone())["id"].clone();
    assert_ne!(create(&acme), create(&globex));
}

// Secrecy.

#[test]
fn no_token_is_ever_in_the_log() {
    let config = and(plain(), &json!({ "logLevel": "trace" }));
    on_every_provider_with(&config, |host, client| {
        let wrong = "a-mistyped-secret";
        for token in [PRODUCER, WORKER, wrong] {
            let client = client.with_token(token);
            create(&client);
            claim(&client);
            admin(&client, None);
            client.get("/tasks/x?token=none").expect(if token == wrong { 401 } else { 404 });
        }
        let marker = [("X-Request-Id", "the-last-request")];
        client.send("GET", "/tasks/x", None, &marker);
        let has = |log: &[String], text: &str| log.iter().any(|line| line.contains(text));
        host.wait_for(|log| has(log, "the-last-request"));
        for token in [PRODUCER, WORKER, wrong] {
            assert!(!has(&host.log(), token), "{token}");
        }
    });
}

#[test]
fn a_provider_that_cannot_be_used_is_refused_without_showing_its_token() {
    for wrong in [
        json!({ "token": PRODUCER, "scope": ["codeq:claim"] }),
        json!({ "token": PRODUCER, "scopes": "codeq:claim" }),
        json!({ "token": "" }),
        json!({}),
    ] {
        let config = json!({
            "persistenceProvider": "memory",
            "producerAuthProvider": "static",
            "producerAuthConfig": wrong,
        });
        let mut host = Host::launch(plugin_dir(&["memory"]).path(), config);
        assert_eq!(host.wait().code(), Some(2), "{wrong}");
        host.wait_for(|log| log.iter().any(|line| line.contains("producerAuthConfig")));
        assert!(!host.log().iter().any(|line| line.contains(PRODUCER)), "{:#?}", host.log());
    }
}

#[test]
fn a_host_without_tokens_says_so() {
    on_every_provider(|host, _| {
        host.wait_for(|log| log.iter().any(|line| line.contains("none: this machine only")));
    });
}

#[test]
fn a_host_without_tokens_does_not_do_what_web_pages_from_elsewhere_want() {
    on_every_provider(|_, client| {
        client.create("private");
        let purge = |headers: &[(&str, &str)]| {
            client.send("POST", "/admin/queues/private/dlq/purge", None, headers).status
        };
        assert_eq!(purge(&[("Origin", "https://evil.example")]), 403);
        assert_eq!(purge(&[("Origin", "null"), ("Content-Type", "text/plain")]), 403);
        assert_eq!(
            purge(&[("Host", "evil.example:8080")]),
            403,
            "a name made to mean this machine"
        );
        assert_eq!(purge(&[("Origin", "http://localhost:3000")]), 200);
        assert_eq!(purge(&[]), 200);
        let read = client.send("GET", "/admin/queues", None, &[("Host", "evil.example")]);
        let error = read.expect(403);
        assert!(error["error"].as_str().unwrap().contains("localhost"), "{error}");
        client.send("GET", "/readyz", None, &[("Host", "probe.example")]).expect(200);
    });
}
