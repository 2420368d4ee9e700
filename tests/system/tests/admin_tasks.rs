//! What operators see and do: lists of tasks, dead letters that begin afresh or are removed.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod doctored;

use std::{collections::BTreeSet, thread, time::Duration};

use codeq_system_tests::{Client, Host, on_every_provider, on_every_provider_with};
use serde_json::{Value, json};
use tempfile::TempDir;

/// By then a claim waits. Nothing outside the host tells when it does.
const SETTLED: Duration = Duration::from_millis(400);

const STATES: [&str; 4] = ["ready", "delayed", "inProgress", "dlq"];

/// Creates a task whose only attempt fails; answers its id.
fn bury(client: &Client, command: &str) -> String {
    let task = json!({ "command": command, "payload": 1, "maxAttempts": 1, "priority": 9 });
    let id = client.create_with(task)["id"].as_str().unwrap().to_owned();
    assert_eq!(client.claim(command).unwrap()["id"], *id);
    let nacked = client.post(&format!("/tasks/{id}/nack"), json!({ "reason": "broken" }));
    assert_eq!(nacked.expect(200)["status"], "dlq");
    id
}

fn bury_some(client: &Client, command: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|_| bury(client, command)).collect()
}

fn ids(page: &Value) -> Vec<String> {
    let tasks = page["tasks"].as_array().unwrap();
    tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

/// The ids on all pages of a list, each of at most `limit` tasks.
fn all_pages(client: &Client, path: &str, limit: usize) -> Vec<String> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{path}{separator}limit={limit}&cursor={cursor}");
        let page = client.get(&path).expect(200);
        assert!(ids(&page).len() <= limit);
        seen.extend(ids(&page));
        match page.get("nextCursor") {
            // As it stands: it needs no encoding.
            Some(next) => cursor = next.as_str().unwrap().to_owned(),
            None => return seen,
        }
        assert!(seen.len() < 1000, "the pages go round in circles");
    }
}

fn error(client: &Client, method: &str, path: &str, status: u16) -> String {
    let answer = client.send(method, path, None, &[]);
    answer.expect(status)["error"].as_str().unwrap().to_owned()
}

fn state_of(client: &Client, id: &str) -> [String; 2] {
    let task = client.get(&format!("/tasks/{id}")).expect(200);
    ["status", "lastKnownLocation"].map(|field| task[field].as_str().unwrap().to_owned())
}

// Lists.

#[test]
fn each_state_of_a_queue_lists_the_tasks_in_it_however_it_is_paged() {
    on_every_provider(|_, client| {
        let dead = bury_some(client, "Render", 3);
        let create = |more: Value| {
            let mut task = json!({ "command": "render", "payload": "text" });
            task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            client.create_with(task)["id"].as_str().unwrap().to_owned()
        };
        let leased: BTreeSet<_> = (0..3)
            .map(|_| {
                let id = create(json!({ "priority": 9 }));
                assert_eq!(client.claim("render").unwrap()["id"], *id);
                id
            })
            .collect();
        let ready: BTreeSet<_> = (0..3).map(|_| create(json!({}))).collect();
        let delayed: BTreeSet<_> =
            (0..3).map(|_| create(json!({ "delaySeconds": 3600 }))).collect();
        client.create("other");
        for (state, expected) in STATES.into_iter().zip([ready, delayed, leased, dead]) {
            for limit in [1, 2, 3, 500] {
                let path = format!("/admin/queues/RENDER/tasks?state={state}");
                let listed = all_pages(client, &path, limit);
                assert_eq!(listed.len(), 3, "{state}");
                assert_eq!(BTreeSet::from_iter(listed), expected, "{state}");
            }
        }
    });
}

#[test]
fn ready_tasks_come_as_they_would_be_claimed_and_delayed_ones_as_they_come_due() {
    on_every_provider(|_, client| {
        let create = |priority: u8, delay: u32| {
            let task = json!({ "command": "a", "payload": 1, "priority": priority, "delaySeconds": delay });
            client.create_with(task)["id"].as_str().unwrap().to_owned()
        };
        let low = create(0, 0);
        let high = create(5, 0);
        let later = create(0, 900);
        let sooner = create(0, 600);
        let list = |state| client.get(&format!("/admin/queues/a/tasks?state={state}")).expect(200);
        assert_eq!(ids(&list("ready")), [high, low]);
        assert_eq!(ids(&list("delayed")), [sooner, later]);
    });
}

#[test]
fn a_listed_task_is_as_it_is_read_and_a_delayed_one_says_until_when() {
    on_every_provider(|_, client| {
        let ready = client.create("a");
        let body = json!({ "command": "a", "payload": 1, "runAt": "2100-01-02T03:04:05Z" });
        client.create_with(body);
        let page = client.get("/admin/queues/a/tasks?state=ready").expect(200);
        assert_eq!(page["tasks"][0], client.get(&format!("/tasks/{ready}")).expect(200));
        assert!(page.get("nextCursor").is_none());
        let page = client.get("/admin/queues/a/tasks?state=delayed").expect(200);
        assert_eq!(page["tasks"][0]["visibleAt"], "2100-01-02T03:04:05Z");
    });
}

#[test]
fn a_queue_that_nobody_used_lists_nothing() {
    on_every_provider(|_, client| {
        for state in STATES {
            let page = client.get(&format!("/admin/queues/nobody/tasks?state={state}"));
            assert_eq!(page.expect(200), json!({ "tasks": [] }));
        }
        assert_eq!(client.get("/admin/tasks").expect(200), json!({ "tasks": [] }));
    });
}

#[test]
fn all_tasks_of_the_tenant_are_listed_by_command_status_and_state() {
    on_every_provider(|_, client| {
        let dead = bury(client, "a");
        let finish = |body: Value| {
            let id = client.create("B");
            client.claim("b").unwrap();
            client.post(&format!("/tasks/{id}/result"), body).expect(200);
            id
        };
        let done = finish(json!({ "status": "COMPLETED", "result": {} }));
        let failed = finish(json!({ "status": "FAILED", "error": "no" }));
        let ready = client.create("b");
        let list = |query: &str| {
            let listed = all_pages(client, &format!("/admin/tasks{query}"), 1);
            let whole = all_pages(client, &format!("/admin/tasks{query}"), 500);
            assert_eq!(listed, whole, "{query}");
            BTreeSet::from_iter(listed)
        };
        let set = |ids: &[&String]| ids.iter().map(|id| (*id).clone()).collect::<BTreeSet<_>>();
        assert_eq!(list(""), set(&[&dead, &done, &failed, &ready]));
        assert_eq!(list("?command=b"), set(&[&done, &failed, &ready]));
        assert_eq!(list("?status=COMPLETED"), set(&[&done]));
        assert_eq!(list("?status=FAILED"), set(&[&dead, &failed]));
        assert_eq!(list("?command=B&status=FAILED"), set(&[&failed]));
        assert_eq!(list("?state=dlq"), set(&[&dead]));
        assert_eq!(list("?state=ready&status=PENDING"), set(&[&ready]));
        assert_eq!(list("?state=ready&status=FAILED"), set(&[]));
    });
}

#[test]
fn odd_names_of_commands_are_percent_encoded_in_paths() {
    on_every_provider(|_, client| {
        for (name, path) in [
            ("a/b", "a%2Fb"),
            ("Ünïcode 100%", "%C3%BCn%C3%AFcode%20100%25"),
            ("..", "%2E%2E"),
            ("a?b#c:{}", "a%3Fb%23c%3A%7B%7D"),
        ] {
            let dead = bury(client, name);
            let listed = client.get(&format!("/admin/queues/{path}/tasks?state=dlq")).expect(200);
            assert_eq!(ids(&listed), [dead], "{name}");
            let requeue = format!("/admin/queues/{path}/dlq/requeue");
            assert_eq!(client.post(&requeue, json!({})).expect(200)["requeued"], 1, "{name}");
        }
    });
}

#[test]
fn lists_that_make_no_sense_are_refused() {
    on_every_provider(|_, client| {
        let list =
            |query: &str| error(client, "GET", &format!("/admin/queues/a/tasks{query}"), 400);
        let state = "invalid 'state' (use ready, delayed, inProgress or dlq)";
        for query in ["", "?state=", "?state=READY", "?state=done"] {
            assert_eq!(list(query), state, "{query}");
        }
        for limit in ["-1", "501", "ten", "1.5", "99999999999999999999"] {
            let query = format!("?state=ready&limit={limit}");
            assert_eq!(list(&query), "invalid 'limit' (use 1 to 500)");
        }
        assert_eq!(
            error(client, "GET", "/admin/queues/%20/tasks?state=dlq", 400),
            "command is required"
        );
        assert_eq!(error(client, "GET", "/admin/tasks?state=done", 400), state);
        let status = error(client, "GET", "/admin/tasks?status=done", 400);
        assert!(status.starts_with("invalid 'status'"), "{status}");
        for action in ["requeue", "purge"] {
            for limit in ["-1", "1001", "x"] {
                let path = format!("/admin/queues/a/dlq/{action}?limit={limit}");
                let message = error(client, "POST", &path, 400);
                assert_eq!(message, "invalid 'limit' (use 1 to 1000)");
            }
        }
    });
}

#[test]
fn a_cursor_is_good_for_the_list_that_made_it_only() {
    on_every_provider(|_, client| {
        for command in ["a", "b"] {
            (0..3).for_each(|_| drop(client.create(command)));
        }
        bury_some(client, "dead", 3);
        let first = client.get("/admin/queues/a/tasks?state=ready&limit=1").expect(200);
        let cursor = first["nextCursor"].as_str().unwrap();
        let refused = |path: &str| {
            assert_eq!(error(client, "GET", path, 400), "invalid 'cursor'", "{path}");
        };
        for other in [
            "queues/b/tasks?state=ready",
            "queues/a/tasks?state=delayed",
            "queues/dead/tasks?state=dlq",
            "tasks?",
            "tasks?command=a",
        ] {
            refused(&format!("/admin/{other}&cursor={cursor}"));
        }
        for garbage in ["x", "0", "%5B%5D", "%00", "AAAAAAAAAAA", &cursor[1..], "..%2F.."] {
            refused(&format!("/admin/queues/a/tasks?state=ready&cursor={garbage}"));
            refused(&format!("/admin/queues/dead/tasks?state=dlq&cursor={garbage}"));
            refused(&format!("/admin/tasks?cursor={garbage}"));
        }
        // However the command is spelled, it is the same list.
        let path = format!("/admin/queues/A/tasks?state=ready&limit=1&cursor={cursor}");
        assert_ne!(ids(&client.get(&path).expect(200)), ids(&first));
    });
}

// Single tasks.

#[test]
fn a_dead_letter_begins_afresh() {
    on_every_provider(|_, client| {
        let id = bury(client, "a");
        let requeue = format!("/admin/tasks/{id}/requeue");
        let task = client.send("POST", &requeue, None, &[]).expect(200);
        assert_eq!((&task["id"], &task["status"]), (&json!(id), &json!("PENDING")));
        assert!(task.get("attempts").is_none() && task.get("error").is_none(), "{task}");
        assert_eq!(client.counts("a"), [1, 0, 0, 0]);
        assert_eq!(error(client, "POST", &requeue, 409), "task_not_in_dlq");
        assert_eq!(client.claim("a").unwrap()["attempts"], 1);
        client.complete(&id).expect(200);
        assert_eq!(error(client, "POST", &requeue, 409), "task_not_in_dlq");
        assert_eq!(error(client, "POST", "/admin/tasks/nobody/requeue", 404), "task not found");
    });
}

#[test]
fn requeued_dead_letters_wake_waiting_claims() {
    on_every_provider(|_, client| {
        let woken = |act: &dyn Fn()| {
            thread::scope(|scope| {
                let claim = json!({ "commands": ["a"], "waitSeconds": 30 });
                let waiter = scope.spawn(|| client.claim_with(claim));
                thread::sleep(SETTLED);
                act();
                waiter.join().unwrap().expect("the claim is woken")
            })
        };
        let id = bury(client, "a");
        let task = woken(&|| {
            client.post(&format!("/admin/tasks/{id}/requeue"), json!({})).expect(200);
        });
        assert_eq!(task["id"], *id);
        let id = bury(client, "a");
        let task = woken(&|| {
            client.post("/admin/queues/A/dlq/requeue", json!({})).expect(200);
        });
        assert_eq!(task["id"], *id);
    });
}

#[test]
fn a_task_that_no_worker_holds_can_be_deleted() {
    on_every_provider(|_, client| {
        let done = client.create("a");
        client.claim("a").unwrap();
        client.complete(&done).expect(200);
        let dead = bury(client, "a");
        let ready = client.create("a");
        let delayed =
            client.create_with(json!({ "command": "a", "payload": 1, "delaySeconds": 60 }));
        for id in [&done, &dead, &ready, delayed["id"].as_str().unwrap()] {
            let path = format!("/admin/tasks/{id}");
            assert_eq!(client.send("DELETE", &path, None, &[]).expect(204), Value::Null);
            assert_eq!(error(client, "DELETE", &path, 404), "task not found");
            client.get(&format!("/tasks/{id}")).expect(404);
            client.get(&format!("/tasks/{id}/result")).expect(404);
        }
        assert_eq!(client.counts("a"), [0, 0, 0, 0]);
        assert!(client.claim("a").is_none());
    });
}

#[test]
fn a_task_that_a_worker_holds_cannot_be_deleted() {
    on_every_provider(|_, client| {
        let id = client.create("a");
        client.claim("a").unwrap();
        let path = format!("/admin/tasks/{id}");
        assert_eq!(error(client, "DELETE", &path, 409), "task_in_progress");
        client.complete(&id).expect(200);
    });
}

// Whole queues.

#[test]
fn dead_letters_are_requeued_a_part_at_a_time_until_none_remains() {
    on_every_provider(|_, client| {
        let dead = bury_some(client, "Render", 5);
        bury(client, "other");
        let requeue = |limit: &str| {
            client.post(&format!("/admin/queues/render/dlq/requeue{limit}"), json!({})).expect(200)
        };
        assert_eq!(requeue("?limit=2"), json!({ "requeued": 2, "remaining": true }));
        assert_eq!(client.counts("render"), [2, 0, 0, 3]);
        assert_eq!(requeue("?limit=3"), json!({ "requeued": 3, "remaining": false }));
        assert_eq!(requeue(""), json!({ "requeued": 0, "remaining": false }));
        let claimed: BTreeSet<_> = (0..5)
            .map(|_| client.claim("render").unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(claimed, dead);
        assert_eq!(client.counts("other"), [0, 0, 0, 1]);
    });
}

#[test]
fn dead_letters_are_purged_a_part_at_a_time_and_nothing_else_is() {
    on_every_provider(|_, client| {
        let dead = bury_some(client, "Render", 5);
        let other = bury(client, "other");
        let leased = client.create("render");
        client.claim("render").unwrap();
        let ready = client.create("render");
        let purge = |limit: &str| {
            client.post(&format!("/admin/queues/render/dlq/purge{limit}"), json!({})).expect(200)
        };
        assert_eq!(purge("?limit=2"), json!({ "purged": 2, "remaining": true }));
        assert_eq!(purge(""), json!({ "purged": 3, "remaining": false }));
        assert_eq!(purge("?limit=1"), json!({ "purged": 0, "remaining": false }));
        dead.iter().for_each(|id| drop(client.get(&format!("/tasks/{id}")).expect(404)));
        for id in [&leased, &ready, &other] {
            client.get(&format!("/tasks/{id}")).expect(200);
        }
        assert_eq!(client.counts("render"), [1, 0, 1, 0]);
    });
}

#[test]
fn a_large_dead_letter_queue_is_requeued_whole() {
    on_every_provider(|_, client| {
        let tasks = vec![json!({ "command": "a", "payload": 1, "maxAttempts": 1 }); 100];
        for _ in 0..3 {
            client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
        }
        for _ in 0..30 {
            let claim = json!({ "commands": ["a"], "count": 10 });
            let claimed = client.post("/tasks/claim/batch", claim).expect(200);
            for id in ids(&claimed) {
                client.post(&format!("/tasks/{id}/nack"), json!({})).expect(200);
            }
        }
        let requeued = client.post("/admin/queues/a/dlq/requeue?limit=1000", json!({}));
        assert_eq!(requeued.expect(200), json!({ "requeued": 300, "remaining": false }));
        assert_eq!(client.counts("a"), [300, 0, 0, 0]);
    });
}

#[test]
fn a_dead_letter_is_either_requeued_or_purged_when_operators_meet() {
    on_every_provider(|_, client| {
        for _ in 0..5 {
            let dead = bury_some(client, "a", 20);
            let [requeued, purged] = thread::scope(|scope| {
                [("requeue", "requeued"), ("purge", "purged")]
                    .map(|(action, done)| {
                        let path = format!("/admin/queues/a/dlq/{action}");
                        scope.spawn(move || {
                            client.post(&path, json!({})).expect(200)[done].as_u64().unwrap()
                        })
                    })
                    .map(|operator| operator.join().unwrap())
            });
            assert_eq!(requeued + purged, 20);
            assert_eq!(client.counts("a"), [requeued, 0, 0, 0]);
            let kept = dead.iter().filter(|id| client.get(&format!("/tasks/{id}")).status == 200);
            assert_eq!(kept.count() as u64, requeued);
            while let Some(task) = client.claim("a") {
                client.complete(task["id"].as_str().unwrap()).expect(200);
            }
        }
    });
}

// Who may.

const PRODUCER: &str = "the-producers-secret";
const WORKER: &str = "the-workers-secret";

/// Two tenants: the producer's, who may work as well, and the worker's. The worker has these scopes.
fn two_tenants(scopes: &[&str]) -> Value {
    json!({
        "producerAuthProvider": "static",
        "producerAuthConfig": { "token": PRODUCER, "subject": "ann", "raw": { "tid": "acme" } },
        "workerAuthProvider": "static",
        "workerAuthConfig": {
            "token": WORKER, "subject": "bob", "eventTypes": ["*"], "scopes": scopes,
            "raw": { "tid": "rival" },
        },
        "allowProducerAsWorker": true,
        "env": "prod",
    })
}

#[test]
fn an_operator_sees_and_moves_tasks_of_his_own_tenant_only() {
    on_every_provider_with(&two_tenants(&["codeq:admin"]), |_, client| {
        let (acme, rival) = (client.with_token(PRODUCER), client.with_token(WORKER));
        let dead = bury(&acme, "a");
        for path in ["/admin/queues/a/tasks?state=dlq", "/admin/tasks", "/admin/tasks?state=dlq"] {
            assert_eq!(rival.get(path).expect(200), json!({ "tasks": [] }));
        }
        error(&rival, "POST", &format!("/admin/tasks/{dead}/requeue"), 404);
        error(&rival, "DELETE", &format!("/admin/tasks/{dead}"), 404);
        for (action, done) in [("requeue", "requeued"), ("purge", "purged")] {
            let answer = rival.post(&format!("/admin/queues/a/dlq/{action}"), json!({}));
            assert_eq!(answer.expect(200)[done], 0);
        }
        assert_eq!(state_of(&acme, &dead), ["FAILED", "DLQ_SET"]);
    });
}

#[test]
fn only_operators_are_let_in() {
    on_every_provider_with(&two_tenants(&["codeq:claim"]), |_, client| {
        for (method, path) in [
            ("GET", "/admin/queues/a/tasks?state=dlq"),
            ("GET", "/admin/tasks"),
            ("POST", "/admin/tasks/1/requeue"),
            ("DELETE", "/admin/tasks/1"),
            ("POST", "/admin/queues/a/dlq/requeue"),
            ("POST", "/admin/queues/a/dlq/purge"),
        ] {
            error(client, method, path, 401);
            error(&client.with_token("another"), method, path, 401);
            error(&client.with_token(WORKER), method, path, 403);
        }
    });
}

#[test]
fn a_plugin_that_cannot_list_leaves_the_routes_that_do_not_need_it() {
    let dir = TempDir::new().unwrap();
    let plugin =
        doctored::with_manifest("memory", r#""subscriptions","listing""#, r#""subscriptions""#);
    doctored::install(&dir.path().join("libcodeq_memory.so"), &plugin);
    let host = Host::start(dir.path(), json!({ "persistenceProvider": "memory" }));
    let client = host.client();
    let message = "the persistence plugin `memory` lacks the capability `listing`";
    for (method, path) in [
        ("GET", "/admin/queues/a/tasks?state=dlq"),
        ("GET", "/admin/tasks"),
        ("POST", "/admin/tasks/1/requeue"),
        ("POST", "/admin/queues/a/dlq/requeue"),
        ("POST", "/admin/queues/a/dlq/purge"),
    ] {
        assert_eq!(error(&client, method, path, 501), message);
    }
    let id = client.create("a");
    client.send("DELETE", &format!("/admin/tasks/{id}"), None, &[]).expect(204);
}
