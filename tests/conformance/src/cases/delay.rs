//! Rule 4: when a delayed task is claimable.

use crate::{
    case::{Case, cases},
    stage::{Setup, Stage},
};
use codeq_plugin::{Enqueue, Instant, Location, Millis, Task, TaskStatus};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Delay:
        a_delayed_task_is_claimable_from_its_moment_on_and_not_before,
        a_delayed_task_is_claimable_by_a_worker_of_any_command_from_its_moment_on,
        #[alone] a_delayed_task_is_moved_from_its_moment_on_and_not_before,
        a_delayed_task_says_so,
        #[alone] a_delayed_task_that_came_due_says_so,
        #[alone] a_moment_in_the_past_means_at_once,
        a_task_delayed_to_the_end_of_time_stays_there,
        a_delayed_task_does_not_hide_a_ready_one_behind_it,
        of_tasks_delayed_differently_only_those_due_are_claimable,
        a_first_claim_after_the_moment_gets_all_that_is_due,
    ]
    .into_iter()
}

fn a_delayed_task_is_claimable_from_its_moment_on_and_not_before(stage: &Stage) {
    let store = stage.open();
    let due = enqueue_in(&store, Millis(30), task("a"));
    claim_when_due(&store, &claim_by("w"), due);
}

fn a_delayed_task_is_claimable_by_a_worker_of_any_command_from_its_moment_on(stage: &Stage) {
    let store = stage.open();
    let due = enqueue_in(&store, Millis(30), task("a"));
    claim_when_due(&store, &claim_from(TENANT, &[], "w"), due);
}

fn a_delayed_task_is_moved_from_its_moment_on_and_not_before(stage: &Stage) {
    let store = stage.open();
    // Long enough for a busy machine to come to it before.
    let due = enqueue_in(&store, Millis(150), task("a"));
    move_when_due(&store, due);
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}

fn a_delayed_task_says_so(stage: &Stage) {
    let store = stage.open();
    enqueue_in(&store, LONG, task("a"));
    let kept = store.get("a").unwrap();
    assert_eq!(kept.status, TaskStatus::Pending);
    assert_eq!(kept.last_known_location, Location::DelayedZset);
    assert_eq!(counts(&store), [0, 1, 0, 0]);
    assert_eq!(store.queue_length(queue(TENANT, COMMAND)).unwrap(), 0);
}

fn a_delayed_task_that_came_due_says_so(stage: &Stage) {
    let store = stage.open();
    let due = enqueue_in(&store, SHORT, task("a"));
    wait_until(due);
    store.move_due_delayed(1).unwrap();
    assert_eq!(location(&store, "a"), Location::PendingList);
}

fn a_moment_in_the_past_means_at_once(stage: &Stage) {
    let store = stage.open();
    let visible_at = Instant::now() - Millis(1);
    store.enqueue(Enqueue { visible_at, ..Enqueue::now(task("a")) }).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), ["a"]);
}

fn a_task_delayed_to_the_end_of_time_stays_there(stage: &Stage) {
    let store = stage.open();
    let visible_at = Instant(i64::MAX);
    store.enqueue(Enqueue { visible_at, ..Enqueue::now(task("a")) }).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), [""; 0]);
    assert_eq!(counts(&store), [0, 1, 0, 0]);
}

fn a_delayed_task_does_not_hide_a_ready_one_behind_it(stage: &Stage) {
    let store = stage.open();
    enqueue_in(&store, LONG, Task { priority: 9, ..task("delayed") });
    enqueue(&store, task("ready"));
    assert_eq!(claimed_ids(&store, claim_by("w")), ["ready"]);
}

fn of_tasks_delayed_differently_only_those_due_are_claimable(stage: &Stage) {
    let store = stage.open();
    enqueue_in(&store, LONG, task("tomorrow"));
    let due = enqueue_in(&store, SHORT, task("soon"));
    assert_eq!(claim_when_due(&store, &claim_by("w"), due).id, "soon");
    assert_eq!(counts(&store), [0, 1, 1, 0]);
}

fn a_first_claim_after_the_moment_gets_all_that_is_due(stage: &Stage) {
    let store = stage.open_in(Setup { repair_limit: 2, ..Setup::default() });
    for id in ["a", "b", "c"] {
        store.save(super::records::delayed(task(id), Instant(1))).unwrap();
    }
    assert_eq!(claim(&store, claim_by("w")).len(), 3);
}
