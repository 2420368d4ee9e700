//! How long a task is kept, and what a cleanup removes.

use codeq_memory::Memory;
use codeq_plugin::{
    Cleanup, ErrorKind, Extend, Instant, Millis, ResultStorage, Task, TaskStorage, rules::Rules,
};

use crate::support::*;

/// A day, as codeQ keeps tasks. The tests look ahead instead of waiting.
const RETENTION: Millis = Millis::DAY;

fn clean(store: &Memory, before: Instant, limit: u32) -> u32 {
    let cleanup = Cleanup { before, limit, ..Cleanup::default() };
    store.cleanup_expired(cleanup).unwrap()
}

/// Checks that a task is kept to the millisecond until `end`, and removed then.
#[track_caller]
fn assert_kept_until(store: &Memory, id: &str, end: Instant) {
    assert_eq!(clean(store, end - Millis(1), 10), 0, "removed before {end}");
    assert!(store.get(id).is_ok());
    assert_eq!(clean(store, end, 10), 1, "kept after {end}");
    assert_eq!(kind(store.get(id)), ErrorKind::NotFound);
}

#[test]
fn a_task_is_kept_for_a_day_after_its_last_change() {
    let store = open();
    let kept = enqueue(&store, task("a")).task;
    assert_kept_until(&store, "a", kept.updated_at + RETENTION);
}

#[test]
fn a_completed_task_is_kept_for_a_day_after_its_completion() {
    let store = open();
    enqueue(&store, task("a"));
    let completed = complete(&store, &claim_one(&store, "w")).unwrap().task;
    assert_kept_until(&store, "a", completed.updated_at + RETENTION);
    assert_eq!(kind(store.get_result("a")), ErrorKind::NotFound);
}

#[test]
fn a_dead_letter_is_kept_for_a_day() {
    let store = open();
    let dead = bury(&store, task("a"));
    assert_kept_until(&store, "a", dead.updated_at + RETENTION);
}

#[test]
fn a_delayed_task_is_kept_for_a_day_after_its_moment() {
    let store = open();
    let due = enqueue_in(&store, Millis(10 * RETENTION.0), task("a"));
    assert_kept_until(&store, "a", due + RETENTION);
}

#[test]
fn a_leased_task_is_kept_for_a_day_after_its_lease() {
    let store = open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let extend = Extend { lease: lease(&claimed), by: Millis(10 * RETENTION.0) };
    let until = store.update_lease(extend).unwrap();
    assert_kept_until(&store, "a", until + RETENTION);
}

#[test]
fn a_change_prolongs_the_retention() {
    let store = open_with(Rules { retention: SHORT, ..no_wait() });
    enqueue(&store, task("a"));
    let claimed = claim(&store, codeq_plugin::Claim { lease: SHORT, ..claim_by("w") });
    wait_until(claimed[0].updated_at + Millis(5));
    let returned = store.abandon_lease(lease(&claimed[0])).unwrap();
    assert_kept_until(&store, "a", returned.task.updated_at + SHORT);
}

#[test]
fn a_cleanup_removes_no_more_than_asked_for() {
    let store = open();
    for number in 0..10 {
        enqueue(&store, task_of(&format!("tenant {}", number % 3), COMMAND, &number.to_string()));
    }
    let end = Instant::now() + RETENTION;
    for expected in [4, 4, 2, 0] {
        assert_eq!(clean(&store, end, 4), expected);
    }
    assert!(store.admin_queues(None).unwrap().is_empty());
}

#[test]
fn a_cleanup_of_nothing_removes_nothing() {
    let store = open();
    enqueue(&store, task("a"));
    assert_eq!(clean(&store, Instant(i64::MAX), 0), 0);
    assert!(store.get("a").is_ok());
}

#[test]
fn a_task_that_was_deleted_does_not_count_as_removed() {
    let store = open();
    enqueue_all(&store, &["a", "b"]);
    store.delete("a").unwrap();
    assert_eq!(clean(&store, Instant::now() + RETENTION, 10), 1);
}

#[test]
fn a_task_that_took_the_memory_of_another_is_kept_for_its_own_time() {
    let store = open();
    enqueue(&store, task("old"));
    store.delete("old").unwrap();
    let due = enqueue_in(&store, LONG, task("new"));
    assert_kept_until(&store, "new", due + RETENTION);
}

#[test]
fn a_removed_task_is_gone_from_every_place() {
    let store = open();
    enqueue(&store, task("leased"));
    claim_one(&store, "w");
    enqueue_in(&store, LONG, task("delayed"));
    bury(&store, task("dead"));
    enqueue(&store, task("ready"));
    assert_eq!(counts(&store), [1; 4]);
    assert_eq!(clean(&store, Instant::now() + Millis(3 * RETENTION.0), 10), 4);
    assert_eq!(counts(&store), [0; 4]);
    assert!(claim(&store, claim_from(TENANT, &[], "w")).is_empty());
    assert!(store.list(crate::listing::all()).unwrap().tasks.is_empty());
}

#[test]
fn a_queue_works_again_after_all_of_it_was_removed() {
    let store = open();
    enqueue(&store, task("a"));
    clean(&store, Instant::now() + RETENTION, 10);
    let again = enqueue(&store, Task { priority: 1, ..task("a") });
    assert!(again.created && again.awoke);
    let due = enqueue_in(&store, SHORT, task("b"));
    claim_one(&store, "w");
    claim_when_due(&store, &claim_by("w"), due);
}

#[test]
fn a_cleanup_leaves_what_has_time_left() {
    let store = open();
    let kept = enqueue(&store, task("kept")).task;
    let mut old = crate::records::ready(task("old"));
    old.task.updated_at = kept.updated_at - Millis(10);
    store.save(old).unwrap();
    assert_eq!(clean(&store, kept.updated_at + RETENTION - Millis(1), 10), 1);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["kept"]);
}
