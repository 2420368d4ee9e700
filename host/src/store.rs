//! The store handle: an open plugin, for the rest of the host to use.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use codeq_plugin::{
    AllowNotify, Batch, Boxed, ByCommand, ByWorker, Capability, Claim, Claimed, Cleanup, Complete,
    Completed, Durability, Enqueue, Enqueued, Error, ErrorKind, Event, Extend, Finish, GroupKey,
    Instant, Lease, List, ListTasks, Moved, Nack, Optional, Outcome, Page, Placed, Queue,
    QueueStats, Renew, Returned, Subscription, Task, TaskKey, TaskResult, Text, Unregister,
    boundary::{InstanceBox, Reply, durability_of},
    manifest::Manifest,
};
use serde_json::Value;
use thiserror::Error as ThisError;

use crate::metrics::{Calls, Operation};
use crate::plugins::{OpenError, OpenOptions, Plugins, default_dirs};

/// An open store. Clones are the same store.
///
/// The operations are those of the storage contract. They answer with the plugin's error, which
/// carries its kind, under the plugin's name. An operation begins when it is called, and its answer
/// is awaited.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    instance: InstanceBox,
    manifest: Manifest,
    durability: Durability,
    /// What is asked of the plugin, if somebody wants to know.
    calls: OnceLock<Calls>,
}

/// An operation that failed, and the plugin it failed in.
#[derive(Clone, Debug, ThisError, PartialEq, Eq)]
#[error("plugin `{plugin}`: {error}")]
pub struct StoreError {
    /// The plugin's name.
    pub plugin: String,
    /// What it says.
    #[source]
    pub error: Error,
}

impl StoreError {
    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }
}

/// No call may take longer, whatever the plugin's own time-outs are: a plugin that forgets a call
/// must not keep its caller.
const CALL_LIMIT: Duration = Duration::from_secs(30);

impl Store {
    /// Opens a store by the plugin's name, from the default directories.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use codeq_host::Store;
    ///
    /// let store = Store::open("memory", &serde_json::json!({})).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// [`Plugins::open`] opens one from other directories and with other options.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn open(name: &str, config: &Value) -> Result<Store, OpenError> {
        Plugins::discover(&default_dirs()).open(name, config, &OpenOptions::default()).await
    }

    pub(crate) fn new(manifest: Manifest, instance: InstanceBox) -> Store {
        let durability = durability_of(&instance, &manifest);
        Store(Arc::new(Inner { instance, manifest, durability, calls: OnceLock::new() }))
    }

    /// What the plugin says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// What its writes survive, with the settings that it was opened with.
    pub fn durability(&self) -> Durability {
        self.0.durability
    }

    /// Whether the plugin can do `capability`.
    pub fn has(&self, capability: Capability) -> bool {
        self.0.manifest.has(capability)
    }

    /// Counts the calls from now on.
    pub(crate) fn count_calls(&self, calls: Calls) {
        // The first to count goes on.
        let _ = self.0.calls.set(calls);
    }

    /// A call that is counted.
    ///
    /// It stays out of the way of calls that are not, which is why an answer does not know of it.
    #[inline(never)]
    fn counted<T: Send + 'static>(
        &self,
        operation: &Arc<Operation>,
        call: impl FnOnce() -> Reply<T>,
        failed_items: fn(&Operation, &T),
    ) -> Answer<'_, T> {
        let begun = operation.begin();
        let reply = call();
        if let Reply::Pending(_) = reply {
            let operation = Arc::clone(operation);
            return Answer::Waiting(
                self,
                Box::pin(async move {
                    let result = bounded(reply).await;
                    operation.end(begun);
                    match &result {
                        Ok(value) => failed_items(&operation, value),
                        Err(error) => operation.failed(error),
                    }
                    result
                }),
            );
        }
        operation.end(begun);
        match &reply {
            Reply::Ok(value) => failed_items(operation, value),
            Reply::Err(error) => operation.failed(error),
            Reply::Pending(_) => {}
        }
        Answer::Replied(self, reply)
    }

    fn fault(&self, error: Error) -> StoreError {
        StoreError { plugin: self.0.manifest.name.clone(), error }
    }
}

/// Waits for a reply, but not for ever.
pub(crate) async fn bounded<T>(reply: Reply<T>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_LIMIT, reply.settled()).await {
        Ok(result) => result,
        Err(_) => {
            let limit = CALL_LIMIT.as_secs();
            Err(Error::timeout(format!("the plugin did not answer within {limit} s")))
        }
    }
}

/// The answer to a call that was made: there already, or under way.
///
/// It is written by hand because it is the hot path of a ready store: an `async fn` would copy its
/// arguments into its state and back, which costs a tenth of a whole enqueue, claim and complete.
enum Answer<'a, T> {
    Replied(&'a Store, Reply<T>),
    Waiting(&'a Store, Waiting<T>),
    Taken,
}

type Waiting<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

impl<T> Unpin for Answer<'_, T> {}

impl<T: Send + 'static> Future for Answer<'_, T> {
    type Output = Result<T, StoreError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match mem::replace(&mut *self, Answer::Taken) {
            Answer::Replied(_, Reply::Ok(value)) => Poll::Ready(Ok(value)),
            Answer::Replied(store, Reply::Err(error)) => Poll::Ready(Err(store.fault(error))),
            Answer::Replied(store, pending) => {
                self.wait(store, Box::pin(bounded(pending)), context)
            }
            Answer::Waiting(store, waiting) => self.wait(store, waiting, context),
            // Polled again after its end, which no caller does; there is nothing more to come.
            Answer::Taken => Poll::Pending,
        }
    }
}

impl<'a, T> Answer<'a, T> {
    #[cold]
    fn wait(
        &mut self,
        store: &'a Store,
        mut waiting: Waiting<T>,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, StoreError>> {
        match waiting.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(result.map_err(|error| store.fault(error))),
            Poll::Pending => {
                *self = Answer::Waiting(store, waiting);
                Poll::Pending
            }
        }
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty)?) -> $answer:ty;)*) => {
        $(
            $(#[$doc])*
            #[inline]
            pub fn $name(
                &self,
                $($arg: $type)?
            ) -> impl Future<Output = Result<$answer, StoreError>> + Send {
                let call = || self.0.instance.$name($($arg)?);
                match self.0.calls.get() {
                    None => Answer::Replied(self, call()),
                    Some(calls) => self.counted(&calls.$name, call, |_, _| ()),
                }
            }
        )*
    };
}

macro_rules! batch_operations {
    ($($(#[$doc:meta])* fn $name:ident($type:ty) -> $answer:ty;)*) => {
        $(
            $(#[$doc])*
            #[inline]
            pub fn $name(
                &self,
                batch: Batch<$type>,
            ) -> impl Future<Output = Result<Batch<Outcome<$answer>>, StoreError>> + Send {
                let call = || self.0.instance.$name(batch);
                match self.0.calls.get() {
                    None => Answer::Replied(self, call()),
                    Some(calls) => self.counted(&calls.$name, call, count_failed),
                }
            }
        )*
    };
}

fn count_failed<T>(operation: &Operation, items: &Batch<Outcome<T>>) {
    for item in items.iter() {
        if let Outcome::RErr(error) = item {
            operation.failed(error);
        }
    }
}

#[expect(clippy::missing_errors_doc, reason = "the traits of `codeq_plugin` name the errors")]
impl Store {
    batch_operations! {
        /// Writes records as they stand.
        fn save(Placed) -> ();
        /// Reads records.
        fn get(Text) -> Boxed<Task>;
        /// Removes tasks, their leases and their results.
        fn delete(Text) -> ();
        /// Puts tasks into their queues.
        fn enqueue(Enqueue) -> Enqueued;
        /// Moves the deadlines of leases.
        fn update_lease(Extend) -> Instant;
        /// Takes tasks back unharmed.
        fn abandon_lease(Lease) -> Returned;
        /// Takes tasks back as failed.
        fn nack(Nack) -> Returned;
        /// Gives dead-lettered tasks a fresh start.
        fn redrive(TaskKey) -> Returned;
        /// Writes results.
        fn save_result(Boxed<TaskResult>) -> ();
        /// Reads results.
        fn get_result(Text) -> Boxed<TaskResult>;
        /// Sets final states and clears leases, whoever holds them.
        fn update_task_on_complete(Finish) -> ();
        /// Mends tasks whose lease outlived its worker.
        fn remove_from_inprog_and_clear_lease(Text) -> ();
        /// Keeps results, sets final states and clears leases, each in one step.
        fn complete(Complete) -> Completed;
        /// Keeps subscriptions until they expire.
        fn register(Boxed<Subscription>) -> ();
        /// Moves the ends of subscriptions.
        fn renew(Renew) -> Boxed<Subscription>;
        /// Ends subscriptions; answers how many.
        fn unregister(Unregister) -> u32;
        /// True at most once per subscription and interval.
        fn allow_notify(AllowNotify) -> bool;
        /// 0, 1, 2, … for each group.
        fn next_group_index(GroupKey) -> u64;
    }

    operations! {
        /// Takes tasks for a worker.
        fn claim(claim: Claim) -> Claimed;
        /// Makes delayed tasks claimable whose time has come.
        fn move_due_delayed(limit: u32) -> Moved;
        /// Takes tasks back whose lease has run out.
        fn requeue_expired(limit: u32) -> Moved;
        /// How many tasks of a queue are claimable.
        fn queue_length(queue: Queue) -> u64;
        /// How many tasks a queue has in each place.
        fn queue_stats(queue: Queue) -> QueueStats;
        /// The counts of every queue of one tenant, or of all.
        fn admin_queues(tenant: Optional<Text>) -> List<QueueStats>;
        /// Removes tasks whose retention has ended; answers how many.
        fn cleanup_expired(cleanup: Cleanup) -> u32;
        /// A page of tasks.
        fn list(list: ListTasks) -> Page;
        /// The active subscriptions about a command.
        fn get_by_command(by: ByCommand) -> List<Boxed<Subscription>>;
        /// The active subscriptions of a worker.
        fn get_by_worker(by: ByWorker) -> List<Boxed<Subscription>>;
        /// Removes subscriptions that have expired; answers how many.
        fn remove_expired(limit: u32) -> u32;
        /// Whether the store can work.
        fn health() -> ();
        /// Flushes, waits for what is in flight, and ends the store. Safe to call twice.
        fn close() -> ();
    }

    /// Waits until something happens in the backend through another host. This one may wait for as
    /// long as nothing happens.
    pub async fn next_events(&self) -> Result<List<Event>, StoreError> {
        self.0.instance.next_events().settled().await.map_err(|error| self.fault(error))
    }
}
