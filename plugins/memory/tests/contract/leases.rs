//! Rule 6: how long a worker holds a task.

use codeq_plugin::{
    Claim, Extend, Instant, Location, Millis, ResultStorage, Task, TaskStatus, TaskStorage,
    rules::{BackoffPolicy, LEASE_EXPIRED_ERROR},
};

use crate::support::*;

fn short_claim() -> Claim {
    Claim { lease: Millis(30), ..claim_by("w") }
}

#[test]
fn a_leased_task_names_its_worker_and_its_deadline() {
    let store = open();
    enqueue(&store, task("a"));
    let before = Instant::now();
    let claimed = claim_one(&store, "w");
    let until = lease_until(&claimed);
    assert!((before + LONG..=Instant::now() + LONG).contains(&until));
    assert_eq!(claimed.worker_id, "w");
    assert_eq!(claimed.status, TaskStatus::InProgress);
    assert_eq!(claimed.last_known_location, Location::InprogSet);
    assert_eq!(store.get("a").unwrap(), claimed);
}

#[test]
fn a_leased_task_is_claimable_by_others_from_its_deadline_on_and_not_before() {
    let store = open();
    enqueue(&store, task("a"));
    let taken = claim(&store, short_claim());
    let again = claim_when_due(&store, &claim_by("v"), lease_until(&taken[0]));
    assert_eq!((again.worker_id.as_str(), again.attempts), ("v", 2));
}

#[test]
fn a_leased_task_is_claimable_for_any_command_from_its_deadline_on() {
    let store = open();
    enqueue(&store, task("a"));
    let taken = claim(&store, short_claim());
    claim_when_due(&store, &claim_from(TENANT, &[], "v"), lease_until(&taken[0]));
}

#[test]
fn a_leased_task_is_requeued_from_its_deadline_on_and_not_before() {
    let store = open();
    enqueue(&store, task("a"));
    let taken = claim(&store, short_claim());
    move_when_due(lease_until(&taken[0]), || store.requeue_expired(10));
    let kept = store.get("a").unwrap();
    assert_eq!(kept.last_known_location, Location::PendingList);
    assert!(kept.worker_id.is_empty() && kept.lease_until.is_none());
    assert_eq!(kept.error, LEASE_EXPIRED_ERROR);
}

#[test]
fn an_expired_task_waits_out_its_backoff() {
    let store = open_with(waiting(BackoffPolicy::Fixed, 30, 900_000));
    enqueue(&store, task("a"));
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    move_when_due(lease_until(&taken[0]), || store.requeue_expired(10));
    assert_eq!(counts(&store), [0, 1, 0, 0]);
    let due = store.get("a").unwrap().updated_at + Millis(30);
    claim_when_due(&store, &claim_by("v"), due);
}

#[test]
fn a_longer_lease_lasts_from_now_on() {
    let store = open();
    enqueue(&store, task("a"));
    let taken = claim(&store, short_claim());
    let before = Instant::now();
    let by = Millis(60);
    let until = store.update_lease(Extend { lease: lease(&taken[0]), by }).unwrap();
    assert!((before + by..=Instant::now() + by).contains(&until));
    assert_eq!(lease_until(&store.get("a").unwrap()), until);
    claim_when_due(&store, &claim_by("v"), until);
}

#[test]
fn a_shorter_lease_ends_sooner() {
    let store = open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let until = store.update_lease(Extend { lease: lease(&claimed), by: SHORT }).unwrap();
    claim_when_due(&store, &claim_by("v"), until);
}

#[test]
fn a_longer_lease_is_not_another_attempt() {
    let store = open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    store.update_lease(Extend { lease: lease(&claimed), by: LONG }).unwrap();
    assert_eq!(store.get("a").unwrap().attempts, 1);
}

#[test]
fn a_lease_to_the_end_of_time_stays_there() {
    let store = open();
    enqueue(&store, task("a"));
    let taken = claim(&store, Claim { lease: Millis(i64::MAX), ..claim_by("w") });
    assert_eq!(lease_until(&taken[0]), Instant(i64::MAX));
    assert_eq!(store.requeue_expired(10).unwrap().count, 0);
}

#[test]
fn the_earliest_deadlines_are_taken_back_first() {
    let store = open();
    for (id, until) in [("late", 25), ("early", 5), ("between", 15)] {
        store.save(crate::records::leased(task(id), Instant(until))).unwrap();
    }
    assert_eq!(claimed_ids(&store, claim_by("v")), ["early", "between", "late"]);
}

#[test]
fn an_owner_whose_lease_has_run_out_may_still_finish() {
    let store = open();
    enqueue(&store, task("a"));
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    wait_until(lease_until(&taken[0]));
    complete(&store, &taken[0]).unwrap();
    assert!(claim(&store, claim_by("v")).is_empty());
}

#[test]
fn an_owner_whose_lease_has_run_out_may_still_extend_it() {
    let store = open();
    enqueue(&store, task("a"));
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    wait_until(lease_until(&taken[0]));
    store.update_lease(Extend { lease: lease(&taken[0]), by: LONG }).unwrap();
    assert!(claim(&store, claim_by("v")).is_empty());
}

#[test]
fn more_expired_tasks_than_one_repair_may_move_are_all_moved_in_the_end() {
    let store = open_in(codeq_plugin::Context { repair_limit: 2, ..context() });
    enqueue_all(&store, &["a", "b", "c", "d", "e"]);
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    wait_until(lease_until(&taken[4]));
    let mut again = Vec::new();
    while again.len() < 5 {
        let more = claimed_ids(&store, Claim { max: 1, ..claim_by("v") });
        assert_eq!(more.len(), 1);
        again.extend(more);
    }
    assert_eq!(again, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_lease_that_outlived_its_worker_is_released_at_once() {
    let store = open_with(waiting(BackoffPolicy::Fixed, 60_000, 900_000));
    enqueue(&store, task("a"));
    claim_one(&store, "w");
    store.remove_from_inprog_and_clear_lease("a").unwrap();
    assert_eq!(counts(&store), [1, 0, 0, 0]);
    assert_eq!(claim_one(&store, "v").attempts, 2);
}

#[test]
fn a_lease_that_outlived_its_last_attempt_is_buried() {
    let store = open();
    enqueue(&store, Task { max_attempts: 1, ..task("a") });
    claim_one(&store, "w");
    store.remove_from_inprog_and_clear_lease("a").unwrap();
    assert_eq!(counts(&store), [0, 0, 0, 1]);
}

#[test]
fn releasing_the_lease_of_a_task_that_has_none_changes_nothing() {
    let store = open();
    let kept = enqueue(&store, task("a")).task;
    store.remove_from_inprog_and_clear_lease("a").unwrap();
    assert_eq!(store.get("a").unwrap(), kept);
}
