//! Result callbacks: producers are told how their tasks ended.
//!
//! The end of a task that has a webhook is written down as a [note] before whoever brought it
//! about is answered. A note is a task itself: of a tenant that no caller can have, in the same
//! store, in a queue for its receiver. So it survives what the store survives, any host on the store
//! may [deliver](lanes) it, and retries, leases and retention are those of tasks.
//!
//! Between an end and its note the host may be killed. A worker who then hands in his result again
//! has the note written after all; for dead letters, which nobody hands in again, a host looks at its
//! start.

mod lanes;
mod note;

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use codeq_plugin::{
    Batch, Boxed, Capability, Enqueue, ErrorKind, Extensions, Instant, ListTasks, Location, Millis,
    Optional, Task, TaskResult, TaskStatus, Text,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Service, ServiceError};
use crate::{
    config::Webhooks,
    store::StoreError,
    webhook::{Client, Target},
};
use lanes::Lanes;
use note::{Note, is_dead};

/// The tenant of the host's own queues. It is no label, so no caller can have it.
///
/// What goes over the queues of all tenants has to pass this one over.
pub const INTERNAL_TENANT: &str = "_codeq";

/// Result callbacks of one service.
pub(super) struct Callbacks {
    client: Client,
    /// How often a note is tried, and how long to wait in between.
    max_attempts: u32,
    base_backoff: Duration,
    max_backoff: Duration,
    /// In whose name this host claims notes.
    worker: Text,
    lanes: Lanes,
    /// Notes that the store did not take yet.
    unwritten: Unwritten,
    recent: Recent,
}

/// What calls of webhooks are for, in figures and traces.
const KIND: &str = "task_result";
/// At most how many notes wait for a store that is away.
const MOST_UNWRITTEN: usize = 2000;
/// At most how many of them are written at once.
const WRITTEN_AT_ONCE: usize = 100;
/// How long to wait before the store is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A worker whose answer was lost tries again within this.
const HANDED_IN_AGAIN: Millis = Millis::from_secs(15 * 60);
/// Dead letters that are older were either told of, or are nobody's concern any more.
const LATELY: Millis = Millis::from_secs(60 * 60);
/// Which part of the dead letters is looked through at the start, at most.
const SWEPT_AT_ONCE: u32 = 50;
const MOST_SWEEPS: usize = 200;

impl Callbacks {
    pub(super) fn new(client: Client, webhooks: &Webhooks) -> Callbacks {
        Callbacks {
            client,
            max_attempts: webhooks.result_max_attempts,
            base_backoff: webhooks.result_base_backoff,
            max_backoff: webhooks.result_max_backoff,
            worker: format!("callbacks-{}", uuid::Uuid::new_v4()).into(),
            lanes: Lanes::default(),
            unwritten: Unwritten::default(),
            recent: Recent::default(),
        }
    }

    /// There may be notes in an internal queue.
    pub(super) fn arrived(&self, queue: &str) {
        self.lanes.wake(queue);
    }

    /// Reads the webhook of a new task.
    pub(super) fn target(&self, url: &str) -> Result<Target, String> {
        self.client.target(url).map_err(|error| error.to_string())
    }
}

/// Starts what delivers callbacks. It ends a little after the service was told to stop, at one moment
/// for all.
pub(super) fn spawn(service: &Arc<Service>) {
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let mut steps = JoinSet::new();
        steps.spawn(lanes::run(Arc::clone(&service)));
        steps.spawn({
            let service = Arc::clone(&service);
            async move { service.write_unwritten().await }
        });
        if service.store.has(Capability::Listing) {
            let service = Arc::clone(&service);
            steps.spawn(async move { service.note_recent_deaths().await });
        }
        service.stopped().await;
        sleep(lanes::GRACE).await;
        service.callbacks.lanes.close();
        steps.shutdown().await;
    });
}

impl Service {
    /// Notes that tasks were completed. Costs nothing for tasks without a webhook.
    pub(super) async fn note_results<'a>(
        &self,
        ends: impl Iterator<Item = (&'a Task, &'a TaskResult)>,
    ) {
        let notes = ends
            .filter(|(task, _)| wants_callback(task))
            .filter_map(|(task, result)| self.enqueue_of(task, Note::of_result(task, result)))
            .collect();
        self.write(notes).await;
    }

    /// Notes that tasks were dead-lettered. Costs nothing for tasks without a webhook.
    pub(super) async fn note_deaths<'a>(&self, dead: impl Iterator<Item = &'a Task>) {
        let notes = dead
            .filter(|task| wants_callback(task) && is_dead(task))
            .filter_map(|task| self.enqueue_of(task, Note::of_dead(task)))
            .collect();
        self.write(notes).await;
    }

    /// Notes the end of a task that somebody wants to bring about who comes too late. Perhaps it was
    /// he who did it, and his answer was lost with the host that should have noted it.
    pub(super) async fn note_again(&self, id: &str) {
        let Ok(task) = self.kept(id).await else {
            return;
        };
        if !task.status.is_terminal()
            || !wants_callback(&task)
            || Instant::now().since(task.updated_at) > HANDED_IN_AGAIN
            || self.callbacks.recent.contains(&note_id(&task))
        {
            return;
        }
        if is_dead(&task) {
            self.note_deaths(std::iter::once(&*task)).await;
        } else if let Ok(result) = self.result_of(id).await {
            self.note_results(std::iter::once((&*task, &*result))).await;
        }
    }

    async fn kept(&self, id: &str) -> Result<Boxed<Task>, ServiceError> {
        self.one(self.store.get(Batch::One(id.into())).await?)
    }

    async fn result_of(&self, id: &str) -> Result<Boxed<TaskResult>, ServiceError> {
        self.one(self.store.get_result(Batch::One(id.into())).await?)
    }

    fn enqueue_of(&self, task: &Task, note: Note) -> Option<Enqueue> {
        let target = match self.callbacks.target(&task.webhook) {
            Ok(target) => target,
            Err(problem) => {
                self.gave_up(&task.id, &task.command, "its webhook cannot be called", &problem);
                return None;
            }
        };
        note.into_enqueue(task.updated_at, &target)
            .inspect_err(|error| {
                self.gave_up(&task.id, &task.command, "it cannot be noted", &error.to_string());
            })
            .ok()
    }

    /// What operators look for in a log.
    fn gave_up(&self, task: &str, command: &str, why: &str, error: &str) {
        tracing::warn!(task, command, error, "no result callback: {why}");
        self.metrics.webhook_called(KIND, command, "failure");
    }

    /// Writes notes. What the store does not take now it is given later.
    async fn write(&self, notes: Vec<Enqueue>) {
        if notes.is_empty() {
            return;
        }
        let left = self.try_write(notes).await;
        let lost = self.callbacks.unwritten.add(left);
        if lost > 0 {
            tracing::error!(
                lost,
                kept = MOST_UNWRITTEN,
                "the store takes no notes, and too many wait already: result callbacks are lost"
            );
        }
    }

    /// Writes notes, and answers those that the store did not take but may take later.
    async fn try_write(&self, notes: Vec<Enqueue>) -> Vec<Enqueue> {
        let answers = match self.store.enqueue(Batch::from(notes.clone())).await {
            Ok(answers) => answers,
            Err(error) => return self.refused(notes, &error),
        };
        let mut left = Vec::new();
        for (answer, note) in answers.into_iter().zip(notes) {
            match answer.into_result() {
                Ok(enqueued) => {
                    self.callbacks.recent.add(&note.task.id);
                    self.callbacks.arrived(&enqueued.task.command);
                }
                // Somebody noted it already.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let plugin = self.store.manifest().name.clone();
                    left.extend(self.refused(vec![note], &StoreError { plugin, error }));
                }
            }
        }
        left
    }

    fn refused(&self, notes: Vec<Enqueue>, error: &StoreError) -> Vec<Enqueue> {
        let may_help = error.error.is_retryable() || error.kind() == ErrorKind::Closed;
        if may_help {
            tracing::warn!(count = notes.len(), %error, "result callbacks wait for the store");
            return notes;
        }
        tracing::error!(count = notes.len(), %error, "the store takes no notes: result callbacks are lost");
        Vec::new()
    }

    async fn write_unwritten(&self) {
        loop {
            self.callbacks.unwritten.added.notified().await;
            let mut pause = FIRST_PAUSE;
            while !self.write_some_unwritten().await {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Answers whether all is written.
    async fn write_some_unwritten(&self) -> bool {
        self.callbacks.unwritten.write(|notes| self.try_write(notes)).await
    }

    /// Notes dead letters of late that a host may have been killed over. Most were noted already.
    async fn note_recent_deaths(&self) {
        let since = Instant(Instant::now().0 - LATELY.0);
        let mut cursor = Text::new();
        for _ in 0..MOST_SWEEPS {
            let list = ListTasks {
                status: Optional::RSome(TaskStatus::Failed),
                location: Optional::RSome(Location::DlqSet),
                cursor,
                limit: SWEPT_AT_ONCE,
                extensions: Extensions::new(),
                ..ListTasks::default()
            };
            let page = match self.store.list(list).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(%error, "cannot look for dead letters whose callbacks are missing");
                    return;
                }
            };
            let dead = page.tasks.iter().map(|placed| &*placed.task);
            self.note_deaths(dead.filter(|task| task.updated_at >= since)).await;
            cursor = page.cursor;
            if cursor.is_empty() {
                return;
            }
        }
    }

    /// Waits, for a short while, until result callbacks are delivered when the service stops; those
    /// that are left then are in the store for the next host.
    pub async fn settle(&self) {
        // A repair may still end tasks, of which it leaves notes.
        self.end_repair().await;
        self.callbacks.lanes.settle().await;
        // What is written from now on is the next host's: this one could not deliver it any more.
        self.callbacks.lanes.close();
        let last = timeout(LONGEST_PAUSE, self.write_some_unwritten()).await;
        if last != Ok(true) {
            let lost = self.callbacks.unwritten.len();
            tracing::error!(lost, "the store took no notes: result callbacks are lost");
        }
    }
}

fn wants_callback(task: &Task) -> bool {
    !task.webhook.is_empty() && task.tenant_id != *INTERNAL_TENANT
}

fn note_id(task: &Task) -> String {
    format!("{}.{}", task.id, task.updated_at.0)
}

/// Notes in memory that the store did not take, the oldest first.
#[derive(Default)]
struct Unwritten {
    notes: Mutex<VecDeque<Enqueue>>,
    added: Notify,
    /// Held by whoever writes them: of two, one would take from the line what the other wrote.
    writing: tokio::sync::Mutex<()>,
}

impl Unwritten {
    /// Answers how many there was no room for.
    fn add(&self, left: Vec<Enqueue>) -> usize {
        if left.is_empty() {
            return 0;
        }
        let mut notes = self.lock();
        let room = MOST_UNWRITTEN.saturating_sub(notes.len());
        let lost = left.len().saturating_sub(room);
        notes.extend(left.into_iter().take(room));
        self.added.notify_one();
        lost
    }

    /// Writes them by `write`, which answers those that stay in line. Answers whether all is written.
    async fn write<W>(&self, write: impl Fn(Vec<Enqueue>) -> W) -> bool
    where
        W: Future<Output = Vec<Enqueue>>,
    {
        let _writing = self.writing.lock().await;
        loop {
            // They stay in line until they are written, in case this is given up meanwhile.
            let first = self.first(WRITTEN_AT_ONCE);
            if first.is_empty() {
                return true;
            }
            let count = first.len();
            let left = write(first).await;
            let is_stuck = !left.is_empty();
            self.replace_first(count, left);
            if is_stuck {
                return false;
            }
        }
    }

    fn first(&self, count: usize) -> Vec<Enqueue> {
        self.lock().iter().take(count).cloned().collect()
    }

    fn replace_first(&self, count: usize, by: Vec<Enqueue>) {
        let mut notes = self.lock();
        let count = count.min(notes.len());
        notes.drain(..count);
        by.into_iter().rev().for_each(|note| notes.push_front(note));
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Enqueue>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ends that this host noted last, so that a worker who hands in twice causes no second callback.
#[derive(Default)]
struct Recent {
    seen: Mutex<(HashSet<u64>, VecDeque<u64>)>,
    hasher: RandomState,
}

const MOST_RECENT: usize = 10_000;

impl Recent {
    fn add(&self, id: &str) {
        let hash = self.hasher.hash_one(id);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, line) = &mut *seen;
        if set.insert(hash) {
            line.push_back(hash);
        }
        if line.len() > MOST_RECENT
            && let Some(oldest) = line.pop_front()
        {
            set.remove(&oldest);
        }
    }

    fn contains(&self, id: &str) -> bool {
        let hash = self.hasher.hash_one(id);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(count: usize) -> Vec<Enqueue> {
        (0..count)
            .map(|n| Enqueue::now(Task { id: n.to_string().into(), ..Task::default() }))
            .collect()
    }

    #[test]
    fn notes_that_the_store_did_not_take_stay_in_order_and_are_bounded() {
        let unwritten = Unwritten::default();
        assert_eq!(unwritten.add(notes(MOST_UNWRITTEN)), 0);
        assert_eq!(unwritten.add(notes(7)), 7);
        let first = unwritten.first(3);
        unwritten.replace_first(3, first[1..].to_vec());
        let ids: Vec<_> = unwritten.first(3).iter().map(|note| note.task.id.to_string()).collect();
        assert_eq!(ids, ["1", "2", "3"]);
        assert_eq!(unwritten.len(), MOST_UNWRITTEN - 1);
    }

    #[tokio::test]
    async fn two_who_write_what_is_left_lose_none_of_it() {
        let unwritten = Unwritten::default();
        unwritten.add(notes(3 * WRITTEN_AT_ONCE));
        // The store takes the first of them, and is away then.
        let write = async |notes: Vec<Enqueue>| {
            tokio::task::yield_now().await;
            if notes[0].task.id == *"0" { Vec::new() } else { notes }
        };
        assert_eq!(tokio::join!(unwritten.write(write), unwritten.write(write)), (false, false));
        assert_eq!(unwritten.len(), 2 * WRITTEN_AT_ONCE);
    }

    #[test]
    fn the_ends_noted_last_are_remembered_and_no_more() {
        let recent = Recent::default();
        (0..=MOST_RECENT).for_each(|n| recent.add(&n.to_string()));
        assert!(recent.contains(&MOST_RECENT.to_string()));
        assert!(!recent.contains("0"));
        assert_eq!(recent.seen.lock().unwrap().0.len(), MOST_RECENT);
    }
}
