//! The operations on tasks.

use codeq_plugin::{
    Answers, Boxed, Cleanup, Enqueue, Enqueued, Error, Extend, Instant, Lease, Moved, Nack, Placed,
    Queue, QueueStats, Result, Returned, Task, TaskKey, Text, queue_name,
    rules::{self, Placement},
};
use redis::FromRedisValue;

use crate::{
    backend::Backend,
    record,
    reply::{Reply, itself, merged, task_of},
    scripts,
};

/// How many queues are counted in one round trip.
const QUEUES_AT_ONCE: usize = 200;

impl Backend {
    pub(crate) async fn save(&self, batch: Vec<Placed>) -> Answers<()> {
        let checked: Vec<_> = batch.iter().map(|placed| rules::check_task(&placed.task)).collect();
        let mut call = self.call(&scripts::SAVE);
        let mut sent = Vec::new();
        for (Placed { task, visible_at }, checked) in batch.iter().zip(&checked) {
            if checked.is_ok() {
                let placement = rules::placement_of(task, *visible_at);
                let (place, at) = match placement {
                    Placement::Ready => ("ready", Instant::EPOCH),
                    Placement::Delayed(at) => ("delayed", at),
                    Placement::Leased(until) => ("leased", until),
                    Placement::Dead => ("dead", Instant::EPOCH),
                    Placement::Done => ("done", Instant::EPOCH),
                };
                call = call
                    .text(&task.id)
                    .text(&record::task(task, &self.caller.zone))
                    .text(&task.command)
                    .text(&queue_name(&task.command))
                    .text(&task.tenant_id)
                    .number(task.priority.min(codeq_plugin::MAX_PRIORITY))
                    .text(place)
                    .instant(at)
                    .text(&task.worker_id)
                    .instant(self.rules().retained_until(task, placement));
                sent.push(task.id.clone());
            }
        }
        let answers = self.run(call).await?.answers(&sent, 1, itself, |_, _, _| Ok(()))?;
        Ok(merged(checked, answers))
    }

    pub(crate) async fn get(&self, ids: Vec<Text>) -> Answers<Boxed<Task>> {
        let mut call = self.call(&scripts::GET);
        for id in &ids {
            call = call.text(id);
        }
        self.run(call).await?.answers(&ids, 1, itself, |id, answer, _| answer.leased_task(id))
    }

    pub(crate) async fn delete(&self, ids: Vec<Text>) -> Answers<()> {
        let mut call = self.call(&scripts::DELETE);
        for id in &ids {
            call = call.text(id);
        }
        self.run(call).await?.answers(&ids, 1, itself, |_, _, _| Ok(()))
    }

    pub(crate) async fn enqueue(&self, batch: Vec<Enqueue>) -> Answers<Enqueued> {
        let attempts = batch.into_iter().map(|enqueue| (enqueue, None)).collect();
        let forbidden = || Error::internal("an attempt was forbidden that has no name");
        let answers = self.try_to_enqueue(attempts).await?;
        let made =
            |answer: Result<Option<Enqueued>>| answer.and_then(|made| made.ok_or_else(forbidden));
        Ok(answers.into_iter().map(made).collect())
    }

    /// Enqueues tasks, some in an attempt that somebody may have forbidden: nothing is made of those.
    pub(crate) async fn try_to_enqueue(
        &self,
        batch: Vec<(Enqueue, Option<String>)>,
    ) -> Answers<Option<Enqueued>> {
        let checked: Vec<_> =
            batch.iter().map(|(enqueue, _)| rules::check_task(&enqueue.task)).collect();
        let mut call = self.call(&scripts::ENQUEUE);
        let mut sent: Vec<Enqueue> = Vec::new();
        for ((mut enqueue, attempt), checked) in batch.into_iter().zip(&checked) {
            if checked.is_err() {
                continue;
            }
            // The script knows when it is; all else about the new record is known here.
            self.rules().enqueue(&mut enqueue.task, enqueue.visible_at, Instant::EPOCH);
            let task = &enqueue.task;
            if !sent.last().is_some_and(|before| share_a_queue(&before.task, task)) {
                call = call
                    .text("=")
                    .text(&task.command)
                    .text(&queue_name(&task.command))
                    .text(&task.tenant_id)
                    .text(&record::new_tail(task));
            }
            if enqueue.visible_at > Instant::EPOCH {
                call = call.text("@").instant(enqueue.visible_at);
            }
            if !enqueue.idempotency_key.is_empty() {
                call = call.text("!").text(&enqueue.idempotency_key);
            }
            if let Some(attempt) = &attempt {
                call = call.text("?").text(attempt);
            }
            call = call.number(task.priority).text(&task.id).text(&record::new_head(task));
            sent.push(enqueue);
        }
        let reply = self.run(call).await?;
        let answers = reply.answers(
            &sent,
            1,
            |enqueue| &enqueue.task.id,
            |enqueue, answer, tag| match tag {
                "forbidden" => Ok(None),
                "found" => {
                    let task = answer.leased_task(&enqueue.task.id)?;
                    Ok(Some(Enqueued { task, created: false, awoke: false }))
                }
                _ => {
                    let mut task = enqueue.task.clone();
                    self.rules().enqueue(&mut task, enqueue.visible_at, answer.now());
                    Ok(Some(Enqueued { task, created: true, awoke: answer.flag()? }))
                }
            },
        )?;
        Ok(merged(checked, answers))
    }

    pub(crate) async fn update_lease(&self, batch: Vec<Extend>) -> Answers<Instant> {
        let call = self.call(&scripts::UPDATE_LEASE).leases(&batch);
        self.run(call).await?.answers(
            &batch,
            1,
            |extend| &extend.lease.task_id,
            |_, answer, _| answer.instant(),
        )
    }

    pub(crate) async fn abandon_lease(&self, batch: Vec<Lease>) -> Answers<Returned> {
        let call = self.call(&scripts::ABANDON_LEASE).leases(&batch);
        let returned = self.run(call).await?;
        returned.answers(&batch, 3, task_of, |lease, answer, _| answer.returned(&lease.task_id))
    }

    pub(crate) async fn nack(&self, batch: Vec<Nack>) -> Answers<Returned> {
        let call = self.call(&scripts::NACK).leases(&batch);
        self.run(call).await?.answers(
            &batch,
            3,
            |nack| &nack.lease.task_id,
            |nack, answer, _| answer.returned(&nack.lease.task_id),
        )
    }

    pub(crate) async fn move_due_delayed(&self, limit: u32) -> Result<Moved> {
        self.run(self.call(&scripts::MOVE_DUE_DELAYED).number(limit)).await?.moved()
    }

    pub(crate) async fn requeue_expired(&self, limit: u32) -> Result<Moved> {
        if let Err(error) = self.discover().await {
            tracing::warn!(%error, "the scan for queues of other servers stopped; it goes on later");
        }
        self.run(self.call(&scripts::REQUEUE_EXPIRED).number(limit)).await?.moved()
    }

    pub(crate) async fn queue_stats(&self, queue: Queue) -> Result<QueueStats> {
        let name = queue_name(&queue.command);
        let call = self.call(&scripts::STATS).text(&name).text(&queue.tenant_id);
        read_stats(&mut self.run(call).await?, name.as_ref().into(), queue.tenant_id)
    }

    pub(crate) async fn admin_queues(&self, tenant: Option<Text>) -> Result<Vec<QueueStats>> {
        let mut command = redis::cmd("HVALS");
        command.arg("codeq:x:queues");
        let owners = self.connection.send("admin_queues", None, &command, None).await?;
        let owners = Vec::<String>::from_redis_value(owners).map_err(|error| {
            Error::internal("the list of queues cannot be read").because(&error)
        })?;
        let mut queues: Vec<Queue> = owners.iter().filter_map(|owner| read_owner(owner)).collect();
        queues.retain(|queue| tenant.as_ref().is_none_or(|tenant| *tenant == queue.tenant_id));
        queues.sort_unstable();
        let mut stats = Vec::with_capacity(queues.len());
        for queues in queues.chunks(QUEUES_AT_ONCE) {
            let mut call = self.call(&scripts::STATS);
            for queue in queues {
                call = call.text(&queue.command).text(&queue.tenant_id);
            }
            let mut reply = self.run(call).await?;
            for queue in queues {
                let (command, tenant) = (queue.command.clone(), queue.tenant_id.clone());
                stats.push(read_stats(&mut reply, command, tenant)?);
            }
        }
        Ok(stats)
    }

    pub(crate) async fn cleanup_expired(&self, cleanup: Cleanup) -> Result<u32> {
        Ok(self.clean(&cleanup).await?.len().try_into().unwrap_or(u32::MAX))
    }

    /// Removes what is past its retention. Answers the ids.
    pub(crate) async fn clean(&self, cleanup: &Cleanup) -> Result<Vec<String>> {
        let tenant = cleanup.tenant_id.as_ref().into_option();
        let (mut removed, mut left, mut skip) = (Vec::new(), cleanup.limit, 0_i64);
        loop {
            let call = self
                .call(&scripts::CLEANUP_EXPIRED)
                .number(i64::from(tenant.is_some()))
                .text(tenant.map_or("", |tenant| tenant.as_str()))
                .instant(cleanup.before)
                .number(left)
                .number(skip);
            let mut reply = self.run(call).await?;
            left -= reply.number::<u32>()?.min(left);
            skip = reply.number()?;
            let goes_on = reply.flag()?;
            while !reply.is_empty() {
                removed.push(reply.text()?);
            }
            if !goes_on {
                return Ok(removed);
            }
        }
    }

    pub(crate) async fn redrive(&self, batch: Vec<TaskKey>) -> Answers<Returned> {
        let mut call = self.call(&scripts::REDRIVE);
        for key in &batch {
            call = call.text(&key.id).text(&key.tenant_id);
        }
        let returned = self.run(call).await?;
        returned.answers(&batch, 3, |key| &key.id, |key, answer, _| answer.returned(&key.id))
    }
}

/// Whether two new tasks are said in one group.
fn share_a_queue(one: &Task, other: &Task) -> bool {
    one.command == other.command
        && one.tenant_id == other.tenant_id
        && one.max_attempts == other.max_attempts
}

fn read_stats(reply: &mut Reply, command: Text, tenant_id: Text) -> Result<QueueStats> {
    Ok(QueueStats {
        command,
        tenant_id,
        ready: reply.number()?,
        delayed: reply.number()?,
        in_progress: reply.number()?,
        dlq: reply.number()?,
    })
}

/// Reads whose queue it is: the length of the command, the command, the tenant.
pub(crate) fn read_owner(owner: &str) -> Option<Queue> {
    let (length, rest) = owner.split_once(':')?;
    let (command, tenant_id) = rest.split_at_checked(length.parse().ok()?)?;
    Some(Queue { command: command.into(), tenant_id: tenant_id.into() })
}
