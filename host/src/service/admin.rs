//! What operators ask of the queues: their counts, their tasks, and what becomes of dead letters.
//!
//! The store checks a redrive in one step, but removes what it is told to remove. So operators who
//! move or remove tasks through this host take turns, and what is to be removed is read once more
//! just before. Through another host of the same backend, or by a worker's claim, a task may still
//! leave its place between that look and its removal, and be removed all the same.

use std::{future::Future, sync::Arc};

use codeq_plugin::{
    Batch, Boxed, Capability, Cleanup, Extensions, Instant, List, ListTasks, Location, Optional,
    Page, Queue, QueueStats, Task, TaskKey, TaskStatus, Text,
};

use super::{Service, ServiceError, tasks::name_the_task};

/// A state of unfinished tasks, and of dead letters, by the name that it has in a queue's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// Claimable.
    Ready,
    /// Claimable later.
    Delayed,
    /// Leased.
    InProgress,
    /// Dead-lettered.
    Dlq,
}

impl QueueState {
    /// The state of a name.
    pub fn named(name: &str) -> Option<QueueState> {
        Some(match name {
            "ready" => QueueState::Ready,
            "delayed" => QueueState::Delayed,
            "inProgress" => QueueState::InProgress,
            "dlq" => QueueState::Dlq,
            _ => return None,
        })
    }

    fn location(self) -> Location {
        match self {
            QueueState::Ready => Location::PendingList,
            QueueState::Delayed => Location::DelayedZset,
            QueueState::InProgress => Location::InprogSet,
            QueueState::Dlq => Location::DlqSet,
        }
    }

    fn status(self) -> TaskStatus {
        match self {
            QueueState::Ready | QueueState::Delayed => TaskStatus::Pending,
            QueueState::InProgress => TaskStatus::InProgress,
            QueueState::Dlq => TaskStatus::Failed,
        }
    }
}

/// Which of a tenant's tasks to list. What is not named is not filtered by.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Of which command, in any case.
    pub command: Option<String>,
    /// Of which status.
    pub status: Option<TaskStatus>,
    /// In which state.
    pub state: Option<QueueState>,
}

/// What becomes of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// They begin afresh.
    Requeue,
    /// They are removed.
    Purge,
}

/// What became of a queue's dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disposed {
    /// How many were requeued, or removed.
    pub count: u32,
    /// Whether there are more.
    pub remaining: bool,
}

/// How many dead letters are handled in one step; claims and other calls go on between steps.
const STEP: u32 = 100;

/// How many tasks a cleanup removes at a time.
const CLEANUP_STEP: u32 = 1000;

impl Service {
    /// The counts of every queue of a tenant.
    ///
    /// # Errors
    ///
    /// Why the store did not answer.
    pub async fn queues(&self, tenant: &str) -> Result<List<QueueStats>, ServiceError> {
        Ok(self.store.admin_queues(Optional::RSome(tenant.into())).await?)
    }

    /// The counts of one queue of a tenant.
    ///
    /// # Errors
    ///
    /// Why the store did not answer.
    pub async fn queue(&self, tenant: &str, command: &str) -> Result<QueueStats, ServiceError> {
        let queue = Queue { tenant_id: tenant.into(), command: command.into() };
        Ok(self.store.queue_stats(queue).await?)
    }

    /// Removes a tenant's tasks whose retention had ended by then; answers how many.
    ///
    /// # Errors
    ///
    /// Why the store did not answer.
    pub async fn cleanup(
        &self,
        tenant: &str,
        before: Instant,
        limit: u32,
    ) -> Result<u32, ServiceError> {
        let mut removed = 0;
        loop {
            // In steps, between which others get their turn.
            let step = CLEANUP_STEP.min(limit - removed);
            let tenant_id = Optional::RSome(tenant.into());
            let cleanup = Cleanup { tenant_id, before, limit: step, extensions: Extensions::new() };
            let count = self.store.cleanup_expired(cleanup).await?;
            removed = removed.saturating_add(count).min(limit);
            if count < step || removed == limit {
                return Ok(removed);
            }
        }
    }

    /// A page of a tenant's tasks. It may have fewer than `limit` although it is not the last.
    ///
    /// # Errors
    ///
    /// `Invalid` for a cursor that the store did not make, `Unsupported`, or why the store did not
    /// answer.
    pub async fn list(
        &self,
        tenant: &str,
        filter: &TaskFilter,
        cursor: &str,
        limit: u32,
    ) -> Result<Page, ServiceError> {
        self.require(Capability::Listing)?;
        let of_state = filter.state.map(QueueState::status);
        if let (Some(status), Some(of_state)) = (filter.status, of_state)
            && status != of_state
        {
            return Ok(Page::default());
        }
        let list = ListTasks {
            tenant_id: Optional::RSome(tenant.into()),
            command: filter.command.as_deref().map(Text::from).into(),
            // Both, so that a task that has just left the place is not shown in it.
            status: filter.status.or(of_state).into(),
            location: filter.state.map(QueueState::location).into(),
            cursor: cursor.into(),
            limit,
            extensions: Extensions::new(),
        };
        Ok(self.store.list(list).await?)
    }

    /// Gives a dead letter of a tenant a fresh start.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Conflict` if it is no dead letter, `Unsupported`, or why the store did not
    /// answer.
    pub async fn requeue(
        self: &Arc<Self>,
        tenant: &str,
        id: &str,
    ) -> Result<Boxed<Task>, ServiceError> {
        self.require(Capability::Listing)?;
        let key = TaskKey { id: id.into(), tenant_id: tenant.into() };
        self.to_the_end(async move |service| {
            let _turn = service.operator.lock().await;
            let returned = service.one(service.store.redrive(Batch::One(key)).await?);
            let returned = returned.map_err(|error| match error {
                ServiceError::Invalid(_) => ServiceError::Conflict("task_not_in_dlq"),
                other => name_the_task(other),
            })?;
            service.notice_returned(&returned);
            Ok(returned.task)
        })
        .await
    }

    /// Removes a task of a tenant that no worker holds, with its result and its files.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Conflict` if a worker holds it, or why the store did not answer.
    pub async fn delete(self: &Arc<Self>, tenant: &str, id: &str) -> Result<(), ServiceError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.to_the_end(async move |service| {
            let _turn = service.operator.lock().await;
            let task = service.task(&tenant, &id).await?;
            if task.status == TaskStatus::InProgress {
                return Err(ServiceError::Conflict("task_in_progress"));
            }
            let bundles = service.bundles_of(&task).await?;
            let deleted = service.store.delete(Batch::One(task.id.clone())).await?;
            service.one(deleted).map_err(name_the_task)?;
            service.drop_bundles(bundles).await;
            tracing::info!(tenant, command = task.command.as_str(), task = id, "task deleted");
            Ok(())
        })
        .await
    }

    /// Requeues or removes up to `limit` dead letters of a queue.
    ///
    /// # Errors
    ///
    /// `Unsupported`, or why the store did not answer, if it did so for no task at all.
    pub async fn dispose(
        self: &Arc<Self>,
        tenant: &str,
        command: &str,
        disposal: Disposal,
        limit: u32,
    ) -> Result<Disposed, ServiceError> {
        self.require(Capability::Listing)?;
        let (tenant, command) = (tenant.to_owned(), command.to_owned());
        self.to_the_end(async move |service| {
            let mut disposed = Disposed::default();
            let failure = service
                .dispose_up_to(limit, &tenant, &command, disposal, &mut disposed)
                .await
                .err();
            if disposed.count > 0 {
                let count = disposed.count;
                match disposal {
                    Disposal::Requeue => {
                        tracing::info!(tenant, command, count, "dead letters requeued");
                    }
                    Disposal::Purge => {
                        tracing::info!(tenant, command, count, "dead letters purged");
                    }
                }
            }
            match failure {
                // What was done is worth more to the caller than what came in between; if that
                // lasts, the next call tells.
                Some(_) if disposed.count > 0 => Ok(Disposed { remaining: true, ..disposed }),
                Some(error) => Err(error),
                None => Ok(disposed),
            }
        })
        .await
    }

    async fn dispose_up_to(
        &self,
        limit: u32,
        tenant: &str,
        command: &str,
        disposal: Disposal,
        disposed: &mut Disposed,
    ) -> Result<(), ServiceError> {
        let filter = TaskFilter {
            command: Some(command.to_owned()),
            state: Some(QueueState::Dlq),
            ..TaskFilter::default()
        };
        let mut cursor = Text::new();
        let mut failure = None;
        while disposed.count < limit {
            let step = STEP.min(limit - disposed.count);
            let page = self.list(tenant, &filter, &cursor, step).await?;
            let ids = page.tasks.into_iter().map(|placed| placed.task.id.clone()).collect();
            let answers = match disposal {
                Disposal::Requeue => self.requeue_batch(tenant, ids).await?,
                Disposal::Purge => self.purge_batch(tenant, ids).await?,
            };
            for answer in answers {
                match answer {
                    Ok(()) => disposed.count += 1,
                    // It has just left the queue by itself.
                    Err(ServiceError::NotFound(_) | ServiceError::Invalid(_)) => {}
                    Err(error) => failure = Some(error),
                }
            }
            if page.cursor.is_empty() {
                return failure.map_or(Ok(()), Err);
            }
            cursor = page.cursor;
        }
        // A cursor alone does not promise that there is something behind it.
        disposed.remaining = !self.list(tenant, &filter, &cursor, 1).await?.tasks.is_empty();
        failure.map_or(Ok(()), Err)
    }

    async fn requeue_batch(
        &self,
        tenant: &str,
        ids: Vec<Text>,
    ) -> Result<Vec<Result<(), ServiceError>>, ServiceError> {
        let key = |id| TaskKey { id, tenant_id: tenant.into() };
        let _turn = self.operator.lock().await;
        let answers = self.store.redrive(ids.into_iter().map(key).collect()).await?;
        let plugin = &self.store.manifest().name;
        let came_back = |answer: codeq_plugin::Outcome<_>| match answer.into_result() {
            Ok(returned) => {
                self.notice_returned(&returned);
                Ok(())
            }
            Err(error) => Err(ServiceError::of_item(plugin, error)),
        };
        Ok(answers.into_iter().map(came_back).collect())
    }

    async fn purge_batch(
        &self,
        tenant: &str,
        ids: Vec<Text>,
    ) -> Result<Vec<Result<(), ServiceError>>, ServiceError> {
        let _turn = self.operator.lock().await;
        let still_dead = |task: &Boxed<Task>| {
            task.tenant_id == *tenant && task.last_known_location == Location::DlqSet
        };
        let dead: Batch<Text> = self
            .store
            .get(ids.into())
            .await?
            .into_iter()
            .filter_map(|task| task.into_result().ok().filter(still_dead))
            .map(|task| task.id.clone())
            .collect();
        let plugin = &self.store.manifest().name;
        let deleted = |answer: codeq_plugin::Outcome<()>| {
            answer.into_result().map_err(|error| ServiceError::of_item(plugin, error))
        };
        Ok(self.store.delete(dead).await?.into_iter().map(deleted).collect())
    }

    /// Does something to its end, even if the caller goes away in the middle of it: what was moved
    /// is told to those who wait for it.
    async fn to_the_end<T, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Service>) -> F,
    ) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let done = tokio::spawn(work(Arc::clone(self))).await;
        done.unwrap_or_else(|_| Err(self.no_answer()))
    }

    pub(super) fn require(&self, capability: Capability) -> Result<(), ServiceError> {
        if self.store.has(capability) {
            return Ok(());
        }
        let plugin = self.store.manifest().name.clone();
        Err(ServiceError::Unsupported { plugin, capability: capability.as_str() })
    }
}
