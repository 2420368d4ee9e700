//! Several hosts on one server.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use codeq_plugin::{AsyncTaskStorage, Claim, Enqueue, Event, Instant, Millis, Task};
use codeq_redis::Redis;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_never_own_a_task_at_the_same_time() {
    let server = Server::start();
    let stores = [Arc::new(server.store().await), Arc::new(server.store().await)];
    let batch = (0..400).map(|n| Enqueue::now(task(&n.to_string()))).collect();
    stores[0].enqueue(batch).await.unwrap();
    let workers = (0..16).map(|worker| {
        let store = Arc::clone(&stores[worker % 2]);
        tokio::spawn(async move {
            let claim = Claim { worker_id: format!("w{worker}").into(), ..ask(3) };
            let mut mine = Vec::new();
            loop {
                let tasks = store.take(claim.clone()).await;
                if tasks.is_empty() {
                    return mine;
                }
                mine.extend(tasks.into_iter().map(|task| task.id.to_string()));
            }
        })
    });
    let mut owned = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        owned.extend(worker.await.unwrap());
    }
    assert_eq!(owned.len(), 400);
    assert_eq!(owned.into_iter().collect::<BTreeSet<_>>().len(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_enqueues_with_one_idempotency_key_give_one_task() {
    let server = Server::start();
    let stores = [Arc::new(server.store().await), Arc::new(server.store().await)];
    let callers = (0..64).map(|caller| {
        let store = Arc::clone(&stores[caller % 2]);
        tokio::spawn(
            async move { store.put_as(keyed(task(&caller.to_string()), "k")).await.unwrap() },
        )
    });
    let mut created = 0;
    let mut ids = BTreeSet::new();
    for caller in callers.collect::<Vec<_>>() {
        let enqueued = caller.await.unwrap();
        created += u32::from(enqueued.created);
        ids.insert(enqueued.task.id.to_string());
    }
    assert_eq!((created, ids.len()), (1, 1));
    assert_eq!(stores[0].stats().await, [1, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_workers_do_no_id_is_lost_or_in_two_places() {
    let server = Server::start();
    let stores = [Arc::new(server.store().await), Arc::new(server.store().await)];
    const TASKS: u64 = 120;
    let workers = (0..8_u64).map(|worker| {
        let store = Arc::clone(&stores[worker as usize % 2]);
        tokio::spawn(async move {
            let mut dice = fastrand::Rng::with_seed(worker);
            for n in 0..TASKS / 8 {
                store.put(with_priority(&format!("{worker}-{n}"), dice.u8(0..10))).await;
            }
            for _ in 0..150 {
                let claim = Claim { lease: Millis(dice.i64(1..30)), ..ask(dice.u32(1..4)) };
                for task in store.take(claim).await {
                    let held = lease(&task.id, task.attempts);
                    // A lease may have run out meanwhile; then somebody else does what is due.
                    match dice.u8(0..5) {
                        0 => drop(store.finish(held).await),
                        1 => drop(store.fail(held, "").await),
                        2 => drop(store.fail_for(held, dice.i64(0..20)).await),
                        3 => drop(store.hand_back(held).await),
                        _ => {}
                    }
                }
                match dice.u8(0..3) {
                    0 => drop(store.requeue_expired(5).await.unwrap()),
                    1 => drop(store.move_due_delayed(5).await.unwrap()),
                    _ => {}
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    let store = &stores[0];
    let mut counted = BTreeMap::<_, u64>::new();
    for worker in 0..8 {
        for n in 0..TASKS / 8 {
            let task = store.one(&format!("{worker}-{n}")).await.unwrap();
            *counted.entry(task.last_known_location.as_str()).or_default() += 1;
        }
    }
    let count = |place: &str| counted.get(place).copied().unwrap_or(0);
    let places = ["PENDING_LIST", "DELAYED_ZSET", "INPROG_SET", "DLQ_SET"];
    assert_eq!(store.stats().await, places.map(count));
    assert_eq!(counted.values().sum::<u64>(), TASKS);
}

#[tokio::test]
async fn a_worker_that_waits_elsewhere_hears_of_arrivals_and_endings() {
    let server = Server::start();
    let (here, elsewhere) = (server.store().await, server.store().await);
    let listening = subscribed(&server, &elsewhere, 1);
    let events = async {
        listening.await;
        here.put(task("t")).await;
        here.take_ids(1).await;
        here.finish(lease("t", 1)).await.unwrap();
        here.put_as(delayed(task("later"), Instant::now() + Millis::DAY)).await.unwrap();
    };
    let heard = async {
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(elsewhere.next_events().await.unwrap());
        }
        heard
    };
    let (heard, ()) = tokio::join!(heard, events);
    let Event::Arrived(arrival) = &heard[0] else { panic!("{heard:?}") };
    assert_eq!((arrival.queue.command.as_str(), arrival.queue.tenant_id.as_str()), ("mail", "a"));
    assert!(arrival.awoke && arrival.count == 1);
    let Event::Finished(key) = &heard[1] else { panic!("{heard:?}") };
    assert_eq!((key.id.as_str(), key.tenant_id.as_str()), ("t", "a"));
}

#[tokio::test]
async fn a_host_does_not_hear_of_what_it_did_itself() {
    let server = Server::start();
    let (here, elsewhere) = (server.store().await, server.store().await);
    let listening = subscribed(&server, &here, 1);
    let events = async {
        listening.await;
        here.put(task("mine")).await;
        elsewhere.put(Task { command: "THEIRS".into(), ..task("theirs") }).await;
    };
    let (heard, ()) = tokio::join!(here.next_events(), events);
    let heard = heard.unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(matches!(&heard[0], Event::Arrived(arrival) if arrival.queue.command == "theirs"));
}

#[tokio::test]
async fn a_batch_is_one_message() {
    let server = Server::start();
    let (here, elsewhere) = (server.store().await, server.store().await);
    let listening = subscribed(&server, &elsewhere, 1);
    let events = async {
        listening.await;
        let batch = (0..100).map(|n| Enqueue::now(task(&n.to_string()))).collect();
        here.enqueue(batch).await.unwrap();
    };
    let (heard, ()) = tokio::join!(elsewhere.next_events(), events);
    let heard = heard.unwrap();
    assert!(matches!(&heard[..], [Event::Arrived(arrival)] if arrival.count == 100), "{heard:?}");
}

/// Waits until somebody listens for events.
fn subscribed(
    server: &Server,
    _listener: &Redis,
    listeners: u64,
) -> impl Future<Output = ()> + use<> {
    let mut redis = server.redis();
    async move {
        loop {
            let (_, count): (String, u64) =
                redis::cmd("PUBSUB").arg("NUMSUB").arg("codeq:x:events").query(&mut redis).unwrap();
            if count >= listeners {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
