//! Whether the memory plugin slows down as it fills: each operation at a thousand tasks and at more.
//!
//! `GROWTH_MOST=10000000` goes on to ten million tasks, which need some 12 GB.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up fails")]

use std::time::Instant as Clock;

use codeq_memory::{Config, Memory};
use codeq_plugin::{
    Boxed, Claim, Complete, Context, Enqueue, Extensions, Instant, Lease, Millis, Persistence,
    Placed, Queue, ResultStorage, Task, TaskResult, TaskStatus, TaskStorage, Text,
    log::LogSink,
    rules::{Placement, Rules, placement_of},
};

/// How many times each operation is timed.
const TIMES: usize = 2000;

fn main() {
    let most = std::env::var("GROWTH_MOST").ok().and_then(|text| text.parse().ok());
    let most: usize = most.unwrap_or(1_000_000);
    println!("nanoseconds an operation, median of {TIMES}, by the number of tasks in the store");
    println!("  {:>10}  enqueue  claim  complete  come due  expire  stats", "tasks");
    let mut size = 1000;
    while size <= most {
        let figures = measure(size);
        let [enqueue, claim, complete, due, expire, stats] = figures;
        println!(
            "  {size:>10}  {enqueue:>7}  {claim:>5}  {complete:>8}  {due:>8}  {expire:>6}  {stats:>5}"
        );
        size *= 10;
    }
}

/// A store in which a quarter of `size` tasks each is ready, delayed, leased and completed.
fn filled(size: usize) -> Memory {
    let store = open();
    let far = Instant::now() + Millis::DAY;
    for number in 0..size {
        let mut task = task(&format!("filler-{number}"));
        task.created_at = Instant::now();
        task.updated_at = task.created_at;
        let placed = match number % 4 {
            0 => Placed { task: Boxed::new(task), visible_at: Instant::EPOCH },
            1 => {
                task.last_known_location = codeq_plugin::Location::DelayedZset;
                Placed { task: Boxed::new(task), visible_at: far + Millis(number as i64 % 5000) }
            }
            2 => {
                task.status = TaskStatus::InProgress;
                task.lease_until = Some(far + Millis(number as i64 % 5000)).into();
                Placed { task: Boxed::new(task), visible_at: Instant::EPOCH }
            }
            _ => {
                task.status = TaskStatus::Completed;
                Placed { task: Boxed::new(task), visible_at: Instant::EPOCH }
            }
        };
        assert_ne!(placement_of(&placed.task, far), Placement::Dead);
        store.save(placed).unwrap();
    }
    store
}

fn measure(size: usize) -> [u128; 6] {
    let store = filled(size);
    let mut number = 0;
    let enqueue = median(|| {
        number += 1;
        let enqueue = Enqueue::now(task(&format!("timed-{number}")));
        timed(|| store.enqueue(enqueue).unwrap()).0
    });
    let mut claimed = Vec::new();
    let claim = median(|| {
        let claim = claim(Millis::DAY);
        let (time, taken) = timed(|| store.claim(claim).unwrap());
        claimed.extend(taken.tasks);
        time
    });
    let complete = median(|| {
        let complete = complete(claimed.pop().unwrap());
        timed(|| store.complete(complete).unwrap()).0
    });
    let mut number = 0;
    let due = median(|| {
        number += 1;
        let mut task = task(&format!("due-{number}"));
        task.last_known_location = codeq_plugin::Location::DelayedZset;
        store.save(Placed { task: Boxed::new(task), visible_at: Instant(1) }).unwrap();
        let (time, moved) = timed(|| store.move_due_delayed(1).unwrap());
        assert_eq!(moved.count, 1);
        time
    });
    let mut number = 0;
    let expire = median(|| {
        number += 1;
        let mut task = task(&format!("expired-{number}"));
        task.status = TaskStatus::InProgress;
        task.lease_until = Some(Instant(1)).into();
        store.save(Placed { task: Boxed::new(task), visible_at: Instant::EPOCH }).unwrap();
        let (time, moved) = timed(|| store.requeue_expired(1).unwrap());
        assert_eq!(moved.count, 1);
        time
    });
    let stats = median(|| {
        let queue = Queue { tenant_id: "acme".into(), command: "render".into() };
        timed(|| store.queue_stats(queue).unwrap()).0
    });
    [enqueue, claim, complete, due, expire, stats]
}

fn timed<T>(run: impl FnOnce() -> T) -> (u128, T) {
    let start = Clock::now();
    let value = run();
    (start.elapsed().as_nanos(), value)
}

fn median(mut run: impl FnMut() -> u128) -> u128 {
    let mut times: Vec<u128> = (0..TIMES).map(|_| run()).collect();
    times.sort_unstable();
    times[TIMES / 2]
}

fn open() -> Memory {
    let context = Context {
        provider: "memory".into(),
        rules: Rules::default(),
        timezone: "UTC".into(),
        repair_limit: 200,
        log: LogSink::none(),
        extensions: Extensions::new(),
    };
    Memory::open(Config::default(), context).unwrap()
}

fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        command: "render".into(),
        payload: "{}".into(),
        tenant_id: "acme".into(),
        ..Task::default()
    }
}

fn claim(lease: Millis) -> Claim {
    Claim {
        worker_id: "worker".into(),
        tenant_id: "acme".into(),
        commands: [Text::from("render")].into_iter().collect(),
        max: 1,
        lease,
        extensions: Extensions::new(),
    }
}

fn complete(task: Boxed<Task>) -> Complete {
    let task = Boxed::into_inner(task);
    let result = TaskResult {
        task_id: task.id.clone(),
        status: TaskStatus::Completed,
        result: "{}".into(),
        ..TaskResult::default()
    };
    let lease = Lease {
        task_id: task.id,
        worker_id: task.worker_id,
        tenant_id: task.tenant_id,
        attempt: task.attempts,
        extensions: Extensions::new(),
    };
    Complete { lease, result: Boxed::new(result) }
}
