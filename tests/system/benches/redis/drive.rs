//! Clients that push tasks through a store, each with one call at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use codeq_host::Store;
use codeq_plugin::{Batch, Complete, Enqueue, Text};

use crate::{
    requests,
    server::{Cost, Server},
};

/// Who asks, and for how much at once.
#[derive(Clone, Copy)]
pub(crate) struct Clients {
    pub(crate) count: usize,
    pub(crate) batch: usize,
}

/// What producers ask for.
#[derive(Clone, Copy)]
pub(crate) enum Idempotency {
    None,
    Keys,
}

/// Enqueues so many tasks of all priorities.
pub(crate) async fn enqueue(
    server: &Server,
    store: &Store,
    clients: Clients,
    tasks: usize,
    idempotency: Idempotency,
) -> Cost {
    let left = Arc::new(AtomicUsize::new(tasks));
    let begin = server.mark();
    each(clients, || producer(store.clone(), Arc::clone(&left), clients.batch, idempotency)).await;
    server.since(&begin, tasks)
}

/// Claims and completes whatever there is.
pub(crate) async fn consume(
    server: &Server,
    store: &Store,
    clients: Clients,
    tasks: usize,
) -> Cost {
    let done = Arc::new(AtomicUsize::new(0));
    let begin = server.mark();
    each(clients, || consumer(store.clone(), Arc::clone(&done), clients.batch)).await;
    assert_eq!(done.load(Ordering::Relaxed), tasks, "every task was done once");
    server.since(&begin, tasks)
}

async fn each<F: Future<Output = ()> + Send + 'static>(clients: Clients, client: impl Fn() -> F) {
    let running: Vec<_> = (0..clients.count).map(|_| tokio::spawn(client())).collect();
    for client in running {
        client.await.unwrap();
    }
}

async fn producer(store: Store, left: Arc<AtomicUsize>, batch: usize, idempotency: Idempotency) {
    loop {
        let take = |left: usize| left.checked_sub(batch.min(left)).filter(|_| left > 0);
        let Ok(left) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
            return;
        };
        let tasks: Batch<Enqueue> =
            (0..batch.min(left)).map(|n| request(left - n, idempotency)).collect();
        for answer in store.enqueue(tasks).await.unwrap() {
            assert!(answer.unwrap().created);
        }
    }
}

fn request(number: usize, idempotency: Idempotency) -> Enqueue {
    let mut enqueue = requests::enqueue();
    enqueue.task.priority = u8::try_from(number % 10).unwrap();
    if let Idempotency::Keys = idempotency {
        enqueue.idempotency_key = Text::from(format!("order-{number}").as_str());
    }
    enqueue
}

async fn consumer(store: Store, done: Arc<AtomicUsize>, batch: usize) {
    loop {
        let claimed = store.claim(requests::claim(u32::try_from(batch).unwrap())).await.unwrap();
        if claimed.tasks.is_empty() {
            return;
        }
        let results: Batch<Complete> = claimed.tasks.into_iter().map(requests::complete).collect();
        done.fetch_add(results.len(), Ordering::Relaxed);
        for answer in store.complete(results).await.unwrap() {
            answer.unwrap();
        }
    }
}
