//! What must hold for every task and every sequence of events.

use proptest::prelude::*;

use super::*;

const NOW: Instant = Instant(1_700_000_000_000);

fn rules() -> impl Strategy<Value = Rules> {
    let policy = proptest::sample::select(&BackoffPolicy::ALL[..]);
    (policy, 0..10_000_i64, 0..1_000_000_i64, 1..20_u32).prop_map(
        |(policy, base, max, max_attempts)| Rules {
            backoff: Backoff { policy, base: Millis(base), max: Millis(max) },
            max_attempts,
            ..Rules::default()
        },
    )
}

fn jitter() -> impl Strategy<Value = Jitter> {
    (0.0..=1.0).prop_map(Jitter::exactly)
}

fn task() -> impl Strategy<Value = Task> {
    (any::<u8>(), 0..8_u32).prop_map(|(priority, max_attempts)| Task {
        id: "t".into(),
        command: "C".into(),
        tenant_id: "a".into(),
        priority,
        max_attempts,
        ..Task::default()
    })
}

/// What can happen to a task that a worker holds.
#[derive(Clone, Debug)]
enum Ending {
    Nack(Option<i64>),
    Abandon,
    Expire,
    Heartbeat,
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        proptest::option::of(-5..2_000_000_i64).prop_map(Ending::Nack),
        Just(Ending::Abandon),
        Just(Ending::Expire),
        Just(Ending::Heartbeat),
    ]
}

fn lease(worker: &str, attempt: u32) -> Lease {
    Lease {
        task_id: "t".into(),
        worker_id: worker.into(),
        tenant_id: "a".into(),
        attempt,
        ..Lease::default()
    }
}

proptest! {
    #[test]
    fn no_wait_is_longer_than_the_maximum_or_shorter_than_nothing(
        rules in rules(), attempts in any::<u32>(), jitter in jitter(), asked in any::<i64>(),
    ) {
        let bounds = Millis::ZERO..=rules.backoff.max;
        prop_assert!(bounds.contains(&rules.backoff.delay(attempts, jitter)));
        prop_assert!(bounds.contains(&rules.backoff.clamp(Millis(asked))));
    }

    #[test]
    fn equal_jitter_waits_at_least_half_and_full_jitter_at_most_all_of_the_exponential_wait(
        base in 0..10_000_i64, attempts in 0..40_u32, jitter in jitter(),
    ) {
        let wait = |policy| {
            let backoff = Backoff { policy, base: Millis(base), max: Millis(1_000_000) };
            backoff.delay(attempts, jitter).0
        };
        let whole = wait(BackoffPolicy::Exponential);
        prop_assert!((whole / 2..=whole).contains(&wait(BackoffPolicy::ExpEqualJitter)));
        prop_assert!((0..=whole).contains(&wait(BackoffPolicy::ExpFullJitter)));
    }

    #[test]
    fn a_task_is_delivered_at_most_max_attempts_times_whatever_happens(
        rules in rules(), mut task in task(), endings in prop::collection::vec((ending(), jitter()), 0..60),
    ) {
        rules.enqueue(&mut task, NOW, NOW);
        let limit = task.max_attempts;
        let mut failures = 0;
        for (ending, jitter) in endings {
            let placement = rules.claim(&mut task, &"w".into(), Millis(10), NOW);
            prop_assert_eq!(placement, Placement::Leased(NOW + Millis(10)));
            prop_assert!(task.attempts <= limit);
            let before = task.attempts;
            let held = lease("w", before);
            let placement = match ending {
                Ending::Nack(delay) => {
                    failures += 1;
                    rules.nack(&mut task, &held, delay.map(Millis), "", jitter, NOW).unwrap()
                }
                Ending::Expire => {
                    failures += 1;
                    rules.expire(&mut task, jitter, NOW)
                }
                Ending::Abandon => {
                    let placement = rules.abandon(&mut task, &held, NOW).unwrap();
                    prop_assert_eq!(task.attempts, before - 1);
                    placement
                }
                Ending::Heartbeat => {
                    rules.extend(&mut task, &held, Millis(20), NOW).unwrap();
                    rules.abandon(&mut task, &held, NOW).unwrap()
                }
            };
            prop_assert!(task.worker_id.is_empty() && task.lease_until.is_none());
            prop_assert_eq!(placement == Placement::Dead, failures == limit);
            prop_assert_eq!(placement, placement_of(&task, match placement {
                Placement::Delayed(at) => at,
                _ => NOW,
            }));
            if placement == Placement::Dead {
                prop_assert_eq!(task.status, TaskStatus::Failed);
                prop_assert!(!task.error.is_empty());
                prop_assert_eq!(rules.redrive(&mut task, NOW).unwrap(), Placement::Ready);
                prop_assert_eq!(task.attempts, 0);
                failures = 0;
            }
        }
    }

    #[test]
    fn only_the_holder_of_the_running_attempt_passes_the_fence(
        rules in rules(), mut task in task(), attempt in 0..4_u32, same_worker in any::<bool>(),
    ) {
        rules.enqueue(&mut task, NOW, NOW);
        task.max_attempts = 9;
        rules.claim(&mut task, &"w".into(), Millis(10), NOW);
        let late = NOW + Millis::DAY;
        rules.nack(&mut task, &lease("w", 1), Some(Millis(0)), "", Jitter::exactly(0.5), NOW).unwrap();
        prop_assert_eq!(
            fence(&task, &lease("w", 1)).unwrap_err().kind(), crate::ErrorKind::NotInProgress);
        rules.claim(&mut task, &"w".into(), Millis(10), NOW);

        let held = lease(if same_worker { "w" } else { "x" }, attempt);
        let mine = same_worker && (attempt == 0 || attempt == 2);
        let before = task.clone();
        let done = rules.complete(&mut task, &held, TaskStatus::Completed, "", late);
        if mine {
            prop_assert_eq!(done.unwrap(), Placement::Done);
            prop_assert_eq!(
                fence(&task, &held).unwrap_err().kind(), crate::ErrorKind::NotInProgress);
        } else {
            prop_assert_eq!(done.unwrap_err().kind(), crate::ErrorKind::NotOwner);
            prop_assert_eq!(task, before);
        }
    }

    #[test]
    fn a_task_is_retained_at_least_until_its_time_has_come(
        rules in rules(), mut task in task(), ahead in -1_000_i64..1_000_000_000,
    ) {
        let visible_at = NOW + Millis(ahead);
        let placement = rules.enqueue(&mut task, visible_at, NOW);
        prop_assert_eq!(placement == Placement::Ready, ahead <= 0);
        prop_assert!(task.priority <= MAX_PRIORITY);
        prop_assert!(rules.retained_until(&task, placement) >= visible_at + rules.retention - Millis(1_000));
        prop_assert!(rules.retained_until(&task, placement) >= NOW + rules.retention);
    }
}

#[test]
fn the_wait_of_each_policy_is_the_one_of_the_contract() {
    let wait = |policy, attempts| {
        let backoff = Backoff { policy, ..Backoff::default() };
        backoff.delay(attempts, Jitter::exactly(1.0)).0
    };
    assert_eq!(wait(BackoffPolicy::Fixed, 3), 5_000);
    assert_eq!(wait(BackoffPolicy::Linear, 0), 5_000);
    assert_eq!(wait(BackoffPolicy::Linear, 3), 15_000);
    assert_eq!(wait(BackoffPolicy::Exponential, 0), 5_000);
    assert_eq!(wait(BackoffPolicy::Exponential, 3), 40_000);
    assert_eq!(wait(BackoffPolicy::Exponential, 63), 900_000);
    assert_eq!(wait(BackoffPolicy::Exponential, u32::MAX), 900_000);
    assert_eq!(wait(BackoffPolicy::ExpFullJitter, 3), 40_000);
}

#[test]
fn the_reason_of_a_dead_letter_is_the_one_given_or_what_befell_it() {
    let rules = Rules { max_attempts: 1, ..Rules::default() };
    let bury = |reason: Option<&str>| {
        let mut task = Task { id: "t".into(), tenant_id: "a".into(), ..Task::default() };
        rules.enqueue(&mut task, NOW, NOW);
        rules.claim(&mut task, &"w".into(), Millis(1), NOW);
        match reason {
            Some(reason) => {
                rules.nack(&mut task, &lease("w", 1), None, reason, Jitter::random(), NOW).unwrap();
            }
            None => {
                rules.expire(&mut task, Jitter::random(), NOW);
            }
        }
        task.error.into_string()
    };
    assert_eq!(bury(Some("no disk")), "no disk");
    assert_eq!(bury(Some("")), MAX_ATTEMPTS_ERROR);
    assert_eq!(bury(None), LEASE_EXPIRED_ERROR);
}
