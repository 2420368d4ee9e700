//! Rule 8: how long a failed task waits.

use crate::{
    case::{Case, Rule, cases},
    stage::Stage,
};
use codeq_plugin::{Location, Millis, Task, rules::BackoffPolicy};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Backoff:
        a_fixed_wait_is_always_the_base,
        a_linear_wait_grows_with_the_attempts_up_to_the_maximum,
        an_exponential_wait_doubles_with_each_attempt_up_to_the_maximum,
        an_exponential_wait_after_very_many_attempts_is_the_maximum,
        equal_jitter_waits_between_half_and_all_of_the_exponential_wait,
        full_jitter_waits_at_most_the_exponential_wait,
        jitter_gives_different_waits,
        a_named_delay_comes_before_the_policy,
        a_named_delay_is_clamped_to_the_maximum,
        a_named_delay_of_nothing_or_less_means_at_once,
        a_failed_task_is_claimable_once_its_wait_is_over_and_not_before,
        a_dead_letter_waits_for_nothing,
    ]
    .into_iter()
}

/// The waits after the first, second, … failure of a task, in milliseconds.
fn waits(stage: &Stage, policy: BackoffPolicy, failures: u32) -> Vec<i64> {
    let store = stage.open_with(waiting(policy, 1_000, 10_000));
    let attempts = |attempts| Task { attempts, max_attempts: 99, ..task("a") };
    (0..failures)
        .map(|failed| {
            store.save(super::records::ready(attempts(failed))).unwrap();
            nack(&store, &claim_one(&store, "w")).delay.0
        })
        .collect()
}

fn a_fixed_wait_is_always_the_base(stage: &Stage) {
    assert_eq!(waits(stage, BackoffPolicy::Fixed, 4), [1_000; 4]);
}

fn a_linear_wait_grows_with_the_attempts_up_to_the_maximum(stage: &Stage) {
    let expected: Vec<i64> = (1..=12).map(|attempt| (attempt * 1_000).min(10_000)).collect();
    assert_eq!(waits(stage, BackoffPolicy::Linear, 12), expected);
}

fn an_exponential_wait_doubles_with_each_attempt_up_to_the_maximum(stage: &Stage) {
    assert_eq!(waits(stage, BackoffPolicy::Exponential, 5), [2_000, 4_000, 8_000, 10_000, 10_000]);
}

fn an_exponential_wait_after_very_many_attempts_is_the_maximum(stage: &Stage) {
    let store = stage.open_with(waiting(BackoffPolicy::Exponential, 1_000, 10_000));
    for attempts in [61, 62, 63, 64, 1_000, u32::MAX - 2] {
        let worn = Task { attempts, max_attempts: u32::MAX, ..task("a") };
        store.save(super::records::ready(worn)).unwrap();
        let returned = nack(&store, &claim_one(&store, "w"));
        assert_eq!(returned.delay, Millis(10_000), "after {attempts}");
    }
}

fn equal_jitter_waits_between_half_and_all_of_the_exponential_wait(stage: &Stage) {
    for (wait, whole) in
        waits(stage, BackoffPolicy::ExpEqualJitter, 4).iter().zip([2_000, 4_000, 8_000, 10_000])
    {
        assert!((whole / 2..=whole).contains(wait), "{wait} of {whole}");
    }
}

fn full_jitter_waits_at_most_the_exponential_wait(stage: &Stage) {
    for (wait, whole) in
        waits(stage, BackoffPolicy::ExpFullJitter, 4).iter().zip([2_000, 4_000, 8_000, 10_000])
    {
        assert!((0..=whole).contains(wait), "{wait} of {whole}");
    }
}

fn jitter_gives_different_waits(stage: &Stage) {
    for policy in [BackoffPolicy::ExpEqualJitter, BackoffPolicy::ExpFullJitter] {
        let store = stage.open_with(waiting(policy, 1_000, 10_000));
        let waits: Vec<_> = (0..20)
            .map(|_| {
                store.save(super::records::ready(Task { max_attempts: 9, ..task("a") })).unwrap();
                nack(&store, &claim_one(&store, "w")).delay.0
            })
            .collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{policy}: always {}", waits[0]);
    }
}

fn a_named_delay_comes_before_the_policy(stage: &Stage) {
    let store = stage.open_with(waiting(BackoffPolicy::Fixed, 1_000, 10_000));
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let returned = store.nack(nack_of(&claimed, Some(Millis(1_234)), "")).unwrap();
    assert_eq!(returned.delay, Millis(1_234));
    assert_eq!(returned.task.last_known_location, Location::DelayedZset);
}

fn a_named_delay_is_clamped_to_the_maximum(stage: &Stage) {
    let store = stage.open_with(waiting(BackoffPolicy::Fixed, 1_000, 10_000));
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let returned = store.nack(nack_of(&claimed, Some(Millis(i64::MAX)), "")).unwrap();
    assert_eq!(returned.delay, Millis(10_000));
}

fn a_named_delay_of_nothing_or_less_means_at_once(stage: &Stage) {
    let store = stage.open_with(waiting(BackoffPolicy::Fixed, 1_000, 10_000));
    enqueue(&store, task("a"));
    for delay in [0, -1, i64::MIN] {
        let claimed = claim_one(&store, "w");
        let returned = store.nack(nack_of(&claimed, Some(Millis(delay)), "")).unwrap();
        assert_eq!(returned.delay, Millis::ZERO);
        assert_eq!(returned.task.last_known_location, Location::PendingList);
    }
}

fn a_failed_task_is_claimable_once_its_wait_is_over_and_not_before(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let returned = store.nack(nack_of(&claimed, Some(Millis(30)), "")).unwrap();
    let due = returned.task.updated_at + Millis(30);
    claim_when_due(&store, &claim_by("w"), due);
}

fn a_dead_letter_waits_for_nothing(stage: &Stage) {
    let store = stage.open_with(waiting(BackoffPolicy::Fixed, 1_000, 10_000));
    enqueue(&store, Task { max_attempts: 1, ..task("a") });
    let claimed = claim_one(&store, "w");
    let returned = store.nack(nack_of(&claimed, Some(LONG), "")).unwrap();
    let place = returned.task.last_known_location;
    given(Rule::Attempts, place == Location::DlqSet, || format!("it is in {place}"));
    assert_eq!(returned.delay, Millis::ZERO);
    assert!(!returned.awoke);
}
