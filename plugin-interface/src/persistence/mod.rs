//! The traits that a plugin implements.
//!
//! A store that answers at once, like one in memory, implements [`Persistence`]: plain functions,
//! one item at a time. A store that waits for a network or a disk implements `AsyncPersistence`:
//! `async` functions over whole batches, since a batch is one round trip or one commit to it. The
//! operations, their meaning and their errors are the same.

#[cfg(feature = "async")]
mod waiting;

#[cfg(feature = "async")]
pub use waiting::{
    Answers, AsyncPersistence, AsyncResultStorage, AsyncSubscriptionStorage, AsyncTaskStorage,
};

use std::path::Path;

use abi_stable::StableAbi;
use serde::de::DeserializeOwned;

use crate::{
    Durability, Error, Result,
    log::LogSink,
    record::{
        AllowNotify, BackedUp, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup, Complete,
        Completed, Enqueue, Enqueued, Extend, Extensions, Finish, GroupKey, Instant, Lease,
        ListTasks, Moved, Nack, Page, Placed, Queue, QueueStats, Renew, Returned, Subscription,
        Task, TaskKey, TaskResult, Text, Unregister,
    },
    rules::Rules,
};

/// What the host tells a store when it opens it.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct Context {
    /// The name under which the plugin was selected.
    pub provider: Text,
    /// The rules of the queues.
    pub rules: Rules,
    /// The IANA name of the zone in which times are shown to people, such as `Europe/Berlin`.
    pub timezone: Text,
    /// At most how many tasks one claim or repair takes back or makes due on its way.
    pub repair_limit: u32,
    /// Where the store's log goes.
    pub log: LogSink,
    /// Later fields.
    pub extensions: Extensions,
}

/// A store that answers at once.
///
/// Calls come from many threads at the same time, on threads that serve other requests too: never
/// wait for a network, a disk or a lock that somebody holds for long.
pub trait Persistence:
    TaskStorage + ResultStorage + SubscriptionStorage + Send + Sync + Sized + 'static
{
    /// The store's settings: `persistenceConfig` of the host's configuration.
    type Config: DeserializeOwned;

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) names the key at fault; any other kind
    /// says what kept the store from opening.
    fn open(config: Self::Config, context: Context) -> Result<Self>;

    /// What this store's writes survive with the settings that it was opened with, if that is not what
    /// the manifest declares. Asked once, when the store is open.
    fn durability(&self) -> Option<Durability> {
        None
    }

    /// Whether the store can work.
    ///
    /// # Errors
    ///
    /// What keeps it from working.
    fn health(&self) -> Result<()> {
        Ok(())
    }

    /// Flushes what is not yet durable. No operation comes after it.
    ///
    /// # Errors
    ///
    /// What could not be flushed.
    fn close(&self) -> Result<()> {
        Ok(())
    }

    /// Copies all that a store of this configuration keeps to a path where nothing is, as it is at one
    /// moment, while hosts use the store. It runs in a process of its own, so it may take its time and
    /// its thread. Belongs to the capability `backup`.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if something is at `to`, otherwise what kept
    /// the copy from being made. There is nothing at `to` then.
    fn backup(config: Self::Config, context: Context, to: &Path) -> Result<BackedUp> {
        let _ = (config, context, to);
        Err(no_backup())
    }
}

/// Operations on tasks. See the storage contract for the rules behind them.
#[expect(clippy::missing_errors_doc, reason = "each operation's first lines name its errors")]
pub trait TaskStorage {
    /// Writes a record as it stands, into the place that it names; replaces one of the same id.
    fn save(&self, placed: Placed) -> Result<()>;

    /// Reads a record. `NotFound` if there is none.
    fn get(&self, id: &str) -> Result<Boxed<Task>>;

    /// Removes a task, its lease and its result. `NotFound` if there is none.
    fn delete(&self, id: &str) -> Result<()>;

    /// Puts a task into its queue, or answers with the one that has its idempotency key.
    /// `AlreadyExists` if the id is taken.
    fn enqueue(&self, enqueue: Enqueue) -> Result<Enqueued>;

    /// Takes up to `max` tasks for a worker. What has come due or expired in those queues by now is
    /// moved first.
    fn claim(&self, claim: Claim) -> Result<Claimed>;

    /// Moves a lease's deadline and answers with the new one. Fenced: `NotFound`, `NotInProgress`,
    /// `NotOwner`.
    fn update_lease(&self, extend: Extend) -> Result<Instant>;

    /// Takes a task back unharmed. Fenced as [`TaskStorage::update_lease`].
    fn abandon_lease(&self, lease: Lease) -> Result<Returned>;

    /// Takes a task back as failed, to be retried or buried. Fenced as
    /// [`TaskStorage::update_lease`].
    fn nack(&self, nack: Nack) -> Result<Returned>;

    /// Makes delayed tasks claimable whose time has come, at most `limit`, earliest first.
    fn move_due_delayed(&self, limit: u32) -> Result<Moved>;

    /// Takes tasks back whose lease has run out, at most `limit`, earliest first.
    fn requeue_expired(&self, limit: u32) -> Result<Moved>;

    /// How many tasks of a queue are claimable.
    fn queue_length(&self, queue: Queue) -> Result<u64>;

    /// How many tasks a queue has in each place; zeroes for a queue that nobody used yet.
    fn queue_stats(&self, queue: Queue) -> Result<QueueStats>;

    /// The counts of every queue of one tenant, or of all tenants, by tenant and command.
    fn admin_queues(&self, tenant: Option<Text>) -> Result<Vec<QueueStats>>;

    /// Removes tasks whose retention has ended; answers how many.
    fn cleanup_expired(&self, cleanup: Cleanup) -> Result<u32>;

    /// A page of tasks, in an order that stays the same for tasks that do not change. Belongs to
    /// the capability `listing`.
    fn list(&self, list: ListTasks) -> Result<Page> {
        let _ = list;
        Err(Error::unsupported("this store cannot list tasks"))
    }

    /// Gives a dead-lettered task a fresh start. `NotFound`, or `InvalidArgument` if it is not
    /// dead-lettered. Belongs to the capability `listing`.
    fn redrive(&self, task: TaskKey) -> Result<Returned> {
        let _ = task;
        Err(Error::unsupported("this store cannot redrive tasks"))
    }
}

/// Operations on results.
#[expect(clippy::missing_errors_doc, reason = "each operation's first lines name its errors")]
pub trait ResultStorage {
    /// Writes the result of a task, in place of an earlier one. `NotFound` if there is no such task.
    fn save_result(&self, result: Boxed<TaskResult>) -> Result<()>;

    /// Reads the result of a task. `NotFound` if there is none.
    fn get_result(&self, task_id: &str) -> Result<Boxed<TaskResult>>;

    /// Sets a task's final state and clears its lease, whoever holds it. `NotFound`.
    fn update_task_on_complete(&self, finish: Finish) -> Result<()>;

    /// Mends a task whose lease or in-progress entry outlived it. `NotFound`.
    fn remove_from_inprog_and_clear_lease(&self, task_id: &str) -> Result<()>;

    /// Keeps the result, sets the final state and clears the lease, in one step. Fenced: `NotFound`,
    /// `NotInProgress`, `NotOwner`.
    fn complete(&self, complete: Complete) -> Result<Completed>;
}

/// Operations on subscriptions. All of them belong to the capability `subscriptions`; a store
/// without it leaves the defaults, which are `Unsupported`.
#[expect(clippy::missing_errors_doc, reason = "each operation's first lines name its errors")]
#[expect(unused_variables, reason = "the defaults need none of their arguments")]
pub trait SubscriptionStorage {
    /// Keeps a subscription until it expires.
    fn register(&self, subscription: Boxed<Subscription>) -> Result<()> {
        Err(no_subscriptions())
    }

    /// Moves a subscription's end. `NotFound` if there is none or it has expired, `NotOwner` if it
    /// is another worker's.
    fn renew(&self, renew: Renew) -> Result<Boxed<Subscription>> {
        Err(no_subscriptions())
    }

    /// Ends subscriptions; answers how many.
    fn unregister(&self, unregister: Unregister) -> Result<u32> {
        Err(no_subscriptions())
    }

    /// The active subscriptions about a command, those to `*` included.
    fn get_by_command(&self, by: ByCommand) -> Result<Vec<Boxed<Subscription>>> {
        Err(no_subscriptions())
    }

    /// The active subscriptions of a worker.
    fn get_by_worker(&self, by: ByWorker) -> Result<Vec<Boxed<Subscription>>> {
        Err(no_subscriptions())
    }

    /// True at most once per subscription and interval.
    fn allow_notify(&self, ask: AllowNotify) -> Result<bool> {
        Err(no_subscriptions())
    }

    /// 0, 1, 2, … for each group: whose turn it is, modulo the number of its members.
    fn next_group_index(&self, group: GroupKey) -> Result<u64> {
        Err(no_subscriptions())
    }

    /// Removes what has expired, at most `limit`; answers how many.
    fn remove_expired(&self, limit: u32) -> Result<u32> {
        Err(no_subscriptions())
    }
}

fn no_backup() -> Error {
    Error::unsupported("this plugin makes no backups")
}

fn no_subscriptions() -> Error {
    Error::unsupported("this store keeps no subscriptions")
}
