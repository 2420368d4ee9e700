//! Corners where several rules meet.

use crate::records::*;
use crate::support::*;
use codeq_plugin::rules::*;
use codeq_plugin::*;

#[test]
fn a_claim_of_any_command_does_not_move_tasks_of_another_tenant() {
    let store = open();
    enqueue(&store, task_of("acme", "stays", "stays"));
    let due = enqueue_in(&store, SHORT, task_of("acme", "x", "gone"));
    store.delete("gone").unwrap(); // its queue is gone, its alarm is not
    store.save(delayed(task_of("rival", "x", "theirs"), Instant(1))).unwrap(); // takes the queue's number
    wait_until(due);
    let claimed = store.claim(claim_from("acme", &[], "w"));
    assert_eq!(moved_by(claimed), Moved::default());
}
#[test]
fn saving_a_task_does_not_forget_its_key() {
    let store = open();
    let kept = store.enqueue(keyed("k", task("a"))).unwrap().task;
    store.save(Placed { task: kept, visible_at: Instant::EPOCH }).unwrap();
    let again = store.enqueue(keyed("k", task("b"))).unwrap();
    assert!(!again.created);
}
#[test]
fn a_task_is_removed_a_day_after_its_end_though_its_lease_was_longer() {
    let store = open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    store.update_lease(Extend { lease: lease(&claimed), by: Millis(10 * LONG.0) }).unwrap();
    let clean =
        |before| store.cleanup_expired(Cleanup { before, limit: 9, ..Cleanup::default() }).unwrap();
    assert_eq!(clean(Instant::now() + LONG), 0); // looked at while it is leased
    let end = complete(&store, &claimed).unwrap().task.updated_at + LONG;
    assert_eq!(clean(end), 1);
}
#[test]
fn a_delayed_task_that_a_repair_ended_is_removed_a_day_later() {
    let store = open();
    enqueue_in(&store, Millis(10 * LONG.0), task("a"));
    store
        .update_task_on_complete(Finish {
            task_id: "a".into(),
            status: TaskStatus::Completed,
            ..Finish::default()
        })
        .unwrap();
    let before = store.get("a").unwrap().updated_at + LONG;
    assert_eq!(
        store.cleanup_expired(Cleanup { before, limit: 9, ..Cleanup::default() }).unwrap(),
        1
    );
}
#[test]
fn a_task_that_came_due_is_kept_for_its_retention_from_then_on() {
    let store = open_with(Rules { retention: Millis(100), ..no_wait() });
    let made = enqueue(&store, task("a")).task.created_at;
    let claimed = claim_one(&store, "w");
    let returned = store.nack(nack_of(&claimed, Some(Millis(80)), "")).unwrap();
    let due = returned.task.updated_at + Millis(80);
    move_when_due(due, || store.move_due_delayed(9));
    let before = returned.task.updated_at + Millis(100);
    assert!(before < due + Millis(100));
    let _ = made;
    assert_eq!(
        store.cleanup_expired(Cleanup { before, limit: 9, ..Cleanup::default() }).unwrap(),
        0
    );
}
#[test]
fn a_repair_moves_the_earliest_of_all_queues_first() {
    let store = open();
    for (command, id, at) in [("x", "first", 1), ("x", "third", 3), ("y", "second", 2)] {
        store.save(delayed(task_of(TENANT, command, id), Instant(at))).unwrap();
    }
    store.move_due_delayed(2).unwrap();
    assert_eq!(location(&store, "second"), Location::PendingList);
}
#[test]
fn a_last_page_that_is_full_says_it_is_the_last() {
    let store = open();
    enqueue_all(&store, &["a", "b"]);
    let page = store.list(ListTasks { limit: 2, ..ListTasks::default() }).unwrap();
    assert_eq!(page.cursor, "");
}
#[test]
fn a_subscriber_that_registers_again_is_not_told_again_within_its_interval() {
    let store = open();
    let s = || {
        Boxed::new(Subscription {
            id: "s".into(),
            worker_id: "w".into(),
            event_types: texts(&["*"]),
            expires_at: Instant::now() + LONG,
            ..Subscription::default()
        })
    };
    let ask = || AllowNotify { subscription_id: "s".into(), min_interval: LONG };
    store.register(s()).unwrap();
    assert!(store.allow_notify(ask()).unwrap());
    store.register(s()).unwrap();
    assert!(!store.allow_notify(ask()).unwrap());
}
#[test]
fn a_completed_record_that_says_it_is_a_dead_letter_is_not_redriven() {
    let store = open();
    store.save(ended(task("a"), TaskStatus::Completed, Location::DlqSet)).unwrap();
    assert!(store.redrive(crate::listing::key(&task("a"))).is_err());
}
#[test]
fn a_first_claim_after_the_moment_gets_all_that_is_due() {
    let store = open_in(Context { repair_limit: 2, ..context() });
    for id in ["a", "b", "c"] {
        store.save(delayed(task(id), Instant(1))).unwrap();
    }
    assert_eq!(claim(&store, claim_by("w")).len(), 3);
}
#[test]
fn a_result_of_another_task_is_refused() {
    let store = open();
    enqueue(&store, task("a"));
    let c = claim_one(&store, "w");
    let mut x = completion(&c, TaskStatus::Completed);
    x.result.task_id = "b".into();
    let _ = store.complete(x);
    assert!(store.get_result("a").is_err() || store.get_result("a").unwrap().task_id == "a");
}
#[test]
fn unregistering_does_not_count_what_has_expired() {
    let store = open();
    let s = Subscription {
        id: "s".into(),
        worker_id: "w".into(),
        event_types: texts(&["*"]),
        expires_at: Instant(1),
        ..Subscription::default()
    };
    store.register(Boxed::new(s)).unwrap();
    assert_eq!(
        store.unregister(Unregister { worker_id: "w".into(), ..Unregister::default() }).unwrap(),
        0
    );
}
// 17 register by another tenant's id
#[test]
fn another_tenants_subscription_is_not_replaced() {
    let store = open();
    let s = |tenant: &str| {
        Boxed::new(Subscription {
            id: "s".into(),
            tenant_id: tenant.into(),
            worker_id: "w".into(),
            event_types: texts(&["*"]),
            expires_at: Instant::now() + LONG,
            ..Subscription::default()
        })
    };
    store.register(s("a")).unwrap();
    let _ = store.register(s("b"));
    assert_eq!(
        store
            .get_by_worker(ByWorker { tenant_id: "a".into(), worker_id: "w".into() })
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_lease_of_nothing_is_refused() {
    let store = open();
    enqueue(&store, task("a"));
    assert_eq!(
        kind(store.claim(Claim { lease: Millis::ZERO, ..claim_by("w") })),
        ErrorKind::InvalidArgument
    );
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}
