//! The boundary's side of a store that waits.
//!
//! Every library has its own copy of tokio, with its own thread-locals, so a plugin's timer or
//! socket does not find the host's runtime. The plugin has one of its own, and every future enters
//! it when it is polled *and when it is dropped*.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use abi_stable::{
    sabi_trait::prelude::TD_Opaque,
    std_types::{RResult, RString},
};
use async_ffi::FutureExt;
use pin_project_lite::pin_project;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Semaphore, watch},
};

use super::{Instance, Instance_TO, InstanceBox, Replies, Reply, guarded, panicked, parse_config};
use crate::{
    Answers, AsyncPersistence, Durability, Error, Result,
    log::{self, LogSink},
    persistence::Context,
    record::{
        AllowNotify, BackedUp, Batch, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup,
        Complete, Completed, Enqueue, Enqueued, Event, Extend, Finish, GroupKey, Instant, Lease,
        List, ListTasks, Moved, Nack, Optional, Page, Placed, Queue, QueueStats, Renew, Returned,
        Subscription, Task, TaskKey, TaskResult, Text, Unregister,
    },
};

/// More calls than any host can have in flight.
const CALLS: u32 = 1 << 28;

/// Opens a store of type `S`. What [`export_plugin!`](crate::export_plugin) exports.
pub extern "C" fn open_waiting<S: AsyncPersistence>(
    config: RString,
    context: Context,
) -> Reply<InstanceBox> {
    let (config, guard) = match begin::<S>(&config, &context) {
        Ok(begun) => begun,
        Err(error) => return Reply::Err(error),
    };
    let inside = Arc::clone(&guard);
    guard.pending(async move {
        let store = S::open(config, context).await?;
        let waiting = Waiting(Arc::new(Shared {
            durability: store.durability(),
            store: Some(store),
            calls: Arc::new(Semaphore::new(CALLS as usize)),
            closed: watch::Sender::new(false),
            guard: inside,
        }));
        Ok(Instance_TO::from_value(waiting, TD_Opaque))
    })
}

/// Copies what a store of type `S` keeps. What [`export_plugin!`](crate::export_plugin) exports.
pub extern "C" fn backup_waiting<S: AsyncPersistence>(
    config: RString,
    context: Context,
    to: RString,
) -> Reply<BackedUp> {
    match begin::<S>(&config, &context) {
        Ok((config, guard)) => {
            guard.pending(async move { S::backup(config, context, Path::new(to.as_str())).await })
        }
        Err(error) => Reply::Err(error),
    }
}

/// Reads the configuration and starts a runtime for it.
fn begin<S: AsyncPersistence>(config: &str, context: &Context) -> Result<(S::Config, Arc<Guard>)> {
    guarded(|| {
        log::install(&context.provider, &context.log);
        let config = parse_config::<S::Config>(config)?;
        let threads = S::runtime_threads(&config).max(1);
        let guard = Guard::new(threads, context.provider.clone(), context.log.clone())?;
        Ok((config, Arc::new(guard)))
    })
}

/// The plugin's runtime, and who to tell of a panic that has no caller.
struct Guard {
    // Taken out only by `Drop`.
    runtime: Option<Runtime>,
    handle: Handle,
    provider: Text,
    log: LogSink,
}

impl Guard {
    fn new(threads: usize, provider: Text, log: LogSink) -> Result<Guard> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(format!("codeq-{provider}"))
            .enable_all()
            .build()
            .map_err(|error| {
                Error::unavailable("cannot start the plugin's runtime").because(&error)
            })?;
        Ok(Guard { handle: runtime.handle().clone(), runtime: Some(runtime), provider, log })
    }

    fn pending<T: 'static>(
        self: &Arc<Self>,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Reply<T> {
        let entered = Entered { future: Some(future), guard: Arc::clone(self) };
        Reply::Pending(entered.into_ffi())
    }

    /// Drops something inside the runtime; a panic in its destructor goes to the log.
    fn drop_inside(&self, drop: impl FnOnce()) {
        let _entered = self.handle.enter();
        let dropped = guarded(|| {
            drop();
            Ok(())
        });
        if let Err(error) = dropped {
            self.log.error(&self.provider, format!("while something was dropped, {error}"));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads; whoever drops the store must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pin_project! {
    /// A future that is polled and dropped inside the plugin's runtime and never unwinds.
    struct Entered<F> {
        #[pin]
        future: Option<F>,
        guard: Arc<Guard>,
    }

    impl<F> PinnedDrop for Entered<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                this.guard.drop_inside(|| this.future.set(None));
            }
        }
    }
}

impl<T, F: Future<Output = Result<T>>> Future for Entered<F> {
    type Output = RResult<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(RResult::RErr(Error::internal("polled after it was ready")));
        };
        let _entered = this.guard.handle.enter();
        let polled =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.poll(context)));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(payload) => Err(panicked(payload)),
        };
        this.guard.drop_inside(|| this.future.set(None));
        Poll::Ready(result.into())
    }
}

struct Waiting<S>(Arc<Shared<S>>);

struct Shared<S> {
    durability: Option<Durability>,
    // Taken out only by `Drop`.
    store: Option<S>,
    // One permit for each call in flight. Closing takes them all.
    calls: Arc<Semaphore>,
    closed: watch::Sender<bool>,
    guard: Arc<Guard>,
}

impl<S> Shared<S> {
    fn store(&self) -> Result<&S> {
        self.store.as_ref().ok_or_else(Error::closed)
    }
}

impl<S> Drop for Shared<S> {
    fn drop(&mut self) {
        let store = self.store.take();
        self.guard.drop_inside(|| drop(store));
    }
}

/// Makes the future of a call. A closure that borrows the store cannot have a nameable future, so
/// the calls are written by macro.
macro_rules! call {
    ($self:ident, |$store:ident| $call:expr) => {{
        let shared = Arc::clone(&$self.0);
        match Arc::clone(&shared.calls).try_acquire_owned() {
            Ok(permit) => $self.0.guard.pending(async move {
                let _permit = permit;
                let $store = shared.store()?;
                $call
            }),
            Err(_) => Reply::Err(Error::closed()),
        }
    }};
}

macro_rules! batch {
    ($self:ident.$operation:ident($batch:ident)) => {{
        let asked = $batch.len();
        call!($self, |store| answered(asked, store.$operation($batch.into_iter().collect()).await))
    }};
}

/// Turns the author's answers into the boundary's.
fn answered<T>(asked: usize, answers: Answers<T>) -> Result<Batch<RResult<T, Error>>> {
    let answers = answers?;
    if answers.len() != asked {
        return Err(Error::internal(format!("{} answers to {asked} items", answers.len())));
    }
    Ok(answers.into_iter().map(RResult::from).collect())
}

impl<S: AsyncPersistence> Instance for Waiting<S> {
    fn save(&self, batch: Batch<Placed>) -> Replies<()> {
        batch!(self.save(batch))
    }
    fn get(&self, ids: Batch<Text>) -> Replies<Boxed<Task>> {
        batch!(self.get(ids))
    }
    fn delete(&self, ids: Batch<Text>) -> Replies<()> {
        batch!(self.delete(ids))
    }
    fn enqueue(&self, batch: Batch<Enqueue>) -> Replies<Enqueued> {
        batch!(self.enqueue(batch))
    }
    fn claim(&self, claim: Claim) -> Reply<Claimed> {
        call!(self, |store| store.claim(claim).await)
    }
    fn update_lease(&self, batch: Batch<Extend>) -> Replies<Instant> {
        batch!(self.update_lease(batch))
    }
    fn abandon_lease(&self, batch: Batch<Lease>) -> Replies<Returned> {
        batch!(self.abandon_lease(batch))
    }
    fn nack(&self, batch: Batch<Nack>) -> Replies<Returned> {
        batch!(self.nack(batch))
    }
    fn move_due_delayed(&self, limit: u32) -> Reply<Moved> {
        call!(self, |store| store.move_due_delayed(limit).await)
    }
    fn requeue_expired(&self, limit: u32) -> Reply<Moved> {
        call!(self, |store| store.requeue_expired(limit).await)
    }
    fn queue_length(&self, queue: Queue) -> Reply<u64> {
        call!(self, |store| store.queue_length(queue).await)
    }
    fn queue_stats(&self, queue: Queue) -> Reply<QueueStats> {
        call!(self, |store| store.queue_stats(queue).await)
    }
    fn admin_queues(&self, tenant: Optional<Text>) -> Reply<List<QueueStats>> {
        call!(self, |store| store.admin_queues(tenant.into()).await.map(List::from))
    }
    fn cleanup_expired(&self, cleanup: Cleanup) -> Reply<u32> {
        call!(self, |store| store.cleanup_expired(cleanup).await)
    }
    fn list(&self, list: ListTasks) -> Reply<Page> {
        call!(self, |store| store.list(list).await)
    }
    fn redrive(&self, batch: Batch<TaskKey>) -> Replies<Returned> {
        batch!(self.redrive(batch))
    }

    fn save_result(&self, batch: Batch<Boxed<TaskResult>>) -> Replies<()> {
        batch!(self.save_result(batch))
    }
    fn get_result(&self, ids: Batch<Text>) -> Replies<Boxed<TaskResult>> {
        batch!(self.get_result(ids))
    }
    fn update_task_on_complete(&self, batch: Batch<Finish>) -> Replies<()> {
        batch!(self.update_task_on_complete(batch))
    }
    fn remove_from_inprog_and_clear_lease(&self, ids: Batch<Text>) -> Replies<()> {
        batch!(self.remove_from_inprog_and_clear_lease(ids))
    }
    fn complete(&self, batch: Batch<Complete>) -> Replies<Completed> {
        batch!(self.complete(batch))
    }

    fn register(&self, batch: Batch<Boxed<Subscription>>) -> Replies<()> {
        batch!(self.register(batch))
    }
    fn renew(&self, batch: Batch<Renew>) -> Replies<Boxed<Subscription>> {
        batch!(self.renew(batch))
    }
    fn unregister(&self, batch: Batch<Unregister>) -> Replies<u32> {
        batch!(self.unregister(batch))
    }
    fn get_by_command(&self, by: ByCommand) -> Reply<List<Boxed<Subscription>>> {
        call!(self, |store| store.get_by_command(by).await.map(List::from))
    }
    fn get_by_worker(&self, by: ByWorker) -> Reply<List<Boxed<Subscription>>> {
        call!(self, |store| store.get_by_worker(by).await.map(List::from))
    }
    fn allow_notify(&self, batch: Batch<AllowNotify>) -> Replies<bool> {
        batch!(self.allow_notify(batch))
    }
    fn next_group_index(&self, batch: Batch<GroupKey>) -> Replies<u64> {
        batch!(self.next_group_index(batch))
    }
    fn remove_expired(&self, limit: u32) -> Reply<u32> {
        call!(self, |store| store.remove_expired(limit).await)
    }

    /// Waits for as long as nothing happens, so it does not count as in flight; closing ends it.
    fn next_events(&self) -> Reply<List<Event>> {
        let shared = Arc::clone(&self.0);
        let mut closed = shared.closed.subscribe();
        self.0.guard.pending(async move {
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => Err(Error::closed()),
                events = async { shared.store()?.next_events().await } => events,
            }
        })
    }

    fn health(&self) -> Reply<()> {
        call!(self, |store| store.health().await)
    }

    fn close(&self) -> Reply<()> {
        let shared = Arc::clone(&self.0);
        self.0.guard.pending(async move {
            shared.closed.send_replace(true);
            // Whoever closes first waits for the calls in flight; a second one finds it done.
            let Ok(_all) = shared.calls.acquire_many(CALLS).await else {
                return Ok(());
            };
            shared.calls.close();
            shared.store()?.close().await
        })
    }

    fn durability(&self) -> Optional<Text> {
        self.0.durability.map(|level| level.as_str().into()).into()
    }
}
