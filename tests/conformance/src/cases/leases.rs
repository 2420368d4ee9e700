//! Rule 6: how long a worker holds a task.

use crate::{
    case::{Case, cases},
    stage::{Setup, Stage},
};
use codeq_plugin::{
    Claim, ErrorKind, Extend, Instant, Location, Millis, Task, TaskStatus,
    rules::{BackoffPolicy, LEASE_EXPIRED_ERROR},
};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Leases:
        a_leased_task_names_its_worker_and_its_deadline,
        a_leased_task_is_claimable_by_others_from_its_deadline_on_and_not_before,
        a_leased_task_is_claimable_for_any_command_from_its_deadline_on,
        #[alone] a_leased_task_is_requeued_from_its_deadline_on_and_not_before,
        #[alone] an_expired_task_waits_out_its_backoff,
        a_longer_lease_lasts_from_now_on,
        a_shorter_lease_ends_sooner,
        a_longer_lease_is_not_another_attempt,
        #[alone] a_lease_to_the_end_of_time_stays_there,
        #[alone] the_earliest_deadlines_are_taken_back_first,
        an_owner_whose_lease_has_run_out_may_still_finish,
        an_owner_whose_lease_has_run_out_may_still_extend_it,
        more_expired_tasks_than_one_repair_may_move_are_all_moved_in_the_end,
        a_lease_that_outlived_its_worker_is_released_at_once,
        a_lease_that_outlived_its_last_attempt_is_buried,
        releasing_the_lease_of_a_task_that_has_none_changes_nothing,
        a_lease_of_nothing_is_refused,
    ]
    .into_iter()
}

fn short_claim() -> Claim {
    Claim { lease: Millis(30), ..claim_by("w") }
}

fn a_leased_task_names_its_worker_and_its_deadline(stage: &Stage) {
    let store = stage.open();
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

fn a_leased_task_is_claimable_by_others_from_its_deadline_on_and_not_before(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, short_claim());
    let again = claim_when_expired(&store, &claim_by("v"), lease_until(&taken[0]));
    assert_eq!((again.worker_id.as_str(), again.attempts), ("v", 2));
}

fn a_leased_task_is_claimable_for_any_command_from_its_deadline_on(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, short_claim());
    claim_when_expired(&store, &claim_from(TENANT, &[], "v"), lease_until(&taken[0]));
}

fn a_leased_task_is_requeued_from_its_deadline_on_and_not_before(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, short_claim());
    requeue_when_expired(&store, lease_until(&taken[0]));
    let kept = store.get("a").unwrap();
    assert_eq!(kept.last_known_location, Location::PendingList);
    assert!(kept.worker_id.is_empty() && kept.lease_until.is_none());
    assert_eq!(kept.error, LEASE_EXPIRED_ERROR);
}

fn an_expired_task_waits_out_its_backoff(stage: &Stage) {
    let store = stage.open_with(waiting(BackoffPolicy::Fixed, 30, 900_000));
    enqueue(&store, task("a"));
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    requeue_when_expired(&store, lease_until(&taken[0]));
    assert_eq!(counts(&store), [0, 1, 0, 0]);
    let due = store.get("a").unwrap().updated_at + Millis(30);
    claim_when_due(&store, &claim_by("v"), due);
}

fn a_longer_lease_lasts_from_now_on(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, short_claim());
    let before = Instant::now();
    let by = Millis(60);
    let until = store.update_lease(Extend { lease: lease(&taken[0]), by }).unwrap();
    assert!((before + by..=Instant::now() + by).contains(&until));
    assert_eq!(lease_until(&store.get("a").unwrap()), until);
    claim_when_expired(&store, &claim_by("v"), until);
}

fn a_shorter_lease_ends_sooner(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let until = store.update_lease(Extend { lease: lease(&claimed), by: SHORT }).unwrap();
    claim_when_expired(&store, &claim_by("v"), until);
}

fn a_longer_lease_is_not_another_attempt(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    store.update_lease(Extend { lease: lease(&claimed), by: LONG }).unwrap();
    assert_eq!(store.get("a").unwrap().attempts, 1);
}

fn a_lease_to_the_end_of_time_stays_there(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, Claim { lease: Millis(i64::MAX), ..claim_by("w") });
    // How far times reach is the backend's affair; RFC 3339 ends with the year 9999.
    assert!(lease_until(&taken[0]) > Instant::now() + Millis(7_000 * 365 * LONG.0));
    assert_eq!(store.requeue_expired(10).unwrap().count, 0);
}

fn the_earliest_deadlines_are_taken_back_first(stage: &Stage) {
    let store = stage.open();
    for (id, until) in [("late", 25), ("early", 5), ("between", 15)] {
        store.save(super::records::leased(task(id), Instant(until))).unwrap();
    }
    for id in ["early", "between", "late"] {
        assert_eq!(store.requeue_expired(1).unwrap().count, 1);
        assert_eq!(location(&store, id), Location::PendingList, "{id}");
    }
}

fn an_owner_whose_lease_has_run_out_may_still_finish(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    wait_until(lease_until(&taken[0]));
    complete(&store, &taken[0]).unwrap();
    assert!(claim(&store, claim_by("v")).is_empty());
}

fn an_owner_whose_lease_has_run_out_may_still_extend_it(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    wait_until(lease_until(&taken[0]));
    store.update_lease(Extend { lease: lease(&taken[0]), by: LONG }).unwrap();
    assert!(claim(&store, claim_by("v")).is_empty());
}

fn more_expired_tasks_than_one_repair_may_move_are_all_moved_in_the_end(stage: &Stage) {
    let store = stage.open_in(Setup { repair_limit: 2, ..Setup::default() });
    enqueue_all(&store, &["a", "b", "c", "d", "e"]);
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    wait_until(lease_until(&taken[4]));
    let mut again = Vec::new();
    while again.len() < 5 {
        let more = claimed_ids(&store, Claim { max: 1, ..claim_by("v") });
        assert_eq!(more.len(), 1);
        again.extend(more);
    }
    again.sort();
    assert_eq!(again, ["a", "b", "c", "d", "e"]);
}

fn a_lease_that_outlived_its_worker_is_released_at_once(stage: &Stage) {
    let store = stage.open_with(waiting(BackoffPolicy::Fixed, 60_000, 900_000));
    enqueue(&store, task("a"));
    claim_one(&store, "w");
    store.remove_from_inprog_and_clear_lease("a").unwrap();
    assert_eq!(counts(&store), [1, 0, 0, 0]);
    assert_eq!(claim_one(&store, "v").attempts, 2);
}

fn a_lease_that_outlived_its_last_attempt_is_buried(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { max_attempts: 1, ..task("a") });
    claim_one(&store, "w");
    store.remove_from_inprog_and_clear_lease("a").unwrap();
    assert_eq!(counts(&store), [0, 0, 0, 1]);
}

fn releasing_the_lease_of_a_task_that_has_none_changes_nothing(stage: &Stage) {
    let store = stage.open();
    let kept = enqueue(&store, task("a")).task;
    store.remove_from_inprog_and_clear_lease("a").unwrap();
    assert_eq!(store.get("a").unwrap(), kept);
}

fn a_lease_of_nothing_is_refused(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    assert_eq!(
        kind(store.claim(Claim { lease: Millis::ZERO, ..claim_by("w") })),
        ErrorKind::InvalidArgument
    );
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}
