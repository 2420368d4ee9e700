//! Which queues a claim takes tasks from, and what producers hear of it.

use crate::{
    case::{Case, Rule, cases},
    stage::Stage,
};
use codeq_plugin::{Claim, Task};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Order:
        a_claim_of_no_command_takes_tasks_of_any,
        a_claim_of_any_command_takes_the_queues_in_turn,
        the_turn_goes_on_from_claim_to_claim,
        a_long_queue_does_not_keep_a_short_one_from_its_turn,
        within_a_queue_whose_turn_it_is_the_order_holds,
        a_queue_that_ran_empty_gets_its_turn_again,
        commands_are_the_same_in_any_case,
        #[alone] a_task_keeps_the_spelling_of_its_command,
        a_claim_of_nothing_takes_nothing,
        #[alone] a_claim_of_an_unknown_command_takes_nothing_and_leaves_no_queue,
        a_command_that_is_named_twice_counts_once,
        only_the_first_task_wakes_its_queue,
        a_delayed_task_wakes_nobody,
        a_task_that_is_given_back_wakes_its_queue_if_it_was_empty,
        a_task_that_has_to_wait_for_its_retry_wakes_nobody,
    ]
    .into_iter()
}

fn a_claim_of_no_command_takes_tasks_of_any(stage: &Stage) {
    let store = stage.open();
    for command in ["a", "b", "c"] {
        enqueue(&store, task_of(TENANT, command, command));
    }
    let mut claimed = claimed_ids(&store, claim_from(TENANT, &[], "w"));
    claimed.sort();
    assert_eq!(claimed, ["a", "b", "c"]);
}

fn a_claim_of_any_command_takes_the_queues_in_turn(stage: &Stage) {
    let store = stage.open();
    for number in 0..3 {
        for command in ["a", "b", "c"] {
            enqueue(&store, task_of(TENANT, command, &format!("{command}{number}")));
        }
    }
    let claimed = claimed_ids(&store, claim_from(TENANT, &[], "w"));
    for round in claimed.chunks(3) {
        let mut commands: Vec<_> = round.iter().map(|id| &id[..1]).collect();
        commands.sort_unstable();
        assert_eq!(commands, ["a", "b", "c"], "{claimed:?}");
    }
}

fn the_turn_goes_on_from_claim_to_claim(stage: &Stage) {
    let store = stage.open();
    for number in 0..3 {
        for command in ["a", "b", "c"] {
            enqueue(&store, task_of(TENANT, command, &format!("{command}{number}")));
        }
    }
    let one = Claim { max: 1, ..claim_from(TENANT, &[], "w") };
    let claimed: Vec<_> = (0..9).flat_map(|_| claimed_ids(&store, one.clone())).collect();
    for round in claimed.chunks(3) {
        let mut commands: Vec<_> = round.iter().map(|id| &id[..1]).collect();
        commands.sort_unstable();
        assert_eq!(commands, ["a", "b", "c"], "{claimed:?}");
    }
}

fn a_long_queue_does_not_keep_a_short_one_from_its_turn(stage: &Stage) {
    let store = stage.open();
    for number in 0..100 {
        enqueue(&store, Task { priority: 9, ..task_of(TENANT, "long", &number.to_string()) });
    }
    enqueue(&store, task_of(TENANT, "short", "short"));
    let two = Claim { max: 2, ..claim_from(TENANT, &[], "w") };
    assert!(claimed_ids(&store, two).contains(&"short".to_owned()));
}

fn within_a_queue_whose_turn_it_is_the_order_holds(stage: &Stage) {
    let store = stage.open();
    for (id, priority) in [("low", 0), ("high", 9), ("high too", 9)] {
        enqueue(&store, Task { priority, ..task(id) });
    }
    assert_eq!(claimed_ids(&store, claim_from(TENANT, &[], "w")), ["high", "high too", "low"]);
}

fn a_queue_that_ran_empty_gets_its_turn_again(stage: &Stage) {
    let store = stage.open();
    let any = || claim_from(TENANT, &[], "w");
    for round in 0..3 {
        let id = round.to_string();
        enqueue(&store, task(&id));
        assert_eq!(claimed_ids(&store, any()), [id]);
        assert!(claim(&store, any()).is_empty());
    }
}

fn commands_are_the_same_in_any_case(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task_of(TENANT, "Resize", "a"));
    enqueue(&store, task_of(TENANT, "RESIZE", "b"));
    enqueue(&store, task_of(TENANT, "ÄNDERN", "c"));
    assert_eq!(counts_of(&store.queue_stats(queue(TENANT, "rESIZE")).unwrap()), [2, 0, 0, 0]);
    assert_eq!(store.queue_length(queue(TENANT, "reSize")).unwrap(), 2);
    let claim = claim_from(TENANT, &["resizE", "ändern"], "w");
    assert_eq!(claimed_ids(&store, claim), ["a", "b", "c"]);
}

fn a_task_keeps_the_spelling_of_its_command(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task_of(TENANT, "Resize", "a"));
    enqueue(&store, task_of(TENANT, "RESIZE", "b"));
    let claimed = claim(&store, claim_by("w"));
    assert_eq!((&*claimed[0].command, &*claimed[1].command), ("Resize", "RESIZE"));
    assert_eq!(store.admin_queues(None).unwrap()[0].command, "resize");
}

fn a_claim_of_nothing_takes_nothing(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    for commands in [&[COMMAND][..], &[]] {
        let none = Claim { max: 0, ..claim_from(TENANT, commands, "w") };
        assert!(claim(&store, none).is_empty());
    }
    assert_eq!(store.get("a").unwrap().attempts, 0);
}

fn a_claim_of_an_unknown_command_takes_nothing_and_leaves_no_queue(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    assert!(claim(&store, claim_from(TENANT, &["unknown"], "w")).is_empty());
    assert_eq!(store.admin_queues(None).unwrap().len(), 1);
}

fn a_command_that_is_named_twice_counts_once(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    assert_eq!(claimed_ids(&store, claim_from(TENANT, &[COMMAND, "RESIZE"], "w")), ["a"]);
}

fn only_the_first_task_wakes_its_queue(stage: &Stage) {
    let store = stage.open();
    assert!(enqueue(&store, task("a")).awoke);
    assert!(!enqueue(&store, task("b")).awoke);
    assert!(enqueue(&store, task_of(TENANT, "other", "c")).awoke);
    claim(&store, claim_by("w"));
    assert!(enqueue(&store, task("d")).awoke);
}

fn a_delayed_task_wakes_nobody(stage: &Stage) {
    let store = stage.open();
    let visible_at = codeq_plugin::Instant::now() + LONG;
    let delayed = codeq_plugin::Enqueue { visible_at, ..codeq_plugin::Enqueue::now(task("a")) };
    assert!(!store.enqueue(delayed).unwrap().awoke);
    assert!(enqueue(&store, task("b")).awoke);
}

fn a_task_that_is_given_back_wakes_its_queue_if_it_was_empty(stage: &Stage) {
    let store = stage.open();
    enqueue_all(&store, &["a", "b"]);
    let claimed = claim(&store, claim_by("w"));
    assert!(store.abandon_lease(lease(&claimed[0])).unwrap().awoke);
    assert!(!nack(&store, &claimed[1]).awoke);
}

fn a_task_that_has_to_wait_for_its_retry_wakes_nobody(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let returned = store.nack(nack_of(&claimed, Some(LONG), "")).unwrap();
    let waits = returned.delay.0 > 0;
    given(Rule::Backoff, waits, || "a named delay was not heard".into());
    assert!(!returned.awoke);
}
