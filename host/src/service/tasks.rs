//! The service's operations on tasks.

use std::{pin::pin, sync::Arc, time::Duration};

use codeq_plugin::{
    Artifact, Batch, Boxed, Claim, Complete, Enqueue, Error, ErrorKind, Extend, Extensions,
    Instant, Lease, List, MAX_PRIORITY, Millis, Nack, Optional, Returned, Task, TaskResult,
    TaskStatus, Text,
};
use futures_util::FutureExt;
use tokio::{
    sync::oneshot,
    time::{Instant as Deadline, sleep_until},
};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    Handover, NewArtifact, QueueName, Service, ServiceError,
    account::{Creation, of_lease, trace_claimed, trace_ended, trace_submitted},
    waiters::Waiter,
};
use crate::{store::StoreError, trace::Step};

/// A task as its producer describes it.
#[derive(Clone, Debug, Default)]
pub struct NewTask {
    /// The kind of work.
    pub command: String,
    /// JSON text.
    pub payload: String,
    /// 0 to 9; out of range is clamped.
    pub priority: i64,
    /// How often it may be delivered; the host's default if it is not above 0.
    pub max_attempts: i64,
    /// Where the result is posted to.
    pub webhook: String,
    /// Two tasks of one tenant with the same key within a day are one; empty for none.
    pub idempotency_key: String,
    /// From when on it may be claimed; the past means at once.
    pub visible_at: Option<Instant>,
    /// The producer's W3C trace context.
    pub trace_parent: String,
    /// The producer's W3C trace state.
    pub trace_state: String,
}

/// Who claims, and what.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// The worker.
    pub worker_id: String,
    /// The worker's tenant.
    pub tenant_id: String,
    /// From which commands, in this order; none means any.
    pub commands: Vec<String>,
    /// At most how many tasks.
    pub max: u32,
    /// For how long; the host's default if nothing is said.
    pub lease: Option<Millis>,
    /// How long to wait for a task if there is none.
    pub wait: Duration,
}

/// What a worker hands in for a task.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The task, and who hands it in.
    pub lease: Lease,
    /// How it ended.
    pub outcome: Outcome,
    /// Files that belong to the result.
    pub artifacts: Vec<NewArtifact>,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// [`TaskStatus::Completed`] or [`TaskStatus::Failed`].
    pub status: TaskStatus,
    /// A JSON object as text.
    pub result: String,
    /// Why it failed.
    pub error: String,
}

/// Longer names of commands would be no names.
const LONGEST_COMMAND: usize = 256;

impl Service {
    /// Creates one task.
    ///
    /// # Errors
    ///
    /// What is wrong with the task, or why the store did not take it.
    pub async fn create(&self, tenant: &str, task: NewTask) -> Result<Boxed<Task>, ServiceError> {
        let mut answers = self.create_all(tenant, vec![task]).await;
        answers.pop().unwrap_or_else(|| Err(self.no_answer()))
    }

    /// Creates tasks, each on its own: one that fails does not keep the others from being created.
    pub async fn create_all(
        &self,
        tenant: &str,
        tasks: Vec<NewTask>,
    ) -> Vec<Result<Boxed<Task>, ServiceError>> {
        let mut creation = Creation::begin();
        let mut check =
            |task| self.enqueue_of_new(tenant, task).map(|enqueue| creation.add(enqueue));
        let checked = tasks.into_iter().map(&mut check).collect();
        self.each_valid(checked, async |batch: Batch<Enqueue>| {
            let visible: Vec<Instant> = batch.iter().map(|enqueue| enqueue.visible_at).collect();
            let answers = self.store.enqueue(batch).await;
            creation.end(&answers);
            Ok(answers?
                .into_iter()
                .zip(visible)
                .map(|(answer, visible_at)| {
                    answer.map(|enqueued| {
                        if enqueued.created {
                            self.created(&enqueued.task);
                            self.notice(&enqueued.task, Some(visible_at));
                        }
                        if enqueued.awoke {
                            let Task { tenant_id, command, .. } = &*enqueued.task;
                            self.availability.awoke(tenant_id, command);
                        }
                        enqueued.task
                    })
                })
                .collect())
        })
        .await
    }

    /// Claims tasks, and waits for one if there is none. Nobody waits any longer once the caller has
    /// `left`, and what came while he was leaving is handed back.
    ///
    /// # Errors
    ///
    /// Why the store did not answer.
    pub async fn claim(
        self: &Arc<Self>,
        claimant: Claimant,
        left: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Handover, ServiceError> {
        // The claim goes on if the caller goes away in the middle of it, so that what was claimed by
        // then can be handed back.
        let (mut answer, claimed) = oneshot::channel();
        let service = Arc::clone(self);
        let step = Step::claim();
        let claiming = async move {
            let handover = service.take(claimant, step, &mut answer, left).await;
            // Nobody there to take it: dropping it hands the tasks back.
            drop(answer.send(handover));
        };
        tokio::spawn(claiming.in_current_span());
        claimed.await.unwrap_or_else(|_| Err(self.no_answer()))
    }

    async fn take<T>(
        self: &Arc<Self>,
        claimant: Claimant,
        mut step: Option<Step>,
        caller: &mut oneshot::Sender<T>,
        left: impl Future<Output = ()>,
    ) -> Result<Handover, ServiceError> {
        let mut left = pin!(left);
        let mut has_waited = false;
        let deadline = Deadline::now() + claimant.wait;
        let claim = Claim {
            worker_id: claimant.worker_id.into(),
            tenant_id: claimant.tenant_id.into(),
            commands: claimant.commands.into_iter().map(Text::from).collect(),
            max: claimant.max,
            lease: claimant.lease.unwrap_or(self.settings.default_lease),
            extensions: Extensions::new(),
        };
        let mut waiter = self.claims.join(lines_of(&claim));
        loop {
            waiter.begin_look();
            step = step.map(Step::beginning_now);
            let claimed = self.store.claim(claim.clone()).await?;
            waiter.end_look(!claimed.tasks.is_empty());
            if let Optional::RSome(moved) = &claimed.moved {
                self.notice_moved(moved).await;
            }
            if !claimed.tasks.is_empty() {
                for task in claimed.tasks.iter() {
                    self.claimed(task);
                    self.notice(task, None);
                }
                let lease = claim.lease.as_secs_ceil();
                let tasks = trace_claimed(step.as_ref(), claimed.tasks, lease);
                let handover = Handover::new(Arc::clone(self), tasks);
                // Who asked and left at once may only have nothing more to say. Who was waiting for
                // this is gone.
                let is_gone = has_waited && left.as_mut().now_or_never().is_some();
                return Ok(if is_gone { Handover::nothing(self) } else { handover });
            }
            has_waited = true;
            let again = tokio::select! {
                again = self.wait(&waiter, deadline, "claim") => again,
                () = caller.closed() => false,
                () = &mut left => false,
            };
            if !again {
                return Ok(Handover::nothing(self));
            }
        }
    }

    /// Waits for a wake. Answers whether it is worth looking again.
    async fn wait<K: Clone + Eq + std::hash::Hash>(
        &self,
        waiter: &Waiter<'_, K>,
        deadline: Deadline,
        kind: &'static str,
    ) -> bool {
        if Deadline::now() >= deadline || self.is_stopping() {
            return false;
        }
        let _waiting = self.metrics.long_poll(kind);
        tokio::select! {
            () = waiter.woken() => true,
            // At the deadline there is one last look: whatever came due at that moment is there.
            () = sleep_until(deadline) => true,
            () = self.stopped() => false,
        }
    }

    /// Moves the deadline of a lease.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotInProgress`, `NotOwner`, or why the store did not answer.
    pub async fn heartbeat(
        &self,
        lease: Lease,
        by: Option<Millis>,
    ) -> Result<Instant, ServiceError> {
        let by = by.unwrap_or(self.settings.default_lease);
        let step = Step::heartbeat().map(|step| of_lease(step, &lease));
        let step = step.map(|step| step.with("codeq.extend_seconds", by.as_secs_ceil()));
        let extend = Extend { lease, by };
        let until = self.only(self.store.update_lease(Batch::One(extend)).await);
        trace_ended(step, &until, |_| None);
        let until = until?;
        self.upkeep.due_at(until);
        Ok(until)
    }

    /// Takes a task back unharmed.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotInProgress`, `NotOwner`, or why the store did not answer.
    pub async fn abandon(&self, lease: Lease) -> Result<Returned, ServiceError> {
        let step = Step::abandon().map(|step| of_lease(step, &lease));
        let returned = self.only(self.store.abandon_lease(Batch::One(lease)).await);
        trace_ended(step, &returned, |returned| Some(&*returned.task));
        let returned = returned?;
        self.notice_returned(&returned);
        Ok(returned)
    }

    /// Takes a task back as failed: it is retried, or dead-lettered.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotInProgress`, `NotOwner`, or why the store did not answer.
    pub async fn nack(
        self: &Arc<Self>,
        lease: Lease,
        delay: Option<Millis>,
        reason: &str,
    ) -> Result<Returned, ServiceError> {
        let step = Step::nack().map(|step| of_lease(step, &lease));
        let nack = Nack { lease, delay: delay.into(), reason: reason.into() };
        let service = Arc::clone(self);
        // It goes on if the caller goes away: the producer has to hear of a dead letter all the same.
        let taking_back = async move { service.take_back(nack).await };
        let taken_back = tokio::spawn(taking_back.in_current_span());
        let returned = taken_back.await.unwrap_or_else(|_| Err(self.no_answer()));
        let delay = returned.as_ref().map_or(0, |returned| returned.delay.as_secs_ceil());
        let step = step.map(|step| step.with("codeq.delay_seconds", delay));
        trace_ended(step, &returned, |returned| Some(&*returned.task));
        returned
    }

    async fn take_back(&self, nack: Nack) -> Result<Returned, ServiceError> {
        let id = nack.lease.task_id.clone();
        match self.one(self.store.nack(Batch::One(nack)).await?) {
            Ok(returned) => {
                self.notice_returned(&returned);
                self.note_deaths(std::iter::once(&*returned.task)).await;
                Ok(returned)
            }
            Err(ServiceError::NotInProgress) => {
                self.note_again(&id).await;
                Err(ServiceError::NotInProgress)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes in results, each on its own.
    pub async fn submit(
        self: &Arc<Self>,
        submissions: Vec<Submission>,
    ) -> Vec<Result<Boxed<TaskResult>, ServiceError>> {
        let count = submissions.len();
        let step = Step::submit_result();
        let service = Arc::clone(self);
        // It goes on if the caller goes away: the producer has to hear of it all the same.
        let taking_in = async move { service.take_in(submissions, step).await };
        let taken_in = tokio::spawn(taking_in.in_current_span());
        taken_in.await.unwrap_or_else(|_| (0..count).map(|_| Err(self.no_answer())).collect())
    }

    async fn take_in(
        &self,
        submissions: Vec<Submission>,
        step: Option<Step>,
    ) -> Vec<Result<Boxed<TaskResult>, ServiceError>> {
        let (checked, bundles) = self.keep_artifacts(submissions).await;
        let answers = self.each_valid(checked, async |batch: Batch<Complete>| {
            let submitted: Vec<Complete> = batch.iter().cloned().collect();
            let answers = self.store.complete(batch).await;
            trace_submitted(step, &submitted, &answers);
            let answers = answers?;
            let answered = || answers.iter().zip(&submitted);
            let ended = || {
                answered().filter_map(|(answer, complete)| {
                    let completed = answer.as_ref().into_result().ok()?;
                    Some((&*completed.task, complete))
                })
            };
            // Whoever waits for a result does not wait for its note.
            for (task, complete) in ended() {
                self.ended(task, complete);
                self.notice(task, None);
            }
            self.note_results(ended().map(|(task, complete)| (task, &*complete.result))).await;
            for (answer, complete) in answered() {
                let is_late = |error: &Error| error.kind() == ErrorKind::NotInProgress;
                if answer.as_ref().into_result().err().is_some_and(is_late) {
                    self.note_again(&complete.result.task_id).await;
                }
            }
            let answers = answers.into_iter().zip(submitted);
            Ok(answers.map(|(answer, complete)| answer.map(|_| complete.result)).collect())
        });
        let answers: Vec<_> =
            answers.await.into_iter().map(|answer| answer.map_err(name_the_task)).collect();
        self.drop_refused(bundles, &answers).await;
        answers
    }

    /// A task of a tenant.
    ///
    /// # Errors
    ///
    /// `NotFound`, for another tenant's task too, or why the store did not answer.
    pub async fn task(&self, tenant: &str, id: &str) -> Result<Boxed<Task>, ServiceError> {
        let task = self.one(self.store.get(Batch::One(id.into())).await?).map_err(name_the_task)?;
        if task.tenant_id == *tenant { Ok(task) } else { Err(TASK_NOT_FOUND) }
    }

    /// A task of a tenant and its result; waits for the result if there is none, until the caller
    /// has `left`.
    ///
    /// # Errors
    ///
    /// `NotFound`, or why the store did not answer.
    pub async fn result(
        &self,
        tenant: &str,
        id: &str,
        wait: Duration,
        left: impl Future<Output = ()>,
    ) -> Result<(Boxed<Task>, Boxed<TaskResult>), ServiceError> {
        let mut left = pin!(left);
        let deadline = Deadline::now() + wait;
        let mut waiter = self.readers.join(vec![id.into()]);
        loop {
            waiter.begin_look();
            let task = self.task(tenant, id).await?;
            match self.one(self.store.get_result(Batch::One(id.into())).await?) {
                Ok(result) => {
                    // The task may have been read just before it was completed.
                    let task = if task.status.is_terminal() {
                        task
                    } else {
                        self.task(tenant, id).await?
                    };
                    return Ok((task, result));
                }
                Err(ServiceError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            waiter.end_look(false);
            let again = tokio::select! {
                again = self.wait(&waiter, deadline, "result") => again,
                () = &mut left => false,
            };
            if !again {
                return Err(ServiceError::NotFound("result not found"));
            }
        }
    }

    /// Sends the valid items to the store as one batch and puts its answers where they belong.
    async fn each_valid<I, O>(
        &self,
        checked: Vec<Result<I, ServiceError>>,
        send: impl AsyncFnOnce(Batch<I>) -> Result<Vec<codeq_plugin::Outcome<O>>, ServiceError>,
    ) -> Vec<Result<O, ServiceError>> {
        let mut refusals = Vec::with_capacity(checked.len());
        let mut valid = Batch::default();
        for item in checked {
            match item {
                Ok(item) => {
                    valid.push(item);
                    refusals.push(None);
                }
                Err(error) => refusals.push(Some(error)),
            }
        }
        let answers = if valid.is_empty() { Ok(Vec::new()) } else { send(valid).await };
        let (mut answers, failure) = match answers {
            Ok(answers) => (answers.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        let plugin = &self.store.manifest().name;
        let answer = |refusal: Option<ServiceError>| match refusal.or_else(|| failure.clone()) {
            Some(error) => Err(error),
            None => match answers.next() {
                Some(answer) => {
                    answer.into_result().map_err(|error| ServiceError::of_item(plugin, error))
                }
                None => Err(self.no_answer()),
            },
        };
        refusals.into_iter().map(answer).collect()
    }

    fn enqueue_of_new(&self, tenant: &str, new: NewTask) -> Result<Enqueue, ServiceError> {
        let enqueue = enqueue_of(tenant, new)?;
        let webhook = &enqueue.task.webhook;
        if !webhook.is_empty() {
            self.callbacks.target(webhook).map_err(|problem| {
                ServiceError::Invalid(format!("invalid webhook url: {problem}"))
            })?;
        }
        Ok(enqueue)
    }

    /// The answer to a batch of one, if there was any.
    fn only<T>(
        &self,
        answers: Result<Batch<codeq_plugin::Outcome<T>>, StoreError>,
    ) -> Result<T, ServiceError> {
        self.one(answers?)
    }

    /// The answer to a batch of one.
    pub(super) fn one<T>(
        &self,
        answers: Batch<codeq_plugin::Outcome<T>>,
    ) -> Result<T, ServiceError> {
        let plugin = &self.store.manifest().name;
        match answers.into_only() {
            Some(answer) => {
                answer.into_result().map_err(|error| ServiceError::of_item(plugin, error))
            }
            None => Err(self.no_answer()),
        }
    }

    pub(super) fn no_answer(&self) -> ServiceError {
        let plugin = &self.store.manifest().name;
        ServiceError::of_item(plugin, Error::internal("it gave no answer"))
    }
}

const TASK_NOT_FOUND: ServiceError = ServiceError::NotFound("task not found");

pub(super) fn name_the_task(error: ServiceError) -> ServiceError {
    match error {
        ServiceError::NotFound(_) => TASK_NOT_FOUND,
        other => other,
    }
}

/// The lines in which a claim waits.
fn lines_of(claim: &Claim) -> Vec<QueueName> {
    if claim.commands.is_empty() {
        return vec![QueueName::any(&claim.tenant_id)];
    }
    claim.commands.iter().map(|command| QueueName::of(&claim.tenant_id, command)).collect()
}

fn enqueue_of(tenant: &str, new: NewTask) -> Result<Enqueue, ServiceError> {
    check_command(&new.command)?;
    if new.idempotency_key.contains('\0') {
        return Err(ServiceError::Invalid(
            "invalid 'idempotencyKey' (must not contain NUL)".into(),
        ));
    }
    let webhook = new.webhook.trim();
    let priority = new.priority.clamp(0, i64::from(MAX_PRIORITY));
    let task = Task {
        id: Uuid::new_v4().to_string().into(),
        command: new.command.into(),
        payload: new.payload.into(),
        priority: u8::try_from(priority).unwrap_or(MAX_PRIORITY),
        webhook: webhook.into(),
        trace_parent: new.trace_parent.into(),
        trace_state: new.trace_state.into(),
        max_attempts: u32::try_from(new.max_attempts.max(0)).unwrap_or(u32::MAX),
        tenant_id: tenant.into(),
        ..Task::default()
    };
    let blank = new.idempotency_key.trim().is_empty();
    Ok(Enqueue {
        visible_at: new.visible_at.unwrap_or(Instant::EPOCH),
        idempotency_key: if blank { Text::new() } else { new.idempotency_key.into() },
        ..Enqueue::now(task)
    })
}

pub(super) fn check_command(command: &str) -> Result<(), ServiceError> {
    let problem = if command.trim().is_empty() {
        "it is blank"
    } else if command.len() > LONGEST_COMMAND {
        "it is longer than 256 bytes"
    } else if command.contains(|c: char| c.is_control()) {
        "it contains control characters"
    } else {
        return Ok(());
    };
    Err(ServiceError::Invalid(format!("invalid command: {problem}")))
}

/// Refuses an outcome that says too little.
pub(super) fn check_outcome(outcome: &Outcome) -> Result<(), ServiceError> {
    let invalid = |message: &str| Err(ServiceError::Invalid(message.into()));
    match outcome.status {
        TaskStatus::Completed if outcome.result.is_empty() => {
            invalid("result required when status=COMPLETED")
        }
        TaskStatus::Failed if outcome.error.trim().is_empty() => {
            invalid("error required when status=FAILED")
        }
        TaskStatus::Completed | TaskStatus::Failed => Ok(()),
        TaskStatus::Pending | TaskStatus::InProgress => {
            invalid("invalid status (use COMPLETED or FAILED)")
        }
    }
}

pub(super) fn complete_of(lease: Lease, outcome: Outcome, artifacts: List<Artifact>) -> Complete {
    let result = TaskResult {
        task_id: lease.task_id.clone(),
        status: outcome.status,
        result: outcome.result.into(),
        error: outcome.error.into(),
        artifacts,
        completed_at: Instant::now(),
        extensions: Extensions::new(),
    };
    Complete { lease, result: Boxed::new(result) }
}
