//! The rules of the queue: order, delay, attempts, leases, fencing, backoff.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use codeq_plugin::{
    AsyncResultStorage, AsyncTaskStorage, Claim, Complete, Enqueue, ErrorKind, Extend, Instant,
    Location, Millis, Nack, Optional, Task, TaskKey, TaskStatus,
    rules::{Backoff, BackoffPolicy, Rules},
};
use support::*;

#[tokio::test]
async fn a_task_is_enqueued_claimed_and_completed() {
    let server = Server::start();
    let store = server.store().await;
    let enqueued = store.put(task("t")).await;
    assert!(enqueued.created && enqueued.awoke);
    assert_eq!(enqueued.task.max_attempts, 5);
    assert_eq!(enqueued.task.created_at, enqueued.task.updated_at);
    assert_eq!(*store.one("t").await.unwrap(), *enqueued.task);

    let before = Instant::now();
    let claimed = store.take(ask(1)).await;
    let task = &claimed[0];
    assert_eq!(task.status, TaskStatus::InProgress);
    assert_eq!(task.last_known_location, Location::InprogSet);
    assert_eq!((task.worker_id.as_str(), task.attempts), ("w", 1));
    assert!(task.lease_until.unwrap().since(before) >= Millis::from_secs(60));
    assert_eq!(store.one("t").await.unwrap(), *task);
    assert_eq!(store.stats().await, [0, 0, 1, 0]);

    let task = store.finish(lease("t", 1)).await.unwrap().task;
    assert_eq!(task.status, TaskStatus::Completed);
    assert_eq!(task.last_known_location, Location::None);
    assert_eq!(task.result_key, "codeq:results");
    assert!(task.worker_id.is_empty() && task.lease_until.is_none());
    assert_eq!(store.one("t").await.unwrap(), task);
    assert_eq!(store.stats().await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn only_the_first_claimable_task_awakes_its_queue() {
    let server = Server::start();
    let store = server.store().await;
    let batch = vec![Enqueue::now(task("1")), Enqueue::now(task("2"))];
    let awoke: Vec<bool> =
        store.enqueue(batch).await.unwrap().into_iter().map(|one| one.unwrap().awoke).collect();
    assert_eq!(awoke, [true, false]);
    assert!(!store.put(task("3")).await.awoke);
    store.take_ids(9).await;
    assert!(store.put(task("4")).await.awoke);
}

#[tokio::test]
async fn the_highest_priority_comes_first_and_within_it_the_oldest() {
    let server = Server::start();
    let store = server.store().await;
    for (id, priority) in [("a", 0), ("b", 9), ("c", 5), ("d", 9), ("e", 200), ("f", 0)] {
        store.put(with_priority(id, priority)).await;
    }
    assert_eq!(store.take_ids(9).await, ["b", "d", "e", "c", "a", "f"]);
}

#[tokio::test]
async fn commands_are_served_in_the_order_named_whatever_their_case() {
    let server = Server::start();
    let store = server.store().await;
    for (id, command) in [("1", "Mail"), ("2", "SMS"), ("3", "ÉMAIL")] {
        store.put(Task { command: command.into(), ..task(id) }).await;
    }
    let commands = ["émail", "sms", "nothing", "MAIL"].map(Into::into).into_iter().collect();
    let claimed = store.take(Claim { commands, ..ask(9) }).await;
    let ids: Vec<_> = claimed.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["3", "2", "1"]);
    assert_eq!(claimed[0].command, "ÉMAIL");
    store.finish(lease("3", 1)).await.unwrap();
}

#[tokio::test]
async fn a_claim_of_any_command_is_served_from_every_queue_of_the_tenant_in_turn() {
    let server = Server::start();
    let store = server.store().await;
    for (id, command) in [("a1", "A"), ("a2", "A"), ("a3", "A"), ("b1", "B")] {
        store.put(Task { command: command.into(), ..task(id) }).await;
    }
    store.put(Task { tenant_id: "other".into(), ..task("x") }).await;
    let mut ids: Vec<_> = store.take(ask_any(2)).await.iter().map(|task| task.id.clone()).collect();
    ids.sort();
    assert_eq!(ids, ["a1", "b1"]);
    assert_eq!(store.take(ask_any(9)).await.len(), 2);
    assert!(store.take(ask_any(9)).await.is_empty());
}

#[tokio::test]
async fn a_claim_of_any_command_finds_what_came_due_or_expired() {
    let server = Server::start();
    let store = server.store().await;
    let visible_at = Instant::now() + Millis(40);
    store.put_as(delayed(task("d"), visible_at)).await.unwrap();
    store.put(Task { command: "B".into(), ..task("e") }).await;
    let taken = store.take(Claim { lease: Millis(40), ..ask_any(1) }).await;
    assert_eq!(taken[0].id, "e");
    until(visible_at.max(taken[0].lease_until.unwrap()) + Millis(2)).await;
    let claimed = store.claim(ask_any(9)).await.unwrap();
    assert_eq!(claimed.tasks.len(), 2);
    assert_eq!(
        (claimed.moved.as_ref().unwrap().count, claimed.moved.as_ref().unwrap().expired[0].count),
        (2, 1)
    );
}

#[tokio::test]
async fn a_delayed_task_is_claimable_at_its_millisecond_and_not_before() {
    let server = Server::start();
    let store = server.store().await;
    for round in 0..5 {
        let id = round.to_string();
        let visible_at = Instant::now() + Millis(60 + round);
        let enqueued = store.put_as(delayed(task(&id), visible_at)).await.unwrap();
        assert_eq!(enqueued.task.last_known_location, Location::DelayedZset);
        assert!(!enqueued.awoke);
        assert_eq!(store.stats().await, [0, 1, round as u64, 0]);
        loop {
            let begun = Instant::now();
            let claimed = store.claim(ask(1)).await.unwrap();
            if let Some(task) = claimed.tasks.iter().next() {
                assert!(Instant::now() >= visible_at, "claimed early");
                assert_eq!(
                    (task.id.as_str(), claimed.moved.as_ref().unwrap().count),
                    (id.as_str(), 1)
                );
                assert!(claimed.moved.as_ref().unwrap().arrivals[0].awoke);
                break;
            }
            assert!(begun <= visible_at, "not claimable after its time");
        }
    }
}

#[tokio::test]
async fn due_tasks_of_all_queues_are_moved_and_the_next_one_is_announced() {
    let server = Server::start();
    let store = server.store().await;
    let now = Instant::now();
    let later = now + Millis::from_secs(60);
    for (id, tenant, at) in
        [("1", "a", now + Millis(400)), ("2", "b", now + Millis(300)), ("3", "c", later)]
    {
        let task = Task { tenant_id: tenant.into(), ..task(id) };
        store.put_as(delayed(task, at)).await.unwrap();
    }
    until(now + Millis(402)).await;
    let moved = store.move_due_delayed(1).await.unwrap();
    assert_eq!((moved.count, moved.arrivals[0].queue.tenant_id.as_str()), (1, "b"));
    let moved = store.move_due_delayed(10).await.unwrap();
    assert_eq!((moved.count, moved.next.into_option()), (1, Some(later)));
    assert_eq!(store.move_due_delayed(10).await.unwrap().count, 0);
    assert_eq!(store.stats().await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn a_lease_is_kept_to_its_millisecond_and_then_taken_back_as_a_failure() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    let first = store.take(Claim { lease: Millis(80), ..ask(1) }).await;
    let deadline = first[0].lease_until.unwrap();
    loop {
        let begun = Instant::now();
        let claimed = store.claim(ask(1)).await.unwrap();
        if let Some(task) = claimed.tasks.iter().next() {
            assert!(Instant::now() >= deadline, "taken early");
            assert_eq!((task.attempts, task.error.as_str()), (2, "LEASE_EXPIRED"));
            assert_eq!(claimed.moved.as_ref().unwrap().expired[0].count, 1);
            break;
        }
        assert!(begun <= deadline + Millis(1), "not taken back after its deadline");
    }
}

#[tokio::test]
async fn expired_leases_are_taken_back_earliest_first() {
    let server = Server::start();
    let store = server.store().await;
    for (id, lease) in [("1", 30), ("2", 10), ("3", 20), ("4", 60_000)] {
        store.put(task(id)).await;
        store.take(Claim { lease: Millis(lease), ..ask(1) }).await;
    }
    until(Instant::now() + Millis(35)).await;
    assert_eq!(store.requeue_expired(2).await.unwrap().count, 2);
    let moved = store.requeue_expired(9).await.unwrap();
    assert_eq!(moved.count, 1);
    assert!(moved.next.unwrap().since(Instant::now()) > Millis::from_secs(50));
    assert_eq!(store.take_ids(9).await, ["2", "3", "1"]);
}

#[tokio::test]
async fn a_heartbeat_moves_the_deadline() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    let first = store.take(Claim { lease: Millis(40), ..ask(1) }).await;
    let extend = Extend { lease: lease("t", 1), by: Millis(900) };
    let deadline = only(store.update_lease(vec![extend]).await).unwrap();
    assert!(deadline > first[0].lease_until.unwrap() + Millis(300));
    assert_eq!(store.one("t").await.unwrap().lease_until.into_option(), Some(deadline));
    until(first[0].lease_until.unwrap() + Millis(5)).await;
    assert_eq!(store.requeue_expired(9).await.unwrap().count, 0);
    until(deadline + Millis(1)).await;
    assert_eq!(store.requeue_expired(9).await.unwrap().count, 1);
}

#[tokio::test]
async fn an_abandoned_delivery_does_not_count() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("1")).await;
    store.put(task("2")).await;
    store.take(ask(1)).await;
    let returned = store.hand_back(lease("1", 1)).await.unwrap();
    assert_eq!((returned.task.attempts, returned.awoke, returned.delay), (0, false, Millis(0)));
    assert_eq!(store.take_ids(9).await, ["2", "1"]);
    assert_eq!(store.one("1").await.unwrap().attempts, 1);
}

#[tokio::test]
async fn a_task_is_delivered_max_attempts_times_and_then_buried_with_its_reason() {
    let server = Server::start();
    let store = server.store().await;
    for (id, reason, error) in [("1", "no disk", "no disk"), ("2", "", "MAX_ATTEMPTS")] {
        store.put(Task { max_attempts: 3, ..task(id) }).await;
        for attempt in 1..=3 {
            assert_eq!(store.take_ids(1).await, [id]);
            let returned = store.fail(lease(id, attempt), reason).await.unwrap();
            assert_eq!(returned.task.status == TaskStatus::Failed, attempt == 3);
        }
        let buried = store.one(id).await.unwrap();
        assert_eq!(buried.last_known_location, Location::DlqSet);
        assert_eq!(buried.error, error);
    }
    assert!(store.take_ids(1).await.is_empty());
    assert_eq!(store.stats().await, [0, 0, 0, 2]);
}

#[tokio::test]
async fn a_lease_that_runs_out_on_the_last_attempt_buries_the_task() {
    let server = Server::start();
    let store = server.store().await;
    store.put(Task { max_attempts: 1, ..task("t") }).await;
    store.take(Claim { lease: Millis(5), ..ask(1) }).await;
    until(Instant::now() + Millis(8)).await;
    let moved = store.requeue_expired(9).await.unwrap();
    assert_eq!(moved.dead[0].error, "LEASE_EXPIRED");
    assert_eq!(moved.dead[0].status, TaskStatus::Failed);
    assert_eq!(store.stats().await, [0, 0, 0, 1]);
}

#[tokio::test]
async fn a_buried_task_gets_a_fresh_start_and_no_other_does() {
    let server = Server::start();
    let store = server.store().await;
    store.put(Task { max_attempts: 1, ..task("t") }).await;
    let key = |tenant: &str| TaskKey { id: "t".into(), tenant_id: tenant.into() };
    let refused = only(store.redrive(vec![key("a")]).await).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    store.take(ask(1)).await;
    store.fail(lease("t", 1), "x").await.unwrap();
    assert_eq!(only(store.redrive(vec![key("b")]).await).unwrap_err().kind(), ErrorKind::NotFound);
    let returned = only(store.redrive(vec![key("a")]).await).unwrap();
    assert!(returned.awoke);
    assert_eq!((returned.task.attempts, returned.task.error.as_str()), (0, ""));
    assert_eq!(store.stats().await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn only_the_worker_of_the_running_attempt_may_touch_a_task() {
    let server = Server::start();
    let store = server.store().await;
    let kind = async |lease: codeq_plugin::Lease| {
        let extend = Extend { lease: lease.clone(), by: Millis(10) };
        let kinds = [
            only(store.update_lease(vec![extend]).await).unwrap_err().kind(),
            store.hand_back(lease.clone()).await.unwrap_err().kind(),
            store.fail(lease.clone(), "").await.unwrap_err().kind(),
            store.finish(lease).await.unwrap_err().kind(),
        ];
        assert!(kinds.iter().all(|kind| *kind == kinds[0]), "{kinds:?}");
        kinds[0]
    };
    assert_eq!(kind(lease("t", 0)).await, ErrorKind::NotFound);
    store.put(task("t")).await;
    assert_eq!(kind(lease("t", 0)).await, ErrorKind::NotInProgress);
    store.take(ask(1)).await;
    store.fail_for(lease("t", 1), 0).await.unwrap();
    store.take(ask(1)).await;
    let foreign = codeq_plugin::Lease { worker_id: "v".into(), ..lease("t", 0) };
    assert_eq!(kind(foreign).await, ErrorKind::NotOwner);
    assert_eq!(kind(lease("t", 1)).await, ErrorKind::NotOwner);
    let elsewhere = codeq_plugin::Lease { tenant_id: "b".into(), ..lease("t", 2) };
    assert_eq!(kind(elsewhere).await, ErrorKind::NotFound);
    store.finish(lease("t", 2)).await.unwrap();
    assert_eq!(kind(lease("t", 2)).await, ErrorKind::NotInProgress);
}

#[tokio::test]
async fn a_worker_may_finish_late_as_long_as_nobody_took_the_task_back() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    store.take(Claim { lease: Millis(1), ..ask(1) }).await;
    until(Instant::now() + Millis(5)).await;
    store.finish(lease("t", 1)).await.unwrap();
    assert!(store.take_ids(1).await.is_empty());
    assert_eq!(store.stats().await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn a_nack_waits_as_the_policy_says_or_as_it_asks_within_the_bounds() {
    let server = Server::start();
    let waits = [
        (BackoffPolicy::Fixed, 100..=100),
        (BackoffPolicy::Linear, 200..=200),
        (BackoffPolicy::Exponential, 400..=400),
        (BackoffPolicy::ExpEqualJitter, 200..=400),
        (BackoffPolicy::ExpFullJitter, 0..=400),
    ];
    for (n, (policy, expected)) in waits.into_iter().enumerate() {
        let backoff = Backoff { policy, base: Millis(100), max: Millis(5_000) };
        let store = server.store_with(Rules { backoff, ..Rules::default() }).await;
        let command = format!("C{n}");
        store.put(Task { command: command.as_str().into(), ..task(&command) }).await;
        let claim = Claim { commands: [command.as_str().into()].into_iter().collect(), ..ask(1) };
        store.take(claim.clone()).await;
        assert_eq!(store.fail_for(lease(&command, 1), -5).await.unwrap().delay, Millis(0));
        store.take(claim.clone()).await;
        let returned = store.fail(lease(&command, 2), "").await.unwrap();
        assert!(expected.contains(&returned.delay.0), "{policy}: {}", returned.delay.0);
        if returned.delay.0 > 0 {
            assert_eq!(returned.task.last_known_location, Location::DelayedZset);
        }
        until(Instant::now() + returned.delay + Millis(2)).await;
        store.take(claim).await;
        assert_eq!(store.fail_for(lease(&command, 3), 1 << 40).await.unwrap().delay, Millis(5_000));
    }
}

#[tokio::test]
async fn jitter_differs_from_call_to_call() {
    let server = Server::start();
    let backoff = Backoff { base: Millis(100_000), max: Millis(800_000), ..Backoff::default() };
    let store = server.store_with(Rules { backoff, ..Rules::default() }).await;
    let mut delays = std::collections::BTreeSet::new();
    for id in 0..8 {
        store.put(task(&id.to_string())).await;
        store.take(ask(1)).await;
        delays.insert(store.fail(lease(&id.to_string(), 1), "").await.unwrap().delay);
    }
    assert!(delays.len() > 4, "{delays:?}");
}

#[tokio::test]
async fn tenants_see_nothing_of_each_other_even_where_their_keys_would_be_the_same() {
    let server = Server::start();
    let store = server.store().await;
    let put = async |id: &str, command: &str, tenant: &str| {
        let task = Task { command: command.into(), tenant_id: tenant.into(), ..task(id) };
        store.put(task).await
    };
    assert!(put("1", "a", "b").await.awoke);
    assert!(put("2", "a:b", "").await.awoke, "another queue, though codeQ has one key for both");
    let claim = |command: &str, tenant: &str| Claim {
        commands: [command.into()].into_iter().collect(),
        tenant_id: tenant.into(),
        ..ask(9)
    };
    let taken = store.take(claim("a:b", "")).await;
    assert_eq!(taken.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["2"]);
    assert!(store.take(claim("a", "")).await.is_empty());
    let taken = store.take(claim("a", "b")).await;
    assert_eq!(taken.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["1"]);
}

#[tokio::test]
async fn idempotency_keys_of_different_tenants_never_meet() {
    let server = Server::start();
    let store = server.store().await;
    let put = async |id: &str, tenant: &str, key: &str| {
        let task = Task { tenant_id: tenant.into(), ..task(id) };
        store.put_as(keyed(task, key)).await.unwrap()
    };
    assert!(put("1", "a", "b:c").await.created);
    assert!(put("2", "a:b", "c").await.created);
    assert!(put("3", "", "a:b:c").await.created);
    for (tenant, key, id) in [("a", "b:c", "1"), ("a:b", "c", "2")] {
        let again = put("9", tenant, key).await;
        assert!(!again.created && !again.awoke);
        assert_eq!(again.task.id, id);
    }
}

#[tokio::test]
async fn an_idempotency_key_is_free_again_when_its_task_is_gone_or_its_time_is_over() {
    let server = Server::start();
    let rules = Rules { idempotency_window: Millis(400), ..rules() };
    let store = server.store_with(rules).await;
    assert!(store.put_as(keyed(task("1"), "k")).await.unwrap().created);
    assert!(!store.put_as(keyed(task("2"), "k")).await.unwrap().created);
    only(store.delete(vec!["1".into()]).await).unwrap();
    assert!(store.put_as(keyed(task("3"), "k")).await.unwrap().created);
    until(Instant::now() + Millis(405)).await;
    assert!(store.put_as(keyed(task("4"), "k")).await.unwrap().created);
}

#[tokio::test]
async fn an_id_is_taken_once() {
    let server = Server::start();
    let store = server.store().await;
    let batch = vec![
        Enqueue::now(task("t")),
        Enqueue::now(task("t")),
        Enqueue::now(Task::default()),
        Enqueue::now(task("u")),
    ];
    let answers = store.enqueue(batch).await.unwrap();
    assert!(answers[0].is_ok() && answers[3].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(store.stats().await, [2, 0, 0, 0]);
}

#[tokio::test]
async fn extreme_times_are_kept_within_what_can_be_written() {
    let server = Server::start();
    let store = server.store().await;
    store.put_as(delayed(task("far"), Instant(i64::MAX))).await.unwrap();
    store.put(task("t")).await;
    let claimed = store.take(Claim { lease: Millis(i64::MAX), ..ask(1) }).await;
    assert_eq!(claimed.len(), 1);
    store.one("far").await.unwrap();
    store.finish(lease("t", 1)).await.unwrap();
    assert_eq!(store.stats().await, [0, 1, 0, 0]);
}

#[tokio::test]
async fn a_batch_may_be_larger_than_one_command_of_the_server_takes() {
    let server = Server::start();
    let store = server.store().await;
    let many = 6_000;
    let batch = (0..many).map(|n| keyed(with_priority(&format!("t{n}"), 5), &format!("k{n}")));
    let created = store.enqueue(batch.collect()).await.unwrap();
    assert!(created.into_iter().all(|created| created.unwrap().created));
    let mut taken = Vec::new();
    while taken.len() < many {
        taken.extend(store.take_ids(1_000).await);
    }
    let complete =
        |id: &String| Complete { lease: lease(id, 1), result: outcome(id, TaskStatus::Completed) };
    let completed = store.complete(taken.iter().map(complete).collect()).await.unwrap();
    assert!(completed.into_iter().all(|completed| completed.is_ok()));
    let stats = store.queue_stats(queue()).await.unwrap();
    assert_eq!((stats.ready, stats.in_progress), (0, 0));
}

#[tokio::test]
async fn an_id_that_is_twice_in_a_batch_is_acted_on_once() {
    let server = Server::start();
    let store = server.store().await;
    store.put(Task { max_attempts: 2, ..task("t") }).await;
    store.take_ids(1).await;
    let answers = store.abandon_lease(vec![lease("t", 1), lease("t", 1)]).await.unwrap();
    assert!(answers[0].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::NotInProgress);
    assert_eq!(store.queue_stats(queue()).await.unwrap().ready, 1);
    store.take_ids(1).await;
    let nack = || Nack {
        lease: lease("t", 0),
        delay: Optional::RSome(Millis(600_000)),
        ..Nack::default()
    };
    let answers = store.nack(vec![nack(), nack()]).await.unwrap();
    assert!(answers[0].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::NotInProgress);
    let stats = store.queue_stats(queue()).await.unwrap();
    assert_eq!((stats.delayed, stats.dlq), (1, 0));
}
