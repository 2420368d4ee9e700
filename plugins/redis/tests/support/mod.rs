//! A real server of its own for each test file's tests, and short words for what they do with it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

pub mod traffic;

use std::time::Duration;

use codeq_plugin::{
    AsyncPersistence, AsyncResultStorage, AsyncTaskStorage, Boxed, Claim, Claimed, Complete,
    Completed, Context, Enqueue, Enqueued, Error, Extensions, Instant, Lease, Millis, Nack, Queue,
    QueueStats, Result, Returned, Task, TaskResult, TaskStatus,
    log::LogSink,
    rules::{Backoff, BackoffPolicy, Rules},
};
use codeq_redis::{Config, Redis};

/// A redis-server that ends with its test, whether that passes or not.
pub struct Server(codeq_test_servers::Redis);

impl Server {
    pub fn start() -> Server {
        Server::with(&[])
    }

    pub fn with(options: &[&str]) -> Server {
        let all: Vec<&str> =
            ["--save", "", "--appendonly", "no"].iter().chain(options).copied().collect();
        Server(codeq_test_servers::Redis::start_with(&all))
    }

    /// Starts a server on the same port again, empty.
    pub fn restart(&mut self) {
        self.0.restart();
    }

    pub fn kill(&mut self) {
        self.0.kill();
    }

    pub fn hang(&self) {
        self.0.hang();
    }

    pub fn go_on(&self) {
        self.0.resume();
    }

    pub fn addr(&self) -> String {
        self.0.addr()
    }

    /// A plain connection, for looking at keys and for playing codeQ.
    pub fn redis(&self) -> redis::Connection {
        redis::Client::open(format!("redis://{}/", self.addr())).unwrap().get_connection().unwrap()
    }

    pub fn config(&self) -> Config {
        Config { addr: self.addr(), ..Config::default() }
    }

    pub async fn store(&self) -> Redis {
        self.store_with(rules()).await
    }

    pub async fn store_with(&self, rules: Rules) -> Redis {
        Redis::open(self.config(), context(rules)).await.unwrap()
    }
}

/// Rules under which a retry waits for nothing, so that tests need not.
pub fn rules() -> Rules {
    Rules {
        backoff: Backoff {
            policy: BackoffPolicy::Fixed,
            base: Millis(0),
            max: Millis::from_secs(900),
        },
        ..Rules::default()
    }
}

pub fn context(rules: Rules) -> Context {
    Context {
        provider: "redis".into(),
        rules,
        timezone: "America/Sao_Paulo".into(),
        repair_limit: 200,
        log: LogSink::none(),
        extensions: Extensions::new(),
    }
}

pub fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        command: "MAIL".into(),
        payload: r#"{"to":"x"}"#.into(),
        tenant_id: "a".into(),
        ..Task::default()
    }
}

pub fn with_priority(id: &str, priority: u8) -> Task {
    Task { priority, ..task(id) }
}

pub fn delayed(task: Task, visible_at: Instant) -> Enqueue {
    Enqueue { visible_at, ..Enqueue::now(task) }
}

pub fn keyed(task: Task, key: &str) -> Enqueue {
    Enqueue { idempotency_key: key.into(), ..Enqueue::now(task) }
}

pub fn ask(max: u32) -> Claim {
    Claim {
        worker_id: "w".into(),
        tenant_id: "a".into(),
        commands: ["mail".into()].into_iter().collect(),
        max,
        lease: Millis::from_secs(60),
        ..Claim::default()
    }
}

pub fn ask_any(max: u32) -> Claim {
    Claim { commands: Vec::new().into(), ..ask(max) }
}

pub fn lease(id: &str, attempt: u32) -> Lease {
    Lease {
        task_id: id.into(),
        worker_id: "w".into(),
        tenant_id: "a".into(),
        attempt,
        ..Lease::default()
    }
}

pub fn outcome(id: &str, status: TaskStatus) -> Boxed<TaskResult> {
    Boxed::new(TaskResult {
        task_id: id.into(),
        status,
        result: r#"{"ok":true}"#.into(),
        completed_at: Instant(1_700_000_000_123),
        ..TaskResult::default()
    })
}

pub fn queue() -> Queue {
    Queue { tenant_id: "a".into(), command: "Mail".into() }
}

/// The single forms of the batched operations.
#[allow(async_fn_in_trait)]
pub trait One {
    async fn put(&self, task: Task) -> Enqueued;
    async fn put_as(&self, enqueue: Enqueue) -> Result<Enqueued>;
    async fn take(&self, claim: Claim) -> Vec<Boxed<Task>>;
    async fn take_ids(&self, max: u32) -> Vec<String>;
    async fn one(&self, id: &str) -> Result<Boxed<Task>>;
    async fn fail(&self, lease: Lease, reason: &str) -> Result<Returned>;
    async fn fail_for(&self, lease: Lease, delay: i64) -> Result<Returned>;
    async fn hand_back(&self, lease: Lease) -> Result<Returned>;
    async fn finish(&self, lease: Lease) -> Result<Completed>;
    async fn stats(&self) -> [u64; 4];
}

impl One for Redis {
    async fn put(&self, task: Task) -> Enqueued {
        self.put_as(Enqueue::now(task)).await.unwrap()
    }
    async fn put_as(&self, enqueue: Enqueue) -> Result<Enqueued> {
        only(self.enqueue(vec![enqueue]).await)
    }
    async fn take(&self, claim: Claim) -> Vec<Boxed<Task>> {
        self.claim(claim).await.unwrap().tasks.into_iter().collect()
    }
    async fn take_ids(&self, max: u32) -> Vec<String> {
        ids(&self.claim(ask(max)).await.unwrap())
    }
    async fn one(&self, id: &str) -> Result<Boxed<Task>> {
        only(self.get(vec![id.into()]).await)
    }
    async fn fail(&self, lease: Lease, reason: &str) -> Result<Returned> {
        let nack = Nack { lease, reason: reason.into(), delay: None.into() };
        only(self.nack(vec![nack]).await)
    }
    async fn fail_for(&self, lease: Lease, delay: i64) -> Result<Returned> {
        let nack = Nack { lease, reason: "".into(), delay: Some(Millis(delay)).into() };
        only(self.nack(vec![nack]).await)
    }
    async fn hand_back(&self, lease: Lease) -> Result<Returned> {
        only(self.abandon_lease(vec![lease]).await)
    }
    async fn finish(&self, lease: Lease) -> Result<Completed> {
        let result = outcome(&lease.task_id, TaskStatus::Completed);
        only(self.complete(vec![Complete { lease, result }]).await)
    }
    async fn stats(&self) -> [u64; 4] {
        let QueueStats { ready, delayed, in_progress, dlq, .. } =
            self.queue_stats(queue()).await.unwrap();
        [ready, delayed, in_progress, dlq]
    }
}

pub fn only<T>(answers: Result<Vec<Result<T>>, Error>) -> Result<T> {
    let mut answers = answers?;
    assert_eq!(answers.len(), 1);
    answers.pop().unwrap()
}

pub fn ids(claimed: &Claimed) -> Vec<String> {
    claimed.tasks.iter().map(|task| task.id.to_string()).collect()
}

/// Waits until the clock shows `at`.
pub async fn until(at: Instant) {
    while Instant::now() < at {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
