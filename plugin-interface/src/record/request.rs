//! What is asked of a store about single tasks, and what it answers.

use abi_stable::StableAbi;

use super::{
    Batch, Boxed, Extensions, Instant, List, Millis, Moved, Optional, Task, TaskResult, TaskStatus,
    Text,
};

/// Puts a task into its queue.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Enqueue {
    /// The task. The store sets its state, its attempts and its times.
    pub task: Boxed<Task>,
    /// From when on the task may be claimed. The past means at once.
    pub visible_at: Instant,
    /// Two enqueues of one tenant with the same key within 24 hours give one task; empty for none.
    pub idempotency_key: Text,
    /// Later fields.
    pub extensions: Extensions,
}

impl Enqueue {
    /// Puts `task` into its queue, to be claimed at once.
    pub fn now(task: Task) -> Enqueue {
        Enqueue {
            task: Boxed::new(task),
            visible_at: Instant::EPOCH,
            idempotency_key: Text::new(),
            extensions: Extensions::new(),
        }
    }
}

/// A task that is in its queue.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The task as it is kept.
    pub task: Boxed<Task>,
    /// Whether it is new; false if an earlier task had the same idempotency key.
    pub created: bool,
    /// Whether its queue had no claimable task before.
    pub awoke: bool,
}

/// Takes tasks for a worker.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Who takes them.
    pub worker_id: Text,
    /// Whose tasks.
    pub tenant_id: Text,
    /// From which commands, in this order; none means any command of the tenant.
    pub commands: List<Text>,
    /// At most how many.
    pub max: u32,
    /// For how long.
    pub lease: Millis,
    /// Later fields.
    pub extensions: Extensions,
}

/// Tasks that a worker holds now.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The tasks, best first.
    pub tasks: Batch<Boxed<Task>>,
    /// What the claim moved on its way: tasks that came due, leases that had run out. Nothing, for
    /// most claims.
    pub moved: Optional<Boxed<Moved>>,
}

/// A worker's hold on a task, as the worker remembers it.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The task.
    pub task_id: Text,
    /// The worker.
    pub worker_id: Text,
    /// The worker's tenant; another tenant's task is `NotFound`.
    pub tenant_id: Text,
    /// The task's `attempts` when it was claimed; 0 if the worker does not remember.
    ///
    /// Abandoning and redriving lower `attempts`, so a number may come again: it tells apart the
    /// deliveries of an uninterrupted series of failures, not all there ever were.
    pub attempt: u32,
    /// Later fields.
    pub extensions: Extensions,
}

/// Moves the deadline of a lease.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Extend {
    /// Which lease.
    pub lease: Lease,
    /// How far from now the new deadline is.
    pub by: Millis,
}

/// Gives a task back as failed.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Nack {
    /// Which lease.
    pub lease: Lease,
    /// When to try again, from now; the backoff policy decides if it is not named.
    pub delay: Optional<Millis>,
    /// Why it failed; may be empty.
    pub reason: Text,
}

/// A task that its worker no longer holds.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The task as it is kept now; its location tells what became of it.
    pub task: Boxed<Task>,
    /// How long until it may be claimed again; zero if at once or never.
    pub delay: Millis,
    /// Whether its queue had no claimable task before and has one now.
    pub awoke: bool,
}

/// Names a task of a tenant.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskKey {
    /// The task.
    pub id: Text,
    /// Its tenant; another tenant's task is `NotFound`.
    pub tenant_id: Text,
}

/// Sets a task's final state, whoever holds it. For repair; workers use [`Complete`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// The task.
    pub task_id: Text,
    /// [`TaskStatus::Completed`] or [`TaskStatus::Failed`].
    pub status: TaskStatus,
    /// Why it failed, if it did.
    pub error: Text,
    /// Names the result record, if there is one.
    pub result_key: Text,
    /// Later fields.
    pub extensions: Extensions,
}

/// Hands in the result of a task.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Which lease.
    pub lease: Lease,
    /// The result; its status is the task's final one.
    pub result: Boxed<TaskResult>,
}

/// A task that has come to its end.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The task as it is kept now.
    pub task: Boxed<Task>,
}
