//! A task's life over HTTP, on every provider alike.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{Instant, Millis};
use codeq_system_tests::{
    Client, PATIENCE, Setup, on_every_provider, on_every_provider_with, start_on,
};
use serde_json::{Value, json};

fn id_of(task: &Value) -> &str {
    task["id"].as_str().unwrap()
}

fn task(client: &Client, id: &str) -> Value {
    client.get(&format!("/tasks/{id}")).expect(200)
}

fn nack(client: &Client, id: &str, body: Value) -> Value {
    client.post(&format!("/tasks/{id}/nack"), body).expect(200)
}

/// Claims the one task that is there, and answers its id.
fn claim_id(client: &Client, command: &str) -> String {
    id_of(&client.claim(command).expect("a task to claim")).to_owned()
}

/// Waits until something is so. Only for what nobody tells of.
fn poll(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Clock::now() + PATIENCE;
    while !is_so() {
        assert!(Clock::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

// Creating.

#[test]
fn a_task_is_created_claimed_and_completed() {
    on_every_provider(|_, client| {
        let created =
            client.create_with(json!({ "command": "RENDER", "payload": { "a": [1, 2] } }));
        assert_eq!(created["status"], "PENDING");
        assert_eq!(created["payload"], r#"{"a":[1,2]}"#);
        let claimed = client.claim("render").unwrap();
        assert_eq!(claimed["id"], created["id"]);
        assert_eq!((&claimed["status"], &claimed["attempts"]), (&json!("IN_PROGRESS"), &json!(1)));
        let id = id_of(&created);
        client.complete(id).expect(200);
        let done = client.get(&format!("/tasks/{id}/result")).expect(200);
        assert_eq!(done["task"]["status"], "COMPLETED");
        assert_eq!(done["result"]["result"], json!({ "ok": true }));
        assert!(client.claim("render").is_none());
    });
}

#[test]
fn a_payload_of_any_json_is_kept_as_its_text() {
    on_every_provider(|_, client| {
        for payload in [
            "true",
            "-0.5",
            "12345678901234567890123",
            "1e400",
            r#""""#,
            r#""text with \"quotes\", 汉字, \u0000 and 🚀""#,
            "[]",
            "{}",
            r#"[null,{"deep":[[[[1]]]]}]"#,
            r#"{"twice":1,"twice":2}"#,
        ] {
            let body = format!(r#"{{"command":"any","payload":{payload}}}"#);
            let created = client.send("POST", "/tasks", Some(body.as_bytes()), &[]).expect(202);
            let claimed = client.claim("any").unwrap();
            for task in [&created, &claimed, &task(client, id_of(&created))] {
                assert_eq!(task["payload"], payload);
            }
        }
    });
}

#[test]
fn a_task_keeps_what_its_producer_said() {
    on_every_provider(|_, client| {
        let body = json!({
            "command": "keep",
            "payload": 1,
            "priority": 7,
            "maxAttempts": 3,
            "webhook": "https://example.org/done",
        });
        let headers = [
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "vendor=1"),
        ];
        let bytes = body.to_string();
        let created = client.send("POST", "/tasks", Some(bytes.as_bytes()), &headers).expect(202);
        let kept = client.claim("keep").unwrap();
        assert_eq!(kept["id"], created["id"]);
        for name in ["command", "priority", "maxAttempts", "webhook"] {
            assert_eq!(kept[name], body[name], "{name}");
        }
        assert_eq!(kept["traceParent"], headers[0].1);
        assert_eq!(kept["traceState"], headers[1].1);
    });
}

#[test]
fn each_task_of_a_batch_is_created_on_its_own() {
    on_every_provider(|_, client| {
        let tasks = json!([
            { "command": "batch", "payload": 1 },
            { "command": "", "payload": 2 },
            "no task",
            { "command": "batch" },
            { "command": "batch", "payload": 3, "delaySeconds": -1 },
            { "command": "batch", "payload": 4 },
        ]);
        let answer = client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
        let results = answer["results"].as_array().unwrap();
        let created = results.iter().map(|result| result["task"].is_object()).collect::<Vec<_>>();
        assert_eq!(created, [true, false, false, false, false, true], "{answer}");
        for refused in &results[1..5] {
            assert!(!refused["error"].as_str().unwrap().is_empty());
        }
        let payloads = [client.claim("batch"), client.claim("batch"), client.claim("batch")]
            .map(|task| task.map(|task| task["payload"].clone()));
        assert_eq!(payloads, [Some(json!("1")), Some(json!("4")), None]);
    });
}

#[test]
fn a_batch_has_1_to_100_tasks() {
    on_every_provider(|_, client| {
        let batch = |size: usize| {
            let tasks = vec![json!({ "command": "sized", "payload": 1 }); size];
            client.post("/tasks/batch", json!({ "tasks": tasks }))
        };
        batch(0).expect(400);
        batch(101).expect(400);
        assert_eq!(client.counts("sized"), [0; 4]);
        for size in [1, 100] {
            assert_eq!(batch(size).expect(200)["results"].as_array().unwrap().len(), size);
        }
        assert_eq!(client.counts("sized"), [101, 0, 0, 0]);
    });
}

// Order.

#[test]
fn the_highest_priority_is_claimed_first_and_within_it_the_first_that_came() {
    on_every_provider(|_, client| {
        for (name, priority) in
            [("a", 0), ("b", 9), ("c", 5), ("d", 9), ("e", 0), ("f", -7), ("g", 99)]
        {
            client
                .create_with(json!({ "command": "order", "payload": name, "priority": priority }));
        }
        let order: Vec<String> = std::iter::from_fn(|| client.claim("order"))
            .map(|task| task["payload"].as_str().unwrap().trim_matches('"').to_owned())
            .collect();
        assert_eq!(order, ["b", "d", "g", "c", "a", "e", "f"]);
    });
}

#[test]
fn a_claim_takes_from_its_commands_in_the_order_given_in_any_case() {
    on_every_provider(|_, client| {
        for command in ["one", "two", "three"] {
            client.create(command);
        }
        let next = || client.claim_with(json!({ "commands": ["THREE", "One"] }));
        assert_eq!(next().unwrap()["command"], "three");
        assert_eq!(next().unwrap()["command"], "one");
        assert!(next().is_none());
    });
}

#[test]
fn a_claim_without_commands_takes_from_any_queue() {
    on_every_provider(|_, client| {
        let created: BTreeSet<String> = ["one", "two", "three"].map(|c| client.create(c)).into();
        let claimed = std::iter::from_fn(|| client.claim_with(json!({})));
        assert_eq!(claimed.map(|task| id_of(&task).to_owned()).collect::<BTreeSet<_>>(), created);
    });
}

#[test]
fn a_claim_of_a_batch_takes_up_to_its_count() {
    on_every_provider(|_, client| {
        let tasks = vec![json!({ "command": "many", "payload": 1 }); 12];
        client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
        let claim = |count: Value| {
            client.post("/tasks/claim/batch", json!({ "commands": ["many"], "count": count }))
        };
        for count in [json!(null), json!(0), json!(-1), json!(11), json!(1.5), json!("2")] {
            claim(count).expect(400);
        }
        let mut ids = BTreeSet::new();
        for (count, taken) in [(1, 1), (10, 10), (10, 1)] {
            let answer = claim(json!(count)).expect(200);
            let tasks = answer["tasks"].as_array().unwrap();
            assert_eq!(tasks.len(), taken);
            ids.extend(tasks.iter().map(|task| id_of(task).to_owned()));
        }
        assert_eq!(ids.len(), 12);
        assert_eq!(claim(json!(10)).expect(204), Value::Null);
    });
}

// Delays.

#[test]
fn a_delayed_task_is_not_claimable_before_its_time_and_is_then() {
    on_every_provider(|_, client| {
        let begin = Clock::now();
        let body = json!({ "command": "later", "payload": 1, "delaySeconds": 0.6 });
        let created = client.create_with(body);
        assert_eq!(created["lastKnownLocation"], "DELAYED_ZSET");
        assert!(client.claim("later").is_none());
        let claim = json!({ "commands": ["later"], "waitSeconds": 20 });
        assert_eq!(client.claim_with(claim).unwrap()["id"], created["id"]);
        let waited = begin.elapsed();
        assert!(waited >= Duration::from_millis(600), "{waited:?}");
        assert!(waited < Duration::from_secs(4), "{waited:?}");
    });
}

#[test]
fn run_at_wins_over_a_delay() {
    on_every_provider(|_, client| {
        let hour = Instant::now() + Millis::from_secs(3600);
        client.create_with(
            json!({ "command": "far", "payload": 1, "runAt": hour, "delaySeconds": 0 }),
        );
        assert_eq!(client.counts("far"), [0, 1, 0, 0]);
        let soon = Instant::now() + Millis(400);
        client.create_with(
            json!({ "command": "near", "payload": 1, "runAt": soon, "delaySeconds": 3600 }),
        );
        let claim = json!({ "commands": ["near"], "waitSeconds": 20 });
        assert!(client.claim_with(claim).is_some());
        assert!(Instant::now() >= soon);
    });
}

#[test]
fn run_at_in_the_past_means_now() {
    on_every_provider(|_, client| {
        for past in ["1971-03-04T05:06:07Z", "2020-01-01T00:00:00.123+02:00", ""] {
            let body = json!({ "command": "past", "payload": 1, "runAt": past });
            let created = client.create_with(body);
            assert_eq!(client.claim("past").unwrap()["id"], created["id"], "{past}");
        }
    });
}

#[test]
fn a_moment_that_is_none_is_refused() {
    on_every_provider(|_, client| {
        for at in ["tomorrow", "2026-13-01T00:00:00Z", "2026-01-01", "1234567890"] {
            let body = json!({ "command": "when", "payload": 1, "runAt": at });
            client.post("/tasks", body).expect(400);
        }
        assert_eq!(client.counts("when"), [0; 4]);
    });
}

// Idempotency.

#[test]
fn tasks_with_one_idempotency_key_are_one_task() {
    on_every_provider(|_, client| {
        let body = |n: u32| json!({ "command": "once", "payload": n, "idempotencyKey": "the key" });
        let first = client.create_with(body(1));
        let second = client.create_with(body(2));
        assert_eq!(second["id"], first["id"]);
        assert_eq!(second["payload"], "1");
        let batch = client.post("/tasks/batch", json!({ "tasks": [body(3), body(4)] }));
        for result in batch.expect(200)["results"].as_array().unwrap() {
            assert_eq!(result["task"]["id"], first["id"]);
        }
        assert_eq!(client.counts("once"), [1, 0, 0, 0]);
        let other = json!({ "command": "once", "payload": 5, "idempotencyKey": "another key" });
        assert_ne!(client.create_with(other)["id"], first["id"]);
    });
}

#[test]
fn an_idempotency_key_outlives_the_end_of_its_task() {
    on_every_provider(|_, client| {
        let body = json!({ "command": "ended", "payload": 1, "idempotencyKey": "k" });
        let first = client.create_with(body.clone());
        client.complete(&claim_id(client, "ended")).expect(200);
        let again = client.create_with(body);
        assert_eq!((&again["id"], &again["status"]), (&first["id"], &json!("COMPLETED")));
        assert!(client.claim("ended").is_none());
    });
}

#[test]
fn twenty_that_race_with_one_idempotency_key_get_one_task() {
    on_every_provider(|_, client| {
        let body = json!({ "command": "race", "payload": 1, "idempotencyKey": "k" });
        let ids: BTreeSet<String> = thread::scope(|scope| {
            let racers: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| id_of(&client.create_with(body.clone())).to_owned()))
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1);
        assert_eq!(client.counts("race"), [1, 0, 0, 0]);
    });
}

// Leases.

#[test]
fn a_heartbeat_moves_the_end_of_the_lease() {
    on_every_provider(|_, client| {
        client.create("beat");
        let claim = json!({ "commands": ["beat"], "leaseSeconds": 30 });
        let claimed = client.claim_with(claim).unwrap();
        let id = id_of(&claimed);
        let until =
            |task: &Value| Instant::parse_rfc3339(task["leaseUntil"].as_str().unwrap()).unwrap();
        let first = until(&claimed);
        let beat = client.post(&format!("/tasks/{id}/heartbeat"), json!({ "extendSeconds": 600 }));
        assert_eq!(beat.expect(200), json!({ "ok": true }));
        assert!(until(&task(client, id)).since(first) > Millis::from_secs(500));
        // Without a body it is the default lease, from now on.
        client.send("POST", &format!("/tasks/{id}/heartbeat"), None, &[]).expect(200);
        let left = until(&task(client, id)).since(Instant::now());
        assert!((290_000..=300_000).contains(&left.0), "{left:?}");
    });
}

#[test]
fn an_abandoned_task_is_claimable_at_once_and_its_delivery_does_not_count() {
    on_every_provider(|_, client| {
        let body = json!({ "command": "back", "payload": 1, "maxAttempts": 1 });
        let created = client.create_with(body);
        let id = id_of(&created);
        for _ in 0..3 {
            assert_eq!(client.claim("back").unwrap()["attempts"], 1);
            let answer = client.send("POST", &format!("/tasks/{id}/abandon"), None, &[]);
            assert_eq!(answer.expect(200), json!({ "status": "requeued" }));
            let back = task(client, id);
            assert_eq!((&back["status"], &back["attempts"]), (&json!("PENDING"), &Value::Null));
            assert_eq!((&back["workerId"], &back["leaseUntil"]), (&Value::Null, &Value::Null));
        }
    });
}

#[test]
fn an_expired_lease_brings_the_task_back_while_nobody_claims() {
    on_every_provider(|_, client| {
        let id = client.create("lost");
        client.claim_with(json!({ "commands": ["lost"], "leaseSeconds": 1 })).unwrap();
        assert_eq!(client.counts("lost"), [0, 0, 1, 0]);
        poll("the task", || client.counts("lost") == [1, 0, 0, 0]);
        let back = task(client, &id);
        assert_eq!((&back["status"], &back["attempts"]), (&json!("PENDING"), &json!(1)));
        assert_eq!(client.claim("lost").unwrap()["attempts"], 2);
    });
}

#[test]
fn a_lease_that_expires_on_the_last_attempt_is_a_dead_letter() {
    on_every_provider(|_, client| {
        let body = json!({ "command": "last", "payload": 1, "maxAttempts": 1 });
        let created = client.create_with(body);
        client.claim_with(json!({ "commands": ["last"], "leaseSeconds": 1 })).unwrap();
        poll("the dead letter", || client.counts("last") == [0, 0, 0, 1]);
        let dead = task(client, id_of(&created));
        assert_eq!((&dead["status"], &dead["error"]), (&json!("FAILED"), &json!("LEASE_EXPIRED")));
        assert_eq!(dead["lastKnownLocation"], "DLQ_SET");
    });
}

// Failures.

#[test]
fn a_nack_without_delay_brings_the_task_back_at_once() {
    on_every_provider(|_, client| {
        client.create("retry");
        for attempt in 1..=3 {
            let claimed = client.claim("retry").unwrap();
            assert_eq!(claimed["attempts"], attempt);
            let answer = nack(client, id_of(&claimed), json!({ "delaySeconds": 0 }));
            assert_eq!(answer, json!({ "status": "requeued", "delaySeconds": 0 }));
        }
    });
}

#[test]
fn a_nack_that_names_a_delay_brings_the_task_back_after_it() {
    on_every_provider(|_, client| {
        client.create("named");
        let id = claim_id(client, "named");
        let begin = Clock::now();
        let answer = nack(client, &id, json!({ "delaySeconds": 0.5, "reason": "not yet" }));
        assert_eq!(answer, json!({ "status": "requeued", "delaySeconds": 1 }));
        assert!(client.claim("named").is_none());
        let claim = json!({ "commands": ["named"], "waitSeconds": 20 });
        assert_eq!(client.claim_with(claim).unwrap()["attempts"], 2);
        assert!(begin.elapsed() >= Duration::from_millis(500));
    });
}

#[test]
fn a_named_delay_is_no_longer_than_the_longest_backoff() {
    on_every_provider(|_, client| {
        client.create("long");
        let answer = nack(client, &claim_id(client, "long"), json!({ "delaySeconds": 1e9 }));
        assert_eq!(answer, json!({ "status": "requeued", "delaySeconds": 900 }));
        assert_eq!(client.counts("long"), [0, 1, 0, 0]);
    });
}

/// The delays of a task's first three failures.
fn backoff(client: &Client) -> [i64; 3] {
    [1, 2, 3].map(|failures| {
        let body = json!({ "command": "backoff", "payload": 1, "maxAttempts": 10 });
        let created = client.create_with(body);
        let id = id_of(&created);
        for _ in 1..failures {
            assert_eq!(claim_id(client, "backoff"), id);
            nack(client, id, json!({ "delaySeconds": 0 }));
        }
        assert_eq!(claim_id(client, "backoff"), id);
        let answer = client.send("POST", &format!("/tasks/{id}/nack"), None, &[]).expect(200);
        assert_eq!(answer["status"], "requeued");
        answer["delaySeconds"].as_i64().unwrap()
    })
}

fn with_backoff(policy: &str, check: impl Fn([i64; 3])) {
    let config =
        json!({ "backoffPolicy": policy, "backoffBaseSeconds": 20, "backoffMaxSeconds": 100 });
    on_every_provider_with(&config, |_, client| check(backoff(client)));
}

#[test]
fn fixed_backoff_is_the_base() {
    with_backoff("fixed", |delays| assert_eq!(delays, [20, 20, 20]));
}

#[test]
fn linear_backoff_grows_by_the_base() {
    with_backoff("linear", |delays| assert_eq!(delays, [20, 40, 60]));
}

#[test]
fn exponential_backoff_doubles_up_to_the_longest() {
    with_backoff("exponential", |delays| assert_eq!(delays, [40, 80, 100]));
}

#[test]
fn equal_jitter_keeps_at_least_half_of_the_exponential_backoff() {
    with_backoff("exp_equal_jitter", |delays| {
        for (delay, most) in delays.into_iter().zip([40, 80, 100]) {
            assert!((most / 2..=most).contains(&delay), "{delays:?}");
        }
    });
}

#[test]
fn full_jitter_stays_within_the_exponential_backoff() {
    with_backoff("exp_full_jitter", |delays| {
        for (delay, most) in delays.into_iter().zip([40, 80, 100]) {
            assert!((0..=most).contains(&delay), "{delays:?}");
        }
    });
}

#[test]
fn a_nack_of_the_last_attempt_is_a_dead_letter_with_its_reason() {
    on_every_provider(|_, client| {
        for (reason, error) in [(json!("no disk"), "no disk"), (Value::Null, "MAX_ATTEMPTS")] {
            let body = json!({ "command": "doomed", "payload": 1, "maxAttempts": 2 });
            let created = client.create_with(body);
            let id = id_of(&created);
            let fail = || {
                assert_eq!(claim_id(client, "doomed"), id);
                nack(client, id, json!({ "delaySeconds": 0, "reason": reason }))
            };
            assert_eq!(fail()["status"], "requeued");
            assert_eq!(fail()["status"], "dlq");
            let dead = task(client, id);
            assert_eq!((&dead["status"], &dead["error"]), (&json!("FAILED"), &json!(error)));
            assert_eq!(dead["lastKnownLocation"], "DLQ_SET");
            assert!(client.claim("doomed").is_none());
        }
        assert_eq!(client.counts("doomed"), [0, 0, 0, 2]);
    });
}

#[test]
fn a_task_that_does_not_say_has_the_configured_attempts() {
    on_every_provider_with(&json!({ "maxAttemptsDefault": 2 }), |_, client| {
        let id = client.create("default");
        let fail = || {
            assert_eq!(claim_id(client, "default"), id);
            nack(client, &id, json!({}))["status"].clone()
        };
        assert_eq!([fail(), fail()], ["requeued", "dlq"]);
    });
}

// Results.

#[test]
fn a_failed_result_is_kept_with_its_error() {
    on_every_provider(|_, client| {
        let id = client.create("fail");
        claim_id(client, "fail");
        let body = json!({ "status": "FAILED", "error": "it broke" });
        let result = client.post(&format!("/tasks/{id}/result"), body).expect(200);
        assert_eq!((&result["status"], &result["error"]), (&json!("FAILED"), &json!("it broke")));
        let kept = client.get(&format!("/tasks/{id}/result")).expect(200);
        assert_eq!(kept["task"]["status"], "FAILED");
        assert_eq!(kept["result"], result);
        assert_eq!(client.counts("fail"), [0; 4], "a failed task is no dead letter");
    });
}

#[test]
fn a_result_must_say_how_the_task_ended() {
    on_every_provider(|_, client| {
        let id = client.create("how");
        claim_id(client, "how");
        for body in [
            json!({}),
            json!({ "status": "DONE", "result": {} }),
            json!({ "status": "completed", "result": {} }),
            json!({ "status": "COMPLETED" }),
            json!({ "status": "COMPLETED", "result": null }),
            json!({ "status": "COMPLETED", "result": [1] }),
            json!({ "status": "COMPLETED", "result": "text" }),
            json!({ "status": "FAILED" }),
            json!({ "status": "FAILED", "error": " " }),
            json!({ "status": "COMPLETED", "result": {}, "artifacts": [{ "url": "http://a/b" }] }),
            json!({ "status": "COMPLETED", "result": {}, "artifacts": [{ "name": "a" }] }),
        ] {
            client.post(&format!("/tasks/{id}/result"), body).expect(400);
        }
        assert_eq!(task(client, &id)["status"], "IN_PROGRESS");
        client.complete(&id).expect(200);
    });
}

#[test]
fn a_result_keeps_its_artifacts_and_its_exact_json() {
    on_every_provider(|_, client| {
        let id = client.create("files");
        claim_id(client, "files");
        let body = r#"{"status":"COMPLETED","result":{"n":1,"e":[],"o":{},"t":"汉字 \u0000"},
            "artifacts":[{"name":"a.png","url":"https://files/a.png","contentType":"image/png"},
                         {"name":"b","url":"s3://b"}]}"#;
        let path = format!("/tasks/{id}/result");
        client.send("POST", &path, Some(body.as_bytes()), &[]).expect(200);
        let kept = &client.get(&path).expect(200)["result"];
        assert_eq!(kept["taskId"], *id);
        assert_eq!(kept["result"], json!({ "n": 1, "e": [], "o": {}, "t": "汉字 \0" }));
        let artifacts = json!([
            { "name": "a.png", "url": "https://files/a.png" },
            { "name": "b", "url": "s3://b" },
        ]);
        assert_eq!(kept["artifacts"], artifacts);
        assert!(Instant::parse_rfc3339(kept["completedAt"].as_str().unwrap()).is_some());
    });
}

#[test]
fn each_result_of_a_batch_is_taken_in_on_its_own() {
    on_every_provider(|_, client| {
        let ids = ["a", "b"].map(|_| client.create("results"));
        for id in &ids {
            assert_eq!(claim_id(client, "results"), *id);
        }
        let pending = client.create("results");
        let done = |id: &str| json!({ "taskId": id, "status": "COMPLETED", "result": {} });
        let results = json!([
            done(&ids[0]),
            done("unknown"),
            { "taskId": ids[1], "status": "DONE" },
            done(&pending),
            done(&ids[0]),
            { "status": "COMPLETED", "result": {} },
            7,
            { "taskId": ids[1], "status": "FAILED", "error": "it broke" },
        ]);
        let answer = client.post("/tasks/batch/results", json!({ "results": results })).expect(200);
        let answers = answer["results"].as_array().unwrap();
        let taken: Vec<bool> = answers.iter().map(|item| item["result"].is_object()).collect();
        assert_eq!(taken, [true, false, false, false, false, false, false, true], "{answer}");
        let named = [&ids[0], "unknown", &ids[1], &pending, &ids[0], "", "", &ids[1]];
        for (answer, id) in answers.iter().zip(named) {
            assert_eq!(answer["taskId"], id);
            assert!(answer["result"].is_object() || answer["error"].is_string());
        }
        assert_eq!(answers[1]["error"], "task not found");
        assert_eq!(answers[3]["error"], "not-in-progress");
        assert_eq!(answers[4]["error"], "not-in-progress");
        assert_eq!(task(client, &ids[0])["status"], "COMPLETED");
        assert_eq!(task(client, &ids[1])["status"], "FAILED");
        assert_eq!(task(client, &pending)["status"], "PENDING");
    });
}

#[test]
fn a_batch_has_1_to_100_results() {
    on_every_provider(|_, client| {
        let item = json!({ "taskId": "x", "status": "COMPLETED", "result": {} });
        for (size, status) in [(0, 400), (101, 400), (100, 200)] {
            let body = json!({ "results": vec![item.clone(); size] });
            client.post("/tasks/batch/results", body).expect(status);
        }
    });
}

#[test]
fn a_reader_that_waits_has_the_result_when_it_is_there() {
    on_every_provider(|_, client| {
        let id = client.create("watched");
        claim_id(client, "watched");
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let answer = client.get(&format!("/tasks/{id}/result?waitSeconds=60"));
                (answer.expect(200), Clock::now())
            });
            // Whether the reader waits yet cannot be seen from here; either way it must be prompt.
            thread::sleep(Duration::from_millis(200));
            let completed = Clock::now();
            client.complete(&id).expect(200);
            let (answer, read) = reader.join().unwrap();
            assert_eq!(answer["task"]["status"], "COMPLETED");
            assert_eq!(answer["result"]["result"], json!({ "ok": true }));
            let waited = read - completed;
            assert!(waited < Duration::from_millis(900), "{waited:?}");
        });
    });
}

#[test]
fn a_reader_of_a_result_that_does_not_come_is_told_after_the_wait() {
    on_every_provider(|_, client| {
        let id = client.create("never");
        let begin = Clock::now();
        let answer = client.get(&format!("/tasks/{id}/result?waitSeconds=1")).expect(404);
        assert_eq!(answer["error"], "result not found");
        assert!(begin.elapsed() >= Duration::from_secs(1));
        assert_eq!(client.get(&format!("/tasks/{id}/result")).expect(404), answer);
    });
}

#[test]
fn a_result_of_no_task_is_not_waited_for() {
    on_every_provider(|_, client| {
        let begin = Clock::now();
        let answer = client.get("/tasks/unknown/result?waitSeconds=60").expect(404);
        assert_eq!(answer["error"], "task not found");
        assert!(begin.elapsed() < PATIENCE);
    });
}

// Who may not.

#[test]
fn a_task_that_is_not_there_is_not_found() {
    on_every_provider(|_, client| {
        for id in ["unknown", "00000000-0000-4000-8000-000000000000"] {
            client.get(&format!("/tasks/{id}")).expect(404);
            for (action, body) in [
                ("heartbeat", json!({})),
                ("abandon", json!({})),
                ("nack", json!({})),
                ("result", json!({ "status": "COMPLETED", "result": {} })),
            ] {
                let answer = client.post(&format!("/tasks/{id}/{action}"), body).expect(404);
                assert!(answer["error"].as_str().unwrap().contains("not"), "{answer}");
            }
        }
    });
}

#[test]
fn a_task_that_nobody_holds_cannot_be_given_back_or_completed() {
    on_every_provider(|_, client| {
        let pending = client.create("held");
        let delayed =
            client.create_with(json!({ "command": "held", "payload": 1, "delaySeconds": 3600 }));
        let dead = client.create_with(json!({ "command": "dead", "payload": 1, "maxAttempts": 1 }));
        nack(client, &claim_id(client, "dead"), json!({}));
        let done = client.create("done");
        claim_id(client, "done");
        client.complete(&done).expect(200);
        for id in [&pending, id_of(&delayed), id_of(&dead), &done] {
            let before = task(client, id);
            for action in ["heartbeat", "abandon", "nack"] {
                let answer = client.post(&format!("/tasks/{id}/{action}"), json!({})).expect(409);
                assert_eq!(answer["error"], "not-in-progress");
            }
            assert_eq!(client.complete(id).expect(409)["error"], "not-in-progress");
            assert_eq!(task(client, id), before);
        }
    });
}

#[test]
fn a_second_completion_changes_nothing() {
    on_every_provider(|_, client| {
        let id = client.create("twice");
        claim_id(client, "twice");
        client.complete(&id).expect(200);
        let first = client.get(&format!("/tasks/{id}/result")).expect(200);
        let body = json!({ "status": "FAILED", "error": "late" });
        client.post(&format!("/tasks/{id}/result"), body).expect(409);
        assert_eq!(client.get(&format!("/tasks/{id}/result")).expect(200), first);
    });
}

#[test]
fn of_many_completions_at_once_one_counts() {
    on_every_provider(|_, client| {
        let id = client.create("rush");
        claim_id(client, "rush");
        let mut statuses: Vec<u16> = thread::scope(|scope| {
            let rush: Vec<_> =
                (0..10).map(|_| scope.spawn(|| client.complete(&id).status)).collect();
            rush.into_iter().map(|one| one.join().unwrap()).collect()
        });
        statuses.sort_unstable();
        assert_eq!(statuses[0], 200);
        assert!(statuses[1..].iter().all(|status| *status == 409), "{statuses:?}");
    });
}

/// Two workers of one tenant: one by the worker's token, one by the producer's.
fn two_workers() -> Value {
    let claims = |subject: &str| {
        json!({
            "token": format!("{subject}-token"),
            "subject": subject,
            "scopes": ["codeq:claim", "codeq:heartbeat", "codeq:abandon", "codeq:nack",
                       "codeq:result", "codeq:admin"],
            "eventTypes": ["*"],
            "raw": { "tenantId": "acme" },
        })
    };
    json!({
        "producerAuthProvider": "static",
        "producerAuthConfig": claims("ann"),
        "workerAuthProvider": "static",
        "workerAuthConfig": claims("bob"),
        "allowProducerAsWorker": true,
    })
}

#[test]
fn a_task_of_another_worker_cannot_be_touched() {
    on_every_provider_with(&two_workers(), |_, client| {
        let (ann, bob) = (client.with_token("ann-token"), client.with_token("bob-token"));
        let id = ann.create("mine");
        assert_eq!(bob.claim("mine").unwrap()["workerId"], "bob");
        for action in ["heartbeat", "abandon", "nack"] {
            let answer = ann.post(&format!("/tasks/{id}/{action}"), json!({})).expect(403);
            assert_eq!(answer["error"], "not-owner");
        }
        assert_eq!(ann.complete(&id).expect(403)["error"], "not-owner");
        bob.complete(&id).expect(200);
    });
}

#[test]
fn a_worker_whose_task_went_to_another_cannot_complete_it() {
    on_every_provider_with(&two_workers(), |_, client| {
        let (ann, bob) = (client.with_token("ann-token"), client.with_token("bob-token"));
        let id = ann.create("late");
        ann.claim_with(json!({ "commands": ["late"], "leaseSeconds": 1 })).unwrap();
        let claim = json!({ "commands": ["late"], "waitSeconds": 20 });
        assert_eq!(bob.claim_with(claim).unwrap()["id"], *id);
        assert_eq!(ann.complete(&id).expect(403)["error"], "not-owner");
        bob.complete(&id).expect(200);
    });
}

// Operators.

#[test]
fn the_counts_reconcile_with_the_tasks() {
    on_every_provider(|_, client| {
        for _ in 0..7 {
            client.create_with(json!({ "command": "Count", "payload": 1, "maxAttempts": 1 }));
        }
        for _ in 0..2 {
            let body = json!({ "command": "count", "payload": 1, "delaySeconds": 3600 });
            client.create_with(body);
        }
        client.create("other");
        let claimed = [0; 5].map(|_| claim_id(client, "count"));
        assert_eq!(client.counts("count"), [2, 2, 5, 0]);
        client.complete(&claimed[0]).expect(200);
        nack(client, &claimed[1], json!({}));
        client.post(&format!("/tasks/{}/abandon", claimed[2]), json!({})).expect(200);
        assert_eq!(client.counts("COUNT"), [3, 2, 2, 1]);
        let answer = client.get("/admin/queues").expect(200);
        let queues = answer["queues"].as_array().unwrap();
        let find = |name: &str| {
            let mut same = queues
                .iter()
                .filter(|queue| queue["command"].as_str().unwrap().eq_ignore_ascii_case(name));
            let queue = same.next().unwrap();
            assert!(same.next().is_none(), "{answer}");
            ["ready", "delayed", "inProgress", "dlq"].map(|place| queue[place].as_u64().unwrap())
        };
        assert_eq!(find("count"), [3, 2, 2, 1]);
        assert_eq!(find("other"), [1, 0, 0, 0]);
    });
}

#[test]
fn a_queue_that_nobody_used_is_empty() {
    on_every_provider(|_, client| {
        let stats = client.get("/admin/queues/Nobody").expect(200);
        let empty =
            json!({ "command": "Nobody", "ready": 0, "delayed": 0, "inProgress": 0, "dlq": 0 });
        assert_eq!(stats, empty);
        assert_eq!(client.get("/admin/queues").expect(200), json!({ "queues": [] }));
    });
}

#[test]
fn a_cleanup_removes_what_is_past_its_retention_and_no_more_than_its_limit() {
    on_every_provider(|_, client| {
        let ids = [0; 3].map(|_| {
            let id = client.create("old");
            claim_id(client, "old");
            client.complete(&id).expect(200);
            id
        });
        let cleanup = |body: Value| client.post("/admin/tasks/cleanup", body).expect(200);
        let none = client.send("POST", "/admin/tasks/cleanup", None, &[]).expect(200);
        assert_eq!((&none["deleted"], &none["limit"]), (&json!(0), &json!(1000)));
        let later = (Instant::now() + Millis::from_secs(25 * 3600)).to_rfc3339();
        let some = cleanup(json!({ "before": later, "limit": 2 }));
        assert_eq!(some, json!({ "deleted": 2, "before": later, "limit": 2 }));
        assert_eq!(cleanup(json!({ "before": later }))["deleted"], 1);
        assert_eq!(cleanup(json!({ "before": later }))["deleted"], 0);
        for id in ids {
            client.get(&format!("/tasks/{id}")).expect(404);
            client.get(&format!("/tasks/{id}/result")).expect(404);
        }
    });
}

#[test]
fn a_cleanup_that_makes_no_sense_is_refused() {
    on_every_provider(|_, client| {
        for body in [json!({ "limit": -1 }), json!({ "before": "yesterday" }), json!([])] {
            client.post("/admin/tasks/cleanup", body).expect(400);
        }
    });
}

// The rest of the API.

#[test]
fn a_host_says_that_it_is_alive_and_ready() {
    on_every_provider(|_, client| {
        assert_eq!(client.get("/healthz").expect(200)["status"], "ok");
        assert_eq!(client.get("/readyz").expect(200)["status"], "ready");
    });
}

#[test]
fn a_request_id_is_echoed_or_made() {
    on_every_provider(|_, client| {
        let id = |headers: &[(&str, &str)], path: &str| {
            let answer = client.send("GET", path, None, headers);
            answer.headers["x-request-id"].to_str().unwrap().to_owned()
        };
        for path in ["/healthz", "/tasks/unknown", "/nowhere"] {
            assert_eq!(id(&[("X-Request-Id", "my-id 1")], path), "my-id 1");
            let (made, other) = (id(&[], path), id(&[], path));
            assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
            assert_ne!(made, other);
        }
    });
}

#[test]
fn an_unknown_path_or_method_is_answered_in_json() {
    on_every_provider(|_, client| {
        for (method, path, status) in [
            ("GET", "/nowhere", 404),
            ("POST", "/tasks/", 404),
            ("GET", "/tasks/a/b/c", 404),
            ("GET", "/tasks", 405),
            ("DELETE", "/tasks/claim", 405),
            ("PUT", "/admin/queues", 405),
            ("POST", "/healthz", 405),
        ] {
            let body: Option<&[u8]> = (method != "GET").then_some(b"{}");
            let answer = client.send(method, path, body, &[]);
            assert_eq!(answer.headers["content-type"], "application/json", "{method} {path}");
            assert!(answer.expect(status)["error"].is_string(), "{method} {path}");
        }
    });
}

#[test]
fn tasks_in_redis_outlive_their_host() {
    let setup = Setup::start("redis", &json!({}));
    let client = setup.host.client();
    let (claimed, pending) = (client.create("outlive"), client.create("outlive"));
    assert_eq!(claim_id(&client, "outlive"), claimed);
    let Setup { host, redis } = setup;
    // Killed, as by kill -9.
    drop(host);
    let host = start_on("redis", redis.as_ref(), &json!({}));
    let client = host.client();
    assert_eq!(claim_id(&client, "outlive"), pending);
    client.complete(&claimed).expect(200);
    assert_eq!(client.counts("outlive"), [0, 0, 1, 0]);
}
