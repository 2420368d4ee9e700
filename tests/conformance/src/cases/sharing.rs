//! Two stores on one backend, as two hosts have them.

use std::thread;

use codeq_plugin::{Capability, Claim, Event, Millis};

use super::support::*;
use crate::{
    case::{Case, cases},
    stage::{Setup, Stage},
    store::Store,
};

pub(super) fn cases() -> impl Iterator<Item = Case> {
    let owner = cases![
        OneOwner:
        #[shared] what_one_host_enqueues_another_claims,
        #[shared] a_lease_of_one_host_counts_for_another,
        #[shared] #[alone] a_host_takes_back_what_another_let_expire,
        #[shared] a_host_hears_of_what_another_enqueues,
    ];
    let keys = cases![
        Idempotency:
        #[shared] hosts_that_race_with_one_key_get_one_task,
    ];
    owner.into_iter().chain(keys)
}

fn two_hosts(stage: &Stage) -> [Store; 2] {
    let one = stage.open();
    let other = stage.open_beside(&one, &Setup::default()).unwrap();
    [one, other]
}

fn what_one_host_enqueues_another_claims(stage: &Stage) {
    let [one, other] = two_hosts(stage);
    enqueue(&one, task("a"));
    let claimed = claim_one(&other, "w");
    complete(&one, &claimed).unwrap();
    assert!(other.get_result("a").is_ok());
}

fn a_lease_of_one_host_counts_for_another(stage: &Stage) {
    let [one, other] = two_hosts(stage);
    enqueue(&one, task("a"));
    claim_one(&one, "w");
    assert!(claim(&other, claim_by("v")).is_empty());
    assert_eq!(counts(&other), [0, 0, 1, 0]);
}

fn a_host_takes_back_what_another_let_expire(stage: &Stage) {
    let [one, other] = two_hosts(stage);
    enqueue(&one, task("a"));
    let taken = claim(&one, Claim { lease: Millis(30), ..claim_by("w") });
    requeue_when_expired(&other, lease_until(&taken[0]));
    assert_eq!(claim_one(&one, "v").attempts, 2);
}

fn a_host_hears_of_what_another_enqueues(stage: &Stage) {
    if !stage.has(Capability::Events) {
        return stage.skip("the plugin does not declare `events`".into());
    }
    let [one, other] = two_hosts(stage);
    thread::scope(|scope| {
        let heard = scope.spawn(|| {
            loop {
                let events = other.next_events().unwrap();
                let mine = events.iter().any(|event| match event {
                    Event::Arrived(arrival) => other.is_mine(&arrival.queue),
                    Event::Finished(_) => false,
                });
                if mine {
                    return;
                }
            }
        });
        // The listener may not listen yet, and what it missed it is not told.
        for number in 0.. {
            enqueue(&one, task(&number.to_string()));
            if heard.is_finished() {
                break;
            }
            claim(&one, claim_by("w"));
            thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

fn hosts_that_race_with_one_key_get_one_task(stage: &Stage) {
    let hosts = two_hosts(stage);
    for round in 0..20 {
        let key = format!("k{round}");
        let answers: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..6_usize)
                .map(|racer| {
                    let (host, key) = (&hosts[racer % 2], &key);
                    let id = format!("{round}/{racer}");
                    scope.spawn(move || host.enqueue(keyed(key, task(&id))).unwrap())
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
        assert!(answers.iter().all(|answer| answer.task.id == answers[0].task.id));
    }
}
