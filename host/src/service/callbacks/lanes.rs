//! Delivering notes.
//!
//! Each receiver that has notes has a lane: it takes a [place](crate::webhook::Places) for a call,
//! claims a note, and lets the call run while it goes on with the next. A lane begins when something
//! comes into its queue, and ends when the queue is empty. What came in while nobody was looking is
//! found by a look at all internal queues, at the start and now and then.
//!
//! When the host stops, the lanes go on for a while and are closed then, all at the same moment. Notes
//! whose calls are cut off are handed back, so that the next host need not wait for their leases.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codeq_plugin::{
    Batch, Boxed, Claim, Complete, Extensions, Instant, Lease, Millis, Nack, Optional, Task,
    TaskResult, TaskStatus, Text,
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    FIRST_PAUSE, INTERNAL_TENANT, KIND, LONGEST_PAUSE,
    note::{self, Note},
};
use crate::{
    service::{Service, ServiceError},
    store::StoreError,
    webhook::{CALL_LIMIT, Call, CallError, Place, Places},
};

/// How many calls are under way at once, in all and to one receiver.
const CALLS: usize = 64;
const CALLS_TO_ONE: u32 = 8;
/// At most how many lanes there are. Receivers beyond that wait until one ends.
const MOST_LANES: usize = 1024;
/// How often all internal queues are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How long deliveries go on when the host stops.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// How long a note waits whose result the store could not read, and how often it is handed back then
/// to a store that is away: for no longer than its lease.
const READ_AGAIN: Duration = Duration::from_secs(2);
const HAND_BACK_TRIES: u32 = 6;
/// A note that its host does not come back to is another's after this.
const LEASE: Millis = Millis::from_secs(15);
const _: () = assert!(LEASE.0 > CALL_LIMIT.as_millis() as i64);
/// How often the store is asked to forget a note that was delivered.
const FORGET_TRIES: u32 = 3;

/// The lanes that are under way.
pub(super) struct Lanes {
    running: Mutex<Running>,
    /// There are queues to look at that have no lane.
    begin: Notify,
    /// How many lanes and calls are under way.
    busy: watch::Sender<usize>,
    /// Whether nothing more is begun, and what is under way is given up.
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Running {
    /// Whether something came in since the lane last looked, by queue.
    lanes: HashMap<Text, bool>,
    /// Queues whose lanes have to be begun.
    waiting: Vec<Text>,
    /// There was no room for a lane.
    overlooked: bool,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes {
            running: Mutex::default(),
            begin: Notify::new(),
            busy: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        }
    }
}

impl Lanes {
    /// Something came into a queue.
    pub(super) fn wake(&self, queue: &str) {
        if note::receiver_of(queue).is_none() {
            return;
        }
        let mut running = self.lock();
        // Nobody would begin it.
        if *self.closed.borrow() {
            return;
        }
        if let Some(again) = running.lanes.get_mut(queue) {
            *again = true;
        } else if running.lanes.len() < MOST_LANES {
            running.lanes.insert(queue.into(), false);
            running.waiting.push(queue.into());
            self.busy.send_modify(|busy| *busy += 1);
            self.begin.notify_one();
        } else {
            running.overlooked = true;
        }
    }

    /// The lane of a queue looks now.
    fn begin_look(&self, queue: &Text) {
        if let Some(again) = self.lock().lanes.get_mut(queue) {
            *again = false;
        }
    }

    /// The lane found nothing. Answers whether it ends.
    fn end(&self, queue: &Text) -> bool {
        let mut running = self.lock();
        if running.lanes.get(queue).is_some_and(|again| *again) {
            return false;
        }
        self.leave(&mut running, queue);
        if running.overlooked {
            self.begin.notify_one();
        }
        true
    }

    /// The lane ends, whatever there is.
    fn abort(&self, queue: &Text) {
        self.leave(&mut self.lock(), queue);
    }

    fn leave(&self, running: &mut Running, queue: &Text) {
        if running.lanes.remove(queue).is_some() {
            self.busy.send_modify(|busy| *busy -= 1);
        }
    }

    /// The queues whose lanes have to be begun, and whether there may be others.
    fn to_begin(&self) -> (Vec<Text>, bool) {
        let mut running = self.lock();
        let overlooked = running.overlooked && running.lanes.len() < MOST_LANES;
        if overlooked {
            running.overlooked = false;
        }
        (std::mem::take(&mut running.waiting), overlooked)
    }

    /// Nothing more is begun, and what is under way is given up.
    pub(super) fn close(&self) {
        let mut running = self.lock();
        self.closed.send_replace(true);
        for queue in std::mem::take(&mut running.waiting) {
            self.leave(&mut running, &queue);
        }
    }

    /// Resolves when the lanes are closed.
    async fn closed(&self) {
        // An error would mean that the sender is gone, and with it these lanes.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Waits until nothing is under way, which takes no longer than calls may go on.
    pub(super) async fn settle(&self) {
        let mut busy = self.busy.subscribe();
        let over = timeout(GRACE * 2, busy.wait_for(|busy| *busy == 0)).await;
        if over.is_err() {
            tracing::warn!("result callbacks are cut off; the next host delivers them again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way.
struct Underway(Arc<Service>);

impl Underway {
    fn begin(service: &Arc<Service>) -> Underway {
        service.callbacks.lanes.busy.send_modify(|busy| *busy += 1);
        Underway(Arc::clone(service))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.callbacks.lanes.busy.send_modify(|busy| *busy -= 1);
    }
}

/// Begins lanes where there are notes.
pub(super) async fn run(service: Arc<Service>) {
    let places = Places::new(CALLS, CALLS_TO_ONE);
    let lanes = &service.callbacks.lanes;
    let mut look = true;
    let mut pause = FIRST_PAUSE;
    loop {
        let mut next_look = LOOK_INTERVAL;
        if look {
            match service.look_for_notes().await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    tracing::debug!(%error, "cannot look for result callbacks");
                    next_look = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        let (queues, overlooked) = lanes.to_begin();
        for queue in queues {
            tokio::spawn(Arc::clone(&service).drain(queue, places.clone()));
        }
        look = overlooked
            || tokio::select! {
                () = lanes.begin.notified() => false,
                () = sleep(next_look) => true,
            };
    }
}

impl Service {
    /// Wakes the lanes of all queues that have notes.
    async fn look_for_notes(&self) -> Result<(), StoreError> {
        let queues = self.store.admin_queues(Optional::RSome(INTERNAL_TENANT.into())).await?;
        for stats in queues.iter().filter(|stats| stats.ready > 0) {
            self.callbacks.lanes.wake(&stats.command);
        }
        Ok(())
    }

    /// Delivers the notes of a queue until there are none.
    async fn drain(self: Arc<Self>, queue: Text, places: Places) {
        let lanes = &self.callbacks.lanes;
        let receiver = note::receiver_of(&queue).unwrap_or_default().to_owned();
        let mut pause = FIRST_PAUSE;
        loop {
            let place = tokio::select! {
                biased;
                () = lanes.closed() => None,
                place = places.take(&receiver) => place,
            };
            let Some(place) = place else { return lanes.abort(&queue) };
            lanes.begin_look(&queue);
            match self.claim_note(&queue).await {
                Ok(Some(task)) => {
                    pause = FIRST_PAUSE;
                    let underway = Underway::begin(&self);
                    tokio::spawn(async move { underway.0.deliver(task, place).await });
                }
                Ok(None) if lanes.end(&queue) => return,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, %queue, "cannot claim result callbacks");
                    drop(place);
                    if self.is_stopping() {
                        return lanes.abort(&queue);
                    }
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = lanes.closed() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn claim_note(&self, queue: &Text) -> Result<Option<Boxed<Task>>, StoreError> {
        let claim = Claim {
            worker_id: self.callbacks.worker.clone(),
            tenant_id: INTERNAL_TENANT.into(),
            commands: std::iter::once(queue.clone()).collect(),
            max: 1,
            lease: LEASE,
            extensions: Extensions::new(),
        };
        let claimed = self.store.claim(claim).await?;
        if let Optional::RSome(moved) = &claimed.moved {
            self.notice_moved(moved).await;
        }
        claimed.tasks.iter().for_each(|task| self.notice(task, None));
        Ok(claimed.tasks.into_only())
    }

    async fn deliver(&self, task: Boxed<Task>, place: Place) {
        let note = match Note::read(&task.payload) {
            Ok(note) => note,
            Err(error) => {
                self.gave_up(&task.id, "", "its note cannot be read", &error.to_string());
                return self.forget(&task, false).await;
            }
        };
        let calling = async {
            let kept = self.kept_elsewhere(&note).await?;
            Ok(self.call(&note, kept.as_deref(), task.attempts).await)
        };
        let called = tokio::select! {
            biased;
            () = self.callbacks.lanes.closed() => return drop(self.hand_back_note(&task).await),
            called = calling => called,
        };
        let called = match called {
            Ok(called) => called,
            Err(error) => return self.read_again_later(&task, &note, &error).await,
        };
        place.in_time(!matches!(called, Err(CallError::TimedOut)));
        drop(place);
        let outcome = if called.is_ok() { "success" } else { "failure" };
        self.metrics.webhook_called(KIND, &note.command, outcome);
        match called {
            Ok(()) => self.forget(&task, note.dead).await,
            Err(error) if task.attempts >= self.callbacks.max_attempts => {
                tracing::warn!(
                    tenant = note.tenant_id.as_str(),
                    command = note.command.as_str(),
                    task = note.result.task_id.as_str(),
                    receiver = note::receiver_of(&task.command),
                    attempts = task.attempts,
                    %error,
                    "result callback given up"
                );
                self.forget(&task, note.dead).await;
            }
            Err(error) => self.try_later(&task, &note, &error).await,
        }
    }

    /// Calls the receiver, with a result that is in the store if there is one.
    async fn call(
        &self,
        note: &Note,
        kept: Option<&TaskResult>,
        attempt: u32,
    ) -> Result<(), CallError> {
        let failed = |error: &dyn std::fmt::Display| CallError::Failed(error.to_string());
        let target = self.callbacks.client.target(&note.url).map_err(|error| failed(&error))?;
        let body = kept.map_or_else(|| note.body(), |kept| note.body_of(kept));
        let call = Call {
            kind: KIND,
            command: &note.command,
            attempt,
            target: &target,
            body: body.map_err(|error| failed(&error))?,
            trace_parent: &note.trace_parent,
            trace_state: &note.trace_state,
        };
        self.callbacks.client.call(call).await
    }

    /// The result that is in the store rather than in the note; nothing if it is there no more.
    async fn kept_elsewhere(&self, note: &Note) -> Result<Option<Boxed<TaskResult>>, ServiceError> {
        if !note.elsewhere {
            return Ok(None);
        }
        let id = &note.result.task_id;
        match self.result_of(id).await {
            Ok(kept) => Ok(Some(kept)),
            Err(error @ ServiceError::NotFound(_)) => {
                tracing::warn!(task = id.as_str(), %error, "a result callback goes without its result");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The result cannot be read, which is no fault of the receiver's: the note is handed back, and
    /// does not count. It keeps its place for a while, so that a store in trouble is not asked without
    /// end.
    async fn read_again_later(&self, task: &Task, note: &Note, error: &ServiceError) {
        tracing::warn!(
            task = note.result.task_id.as_str(),
            %error,
            "a result callback waits: its result cannot be read"
        );
        for _ in 0..HAND_BACK_TRIES {
            tokio::select! {
                () = sleep(READ_AGAIN) => {}
                () = self.callbacks.lanes.closed() => {}
            }
            match self.hand_back_note(task).await {
                // If its lease ran out, it would count.
                Err(ServiceError::Unavailable(_)) => {}
                _ => return,
            }
        }
    }

    async fn try_later(&self, task: &Task, note: &Note, error: &CallError) {
        tracing::debug!(
            task = note.result.task_id.as_str(),
            attempts = task.attempts,
            %error,
            "result callback failed; trying again"
        );
        let delay = self.callbacks.backoff(task.attempts);
        let nack = Nack {
            lease: lease_of(task),
            delay: Optional::RSome(delay),
            reason: error.to_string().into(),
        };
        match self.store.nack(Batch::One(nack)).await.map(Batch::into_only) {
            Ok(Some(answer)) => {
                if let Ok(returned) = answer.into_result() {
                    self.notice(&returned.task, Some(Instant::now() + returned.delay));
                }
            }
            // Its lease runs out, which comes to the same.
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a result callback is tried again later"),
        }
    }

    /// A note is done with. That of a dead letter is kept for as long as the dead letter itself may
    /// be, so that a host that looks for missing ones finds it.
    async fn forget(&self, task: &Task, keep: bool) {
        for n in 1..=FORGET_TRIES {
            match self.try_to_forget(task, keep).await {
                Ok(()) => return,
                Err(error) if n == FORGET_TRIES => {
                    tracing::warn!(%error, note = task.id.as_str(), "a result callback may come twice");
                }
                Err(_) => sleep(FIRST_PAUSE * n).await,
            }
        }
    }

    async fn try_to_forget(&self, task: &Task, keep: bool) -> Result<(), ServiceError> {
        let forgotten = if keep {
            let result = TaskResult {
                task_id: task.id.clone(),
                status: TaskStatus::Completed,
                result: "{}".into(),
                completed_at: Instant::now(),
                ..TaskResult::default()
            };
            let complete = Complete { lease: lease_of(task), result: Boxed::new(result) };
            self.one(self.store.complete(Batch::One(complete)).await?).map(|_| ())
        } else {
            self.one(self.store.delete(Batch::One(task.id.clone())).await?)
        };
        match forgotten {
            // Somebody else has it, or had it.
            Err(
                ServiceError::NotFound(_) | ServiceError::NotInProgress | ServiceError::NotOwner,
            ) => Ok(()),
            other => other,
        }
    }

    async fn hand_back_note(&self, task: &Task) -> Result<(), ServiceError> {
        let handed_back =
            async { self.one(self.store.abandon_lease(Batch::One(lease_of(task))).await?) };
        let returned = handed_back.await.inspect_err(|error| {
            tracing::debug!(%error, "a result callback is tried again when its lease ends");
        })?;
        self.notice(&returned.task, None);
        Ok(())
    }
}

impl super::Callbacks {
    /// Twice as long after each failure.
    fn backoff(&self, attempts: u32) -> Millis {
        let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let wait = self.base_backoff.saturating_mul(factor).min(self.max_backoff);
        Millis(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }
}

fn lease_of(task: &Task) -> Lease {
    Lease {
        task_id: task.id.clone(),
        worker_id: task.worker_id.clone(),
        tenant_id: task.tenant_id.clone(),
        attempt: task.attempts,
        extensions: Extensions::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "result-callback@example.org:443";

    #[test]
    fn a_lane_that_was_woken_during_its_last_look_goes_on() {
        let lanes = Lanes::default();
        let queue = Text::from(QUEUE);
        lanes.wake(QUEUE);
        assert_eq!(lanes.to_begin(), (vec![queue.clone()], false));
        lanes.begin_look(&queue);
        lanes.wake(QUEUE);
        assert!(!lanes.end(&queue));
        lanes.begin_look(&queue);
        assert!(lanes.end(&queue));
        assert_eq!(lanes.to_begin(), (vec![], false));
    }

    #[test]
    fn queues_beyond_the_most_lanes_are_looked_for_when_one_ends() {
        let lanes = Lanes::default();
        for n in 0..=MOST_LANES {
            lanes.wake(&format!("{QUEUE}{n}"));
        }
        let (begun, overlooked) = lanes.to_begin();
        assert_eq!((begun.len(), overlooked), (MOST_LANES, false));
        assert!(lanes.end(&begun[0]));
        assert!(lanes.to_begin().1);
    }

    #[tokio::test]
    async fn nothing_is_begun_in_lanes_that_are_closed_and_nobody_waits_for_it() {
        let lanes = Lanes::default();
        lanes.wake(QUEUE);
        lanes.close();
        lanes.closed().await;
        lanes.wake(QUEUE);
        assert!(lanes.to_begin().0.is_empty());
        assert_eq!(*lanes.busy.borrow(), 0);
        lanes.settle().await;
    }

    #[test]
    fn other_queues_have_no_lanes() {
        let lanes = Lanes::default();
        lanes.wake("render");
        assert!(lanes.to_begin().0.is_empty());
    }
}
