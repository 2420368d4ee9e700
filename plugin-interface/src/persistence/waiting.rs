//! The same operations for stores that wait: `async`, and over whole batches.

use std::{future::Future, path::Path};

use serde::de::DeserializeOwned;

use super::{Context, no_backup, no_subscriptions};
use crate::{
    Durability, Error, Result,
    record::{
        AllowNotify, BackedUp, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup, Complete,
        Completed, Enqueue, Enqueued, Event, Extend, Finish, GroupKey, Instant, Lease, List,
        ListTasks, Moved, Nack, Page, Placed, Queue, QueueStats, Renew, Returned, Subscription,
        Task, TaskKey, TaskResult, Text, Unregister,
    },
};

/// An answer for each item of a batch, in its order; or the reason why the whole batch failed.
pub type Answers<T> = Result<Vec<Result<T>>>;

/// A store that waits for a network or a disk.
///
/// Its functions may be written as `async fn`. They run in a tokio runtime of the plugin's own, so
/// timers, sockets and `tokio::spawn` work as everywhere. The future of a call may be dropped
/// before it is ready, when whoever asked has gone away.
pub trait AsyncPersistence:
    AsyncTaskStorage + AsyncResultStorage + AsyncSubscriptionStorage + Send + Sync + Sized + 'static
{
    /// The store's settings: `persistenceConfig` of the host's configuration.
    type Config: DeserializeOwned + Send;

    /// How many threads the plugin's runtime has. They drive connections and background tasks; the
    /// calls themselves are driven by the host's threads.
    fn runtime_threads(config: &Self::Config) -> usize {
        let _ = config;
        1
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) names the key at fault; any other kind
    /// says what kept the store from opening.
    fn open(config: Self::Config, context: Context) -> impl Future<Output = Result<Self>> + Send;

    /// What this store's writes survive with the settings that it was opened with, if that is not what
    /// the manifest declares. Asked once, when the store is open.
    fn durability(&self) -> Option<Durability> {
        None
    }

    /// Whether the backend can be reached, within the store's time-out.
    ///
    /// # Errors
    ///
    /// What keeps it from working.
    fn health(&self) -> impl Future<Output = Result<()>> + Send;

    /// Flushes what is not yet durable. No operation is in flight, and none comes after it.
    ///
    /// # Errors
    ///
    /// What could not be flushed.
    fn close(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Copies all that a store of this configuration keeps to a path where nothing is, as it is at one
    /// moment, while hosts use the store. It runs in a process of its own, in a runtime as
    /// a store has, and may take its time. Belongs to the capability `backup`.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if something is at `to`, otherwise what kept
    /// the copy from being made. There is nothing at `to` then.
    fn backup(
        config: Self::Config,
        context: Context,
        to: &Path,
    ) -> impl Future<Output = Result<BackedUp>> + Send {
        let _ = (config, context, to);
        async { Err(no_backup()) }
    }
}

/// Operations on tasks; each is the one of the same name in [`TaskStorage`](super::TaskStorage).
pub trait AsyncTaskStorage {
    /// Writes records as they stand.
    fn save(&self, batch: Vec<Placed>) -> impl Future<Output = Answers<()>> + Send;
    /// Reads records.
    fn get(&self, ids: Vec<Text>) -> impl Future<Output = Answers<Boxed<Task>>> + Send;
    /// Removes tasks, their leases and their results.
    fn delete(&self, ids: Vec<Text>) -> impl Future<Output = Answers<()>> + Send;
    /// Puts tasks into their queues.
    fn enqueue(&self, batch: Vec<Enqueue>) -> impl Future<Output = Answers<Enqueued>> + Send;
    /// Takes tasks for a worker.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed>> + Send;
    /// Moves the deadlines of leases.
    fn update_lease(&self, batch: Vec<Extend>) -> impl Future<Output = Answers<Instant>> + Send;
    /// Takes tasks back unharmed.
    fn abandon_lease(&self, batch: Vec<Lease>) -> impl Future<Output = Answers<Returned>> + Send;
    /// Takes tasks back as failed.
    fn nack(&self, batch: Vec<Nack>) -> impl Future<Output = Answers<Returned>> + Send;
    /// Makes delayed tasks claimable whose time has come.
    fn move_due_delayed(&self, limit: u32) -> impl Future<Output = Result<Moved>> + Send;
    /// Takes tasks back whose lease has run out.
    fn requeue_expired(&self, limit: u32) -> impl Future<Output = Result<Moved>> + Send;
    /// How many tasks of a queue are claimable.
    fn queue_length(&self, queue: Queue) -> impl Future<Output = Result<u64>> + Send;
    /// How many tasks a queue has in each place.
    fn queue_stats(&self, queue: Queue) -> impl Future<Output = Result<QueueStats>> + Send;
    /// The counts of every queue of one tenant, or of all.
    fn admin_queues(
        &self,
        tenant: Option<Text>,
    ) -> impl Future<Output = Result<Vec<QueueStats>>> + Send;
    /// Removes tasks whose retention has ended.
    fn cleanup_expired(&self, cleanup: Cleanup) -> impl Future<Output = Result<u32>> + Send;

    /// A page of tasks. Belongs to the capability `listing`.
    fn list(&self, list: ListTasks) -> impl Future<Output = Result<Page>> + Send {
        let _ = list;
        async { Err(Error::unsupported("this store cannot list tasks")) }
    }

    /// Gives dead-lettered tasks a fresh start. Belongs to the capability `listing`.
    fn redrive(&self, batch: Vec<TaskKey>) -> impl Future<Output = Answers<Returned>> + Send {
        let _ = batch;
        async { Err(Error::unsupported("this store cannot redrive tasks")) }
    }

    /// Waits until something happens in the backend that this host may not have done itself, and
    /// answers with all that has happened since the last call. Belongs to the capability `events`.
    fn next_events(&self) -> impl Future<Output = Result<List<Event>>> + Send {
        async { Err(Error::unsupported("this store reports no events")) }
    }
}

/// Operations on results; each is the one of the same name in
/// [`ResultStorage`](super::ResultStorage).
pub trait AsyncResultStorage {
    /// Writes results.
    fn save_result(
        &self,
        batch: Vec<Boxed<TaskResult>>,
    ) -> impl Future<Output = Answers<()>> + Send;
    /// Reads results.
    fn get_result(&self, ids: Vec<Text>)
    -> impl Future<Output = Answers<Boxed<TaskResult>>> + Send;
    /// Sets final states and clears leases, whoever holds them.
    fn update_task_on_complete(
        &self,
        batch: Vec<Finish>,
    ) -> impl Future<Output = Answers<()>> + Send;
    /// Mends tasks whose lease or in-progress entry outlived them.
    fn remove_from_inprog_and_clear_lease(
        &self,
        ids: Vec<Text>,
    ) -> impl Future<Output = Answers<()>> + Send;
    /// Keeps results, sets final states and clears leases, each in one step.
    fn complete(&self, batch: Vec<Complete>) -> impl Future<Output = Answers<Completed>> + Send;
}

/// Operations on subscriptions; each is the one of the same name in
/// [`SubscriptionStorage`](super::SubscriptionStorage). A store without the capability
/// `subscriptions` leaves the defaults, which are `Unsupported`.
#[expect(unused_variables, reason = "the defaults need none of their arguments")]
pub trait AsyncSubscriptionStorage {
    /// Keeps subscriptions until they expire.
    fn register(
        &self,
        batch: Vec<Boxed<Subscription>>,
    ) -> impl Future<Output = Answers<()>> + Send {
        async { Err(no_subscriptions()) }
    }

    /// Moves the ends of subscriptions.
    fn renew(
        &self,
        batch: Vec<Renew>,
    ) -> impl Future<Output = Answers<Boxed<Subscription>>> + Send {
        async { Err(no_subscriptions()) }
    }

    /// Ends subscriptions; answers how many.
    fn unregister(&self, batch: Vec<Unregister>) -> impl Future<Output = Answers<u32>> + Send {
        async { Err(no_subscriptions()) }
    }

    /// The active subscriptions about a command, those to `*` included.
    fn get_by_command(
        &self,
        by: ByCommand,
    ) -> impl Future<Output = Result<Vec<Boxed<Subscription>>>> + Send {
        async { Err(no_subscriptions()) }
    }

    /// The active subscriptions of a worker.
    fn get_by_worker(
        &self,
        by: ByWorker,
    ) -> impl Future<Output = Result<Vec<Boxed<Subscription>>>> + Send {
        async { Err(no_subscriptions()) }
    }

    /// True at most once per subscription and interval.
    fn allow_notify(&self, batch: Vec<AllowNotify>) -> impl Future<Output = Answers<bool>> + Send {
        async { Err(no_subscriptions()) }
    }

    /// 0, 1, 2, … for each group.
    fn next_group_index(&self, batch: Vec<GroupKey>) -> impl Future<Output = Answers<u64>> + Send {
        async { Err(no_subscriptions()) }
    }

    /// Removes what has expired, at most `limit`; answers how many.
    fn remove_expired(&self, limit: u32) -> impl Future<Output = Result<u32>> + Send {
        async { Err(no_subscriptions()) }
    }
}
