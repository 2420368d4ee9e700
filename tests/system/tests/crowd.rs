//! Two thousand waiting workers, two hundred working ones and two hundred producers on one host.
//!
//! `cargo test --release -p codeq-system-tests --test crowd -- --nocapture` shows how long requests
//! took and what the host kept in memory.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant as Clock},
};

use codeq_system_tests::{PROVIDERS, Setup, many, open_files};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const WAITING: usize = 2_000;
const PRODUCERS: usize = 200;
const WORKERS: usize = 200;
const TASKS: usize = 10;
const ROUNDS: usize = 3;
/// No request takes this long on a host that is well.
const LIMIT: Duration = Duration::from_secs(120);
/// What a host may keep from one round to the next: records for the day that they are kept, and what
/// its allocator holds on to.
const GROWTH: u64 = 24 << 20;

/// What everybody calls, and how long it took.
#[derive(Clone)]
struct Api {
    client: Client,
    base: Arc<str>,
    took: Arc<Mutex<Vec<Duration>>>,
}

impl Api {
    fn new(host: &str) -> Api {
        let client = many().timeout(LIMIT).pool_max_idle_per_host(usize::MAX);
        let base = format!("http://{host}/v1/codeq").into();
        Api { client: client.build().unwrap(), base, took: Arc::default() }
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.base)).json(&body);
        let begin = Clock::now();
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let answer = response.bytes().await.unwrap();
        if body.get("waitSeconds").is_none() {
            self.took.lock().unwrap().push(begin.elapsed());
        }
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    async fn create(&self, command: &str) -> String {
        let (status, task) = self.post("/tasks", json!({ "command": command, "payload": 1 })).await;
        assert_eq!(status, 202, "{task}");
        task["id"].as_str().unwrap().to_owned()
    }

    async fn claim(&self, command: &str, wait: u64) -> Option<String> {
        let claim = json!({ "commands": [command], "waitSeconds": wait });
        let (status, task) = self.post("/tasks/claim", claim).await;
        assert!(status == 200 || status == 204, "{status} {task}");
        task["id"].as_str().map(ToOwned::to_owned)
    }

    async fn complete(&self, id: &str) {
        let result = json!({ "status": "COMPLETED", "result": {} });
        let (status, answer) = self.post(&format!("/tasks/{id}/result"), result).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// The middle, the 99th of a hundred, and the longest.
    fn quantiles(&self) -> [Duration; 3] {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort_unstable();
        [took.len() / 2, took.len() * 99 / 100, took.len() - 1].map(|index| took[index])
    }
}

/// Ids that must not come twice.
type Ids = Arc<Mutex<BTreeSet<String>>>;

fn once(ids: &Ids, id: String) {
    assert!(!ids.lock().unwrap().contains(&id), "{id} went to two workers");
    ids.lock().unwrap().insert(id);
}

async fn round(api: &Api) {
    let (created, done) = (Ids::default(), Ids::default());
    let mut everybody = JoinSet::new();
    for _ in 0..PRODUCERS {
        let (api, created) = (api.clone(), Arc::clone(&created));
        everybody.spawn(async move {
            for _ in 0..TASKS {
                let id = api.create("crowd").await;
                once(&created, id);
            }
        });
    }
    let left = Arc::new(AtomicUsize::new(PRODUCERS * TASKS));
    for _ in 0..WORKERS {
        let (api, done, left) = (api.clone(), Arc::clone(&done), Arc::clone(&left));
        everybody.spawn(async move {
            while left.load(Ordering::Relaxed) > 0 {
                let Some(id) = api.claim("crowd", 1).await else { continue };
                once(&done, id.clone());
                api.complete(&id).await;
                left.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = everybody.join_next().await {
        ended.unwrap();
    }
    assert_eq!(*created.lock().unwrap(), *done.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_loses_no_task_and_gets_none_twice_and_the_host_does_not_grow() {
    open_files(10_000);
    for provider in PROVIDERS {
        let setup = Setup::start(provider, &json!({}));
        let api = Api::new(setup.host.addr());
        let got = Ids::default();
        let mut waiting = JoinSet::new();
        for _ in 0..WAITING {
            let (api, got) = (api.clone(), Arc::clone(&got));
            waiting.spawn(async move {
                let id = loop {
                    if let Some(id) = api.claim("quiet", 30).await {
                        break id;
                    }
                };
                once(&got, id.clone());
                api.complete(&id).await;
            });
        }
        let mut memory = Vec::new();
        for number in 1..=ROUNDS {
            round(&api).await;
            memory.push(setup.host.memory());
            let [middle, most, longest] = api.quantiles();
            println!(
                "{provider}, round {number}: p50 {middle:?}, p99 {most:?}, max {longest:?}; host keeps {} KiB",
                memory[number - 1] >> 10,
            );
        }
        // Those who waited all the time are still there, and each gets one.
        let mut sent = BTreeSet::new();
        for _ in 0..WAITING {
            sent.insert(api.create("quiet").await);
        }
        while let Some(ended) = waiting.join_next().await {
            ended.unwrap();
        }
        assert_eq!(*got.lock().unwrap(), sent);
        let client = setup.host.client();
        assert_eq!(client.counts("quiet"), [0; 4]);
        assert_eq!(client.counts("crowd"), [0; 4]);
        let (first, last) = (memory[0], memory[ROUNDS - 1]);
        assert!(last < first + GROWTH, "{memory:?}");
    }
}
