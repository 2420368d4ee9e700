//! The kit's handle on an open store.
//!
//! It is blocking, one item at a time, and so reads like the storage traits. Every call has a limit:
//! a store that does not answer ends its case, not the kit.

use std::{
    collections::BTreeSet,
    panic::panic_any,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use codeq_plugin::{
    AllowNotify, Batch, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup, Complete, Completed,
    Enqueue, Enqueued, Error, Event, Extend, Finish, GroupKey, Instant, Lease, List, ListTasks,
    Moved, Nack, Optional, Outcome, Page, Placed, Queue, QueueStats, Renew, Result, Returned,
    Subscription, Task, TaskKey, TaskResult, Text, Unregister,
    boundary::{InstanceBox, Replies, Reply},
};
use serde_json::Value;
use tokio::{runtime::Handle, time::timeout};

use crate::scope::Scope;

/// How long an operation may take. Longer than any time-out that a plugin should have.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The payload of the panic that ends a case whose store did not answer.
pub(crate) struct NoAnswer(pub(crate) &'static str);

/// An open store; clones are the same one.
///
/// Names of tenants and ids are the case's own: on the way to the backend they get a prefix, which is
/// taken off on the way back, so that cases do not meet on a backend that they share.
#[derive(Clone)]
pub struct Store {
    instance: Arc<InstanceBox>,
    scope: Scope,
    config: Value,
    runtime: Handle,
    lists: bool,
    /// Only if it is to be removed.
    made: Option<Arc<Mutex<Made>>>,
}

/// What was made through a store, to be removed when its case is over.
#[derive(Default)]
pub(crate) struct Made {
    tasks: BTreeSet<Text>,
    subscriptions: BTreeSet<(Text, Text, Text)>,
}

impl Store {
    pub(crate) fn new(
        instance: InstanceBox,
        scope: Scope,
        config: Value,
        runtime: Handle,
        lists: bool,
        clear: bool,
    ) -> Store {
        let made = clear.then(Arc::default);
        Store { instance: Arc::new(instance), scope, config, runtime, lists, made }
    }

    /// Whether it lists and redrives tasks.
    pub(crate) fn lists(&self) -> bool {
        self.lists
    }

    /// The configuration that it was opened with.
    pub(crate) fn config(&self) -> &Value {
        &self.config
    }

    /// Whether a queue is the case's own.
    pub(crate) fn is_mine(&self, queue: &Queue) -> bool {
        self.scope.has_queue(&queue.tenant_id, &queue.command)
    }

    /// The name of a task on the backend.
    pub(crate) fn stored_id(&self, id: &str) -> Text {
        self.scope.name_in(id)
    }

    pub(crate) fn beside(&self, instance: InstanceBox) -> Store {
        Store { instance: Arc::new(instance), ..self.clone() }
    }

    /// Waits for a reply. Ends the case if there is none.
    fn wait<T>(&self, operation: &'static str, reply: Reply<T>) -> Result<T> {
        match reply {
            Reply::Ok(value) => Ok(value),
            Reply::Err(error) => Err(error),
            pending => self
                .runtime
                .block_on(async { timeout(CALL_LIMIT, pending.settled()).await })
                .unwrap_or_else(|_| panic_any(NoAnswer(operation))),
        }
    }

    fn one<T>(&self, operation: &'static str, replies: Replies<T>) -> Result<T> {
        match self.wait(operation, replies)?.into_only() {
            Some(outcome) => outcome.into_result(),
            None => Err(not_one(operation)),
        }
    }

    /// Calls the instance as it is, with names that are not the case's own.
    pub fn raw(&self) -> &InstanceBox {
        &self.instance
    }

    /// Removes all that was made through this store.
    pub(crate) fn clear(&self) {
        let Some(made) = &self.made else {
            return;
        };
        let made = std::mem::take(&mut *made.lock().unwrap_or_else(PoisonError::into_inner));
        if !made.tasks.is_empty() {
            let ids: Batch<Text> = made.tasks.into_iter().collect();
            let _ = self.wait("delete", self.instance.delete(ids));
        }
        for (id, worker_id, tenant_id) in made.subscriptions {
            let end = Unregister { id, worker_id, tenant_id, ..Unregister::default() };
            let _ = self.wait("unregister", self.instance.unregister(Batch::One(end)));
        }
    }

    fn remember(&self, task: &Task) {
        if let Some(made) = &self.made {
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            made.tasks.insert(task.id.clone());
        }
    }
}

fn not_one(operation: &str) -> Error {
    Error::internal(format!("`{operation}` of one item was not answered with one answer"))
}

/// The operations of the storage contract, one item at a time.
#[expect(clippy::missing_errors_doc, reason = "the traits of `codeq_plugin` name the errors")]
#[expect(missing_docs, reason = "the traits of `codeq_plugin` document the operations")]
impl Store {
    pub fn save(&self, mut placed: Placed) -> Result<()> {
        self.scope.task_in(&mut placed.task);
        self.remember(&placed.task);
        self.one("save", self.instance.save(Batch::One(placed)))
    }

    pub fn get(&self, id: &str) -> Result<Boxed<Task>> {
        let found = self.one("get", self.instance.get(Batch::One(self.scope.name_in(id))));
        found.map(|task| self.scope.task_out(task))
    }

    pub fn delete(&self, id: &str) -> Result<()> {
        self.one("delete", self.instance.delete(Batch::One(self.scope.name_in(id))))
    }

    pub fn enqueue(&self, mut enqueue: Enqueue) -> Result<Enqueued> {
        self.scope.task_in(&mut enqueue.task);
        self.remember(&enqueue.task);
        let enqueued = self.one("enqueue", self.instance.enqueue(Batch::One(enqueue)))?;
        Ok(Enqueued { task: self.scope.task_out(enqueued.task), ..enqueued })
    }

    /// Enqueues in one batch.
    pub fn enqueue_all(&self, batch: Vec<Enqueue>) -> Result<Vec<Result<Enqueued>>> {
        let scoped = batch.into_iter().map(|mut enqueue| {
            self.scope.task_in(&mut enqueue.task);
            self.remember(&enqueue.task);
            enqueue
        });
        let batch: Batch<Enqueue> = scoped.collect();
        let answers = self.many("enqueue", self.instance.enqueue(batch))?;
        Ok(answers
            .into_iter()
            .map(|answer| {
                answer.map(|enqueued| Enqueued {
                    task: self.scope.task_out(enqueued.task),
                    ..enqueued
                })
            })
            .collect())
    }

    pub fn claim(&self, mut claim: Claim) -> Result<Claimed> {
        self.scope.commands_in(&claim.tenant_id, &mut claim.commands);
        claim.tenant_id = self.scope.name_in(&claim.tenant_id);
        let Claimed { tasks, moved } = self.wait("claim", self.instance.claim(claim))?;
        let moved = moved.into_option().map(|moved| {
            let moved = self.scope.moved_out(Boxed::into_inner(moved));
            Boxed::new(moved)
        });
        Ok(Claimed { tasks: tasks.map(|task| self.scope.task_out(task)), moved: moved.into() })
    }

    pub fn update_lease(&self, mut extend: Extend) -> Result<Instant> {
        self.scope.lease_in(&mut extend.lease);
        self.one("update_lease", self.instance.update_lease(Batch::One(extend)))
    }

    pub fn abandon_lease(&self, mut lease: Lease) -> Result<Returned> {
        self.scope.lease_in(&mut lease);
        let returned = self.one("abandon_lease", self.instance.abandon_lease(Batch::One(lease)));
        returned.map(|returned| self.returned_out(returned))
    }

    pub fn nack(&self, mut nack: Nack) -> Result<Returned> {
        self.scope.lease_in(&mut nack.lease);
        let returned = self.one("nack", self.instance.nack(Batch::One(nack)));
        returned.map(|returned| self.returned_out(returned))
    }

    pub fn move_due_delayed(&self, limit: u32) -> Result<Moved> {
        let moved = self.wait("move_due_delayed", self.instance.move_due_delayed(limit));
        moved.map(|moved| self.scope.moved_out(moved))
    }

    pub fn requeue_expired(&self, limit: u32) -> Result<Moved> {
        let moved = self.wait("requeue_expired", self.instance.requeue_expired(limit));
        moved.map(|moved| self.scope.moved_out(moved))
    }

    pub fn queue_length(&self, queue: Queue) -> Result<u64> {
        self.wait("queue_length", self.instance.queue_length(self.scope.queue_in(queue)))
    }

    pub fn queue_stats(&self, queue: Queue) -> Result<QueueStats> {
        let stats = self.wait("queue_stats", self.instance.queue_stats(self.scope.queue_in(queue)));
        stats.map(|stats| self.scope.stats_out(stats))
    }

    pub fn admin_queues(&self, tenant: Option<Text>) -> Result<Vec<QueueStats>> {
        let tenant: Optional<Text> = tenant.map(|tenant| self.scope.name_in(&tenant)).into();
        let queues = self.wait("admin_queues", self.instance.admin_queues(tenant))?;
        Ok(queues
            .into_iter()
            .filter(|stats| self.scope.has_queue(&stats.tenant_id, &stats.command))
            .map(|stats| self.scope.stats_out(stats))
            .collect())
    }

    pub fn cleanup_expired(&self, mut cleanup: Cleanup) -> Result<u32> {
        let tenant = cleanup.tenant_id.into_option();
        cleanup.tenant_id = tenant.map(|tenant| self.scope.name_in(&tenant)).into();
        self.wait("cleanup_expired", self.instance.cleanup_expired(cleanup))
    }

    pub fn list(&self, mut list: ListTasks) -> Result<Page> {
        let tenant = list.tenant_id.into_option();
        list.tenant_id = tenant.map(|tenant| self.scope.name_in(&tenant)).into();
        let page = self.wait("list", self.instance.list(list))?;
        let tasks = page.tasks.into_iter().filter(|placed| self.scope.has_task(&placed.task));
        let tasks = tasks.map(|placed| Placed { task: self.scope.task_out(placed.task), ..placed });
        Ok(Page { tasks: tasks.collect(), cursor: page.cursor })
    }

    pub fn redrive(&self, key: TaskKey) -> Result<Returned> {
        let key = TaskKey {
            id: self.scope.name_in(&key.id),
            tenant_id: self.scope.name_in(&key.tenant_id),
        };
        let returned = self.one("redrive", self.instance.redrive(Batch::One(key)));
        returned.map(|returned| self.returned_out(returned))
    }

    pub fn save_result(&self, mut result: Boxed<TaskResult>) -> Result<()> {
        result.task_id = self.scope.name_in(&result.task_id);
        self.one("save_result", self.instance.save_result(Batch::One(result)))
    }

    pub fn get_result(&self, task_id: &str) -> Result<Boxed<TaskResult>> {
        let id = Batch::One(self.scope.name_in(task_id));
        let mut result = self.one("get_result", self.instance.get_result(id))?;
        result.task_id = self.scope.name_out(&result.task_id);
        Ok(result)
    }

    pub fn update_task_on_complete(&self, mut finish: Finish) -> Result<()> {
        finish.task_id = self.scope.name_in(&finish.task_id);
        let replies = self.instance.update_task_on_complete(Batch::One(finish));
        self.one("update_task_on_complete", replies)
    }

    pub fn remove_from_inprog_and_clear_lease(&self, task_id: &str) -> Result<()> {
        let id = Batch::One(self.scope.name_in(task_id));
        let replies = self.instance.remove_from_inprog_and_clear_lease(id);
        self.one("remove_from_inprog_and_clear_lease", replies)
    }

    pub fn complete(&self, complete: Complete) -> Result<Completed> {
        let complete = self.complete_in(complete);
        let completed = self.one("complete", self.instance.complete(Batch::One(complete)))?;
        Ok(Completed { task: self.scope.task_out(completed.task) })
    }

    /// Completes in one batch.
    pub fn complete_all(&self, batch: Vec<Complete>) -> Result<Vec<Result<Completed>>> {
        let batch: Batch<Complete> =
            batch.into_iter().map(|complete| self.complete_in(complete)).collect();
        let answers = self.many("complete", self.instance.complete(batch))?;
        let out = |completed: Completed| Completed { task: self.scope.task_out(completed.task) };
        Ok(answers.into_iter().map(|answer| answer.map(out)).collect())
    }

    pub fn register(&self, mut subscription: Boxed<Subscription>) -> Result<()> {
        subscription.id = self.scope.name_in(&subscription.id);
        subscription.tenant_id = self.scope.name_in(&subscription.tenant_id);
        if let Some(made) = &self.made {
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            made.subscriptions.insert((
                subscription.id.clone(),
                subscription.worker_id.clone(),
                subscription.tenant_id.clone(),
            ));
        }
        self.one("register", self.instance.register(Batch::One(subscription)))
    }

    pub fn renew(&self, mut renew: Renew) -> Result<Boxed<Subscription>> {
        renew.id = self.scope.name_in(&renew.id);
        renew.tenant_id = self.scope.name_in(&renew.tenant_id);
        let renewed = self.one("renew", self.instance.renew(Batch::One(renew)));
        renewed.map(|renewed| self.subscription_out(renewed))
    }

    pub fn unregister(&self, mut unregister: Unregister) -> Result<u32> {
        unregister.id = self.scope.name_in(&unregister.id);
        unregister.tenant_id = self.scope.name_in(&unregister.tenant_id);
        self.one("unregister", self.instance.unregister(Batch::One(unregister)))
    }

    pub fn get_by_command(&self, by: ByCommand) -> Result<Vec<Boxed<Subscription>>> {
        let by = ByCommand { tenant_id: self.scope.name_in(&by.tenant_id), ..by };
        let found = self.wait("get_by_command", self.instance.get_by_command(by))?;
        Ok(self.subscriptions_out(found))
    }

    pub fn get_by_worker(&self, by: ByWorker) -> Result<Vec<Boxed<Subscription>>> {
        let by = ByWorker { tenant_id: self.scope.name_in(&by.tenant_id), ..by };
        let found = self.wait("get_by_worker", self.instance.get_by_worker(by))?;
        Ok(self.subscriptions_out(found))
    }

    pub fn allow_notify(&self, ask: AllowNotify) -> Result<bool> {
        let subscription_id = self.scope.name_in(&ask.subscription_id);
        let ask = AllowNotify { subscription_id, ..ask };
        self.one("allow_notify", self.instance.allow_notify(Batch::One(ask)))
    }

    pub fn next_group_index(&self, group: GroupKey) -> Result<u64> {
        let group = GroupKey { tenant_id: self.scope.name_in(&group.tenant_id), ..group };
        self.one("next_group_index", self.instance.next_group_index(Batch::One(group)))
    }

    pub fn remove_expired(&self, limit: u32) -> Result<u32> {
        self.wait("remove_expired", self.instance.remove_expired(limit))
    }

    pub fn next_events(&self) -> Result<List<Event>> {
        self.wait("next_events", self.instance.next_events())
    }

    pub fn health(&self) -> Result<()> {
        self.wait("health", self.instance.health())
    }

    pub fn close(&self) -> Result<()> {
        self.wait("close", self.instance.close())
    }

    fn many<T>(&self, operation: &'static str, replies: Replies<T>) -> Result<Vec<Result<T>>> {
        Ok(self.wait(operation, replies)?.into_iter().map(Outcome::into_result).collect())
    }

    fn complete_in(&self, mut complete: Complete) -> Complete {
        self.scope.lease_in(&mut complete.lease);
        complete.result.task_id = self.scope.name_in(&complete.result.task_id);
        complete
    }

    fn returned_out(&self, returned: Returned) -> Returned {
        Returned { task: self.scope.task_out(returned.task), ..returned }
    }

    fn subscription_out(&self, mut subscription: Boxed<Subscription>) -> Boxed<Subscription> {
        subscription.id = self.scope.name_out(&subscription.id);
        subscription.tenant_id = self.scope.name_out(&subscription.tenant_id);
        subscription
    }

    fn subscriptions_out(&self, found: List<Boxed<Subscription>>) -> Vec<Boxed<Subscription>> {
        found.into_iter().map(|found| self.subscription_out(found)).collect()
    }
}
