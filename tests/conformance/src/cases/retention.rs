//! How long a task is kept, and what a cleanup removes.

use crate::{
    case::{Case, cases},
    stage::Stage,
    store::Store,
};
use codeq_plugin::{
    Claim, Cleanup, ErrorKind, Extend, Finish, Instant, Millis, Task, TaskStatus, rules::Rules,
};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Retention:
        #[alone] a_task_is_kept_for_a_day_after_its_last_change,
        #[alone] a_completed_task_is_kept_for_a_day_after_its_completion,
        #[alone] a_dead_letter_is_kept_for_a_day,
        #[alone] a_delayed_task_is_kept_for_a_day_after_its_moment,
        #[alone] a_leased_task_is_kept_for_a_day_after_its_lease,
        #[alone] a_change_prolongs_the_retention,
        #[alone] a_cleanup_removes_no_more_than_asked_for,
        #[alone] a_cleanup_of_nothing_removes_nothing,
        #[alone] a_task_that_was_deleted_does_not_count_as_removed,
        #[alone] a_task_that_took_the_memory_of_another_is_kept_for_its_own_time,
        #[alone] a_removed_task_is_gone_from_every_place,
        #[alone] a_queue_works_again_after_all_of_it_was_removed,
        #[alone] a_cleanup_leaves_what_has_time_left,
        #[alone] a_task_is_removed_a_day_after_its_end_though_its_lease_was_longer,
        #[alone] a_delayed_task_that_a_repair_ended_is_removed_a_day_later,
        #[alone] a_task_that_came_due_is_kept_for_its_retention_from_then_on,
    ]
    .into_iter()
}

/// A day, as codeQ keeps tasks. The tests look ahead instead of waiting.
const RETENTION: Millis = Millis::DAY;

fn clean(store: &Store, before: Instant, limit: u32) -> u32 {
    let cleanup = Cleanup { before, limit, ..Cleanup::default() };
    store.cleanup_expired(cleanup).unwrap()
}

/// Checks that a task is kept to the millisecond until `end`, and removed then.
#[track_caller]
fn assert_kept_until(store: &Store, id: &str, end: Instant) {
    assert_eq!(clean(store, end - Millis(1), 10), 0, "removed before {end}");
    assert!(store.get(id).is_ok());
    assert_eq!(clean(store, end, 10), 1, "kept after {end}");
    assert_eq!(kind(store.get(id)), ErrorKind::NotFound);
}

fn a_task_is_kept_for_a_day_after_its_last_change(stage: &Stage) {
    let store = stage.open();
    let kept = enqueue(&store, task("a")).task;
    assert_kept_until(&store, "a", kept.updated_at + RETENTION);
}

fn a_completed_task_is_kept_for_a_day_after_its_completion(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let completed = complete(&store, &claim_one(&store, "w")).unwrap().task;
    assert_kept_until(&store, "a", completed.updated_at + RETENTION);
    assert_eq!(kind(store.get_result("a")), ErrorKind::NotFound);
}

fn a_dead_letter_is_kept_for_a_day(stage: &Stage) {
    let store = stage.open();
    let dead = bury(&store, task("a"));
    assert_kept_until(&store, "a", dead.updated_at + RETENTION);
}

fn a_delayed_task_is_kept_for_a_day_after_its_moment(stage: &Stage) {
    let store = stage.open();
    let due = enqueue_in(&store, Millis(10 * RETENTION.0), task("a"));
    assert_kept_until(&store, "a", due + RETENTION);
}

fn a_leased_task_is_kept_for_a_day_after_its_lease(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let extend = Extend { lease: lease(&claimed), by: Millis(10 * RETENTION.0) };
    let until = store.update_lease(extend).unwrap();
    assert_kept_until(&store, "a", until + RETENTION);
}

fn a_change_prolongs_the_retention(stage: &Stage) {
    let store = stage.open_with(Rules { retention: SHORT, ..no_wait() });
    enqueue(&store, task("a"));
    let claimed = claim(&store, codeq_plugin::Claim { lease: SHORT, ..claim_by("w") });
    wait_until(claimed[0].updated_at + Millis(5));
    let returned = store.abandon_lease(lease(&claimed[0])).unwrap();
    assert_kept_until(&store, "a", returned.task.updated_at + SHORT);
}

fn a_cleanup_removes_no_more_than_asked_for(stage: &Stage) {
    let store = stage.open();
    for number in 0..10 {
        enqueue(&store, task_of(&format!("tenant {}", number % 3), COMMAND, &number.to_string()));
    }
    let end = Instant::now() + RETENTION;
    for expected in [4, 4, 2, 0] {
        assert_eq!(clean(&store, end, 4), expected);
    }
    assert!(used_queues(&store).is_empty());
}

fn a_cleanup_of_nothing_removes_nothing(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    assert_eq!(clean(&store, Instant(i64::MAX), 0), 0);
    assert!(store.get("a").is_ok());
}

fn a_task_that_was_deleted_does_not_count_as_removed(stage: &Stage) {
    let store = stage.open();
    enqueue_all(&store, &["a", "b"]);
    store.delete("a").unwrap();
    assert_eq!(clean(&store, Instant::now() + RETENTION, 10), 1);
}

fn a_task_that_took_the_memory_of_another_is_kept_for_its_own_time(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("old"));
    store.delete("old").unwrap();
    let due = enqueue_in(&store, LONG, task("new"));
    assert_kept_until(&store, "new", due + RETENTION);
}

fn a_removed_task_is_gone_from_every_place(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("leased"));
    claim_one(&store, "w");
    enqueue_in(&store, LONG, task("delayed"));
    bury(&store, task("dead"));
    enqueue(&store, task("ready"));
    assert_eq!(counts(&store), [1; 4]);
    assert_eq!(clean(&store, Instant::now() + Millis(3 * RETENTION.0), 10), 4);
    assert_eq!(counts(&store), [0; 4]);
    assert!(claim(&store, claim_from(TENANT, &[], "w")).is_empty());
    assert!(everything(&store).is_empty());
}

fn a_queue_works_again_after_all_of_it_was_removed(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    clean(&store, Instant::now() + RETENTION, 10);
    let again = enqueue(&store, Task { priority: 1, ..task("a") });
    assert!(again.created && again.awoke);
    let due = enqueue_in(&store, SHORT, task("b"));
    claim(&store, Claim { max: 1, ..claim_by("w") });
    claim_when_due(&store, &claim_by("w"), due);
}

fn a_cleanup_leaves_what_has_time_left(stage: &Stage) {
    let store = stage.open();
    let kept = enqueue(&store, task("kept")).task;
    let mut old = super::records::ready(task("old"));
    old.task.updated_at = kept.updated_at - Millis(10);
    store.save(old).unwrap();
    assert_eq!(clean(&store, kept.updated_at + RETENTION - Millis(1), 10), 1);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["kept"]);
}

fn a_task_is_removed_a_day_after_its_end_though_its_lease_was_longer(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    store.update_lease(Extend { lease: lease(&claimed), by: Millis(10 * LONG.0) }).unwrap();
    let clean =
        |before| store.cleanup_expired(Cleanup { before, limit: 9, ..Cleanup::default() }).unwrap();
    assert_eq!(clean(Instant::now() + LONG), 0);
    let end = complete(&store, &claimed).unwrap().task.updated_at + LONG;
    assert_eq!(clean(end), 1);
}

fn a_delayed_task_that_a_repair_ended_is_removed_a_day_later(stage: &Stage) {
    let store = stage.open();
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

fn a_task_that_came_due_is_kept_for_its_retention_from_then_on(stage: &Stage) {
    let store = stage.open_with(Rules { retention: Millis(100), ..no_wait() });
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let returned = store.nack(nack_of(&claimed, Some(Millis(80)), "")).unwrap();
    let due = returned.task.updated_at + Millis(80);
    move_when_due(&store, due);
    let before = returned.task.updated_at + Millis(100);
    assert!(before < due + Millis(100));
    assert_eq!(
        store.cleanup_expired(Cleanup { before, limit: 9, ..Cleanup::default() }).unwrap(),
        0
    );
}
