//! The boundary's side of a store that answers at once.

use std::{
    mem::ManuallyDrop,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use abi_stable::{sabi_trait::prelude::TD_Opaque, std_types::RString};

use super::{Instance, Instance_TO, InstanceBox, Replies, Reply, guarded, parse_config};
use crate::{
    Durability, Error, Persistence,
    log::{self, LogSink},
    persistence::Context,
    record::{
        AllowNotify, BackedUp, Batch, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup,
        Complete, Completed, Enqueue, Enqueued, Event, Extend, Finish, GroupKey, Instant, Lease,
        List, ListTasks, Moved, Nack, Optional, Page, Placed, Queue, QueueStats, Renew, Returned,
        Subscription, Task, TaskKey, TaskResult, Text, Unregister,
    },
};

/// Opens a store of type `S`. What [`export_plugin!`](crate::export_plugin) exports.
pub extern "C" fn open_ready<S: Persistence>(
    config: RString,
    context: Context,
) -> Reply<InstanceBox> {
    guarded(|| {
        log::install(&context.provider, &context.log);
        let (provider, log) = (context.provider.clone(), context.log.clone());
        let store = S::open(parse_config(&config)?, context)?;
        let ready = Ready {
            durability: store.durability(),
            store: ManuallyDrop::new(store),
            closed: AtomicBool::new(false),
            provider,
            log,
        };
        Ok(Instance_TO::from_value(ready, TD_Opaque))
    })
    .into()
}

/// Copies what a store of type `S` keeps. What [`export_plugin!`](crate::export_plugin) exports.
pub extern "C" fn backup_ready<S: Persistence>(
    config: RString,
    context: Context,
    to: RString,
) -> Reply<BackedUp> {
    guarded(|| {
        log::install(&context.provider, &context.log);
        S::backup(parse_config(&config)?, context, Path::new(to.as_str()))
    })
    .into()
}

struct Ready<S> {
    durability: Option<Durability>,
    store: ManuallyDrop<S>,
    closed: AtomicBool,
    provider: Text,
    log: LogSink,
}

impl<S> Ready<S> {
    fn run<O>(&self, run: impl FnOnce(&S) -> Result<O, Error>) -> Reply<O> {
        if self.closed.load(Ordering::Acquire) {
            return Reply::Err(Error::closed());
        }
        guarded(|| run(&self.store)).into()
    }

    /// A panic at one item is the answer to that item; the others have theirs.
    fn each<I, O>(&self, batch: Batch<I>, run: impl Fn(&S, I) -> Result<O, Error>) -> Replies<O> {
        if self.closed.load(Ordering::Acquire) {
            return Reply::Err(Error::closed());
        }
        Reply::Ok(batch.map(|item| guarded(|| run(&self.store, item)).into()))
    }
}

impl<S> Drop for Ready<S> {
    fn drop(&mut self) {
        // SAFETY: this is the only place that takes the store out, and nothing uses it afterwards.
        let store = unsafe { ManuallyDrop::take(&mut self.store) };
        if let Err(error) = guarded(|| {
            drop(store);
            Ok(())
        }) {
            self.log.error(&self.provider, format!("while the store was dropped, {error}"));
        }
    }
}

impl<S: Persistence> Instance for Ready<S> {
    fn save(&self, batch: Batch<Placed>) -> Replies<()> {
        self.each(batch, S::save)
    }
    fn get(&self, ids: Batch<Text>) -> Replies<Boxed<Task>> {
        self.each(ids, |store, id| store.get(&id))
    }
    fn delete(&self, ids: Batch<Text>) -> Replies<()> {
        self.each(ids, |store, id| store.delete(&id))
    }
    fn enqueue(&self, batch: Batch<Enqueue>) -> Replies<Enqueued> {
        self.each(batch, S::enqueue)
    }
    fn claim(&self, claim: Claim) -> Reply<Claimed> {
        self.run(|store| store.claim(claim))
    }
    fn update_lease(&self, batch: Batch<Extend>) -> Replies<Instant> {
        self.each(batch, S::update_lease)
    }
    fn abandon_lease(&self, batch: Batch<Lease>) -> Replies<Returned> {
        self.each(batch, S::abandon_lease)
    }
    fn nack(&self, batch: Batch<Nack>) -> Replies<Returned> {
        self.each(batch, S::nack)
    }
    fn move_due_delayed(&self, limit: u32) -> Reply<Moved> {
        self.run(|store| store.move_due_delayed(limit))
    }
    fn requeue_expired(&self, limit: u32) -> Reply<Moved> {
        self.run(|store| store.requeue_expired(limit))
    }
    fn queue_length(&self, queue: Queue) -> Reply<u64> {
        self.run(|store| store.queue_length(queue))
    }
    fn queue_stats(&self, queue: Queue) -> Reply<QueueStats> {
        self.run(|store| store.queue_stats(queue))
    }
    fn admin_queues(&self, tenant: Optional<Text>) -> Reply<List<QueueStats>> {
        self.run(|store| store.admin_queues(tenant.into()).map(List::from))
    }
    fn cleanup_expired(&self, cleanup: Cleanup) -> Reply<u32> {
        self.run(|store| store.cleanup_expired(cleanup))
    }
    fn list(&self, list: ListTasks) -> Reply<Page> {
        self.run(|store| store.list(list))
    }
    fn redrive(&self, batch: Batch<TaskKey>) -> Replies<Returned> {
        self.each(batch, S::redrive)
    }

    fn save_result(&self, batch: Batch<Boxed<TaskResult>>) -> Replies<()> {
        self.each(batch, S::save_result)
    }
    fn get_result(&self, ids: Batch<Text>) -> Replies<Boxed<TaskResult>> {
        self.each(ids, |store, id| store.get_result(&id))
    }
    fn update_task_on_complete(&self, batch: Batch<Finish>) -> Replies<()> {
        self.each(batch, S::update_task_on_complete)
    }
    fn remove_from_inprog_and_clear_lease(&self, ids: Batch<Text>) -> Replies<()> {
        self.each(ids, |store, id| store.remove_from_inprog_and_clear_lease(&id))
    }
    fn complete(&self, batch: Batch<Complete>) -> Replies<Completed> {
        self.each(batch, S::complete)
    }

    fn register(&self, batch: Batch<Boxed<Subscription>>) -> Replies<()> {
        self.each(batch, S::register)
    }
    fn renew(&self, batch: Batch<Renew>) -> Replies<Boxed<Subscription>> {
        self.each(batch, S::renew)
    }
    fn unregister(&self, batch: Batch<Unregister>) -> Replies<u32> {
        self.each(batch, S::unregister)
    }
    fn get_by_command(&self, by: ByCommand) -> Reply<List<Boxed<Subscription>>> {
        self.run(|store| store.get_by_command(by).map(List::from))
    }
    fn get_by_worker(&self, by: ByWorker) -> Reply<List<Boxed<Subscription>>> {
        self.run(|store| store.get_by_worker(by).map(List::from))
    }
    fn allow_notify(&self, batch: Batch<AllowNotify>) -> Replies<bool> {
        self.each(batch, S::allow_notify)
    }
    fn next_group_index(&self, batch: Batch<GroupKey>) -> Replies<u64> {
        self.each(batch, S::next_group_index)
    }
    fn remove_expired(&self, limit: u32) -> Reply<u32> {
        self.run(|store| store.remove_expired(limit))
    }

    fn next_events(&self) -> Reply<List<Event>> {
        Reply::Err(Error::unsupported("this store reports no events"))
    }
    fn health(&self) -> Reply<()> {
        self.run(S::health)
    }
    fn close(&self) -> Reply<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Reply::Ok(());
        }
        guarded(|| self.store.close()).into()
    }

    fn durability(&self) -> Optional<Text> {
        self.durability.map(|level| level.as_str().into()).into()
    }
}
