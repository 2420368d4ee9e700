//! What keeps the queues moving while nobody calls.
//!
//! - *Repair* makes delayed tasks claimable and takes back expired leases, at the moment they come
//!   due: it sleeps until the next one that the store knows of, or that a call through this host
//!   brings. What comes due through another host it finds within [`LONGEST_SLEEP`].
//! - *Retention* removes old tasks, and the files of results that nobody can ask for any more.
//! - *Expiry* removes subscriptions that have run out.
//! - *Events* tells waiting callers what happens through other hosts.
//! - *Nudges* have those who wait look now and then, where others work on the same backend who tell
//!   nobody, as codeQ itself does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use codeq_plugin::{Capability, Cleanup, ErrorKind, Event, Extensions, Instant, Millis, Optional};
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::Service;
use crate::store::StoreError;

/// What a repair left to do.
enum Repaired {
    /// It moved something; there may be more.
    Some,
    /// There was nothing to move; more comes due then, if the store knows.
    All(Option<Instant>),
}

/// How long to sleep when something is due that the store did not move, and at most.
const SHORTEST_SLEEP: Millis = Millis(5);
const LONGEST_SLEEP: Millis = Millis::from_secs(1);
/// How long a step waits after a failure, the first time and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a stop waits for a repair.
const REPAIR_GRACE: Duration = Duration::from_secs(3);
/// How often the first in each line looks, where something may come in silently.
const NUDGE_INTERVAL: Duration = Duration::from_secs(1);
/// How often retention runs, and how many tasks it removes at a time.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
const RETENTION_STEP: u32 = 1000;

/// When the next repair is due.
pub(super) struct Upkeep {
    planned: AtomicI64,
    sooner: Notify,
    /// Held by the repair that goes on.
    repairing: Mutex<()>,
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        Upkeep {
            planned: AtomicI64::new(i64::MAX),
            sooner: Notify::new(),
            repairing: Mutex::default(),
        }
    }
}

impl Upkeep {
    /// Something comes due at `at`: repair no later than that.
    pub(super) fn due_at(&self, at: Instant) {
        if at.0 < self.planned.load(Ordering::Acquire) {
            self.sooner.notify_one();
        }
    }
}

/// Starts the upkeep of a service. It ends when the service stops.
pub(super) fn spawn(service: &Arc<Service>) {
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let mut steps = JoinSet::new();
        steps.spawn({
            let service = Arc::clone(&service);
            async move { service.repair().await }
        });
        steps.spawn({
            let service = Arc::clone(&service);
            async move { service.retain().await }
        });
        steps.spawn({
            let service = Arc::clone(&service);
            async move { service.clear_artifacts().await }
        });
        if service.store.has(Capability::Subscriptions) {
            let service = Arc::clone(&service);
            steps.spawn(async move { service.expire_subscriptions().await });
        }
        if service.store.has(Capability::Events) {
            let service = Arc::clone(&service);
            steps.spawn(async move { service.listen().await });
        }
        if service.store.has(Capability::Shared) {
            let service = Arc::clone(&service);
            steps.spawn(async move { service.nudge().await });
        }
        service.stopped().await;
        steps.shutdown().await;
    });
}

impl Service {
    async fn nudge(&self) {
        loop {
            sleep(NUDGE_INTERVAL).await;
            self.claims.nudge();
            self.readers.nudge();
        }
    }

    async fn repair(self: &Arc<Self>) {
        let mut failures = Failures::new("repair");
        loop {
            let service = Arc::clone(self);
            // In a task of its own, so that a stop does not come between the end of a task and the
            // note of it.
            let repair = tokio::spawn(async move {
                let _repairing = service.upkeep.repairing.lock().await;
                service.repair_once().await
            });
            let Ok(repaired) = repair.await else { return };
            match repaired {
                Ok(Repaired::Some) => {
                    failures.over();
                    tokio::task::yield_now().await;
                }
                Ok(Repaired::All(next)) => {
                    failures.over();
                    self.sleep_until(next).await;
                }
                Err(error) => sleep(failures.next(&error)).await,
            }
        }
    }

    /// Waits for the repair that goes on, once the service is told to stop.
    pub(super) async fn end_repair(&self) {
        if timeout(REPAIR_GRACE, self.upkeep.repairing.lock()).await.is_err() {
            tracing::warn!(limit = ?REPAIR_GRACE, "a repair does not end in time");
        }
    }

    async fn repair_once(&self) -> Result<Repaired, StoreError> {
        let limit = self.settings.repair_limit;
        // What a call brings meanwhile may be too late for this repair, but not for the next one.
        let latest = Instant::now() + LONGEST_SLEEP;
        self.upkeep.planned.store(latest.0, Ordering::Release);
        let due = self.store.move_due_delayed(limit).await?;
        self.notice_moved(&due).await;
        let expired = self.store.requeue_expired(limit).await?;
        self.notice_moved(&expired).await;
        if due.count > 0 || expired.count > 0 {
            return Ok(Repaired::Some);
        }
        let next = due.next.into_option().into_iter().chain(expired.next.into_option()).min();
        Ok(Repaired::All(next))
    }

    /// Sleeps until something comes due, by the store's account or because a call brought it.
    async fn sleep_until(&self, next: Option<Instant>) {
        let now = Instant::now();
        let latest = now + LONGEST_SLEEP;
        let wake = match next {
            Some(next) if next > now => next.min(latest),
            // A backend whose clock is behind this one's knows of it but does not move it yet.
            Some(_) => now + SHORTEST_SLEEP,
            None => latest,
        };
        self.upkeep.planned.store(wake.0, Ordering::Release);
        tokio::select! {
            () = sleep(wake.since(now).into()) => {}
            () = self.upkeep.sooner.notified() => {}
        }
    }

    async fn retain(&self) {
        let mut failures = Failures::new("retention");
        loop {
            let cleanup = Cleanup {
                tenant_id: Optional::RNone,
                before: Instant::now(),
                limit: RETENTION_STEP,
                extensions: Extensions::new(),
            };
            match self.store.cleanup_expired(cleanup).await {
                Ok(removed) => {
                    failures.over();
                    // A full step may have left some; small steps let others in between.
                    if removed < RETENTION_STEP {
                        sleep(RETENTION_INTERVAL).await;
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => sleep(failures.next(&error)).await,
            }
        }
    }

    async fn listen(&self) {
        let mut failures = Failures::new("listening for events");
        loop {
            match self.store.next_events().await {
                Ok(events) => {
                    failures.over();
                    if events.is_empty() {
                        sleep(FIRST_PAUSE).await;
                    }
                    events.into_iter().for_each(|event| match event {
                        Event::Arrived(arrival) => self.announce(&arrival.queue, arrival.count),
                        Event::Finished(task) => self.readers.wake_all(&task.id),
                    });
                }
                Err(error) if error.kind() == ErrorKind::Unsupported => return,
                Err(error) => sleep(failures.next(&error)).await,
            }
        }
    }
}

/// Failures of a step, one after another: each waits longer, and only the first is a warning.
pub(super) struct Failures {
    step: &'static str,
    pause: Duration,
}

impl Failures {
    pub(super) fn new(step: &'static str) -> Failures {
        Failures { step, pause: Duration::ZERO }
    }

    pub(super) fn next(&mut self, error: &StoreError) -> Duration {
        if self.pause.is_zero() {
            tracing::warn!(step = self.step, %error, "the store failed; trying again until it works");
        } else {
            tracing::debug!(step = self.step, %error, "the store still fails");
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.pause
    }

    pub(super) fn over(&mut self) {
        if !self.pause.is_zero() {
            tracing::info!(step = self.step, "the store works again");
        }
        self.pause = Duration::ZERO;
    }
}
