//! Whole queues at a time, in batches.

use std::time::{Duration, Instant};

use codeq_host::Store;
use codeq_plugin::{Batch, Boxed, Cleanup, Instant as Moment, Millis, Optional, Queue, Task};

use crate::requests::{self, COMMAND, TENANT};

/// Tasks in one call.
pub(super) const STEP: usize = 1000;

/// Adds tasks that are ready.
pub(super) async fn fill(store: &Store, tasks: usize) {
    let before = ready(store).await;
    let mut left = tasks;
    while left > 0 {
        let step = left.min(STEP);
        let batch: Batch<_> = (0..step).map(|_| requests::enqueue()).collect();
        store.enqueue(batch).await.unwrap().into_iter().for_each(|outcome| drop(outcome.unwrap()));
        left -= step;
    }
    assert_eq!(ready(store).await, before + tasks as u64);
}

async fn ready(store: &Store) -> u64 {
    let queue = Queue { tenant_id: TENANT.into(), command: COMMAND.into() };
    store.queue_length(queue).await.unwrap()
}

/// Claims and completes whatever is ready; answers how many.
pub(super) async fn finish_all(store: &Store) -> usize {
    let mut finished = 0;
    loop {
        let tasks = store.claim(requests::claim(STEP as u32)).await.unwrap().tasks;
        if tasks.is_empty() {
            return finished;
        }
        finished += tasks.len();
        let batch = tasks.map(requests::complete);
        store.complete(batch).await.unwrap().into_iter().for_each(|outcome| drop(outcome.unwrap()));
    }
}

/// Takes claimed tasks back, so that there are as many as before.
pub(super) async fn give_back(store: &Store, tasks: Vec<Boxed<Task>>) {
    let mut leases = tasks.into_iter().map(requests::lease);
    loop {
        let batch: Batch<_> = leases.by_ref().take(STEP).collect();
        if batch.is_empty() {
            return;
        }
        let outcomes = store.abandon_lease(batch).await.unwrap();
        outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    }
}

/// Removes everything, as retention would one day; answers how many, and how long the longest call
/// took.
pub(super) async fn remove_all(store: &Store) -> (usize, Duration) {
    let (mut removed, mut longest) = (0, Duration::ZERO);
    loop {
        let cleanup = Cleanup {
            tenant_id: Optional::RNone,
            before: Moment::now() + Millis(Millis::DAY.0 * 365),
            limit: STEP as u32,
            ..Cleanup::default()
        };
        let begin = Instant::now();
        let step = store.cleanup_expired(cleanup).await.unwrap();
        if step == 0 {
            return (removed, longest);
        }
        longest = longest.max(begin.elapsed());
        removed += step as usize;
    }
}
