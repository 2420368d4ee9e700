//! A redis server that is not there, does not answer, or wants a password.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_system_tests::{Client, Host, Setup, plugin_dir, start_on};
use codeq_test_servers::{Redis, free_addr};
use serde_json::{Value, json};

/// How long the plugin waits, in these tests.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How long a test on a busy machine takes that waits that long.
const GENEROUS: Duration = Duration::from_secs(6);
/// How long a host needs to find its server again.
const RECOVERY: Duration = Duration::from_secs(20);

fn impatient() -> Value {
    let millis = u64::try_from(TIMEOUT.as_millis()).unwrap();
    json!({ "persistenceConfig": { "connectTimeoutMs": millis, "commandTimeoutMs": millis } })
}

// At the start.

/// Starts a host that has to give up; answers its exit code and what it said.
fn give_up(addr: &str, config: &Value) -> (i32, String) {
    let begin = Clock::now();
    let mut all = impatient();
    all["redisAddr"] = addr.into();
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    // Until the host is done with it.
    let plugins = plugin_dir(&["redis"]);
    let mut host = Host::launch(plugins.path(), all);
    let code = host.wait().code().expect("no signal ended it");
    assert!(begin.elapsed() < GENEROUS, "{:?}", begin.elapsed());
    // What it said last may still be on its way.
    host.wait_for(|log| log.iter().any(|line| line.contains("P-OPEN")));
    let said = host.log().join("\n");
    assert!(said.contains("plugin `redis`") && said.contains(addr), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    (code, said)
}

/// A server that does the same with every connection.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    addr
}

#[test]
fn a_server_that_is_not_there_is_an_error_at_the_start() {
    let (code, said) = give_up(&free_addr().to_string(), &json!({}));
    assert_eq!(code, 1);
    assert!(said.contains("cannot reach"), "{said}");
}

#[test]
fn a_server_whose_name_nobody_knows_is_an_error_at_the_start() {
    assert_eq!(give_up("no-such-host.invalid:6379", &json!({})).0, 1);
}

#[test]
fn a_server_that_hangs_is_an_error_at_the_start() {
    let redis = Redis::start();
    redis.hang();
    let (code, said) = give_up(&redis.addr(), &json!({}));
    assert_eq!(code, 1);
    assert!(said.contains("does not answer"), "{said}");
}

#[test]
fn a_server_that_hangs_up_is_an_error_at_the_start() {
    assert_eq!(give_up(&server(drop), &json!({})).0, 1);
}

#[test]
fn a_server_that_is_none_of_redis_is_an_error_at_the_start() {
    let web = server(|mut connection| {
        let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    assert_eq!(give_up(&web, &json!({})).0, 1);
}

/// A server with the password `open sesame`.
fn guarded() -> Redis {
    Redis::start_with(&["--save", "", "--requirepass", "open sesame"])
}

#[test]
fn a_server_that_wants_a_password_is_an_error_of_the_configuration() {
    let redis = guarded();
    let (code, said) = give_up(&redis.addr(), &json!({}));
    assert_eq!(code, 2);
    assert!(said.contains("password"), "{said}");
}

#[test]
fn a_wrong_password_is_an_error_of_the_configuration_and_not_shown() {
    let redis = guarded();
    let (code, said) = give_up(&redis.addr(), &json!({ "redisPassword": "open barley" }));
    assert_eq!(code, 2);
    assert!(said.contains("password") && !said.contains("barley"), "{said}");
}

#[test]
fn the_right_password_opens_the_store() {
    let redis = guarded();
    let host = start_on("redis", Some(&redis), &json!({ "redisPassword": "open sesame" }));
    let client = host.client();
    let id = client.create("guarded");
    client.claim("guarded").unwrap();
    client.complete(&id).expect(200);
}

// At run time.

/// A host on a server that keeps what it acknowledged.
fn running() -> (Setup, Client) {
    let redis =
        Redis::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let host = start_on("redis", Some(&redis), &impatient());
    let client = host.client();
    (Setup { host, redis: Some(redis) }, client)
}

/// Every request that needs the server is told to come again, in time; the process is alive.
fn is_out(client: &Client) {
    let done = json!({ "status": "COMPLETED", "result": {} });
    let requests = [
        ("POST", "/tasks", json!({ "command": "out", "payload": 1 })),
        ("POST", "/tasks/claim", json!({ "commands": ["out"] })),
        ("POST", "/tasks/claim", json!({ "commands": ["out"], "waitSeconds": 30 })),
        ("POST", "/tasks/x/heartbeat", json!({})),
        ("POST", "/tasks/x/abandon", json!({})),
        ("POST", "/tasks/x/nack", json!({})),
        ("POST", "/tasks/x/result", done),
        ("GET", "/tasks/x", Value::Null),
        ("GET", "/tasks/x/result?waitSeconds=30", Value::Null),
        ("GET", "/admin/queues", Value::Null),
        ("GET", "/admin/queues/out", Value::Null),
        ("POST", "/admin/tasks/cleanup", json!({})),
        ("GET", "/readyz", Value::Null),
    ];
    for (method, path, body) in requests {
        let begin = Clock::now();
        let body = (method == "POST").then(|| body.to_string());
        let answer = client.send(method, path, body.as_deref().map(str::as_bytes), &[]);
        assert!(begin.elapsed() < GENEROUS, "{method} {path}: {:?}", begin.elapsed());
        assert_eq!(answer.status, 503, "{method} {path}: {}", answer.body);
        let retry = answer.headers["retry-after"].to_str().unwrap();
        assert!(retry.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{path}: {retry}");
        assert!(answer.body["error"].is_string(), "{path}: {}", answer.body);
    }
    client.get("/healthz").expect(200);
}

/// Waits until the host serves again, and sees that it does in full.
fn recovers(setup: &Setup, client: &Client) {
    let begin = Clock::now();
    setup.host.wait_for(|_| client.get("/readyz").status == 200);
    assert!(begin.elapsed() < RECOVERY, "{:?}", begin.elapsed());
    let id = client.create("recovered");
    assert_eq!(client.claim("recovered").unwrap()["id"], *id);
    client.complete(&id).expect(200);
    let log = setup.host.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

#[test]
fn a_server_that_dies_is_an_outage_until_it_is_back() {
    let (mut setup, client) = running();
    for _ in 0..2 {
        setup.redis.as_mut().unwrap().kill();
        is_out(&client);
        setup.redis.as_mut().unwrap().restart();
        recovers(&setup, &client);
    }
}

#[test]
fn a_server_that_hangs_is_an_outage_until_it_answers() {
    let (setup, client) = running();
    for _ in 0..2 {
        setup.redis.as_ref().unwrap().hang();
        is_out(&client);
        setup.redis.as_ref().unwrap().resume();
        recovers(&setup, &client);
    }
}

#[test]
fn tasks_outlive_an_outage() {
    let (mut setup, client) = running();
    let [held, pending] = [client.create("kept"), client.create("kept")];
    let delayed = json!({ "command": "kept", "payload": 1, "delaySeconds": 3600 });
    client.create_with(delayed);
    assert_eq!(client.claim("kept").unwrap()["id"], *held);
    setup.redis.as_mut().unwrap().kill();
    client.post("/tasks", json!({ "command": "kept", "payload": 1 })).expect(503);
    setup.redis.as_mut().unwrap().restart();
    recovers(&setup, &client);
    assert_eq!(client.counts("kept"), [1, 1, 1, 0]);
    client.complete(&held).expect(200);
    assert_eq!(client.claim("kept").unwrap()["id"], *pending);
}

#[test]
fn a_batch_in_an_outage_is_told_of_it() {
    let (mut setup, client) = running();
    setup.redis.as_mut().unwrap().kill();
    let tasks = json!({ "tasks": [{ "command": "out", "payload": 1 }, { "command": "" }] });
    let results =
        json!({ "results": [{ "taskId": "x", "status": "FAILED", "error": "it broke" }] });
    for (path, body) in [("/tasks/batch", tasks), ("/tasks/batch/results", results)] {
        let answer = client.post(path, body);
        // Each on its own, or all at once.
        match answer.status {
            503 => {}
            _ => assert!(answer.expect(200)["results"][0]["error"].is_string()),
        }
    }
}

#[test]
fn a_lease_that_ends_in_an_outage_brings_the_task_back_after_it() {
    let (mut setup, client) = running();
    let id = client.create("lost");
    client.claim_with(json!({ "commands": ["lost"], "leaseSeconds": 1 })).unwrap();
    setup.redis.as_mut().unwrap().kill();
    is_out(&client);
    setup.redis.as_mut().unwrap().restart();
    setup.host.wait_for(|_| client.get("/readyz").status == 200);
    let begin = Clock::now();
    let claim = json!({ "commands": ["lost"], "waitSeconds": 20 });
    assert_eq!(client.claim_with(claim).unwrap()["id"], *id);
    assert!(begin.elapsed() < GENEROUS, "{:?}", begin.elapsed());
}

#[test]
fn claims_that_wait_through_an_outage_are_answered() {
    let (mut setup, client) = running();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let claim = json!({ "commands": ["waited"], "waitSeconds": 30 });
                scope.spawn(|| client.post("/tasks/claim", claim))
            })
            .collect();
        // Nothing tells when they wait.
        thread::sleep(Duration::from_millis(300));
        setup.redis.as_mut().unwrap().kill();
        for waiter in waiters {
            let answer = waiter.join().unwrap();
            assert_eq!(answer.status, 503, "{}", answer.body);
        }
    });
}

#[test]
fn waiting_claims_hear_of_other_hosts_again_after_an_outage() {
    let (mut setup, client) = running();
    let other = start_on("redis", setup.redis.as_ref(), &impatient());
    setup.redis.as_mut().unwrap().kill();
    is_out(&client);
    setup.redis.as_mut().unwrap().restart();
    recovers(&setup, &client);
    other.wait_for(|_| other.client().get("/readyz").status == 200);
    thread::scope(|scope| {
        let claim = json!({ "commands": ["heard"], "waitSeconds": 20 });
        let waiter = scope.spawn(|| client.claim_with(claim));
        thread::sleep(Duration::from_millis(300));
        let begin = Clock::now();
        other.client().create("heard");
        assert!(waiter.join().unwrap().is_some());
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    });
}

#[test]
fn an_outage_does_not_flood_the_log() {
    let (mut setup, client) = running();
    setup.redis.as_mut().unwrap().kill();
    let begin = Clock::now();
    while begin.elapsed() < Duration::from_secs(3) {
        client.post("/tasks", json!({ "command": "out", "payload": 1 })).expect(503);
    }
    let log = setup.host.log();
    let warnings = log.iter().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert!(warnings.count() < 20, "{log:#?}");
}

#[test]
fn a_host_stops_in_an_outage() {
    for hang in [true, false] {
        let (mut setup, client) = running();
        let redis = setup.redis.as_mut().unwrap();
        if hang {
            redis.hang()
        } else {
            redis.kill()
        }
        client.get("/readyz").expect(503);
        let begin = Clock::now();
        setup.host.terminate();
        assert!(setup.host.wait().success());
        assert!(begin.elapsed() < GENEROUS, "{:?}", begin.elapsed());
    }
}
