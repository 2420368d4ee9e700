//! Rule 3: which task comes first.

use crate::{
    case::{Case, Rule, cases},
    stage::Stage,
};
use codeq_plugin::{Claim, Instant, Millis, Task};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Order:
        the_highest_priority_comes_first,
        within_a_priority_the_first_in_is_the_first_out,
        a_priority_out_of_range_is_clamped,
        commands_are_served_in_the_order_in_which_they_are_named,
        no_more_tasks_are_taken_than_asked_for,
        an_abandoned_task_goes_to_the_back_of_its_priority,
        a_retried_task_goes_to_the_back_of_its_priority_but_before_lower_ones,
        a_task_that_comes_due_goes_to_the_back_of_its_priority,
        tasks_that_come_due_together_keep_the_order_of_their_moments,
        an_expired_task_goes_to_the_back_of_its_priority,
        #[listing] a_redriven_task_goes_to_the_back_of_its_priority,
    ]
    .into_iter()
}

fn the_highest_priority_comes_first(stage: &Stage) {
    let store = stage.open();
    for priority in [3, 9, 0, 5] {
        let id = priority.to_string();
        enqueue(&store, Task { priority, ..task(&id) });
    }
    assert_eq!(claimed_ids(&store, claim_by("w")), ["9", "5", "3", "0"]);
}

fn within_a_priority_the_first_in_is_the_first_out(stage: &Stage) {
    let store = stage.open();
    enqueue_all(&store, &["c", "a", "b"]);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["c", "a", "b"]);
}

fn a_priority_out_of_range_is_clamped(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { priority: 9, ..task("nine") });
    let clamped = enqueue(&store, Task { priority: 200, ..task("more") }).task;
    assert_eq!(clamped.priority, 9);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["nine", "more"]);
}

fn commands_are_served_in_the_order_in_which_they_are_named(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { priority: 9, ..task_of(TENANT, "a", "urgent") });
    enqueue(&store, task_of(TENANT, "b", "later"));
    let claim = claim_from(TENANT, &["b", "a"], "w");
    assert_eq!(claimed_ids(&store, claim), ["later", "urgent"]);
}

fn no_more_tasks_are_taken_than_asked_for(stage: &Stage) {
    let store = stage.open();
    for command in ["a", "b"] {
        for number in 0..3 {
            enqueue(&store, task_of(TENANT, command, &format!("{command}{number}")));
        }
    }
    let claim = Claim { max: 4, ..claim_from(TENANT, &["a", "b"], "w") };
    assert_eq!(claimed_ids(&store, claim), ["a0", "a1", "a2", "b0"]);
}

fn an_abandoned_task_goes_to_the_back_of_its_priority(stage: &Stage) {
    let store = stage.open();
    enqueue_all(&store, &["first", "second"]);
    enqueue(&store, Task { priority: 0, ..task("third") });
    let taken = claim(&store, Claim { max: 1, ..claim_by("w") });
    store.abandon_lease(lease(&taken[0])).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), ["second", "third", "first"]);
}

fn a_retried_task_goes_to_the_back_of_its_priority_but_before_lower_ones(stage: &Stage) {
    let store = stage.open();
    for id in ["first", "second"] {
        enqueue(&store, Task { priority: 5, ..task(id) });
    }
    enqueue(&store, Task { priority: 4, ..task("low") });
    let taken = claim(&store, Claim { max: 1, ..claim_by("w") });
    nack(&store, &taken[0]);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["second", "first", "low"]);
}

fn a_task_that_comes_due_goes_to_the_back_of_its_priority(stage: &Stage) {
    // The others must be there before it comes due, and a busy machine may take its time.
    for delay in [20, 200, 2_000] {
        let store = stage.open();
        let due = enqueue_in(&store, Millis(delay), task("delayed"));
        enqueue_all(&store, &["a", "b"]);
        let in_time = Instant::now() < due;
        wait_until(due);
        if in_time {
            assert_eq!(claimed_ids(&store, claim_by("w")), ["a", "b", "delayed"]);
            return;
        }
    }
}

fn tasks_that_come_due_together_keep_the_order_of_their_moments(stage: &Stage) {
    let store = stage.open();
    for (id, due) in [("late", 15), ("early", 5), ("between", 10), ("latest", 20)] {
        store.save(super::records::delayed(task(id), Instant(due))).unwrap();
    }
    assert_eq!(claimed_ids(&store, claim_by("w")), ["early", "between", "late", "latest"]);
}

fn an_expired_task_goes_to_the_back_of_its_priority(stage: &Stage) {
    let store = stage.open();
    enqueue_all(&store, &["expiring", "waiting"]);
    let taken = claim(&store, Claim { max: 1, lease: SHORT, ..claim_by("w") });
    wait_until(lease_until(&taken[0]));
    let claimed = claimed_ids(&store, claim_by("v"));
    given(Rule::Leases, claimed.len() == 2, || format!("only {claimed:?} can be claimed"));
    assert_eq!(claimed, ["waiting", "expiring"]);
}

fn a_redriven_task_goes_to_the_back_of_its_priority(stage: &Stage) {
    let store = stage.open();
    let dead = bury(&store, task("dead"));
    enqueue(&store, task("waiting"));
    store.redrive(super::listing::key(&dead)).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), ["waiting", "dead"]);
}
