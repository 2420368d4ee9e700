//! What repairs and claims report that they moved.

use crate::{
    case::{Case, Rule, cases},
    stage::{Setup, Stage},
};
use codeq_plugin::{
    Arrival, Claim, Instant, Location, Millis, Moved, Tally, Task,
    rules::{BackoffPolicy, LEASE_EXPIRED_ERROR},
};

use super::{
    records::{delayed, leased},
    support::*,
};

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Reports:
        #[alone] a_repair_without_anything_to_do_reports_nothing,
        #[alone] tasks_that_come_due_arrive_in_their_queues,
        #[alone] a_queue_that_had_tasks_does_not_awake,
        #[alone] tasks_of_several_queues_are_reported_by_queue,
        #[alone] expired_leases_are_counted_and_their_tasks_arrive,
        #[alone] expired_tasks_that_have_to_wait_do_not_arrive,
        #[alone] expired_tasks_without_attempts_left_are_reported_dead,
        #[alone] a_repair_moves_no_more_than_asked_for_and_the_earliest_first,
        #[alone] a_repair_of_nothing_moves_nothing,
        #[alone] a_limit_counts_across_tenants_and_queues,
        #[alone] a_repair_tells_when_the_next_task_comes_due,
        #[alone] a_repair_tells_when_the_next_lease_runs_out,
        #[alone] a_repair_that_stopped_at_its_limit_is_due_again_at_once,
        #[alone] a_moment_that_passed_for_nothing_is_not_told_again,
        a_claim_reports_what_it_moved_on_its_way,
        a_claim_does_not_touch_queues_that_it_did_not_name,
        a_claim_moves_no_more_than_its_limit,
        #[alone] what_a_named_claim_moved_is_not_moved_again,
        #[alone] a_repair_moves_the_earliest_of_all_queues_first,
    ]
    .into_iter()
}

/// The moment by which everything is due that these tests save as due.
const PAST: Instant = Instant(1);

fn a_repair_without_anything_to_do_reports_nothing(stage: &Stage) {
    let store = stage.open();
    for moved in [store.move_due_delayed(10).unwrap(), store.requeue_expired(10).unwrap()] {
        assert_eq!(moved.count, 0);
        assert!(moved.arrivals.is_empty() && moved.expired.is_empty() && moved.dead.is_empty());
    }
}

fn tasks_that_come_due_arrive_in_their_queues(stage: &Stage) {
    let store = stage.open();
    for id in ["a", "b"] {
        store.save(delayed(task(id), PAST)).unwrap();
    }
    let moved = store.move_due_delayed(10).unwrap();
    assert_eq!(moved.count, 2);
    let arrival = Arrival { queue: queue(TENANT, COMMAND), count: 2, awoke: true };
    assert_eq!(moved.arrivals.as_slice(), [arrival]);
    assert!(moved.expired.is_empty() && moved.dead.is_empty());
}

fn a_queue_that_had_tasks_does_not_awake(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("ready"));
    store.save(delayed(task("a"), PAST)).unwrap();
    assert!(!store.move_due_delayed(10).unwrap().arrivals[0].awoke);
}

fn tasks_of_several_queues_are_reported_by_queue(stage: &Stage) {
    let store = stage.open();
    for (tenant, command) in [("a", "x"), ("a", "y"), ("b", "x")] {
        for number in 0..2 {
            let id = format!("{tenant}{command}{number}");
            store.save(delayed(task_of(tenant, command, &id), PAST)).unwrap();
        }
    }
    let moved = store.move_due_delayed(10).unwrap();
    assert_eq!(moved.count, 6);
    let mut arrivals: Vec<_> = moved
        .arrivals
        .iter()
        .map(|arrival| {
            (arrival.queue.tenant_id.as_str(), arrival.queue.command.as_str(), arrival.count)
        })
        .collect();
    arrivals.sort_unstable();
    assert_eq!(arrivals, [("a", "x", 2), ("a", "y", 2), ("b", "x", 2)]);
}

fn expired_leases_are_counted_and_their_tasks_arrive(stage: &Stage) {
    let store = stage.open();
    for id in ["a", "b"] {
        store.save(leased(task(id), PAST)).unwrap();
    }
    let moved = store.requeue_expired(10).unwrap();
    assert_eq!(moved.count, 2);
    assert_eq!(moved.expired.as_slice(), [Tally { queue: queue(TENANT, COMMAND), count: 2 }]);
    assert_eq!(moved.arrivals[0].count, 2);
    assert!(moved.arrivals[0].awoke && moved.dead.is_empty());
}

fn expired_tasks_that_have_to_wait_do_not_arrive(stage: &Stage) {
    let store = stage.open_with(waiting(BackoffPolicy::Fixed, 60_000, 60_000));
    store.save(leased(task("a"), PAST)).unwrap();
    let moved = store.requeue_expired(10).unwrap();
    let place = location(&store, "a");
    given(Rule::Leases, place == Location::DelayedZset, || format!("it is in {place}"));
    assert_eq!((moved.count, moved.expired[0].count), (1, 1));
    assert!(moved.arrivals.is_empty() && moved.dead.is_empty());
}

fn expired_tasks_without_attempts_left_are_reported_dead(stage: &Stage) {
    let store = stage.open();
    store.save(leased(Task { max_attempts: 1, ..task("a") }, PAST)).unwrap();
    let moved = store.requeue_expired(10).unwrap();
    assert_eq!((moved.count, moved.expired[0].count), (1, 1));
    assert!(moved.arrivals.is_empty());
    assert_eq!(moved.dead.as_slice(), [store.get("a").unwrap()]);
    assert_eq!(moved.dead[0].error, LEASE_EXPIRED_ERROR);
}

fn a_repair_moves_no_more_than_asked_for_and_the_earliest_first(stage: &Stage) {
    let store = stage.open();
    for (id, at) in [("c", 3), ("a", 1), ("d", 4), ("b", 2)] {
        store.save(delayed(task(id), Instant(at))).unwrap();
    }
    assert_eq!(store.move_due_delayed(3).unwrap().count, 3);
    let moved = ["a", "b", "c", "d"].map(|id| location(&store, id) == Location::PendingList);
    assert_eq!(moved, [true, true, true, false]);
    for expected in [1, 0] {
        assert_eq!(store.move_due_delayed(3).unwrap().count, expected);
    }
}

fn a_repair_of_nothing_moves_nothing(stage: &Stage) {
    let store = stage.open();
    store.save(delayed(task("a"), PAST)).unwrap();
    store.save(leased(task("b"), PAST)).unwrap();
    assert_eq!(store.move_due_delayed(0).unwrap().count, 0);
    assert_eq!(store.requeue_expired(0).unwrap().count, 0);
    assert_eq!(counts(&store), [0, 1, 1, 0]);
}

fn a_limit_counts_across_tenants_and_queues(stage: &Stage) {
    let store = stage.open();
    for tenant in ["a", "b", "c"] {
        for command in ["x", "y"] {
            let id = format!("{tenant}{command}");
            store.save(leased(task_of(tenant, command, &id), PAST)).unwrap();
        }
    }
    for expected in [4, 2, 0] {
        assert_eq!(store.requeue_expired(4).unwrap().count, expected);
    }
}

fn a_repair_tells_when_the_next_task_comes_due(stage: &Stage) {
    let store = stage.open();
    let later = enqueue_in(&store, Millis(2 * LONG.0), task_of("other", "x", "later"));
    assert_in_time(&store.move_due_delayed(10).unwrap(), later);
    let sooner = enqueue_in(&store, LONG, task("sooner"));
    assert_in_time(&store.move_due_delayed(10).unwrap(), sooner);
}

fn a_repair_tells_when_the_next_lease_runs_out(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let until = lease_until(&claim_one(&store, "w"));
    assert_in_time(&store.requeue_expired(10).unwrap(), until);
}

fn a_repair_that_stopped_at_its_limit_is_due_again_at_once(stage: &Stage) {
    let store = stage.open();
    for id in ["a", "b"] {
        store.save(delayed(task(id), PAST)).unwrap();
    }
    assert_in_time(&store.move_due_delayed(1).unwrap(), Instant::now());
    assert_eq!(store.move_due_delayed(1).unwrap().count, 1);
}

fn a_moment_that_passed_for_nothing_is_not_told_again(stage: &Stage) {
    let store = stage.open();
    let gone = enqueue_in(&store, SHORT, task("gone"));
    let stays = enqueue_in(&store, LONG, task("stays"));
    store.delete("gone").unwrap();
    wait_until(gone);
    let moved = store.move_due_delayed(10).unwrap();
    assert_eq!(moved.count, 0);
    assert_in_time(&moved, stays);
    let next = moved.next.into_option();
    assert!(next.is_none_or(|next| next > gone), "{gone} is over, and told again");
}

/// Whoever sleeps until the next moment that a repair tells of must not sleep too long.
#[track_caller]
fn assert_in_time(moved: &Moved, moment: Instant) {
    if let Some(next) = moved.next.into_option() {
        assert!(next <= moment, "something is due at {moment}, and the next moment is {next}");
    }
}

fn a_claim_reports_what_it_moved_on_its_way(stage: &Stage) {
    for commands in [&[COMMAND][..], &[]] {
        let store = stage.open();
        store.save(delayed(task("delayed"), PAST)).unwrap();
        store.save(leased(task("leased"), PAST)).unwrap();
        store.save(leased(Task { max_attempts: 1, ..task("dead") }, PAST)).unwrap();
        let claimed = store.claim(claim_from(TENANT, commands, "v")).unwrap();
        let mut taken = ids(&claimed.tasks);
        taken.sort();
        assert_eq!(taken, ["delayed", "leased"]);
        let moved = claimed.moved.unwrap();
        assert_eq!(moved.count, 3);
        assert_eq!(moved.arrivals.iter().map(|arrival| arrival.count).sum::<u32>(), 2);
        assert_eq!(moved.expired.iter().map(|tally| tally.count).sum::<u32>(), 2);
        assert_eq!(moved.dead[0].id, "dead");
    }
}

fn a_claim_does_not_touch_queues_that_it_did_not_name(stage: &Stage) {
    let store = stage.open();
    store.save(delayed(task_of(TENANT, "other", "a"), PAST)).unwrap();
    assert_eq!(moved_by(store.claim(claim_by("w"))).count, 0);
    assert_eq!(counts_of(&store.queue_stats(queue(TENANT, "other")).unwrap()), [0, 1, 0, 0]);
}

fn a_claim_moves_no_more_than_its_limit(stage: &Stage) {
    for commands in [&[COMMAND][..], &[]] {
        let store = stage.open_in(Setup { repair_limit: 2, ..Setup::default() });
        for number in 0..5 {
            store.save(delayed(task(&number.to_string()), PAST)).unwrap();
        }
        let moved: Vec<_> = (0..4)
            .map(|_| Claim { max: 1, ..claim_from(TENANT, commands, "w") })
            .map(|claim| moved_by(store.claim(claim)).count)
            .collect();
        assert_eq!(moved, [2, 2, 1, 0]);
    }
}

fn what_a_named_claim_moved_is_not_moved_again(stage: &Stage) {
    let store = stage.open();
    store.save(delayed(task("a"), PAST)).unwrap();
    store.save(leased(task("b"), PAST)).unwrap();
    claim(&store, claim_by("w"));
    assert_eq!(store.move_due_delayed(10).unwrap().count, 0);
    assert_eq!(store.requeue_expired(10).unwrap().count, 0);
    assert_eq!(moved_by(store.claim(claim_from(TENANT, &[], "w"))).count, 0);
}

fn a_repair_moves_the_earliest_of_all_queues_first(stage: &Stage) {
    let store = stage.open();
    for (command, id, at) in [("x", "first", 1), ("x", "third", 3), ("y", "second", 2)] {
        store.save(delayed(task_of(TENANT, command, id), Instant(at))).unwrap();
    }
    store.move_due_delayed(2).unwrap();
    assert_eq!(location(&store, "second"), Location::PendingList);
}
