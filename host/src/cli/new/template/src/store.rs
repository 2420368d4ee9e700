//! The store: every operation of the storage contract, each under one short lock.
//!
//! Most have the same three lines: look the task up, let a rule change it, put it where the rule
//! says. The rules check who holds a task, count attempts and choose delays; the store only makes
//! the change one atomic step.

use std::sync::{Mutex, MutexGuard, PoisonError};

use codeq_plugin::{
    Batch, Boxed, Claim, Claimed, Cleanup, Complete, Completed, Context, Enqueue, Enqueued, Error,
    Extend, Finish, Instant, Lease, ListTasks, Moved, Nack, Page, Persistence, Placed, Queue,
    QueueStats, Result, ResultStorage, Returned, SubscriptionStorage, Task, TaskKey, TaskResult,
    TaskStorage, Text, queue_name,
    rules::{self, Jitter, Rules},
};

use crate::{
    Config,
    index::{Counts, Name, Place, Scope},
    list,
    report::Report,
    tasks::Tasks,
};

/// A store of tasks and results.
pub struct Store {
    rules: Rules,
    repair_limit: u32,
    tasks: Mutex<Tasks>,
}

impl Persistence for Store {
    type Config = Config;

    // What the settings name has to be there: connect, open files, and answer
    // `Error::invalid_config("path: there is no directory /srv/tasks")` if that is not so.
    fn open(config: Config, context: Context) -> Result<Store> {
        Ok(Store {
            rules: context.rules,
            repair_limit: context.repair_limit,
            tasks: Mutex::new(Tasks::new(context.rules, &config)),
        })
    }
}

impl TaskStorage for Store {
    fn save(&self, placed: Placed) -> Result<()> {
        let placement = rules::placement_of(&placed.task, placed.visible_at);
        self.lock().replace(placed.task, placement)
    }

    fn get(&self, id: &str) -> Result<Boxed<Task>> {
        Ok(self.lock().get(id)?.task.clone())
    }

    fn delete(&self, id: &str) -> Result<()> {
        self.lock().remove(id).map(drop)
    }

    fn enqueue(&self, enqueue: Enqueue) -> Result<Enqueued> {
        let Enqueue {
            mut task,
            visible_at,
            idempotency_key: key,
            ..
        } = enqueue;
        let (mut tasks, now) = self.begin();
        if let Some(earlier) = tasks.enqueued_with(&task.tenant_id, &key, now) {
            return Ok(Enqueued {
                task: earlier.clone(),
                created: false,
                awoke: false,
            });
        }
        let placement = self.rules.enqueue(&mut task, visible_at, now);
        let change = tasks.insert(task, placement)?;
        let (task, awoke) = (change.task.clone(), change.awoke);
        let until = now + self.rules.idempotency_window;
        let key = (task.tenant_id.clone(), key);
        tasks.keys.remember(key, &task.id, until, now);
        Ok(Enqueued {
            task,
            created: true,
            awoke,
        })
    }

    fn claim(&self, claim: Claim) -> Result<Claimed> {
        rules::check_lease(claim.lease)?;
        let (mut tasks, now) = self.begin();
        // A claim that moves fewer tasks than it may take would leave due ones behind.
        let limit = self.repair_limit.max(claim.max);
        let mut report = Report::default();
        let mut claimed = Batch::default();
        for scope in scopes(&claim) {
            for place in [Place::Delayed, Place::Leased] {
                self.advance(&mut tasks, place, &scope, limit, now, &mut report)?;
            }
            while claimed.len() < claim.max as usize
                && let Some(id) = tasks.index.next_ready(&scope)
            {
                let task = &mut tasks.get_mut(&id)?.task;
                let placement = self.rules.claim(task, &claim.worker_id, claim.lease, now);
                claimed.push(tasks.place(&id, placement)?.task.clone());
            }
        }
        let moved = Moved::from(report).reported();
        Ok(Claimed {
            tasks: claimed,
            moved,
        })
    }

    fn update_lease(&self, extend: Extend) -> Result<Instant> {
        let Extend { lease, by } = extend;
        let (mut tasks, now) = self.begin();
        let task = &mut tasks.get_mut(&lease.task_id)?.task;
        let placement = self.rules.extend(task, &lease, by, now)?;
        tasks.place(&lease.task_id, placement)?;
        Ok(now + by)
    }

    fn abandon_lease(&self, lease: Lease) -> Result<Returned> {
        let (mut tasks, now) = self.begin();
        let task = &mut tasks.get_mut(&lease.task_id)?.task;
        let placement = self.rules.abandon(task, &lease, now)?;
        Ok(tasks.place(&lease.task_id, placement)?.returned(now))
    }

    fn nack(&self, nack: Nack) -> Result<Returned> {
        let Nack {
            lease,
            delay,
            reason,
        } = nack;
        let (mut tasks, now) = self.begin();
        let task = &mut tasks.get_mut(&lease.task_id)?.task;
        let delay = delay.into_option();
        let placement = self
            .rules
            .nack(task, &lease, delay, &reason, Jitter::random(), now)?;
        Ok(tasks.place(&lease.task_id, placement)?.returned(now))
    }

    fn move_due_delayed(&self, limit: u32) -> Result<Moved> {
        self.repair(Place::Delayed, limit)
    }

    fn requeue_expired(&self, limit: u32) -> Result<Moved> {
        self.repair(Place::Leased, limit)
    }

    fn queue_length(&self, queue: Queue) -> Result<u64> {
        Ok(self.queue_stats(queue)?.ready)
    }

    fn queue_stats(&self, queue: Queue) -> Result<QueueStats> {
        let tenant = Name::from(queue.tenant_id.as_str());
        let command = Name::from(queue_name(&queue.command));
        let counts = self.lock().index.counts(&tenant, &command);
        Ok(stats(&tenant, &command, counts))
    }

    fn admin_queues(&self, tenant: Option<Text>) -> Result<Vec<QueueStats>> {
        let tasks = self.lock();
        let queues = tasks.index.queues(tenant.as_deref());
        let stats = queues.map(|((tenant, command), counts)| stats(tenant, command, *counts));
        Ok(stats.collect())
    }

    fn cleanup_expired(&self, cleanup: Cleanup) -> Result<u32> {
        let mut tasks = self.lock();
        let tenant = cleanup.tenant_id.into_option();
        let tenant = tenant.map(|tenant| Name::from(tenant.as_str()));
        let mut removed = 0;
        while removed < cleanup.limit
            && let Some((until, id)) = tasks.index.next_retained(tenant.as_ref())
            && until <= cleanup.before
        {
            tasks.remove(&id)?;
            removed += 1;
        }
        Ok(removed)
    }

    fn list(&self, list: ListTasks) -> Result<Page> {
        list::page(&self.lock(), &list)
    }

    fn redrive(&self, key: TaskKey) -> Result<Returned> {
        let (mut tasks, now) = self.begin();
        let task = &mut tasks.get_mut(&key.id)?.task;
        if task.tenant_id != key.tenant_id {
            return Err(rules::not_found(&key.id));
        }
        let placement = self.rules.redrive(task, now)?;
        Ok(tasks.place(&key.id, placement)?.returned(now))
    }
}

impl ResultStorage for Store {
    fn save_result(&self, result: Boxed<TaskResult>) -> Result<()> {
        let mut tasks = self.lock();
        let record = tasks.get_mut(&result.task_id)?;
        record.result = Some(result);
        Ok(())
    }

    fn get_result(&self, task_id: &str) -> Result<Boxed<TaskResult>> {
        let missing = || Error::not_found(format!("task {task_id} has no result"));
        self.lock().get(task_id)?.result.clone().ok_or_else(missing)
    }

    fn update_task_on_complete(&self, finish: Finish) -> Result<()> {
        let (mut tasks, now) = self.begin();
        let task = &mut tasks.get_mut(&finish.task_id)?.task;
        let placement = rules::finish(task, finish.status, &finish.error, now)?;
        task.result_key = finish.result_key;
        tasks.place(&finish.task_id, placement).map(drop)
    }

    fn remove_from_inprog_and_clear_lease(&self, task_id: &str) -> Result<()> {
        let (mut tasks, now) = self.begin();
        let task = &mut tasks.get_mut(task_id)?.task;
        match self.rules.release_lease(task, now) {
            Some(placement) => tasks.place(task_id, placement).map(drop),
            None => Ok(()),
        }
    }

    fn complete(&self, complete: Complete) -> Result<Completed> {
        let Complete { lease, result } = complete;
        if result.task_id != lease.task_id {
            return Err(Error::invalid_argument(format!(
                "the result is of task {}, the lease of task {}",
                result.task_id, lease.task_id
            )));
        }
        let (mut tasks, now) = self.begin();
        let record = tasks.get_mut(&lease.task_id)?;
        let task = &mut record.task;
        let placement = self
            .rules
            .complete(task, &lease, result.status, &result.error, now)?;
        task.result_key = task.id.clone();
        record.result = Some(result);
        let change = tasks.place(&lease.task_id, placement)?;
        Ok(Completed {
            task: change.task.clone(),
        })
    }
}

/// The defaults answer `Unsupported`, and the manifest does not have the capability.
impl SubscriptionStorage for Store {}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Tasks> {
        // A panic under the lock was answered as an error; the tasks are still everybody else's.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock, then looks at the clock: operations see time in the order in which they run.
    fn begin(&self) -> (MutexGuard<'_, Tasks>, Instant) {
        (self.lock(), Instant::now())
    }

    fn repair(&self, place: Place, limit: u32) -> Result<Moved> {
        let (mut tasks, now) = self.begin();
        let mut report = Report::default();
        self.advance(&mut tasks, place, &Scope::All, limit, now, &mut report)?;
        let next = tasks.index.next_timed(place, &Scope::All);
        Ok(Moved {
            next: next.map(|(moment, _)| moment).into(),
            ..report.into()
        })
    }

    /// Moves tasks whose delay or lease is over, at most `limit`, the earliest first.
    fn advance(
        &self,
        tasks: &mut Tasks,
        place: Place,
        scope: &Scope,
        limit: u32,
        now: Instant,
        report: &mut Report,
    ) -> Result<()> {
        for _ in 0..limit {
            let next = tasks.index.next_timed(place, scope);
            let Some((_, id)) = next.filter(|(moment, _)| *moment <= now) else {
                break;
            };
            let task = &mut tasks.get_mut(&id)?.task;
            let placement = match place {
                Place::Leased => self.rules.expire(task, Jitter::random(), now),
                _ => self.rules.come_due(task, now),
            };
            report.add(place, &tasks.place(&id, placement)?);
        }
        Ok(())
    }
}

/// What a claim takes tasks from, in order.
fn scopes(claim: &Claim) -> Vec<Scope> {
    let tenant = Name::from(claim.tenant_id.as_str());
    if claim.commands.is_empty() {
        return vec![Scope::Tenant(tenant)];
    }
    let queue = |command: &Text| Scope::Queue(tenant.clone(), queue_name(command).into());
    claim.commands.iter().map(queue).collect()
}

fn stats(tenant: &str, command: &str, counts: Counts) -> QueueStats {
    let count = |place| counts[place as usize];
    QueueStats {
        command: command.into(),
        tenant_id: tenant.into(),
        ready: count(Place::Ready),
        delayed: count(Place::Delayed),
        in_progress: count(Place::Leased),
        dlq: count(Place::Dead),
    }
}
