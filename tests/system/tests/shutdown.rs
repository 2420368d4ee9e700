//! A host that is told to stop: it takes no more, finishes what is in flight, and loses nothing.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_system_tests::{Client, Host, PROVIDERS, Raw, Setup, plugin_dir, start_on};
use serde_json::{Value, json};

/// By then a request waits. Nothing outside the host tells when it does.
const SETTLED: Duration = Duration::from_millis(400);
/// How long stopping takes at most when nothing holds it up.
const PROMPT: Duration = Duration::from_secs(6);

/// Runs a test on every provider that may stop its host.
fn on_every_provider(test: impl Fn(&mut Setup, &Client)) {
    for provider in PROVIDERS {
        println!("on {provider}:");
        let mut setup = Setup::start(provider, &json!({}));
        let client = setup.host.client();
        test(&mut setup, &client);
    }
}

/// Waits for the end, which has to be a good one, and soon.
fn ends_well(host: &mut Host) {
    let begin = Clock::now();
    let status = host.wait();
    assert!(status.success(), "{status}: {:#?}", host.log());
    assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
    host.wait_for(|log| log.iter().any(|line| line.contains("\"message\":\"stopped\"")));
}

#[test]
fn a_host_stops_when_a_service_manager_asks() {
    on_every_provider(|setup, client| {
        client.create("some");
        setup.host.terminate();
        ends_well(&mut setup.host);
    });
}

#[test]
fn a_host_stops_when_a_person_asks() {
    on_every_provider(|setup, client| {
        client.create("some");
        setup.host.interrupt();
        ends_well(&mut setup.host);
    });
}

#[test]
fn waiting_claims_are_answered_with_nothing() {
    on_every_provider(|setup, client| {
        let answered = thread::scope(|scope| {
            let waiters: Vec<_> = (0..10)
                .map(|n| {
                    scope.spawn(move || {
                        let body = json!({ "commands": ["none"], "waitSeconds": 30, "count": 3 });
                        let path = ["/tasks/claim", "/tasks/claim/batch"][n % 2];
                        let answer = client.post(path, body);
                        (answer.expect(204), Clock::now())
                    })
                })
                .collect();
            thread::sleep(SETTLED);
            let begin = Clock::now();
            setup.host.terminate();
            waiters.into_iter().map(|w| w.join().unwrap().1 - begin).collect::<Vec<_>>()
        });
        assert!(answered.iter().all(|time| *time < PROMPT), "{answered:?}");
        ends_well(&mut setup.host);
    });
}

#[test]
fn waiting_readers_are_told_that_there_is_no_result() {
    on_every_provider(|setup, client| {
        let id = client.create("unfinished");
        thread::scope(|scope| {
            let path = format!("/tasks/{id}/result?waitSeconds=60");
            let reader = scope.spawn(move || client.get(&path).expect(404));
            thread::sleep(SETTLED);
            setup.host.terminate();
            assert_eq!(reader.join().unwrap()["error"], "result not found");
        });
        ends_well(&mut setup.host);
    });
}

#[test]
fn a_request_that_has_begun_is_finished() {
    on_every_provider(|setup, _| {
        let body = br#"{"command":"begun","payload":1}"#;
        let mut request = Raw::connect(&setup.host);
        request.post("/v1/codeq/tasks", body.len(), &body[..10]);
        thread::sleep(SETTLED);
        setup.host.terminate();
        setup.host.wait_for(|log| log.iter().any(|line| line.contains("stopping")));
        request.send(&body[10..]);
        let (status, text) = request.read();
        assert_eq!(status, 202, "{text}");
        ends_well(&mut setup.host);
    });
}

#[test]
fn a_host_that_is_stopping_takes_nothing_new() {
    on_every_provider(|setup, _| {
        let body = br#"{"command":"begun","payload":1}"#;
        let mut request = Raw::connect(&setup.host);
        request.post("/v1/codeq/tasks", body.len(), &body[..10]);
        thread::sleep(SETTLED);
        setup.host.terminate();
        setup.host.wait_for(|log| log.iter().any(|line| line.contains("stopping")));
        // No connection at all, or an honest answer.
        setup.host.wait_for(|_| {
            Raw::try_connect(&setup.host).is_none_or(|mut late| {
                late.send(b"GET /readyz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
                [503, 0].contains(&late.read().0)
            })
        });
        request.send(&body[10..]);
        assert_eq!(request.read().0, 202);
        ends_well(&mut setup.host);
    });
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    on_every_provider(|setup, client| {
        client.get("/healthz").expect(200);
        let idle: Vec<_> = (0..5).map(|_| Raw::connect(&setup.host)).collect();
        thread::sleep(SETTLED);
        setup.host.terminate();
        ends_well(&mut setup.host);
        drop(idle);
    });
}

#[test]
fn being_asked_twice_is_as_good_as_once() {
    on_every_provider(|setup, _| {
        setup.host.terminate();
        setup.host.interrupt();
        setup.host.terminate();
        ends_well(&mut setup.host);
    });
}

#[test]
fn every_task_that_was_acknowledged_is_there_afterwards() {
    let mut setup = Setup::start("redis", &json!({}));
    let stopped = AtomicBool::new(false);
    let created: Vec<String> = thread::scope(|scope| {
        let producers: Vec<_> = (0..4)
            .map(|_| {
                let host = &setup.host;
                scope.spawn(|| {
                    let mut created = Vec::new();
                    while !stopped.load(Ordering::Relaxed) {
                        created.extend(create(host));
                    }
                    created
                })
            })
            .collect();
        thread::sleep(Duration::from_secs(1));
        setup.host.terminate();
        setup.host.wait_for(|log| log.iter().any(|line| line.contains("\"message\":\"stopped\"")));
        stopped.store(true, Ordering::Relaxed);
        producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect()
    });
    ends_well(&mut setup.host);
    assert!(!created.is_empty());
    let host = start_on("redis", setup.redis.as_ref(), &json!({}));
    let client = host.client();
    for id in &created {
        assert_eq!(client.get(&format!("/tasks/{id}")).expect(200)["status"], "PENDING");
    }
    let ready = client.counts("steady")[0];
    // A task may be there whose acknowledgement nobody heard: at most one of each producer.
    let heard = created.len() as u64;
    assert!((heard..=heard + 4).contains(&ready), "{heard} of {ready}");
}

/// Creates a task, if the host is there to take it; answers its id if that was acknowledged.
fn create(host: &Host) -> Option<String> {
    let body = br#"{"command":"steady","payload":1}"#;
    // Not with the client, which takes a host that is gone for a failure.
    let mut request = Raw::try_connect(host)?;
    request.post("/v1/codeq/tasks", body.len(), body);
    let (status, text) = request.read();
    let task: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
    (status == 202).then(|| task["id"].as_str().unwrap().to_owned())
}

#[test]
fn a_host_that_waits_for_its_server_at_the_start_can_be_stopped() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = json!({
        "redisAddr": server.local_addr().unwrap().to_string(),
        "persistenceConfig": { "connectTimeoutMs": 25_000 },
    });
    // Until the host is done with it.
    let plugins = plugin_dir(&["redis"]);
    let mut host = Host::launch(plugins.path(), config);
    let connection = server.accept().unwrap();
    let begin = Clock::now();
    host.terminate();
    assert!(host.wait().success(), "{:#?}", host.log());
    assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
    drop(connection);
}
