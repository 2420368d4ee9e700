//! Claims that wait: they wake when there is something for them, and lose nothing.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_plugin::Instant;
use codeq_system_tests::{Client, Raw, Setup, on_every_provider, on_every_provider_with, start_on};
use codeq_test_servers::Redis;
use serde_json::{Value, json};

/// By then a claim waits. Nothing outside the host tells when it does.
const SETTLED: Duration = Duration::from_millis(400);
/// How soon a waiting claim is answered. Looking every second would not do it.
const PROMPT: Duration = Duration::from_millis(300);

fn waiting(command: &str) -> Value {
    json!({ "commands": [command], "waitSeconds": 20 })
}

/// Does something while a claim waits; answers the task and how long it took after that.
fn while_waiting(client: &Client, claim: &Value, act: impl FnOnce()) -> (Value, Duration) {
    thread::scope(|scope| {
        let waiter = scope.spawn(|| (client.claim_with(claim.clone()), Clock::now()));
        thread::sleep(SETTLED);
        let begin = Clock::now();
        act();
        let (task, end) = waiter.join().unwrap();
        (task.expect("the claim gets a task"), end - begin)
    })
}

/// The quickest of three counts: the machine may be busy with other tests.
fn is_prompt(mut measure: impl FnMut() -> Duration) {
    let times = [(); 3].map(|()| measure());
    assert!(times.iter().any(|time| *time < PROMPT), "{times:?}");
}

/// How long ago this moment of the host's clock was.
fn since(moment: &Value) -> Duration {
    Instant::now().since(Instant::parse_rfc3339(moment.as_str().unwrap()).unwrap()).into()
}

#[test]
fn a_task_that_arrives_wakes_a_waiting_claim() {
    on_every_provider(|_, client| {
        is_prompt(|| {
            let (task, time) = while_waiting(client, &waiting("new"), || {
                client.create("new");
            });
            assert_eq!(task["attempts"], 1);
            time
        });
    });
}

#[test]
fn a_task_of_a_batch_wakes_a_waiting_claim() {
    on_every_provider(|_, client| {
        is_prompt(|| {
            let tasks = json!({ "tasks": [{ "command": "batch", "payload": 1 }] });
            let create = || drop(client.post("/tasks/batch", tasks).expect(200));
            while_waiting(client, &waiting("batch"), create).1
        });
    });
}

#[test]
fn a_delayed_task_that_comes_due_wakes_a_waiting_claim() {
    on_every_provider(|_, client| {
        is_prompt(|| {
            let delay = Duration::from_millis(500);
            let (_, time) = while_waiting(client, &waiting("due"), || {
                let body = json!({ "command": "due", "payload": 1, "delaySeconds": 0.5 });
                client.create_with(body);
            });
            assert!(time >= delay, "{time:?}");
            time - delay
        });
    });
}

#[test]
fn an_abandoned_task_wakes_a_waiting_claim() {
    on_every_provider(|_, client| {
        is_prompt(|| {
            let id = client.create("back");
            client.claim("back").unwrap();
            let abandon = || drop(client.post(&format!("/tasks/{id}/abandon"), json!({})));
            let (task, time) = while_waiting(client, &waiting("back"), abandon);
            assert_eq!(task["id"], *id);
            time
        });
    });
}

#[test]
fn a_failed_task_wakes_a_waiting_claim_after_its_delay() {
    on_every_provider(|_, client| {
        for delay in [Duration::ZERO, Duration::from_millis(500)] {
            is_prompt(|| {
                let id = client.create("failed");
                client.claim("failed").unwrap();
                let body = json!({ "delaySeconds": delay.as_secs_f64() });
                let nack = || drop(client.post(&format!("/tasks/{id}/nack"), body));
                let (task, time) = while_waiting(client, &waiting("failed"), nack);
                assert_eq!((&task["id"], &task["attempts"]), (&json!(id), &json!(2)));
                assert!(time >= delay, "{time:?}");
                time - delay
            });
        }
    });
}

#[test]
fn a_lease_that_expires_wakes_a_waiting_claim() {
    on_every_provider(|_, client| {
        is_prompt(|| {
            let id = client.create("expire");
            let lease = json!({ "commands": ["expire"], "leaseSeconds": 1 });
            let until = client.claim_with(lease).unwrap()["leaseUntil"].clone();
            // Out of step with a claim that would look again each second.
            thread::sleep(SETTLED);
            let task = client.claim_with(waiting("expire")).unwrap();
            assert_eq!((&task["id"], &task["attempts"]), (&json!(id), &json!(2)));
            since(&until)
        });
    });
}

#[test]
fn a_task_of_any_command_wakes_a_claim_that_names_none() {
    on_every_provider(|_, client| {
        is_prompt(|| {
            let claim = json!({ "waitSeconds": 20 });
            let (task, time) = while_waiting(client, &claim, || {
                client.create("whatever");
            });
            assert_eq!(task["command"], "whatever");
            time
        });
    });
}

#[test]
fn a_task_of_any_of_its_commands_wakes_a_claim() {
    on_every_provider(|_, client| {
        is_prompt(|| {
            let claim = json!({ "commands": ["first", "Second"], "waitSeconds": 20 });
            let create = || drop(client.create("SECOND"));
            while_waiting(client, &claim, create).1
        });
    });
}

#[test]
fn a_waiting_claim_of_a_batch_is_answered_with_what_has_come() {
    on_every_provider(|_, client| {
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let body = json!({ "commands": ["some"], "count": 10, "waitSeconds": 20 });
                client.post("/tasks/claim/batch", body).expect(200)
            });
            thread::sleep(SETTLED);
            let id = client.create("some");
            assert_eq!(waiter.join().unwrap()["tasks"][0]["id"], *id);
        });
    });
}

#[test]
fn a_claim_that_waits_for_another_command_does_not_take_the_task() {
    on_every_provider(|_, client| {
        thread::scope(|scope| {
            let claim = json!({ "commands": ["other"], "waitSeconds": 2 });
            let other = scope.spawn(move || client.claim_with(claim));
            thread::sleep(SETTLED);
            client.create("mine");
            assert!(other.join().unwrap().is_none());
        });
        assert!(client.claim("mine").is_some());
    });
}

#[test]
fn a_claim_that_waited_in_vain_is_answered_with_nothing() {
    on_every_provider(|_, client| {
        for (wait, least) in [(json!(1), 1), (json!(0), 0), (json!(-5), 0), (Value::Null, 0)] {
            let begin = Clock::now();
            let body = json!({ "commands": ["none"], "waitSeconds": wait });
            let answer = client.post("/tasks/claim", body);
            assert_eq!((answer.status, answer.body), (204, Value::Null));
            let waited = begin.elapsed();
            let range = Duration::from_secs(least)..Duration::from_secs(least + 5);
            assert!(range.contains(&waited), "{waited:?}");
        }
        let body = json!({ "commands": ["none"], "count": 2, "waitSeconds": 1 });
        client.post("/tasks/claim/batch", body).expect(204);
    });
}

/// Fifty claims wait; `create` makes fifty tasks; each claim gets one of them.
fn each_of_fifty_gets_one(client: &Client, create: impl FnOnce()) {
    let tasks = thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..50).map(|_| scope.spawn(|| client.claim_with(waiting("crowd")))).collect();
        thread::sleep(SETTLED);
        create();
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect::<Vec<_>>()
    });
    let ids: BTreeSet<_> = tasks.iter().flatten().map(|task| task["id"].to_string()).collect();
    assert_eq!((tasks.len(), ids.len()), (50, 50));
    assert!(tasks.iter().flatten().all(|task| task["attempts"] == 1));
    assert_eq!(client.counts("crowd"), [0, 0, 50, 0]);
}

#[test]
fn of_fifty_tasks_that_arrive_one_by_one_each_of_fifty_waiting_claims_gets_one() {
    on_every_provider(|_, client| {
        each_of_fifty_gets_one(client, || {
            thread::scope(|scope| {
                for _ in 0..5 {
                    scope.spawn(|| (0..10).for_each(|_| drop(client.create("crowd"))));
                }
            });
        });
    });
}

#[test]
fn of_fifty_tasks_that_arrive_at_once_each_of_fifty_waiting_claims_gets_one() {
    on_every_provider(|_, client| {
        each_of_fifty_gets_one(client, || {
            let tasks = vec![json!({ "command": "crowd", "payload": 1 }); 50];
            client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
        });
    });
}

#[test]
fn a_claim_that_takes_one_of_two_tasks_leaves_the_other_to_the_next() {
    on_every_provider(|_, client| {
        is_prompt(|| {
            let both = json!({ "commands": ["one", "other"], "waitSeconds": 20 });
            thread::scope(|scope| {
                let waiters = [(); 2].map(|()| {
                    scope.spawn(|| (client.claim_with(both.clone()).unwrap(), Clock::now()))
                });
                thread::sleep(SETTLED);
                let begin = Clock::now();
                let tasks = ["one", "other"].map(|name| json!({ "command": name, "payload": 1 }));
                client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
                let answers = waiters.map(|waiter| waiter.join().unwrap());
                assert_ne!(answers[0].0["command"], answers[1].0["command"]);
                answers.map(|(_, end)| end - begin).into_iter().max().unwrap()
            })
        });
    });
}

/// A task that codeQ wrote, which tells no host.
fn write_silently(redis: &Redis, number: usize) {
    let id = format!("silent-{number}");
    let task = json!({
        "id": id, "command": "SILENT", "payload": "1", "priority": 0, "status": "PENDING",
        "maxAttempts": 5, "tenantId": "default", "lastKnownLocation": "PENDING_LIST",
        "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
    });
    let url = format!("redis://{}/", redis.addr());
    let mut server = redis::Client::open(url).unwrap().get_connection().unwrap();
    redis::pipe()
        .hset("codeq:tasks", &id, task.to_string())
        .lpush("codeq:q:silent:default:pending:0", &id)
        .exec(&mut server)
        .unwrap();
}

#[test]
fn tasks_of_which_nobody_tells_are_found_by_all_who_wait() {
    let setup = Setup::start("redis", &json!({}));
    let client = setup.host.client();
    thread::scope(|scope| {
        let waiters =
            [(); 5].map(|()| scope.spawn(|| (client.claim_with(waiting("silent")), Clock::now())));
        thread::sleep(SETTLED);
        let begin = Clock::now();
        (0..5).for_each(|number| write_silently(setup.redis.as_ref().unwrap(), number));
        for waiter in waiters {
            let (task, end) = waiter.join().unwrap();
            assert!(task.is_some());
            assert!(end - begin < Duration::from_secs(4), "each looks, and not only at its end");
        }
    });
}

#[test]
fn a_waiting_client_that_goes_away_swallows_no_task() {
    on_every_provider(|host, client| {
        let body = waiting("gone").to_string();
        let gone: Vec<Raw> = (0..10)
            .map(|_| {
                let mut raw = Raw::connect(host);
                raw.post("/v1/codeq/tasks/claim", body.len(), body.as_bytes());
                raw
            })
            .collect();
        thread::sleep(SETTLED);
        drop(gone);
        thread::sleep(SETTLED);
        is_prompt(|| {
            let (task, time) = while_waiting(client, &waiting("gone"), || {
                client.create("gone");
            });
            assert_eq!(task["attempts"], 1);
            client.complete(task["id"].as_str().unwrap()).expect(200);
            time
        });
        assert_eq!(client.counts("gone"), [0; 4]);
    });
}

/// Two hosts on one server.
fn on_two_hosts(test: impl Fn(&Client, &Client)) {
    let Setup { host: one, redis } = Setup::start("redis", &json!({}));
    let other = start_on("redis", redis.as_ref(), &json!({}));
    test(&one.client(), &other.client());
}

/// How soon one host's callers hear of what happens through another.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_task_that_arrives_through_another_host_wakes_a_waiting_claim() {
    on_two_hosts(|one, other| {
        for _ in 0..3 {
            let (_, time) = while_waiting(one, &waiting("shared"), || {
                other.create("shared");
            });
            assert!(time < SOON, "{time:?}");
        }
    });
}

#[test]
fn a_task_that_another_host_delayed_wakes_a_waiting_claim_when_it_is_due() {
    on_two_hosts(|one, other| {
        let (_, time) = while_waiting(one, &waiting("shared"), || {
            let body = json!({ "command": "shared", "payload": 1, "delaySeconds": 0.5 });
            other.create_with(body);
        });
        let range = Duration::from_millis(500)..SOON + Duration::from_millis(500);
        assert!(range.contains(&time), "{time:?}");
    });
}

#[test]
fn a_task_whose_host_died_wakes_a_claim_that_waits_at_another() {
    let Setup { host: one, redis } = Setup::start("redis", &json!({}));
    let other = start_on("redis", redis.as_ref(), &json!({}));
    let id = one.client().create("orphan");
    let lease = json!({ "commands": ["orphan"], "leaseSeconds": 1 });
    let until = one.client().claim_with(lease).unwrap()["leaseUntil"].clone();
    // Killed, as by kill -9.
    drop(one);
    let task = other.client().claim_with(waiting("orphan")).unwrap();
    assert_eq!((&task["id"], &task["attempts"]), (&json!(id), &json!(2)));
    assert!(since(&until) < SOON);
}

#[test]
fn a_result_that_arrives_through_another_host_wakes_a_waiting_reader() {
    on_two_hosts(|one, other| {
        let id = other.create("read");
        other.claim("read").unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                one.get(&format!("/tasks/{id}/result?waitSeconds=20")).expect(200);
                Clock::now()
            });
            thread::sleep(SETTLED);
            let begin = Clock::now();
            other.complete(&id).expect(200);
            let time = reader.join().unwrap() - begin;
            assert!(time < SOON, "{time:?}");
        });
    });
}

#[test]
fn a_dead_letter_wakes_no_claim() {
    on_every_provider_with(&json!({ "maxAttemptsDefault": 1 }), |_, client| {
        let id = client.create("dead");
        client.claim("dead").unwrap();
        thread::scope(|scope| {
            let claim = json!({ "commands": ["dead"], "waitSeconds": 1 });
            let waiter = scope.spawn(move || client.claim_with(claim));
            thread::sleep(SETTLED);
            let answer = client.post(&format!("/tasks/{id}/nack"), json!({})).expect(200);
            assert_eq!(answer["status"], "dlq");
            assert!(waiter.join().unwrap().is_none());
        });
    });
}
