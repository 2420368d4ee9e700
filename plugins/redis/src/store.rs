//! The store as the host sees it. What workers and producers ask for all the time goes through the lanes,
//! the rest straight to the operations.

use std::sync::Arc;

use codeq_plugin::{
    AllowNotify, Answers, AsyncPersistence, AsyncResultStorage, AsyncSubscriptionStorage,
    AsyncTaskStorage, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup, Complete, Completed,
    Context, Enqueue, Enqueued, Error, Event, Extend, Finish, GroupKey, Instant, Lease, List,
    ListTasks, Moved, Nack, Page, Placed, Queue, QueueStats, Renew, Result, Returned, Subscription,
    Task, TaskKey, TaskResult, Text, Unregister,
};

use crate::{config::Config, lanes::Lanes, operations::Operations};

/// A store in Redis or KVRocks.
pub struct Redis {
    backend: Arc<Operations>,
    lanes: Lanes,
}

impl AsyncPersistence for Redis {
    type Config = Config;

    fn runtime_threads(config: &Config) -> usize {
        config.threads
    }

    async fn open(config: Config, context: Context) -> Result<Redis> {
        let backend = Arc::new(Operations::open(&config, context).await?);
        let lanes = Lanes::new(&backend);
        Ok(Redis { backend, lanes })
    }

    async fn health(&self) -> Result<()> {
        self.backend.ping().await
    }

    async fn close(&self) -> Result<()> {
        // Everything that was answered is with the server already.
        self.backend.connection.close();
        Ok(())
    }
}

impl AsyncTaskStorage for Redis {
    async fn save(&self, batch: Vec<Placed>) -> Answers<()> {
        self.backend.save(batch).await
    }

    async fn get(&self, ids: Vec<Text>) -> Answers<Boxed<Task>> {
        self.lanes.get.send(ids).await
    }

    async fn delete(&self, ids: Vec<Text>) -> Answers<()> {
        self.backend.delete(ids).await
    }

    async fn enqueue(&self, batch: Vec<Enqueue>) -> Answers<Enqueued> {
        self.lanes.enqueue.send(batch).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed> {
        let claimed = self.lanes.claim.send(vec![claim]).await?.pop();
        claimed.unwrap_or_else(|| Err(Error::internal("a claim was not answered")))
    }

    async fn update_lease(&self, batch: Vec<Extend>) -> Answers<Instant> {
        self.lanes.update_lease.send(batch).await
    }

    async fn abandon_lease(&self, batch: Vec<Lease>) -> Answers<Returned> {
        self.lanes.abandon_lease.send(batch).await
    }

    async fn nack(&self, batch: Vec<Nack>) -> Answers<Returned> {
        self.lanes.nack.send(batch).await
    }

    async fn move_due_delayed(&self, limit: u32) -> Result<Moved> {
        self.backend.move_due_delayed(limit).await
    }

    async fn requeue_expired(&self, limit: u32) -> Result<Moved> {
        self.backend.requeue_expired(limit).await
    }

    async fn queue_length(&self, queue: Queue) -> Result<u64> {
        Ok(self.backend.queue_stats(queue).await?.ready)
    }

    async fn queue_stats(&self, queue: Queue) -> Result<QueueStats> {
        self.backend.queue_stats(queue).await
    }

    async fn admin_queues(&self, tenant: Option<Text>) -> Result<Vec<QueueStats>> {
        self.backend.admin_queues(tenant).await
    }

    async fn cleanup_expired(&self, cleanup: Cleanup) -> Result<u32> {
        self.backend.cleanup_expired(cleanup).await
    }

    async fn list(&self, list: ListTasks) -> Result<Page> {
        self.backend.list(list).await
    }

    async fn redrive(&self, batch: Vec<TaskKey>) -> Answers<Returned> {
        self.backend.redrive(batch).await
    }

    async fn next_events(&self) -> Result<List<Event>> {
        self.backend.await_events().await
    }
}

impl AsyncResultStorage for Redis {
    async fn save_result(&self, batch: Vec<Boxed<TaskResult>>) -> Answers<()> {
        self.backend.save_result(batch).await
    }

    async fn get_result(&self, ids: Vec<Text>) -> Answers<Boxed<TaskResult>> {
        self.backend.get_result(ids).await
    }

    async fn update_task_on_complete(&self, batch: Vec<Finish>) -> Answers<()> {
        self.backend.update_task_on_complete(batch).await
    }

    async fn remove_from_inprog_and_clear_lease(&self, ids: Vec<Text>) -> Answers<()> {
        self.backend.remove_from_inprog_and_clear_lease(ids).await
    }

    async fn complete(&self, batch: Vec<Complete>) -> Answers<Completed> {
        self.lanes.complete.send(batch).await
    }
}

impl AsyncSubscriptionStorage for Redis {
    async fn register(&self, batch: Vec<Boxed<Subscription>>) -> Answers<()> {
        self.backend.register(batch).await
    }

    async fn renew(&self, batch: Vec<Renew>) -> Answers<Boxed<Subscription>> {
        self.backend.renew(batch).await
    }

    async fn unregister(&self, batch: Vec<Unregister>) -> Answers<u32> {
        self.backend.unregister(batch).await
    }

    async fn get_by_command(&self, by: ByCommand) -> Result<Vec<Boxed<Subscription>>> {
        self.backend.get_by_command(by).await
    }

    async fn get_by_worker(&self, by: ByWorker) -> Result<Vec<Boxed<Subscription>>> {
        self.backend.get_by_worker(by).await
    }

    async fn allow_notify(&self, batch: Vec<AllowNotify>) -> Answers<bool> {
        self.backend.allow_notify(batch).await
    }

    async fn next_group_index(&self, batch: Vec<GroupKey>) -> Answers<u64> {
        self.backend.next_group_index(batch).await
    }

    async fn remove_expired(&self, limit: u32) -> Result<u32> {
        self.backend.remove_expired(limit).await
    }
}
