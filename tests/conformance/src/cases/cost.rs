//! Rule 12: how operations slow down as the backlog grows.

use std::time::{Duration, Instant as Clock};

use codeq_plugin::{
    Boxed, Claim, Complete, Enqueue, Lease, Queue, Result, Task, TaskResult, TaskStatus,
};

use super::support::LONG;
use crate::{
    case::{Case, Rule},
    report::Figure,
    stage::Stage,
    store::Store,
};

/// How often each operation is timed.
const TIMES: usize = 301;
/// How many tasks are enqueued at a time to fill the queue.
const BATCH: u64 = 500;
/// Growth beyond this deserves a look. A logarithm from a thousand to a million doubles; caches do
/// the rest.
const FACTOR: f64 = 3.0;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    let case = Case::of(
        Rule::Cost,
        "operations_are_no_slower_with_a_long_backlog_and_many_leases",
        operations_are_no_slower_with_a_long_backlog_and_many_leases,
    );
    [case.slow()].into_iter()
}

fn operations_are_no_slower_with_a_long_backlog_and_many_leases(stage: &Stage) {
    let store = stage.open();
    let mut filled = 0;
    let mut left_out = None;
    for &backlog in &stage.plan().backlogs {
        let limit = Clock::now() + Duration::from_secs(stage.plan().fill_seconds);
        let from = filled;
        while filled < backlog {
            fill(&store, filled, BATCH.min(backlog - filled)).expect("a full queue");
            filled += BATCH.min(backlog - filled);
            if Clock::now() > limit {
                break;
            }
        }
        if filled < backlog {
            let seconds = stage.plan().fill_seconds;
            left_out = Some(format!(
                "a backlog of {backlog} was left out: in {seconds} s it came from {from} to {filled}"
            ));
            break;
        }
        // A tenth of them stay leased.
        hold(&store, backlog / 10).expect("leases");
        let mut figures = stage.figures.lock().expect("figures");
        for (what, nanos) in measure(&store, filled).expect("operations to time") {
            figures.push(Figure { what: what.into(), tasks: backlog, nanos });
        }
    }
    let figures = stage.figures.lock().expect("figures").clone();
    let mut notes: Vec<String> = left_out.into_iter().collect();
    for what in ["enqueue", "claim", "complete", "stats"] {
        let mine: Vec<_> = figures.iter().filter(|figure| figure.what == what).collect();
        if let (Some(first), Some(last)) = (mine.first(), mine.last()) {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds")]
            let factor = last.nanos as f64 / first.nanos.max(1) as f64;
            if factor > FACTOR {
                notes.push(format!(
                    "{what} takes {factor:.1} times as long with {} tasks as with {}",
                    last.tasks, first.tasks
                ));
            }
        }
    }
    if !notes.is_empty() {
        stage.flag(notes.join("; "));
    }
}

fn task(number: u64) -> Task {
    Task {
        id: format!("cost-{number}").into(),
        tenant_id: "cost".into(),
        command: "render".into(),
        payload: "{}".into(),
        ..Task::default()
    }
}

fn fill(store: &Store, from: u64, count: u64) -> Result<()> {
    let batch = (from..from + count).map(|number| Enqueue::now(task(number))).collect();
    store.enqueue_all(batch)?.into_iter().try_for_each(|made| made.map(drop))
}

fn claim(max: u32) -> Claim {
    Claim {
        worker_id: "w".into(),
        tenant_id: "cost".into(),
        commands: ["render".into()].into_iter().collect(),
        max,
        lease: LONG,
        ..Claim::default()
    }
}

/// Leases so many tasks that are put back at the end, so that the backlog stays as long.
fn hold(store: &Store, count: u64) -> Result<()> {
    let mut held = 0;
    while held < count {
        let max = u32::try_from((count - held).min(BATCH)).unwrap_or(u32::MAX);
        let got = store.claim(claim(max))?.tasks.len() as u64;
        if got == 0 {
            break;
        }
        held += got;
    }
    Ok(())
}

fn measure(store: &Store, filled: u64) -> Result<[(&'static str, u64); 4]> {
    let mut times = [const { Vec::new() }; 4];
    for number in 0..TIMES as u64 {
        let enqueue = Enqueue::now(task(1_000_000_000 + filled * 1_000 + number));
        let began = Clock::now();
        store.enqueue(enqueue)?;
        times[0].push(began.elapsed());
        let one = claim(1);
        let began = Clock::now();
        let claimed = store.claim(one)?.tasks;
        times[1].push(began.elapsed());
        for task in &claimed {
            let complete = completion(task);
            let began = Clock::now();
            store.complete(complete)?;
            times[2].push(began.elapsed());
        }
        let queue = Queue { tenant_id: "cost".into(), command: "render".into() };
        let began = Clock::now();
        store.queue_stats(queue)?;
        times[3].push(began.elapsed());
    }
    let [enqueue, claim, complete, stats] = times.map(median);
    Ok([("enqueue", enqueue), ("claim", claim), ("complete", complete), ("stats", stats)])
}

fn completion(task: &Task) -> Complete {
    let result = TaskResult {
        task_id: task.id.clone(),
        status: TaskStatus::Completed,
        result: "{}".into(),
        ..TaskResult::default()
    };
    let lease = Lease {
        task_id: task.id.clone(),
        worker_id: task.worker_id.clone(),
        tenant_id: task.tenant_id.clone(),
        attempt: task.attempts,
        ..Lease::default()
    };
    Complete { lease, result: Boxed::new(result) }
}

fn median(mut times: Vec<Duration>) -> u64 {
    times.sort();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    u64::try_from(middle.as_nanos()).unwrap_or(u64::MAX)
}
