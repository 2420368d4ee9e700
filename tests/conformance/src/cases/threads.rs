//! Rule 2: a task has one owner at a time, however many workers there are.

use crate::{
    case::{Case, Rule, cases},
    stage::Stage,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use codeq_plugin::{Boxed, Claim, Enqueue, ErrorKind, Instant, Millis, Task, rules::Rules};
use fastrand::Rng;

use super::{stats::assert_reconciled, support::*};

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        OneOwner:
        #[alone] no_task_is_claimed_twice,
        no_task_is_completed_twice,
        leases_of_one_task_do_not_overlap_when_they_run_out,
        #[alone] every_task_is_completed_once_while_workers_fail_and_leases_run_out,
    ]
    .into_iter()
}

const WORKERS: u64 = 6;
/// How long they may take for all of their tasks.
const PATIENCE: Millis = Millis(8_000);

/// Runs `work` in as many threads as there are workers; answers what they bring home.
fn work<T: Send>(work: impl Fn(u64) -> Vec<T> + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> =
            (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        ended.flat_map(|end| end.unwrap_or_else(|payload| resume_unwind(payload))).collect()
    })
}

fn no_task_is_claimed_twice(stage: &Stage) {
    let store = stage.open();
    let batch = (0..2_000).map(|number| {
        let command = ["a", "b", "c"][number % 3];
        Enqueue::now(task_of(TENANT, command, &number.to_string()))
    });
    store.enqueue_all(batch.collect()).unwrap();
    let claimed = work(|worker| {
        let commands = if worker % 2 == 0 { &["a", "b", "c"][..] } else { &[] };
        let some = Claim { max: 3, ..claim_from(TENANT, commands, &worker.to_string()) };
        let mut mine = Vec::new();
        loop {
            let tasks = claimed_ids(&store, some.clone());
            if tasks.is_empty() {
                return mine;
            }
            mine.extend(tasks);
        }
    });
    assert_eq!(claimed.len(), 2_000);
    assert_eq!(BTreeSet::from_iter(claimed).len(), 2_000);
    assert_reconciled(&store, (0..2_000).map(|number| number.to_string()));
}

fn no_task_is_completed_twice(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let answers = work(|_| vec![complete(&store, &claimed)]);
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    assert!(refused.into_iter().all(|answer| kind(answer) == ErrorKind::NotInProgress));
}

fn leases_of_one_task_do_not_overlap_when_they_run_out(stage: &Stage) {
    let store = stage.open_with(Rules { max_attempts: u32::MAX, ..no_wait() });
    enqueue_all(&store, &["a", "b", "c"]);
    let end = Instant::now() + Millis(200);
    let mut claimed = work(|worker| {
        let short = Claim { max: 1, lease: Millis(3), ..claim_by(&worker.to_string()) };
        let mut mine: Vec<Boxed<Task>> = Vec::new();
        while Instant::now() < end {
            mine.extend(claim(&store, short.clone()));
            thread::yield_now();
        }
        mine
    });
    claimed.sort_by_key(|task| (task.id.clone(), task.attempts));
    let mut last: BTreeMap<&str, &Task> = BTreeMap::new();
    for task in &claimed {
        if let Some(before) = last.insert(&task.id, task) {
            assert_eq!(task.attempts, before.attempts + 1, "a delivery was lost or doubled");
            assert!(
                task.updated_at >= lease_until(before),
                "{} and {} held task {} at once",
                before.worker_id,
                task.worker_id,
                task.id
            );
        }
    }
    given(Rule::Leases, claimed.len() > 3, || "no lease ran out".into());
}

fn every_task_is_completed_once_while_workers_fail_and_leases_run_out(stage: &Stage) {
    let store = stage.open_with(Rules { max_attempts: u32::MAX, ..no_wait() });
    let total = 600;
    let open = AtomicUsize::new(total);
    let end = Instant::now() + PATIENCE;
    let completed = work(|worker| {
        let mut random = Rng::with_seed(worker);
        for number in (worker as usize..total).step_by(WORKERS as usize) {
            enqueue_in(&store, Millis(random.i64(-5..5)), task(&number.to_string()));
        }
        let mut mine = Vec::new();
        while open.load(Ordering::Relaxed) > 0 {
            if Instant::now() > end {
                stuck(&store, (0..total).map(|number| number.to_string()));
            }
            let lease = Millis(random.i64(1..10));
            let commands = if random.bool() { &[COMMAND][..] } else { &[] };
            let max = random.u32(1..5);
            let some = Claim { max, lease, ..claim_from(TENANT, commands, &worker.to_string()) };
            for claimed in claim(&store, some) {
                // What is refused was taken over by another worker, who goes on with it.
                match random.u32(0..10) {
                    0 => drop(store.abandon_lease(self::lease(&claimed))),
                    1 => drop(store.nack(nack_of(&claimed, Some(Millis(2)), ""))),
                    2 => {}
                    _ if complete(&store, &claimed).is_ok() => {
                        open.fetch_sub(1, Ordering::Relaxed);
                        mine.push(claimed.id.to_string());
                    }
                    _ => {}
                }
            }
            if worker == 0 {
                store.move_due_delayed(3).unwrap();
                store.requeue_expired(3).unwrap();
            }
        }
        mine
    });
    assert_eq!(completed.len(), total);
    assert_eq!(BTreeSet::from_iter(completed).len(), total);
    let known = (0..total).map(|number| number.to_string());
    assert_eq!(assert_reconciled(&store, known).len(), total);
    assert_eq!(counts(&store), [0; 4]);
}
