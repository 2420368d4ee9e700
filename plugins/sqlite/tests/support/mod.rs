//! A store in a directory of its own, and short words for what the tests do with it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::path::{Path, PathBuf};

use codeq_plugin::{
    AsyncPersistence, AsyncResultStorage, AsyncTaskStorage, Boxed, Claim, Cleanup, Complete,
    Completed, Context, Enqueue, Enqueued, Error, Extensions, Instant, Lease, Millis, Queue,
    QueueStats, Result, Task, TaskResult, TaskStatus,
    log::LogSink,
    rules::{Backoff, BackoffPolicy, Rules},
};
use codeq_sqlite::{Config, Sqlite};
use tempfile::TempDir;

/// A directory for a file, gone with its test.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(TempDir::new().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.path().join("codeq.db")
    }

    pub fn config(&self) -> Config {
        // A program that another test starts has this one's files open for a moment.
        Config { path: self.file(), open_timeout_ms: 300, ..Config::default() }
    }

    pub async fn open(&self) -> Sqlite {
        open(self.config()).await.unwrap()
    }

    /// Why a store with this file cannot be opened.
    pub async fn refusal(&self) -> Error {
        open(self.config()).await.err().expect("a refusal")
    }

    /// What the sqlite3 shell says.
    pub fn shell(&self, sql: &str) -> String {
        let output = std::process::Command::new("sqlite3")
            .arg(self.file())
            .arg(sql)
            .output()
            .expect("the sqlite3 shell; install it: apt-get install sqlite3");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {said}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

pub async fn open(config: Config) -> Result<Sqlite> {
    Sqlite::open(config, context()).await
}

/// What a host tells: a retry waits for nothing, so that tests need not.
pub fn context() -> Context {
    let backoff = Backoff { policy: BackoffPolicy::Fixed, base: Millis(0), max: Millis(900_000) };
    Context {
        provider: "sqlite".into(),
        rules: Rules { backoff, ..Rules::default() },
        timezone: "UTC".into(),
        repair_limit: 200,
        log: LogSink::none(),
        extensions: Extensions::new(),
    }
}

pub fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        command: "render".into(),
        payload: "{}".into(),
        tenant_id: "acme".into(),
        ..Task::default()
    }
}

pub async fn enqueue(store: &Sqlite, task: Task) -> Result<Enqueued> {
    one(store.enqueue(vec![Enqueue::now(task)]).await)
}

/// Enqueues many small tasks whose ids begin with `prefix`.
pub async fn fill(store: &Sqlite, prefix: &str, count: usize) {
    let ids: Vec<_> = (0..count).map(|n| format!("{prefix}{n}")).collect();
    for ids in ids.chunks(1000) {
        let batch = ids.iter().map(|id| Enqueue::now(task(id))).collect();
        for answer in store.enqueue(batch).await.unwrap() {
            answer.unwrap();
        }
    }
}

/// The ids of the tasks that a worker gets.
pub async fn claim(store: &Sqlite, max: u32) -> Vec<String> {
    let claim = Claim {
        worker_id: "w".into(),
        tenant_id: "acme".into(),
        max,
        lease: Millis(60_000),
        ..Claim::default()
    };
    let claimed = store.claim(claim).await.unwrap();
    claimed.tasks.iter().map(|task| task.id.to_string()).collect()
}

pub async fn complete(store: &Sqlite, id: &str) -> Result<Completed> {
    let lease = Lease {
        task_id: id.into(),
        worker_id: "w".into(),
        tenant_id: "acme".into(),
        ..Lease::default()
    };
    let result = TaskResult {
        task_id: id.into(),
        status: TaskStatus::Completed,
        result: r#"{"pages":7}"#.into(),
        completed_at: Instant::now(),
        ..TaskResult::default()
    };
    one(store.complete(vec![Complete { lease, result: Boxed::new(result) }]).await)
}

pub async fn get(store: &Sqlite, id: &str) -> Result<Boxed<Task>> {
    one(store.get(vec![id.into()]).await)
}

pub async fn stats(store: &Sqlite) -> QueueStats {
    let queue = Queue { tenant_id: "acme".into(), command: "render".into() };
    store.queue_stats(queue).await.unwrap()
}

/// Removes everything, as if all retention had ended.
pub async fn clean(store: &Sqlite, limit: u32) -> u32 {
    let before = Instant(i64::MAX);
    store.cleanup_expired(Cleanup { before, limit, ..Cleanup::default() }).await.unwrap()
}

fn one<T>(answers: Result<Vec<Result<T>>>) -> Result<T> {
    answers?.pop().expect("an answer")
}
