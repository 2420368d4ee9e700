//! Tasks and results.
//!
//! Most operations have the same three steps: take the record, let a rule change it, put it where the
//! rule says. [`Engine::put`] and [`Engine::insert`] are the only ways into a place, so no task is
//! ever in two, or in none.

use codeq_plugin::{
    Arrival, Batch, Boxed, Claim, Claimed, Complete, Completed, Enqueue, Error, Extend, Finish,
    Instant, Lease, Millis, Moved, Nack, Placed, Queue as QueueKey, Result, Returned, Tally, Task,
    TaskKey, TaskResult, queue_name,
    rules::{self, Jitter, Placement},
};
use rusqlite::params;

use super::{Engine, read_entry};
use crate::{
    fault::{Failure, Outcome},
    ids::{Id, Inserted},
    place::{Place, Position},
    queues::{DUE, Next, QueueId, Seq},
    rows::{self, Entry, Spot},
};

/// How many tasks are read ahead when a queue's first ones are not known.
const READ_AHEAD: i64 = 64;

/// What became of an enqueue.
pub(crate) enum Enqueueing {
    Created {
        awoke: bool,
    },
    /// There is a task with its idempotency key.
    Found(Boxed<Task>),
}

impl Engine<'_> {
    pub(crate) fn save(&mut self, placed: &Placed) -> Outcome<()> {
        rules::check_task(&placed.task)?;
        let task = placed.task.clone();
        let placement = rules::placement_of(&task, placed.visible_at);
        let look_at = Some(self.rules.retained_until(&task, placement));
        let seq = match self.find(&task.id)? {
            Some((seq, queue, place, position)) => {
                self.warm.take(seq);
                self.queues.leave(queue, place, position);
                self.sql.drop_task.execute([seq])?;
                self.sql.drop_body.execute([seq])?;
                seq
            }
            None => self.new_seq(Id::of(&task.id))?,
        };
        let (at, _) = self.insert(seq, &task, placement, look_at)?;
        self.keep(Entry { at, task });
        Ok(())
    }

    pub(crate) fn delete(&mut self, id: &str) -> Outcome<()> {
        let (seq, queue, place, position) = self.find(id)?.ok_or_else(|| rules::not_found(id))?;
        self.remove(seq, queue, place, position)
    }

    /// Puts a task into its queue. The new task is the one in `enqueue`, which this changes in place: a
    /// copy for the answer would be a good part of the work.
    pub(crate) fn enqueue(&mut self, enqueue: &mut Enqueue) -> Outcome<Enqueueing> {
        let Enqueue { task, visible_at, idempotency_key: key, .. } = enqueue;
        rules::check_task(task)?;
        if let Some(task) = self.remembered(&task.tenant_id, key)? {
            return Ok(Enqueueing::Found(task));
        }
        let id = Id::of(&task.id);
        if let Some(seq) = self.seq_of(&task.id, &id)?
            && self.find_at(seq)?.is_some()
        {
            let message = format!("there is a task {} already", task.id);
            return Err(Error::already_exists(message).into());
        }
        let placement = self.rules.enqueue(task, *visible_at, self.now);
        let seq = self.new_seq(id)?;
        // Retention is looked at in the order of `seq`, unless the task outlives those around it.
        let (at, awoke) = self.insert(seq, task, placement, None)?;
        if !key.is_empty() {
            let until = self.now + self.rules.idempotency_window;
            let tenant = task.tenant_id.as_str();
            self.sql.keep_key.execute(params![until.0, seq, tenant, key.as_str()])?;
        }
        if self.is_next(&at) && self.warm.has_room() {
            self.warm.put(Entry { at, task: task.clone() });
        }
        Ok(Enqueueing::Created { awoke })
    }

    pub(crate) fn claim(&mut self, claim: &Claim) -> Outcome<Claimed> {
        rules::check_lease(claim.lease)?;
        let (mut tasks, mut moved) = (Batch::default(), Moved::default());
        // A claim that moves fewer tasks than it may take would leave due ones behind.
        let limit = self.repair_limit.max(claim.max);
        let tenant = claim.tenant_id.as_str();
        if claim.commands.is_empty() {
            for place in DUE {
                self.advance_all(Some(tenant), place, limit, &mut moved)?;
            }
            while tasks.len() < claim.max as usize
                && let Some(queue) = self.queues.next_in_turn(tenant)
            {
                if self.deliver(queue, claim, &mut tasks)? {
                    self.queues.served(tenant, queue);
                }
            }
        } else {
            for command in &claim.commands {
                let Some(queue) = self.queues.find(tenant, command) else {
                    continue;
                };
                for place in DUE {
                    self.advance(queue, place, limit, self.now, &mut moved)?;
                }
                while tasks.len() < claim.max as usize && self.deliver(queue, claim, &mut tasks)? {}
            }
        }
        Ok(Claimed { tasks, moved: moved.reported() })
    }

    pub(crate) fn update_lease(&mut self, extend: &Extend) -> Outcome<Instant> {
        let (rules, now) = (self.rules, self.now);
        let Extend { lease, by } = extend;
        let (entry, _) = self.change(&lease.task_id, |task| rules.extend(task, lease, *by, now))?;
        self.keep(entry);
        Ok(now + *by)
    }

    pub(crate) fn abandon_lease(&mut self, lease: &Lease) -> Outcome<Returned> {
        let (rules, now) = (self.rules, self.now);
        let changed = self.change(&lease.task_id, |task| rules.abandon(task, lease, now))?;
        Ok(self.returned(changed))
    }

    pub(crate) fn nack(&mut self, nack: &Nack) -> Outcome<Returned> {
        let (rules, now) = (self.rules, self.now);
        let Nack { lease, delay, reason } = nack;
        let changed = self.change(&lease.task_id, |task| {
            let delay = delay.as_ref().into_option().copied();
            rules.nack(task, lease, delay, reason, Jitter::random(), now)
        })?;
        Ok(self.returned(changed))
    }

    pub(crate) fn redrive(&mut self, key: &TaskKey) -> Outcome<Returned> {
        let (rules, now) = (self.rules, self.now);
        let changed = self.change(&key.id, |task| {
            if task.tenant_id != key.tenant_id {
                return Err(rules::not_found(&key.id));
            }
            rules.redrive(task, now)
        })?;
        Ok(self.returned(changed))
    }

    /// Makes delayed tasks claimable, or takes back those whose lease has run out.
    pub(crate) fn repair(&mut self, place: Place, limit: u32) -> Outcome<Moved> {
        let mut moved = Moved::default();
        self.advance_all(None, place, limit, &mut moved)?;
        let next = self.queues.first_alarm(None, place).map(|(at, _)| at);
        // An alarm that was not looked at yet since the store was opened rings at once.
        moved.next = next.filter(|at| at.0 != i64::MIN).into();
        Ok(moved)
    }

    pub(crate) fn save_result(&mut self, result: &TaskResult) -> Outcome<()> {
        let found = self.find(&result.task_id)?;
        let (seq, ..) = found.ok_or_else(|| rules::not_found(&result.task_id))?;
        Ok(self.keep_result(seq, result)?)
    }

    pub(crate) fn complete(&mut self, complete: &Complete) -> Outcome<Completed> {
        let Complete { lease, result } = complete;
        if result.task_id != lease.task_id {
            let message = format!(
                "the result is of task {}, the lease of task {}",
                result.task_id, lease.task_id
            );
            return Err(Error::invalid_argument(message).into());
        }
        let (rules, now) = (self.rules, self.now);
        let (entry, _) = self.change(&lease.task_id, |task| {
            let placement = rules.complete(task, lease, result.status, &result.error, now)?;
            task.result_key = task.id.clone();
            Ok(placement)
        })?;
        self.keep_result(entry.at.seq, result)?;
        Ok(Completed { task: self.keep(entry) })
    }

    pub(crate) fn finish_task(&mut self, finish: &Finish) -> Outcome<()> {
        let now = self.now;
        let (entry, _) = self.change(&finish.task_id, |task| {
            let placement = rules::finish(task, finish.status, &finish.error, now)?;
            task.result_key = finish.result_key.clone();
            Ok(placement)
        })?;
        self.keep(entry);
        Ok(())
    }

    /// Mends a task whose lease outlived its worker.
    pub(crate) fn release(&mut self, id: &str) -> Outcome<()> {
        let mut entry = self.take_by_id(id)?;
        if let Some(placement) = self.rules.release_lease(&mut entry.task, self.now) {
            self.put(&mut entry, placement)?;
        }
        self.keep(entry);
        Ok(())
    }

    /// Removes those of some tasks whose retention had ended by then, and lets the others be looked
    /// at again when it has. Answers how many it removed.
    pub(crate) fn retire(&mut self, seqs: &[Seq], before: Instant) -> Outcome<u32> {
        let mut removed = 0;
        for &seq in seqs {
            let mut entry = match self.take(seq) {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                // It is up to an operator what becomes of it.
                Err(Failure::Refused(error)) => {
                    if let Some((queue, place, position)) = self.place_of(seq)? {
                        self.set_aside(seq, queue, place, position, &error)?;
                    }
                    continue;
                }
                Err(broken) => return Err(broken),
            };
            let placement = match entry.at.place {
                Place::Delayed => Placement::Delayed(Instant(entry.at.position.rank)),
                Place::Leased => Placement::Leased(Instant(entry.at.position.rank)),
                _ => Placement::Done,
            };
            let until = self.rules.retained_until(&entry.task, placement);
            if until <= before {
                self.remove(seq, entry.at.queue, entry.at.place, entry.at.position)?;
                removed += 1;
            } else {
                if entry.at.look_at != Some(until) {
                    self.sql.look_at.execute(params![seq, until.0])?;
                    entry.at.look_at = Some(until);
                }
                self.keep(entry);
            }
        }
        // The keys go with the tasks: a few of the oldest at each step.
        self.sql.forget_keys.execute(params![self.now.0, 2 * seqs.len().max(50) as i64])?;
        Ok(removed)
    }

    /// Takes a task's record, lets a rule change it, and puts it where the rule says. Answers the
    /// record, and whether its queue had no claimable task before and has one now.
    fn change(
        &mut self,
        id: &str,
        rule: impl FnOnce(&mut Task) -> Result<Placement>,
    ) -> Outcome<(Entry, bool)> {
        let mut entry = self.take_by_id(id)?;
        match rule(&mut entry.task) {
            Ok(placement) => {
                let awoke = self.put(&mut entry, placement)?;
                Ok((entry, awoke))
            }
            Err(refusal) => {
                self.keep(entry);
                Err(refusal.into())
            }
        }
    }

    /// Moves a task to where a rule placed it. Answers whether its queue had no claimable task before
    /// and has one now.
    fn put(&mut self, entry: &mut Entry, placement: Placement) -> Outcome<bool> {
        let Entry { at, task } = entry;
        self.queues.leave(at.queue, at.place, at.position);
        let (place, rank) = Place::of(task, placement);
        at.place = place;
        at.position = Position { rank, arrival: self.number()? };
        let Spot { seq, queue, position, .. } = *at;
        self.sql.move_task.execute(params![
            seq,
            place.number(),
            position.rank,
            position.arrival,
            task.updated_at.0,
            rows::status(task.status),
            rows::location(task.last_known_location),
            task.attempts,
            rows::instant(&task.lease_until),
            task.worker_id.as_str(),
            task.error.as_str(),
            task.result_key.as_str(),
        ])?;
        let until = self.rules.retained_until(task, placement);
        if at.look_at.is_some_and(|look_at| until < look_at) {
            self.sql.look_at.execute(params![seq, until.0])?;
            at.look_at = Some(until);
        }
        Ok(self.queues.arrive(queue, place, position, seq))
    }

    /// Writes a whole task. Answers where it is, and whether its queue had no claimable task before and has
    /// one now.
    fn insert(
        &mut self,
        seq: Seq,
        task: &Task,
        placement: Placement,
        look_at: Option<Instant>,
    ) -> Outcome<(Spot, bool)> {
        let queue = self.queues.find_or_make(&task.tenant_id, &task.command);
        let (place, rank) = Place::of(task, placement);
        let position = Position { rank, arrival: self.number()? };
        self.sql.add_task.execute(params![
            seq,
            queue,
            place.number(),
            position.rank,
            position.arrival,
            task.created_at.0,
            task.updated_at.0,
            look_at.map(|at| at.0),
            rows::status(task.status),
            rows::location(task.last_known_location),
            task.attempts,
            rows::instant(&task.lease_until),
            task.id.as_str(),
            task.worker_id.as_str(),
            task.error.as_str(),
            task.result_key.as_str(),
        ])?;
        self.sql.add_body.execute(params![
            seq,
            task.command.as_str(),
            task.priority,
            task.max_attempts,
            task.webhook.as_str(),
            task.trace_parent.as_str(),
            task.trace_state.as_str(),
            rows::extensions(&task.extensions),
            task.payload.as_str(),
        ])?;
        let awoke = self.queues.arrive(queue, place, position, seq);
        Ok((Spot { seq, queue, place, position, look_at }, awoke))
    }

    /// A number for a new task, under which its id is found.
    fn new_seq(&mut self, id: Id) -> Outcome<Seq> {
        let seq = self.number()?;
        let before = self.ids.insert(id.clone(), seq);
        self.new_ids.push(Inserted { id, before });
        Ok(seq)
    }

    fn remove(
        &mut self,
        seq: Seq,
        queue: QueueId,
        place: Place,
        position: Position,
    ) -> Outcome<()> {
        self.warm.take(seq);
        self.queues.leave(queue, place, position);
        self.sql.drop_task.execute([seq])?;
        self.sql.drop_body.execute([seq])?;
        self.sql.drop_result.execute([seq])?;
        self.chores.id_was_left_behind();
        Ok(())
    }

    /// Where the task with an id is, be its record readable or not.
    fn find(&mut self, id: &str) -> Outcome<Option<(Seq, QueueId, Place, Position)>> {
        match self.seq(id)? {
            Some(seq) => self.find_at(seq),
            None => Ok(None),
        }
    }

    /// Where the task with a number is.
    fn find_at(&mut self, seq: Seq) -> Outcome<Option<(Seq, QueueId, Place, Position)>> {
        if let Some(entry) = self.warm.entries.get(&seq) {
            return Ok(Some((seq, entry.at.queue, entry.at.place, entry.at.position)));
        }
        let placed = self.place_of(seq)?;
        Ok(placed.map(|(queue, place, position)| (seq, queue, place, position)))
    }

    fn place_of(&mut self, seq: Seq) -> rusqlite::Result<Option<(QueueId, Place, Position)>> {
        let mut rows = self.sql.place_of.query([seq])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let place = Place::of_number(row.get(1)?).unwrap_or(Place::Unreadable);
        let position = Position { rank: row.get(2)?, arrival: row.get(3)? };
        Ok(Some((row.get(0)?, place, position)))
    }

    fn keep_result(&mut self, seq: Seq, result: &TaskResult) -> rusqlite::Result<()> {
        let artifacts = rows::json(&result.artifacts);
        let extensions = rows::extensions(&result.extensions);
        let columns = params![
            seq,
            rows::status(result.status),
            result.completed_at.0,
            result.error.as_str(),
            artifacts,
            extensions,
            result.result.as_str(),
        ];
        // Seldom is there one already.
        if self.sql.add_result.execute(columns)? == 0 {
            self.sql.drop_result.execute([seq])?;
            self.sql.add_result.execute(columns)?;
        }
        Ok(())
    }

    fn returned(&mut self, (entry, awoke): (Entry, bool)) -> Returned {
        let delay = match entry.at.place {
            Place::Delayed => Instant(entry.at.position.rank).since(self.now),
            _ => Millis::ZERO,
        };
        Returned { task: self.keep(entry), delay, awoke }
    }

    /// The task that has an idempotency key already. A key whose task was deleted is free again.
    fn remembered(&mut self, tenant: &str, key: &str) -> Outcome<Option<Boxed<Task>>> {
        if key.is_empty() {
            return Ok(None);
        }
        let mut rows = self.sql.find_key.query([tenant, key])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let (seq, until): (Seq, i64) = (row.get(0)?, row.get(1)?);
        drop(rows);
        if Instant(until) <= self.now {
            return Ok(None);
        }
        let Some(entry) = self.take(seq)? else {
            return Ok(None);
        };
        let same = entry.task.tenant_id == tenant;
        let task = self.keep(entry);
        Ok(same.then_some(task))
    }

    /// Hands the first claimable task of a queue to a worker.
    fn deliver(
        &mut self,
        queue: QueueId,
        claim: &Claim,
        to: &mut Batch<Boxed<Task>>,
    ) -> Outcome<bool> {
        while let Some((position, seq)) = self.first_ready(queue)? {
            let Some(mut entry) = self.readable(seq, queue, Place::Ready, position)? else {
                continue;
            };
            let placement =
                self.rules.claim(&mut entry.task, &claim.worker_id, claim.lease, self.now);
            self.put(&mut entry, placement)?;
            to.push(self.keep(entry));
            return Ok(true);
        }
        Ok(false)
    }

    fn first_ready(&mut self, queue: QueueId) -> Outcome<Option<(Position, Seq)>> {
        match self.queues.first_ready(queue) {
            Next::None => return Ok(None),
            Next::Task(position, seq) => return Ok(Some((position, seq))),
            Next::Unknown => {}
        }
        let first = if self.damage.is_ahead {
            self.positions_ahead(queue)?
        } else {
            let first = self.read_ahead(queue);
            first.inspect_err(|error| self.damage.was_met_ahead(error))?
        };
        let next = first.first().copied();
        if next.is_none() {
            tracing::warn!("queue {queue} has fewer claimable tasks than were counted");
            self.queues.has_none_ready(queue);
        }
        self.queues.know(queue, first);
        Ok(next)
    }

    /// The first claimable tasks of a queue, whose records are kept in memory.
    fn read_ahead(&mut self, queue: QueueId) -> rusqlite::Result<Vec<(Position, Seq)>> {
        let mut first = Vec::new();
        let mut rows = self.sql.first_ready.query([queue, READ_AHEAD])?;
        while let Some(row) = rows.next()? {
            let position = Position { rank: row.get(4)?, arrival: row.get(5)? };
            first.push((position, row.get(0)?));
            // One that cannot be read is found to be so when its turn comes.
            if self.warm.has_room()
                && let Ok(entry) = read_entry(&self.queues, row)
            {
                self.warm.put(entry);
            }
        }
        Ok(first)
    }

    /// The same without a look at the records.
    fn positions_ahead(&mut self, queue: QueueId) -> rusqlite::Result<Vec<(Position, Seq)>> {
        let ready = params![queue, Place::Ready.number(), i64::MAX, READ_AHEAD];
        let mut rows = self.sql.due.query(ready)?;
        let mut first = Vec::new();
        while let Some(row) = rows.next()? {
            first.push((Position { rank: row.get(1)?, arrival: row.get(2)? }, row.get(0)?));
        }
        Ok(first)
    }

    /// The record of a task at the front of a place. One that cannot be read is set aside, so that it
    /// does not stop the others.
    fn readable(
        &mut self,
        seq: Seq,
        queue: QueueId,
        place: Place,
        position: Position,
    ) -> Outcome<Option<Entry>> {
        match self.take(seq) {
            Ok(Some(entry)) => return Ok(Some(entry)),
            Ok(None) => {
                tracing::warn!("task {seq} of the file is gone");
                self.queues.leave(queue, place, position);
            }
            Err(Failure::Refused(error)) => {
                self.set_aside(seq, queue, place, position, &error)?;
            }
            Err(broken) => return Err(broken),
        }
        Ok(None)
    }

    fn set_aside(
        &mut self,
        seq: Seq,
        queue: QueueId,
        place: Place,
        position: Position,
        error: &Error,
    ) -> rusqlite::Result<()> {
        tracing::error!("{error}; it is set aside until somebody mends it");
        self.queues.leave(queue, place, position);
        let aside = Position { rank: 0, arrival: self.number()? };
        self.sql.set_aside.execute([seq, aside.arrival])?;
        self.queues.arrive(queue, Place::Unreadable, aside, seq);
        Ok(())
    }

    /// Moves what has come due in all queues whose alarm has rung, the earliest first.
    fn advance_all(
        &mut self,
        tenant: Option<&str>,
        place: Place,
        limit: u32,
        moved: &mut Moved,
    ) -> Outcome<()> {
        let mut left = limit;
        while left > 0
            && let Some((at, queue)) = self.queues.first_alarm(tenant, place)
            && at <= self.now
        {
            // As far as the next queue's alarm, so that the earliest of all come first.
            let next = self.queues.alarm_after(tenant, place, queue);
            let until = next.map_or(self.now, |next| next.min(self.now)).max(at);
            left -= self.advance(queue, place, left, until, moved)?;
        }
        Ok(())
    }

    /// Moves what has come due in a queue by `until`, which is not later than now, and sets its alarm
    /// again. Answers how many tasks that were.
    fn advance(
        &mut self,
        queue: QueueId,
        place: Place,
        limit: u32,
        until: Instant,
        moved: &mut Moved,
    ) -> Outcome<u32> {
        if !self.queues.rings(queue, place, until) {
            return Ok(0);
        }
        let mut due = Vec::new();
        let mut rows = self.sql.due.query(params![queue, place.number(), until.0, limit])?;
        while let Some(row) = rows.next()? {
            due.push((row.get(0)?, Position { rank: row.get(1)?, arrival: row.get(2)? }));
        }
        drop(rows);
        let mut count = 0;
        for (seq, position) in due {
            let Some(mut entry) = self.readable(seq, queue, place, position)? else {
                continue;
            };
            let placement = match place {
                Place::Leased => self.rules.expire(&mut entry.task, Jitter::random(), self.now),
                _ => self.rules.come_due(&mut entry.task, self.now),
            };
            let awoke = self.put(&mut entry, placement)?;
            report(&entry, place, awoke, moved);
            self.keep(entry);
            count += 1;
        }
        moved.count += count;
        let mut rows = self.sql.first_rank.query(params![queue, place.number()])?;
        let next: Option<i64> = rows.next()?.map(|row| row.get(0)).transpose()?;
        drop(rows);
        self.queues.reset_alarm(queue, place, next.map(Instant));
        Ok(count)
    }
}

fn report(entry: &Entry, from: Place, awoke: bool, moved: &mut Moved) {
    let task = &entry.task;
    let same = |queue: &QueueKey| {
        queue.tenant_id == task.tenant_id && queue_name(&queue.command) == queue_name(&task.command)
    };
    let key = || QueueKey { tenant_id: task.tenant_id.clone(), command: task.command.clone() };
    if from == Place::Leased {
        match moved.expired.last_mut().filter(|tally| same(&tally.queue)) {
            Some(tally) => tally.count += 1,
            None => moved.expired.push(Tally { queue: key(), count: 1 }),
        }
    }
    match entry.at.place {
        Place::Ready => match moved.arrivals.last_mut().filter(|last| same(&last.queue)) {
            Some(arrival) => {
                arrival.count += 1;
                arrival.awoke |= awoke;
            }
            None => moved.arrivals.push(Arrival { queue: key(), count: 1, awoke }),
        },
        Place::Dead => moved.dead.push(task.clone()),
        _ => {}
    }
}
