//! What the tests say again and again, in few words.

use std::{fmt::Debug, thread, time::Duration};

use codeq_memory::{Config, Memory};
use codeq_plugin::{
    Batch, Boxed, Claim, Claimed, Complete, Completed, Context, Enqueue, Enqueued, ErrorKind,
    Extensions, Instant, Lease, List, Location, Millis, Moved, Nack, Optional, Persistence, Queue,
    QueueStats, Result, ResultStorage, Returned, Task, TaskResult, TaskStatus, TaskStorage, Text,
    log::LogSink,
    rules::{Backoff, BackoffPolicy, Rules},
};

/// The tenant of a test that has only one.
pub(crate) const TENANT: &str = "acme";
/// The command of a test that has only one.
pub(crate) const COMMAND: &str = "resize";
/// A lease or delay of which no test sees the end.
pub(crate) const LONG: Millis = Millis::DAY;
/// A lease or delay of which a test awaits the end.
pub(crate) const SHORT: Millis = Millis(20);

/// A store whose failed tasks are claimable again at once.
pub(crate) fn open() -> Memory {
    open_with(no_wait())
}

pub(crate) fn open_with(rules: Rules) -> Memory {
    open_in(Context { rules, ..context() })
}

pub(crate) fn open_in(context: Context) -> Memory {
    Memory::open(Config::default(), context).unwrap()
}

pub(crate) fn context() -> Context {
    Context {
        provider: "memory".into(),
        rules: no_wait(),
        timezone: "UTC".into(),
        repair_limit: 1_000,
        log: LogSink::none(),
        extensions: Extensions::new(),
    }
}

pub(crate) fn no_wait() -> Rules {
    waiting(BackoffPolicy::Fixed, 0, 900_000)
}

pub(crate) fn waiting(policy: BackoffPolicy, base: i64, max: i64) -> Rules {
    Rules { backoff: Backoff { policy, base: Millis(base), max: Millis(max) }, ..Rules::default() }
}

pub(crate) fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        command: COMMAND.into(),
        tenant_id: TENANT.into(),
        payload: "{}".into(),
        ..Task::default()
    }
}

pub(crate) fn task_of(tenant: &str, command: &str, id: &str) -> Task {
    Task { command: command.into(), tenant_id: tenant.into(), ..task(id) }
}

pub(crate) fn enqueue(store: &Memory, task: Task) -> Enqueued {
    store.enqueue(Enqueue::now(task)).unwrap()
}

pub(crate) fn enqueue_all(store: &Memory, ids: &[&str]) {
    for id in ids {
        enqueue(store, task(id));
    }
}

/// Enqueues a task that is claimable after `delay`. Answers when that is.
pub(crate) fn enqueue_in(store: &Memory, delay: Millis, task: Task) -> Instant {
    let visible_at = Instant::now() + delay;
    let enqueue = Enqueue { visible_at, ..Enqueue::now(task) };
    store.enqueue(enqueue).unwrap();
    visible_at
}

pub(crate) fn keyed(key: &str, task: Task) -> Enqueue {
    Enqueue { idempotency_key: key.into(), ..Enqueue::now(task) }
}

/// Asks for many tasks of the usual queue, for long.
pub(crate) fn claim_by(worker: &str) -> Claim {
    claim_from(TENANT, &[COMMAND], worker)
}

pub(crate) fn claim_from(tenant: &str, commands: &[&str], worker: &str) -> Claim {
    Claim {
        worker_id: worker.into(),
        tenant_id: tenant.into(),
        commands: commands.iter().map(|command| Text::from(*command)).collect(),
        max: 1_000,
        lease: LONG,
        extensions: Extensions::new(),
    }
}

pub(crate) fn claim(store: &Memory, claim: Claim) -> Vec<Boxed<Task>> {
    store.claim(claim).unwrap().tasks.into_iter().collect()
}

/// Takes the only task of the usual queue.
pub(crate) fn claim_one(store: &Memory, worker: &str) -> Boxed<Task> {
    let tasks = store.claim(claim_by(worker)).unwrap().tasks;
    tasks.into_only().expect("one claimable task")
}

pub(crate) fn claimed_ids(store: &Memory, claim: Claim) -> Vec<String> {
    ids(&store.claim(claim).unwrap().tasks)
}

/// Claims until a task comes, and checks that it came with the first claim from `due` on.
pub(crate) fn claim_when_due(store: &Memory, claim: &Claim, due: Instant) -> Boxed<Task> {
    at_due(due, || store.claim(claim.clone()).unwrap().tasks.into_only())
}

/// Moves what is due until something is, and checks that it was with the first call from `due` on.
pub(crate) fn move_when_due(due: Instant, mut moves: impl FnMut() -> Result<Moved>) -> Moved {
    at_due(due, || moves().ok().filter(|moved| moved.count > 0))
}

/// Asks until there is an answer, which must not come before `due`, nor be missing after it.
fn at_due<T>(due: Instant, mut ask: impl FnMut() -> Option<T>) -> T {
    loop {
        let before = Instant::now();
        if let Some(answer) = ask() {
            assert!(Instant::now() >= due, "came before {due}");
            return answer;
        }
        assert!(before < due, "did not come at {before}, though due {due}");
        pause();
    }
}

pub(crate) fn wait_until(moment: Instant) {
    while Instant::now() < moment {
        pause();
    }
}

fn pause() {
    thread::sleep(Duration::from_millis(1));
}

/// The hold that whoever claimed `task` has on it.
pub(crate) fn lease(task: &Task) -> Lease {
    Lease {
        task_id: task.id.clone(),
        worker_id: task.worker_id.clone(),
        tenant_id: task.tenant_id.clone(),
        attempt: task.attempts,
        extensions: Extensions::new(),
    }
}

pub(crate) fn lease_until(task: &Task) -> Instant {
    task.lease_until.into_option().expect("a leased task")
}

pub(crate) fn nack(store: &Memory, task: &Task) -> Returned {
    store.nack(nack_of(task, None, "")).unwrap()
}

pub(crate) fn nack_of(task: &Task, delay: Option<Millis>, reason: &str) -> Nack {
    Nack { lease: lease(task), delay: delay.into(), reason: reason.into() }
}

/// Enqueues a task and lets it fail for the last time.
pub(crate) fn bury(store: &Memory, task: Task) -> Boxed<Task> {
    let buried = enqueue(store, Task { max_attempts: 1, ..task }).task;
    let claim = claim_from(&buried.tenant_id, &[&buried.command], "undertaker");
    let claimed = store.claim(Claim { max: 1, ..claim }).unwrap().tasks;
    let returned = nack(store, &claimed.into_only().unwrap());
    assert_eq!(returned.task.id, buried.id, "another task was in front");
    assert_eq!(returned.task.last_known_location, Location::DlqSet);
    returned.task
}

pub(crate) fn complete(store: &Memory, task: &Task) -> Result<Completed> {
    store.complete(completion(task, TaskStatus::Completed))
}

pub(crate) fn completion(task: &Task, status: TaskStatus) -> Complete {
    Complete { lease: lease(task), result: Boxed::new(result_of(&task.id, status)) }
}

pub(crate) fn result_of(id: &str, status: TaskStatus) -> TaskResult {
    TaskResult {
        task_id: id.into(),
        status,
        result: r#"{"done":true}"#.into(),
        completed_at: Instant(1_700_000_000_000),
        ..TaskResult::default()
    }
}

pub(crate) fn queue(tenant: &str, command: &str) -> Queue {
    Queue { tenant_id: tenant.into(), command: command.into() }
}

/// How many tasks of the usual queue are ready, delayed, leased and dead.
pub(crate) fn counts(store: &Memory) -> [u64; 4] {
    counts_of(&store.queue_stats(queue(TENANT, COMMAND)).unwrap())
}

pub(crate) fn counts_of(stats: &QueueStats) -> [u64; 4] {
    [stats.ready, stats.delayed, stats.in_progress, stats.dlq]
}

pub(crate) fn location(store: &Memory, id: &str) -> Location {
    store.get(id).unwrap().last_known_location
}

pub(crate) fn ids(tasks: &Batch<Boxed<Task>>) -> Vec<String> {
    tasks.iter().map(|task| task.id.to_string()).collect()
}

pub(crate) fn texts(texts: &[&str]) -> List<Text> {
    texts.iter().map(|text| Text::from(*text)).collect()
}

pub(crate) fn kind<T: Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("an operation that must fail").kind()
}

pub(crate) fn some<T>(value: T) -> Optional<T> {
    Optional::RSome(value)
}

/// What a claim moved on its way.
pub(crate) fn moved_by(claimed: Result<Claimed>) -> Moved {
    claimed.unwrap().moved.into_option().map(Boxed::into_inner).unwrap_or_default()
}
