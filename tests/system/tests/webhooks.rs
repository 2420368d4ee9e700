//! Result callbacks: however a task ends, its producer hears of it.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use codeq_system_tests::{
    Client, Host, PROVIDERS, Reaction, Received, Receiver, Setup, on_every_provider,
    on_every_provider_with, start_on,
};
use codeq_test_servers::Redis;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

/// In which nothing more comes that is not waited for.
const QUIET: Duration = Duration::from_millis(700);

/// Hosts that call receivers of this machine, and try again at once.
fn config() -> Value {
    json!({ "webhookAllowPrivate": true, "resultWebhookBaseBackoffSeconds": 0 })
}

fn and(mut config: Value, more: Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn with(test: impl Fn(&Host, &Client)) {
    on_every_provider_with(&config(), test);
}

fn task(command: &str, receiver: &Receiver) -> Value {
    json!({ "command": command, "payload": 1, "webhook": receiver.url("/done") })
}

fn create(client: &Client, body: Value) -> String {
    client.create_with(body)["id"].as_str().unwrap().to_owned()
}

fn create_and_claim(client: &Client, body: Value) -> String {
    let id = create(client, body.clone());
    let claimed = client.claim(body["command"].as_str().unwrap()).unwrap();
    assert_eq!(claimed["id"], *id);
    id
}

/// The one call that came.
fn only(receiver: &Receiver) -> Received {
    let received = receiver.wait_for(1);
    receiver.stays_at(1, QUIET);
    received.into_iter().next().unwrap()
}

// Each end.

#[test]
fn a_completed_task_calls_back_with_its_result() {
    with(|_, client| {
        let receiver = Receiver::start();
        let id = create_and_claim(client, task("Render", &receiver));
        let artifacts = json!([{ "name": "a", "url": "https://example.org/a" }]);
        let body = json!({ "status": "COMPLETED", "result": { "n": [1] }, "artifacts": artifacts });
        let answer = client.post(&format!("/tasks/{id}/result"), body).expect(200);
        let call = only(&receiver);
        assert_eq!(call.path, "/done");
        assert_eq!(call.headers["content-type"], "application/json");
        let expected = json!({
            "taskId": id,
            "eventType": "Render",
            "status": "COMPLETED",
            "result": { "n": [1] },
            "error": "",
            "artifacts": artifacts,
            "completedAt": answer["completedAt"],
        });
        assert_eq!(call.json(), expected);
    });
}

#[test]
fn a_failed_task_calls_back_with_its_error() {
    with(|_, client| {
        let receiver = Receiver::start();
        let id = create_and_claim(client, task("render", &receiver));
        let body = json!({ "status": "FAILED", "error": "no ink" });
        client.post(&format!("/tasks/{id}/result"), body).expect(200);
        let call = only(&receiver).json();
        assert_eq!((&call["status"], &call["error"]), (&json!("FAILED"), &json!("no ink")));
        assert_eq!((&call["result"], &call["artifacts"]), (&Value::Null, &Value::Null));
    });
}

#[test]
fn a_task_that_a_worker_gave_up_for_the_last_time_calls_back() {
    with(|_, client| {
        let receiver = Receiver::start();
        let id =
            create_and_claim(client, and(task("render", &receiver), json!({ "maxAttempts": 2 })));
        let nack = || client.post(&format!("/tasks/{id}/nack"), json!({ "reason": "no paper" }));
        assert_eq!(nack().expect(200)["status"], "requeued");
        receiver.stays_at(0, QUIET);
        client.claim("render").unwrap();
        assert_eq!(nack().expect(200)["status"], "dlq");
        let call = only(&receiver).json();
        assert_eq!((&call["taskId"], &call["status"]), (&json!(id), &json!("FAILED")));
        assert_eq!((&call["error"], &call["result"]), (&json!("no paper"), &Value::Null));
    });
}

#[test]
fn a_task_whose_last_lease_ran_out_calls_back() {
    with(|_, client| {
        let receiver = Receiver::start();
        let id = create(client, and(task("render", &receiver), json!({ "maxAttempts": 1 })));
        client.claim_with(json!({ "commands": ["render"], "leaseSeconds": 1 })).unwrap();
        let call = only(&receiver).json();
        assert_eq!((&call["taskId"], &call["error"]), (&json!(id), &json!("LEASE_EXPIRED")));
    });
}

#[test]
fn each_task_of_a_batch_calls_back() {
    with(|_, client| {
        let receiver = Receiver::start();
        let ids: Vec<String> = (0..10).map(|_| create(client, task("render", &receiver))).collect();
        client
            .post("/tasks/claim/batch", json!({ "count": 10, "commands": ["render"] }))
            .expect(200);
        let results: Vec<Value> = ids
            .iter()
            .map(|id| json!({ "taskId": id, "status": "COMPLETED", "result": { "of": id } }))
            .collect();
        client.post("/tasks/batch/results", json!({ "results": results })).expect(200);
        let mut called: Vec<String> = receiver
            .wait_for(10)
            .iter()
            .map(|call| call.json()["result"]["of"].as_str().unwrap().to_owned())
            .collect();
        receiver.stays_at(10, QUIET);
        let mut ids = ids;
        ids.sort();
        called.sort();
        assert_eq!(called, ids);
    });
}

#[test]
fn a_task_that_was_handed_back_calls_back_when_it_ends() {
    with(|_, client| {
        let receiver = Receiver::start();
        let id = create_and_claim(client, task("render", &receiver));
        client.post(&format!("/tasks/{id}/abandon"), json!({})).expect(200);
        client.claim("render").unwrap();
        client.complete(&id).expect(200);
        assert_eq!(only(&receiver).json()["status"], "COMPLETED");
    });
}

#[test]
fn a_large_result_arrives_as_it_was_handed_in() {
    with(|_, client| {
        let receiver = Receiver::start();
        let id = create_and_claim(client, task("render", &receiver));
        let body = json!({ "status": "COMPLETED", "result": { "text": "é".repeat(200_000) } });
        client.post(&format!("/tasks/{id}/result"), body.clone()).expect(200);
        assert_eq!(only(&receiver).json()["result"], body["result"]);
    });
}

#[test]
fn a_result_that_cannot_be_read_now_is_sent_when_it_can_and_the_wait_is_no_attempt() {
    let redis = Redis::start();
    let config = and(config(), json!({ "resultWebhookMaxAttempts": 3 }));
    let host = start_on("redis", Some(&redis), &config);
    let client = host.client();
    let (spoiler, mender) = (connect(&redis), connect(&redis));
    let (spoiler, kept) = (Mutex::new(spoiler), Arc::new(Mutex::new(String::new())));
    let keep = Arc::clone(&kept);
    let receiver = Receiver::reacting(move |call, before| {
        if before == 0 {
            let id = call.json()["taskId"].as_str().unwrap().to_owned();
            let mut spoiler = spoiler.lock().unwrap();
            *keep.lock().unwrap() = result_in(&mut spoiler, &id);
            set_result(&mut spoiler, &id, "{");
        }
        Reaction::Status(if before < 2 { 500 } else { 200 })
    });
    let id = create_and_claim(&client, task("render", &receiver));
    let body = json!({ "status": "COMPLETED", "result": { "text": "x".repeat(20_000) } });
    client.post(&format!("/tasks/{id}/result"), body.clone()).expect(200);
    let is_unreadable = |line: &&String| line.contains("its result cannot be read");
    host.wait_for(|log| log.iter().filter(is_unreadable).count() >= 2);
    receiver.stays_at(1, Duration::ZERO);
    let mut mender = mender;
    set_result(&mut mender, &id, &kept.lock().unwrap());
    // Two were left.
    let received = receiver.wait_for(3);
    assert!(received.iter().all(|call| call.json()["result"] == body["result"]));
}

#[test]
fn a_callback_whose_result_was_removed_goes_without_it() {
    let redis = Redis::start();
    let host = start_on("redis", Some(&redis), &config());
    let client = host.client();
    let connection = Mutex::new(connect(&redis));
    let receiver = Receiver::reacting(move |call, before| {
        let mut connection = connection.lock().unwrap();
        let id = call.json()["taskId"].as_str().unwrap().to_owned();
        redis::cmd("HDEL").arg("codeq:results").arg(id).exec(&mut *connection).unwrap();
        Reaction::Status(if before < 1 { 500 } else { 200 })
    });
    let id = create_and_claim(&client, task("render", &receiver));
    let body = json!({ "status": "COMPLETED", "result": { "text": "x".repeat(20_000) } });
    client.post(&format!("/tasks/{id}/result"), body.clone()).expect(200);
    let received = receiver.wait_for(2);
    assert_eq!(received[0].json()["result"], body["result"]);
    let last = received[1].json();
    assert_eq!((&last["status"], &last["result"]), (&json!("COMPLETED"), &Value::Null));
}

fn connect(redis: &Redis) -> redis::Connection {
    let client = redis::Client::open(format!("redis://{}", redis.addr())).unwrap();
    client.get_connection().unwrap()
}

/// A result as the backend has it.
fn result_in(connection: &mut redis::Connection, id: &str) -> String {
    redis::cmd("HGET").arg("codeq:results").arg(id).query(connection).unwrap()
}

fn set_result(connection: &mut redis::Connection, id: &str, record: &str) {
    redis::cmd("HSET").arg("codeq:results").arg(id).arg(record).exec(connection).unwrap();
}

#[test]
fn a_task_without_a_webhook_calls_nobody_and_leaves_nothing() {
    with(|host, client| {
        let id = create_and_claim(client, json!({ "command": "render", "payload": 1 }));
        client.complete(&id).expect(200);
        assert!(!host.log().iter().any(|line| line.contains("callback")), "{:#?}", host.log());
    });
}

#[test]
fn a_worker_who_hands_in_twice_causes_one_callback() {
    with(|_, client| {
        let receiver = Receiver::start();
        let id = create_and_claim(client, task("render", &receiver));
        client.complete(&id).expect(200);
        client.complete(&id).expect(409);
        receiver.wait_for(1);
        client.complete(&id).expect(409);
        receiver.stays_at(1, QUIET);
    });
}

// The call.

#[test]
fn calls_are_signed_with_the_secret() {
    let config = and(config(), json!({ "webhookHmacSecret": "between-us" }));
    on_every_provider_with(&config, |_, client| {
        let receiver = Receiver::start();
        let id = create_and_claim(client, task("render", &receiver));
        client.complete(&id).expect(200);
        let call = only(&receiver);
        let timestamp = &call.headers["x-codeq-timestamp"];
        let now = codeq_plugin::Instant::now().0 / 1000;
        assert!((now - 60..=now).contains(&timestamp.parse().unwrap()), "{timestamp}");
        let mut mac = Hmac::<Sha256>::new_from_slice(b"between-us").unwrap();
        mac.update(format!("{timestamp}.{}", call.body).as_bytes());
        let expected: String =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(call.headers["x-codeq-signature"], expected);
    });
}

#[test]
fn the_trace_of_the_producer_goes_on_in_the_callback() {
    with(|_, client| {
        let receiver = Receiver::start();
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [("traceparent", trace), ("tracestate", "vendor=1")];
        let body = task("render", &receiver).to_string();
        client.send("POST", "/tasks", Some(body.as_bytes()), &headers).expect(202);
        let id = client.claim("render").unwrap()["id"].as_str().unwrap().to_owned();
        client.complete(&id).expect(200);
        let call = only(&receiver);
        assert!(call.headers["traceparent"].contains("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(call.headers["tracestate"], "vendor=1");
        assert!(!call.headers.contains_key("x-codeq-signature"), "there is no secret");
    });
}

// Receivers that do not answer as they should.

#[test]
fn a_receiver_that_fails_is_called_again_until_it_takes_it() {
    with(|_, client| {
        let receiver = Receiver::reacting(|_, before| match before {
            0 => Reaction::Status(500),
            1 => Reaction::Close,
            2 => Reaction::Status(410),
            3 => Reaction::Status(304),
            _ => Reaction::Status(204),
        });
        let id = create_and_claim(client, task("render", &receiver));
        client.complete(&id).expect(200);
        let received = receiver.wait_for(5);
        receiver.stays_at(5, QUIET);
        assert!(received.iter().all(|call| call.body == received[0].body));
    });
}

#[test]
fn a_callback_is_given_up_after_the_most_attempts_and_the_log_says_so() {
    let config = and(config(), json!({ "resultWebhookMaxAttempts": 3 }));
    on_every_provider_with(&config, |host, client| {
        let receiver = Receiver::reacting(|_, _| Reaction::Status(503));
        let id = create_and_claim(client, task("render", &receiver));
        client.complete(&id).expect(200);
        host.wait_for(|log| {
            log.iter().any(|line| line.contains("result callback given up") && line.contains(&id))
        });
        receiver.stays_at(3, QUIET);
        assert_eq!(client.counts("render"), [0; 4]);
    });
}

#[test]
fn the_wait_between_attempts_doubles_up_to_the_longest() {
    let config = and(
        config(),
        json!({ "resultWebhookBaseBackoffSeconds": 1, "resultWebhookMaxBackoffSeconds": 2 }),
    );
    on_every_provider_with(&config, |_, client| {
        let receiver =
            Receiver::reacting(|_, before| Reaction::Status(if before < 3 { 500 } else { 200 }));
        let id = create_and_claim(client, task("render", &receiver));
        client.complete(&id).expect(200);
        let received = receiver.wait_for(4);
        let waits: Vec<f64> =
            received.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
        for (wait, expected) in waits.iter().zip([1.0, 2.0, 2.0]) {
            assert!((expected - 0.1..expected + 1.5).contains(wait), "{waits:?}");
        }
    });
}

#[test]
fn redirects_are_not_followed() {
    with(|_, client| {
        let elsewhere = Receiver::start();
        let to = elsewhere.url("/secret");
        let receiver = Receiver::reacting(move |_, before| match before {
            0 => Reaction::Redirect(to.clone()),
            _ => Reaction::Status(200),
        });
        let id = create_and_claim(client, task("render", &receiver));
        client.complete(&id).expect(200);
        receiver.wait_for(2);
        elsewhere.stays_at(0, QUIET);
    });
}

#[test]
fn an_answer_without_end_is_as_good_as_a_short_one() {
    with(|_, client| {
        let receiver = Receiver::reacting(|_, _| Reaction::Endless);
        let id = create_and_claim(client, task("render", &receiver));
        client.complete(&id).expect(200);
        receiver.wait_for(1);
        receiver.stays_at(1, QUIET);
    });
}

#[test]
fn a_receiver_that_hangs_holds_up_no_other_and_is_called_again() {
    with(|_, client| {
        let hanging = Receiver::reacting(|_, before| match before {
            0..20 => Reaction::Hang,
            _ => Reaction::Status(200),
        });
        let good = Receiver::start();
        let begin = Instant::now();
        for _ in 0..20 {
            let id = create_and_claim(client, task("render", &hanging));
            client.complete(&id).expect(200);
        }
        hanging.wait_for(8);
        let id = create_and_claim(client, task("render", &good));
        client.complete(&id).expect(200);
        good.wait_for(1);
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
        hanging.wait_for(9);
    });
}

#[test]
fn thousands_of_ends_for_a_receiver_that_is_gone_slow_nobody_down() {
    with(|host, client| {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let webhook = format!("http://{nobody}/gone");
        let body = json!({ "command": "gone", "payload": 1, "webhook": webhook });
        for _ in 0..20 {
            let tasks = vec![body.clone(); 100];
            client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
        }
        let mut ended = 0;
        while ended < 2000 {
            let claim = json!({ "commands": ["gone"], "count": 10 });
            let claimed = client.post("/tasks/claim/batch", claim).expect(200);
            let results: Vec<Value> = claimed["tasks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|task| json!({ "taskId": task["id"], "status": "COMPLETED", "result": {} }))
                .collect();
            ended += results.len();
            client.post("/tasks/batch/results", json!({ "results": results })).expect(200);
        }
        let good = Receiver::start();
        let begin = Instant::now();
        let id = create_and_claim(client, task("render", &good));
        client.complete(&id).expect(200);
        good.wait_for(1);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert_eq!(client.get("/readyz").status, 200, "{:#?}", host.log());
    });
}

// Receivers that may not be called.

#[test]
fn webhooks_that_are_not_public_are_refused_with_the_setting_that_allows_them() {
    on_every_provider(|_, client| {
        for url in [
            "http://127.0.0.1/",
            "http://localhost:8080/",
            "http://[::1]/",
            "http://169.254.169.254/latest",
            "http://2130706433/",
            "http://10.1.2.3/",
        ] {
            let body = json!({ "command": "a", "payload": 1, "webhook": url });
            let error = client.post("/tasks", body).expect(400)["error"].to_string();
            assert!(error.contains("webhookAllowPrivate"), "{url}: {error}");
        }
        let body = json!({ "command": "a", "payload": 1, "webhook": "http://a:b@example.org/" });
        let error = client.post("/tasks", body).expect(400)["error"].to_string();
        assert!(error.contains("password"), "{error}");
    });
}

#[test]
fn a_name_that_resolves_to_this_machine_is_not_called() {
    // What was let in before is judged again when it is called.
    let receiver = Receiver::start();
    let redis = Redis::start();
    let id = {
        let host = start_on("redis", Some(&redis), &config());
        let webhook = format!("http://localhost:{}/", receiver.addr().port());
        let body = json!({ "command": "a", "payload": 1, "webhook": webhook });
        create(&host.client(), body)
    };
    let host = start_on("redis", Some(&redis), &json!({ "resultWebhookBaseBackoffSeconds": 0 }));
    host.client().claim("a").unwrap();
    host.client().complete(&id).expect(200);
    host.wait_for(|log| {
        log.iter().any(|line| line.contains("no result callback") && line.contains("this machine"))
    });
    receiver.stays_at(0, QUIET);
}

// What survives.

#[test]
fn a_callback_is_not_lost_with_the_host() {
    for provider in ["sqlite", "redis"] {
        println!("on {provider}:");
        // The first call hangs, so that the host is killed in the middle of it.
        let receiver = Receiver::reacting(|_, before| match before {
            0 => Reaction::Hang,
            _ => Reaction::Status(200),
        });
        let (redis, dir) = ((provider == "redis").then(Redis::start), TempDir::new().unwrap());
        let mut config = config();
        if provider == "sqlite" {
            config["persistenceConfig"] = json!({ "path": dir.path().join("codeq.db") });
        }
        let start = || start_on(provider, redis.as_ref(), &config);
        let host = start();
        let first = create_and_claim(&host.client(), task("render", &receiver));
        let gone = create_and_claim(
            &host.client(),
            and(task("render", &receiver), json!({ "maxAttempts": 1 })),
        );
        host.client().complete(&first).expect(200);
        receiver.wait_for(1);
        let nack = json!({ "reason": "no paper" });
        host.client().post(&format!("/tasks/{gone}/nack"), nack).expect(200);
        // Kills it.
        drop(host);
        let host = start();
        let is_there = |received: &[Received], id: &str| {
            received.iter().skip(1).any(|call| call.json()["taskId"] == *id)
        };
        receiver
            .wait_until("both", |received| is_there(received, &first) && is_there(received, &gone));
        drop(host);
    }
}

#[test]
fn a_dead_letter_that_a_host_was_killed_over_is_told_of_at_the_next_start() {
    let redis = Redis::start();
    let receiver = Receiver::start();
    // As if the host had been killed between the store's answer and the note.
    {
        let host = start_on("redis", Some(&redis), &config());
        let body = and(task("render", &receiver), json!({ "maxAttempts": 1 }));
        let id = create_and_claim(&host.client(), body);
        host.client().post(&format!("/tasks/{id}/nack"), json!({})).expect(200);
        receiver.wait_for(1);
    }
    // Those that were told of are not told of again.
    let host = start_on("redis", Some(&redis), &config());
    receiver.stays_at(1, 2 * QUIET);
    drop(host);
    forget_notes(&redis);
    let _host = start_on("redis", Some(&redis), &config());
    receiver.wait_for(2);
    receiver.stays_at(2, QUIET);
}

/// Removes the host's own tasks from a keyspace.
fn forget_notes(redis: &Redis) {
    let mut connection = connect(redis);
    let tasks: Vec<(String, String)> =
        redis::cmd("HGETALL").arg("codeq:tasks").query(&mut connection).unwrap();
    let notes: Vec<String> =
        tasks.into_iter().filter(|(_, task)| task.contains("_codeq")).map(|(id, _)| id).collect();
    assert!(!notes.is_empty());
    for id in notes {
        redis::cmd("HDEL").arg("codeq:tasks").arg(&id).exec(&mut connection).unwrap();
    }
}

#[test]
fn a_host_that_stops_leaves_callbacks_to_the_next_one() {
    for provider in ["sqlite", "redis"] {
        println!("on {provider}:");
        let receiver = Receiver::reacting(|_, before| match before {
            0 => Reaction::Hang,
            _ => Reaction::Status(200),
        });
        let (redis, dir) = ((provider == "redis").then(Redis::start), TempDir::new().unwrap());
        let mut config = config();
        if provider == "sqlite" {
            config["persistenceConfig"] = json!({ "path": dir.path().join("codeq.db") });
        }
        let start = || start_on(provider, redis.as_ref(), &config);
        let mut host = start();
        let id = create_and_claim(&host.client(), task("render", &receiver));
        host.client().complete(&id).expect(200);
        receiver.wait_for(1);
        let begin = Instant::now();
        host.terminate();
        assert!(host.wait().success());
        assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
        let _next = start();
        let begin = Instant::now();
        receiver.wait_for(2);
        // It was handed back, not left to run out.
        assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    }
}

#[test]
fn a_host_that_stops_is_not_kept_by_a_receiver_that_fails_again_and_again() {
    let receiver = Receiver::reacting(|_, _| {
        thread::sleep(Duration::from_millis(20));
        Reaction::Status(500)
    });
    let dir = TempDir::new().unwrap();
    let more = json!({
        "persistenceConfig": { "path": dir.path().join("codeq.db") },
        "resultWebhookMaxAttempts": 1000,
    });
    let start = || start_on("sqlite", None, &and(config(), more.clone()));
    let mut host = start();
    for _ in 0..20 {
        let id = create_and_claim(&host.client(), task("render", &receiver));
        host.client().complete(&id).expect(200);
    }
    receiver.wait_for(21);
    host.terminate();
    assert!(host.wait().success());
    host.wait_for(|log| log.iter().any(|line| line.contains("\"stopped\"")));
    assert!(!host.log().iter().any(|line| line.contains("cut off")), "{:#?}", host.log());
    let before = receiver.received().len();
    let _next = start();
    let begin = Instant::now();
    receiver.wait_until("a call for each task", |received| {
        let called = received.iter().skip(before).map(|call| call.json()["taskId"].to_string());
        called.collect::<BTreeSet<_>>().len() == 20
    });
    // They were handed back, not left to run out.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn two_hosts_on_one_store_make_one_callback() {
    let redis = Redis::start();
    let receiver = Receiver::start();
    let hosts = [(); 2].map(|()| start_on("redis", Some(&redis), &config()));
    let [one, other] = [hosts[0].client(), hosts[1].client()];
    for _ in 0..20 {
        let id = create_and_claim(&one, task("render", &receiver));
        other.complete(&id).expect(200);
    }
    receiver.wait_for(20);
    receiver.stays_at(20, QUIET);
}

// What others see of it.

#[test]
fn nobody_sees_the_notes() {
    with(|_, client| {
        let receiver = Receiver::reacting(|_, _| Reaction::Hang);
        let id = create_and_claim(client, task("render", &receiver));
        client.complete(&id).expect(200);
        receiver.wait_for(1);
        let queues = client.get("/admin/queues").expect(200);
        let names: Vec<&Value> =
            queues["queues"].as_array().unwrap().iter().map(|queue| &queue["command"]).collect();
        assert!(names.iter().all(|name| **name == json!("render")), "{queues}");
        assert!(client.claim_with(json!({})).is_none());
        let updated = client.get(&format!("/tasks/{id}")).expect(200)["updatedAt"].clone();
        let at = codeq_plugin::Instant::parse_rfc3339(updated.as_str().unwrap()).unwrap().0;
        client.get(&format!("/tasks/{id}.{at}")).expect(404);
    });
}

#[test]
fn a_worker_who_hangs_up_after_handing_in_has_called_back_all_the_same() {
    for provider in PROVIDERS {
        println!("on {provider}:");
        let setup = Setup::start(provider, &config());
        let client = setup.host.client();
        let receiver = Receiver::start();
        for _ in 0..20 {
            let id = create_and_claim(&client, task("render", &receiver));
            let body = br#"{"status":"COMPLETED","result":{}}"#;
            let mut request = codeq_system_tests::Raw::connect(&setup.host);
            request.post(&format!("/v1/codeq/tasks/{id}/result"), body.len(), body);
            drop(request);
        }
        // The host may not have read some of them at all.
        let ended = || {
            let [ready, delayed, in_progress, dead] = client.counts("render");
            assert_eq!((ready, delayed, dead), (0, 0, 0));
            20 - usize::try_from(in_progress).unwrap()
        };
        thread::sleep(QUIET);
        receiver.wait_for(ended());
        receiver.stays_at(ended(), QUIET);
    }
}
