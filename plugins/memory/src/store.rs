//! The store itself: the storage traits, each operation under one short lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use codeq_plugin::{
    AllowNotify, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup, Complete, Completed, Context,
    Enqueue, Enqueued, Extend, Finish, GroupKey, Instant, Lease, ListTasks, Moved, Nack, Page,
    Persistence, Placed, Queue, QueueStats, Renew, Result, ResultStorage, Returned, Subscription,
    SubscriptionStorage, Task, TaskKey, TaskResult, TaskStorage, Text, Unregister,
};
use serde::Deserialize;

use crate::{subscriptions::Subscriptions, tasks::Tasks};

/// A store in memory.
pub struct Memory {
    tasks: Mutex<Tasks>,
    subscriptions: Mutex<Subscriptions>,
}

/// The memory plugin has no settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

impl Memory {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        // A panic under the lock was answered as an error; the tasks are still everybody else's.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Persistence for Memory {
    type Config = Config;

    fn open(_: Config, context: Context) -> Result<Memory> {
        Ok(Memory {
            tasks: Mutex::new(Tasks::new(context.rules, context.repair_limit)),
            subscriptions: Mutex::new(Subscriptions::default()),
        })
    }
}

impl TaskStorage for Memory {
    fn save(&self, placed: Placed) -> Result<()> {
        self.tasks().save(placed)
    }

    fn get(&self, id: &str) -> Result<Boxed<Task>> {
        self.tasks().get(id)
    }

    fn delete(&self, id: &str) -> Result<()> {
        self.tasks().delete(id)
    }

    fn enqueue(&self, enqueue: Enqueue) -> Result<Enqueued> {
        self.tasks().enqueue(enqueue, Instant::now())
    }

    fn claim(&self, claim: Claim) -> Result<Claimed> {
        self.tasks().claim(&claim, Instant::now())
    }

    fn update_lease(&self, extend: Extend) -> Result<Instant> {
        self.tasks().update_lease(&extend, Instant::now())
    }

    fn abandon_lease(&self, lease: Lease) -> Result<Returned> {
        self.tasks().abandon_lease(&lease, Instant::now())
    }

    fn nack(&self, nack: Nack) -> Result<Returned> {
        self.tasks().nack(&nack, Instant::now())
    }

    fn move_due_delayed(&self, limit: u32) -> Result<Moved> {
        Ok(self.tasks().move_due_delayed(limit, Instant::now()))
    }

    fn requeue_expired(&self, limit: u32) -> Result<Moved> {
        Ok(self.tasks().requeue_expired(limit, Instant::now()))
    }

    fn queue_length(&self, queue: Queue) -> Result<u64> {
        Ok(self.tasks().queue_stats(&queue).ready)
    }

    fn queue_stats(&self, queue: Queue) -> Result<QueueStats> {
        Ok(self.tasks().queue_stats(&queue))
    }

    fn admin_queues(&self, tenant: Option<Text>) -> Result<Vec<QueueStats>> {
        Ok(self.tasks().admin_queues(tenant.as_deref()))
    }

    fn cleanup_expired(&self, cleanup: Cleanup) -> Result<u32> {
        Ok(self.tasks().cleanup_expired(&cleanup, Instant::now()))
    }

    fn list(&self, list: ListTasks) -> Result<Page> {
        self.tasks().list(&list)
    }

    fn redrive(&self, key: TaskKey) -> Result<Returned> {
        self.tasks().redrive(&key, Instant::now())
    }
}

impl ResultStorage for Memory {
    fn save_result(&self, result: Boxed<TaskResult>) -> Result<()> {
        self.tasks().save_result(result)
    }

    fn get_result(&self, task_id: &str) -> Result<Boxed<TaskResult>> {
        self.tasks().get_result(task_id)
    }

    fn update_task_on_complete(&self, finish: Finish) -> Result<()> {
        self.tasks().finish(&finish, Instant::now())
    }

    fn remove_from_inprog_and_clear_lease(&self, task_id: &str) -> Result<()> {
        self.tasks().release(task_id, Instant::now())
    }

    fn complete(&self, complete: Complete) -> Result<Completed> {
        self.tasks().complete(complete, Instant::now())
    }
}

impl SubscriptionStorage for Memory {
    fn register(&self, subscription: Boxed<Subscription>) -> Result<()> {
        self.subscriptions().register(subscription)
    }

    fn renew(&self, renew: Renew) -> Result<Boxed<Subscription>> {
        self.subscriptions().renew(&renew, Instant::now())
    }

    fn unregister(&self, unregister: Unregister) -> Result<u32> {
        Ok(self.subscriptions().unregister(&unregister, Instant::now()))
    }

    fn get_by_command(&self, by: ByCommand) -> Result<Vec<Boxed<Subscription>>> {
        Ok(self.subscriptions().by_command(&by, Instant::now()))
    }

    fn get_by_worker(&self, by: ByWorker) -> Result<Vec<Boxed<Subscription>>> {
        Ok(self.subscriptions().by_worker(&by, Instant::now()))
    }

    fn allow_notify(&self, ask: AllowNotify) -> Result<bool> {
        Ok(self.subscriptions().allow_notify(&ask, Instant::now()))
    }

    fn next_group_index(&self, group: GroupKey) -> Result<u64> {
        Ok(self.subscriptions().next_group_index(group))
    }

    fn remove_expired(&self, limit: u32) -> Result<u32> {
        Ok(self.subscriptions().remove_expired(limit, Instant::now()))
    }
}
