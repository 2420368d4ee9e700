//! The queue's rules, as pure functions.
//!
//! A rule takes a task and what happened to it, changes the record, and answers where the task
//! belongs now ([`Placement`]). It reads no clock, rolls no dice and touches no storage: the caller
//! brings those, and makes the change atomic and durable. Every store that is written in Rust uses
//! these functions; one that must say them again in another language (Lua, SQL) is held to the same
//! cases.

mod backoff;

pub use backoff::{Backoff, BackoffPolicy, Jitter};

use abi_stable::StableAbi;

use crate::{
    Error, Result,
    record::{Instant, Lease, Location, MAX_PRIORITY, Millis, Optional, Task, TaskStatus, Text},
};

/// What the host decides for every queue.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a failed task waits when its nack does not say.
    pub backoff: Backoff,
    /// How often a task may be delivered when its producer does not say.
    pub max_attempts: u32,
    /// How long a task is kept after its last change.
    pub retention: Millis,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Millis,
}

impl Default for Rules {
    /// codeQ's defaults: 5 deliveries, full jitter from 5 s up to 900 s, everything kept for a day.
    fn default() -> Rules {
        Rules {
            backoff: Backoff::default(),
            max_attempts: 5,
            retention: Millis::DAY,
            idempotency_window: Millis::DAY,
        }
    }
}

/// The error of a task that ran out of attempts, when its worker gave no reason.
pub const MAX_ATTEMPTS_ERROR: &str = "MAX_ATTEMPTS";
/// The error of a task that ran out of attempts because its lease ran out.
pub const LEASE_EXPIRED_ERROR: &str = "LEASE_EXPIRED";

/// Where a task belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the back of its priority, claimable at once.
    Ready,
    /// Aside, until it comes due.
    Delayed(Instant),
    /// With a worker, until the lease ends.
    Leased(Instant),
    /// Among the dead letters.
    Dead,
    /// Nowhere: it is finished.
    Done,
}

impl Rules {
    /// Makes a new task ready to be put into its queue.
    pub fn enqueue(&self, task: &mut Task, visible_at: Instant, now: Instant) -> Placement {
        task.priority = task.priority.min(MAX_PRIORITY);
        if task.max_attempts == 0 {
            task.max_attempts = self.max_attempts;
        }
        task.attempts = 0;
        task.error = Text::new();
        task.result_key = Text::new();
        task.created_at = now;
        release(task, visible_at, now)
    }

    /// Hands a claimable task to a worker: one more delivery.
    pub fn claim(&self, task: &mut Task, worker: &Text, lease: Millis, now: Instant) -> Placement {
        task.worker_id = worker.clone();
        task.attempts = task.attempts.saturating_add(1);
        task.status = TaskStatus::InProgress;
        task.last_known_location = Location::InprogSet;
        hold(task, lease, now)
    }

    /// Moves the deadline of a lease to `by` from now.
    ///
    /// # Errors
    ///
    /// As [`fence`].
    pub fn extend(
        &self,
        task: &mut Task,
        lease: &Lease,
        by: Millis,
        now: Instant,
    ) -> Result<Placement> {
        fence(task, lease)?;
        Ok(hold(task, by, now))
    }

    /// Takes a task back that its worker hands over unharmed: the delivery does not count.
    ///
    /// # Errors
    ///
    /// As [`fence`].
    pub fn abandon(&self, task: &mut Task, lease: &Lease, now: Instant) -> Result<Placement> {
        fence(task, lease)?;
        task.attempts = task.attempts.saturating_sub(1);
        Ok(release(task, now, now))
    }

    /// Takes a task back that its worker failed at.
    ///
    /// # Errors
    ///
    /// As [`fence`].
    pub fn nack(
        &self,
        task: &mut Task,
        lease: &Lease,
        delay: Option<Millis>,
        reason: &str,
        jitter: Jitter,
        now: Instant,
    ) -> Result<Placement> {
        fence(task, lease)?;
        let reason = if reason.is_empty() { MAX_ATTEMPTS_ERROR } else { reason };
        Ok(self.retry_or_bury(task, delay, reason, jitter, now))
    }

    /// Takes a task back whose lease ran out: a nack without a worker.
    ///
    /// Call it for tasks whose deadline has passed, and for no others.
    pub fn expire(&self, task: &mut Task, jitter: Jitter, now: Instant) -> Placement {
        self.retry_or_bury(task, None, LEASE_EXPIRED_ERROR, jitter, now)
    }

    /// Mends a task whose lease outlived its worker: one that is in progress is taken back as if the
    /// lease had run out, without a wait. Any other stays as it is, and the answer is nothing.
    pub fn release_lease(&self, task: &mut Task, now: Instant) -> Option<Placement> {
        let held = task.status == TaskStatus::InProgress;
        held.then(|| {
            let jitter = Jitter::exactly(0.0);
            self.retry_or_bury(task, Some(Millis::ZERO), LEASE_EXPIRED_ERROR, jitter, now)
        })
    }

    /// Brings a task to its end.
    ///
    /// # Errors
    ///
    /// As [`fence`].
    pub fn complete(
        &self,
        task: &mut Task,
        lease: &Lease,
        status: TaskStatus,
        error: &str,
        now: Instant,
    ) -> Result<Placement> {
        fence(task, lease)?;
        finish(task, status, error, now)
    }

    /// Makes a delayed task claimable whose time has come.
    pub fn come_due(&self, task: &mut Task, now: Instant) -> Placement {
        task.updated_at = now;
        task.last_known_location = Location::PendingList;
        Placement::Ready
    }

    /// Gives a dead-lettered task a fresh start.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::InvalidArgument`] if it is not dead-lettered.
    pub fn redrive(&self, task: &mut Task, now: Instant) -> Result<Placement> {
        if (task.status, task.last_known_location) != (TaskStatus::Failed, Location::DlqSet) {
            return Err(Error::invalid_argument(format!(
                "task {} is not dead-lettered: its status is {}",
                task.id, task.status
            )));
        }
        task.attempts = 0;
        task.error = Text::new();
        Ok(release(task, now, now))
    }

    /// From when on a task may be removed.
    ///
    /// That is its retention after its last change, counted from the moment it becomes visible or
    /// its lease ends where that is later, so that no task is removed before its time has come.
    pub fn retained_until(&self, task: &Task, placement: Placement) -> Instant {
        let last = match placement {
            Placement::Delayed(at) | Placement::Leased(at) => at.max(task.updated_at),
            Placement::Ready | Placement::Dead | Placement::Done => task.updated_at,
        };
        last + self.retention
    }

    fn retry_or_bury(
        &self,
        task: &mut Task,
        delay: Option<Millis>,
        reason: &str,
        jitter: Jitter,
        now: Instant,
    ) -> Placement {
        let limit = if task.max_attempts == 0 { self.max_attempts } else { task.max_attempts };
        if reason != MAX_ATTEMPTS_ERROR || task.attempts >= limit {
            task.error = Text::from(reason);
        }
        if task.attempts >= limit {
            free(task, now);
            task.status = TaskStatus::Failed;
            task.last_known_location = Location::DlqSet;
            return Placement::Dead;
        }
        let delay = delay.map_or_else(
            || self.backoff.delay(task.attempts, jitter),
            |named| self.backoff.clamp(named),
        );
        release(task, now + delay, now)
    }
}

/// Checks that whoever holds `lease` still holds the task. The deadline does not matter: an owner
/// whose lease has run out may finish as long as nobody has taken the task back.
///
/// # Errors
///
/// [`NotFound`](crate::ErrorKind::NotFound) for another tenant's task,
/// [`NotInProgress`](crate::ErrorKind::NotInProgress) if nobody holds it, and
/// [`NotOwner`](crate::ErrorKind::NotOwner) if another worker does, or the same one by a later
/// delivery.
pub fn fence(task: &Task, lease: &Lease) -> Result<()> {
    if task.tenant_id != lease.tenant_id {
        return Err(not_found(&lease.task_id));
    }
    if task.status != TaskStatus::InProgress {
        return Err(Error::not_in_progress(format!(
            "task {} is not in progress: its status is {}",
            task.id, task.status
        )));
    }
    if task.worker_id != lease.worker_id {
        return Err(Error::not_owner(format!(
            "task {} is not leased to worker {}",
            task.id, lease.worker_id
        )));
    }
    if lease.attempt != 0 && lease.attempt != task.attempts {
        return Err(Error::not_owner(format!(
            "task {} was delivered again: attempt {} is over, {} is running",
            task.id, lease.attempt, task.attempts
        )));
    }
    Ok(())
}

/// Brings a task to its end, whoever holds it. Workers go through [`Rules::complete`].
///
/// # Errors
///
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if `status` is not a final one.
pub fn finish(task: &mut Task, status: TaskStatus, error: &str, now: Instant) -> Result<Placement> {
    if !status.is_terminal() {
        return Err(Error::invalid_argument(format!(
            "task {} cannot be finished as {status}: use COMPLETED or FAILED",
            task.id
        )));
    }
    free(task, now);
    task.status = status;
    task.error = Text::from(error);
    task.last_known_location = Location::None;
    Ok(Placement::Done)
}

/// Where a record that was read from elsewhere belongs.
pub fn placement_of(task: &Task, visible_at: Instant) -> Placement {
    match (task.status, task.last_known_location) {
        (TaskStatus::InProgress, _) => {
            Placement::Leased(task.lease_until.into_option().unwrap_or(Instant::EPOCH))
        }
        (TaskStatus::Pending, Location::DelayedZset) => Placement::Delayed(visible_at),
        (TaskStatus::Pending, _) => Placement::Ready,
        (TaskStatus::Failed, Location::DlqSet) => Placement::Dead,
        (TaskStatus::Completed | TaskStatus::Failed, _) => Placement::Done,
    }
}

/// Checks what every task has to have.
///
/// # Errors
///
/// `InvalidArgument` if it has no id or no command.
pub fn check_task(task: &Task) -> Result<()> {
    if task.id.is_empty() {
        return Err(Error::invalid_argument("the task has no id: give it a UUID"));
    }
    if task.command.is_empty() {
        return Err(Error::invalid_argument(format!("task {} has no command: name one", task.id)));
    }
    Ok(())
}

/// Checks how long a claim wants to hold its tasks.
///
/// # Errors
///
/// `InvalidArgument` if the lease ends before it begins.
pub fn check_lease(lease: Millis) -> Result<()> {
    if lease <= Millis::ZERO {
        let message = format!("a lease of {} ms ends before it begins", lease.0);
        return Err(Error::invalid_argument(message));
    }
    Ok(())
}

/// The error for a task that is not there.
pub fn not_found(id: &str) -> Error {
    Error::not_found(format!("there is no task {id}"))
}

fn hold(task: &mut Task, lease: Millis, now: Instant) -> Placement {
    let until = now + lease;
    task.lease_until = Optional::RSome(until);
    task.updated_at = now;
    Placement::Leased(until)
}

fn free(task: &mut Task, now: Instant) {
    task.worker_id = Text::new();
    task.lease_until = Optional::RNone;
    task.updated_at = now;
}

fn release(task: &mut Task, visible_at: Instant, now: Instant) -> Placement {
    free(task, now);
    task.status = TaskStatus::Pending;
    if visible_at > now {
        task.last_known_location = Location::DelayedZset;
        Placement::Delayed(visible_at)
    } else {
        task.last_known_location = Location::PendingList;
        Placement::Ready
    }
}

#[cfg(test)]
mod properties;
