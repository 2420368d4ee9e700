//! Rule 3: which task comes first.

use codeq_plugin::{Claim, Instant, Task, TaskStorage};

use crate::support::*;

#[test]
fn the_highest_priority_comes_first() {
    let store = open();
    for priority in [3, 9, 0, 5] {
        let id = priority.to_string();
        enqueue(&store, Task { priority, ..task(&id) });
    }
    assert_eq!(claimed_ids(&store, claim_by("w")), ["9", "5", "3", "0"]);
}

#[test]
fn within_a_priority_the_first_in_is_the_first_out() {
    let store = open();
    enqueue_all(&store, &["c", "a", "b"]);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["c", "a", "b"]);
}

#[test]
fn a_priority_out_of_range_is_clamped() {
    let store = open();
    enqueue(&store, Task { priority: 9, ..task("nine") });
    let clamped = enqueue(&store, Task { priority: 200, ..task("more") }).task;
    assert_eq!(clamped.priority, 9);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["nine", "more"]);
}

#[test]
fn commands_are_served_in_the_order_in_which_they_are_named() {
    let store = open();
    enqueue(&store, Task { priority: 9, ..task_of(TENANT, "a", "urgent") });
    enqueue(&store, task_of(TENANT, "b", "later"));
    let claim = claim_from(TENANT, &["b", "a"], "w");
    assert_eq!(claimed_ids(&store, claim), ["later", "urgent"]);
}

#[test]
fn no_more_tasks_are_taken_than_asked_for() {
    let store = open();
    for command in ["a", "b"] {
        for number in 0..3 {
            enqueue(&store, task_of(TENANT, command, &format!("{command}{number}")));
        }
    }
    let claim = Claim { max: 4, ..claim_from(TENANT, &["a", "b"], "w") };
    assert_eq!(claimed_ids(&store, claim), ["a0", "a1", "a2", "b0"]);
}

#[test]
fn an_abandoned_task_goes_to_the_back_of_its_priority() {
    let store = open();
    enqueue_all(&store, &["first", "second"]);
    enqueue(&store, Task { priority: 0, ..task("third") });
    let taken = claim(&store, Claim { max: 1, ..claim_by("w") });
    store.abandon_lease(lease(&taken[0])).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), ["second", "third", "first"]);
}

#[test]
fn a_retried_task_goes_to_the_back_of_its_priority_but_before_lower_ones() {
    let store = open();
    for id in ["first", "second"] {
        enqueue(&store, Task { priority: 5, ..task(id) });
    }
    enqueue(&store, Task { priority: 4, ..task("low") });
    let taken = claim(&store, Claim { max: 1, ..claim_by("w") });
    nack(&store, &taken[0]);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["second", "first", "low"]);
}

#[test]
fn a_task_that_comes_due_goes_to_the_back_of_its_priority() {
    let store = open();
    let due = enqueue_in(&store, SHORT, task("delayed"));
    enqueue_all(&store, &["a", "b"]);
    wait_until(due);
    assert_eq!(claimed_ids(&store, claim_by("w")), ["a", "b", "delayed"]);
}

#[test]
fn tasks_that_come_due_together_keep_the_order_of_their_moments() {
    let store = open();
    for (id, due) in [("late", 15), ("early", 5), ("between", 10), ("also late", 15)] {
        store.save(crate::records::delayed(task(id), Instant(due))).unwrap();
    }
    assert_eq!(claimed_ids(&store, claim_by("w")), ["early", "between", "late", "also late"]);
}

#[test]
fn an_expired_task_goes_to_the_back_of_its_priority() {
    let store = open();
    enqueue_all(&store, &["expiring", "waiting"]);
    let taken = claim(&store, Claim { max: 1, lease: SHORT, ..claim_by("w") });
    wait_until(lease_until(&taken[0]));
    assert_eq!(claimed_ids(&store, claim_by("v")), ["waiting", "expiring"]);
}

#[test]
fn a_redriven_task_goes_to_the_back_of_its_priority() {
    let store = open();
    let dead = bury(&store, task("dead"));
    enqueue(&store, task("waiting"));
    store.redrive(crate::listing::key(&dead)).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), ["waiting", "dead"]);
}
