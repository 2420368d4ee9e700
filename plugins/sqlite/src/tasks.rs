//! The operations on tasks.

use codeq_plugin::{
    Answers, AsyncTaskStorage, Boxed, Claim, Claimed, Cleanup, Enqueue, Enqueued, Error, Extend,
    Instant, Lease, ListTasks, Moved, Nack, Page, Placed, Queue, QueueStats, Result, Returned,
    Task, TaskKey, Text,
};

use crate::{
    Sqlite,
    enqueues::Enqueues,
    fault::{Failure, Outcome},
    place::Place,
    store::STEP,
};

/// Handles the items of a batch one after another. A refused one does not keep the others.
pub(crate) fn each<T, A>(
    items: &[T],
    mut handle: impl FnMut(&T) -> Outcome<A>,
) -> Outcome<Vec<Result<A, Error>>> {
    let answers = items.iter().map(|item| match handle(item) {
        Ok(answer) => Ok(Ok(answer)),
        Err(Failure::Refused(error)) => Ok(Err(error)),
        Err(Failure::Broken(error)) => Err(Failure::Broken(error)),
    });
    answers.collect()
}

impl AsyncTaskStorage for Sqlite {
    async fn save(&self, batch: Vec<Placed>) -> Answers<()> {
        self.write(move |engine| each(&batch, |placed| engine.save(placed))).await
    }

    async fn get(&self, ids: Vec<Text>) -> Answers<Boxed<Task>> {
        self.read(move |view| each(&ids, |id| view.task(id))).await
    }

    async fn delete(&self, ids: Vec<Text>) -> Answers<()> {
        self.write(move |engine| each(&ids, |id| engine.delete(id))).await
    }

    async fn enqueue(&self, batch: Vec<Enqueue>) -> Answers<Enqueued> {
        self.hand_in(|reply| Enqueues::boxed(batch, reply)).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed> {
        self.write(move |engine| engine.claim(&claim)).await
    }

    async fn update_lease(&self, batch: Vec<Extend>) -> Answers<Instant> {
        self.write(move |engine| each(&batch, |extend| engine.update_lease(extend))).await
    }

    async fn abandon_lease(&self, batch: Vec<Lease>) -> Answers<Returned> {
        self.write(move |engine| each(&batch, |lease| engine.abandon_lease(lease))).await
    }

    async fn nack(&self, batch: Vec<Nack>) -> Answers<Returned> {
        self.write(move |engine| each(&batch, |nack| engine.nack(nack))).await
    }

    async fn move_due_delayed(&self, limit: u32) -> Result<Moved> {
        self.write(move |engine| engine.repair(Place::Delayed, limit)).await
    }

    async fn requeue_expired(&self, limit: u32) -> Result<Moved> {
        self.write(move |engine| engine.repair(Place::Leased, limit)).await
    }

    async fn queue_length(&self, queue: Queue) -> Result<u64> {
        Ok(self.queue_stats(queue).await?.ready)
    }

    async fn queue_stats(&self, queue: Queue) -> Result<QueueStats> {
        self.read(move |view| view.stats(&queue)).await
    }

    async fn admin_queues(&self, tenant: Option<Text>) -> Result<Vec<QueueStats>> {
        self.read(move |view| view.all_stats(tenant.as_deref())).await
    }

    async fn cleanup_expired(&self, cleanup: Cleanup) -> Result<u32> {
        let rules = self.rules();
        let (before, limit) = (cleanup.before, cleanup.limit);
        let mut removed = 0;
        // A look may find tasks whose retention was extended in the meantime: they are looked at
        // later, and others may be due behind them.
        while removed < limit {
            let look = Cleanup { limit: limit - removed, ..cleanup.clone() };
            let unlooked = self.unlooked();
            let found = self.read(move |view| view.retirable(&look, &rules, &unlooked)).await?;
            if found.is_empty() {
                // Keys are forgotten when there is no task to go with them, too.
                self.write(move |engine| engine.retire(&[], before)).await?;
                break;
            }
            // Small steps, so that others get their turn in between.
            for step in found.chunks(STEP) {
                let step = step.to_vec();
                removed += self.write(move |engine| engine.retire(&step, before)).await?;
            }
        }
        Ok(removed)
    }

    async fn list(&self, list: ListTasks) -> Result<Page> {
        self.read(move |view| view.list(&list)).await
    }

    async fn redrive(&self, batch: Vec<TaskKey>) -> Answers<Returned> {
        self.write(move |engine| each(&batch, |key| engine.redrive(key))).await
    }
}
