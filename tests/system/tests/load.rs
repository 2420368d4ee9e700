//! Producers and workers all at once: every task is done once, and no two have it at a time.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_system_tests::{Client, on_every_provider};
use serde_json::{Value, json};

const TASKS: usize = 2_000;
const PRODUCERS: usize = 4;
const WORKERS: usize = 8;
const BATCH: usize = 25;
/// No run takes this long, but for one that lost a task.
const LIMIT: Duration = Duration::from_secs(120);

/// What producers and workers know of the tasks.
#[derive(Default)]
struct Ledger {
    created: Mutex<BTreeSet<String>>,
    /// Who has a task, from the answer to the claim to the request that gives it back.
    held: Mutex<BTreeMap<String, usize>>,
    completed: Mutex<BTreeSet<String>>,
    done: AtomicUsize,
}

impl Ledger {
    fn take(&self, id: &str, worker: usize) {
        let other = self.held.lock().unwrap().insert(id.to_owned(), worker);
        assert_eq!(other, None, "{id} went to {worker} as well");
        assert!(!self.completed.lock().unwrap().contains(id), "{id} was completed before");
    }

    fn give_back(&self, id: &str) {
        self.held.lock().unwrap().remove(id);
    }

    fn complete(&self, id: &str) {
        assert!(self.completed.lock().unwrap().insert(id.to_owned()), "{id} twice");
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

fn produce(client: &Client, ledger: &Ledger) {
    let task = |n: usize| json!({ "command": "load", "payload": n, "priority": n % 10, "maxAttempts": 1000 });
    for round in 0..TASKS / PRODUCERS / BATCH {
        let ids: Vec<String> = if round % 2 == 0 {
            let created = (0..BATCH).map(|n| client.create_with(task(n)));
            created.map(|task| task["id"].as_str().unwrap().to_owned()).collect()
        } else {
            let tasks: Vec<Value> = (0..BATCH).map(task).collect();
            let answer = client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
            let results = answer["results"].as_array().unwrap().iter();
            results.map(|result| result["task"]["id"].as_str().unwrap().to_owned()).collect()
        };
        ledger.created.lock().unwrap().extend(ids);
    }
}

fn work(client: &Client, ledger: &Ledger, worker: usize) {
    let deadline = Clock::now() + LIMIT;
    let mut turn = worker;
    while ledger.done.load(Ordering::Relaxed) < TASKS {
        assert!(Clock::now() < deadline, "{} are done", ledger.done.load(Ordering::Relaxed));
        let body = json!({ "commands": ["load"], "count": 1 + turn % 10, "waitSeconds": 1 });
        let answer = client.post("/tasks/claim/batch", body);
        if answer.status == 204 {
            turn += 1;
            continue;
        }
        for task in answer.expect(200)["tasks"].as_array().unwrap() {
            let id = task["id"].as_str().unwrap();
            ledger.take(id, worker);
            // Ids are random.
            turn += usize::from(id.as_bytes()[0]) + 1;
            let path = |action: &str| format!("/tasks/{id}/{action}");
            match turn % 10 {
                0 => {
                    ledger.give_back(id);
                    client.post(&path("abandon"), json!({})).expect(200);
                }
                1 => {
                    ledger.give_back(id);
                    client.post(&path("nack"), json!({ "delaySeconds": 0 })).expect(200);
                }
                2 => {
                    ledger.give_back(id);
                    client.post(&path("nack"), json!({ "delaySeconds": 0.05 })).expect(200);
                }
                beat => {
                    if beat == 3 {
                        client.post(&path("heartbeat"), json!({})).expect(200);
                    }
                    client.complete(id).expect(200);
                    ledger.complete(id);
                    ledger.give_back(id);
                }
            }
        }
    }
}

#[test]
fn every_task_is_done_once_and_nobody_has_it_meanwhile() {
    on_every_provider(|host, client| {
        let ledger = Ledger::default();
        thread::scope(|scope| {
            for _ in 0..PRODUCERS {
                scope.spawn(|| produce(&host.client(), &ledger));
            }
            for worker in 0..WORKERS {
                let ledger = &ledger;
                scope.spawn(move || work(&host.client(), ledger, worker));
            }
        });
        let completed = ledger.completed.into_inner().unwrap();
        assert_eq!(completed.len(), TASKS);
        assert_eq!(completed, ledger.created.into_inner().unwrap());
        assert_eq!(client.counts("load"), [0; 4]);
        assert!(client.claim("load").is_none());
        for id in completed.iter().step_by(100) {
            let done = client.get(&format!("/tasks/{id}/result")).expect(200);
            assert_eq!(done["task"]["status"], "COMPLETED");
        }
    });
}
