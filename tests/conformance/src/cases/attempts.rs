//! Rule 5: how often a task is delivered, and what becomes of it then.

use crate::{
    case::{Case, cases},
    stage::Stage,
};
use codeq_plugin::{
    Claim, Location, Task, TaskStatus,
    rules::{LEASE_EXPIRED_ERROR, MAX_ATTEMPTS_ERROR, Rules},
};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Attempts:
        every_claim_is_an_attempt,
        a_clean_hand_back_is_not_an_attempt,
        a_task_is_delivered_max_attempts_times_and_then_buried,
        no_max_attempts_means_the_default_of_the_host,
        a_saved_task_without_max_attempts_gets_the_default_of_the_host_too,
        a_dead_letter_is_failed_and_nobodys,
        a_dead_letter_has_the_reason_that_was_given,
        a_dead_letter_without_a_reason_has_run_out_of_attempts,
        #[alone] a_dead_letter_whose_lease_ran_out_says_so,
        the_last_failure_is_remembered_while_the_task_is_tried_again,
        a_dead_letter_is_not_claimable,
        #[alone] an_attempt_of_the_past_does_not_bury_a_task_that_is_finished,
    ]
    .into_iter()
}

fn every_claim_is_an_attempt(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    for attempt in 1..=3 {
        let claimed = claim_one(&store, "w");
        assert_eq!(claimed.attempts, attempt);
        nack(&store, &claimed);
    }
}

fn a_clean_hand_back_is_not_an_attempt(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { max_attempts: 1, ..task("a") });
    for _ in 0..3 {
        let claimed = claim_one(&store, "w");
        assert_eq!(claimed.attempts, 1);
        let returned = store.abandon_lease(lease(&claimed)).unwrap();
        assert_eq!(returned.task.attempts, 0);
        assert_eq!(returned.task.last_known_location, Location::PendingList);
    }
}

fn a_task_is_delivered_max_attempts_times_and_then_buried(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { max_attempts: 3, ..task("a") });
    let mut deliveries = 0;
    while let Some(claimed) = claim(&store, claim_by("w")).first() {
        deliveries += 1;
        nack(&store, claimed);
    }
    assert_eq!(deliveries, 3);
    assert_eq!(counts(&store), [0, 0, 0, 1]);
}

fn no_max_attempts_means_the_default_of_the_host(stage: &Stage) {
    let store = stage.open_with(Rules { max_attempts: 2, ..no_wait() });
    assert_eq!(enqueue(&store, task("a")).task.max_attempts, 2);
    let first = nack(&store, &claim_one(&store, "w"));
    assert_eq!(first.task.last_known_location, Location::PendingList);
    let second = nack(&store, &claim_one(&store, "w"));
    assert_eq!(second.task.last_known_location, Location::DlqSet);
}

fn a_saved_task_without_max_attempts_gets_the_default_of_the_host_too(stage: &Stage) {
    let store = stage.open_with(Rules { max_attempts: 1, ..no_wait() });
    store.save(super::records::ready(task("a"))).unwrap();
    let returned = nack(&store, &claim_one(&store, "w"));
    assert_eq!(returned.task.last_known_location, Location::DlqSet);
}

fn a_dead_letter_is_failed_and_nobodys(stage: &Stage) {
    let store = stage.open();
    bury(&store, task("a"));
    let dead = store.get("a").unwrap();
    assert_eq!(dead.status, TaskStatus::Failed);
    assert_eq!(dead.last_known_location, Location::DlqSet);
    assert!(dead.worker_id.is_empty() && dead.lease_until.is_none());
}

fn a_dead_letter_has_the_reason_that_was_given(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { max_attempts: 1, ..task("a") });
    let claimed = claim_one(&store, "w");
    let returned = store.nack(nack_of(&claimed, None, "no disk")).unwrap();
    assert_eq!(returned.task.error, "no disk");
}

fn a_dead_letter_without_a_reason_has_run_out_of_attempts(stage: &Stage) {
    let store = stage.open();
    assert_eq!(bury(&store, task("a")).error, MAX_ATTEMPTS_ERROR);
}

fn a_dead_letter_whose_lease_ran_out_says_so(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { max_attempts: 1, ..task("a") });
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    requeue_when_expired(&store, lease_until(&taken[0]));
    assert_eq!(store.get("a").unwrap().error, LEASE_EXPIRED_ERROR);
    assert_eq!(location(&store, "a"), Location::DlqSet);
}

fn the_last_failure_is_remembered_while_the_task_is_tried_again(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    store.nack(nack_of(&claimed, None, "no disk")).unwrap();
    assert_eq!(claim_one(&store, "w").error, "no disk");
}

fn a_dead_letter_is_not_claimable(stage: &Stage) {
    let store = stage.open();
    bury(&store, task("a"));
    assert!(claim(&store, claim_by("w")).is_empty());
    assert!(claim(&store, claim_from(TENANT, &[], "w")).is_empty());
}

fn an_attempt_of_the_past_does_not_bury_a_task_that_is_finished(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { max_attempts: 1, ..task("a") });
    let taken = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    complete(&store, &taken[0]).unwrap();
    wait_until(lease_until(&taken[0]));
    assert_eq!(store.requeue_expired(10).unwrap().count, 0);
    assert_eq!(store.get("a").unwrap().status, TaskStatus::Completed);
    assert!(store.get_result("a").is_ok());
}
