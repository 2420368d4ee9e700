//! A store in the test's own process, as a program opens it that embeds a queue.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::Path;

use codeq_host::{
    Store, StoreError,
    plugins::{OpenError, OpenOptions, Plugins},
};
use codeq_plugin::{Batch, Boxed, Claim, Enqueue, Lease, Millis, Nack, Returned, Task, Text};
use serde_json::Value;

const TENANT: &str = "acme";
const COMMAND: &str = "render";
const WORKER: &str = "worker";

/// The plugins of one directory.
pub(crate) fn plugins_in(dir: &Path) -> Plugins {
    Plugins::discover(&[dir.to_owned()])
}

/// Opens a store with a plugin of one directory.
pub(crate) async fn open(dir: &Path, name: &str, config: Value) -> Result<Store, OpenError> {
    plugins_in(dir).open(name, &config, &OpenOptions::default()).await
}

/// Puts a task into the queue.
pub(crate) async fn enqueue(store: &Store, id: &str) -> Result<(), StoreError> {
    let task = Task {
        id: id.into(),
        command: COMMAND.into(),
        tenant_id: TENANT.into(),
        payload: "{}".into(),
        ..Task::default()
    };
    store.enqueue(Batch::One(Enqueue::now(task))).await.map(only).map(drop)
}

/// Claims a task, if there is one.
pub(crate) async fn claim(store: &Store) -> Result<Option<Boxed<Task>>, StoreError> {
    let claim = Claim {
        worker_id: WORKER.into(),
        tenant_id: TENANT.into(),
        commands: [Text::from(COMMAND)].into_iter().collect(),
        max: 1,
        lease: Millis::DAY,
        ..Claim::default()
    };
    Ok(store.claim(claim).await?.tasks.into_only())
}

/// Gives a claimed task back as failed.
pub(crate) async fn nack(store: &Store, id: &str) -> Returned {
    let lease = Lease {
        task_id: id.into(),
        worker_id: WORKER.into(),
        tenant_id: TENANT.into(),
        ..Lease::default()
    };
    only(store.nack(Batch::One(Nack { lease, ..Nack::default() })).await.unwrap())
}

/// What a store has to do to count as one: take a task and hand it out again.
pub(crate) async fn assert_works(store: &Store) {
    enqueue(store, "proof").await.unwrap();
    assert_eq!(claim(store).await.unwrap().unwrap().id, "proof");
}

fn only<T>(answers: Batch<codeq_plugin::Outcome<T>>) -> T {
    answers.into_only().expect("one answer to one item").unwrap()
}
