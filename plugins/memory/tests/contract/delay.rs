//! Rule 4: when a delayed task is claimable.

use codeq_plugin::{Enqueue, Instant, Location, Millis, Task, TaskStatus, TaskStorage};

use crate::support::*;

#[test]
fn a_delayed_task_is_claimable_from_its_moment_on_and_not_before() {
    let store = open();
    let due = enqueue_in(&store, Millis(30), task("a"));
    claim_when_due(&store, &claim_by("w"), due);
}

#[test]
fn a_delayed_task_is_claimable_by_a_worker_of_any_command_from_its_moment_on() {
    let store = open();
    let due = enqueue_in(&store, Millis(30), task("a"));
    claim_when_due(&store, &claim_from(TENANT, &[], "w"), due);
}

#[test]
fn a_delayed_task_is_moved_from_its_moment_on_and_not_before() {
    let store = open();
    let due = enqueue_in(&store, Millis(30), task("a"));
    move_when_due(due, || store.move_due_delayed(10));
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}

#[test]
fn a_delayed_task_says_so() {
    let store = open();
    enqueue_in(&store, LONG, task("a"));
    let kept = store.get("a").unwrap();
    assert_eq!(kept.status, TaskStatus::Pending);
    assert_eq!(kept.last_known_location, Location::DelayedZset);
    assert_eq!(counts(&store), [0, 1, 0, 0]);
    assert_eq!(store.queue_length(queue(TENANT, COMMAND)).unwrap(), 0);
}

#[test]
fn a_delayed_task_that_came_due_says_so() {
    let store = open();
    let due = enqueue_in(&store, SHORT, task("a"));
    wait_until(due);
    store.move_due_delayed(1).unwrap();
    assert_eq!(location(&store, "a"), Location::PendingList);
}

#[test]
fn a_moment_in_the_past_means_at_once() {
    let store = open();
    let visible_at = Instant::now() - Millis(1);
    store.enqueue(Enqueue { visible_at, ..Enqueue::now(task("a")) }).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), ["a"]);
}

#[test]
fn a_task_delayed_to_the_end_of_time_stays_there() {
    let store = open();
    let visible_at = Instant(i64::MAX);
    store.enqueue(Enqueue { visible_at, ..Enqueue::now(task("a")) }).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), [""; 0]);
    assert_eq!(counts(&store), [0, 1, 0, 0]);
}

#[test]
fn a_delayed_task_does_not_hide_a_ready_one_behind_it() {
    let store = open();
    enqueue_in(&store, LONG, Task { priority: 9, ..task("delayed") });
    enqueue(&store, task("ready"));
    assert_eq!(claimed_ids(&store, claim_by("w")), ["ready"]);
}

#[test]
fn of_tasks_delayed_differently_only_those_due_are_claimable() {
    let store = open();
    enqueue_in(&store, LONG, task("tomorrow"));
    let due = enqueue_in(&store, SHORT, task("soon"));
    assert_eq!(claim_when_due(&store, &claim_by("w"), due).id, "soon");
    assert_eq!(counts(&store), [0, 1, 1, 0]);
}
