//! What an operation costs: one round trip, and no more work on a full store than on an empty one.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use codeq_plugin::TaskStatus;
use codeq_plugin::{
    AsyncResultStorage, AsyncTaskStorage, Claim, Complete, Enqueue, Instant, Millis, Task,
};
use codeq_redis::Redis;
use support::*;

/// How often the server ran each command so far, those inside scripts included.
fn calls(server: &Server, only: &str) -> u64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut server.redis()).unwrap();
    info.lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
        .filter(|(command, _)| command.starts_with(only) && !command.contains("info"))
        .filter_map(|(_, rest)| rest.split(',').next()?.parse::<u64>().ok())
        .sum()
}

async fn enqueue_many(store: &Redis, prefix: &str, count: usize) {
    let batch = (0..count).map(|n| Enqueue::now(task(&format!("{prefix}{n}")))).collect();
    store.enqueue(batch).await.unwrap();
}

async fn complete_all(store: &Redis, taken: &[String]) {
    let complete =
        |id: &String| Complete { lease: lease(id, 1), result: outcome(id, TaskStatus::Completed) };
    let answers = store.complete(taken.iter().map(complete).collect()).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_whole_batch_is_one_round_trip() {
    let server = Server::start();
    let store = server.store().await;
    enqueue_many(&store, "first", 1).await;
    complete_all(&store, &store.take_ids(1).await).await;
    let before = calls(&server, "evalsha");
    enqueue_many(&store, "t", 100).await;
    let taken = store.take_ids(100).await;
    assert_eq!(taken.len(), 100);
    complete_all(&store, &taken).await;
    assert_eq!(calls(&server, "evalsha") - before, 3);
}

#[tokio::test]
async fn a_cycle_costs_the_same_however_much_is_stored() {
    let server = Server::start();
    let store = server.store().await;
    let cycle = async |id: &str| {
        let before = calls(&server, "");
        store.put(with_priority(id, 9)).await;
        assert_eq!(store.take_ids(1).await, [id]);
        complete_all(&store, &[id.to_owned()]).await;
        calls(&server, "") - before
    };
    enqueue_many(&store, "first", 10).await;
    store.take_ids(1).await;
    cycle("warm").await;
    let few = cycle("few").await;

    enqueue_many(&store, "ready", 3_000).await;
    for _ in 0..2 {
        store.take_ids(1_000).await;
    }
    let later = Instant::now() + Millis::DAY;
    let batch = (0..1_000).map(|n| delayed(task(&format!("d{n}")), later)).collect();
    store.enqueue(batch).await.unwrap();
    let others = (0..500).map(|n| {
        Enqueue::now(Task { command: format!("C{n}").as_str().into(), ..task(&format!("o{n}")) })
    });
    store.enqueue(others.collect()).await.unwrap();
    // Now and then a claim searches a part of what is in progress for leases of codeQ's.
    let many = cycle("many").await.min(cycle("more").await);
    assert!(many <= few, "{few} calls among few tasks, {many} among many");
}

#[tokio::test]
async fn a_claim_on_an_empty_queue_is_no_dearer_than_on_a_full_one() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    let count = async |claim: Claim| {
        let before = calls(&server, "");
        store.take(claim).await;
        calls(&server, "") - before
    };
    let full = count(ask(1)).await;
    let empty = count(ask(1)).await;
    let empty_of_any = count(ask_any(1)).await;
    assert!(empty <= full + 4 && empty_of_any <= full, "{full}, {empty}, {empty_of_any}");
}
