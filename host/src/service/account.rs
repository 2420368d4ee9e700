//! What the service tells of its tasks: figures, lines of the log, and spans.

use codeq_plugin::{
    Batch, Boxed, Complete, Completed, Enqueue, Enqueued, Lease, Outcome, Tally, Task, TaskStatus,
};

use super::{Service, ServiceError};
use crate::{
    store::StoreError,
    trace::{Step, TaskSpan},
};

impl Service {
    pub(super) fn created(&self, task: &Task) {
        self.metrics.task_created(task);
        tracing::debug!(
            tenant = task.tenant_id.as_str(),
            command = task.command.as_str(),
            task = task.id.as_str(),
            "task created"
        );
    }

    pub(super) fn claimed(&self, task: &Task) {
        self.metrics.task_claimed(task);
        tracing::debug!(
            tenant = task.tenant_id.as_str(),
            command = task.command.as_str(),
            task = task.id.as_str(),
            worker = task.worker_id.as_str(),
            attempt = task.attempts,
            "task claimed"
        );
    }

    pub(super) fn ended(&self, task: &Task, complete: &Complete) {
        let result = &complete.result;
        self.metrics.task_ended(task, result.status, result.completed_at);
        tracing::debug!(
            tenant = task.tenant_id.as_str(),
            command = task.command.as_str(),
            task = task.id.as_str(),
            worker = complete.lease.worker_id.as_str(),
            status = result.status.as_str(),
            "task ended"
        );
    }

    /// Dead letters are what operators look for in a log.
    pub(super) fn buried(&self, task: &Task) {
        self.metrics.task_ended(task, TaskStatus::Failed, task.updated_at);
        tracing::warn!(
            tenant = task.tenant_id.as_str(),
            command = task.command.as_str(),
            task = task.id.as_str(),
            attempts = task.attempts,
            error = task.error.as_str(),
            "task dead-lettered"
        );
    }

    pub(super) fn expired(&self, Tally { queue, count }: &Tally) {
        self.metrics.leases_expired(&queue.tenant_id, &queue.command, *count);
        tracing::info!(
            tenant = queue.tenant_id.as_str(),
            command = queue.command.as_str(),
            count,
            "leases ran out"
        );
    }
}

/// The spans of tasks that are being created.
pub(super) struct Creation {
    step: Option<Step>,
    spans: Vec<TaskSpan>,
}

impl Creation {
    pub(super) fn begin() -> Creation {
        Creation { step: Step::create(), spans: Vec::new() }
    }

    /// A task is to be created. Later steps go on from here, so the task keeps where that is.
    pub(super) fn add(&mut self, mut enqueue: Enqueue) -> Enqueue {
        let Some(step) = self.step.clone() else { return enqueue };
        let task = &mut enqueue.task;
        let span = step
            .with("codeq.command", task.command.to_string())
            .with("codeq.priority", i64::from(task.priority))
            .with("codeq.has_webhook", !task.webhook.is_empty())
            .with("codeq.has_idempotency_key", !enqueue.idempotency_key.is_empty())
            .with("codeq.tenant_id", task.tenant_id.to_string())
            .in_trace_of(task);
        let position = span.position();
        task.trace_parent = position.parent.into();
        task.trace_state = position.state.into();
        self.spans.push(span);
        enqueue
    }

    /// The store answered, in the order in which the tasks were added.
    pub(super) fn end(self, answers: &Result<Batch<Outcome<Enqueued>>, StoreError>) {
        for (n, mut span) in self.spans.into_iter().enumerate() {
            match answers.as_ref().map(|answers| answers.as_slice().get(n)) {
                Ok(Some(Outcome::ROk(enqueued))) => {
                    span.set("codeq.task_id", enqueued.task.id.to_string());
                }
                Ok(Some(Outcome::RErr(error))) => span.fail(error),
                Ok(None) => {}
                Err(error) => span.fail(error),
            }
        }
    }
}

/// Tasks were claimed. Their worker goes on from here.
pub(super) fn trace_claimed(
    step: Option<&Step>,
    tasks: Batch<Boxed<Task>>,
    lease_seconds: i64,
) -> Batch<Boxed<Task>> {
    let Some(step) = step else { return tasks };
    tasks.map(|mut task| {
        let span = step
            .clone()
            .about(&task)
            .with("codeq.worker_id", task.worker_id.to_string())
            .with("codeq.lease_seconds", lease_seconds)
            .in_trace_of(&task);
        let position = span.position();
        task.trace_parent = position.parent.into();
        task.trace_state = position.state.into();
        task
    })
}

/// Results were handed in for leases.
pub(super) fn trace_submitted(
    step: Option<Step>,
    submitted: &[Complete],
    answers: &Result<Batch<Outcome<Completed>>, StoreError>,
) {
    let Some(step) = step else { return };
    for (n, Complete { lease, result }) in submitted.iter().enumerate() {
        let step = step.clone().with("codeq.submit.status", result.status.as_str());
        match answers.as_ref().map(|answers| answers.as_slice().get(n)) {
            Ok(Some(Outcome::ROk(completed))) => {
                drop(step.about(&completed.task).in_trace_of(&completed.task));
            }
            Ok(Some(Outcome::RErr(error))) => of_lease(step, lease).in_request().fail(error),
            Ok(None) => {}
            Err(error) => of_lease(step, lease).in_request().fail(error),
        }
    }
}

/// A step of the task that a worker holds.
pub(super) fn of_lease(step: Step, lease: &Lease) -> Step {
    step.with("codeq.task_id", lease.task_id.to_string())
        .with("codeq.tenant_id", lease.tenant_id.to_string())
        .with("codeq.worker_id", lease.worker_id.to_string())
}

/// A step is over; the task tells the trace, if the store answered with it.
pub(super) fn trace_ended<T>(
    step: Option<Step>,
    result: &Result<T, ServiceError>,
    task: impl FnOnce(&T) -> Option<&Task>,
) {
    let Some(step) = step else { return };
    match result {
        Ok(answer) => drop(match task(answer) {
            Some(task) => step.with("codeq.command", task.command.to_string()).in_trace_of(task),
            None => step.in_request(),
        }),
        Err(error) => step.in_request().fail(error),
    }
}
