//! What the cases say again and again, in few words.

use std::{fmt::Debug, panic::panic_any, thread, time::Duration};

use codeq_plugin::{
    Batch, Boxed, Claim, Claimed, Complete, Completed, Enqueue, Enqueued, ErrorKind, Extensions,
    Instant, Lease, List, Location, Millis, Moved, Nack, Optional, Placed, Queue, QueueStats,
    Result, Returned, Task, TaskResult, TaskStatus, Text,
};

pub(super) use crate::stage::{no_wait, waiting};
use crate::{
    case::{Broken, Rule},
    store::Store,
};

/// The tenant of a case that has only one.
pub(super) const TENANT: &str = "acme";
/// The command of a case that has only one.
pub(super) const COMMAND: &str = "resize";
/// A lease or delay of which no case sees the end.
pub(super) const LONG: Millis = Millis::DAY;
/// A lease or delay of which a case awaits the end.
pub(super) const SHORT: Millis = Millis(20);

pub(super) fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        command: COMMAND.into(),
        tenant_id: TENANT.into(),
        payload: "{}".into(),
        ..Task::default()
    }
}

pub(super) fn task_of(tenant: &str, command: &str, id: &str) -> Task {
    Task { command: command.into(), tenant_id: tenant.into(), ..task(id) }
}

pub(super) fn enqueue(store: &Store, task: Task) -> Enqueued {
    store.enqueue(Enqueue::now(task)).unwrap()
}

pub(super) fn enqueue_all(store: &Store, ids: &[&str]) {
    for id in ids {
        enqueue(store, task(id));
    }
}

/// Enqueues a task that is claimable after `delay`. Answers when that is.
pub(super) fn enqueue_in(store: &Store, delay: Millis, task: Task) -> Instant {
    let visible_at = Instant::now() + delay;
    let enqueue = Enqueue { visible_at, ..Enqueue::now(task) };
    store.enqueue(enqueue).unwrap();
    visible_at
}

pub(super) fn keyed(key: &str, task: Task) -> Enqueue {
    Enqueue { idempotency_key: key.into(), ..Enqueue::now(task) }
}

/// Asks for many tasks of the usual queue, for long.
pub(super) fn claim_by(worker: &str) -> Claim {
    claim_from(TENANT, &[COMMAND], worker)
}

pub(super) fn claim_from(tenant: &str, commands: &[&str], worker: &str) -> Claim {
    Claim {
        worker_id: worker.into(),
        tenant_id: tenant.into(),
        commands: commands.iter().map(|command| Text::from(*command)).collect(),
        max: 1_000,
        lease: LONG,
        extensions: Extensions::new(),
    }
}

pub(super) fn claim(store: &Store, claim: Claim) -> Vec<Boxed<Task>> {
    store.claim(claim).unwrap().tasks.into_iter().collect()
}

/// Takes the only task of the usual queue.
pub(super) fn claim_one(store: &Store, worker: &str) -> Boxed<Task> {
    let tasks = store.claim(claim_by(worker)).unwrap().tasks;
    tasks.into_only().expect("one claimable task")
}

pub(super) fn claimed_ids(store: &Store, claim: Claim) -> Vec<String> {
    ids(&store.claim(claim).unwrap().tasks)
}

/// Claims until a task comes, and checks that it came with the first claim from `due` on.
#[track_caller]
pub(super) fn claim_when_due(store: &Store, claim: &Claim, due: Instant) -> Boxed<Task> {
    at_due(Rule::Delay, due, || store.claim(claim.clone()).unwrap().tasks.into_only())
}

/// Claims until a task comes whose lease runs out, and checks that it came with the first claim from
/// `until` on.
#[track_caller]
pub(super) fn claim_when_expired(store: &Store, claim: &Claim, until: Instant) -> Boxed<Task> {
    at_due(Rule::Leases, until, || store.claim(claim.clone()).unwrap().tasks.into_only())
}

/// Moves what is due until something is, and checks that it was with the first call from `due` on.
#[track_caller]
pub(super) fn move_when_due(store: &Store, due: Instant) -> Moved {
    at_due(Rule::Delay, due, || store.move_due_delayed(1_000).ok().filter(|moved| moved.count > 0))
}

/// Takes back what has expired, as [`move_when_due`].
#[track_caller]
pub(super) fn requeue_when_expired(store: &Store, until: Instant) -> Moved {
    let requeue = || store.requeue_expired(1_000).ok().filter(|moved| moved.count > 0);
    at_due(Rule::Leases, until, requeue)
}

/// Asks until there is an answer, which must not come before `due`, nor be missing after it.
#[track_caller]
fn at_due<T>(rule: Rule, due: Instant, mut ask: impl FnMut() -> Option<T>) -> T {
    loop {
        let before = Instant::now();
        if let Some(answer) = ask() {
            given(rule, Instant::now() >= due, || format!("it came before {due}"));
            return answer;
        }
        given(rule, before < due, || format!("it did not come at {before}, though due {due}"));
        pause();
    }
}

/// Checks something that belongs to `rule`. In a case of another rule it is what the case builds on: if
/// it does not hold, the case cannot be played.
#[track_caller]
pub(super) fn given(rule: Rule, holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        let at = std::panic::Location::caller();
        let file = at.file().rsplit('/').next().unwrap_or_default();
        panic_any(Broken { rule, what: format!("{} ({file}:{})", what(), at.line()) });
    }
}

/// Asks until the answer is yes, which must come before `deadline`.
pub(super) fn at_some_moment(deadline: Instant, mut ask: impl FnMut() -> bool) {
    while !ask() {
        assert!(Instant::now() < deadline, "nothing came by {deadline}");
        pause();
    }
}

pub(super) fn wait_until(moment: Instant) {
    while Instant::now() < moment {
        pause();
    }
}

fn pause() {
    thread::sleep(Duration::from_millis(1));
}

/// The hold that whoever claimed `task` has on it.
pub(super) fn lease(task: &Task) -> Lease {
    Lease {
        task_id: task.id.clone(),
        worker_id: task.worker_id.clone(),
        tenant_id: task.tenant_id.clone(),
        attempt: task.attempts,
        extensions: Extensions::new(),
    }
}

pub(super) fn lease_until(task: &Task) -> Instant {
    task.lease_until.into_option().expect("a leased task")
}

pub(super) fn nack(store: &Store, task: &Task) -> Returned {
    store.nack(nack_of(task, None, "")).unwrap()
}

pub(super) fn nack_of(task: &Task, delay: Option<Millis>, reason: &str) -> Nack {
    Nack { lease: lease(task), delay: delay.into(), reason: reason.into() }
}

/// Enqueues a task and lets it fail for the last time.
#[track_caller]
pub(super) fn bury(store: &Store, task: Task) -> Boxed<Task> {
    let buried = enqueue(store, Task { max_attempts: 1, ..task }).task;
    let claim = claim_from(&buried.tenant_id, &[&buried.command], "undertaker");
    let claimed = store.claim(Claim { max: 1, ..claim }).unwrap().tasks;
    let returned = nack(store, &claimed.into_only().unwrap());
    assert_eq!(returned.task.id, buried.id, "another task was in front");
    let place = returned.task.last_known_location;
    given(Rule::Attempts, place == Location::DlqSet, || {
        format!("its last delivery failed, and it is in {place}")
    });
    returned.task
}

pub(super) fn complete(store: &Store, task: &Task) -> Result<Completed> {
    store.complete(completion(task, TaskStatus::Completed))
}

pub(super) fn completion(task: &Task, status: TaskStatus) -> Complete {
    Complete { lease: lease(task), result: Boxed::new(result_of(&task.id, status)) }
}

pub(super) fn result_of(id: &str, status: TaskStatus) -> TaskResult {
    TaskResult {
        task_id: id.into(),
        status,
        result: r#"{"done":true}"#.into(),
        completed_at: Instant(1_700_000_000_000),
        ..TaskResult::default()
    }
}

pub(super) fn queue(tenant: &str, command: &str) -> Queue {
    Queue { tenant_id: tenant.into(), command: command.into() }
}

/// How many tasks of the usual queue are ready, delayed, leased and dead.
pub(super) fn counts(store: &Store) -> [u64; 4] {
    counts_of(&store.queue_stats(queue(TENANT, COMMAND)).unwrap())
}

pub(super) fn counts_of(stats: &QueueStats) -> [u64; 4] {
    [stats.ready, stats.delayed, stats.in_progress, stats.dlq]
}

pub(super) fn location(store: &Store, id: &str) -> Location {
    store.get(id).unwrap().last_known_location
}

pub(super) fn ids(tasks: &Batch<Boxed<Task>>) -> Vec<String> {
    tasks.iter().map(|task| task.id.to_string()).collect()
}

pub(super) fn texts(texts: &[&str]) -> List<Text> {
    texts.iter().map(|text| Text::from(*text)).collect()
}

pub(super) fn kind<T: Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("an operation that must fail").kind()
}

pub(super) fn some<T>(value: T) -> Optional<T> {
    Optional::RSome(value)
}

/// What a claim moved on its way.
pub(super) fn moved_by(claimed: Result<Claimed>) -> Moved {
    claimed.unwrap().moved.into_option().map(Boxed::into_inner).unwrap_or_default()
}

/// The queues that have tasks. A store may go on counting a queue that is empty.
pub(super) fn used_queues(store: &Store) -> Vec<QueueStats> {
    let mut queues = store.admin_queues(None).unwrap();
    queues.retain(|queue| counts_of(queue) != [0; 4]);
    queues
}

/// All tasks, as far as the store lists tasks.
pub(super) fn everything(store: &Store) -> Vec<Placed> {
    if store.lists() {
        super::listing::pages(store, &super::listing::all(), 7).concat()
    } else {
        Vec::new()
    }
}

/// Ends a case in which one of these tasks never comes to its end, by the rule that keeps it from it.
#[track_caller]
pub(super) fn stuck(store: &Store, ids: impl IntoIterator<Item = String>) -> ! {
    let kept = ids.into_iter().filter_map(|id| store.get(&id).ok());
    let open = kept.into_iter().find(|task| !task.status.is_terminal());
    let (rule, what) = match open {
        Some(task) => {
            let rule = match task.last_known_location {
                Location::InprogSet => Rule::Leases,
                Location::DelayedZset => Rule::Delay,
                _ => Rule::Counts,
            };
            let (id, place) = (&task.id, task.last_known_location);
            (rule, format!("task {id} is in {place} and never comes out of it"))
        }
        None => (Rule::Counts, "a task is gone".to_owned()),
    };
    panic_any(Broken { rule, what });
}
