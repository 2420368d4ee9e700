//! The tasks and their queues.
//!
//! Every operation has the same three steps: look the task up, let a rule change the record, put it
//! where the rule says it belongs. [`Tasks::place`] is the only way in and out of a place, so no
//! task is ever in two, or in none.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    ops::Bound::{Excluded, Included, Unbounded},
};

use codeq_plugin::{
    Arrival, Batch, Boxed, Claim, Claimed, Cleanup, Complete, Completed, Enqueue, Enqueued, Error,
    Extend, Finish, Instant, Lease, Millis, Moved, Nack, Placed, Queue as QueueKey, QueueStats,
    Result, Returned, Tally, Task, TaskKey, TaskResult, Text, queue_name,
    rules::{self, Jitter, Placement, Rules},
};
use hashbrown::HashMap;
use slab::Slab;

use crate::{
    alarms::Alarms,
    queue::{Place, Position, Queue, Slot},
};

/// All tasks of all tenants.
pub(crate) struct Tasks {
    rules: Rules,
    repair_limit: u32,
    pub(crate) entries: Slab<Entry>,
    by_id: HashMap<Text, Slot>,
    pub(crate) queues: Slab<Queue>,
    pub(crate) tenants: Slab<Tenant>,
    pub(crate) tenant_names: BTreeMap<Text, TenantId>,
    alarms: Due<Alarms<TenantId>>,
    arrivals: u64,
}

type QueueId = usize;
type TenantId = usize;

/// A task, and where it is.
pub(crate) struct Entry {
    pub(crate) task: Boxed<Task>,
    result: Option<Boxed<TaskResult>>,
    /// When its retention is looked at, at the latest.
    looked_at: Instant,
    queue: QueueId,
    place: Place,
    position: Position,
    pub(crate) placement: Placement,
    /// Tells this task from another that had the slot before.
    serial: u64,
}

#[derive(Default)]
pub(crate) struct Tenant {
    pub(crate) name: Text,
    pub(crate) queues: BTreeMap<Text, QueueId>,
    /// The queues with claimable tasks, for workers who take any command.
    ready: BTreeSet<QueueId>,
    /// The queue that such a worker was served from last; the next one is served first now.
    served: QueueId,
    alarms: Due<Alarms<QueueId>>,
    /// When to look whether a task's retention has ended: no task later than that, some earlier.
    retention: BinaryHeap<Reverse<(Instant, Slot, u64)>>,
    idempotency: HashMap<Text, Remembered>,
    /// The idempotency keys in the order in which they are forgotten.
    forgetting: VecDeque<(Instant, Text)>,
}

/// The first task that was enqueued with an idempotency key.
struct Remembered {
    task_id: Text,
    until: Instant,
}

/// One of each for the things that come due.
#[derive(Default)]
struct Due<T> {
    delayed: T,
    leased: T,
    retention: T,
}

/// How far something that comes due is moved on.
#[derive(Clone, Copy)]
struct Step {
    place: Place,
    /// At most how many tasks.
    limit: u32,
    /// Those that are due by then, which is not later than now.
    until: Instant,
    now: Instant,
}

impl<T> Due<T> {
    fn at(&mut self, place: Place) -> Option<&mut T> {
        match place {
            Place::Delayed => Some(&mut self.delayed),
            Place::Leased => Some(&mut self.leased),
            _ => None,
        }
    }
}

impl Tasks {
    pub(crate) fn new(rules: Rules, repair_limit: u32) -> Tasks {
        Tasks {
            rules,
            repair_limit: repair_limit.max(1),
            entries: Slab::new(),
            by_id: HashMap::new(),
            queues: Slab::new(),
            tenants: Slab::new(),
            tenant_names: BTreeMap::new(),
            alarms: Due::default(),
            arrivals: 0,
        }
    }

    pub(crate) fn save(&mut self, placed: Placed) -> Result<()> {
        rules::check_task(&placed.task)?;
        let before = self.by_id.get(placed.task.id.as_str()).copied();
        let result = before.and_then(|slot| self.remove(slot).result);
        let placement = rules::placement_of(&placed.task, placed.visible_at);
        let (slot, _) = self.insert(placed.task, placement);
        self.entries[slot].result = result;
        Ok(())
    }

    pub(crate) fn get(&self, id: &str) -> Result<Boxed<Task>> {
        Ok(self.entries[self.slot(id)?].task.clone())
    }

    pub(crate) fn delete(&mut self, id: &str) -> Result<()> {
        let slot = self.slot(id)?;
        self.remove(slot);
        Ok(())
    }

    pub(crate) fn enqueue(&mut self, enqueue: Enqueue, now: Instant) -> Result<Enqueued> {
        let Enqueue { mut task, visible_at, idempotency_key: key, .. } = enqueue;
        rules::check_task(&task)?;
        if let Some(earlier) = self.remembered(&task.tenant_id, &key, now) {
            return Ok(Enqueued { task: earlier.clone(), created: false, awoke: false });
        }
        if self.by_id.contains_key(task.id.as_str()) {
            return Err(Error::already_exists(format!("there is a task {} already", task.id)));
        }
        let placement = self.rules.enqueue(&mut task, visible_at, now);
        let answer = task.clone();
        let (slot, awoke) = self.insert(task, placement);
        if !key.is_empty() {
            self.remember(slot, key, now + self.rules.idempotency_window);
        }
        Ok(Enqueued { task: answer, created: true, awoke })
    }

    pub(crate) fn claim(&mut self, claim: &Claim, now: Instant) -> Result<Claimed> {
        rules::check_lease(claim.lease)?;
        let (mut tasks, mut moved) = (Batch::default(), Moved::default());
        let Some(&tenant) = self.tenant_names.get(claim.tenant_id.as_str()) else {
            return Ok(Claimed::default());
        };
        // A claim that moves fewer tasks than it may take would leave due ones behind.
        let due = |place| Step { place, limit: self.repair_limit.max(claim.max), until: now, now };
        let steps = [due(Place::Delayed), due(Place::Leased)];
        if claim.commands.is_empty() {
            for step in steps {
                self.advance_tenant(tenant, step, &mut moved);
            }
            while let Some(queue) = self.next_in_turn(tenant) {
                if !self.deliver(queue, claim, now, &mut tasks) {
                    break;
                }
                self.tenants[tenant].served = queue;
            }
        } else {
            for command in &claim.commands {
                let Some(&queue) = self.tenants[tenant].queues.get(&*queue_name(command)) else {
                    continue;
                };
                for step in steps {
                    self.advance(queue, step, &mut moved);
                }
                while self.deliver(queue, claim, now, &mut tasks) {}
            }
        }
        Ok(Claimed { tasks, moved: moved.reported() })
    }

    pub(crate) fn update_lease(&mut self, extend: &Extend, now: Instant) -> Result<Instant> {
        let slot = self.slot(&extend.lease.task_id)?;
        let task = &mut self.entries[slot].task;
        let placement = self.rules.extend(task, &extend.lease, extend.by, now)?;
        self.place(slot, placement);
        Ok(now + extend.by)
    }

    pub(crate) fn abandon_lease(&mut self, lease: &Lease, now: Instant) -> Result<Returned> {
        let slot = self.slot(&lease.task_id)?;
        let placement = self.rules.abandon(&mut self.entries[slot].task, lease, now)?;
        Ok(self.returned(slot, placement, now))
    }

    pub(crate) fn nack(&mut self, nack: &Nack, now: Instant) -> Result<Returned> {
        let slot = self.slot(&nack.lease.task_id)?;
        let placement = self.rules.nack(
            &mut self.entries[slot].task,
            &nack.lease,
            nack.delay.into_option(),
            &nack.reason,
            Jitter::random(),
            now,
        )?;
        Ok(self.returned(slot, placement, now))
    }

    pub(crate) fn redrive(&mut self, key: &TaskKey, now: Instant) -> Result<Returned> {
        let slot = self.slot(&key.id)?;
        let task = &mut self.entries[slot].task;
        if task.tenant_id != key.tenant_id {
            return Err(rules::not_found(&key.id));
        }
        let placement = self.rules.redrive(task, now)?;
        Ok(self.returned(slot, placement, now))
    }

    pub(crate) fn move_due_delayed(&mut self, limit: u32, now: Instant) -> Moved {
        self.advance_all(Place::Delayed, limit, now)
    }

    pub(crate) fn requeue_expired(&mut self, limit: u32, now: Instant) -> Moved {
        self.advance_all(Place::Leased, limit, now)
    }

    pub(crate) fn queue_stats(&self, key: &QueueKey) -> QueueStats {
        let name = queue_name(&key.command);
        let tenant = self.tenant_names.get(key.tenant_id.as_str()).map(|id| &self.tenants[*id]);
        let queue = tenant.and_then(|tenant| tenant.queues.get(&*name)).map(|id| &self.queues[*id]);
        match queue {
            Some(queue) => queue.stats(&key.tenant_id),
            None => QueueStats {
                command: Text::from(&*name),
                tenant_id: key.tenant_id.clone(),
                ..QueueStats::default()
            },
        }
    }

    pub(crate) fn admin_queues(&self, tenant: Option<&str>) -> Vec<QueueStats> {
        let names = match tenant {
            Some(tenant) => self.tenant_names.range::<str, _>((Included(tenant), Included(tenant))),
            None => self.tenant_names.range::<str, _>((Unbounded, Unbounded)),
        };
        names
            .flat_map(|(name, id)| {
                self.tenants[*id].queues.values().map(|queue| self.queues[*queue].stats(name))
            })
            .collect()
    }

    pub(crate) fn cleanup_expired(&mut self, cleanup: &Cleanup, now: Instant) -> u32 {
        let mut removed = 0;
        if let Some(name) = cleanup.tenant_id.as_ref().into_option() {
            if let Some(&tenant) = self.tenant_names.get(name.as_str()) {
                removed = self.clean_tenant(tenant, cleanup.before, cleanup.limit, now);
            }
            return removed;
        }
        let mut cleaned = Vec::new();
        while removed < cleanup.limit
            && let Some(tenant) = self.alarms.retention.ring(cleanup.before)
        {
            removed += self.clean_tenant(tenant, cleanup.before, cleanup.limit - removed, now);
            cleaned.push(tenant);
        }
        for tenant in cleaned {
            self.set_retention_alarm(tenant);
        }
        removed
    }

    pub(crate) fn save_result(&mut self, result: Boxed<TaskResult>) -> Result<()> {
        let slot = self.slot(&result.task_id)?;
        self.entries[slot].result = Some(result);
        Ok(())
    }

    pub(crate) fn get_result(&self, task_id: &str) -> Result<Boxed<TaskResult>> {
        let entry = &self.entries[self.slot(task_id)?];
        let missing = || Error::not_found(format!("task {task_id} has no result"));
        entry.result.clone().ok_or_else(missing)
    }

    pub(crate) fn complete(&mut self, complete: Complete, now: Instant) -> Result<Completed> {
        let Complete { lease, result } = complete;
        if result.task_id != lease.task_id {
            return Err(Error::invalid_argument(format!(
                "the result is of task {}, the lease of task {}",
                result.task_id, lease.task_id
            )));
        }
        let slot = self.slot(&lease.task_id)?;
        let entry = &mut self.entries[slot];
        let placement =
            self.rules.complete(&mut entry.task, &lease, result.status, &result.error, now)?;
        entry.task.result_key = entry.task.id.clone();
        entry.result = Some(result);
        let task = entry.task.clone();
        self.place(slot, placement);
        Ok(Completed { task })
    }

    pub(crate) fn finish(&mut self, finish: &Finish, now: Instant) -> Result<()> {
        let slot = self.slot(&finish.task_id)?;
        let task = &mut self.entries[slot].task;
        let placement = rules::finish(task, finish.status, &finish.error, now)?;
        task.result_key = finish.result_key.clone();
        self.place(slot, placement);
        Ok(())
    }

    pub(crate) fn release(&mut self, id: &str, now: Instant) -> Result<()> {
        let slot = self.slot(id)?;
        if let Some(placement) = self.rules.release_lease(&mut self.entries[slot].task, now) {
            self.place(slot, placement);
        }
        Ok(())
    }

    fn slot(&self, id: &str) -> Result<Slot> {
        self.by_id.get(id).copied().ok_or_else(|| rules::not_found(id))
    }

    /// Takes a new task in. Answers its slot, and whether its queue had no claimable task before.
    fn insert(&mut self, task: Boxed<Task>, placement: Placement) -> (Slot, bool) {
        let queue = self.queue_of(&task);
        let tenant = self.queues[queue].tenant;
        self.arrivals += 1;
        let serial = self.arrivals;
        let retained_until = self.rules.retained_until(&task, placement);
        let (place, rank) = Place::of(&task, placement);
        let position = Position { rank, arrival: serial };
        let id = task.id.clone();
        let entry = Entry {
            task,
            result: None,
            looked_at: retained_until,
            queue,
            place,
            position,
            placement,
            serial,
        };
        let slot = self.entries.insert(entry);
        self.by_id.insert(id, slot);
        self.tenants[tenant].retention.push(Reverse((retained_until, slot, serial)));
        self.alarms.retention.set(tenant, retained_until);
        (slot, self.arrive(slot))
    }

    /// Moves a task to where a rule placed it. Answers whether its queue had no claimable task
    /// before and has one now.
    fn place(&mut self, slot: Slot, placement: Placement) -> bool {
        self.depart(slot);
        self.arrivals += 1;
        let entry = &mut self.entries[slot];
        let (place, rank) = Place::of(&entry.task, placement);
        entry.place = place;
        entry.placement = placement;
        entry.position = Position { rank, arrival: self.arrivals };
        let retained_until = self.rules.retained_until(&entry.task, placement);
        if retained_until < entry.looked_at {
            entry.looked_at = retained_until;
            let (queue, serial) = (entry.queue, entry.serial);
            let tenant = self.queues[queue].tenant;
            self.tenants[tenant].retention.push(Reverse((retained_until, slot, serial)));
            self.alarms.retention.set(tenant, retained_until);
        }
        self.arrive(slot)
    }

    fn depart(&mut self, slot: Slot) {
        let Entry { queue: id, place, position, .. } = self.entries[slot];
        let queue = &mut self.queues[id];
        queue.take(place, position);
        if place == Place::Ready && queue.is_empty(Place::Ready) {
            self.tenants[queue.tenant].ready.remove(&id);
        }
    }

    fn arrive(&mut self, slot: Slot) -> bool {
        let Entry { queue: id, place, position, .. } = self.entries[slot];
        let queue = &mut self.queues[id];
        let awoke = place == Place::Ready && queue.is_empty(Place::Ready);
        queue.put(place, position, slot);
        let tenant = queue.tenant;
        if awoke {
            self.tenants[tenant].ready.insert(id);
        }
        self.set_alarm(id, place, Instant(position.rank));
        awoke
    }

    fn remove(&mut self, slot: Slot) -> Entry {
        self.depart(slot);
        let entry = self.entries.remove(slot);
        self.by_id.remove(entry.task.id.as_str());
        self.drop_if_deserted(entry.queue);
        entry
    }

    /// Queues and tenants come with their first task, and go with their last.
    fn drop_if_deserted(&mut self, id: QueueId) {
        if !self.queues[id].is_deserted() {
            return;
        }
        let Queue { tenant: tenant_id, name, .. } = self.queues.remove(id);
        self.tenants[tenant_id].queues.remove(&name);
        self.drop_tenant_if_deserted(tenant_id);
    }

    fn drop_tenant_if_deserted(&mut self, id: TenantId) {
        let deserted = |tenant: &Tenant| tenant.queues.is_empty() && tenant.idempotency.is_empty();
        if self.tenants.get(id).is_some_and(deserted) {
            let tenant = self.tenants.remove(id);
            self.tenant_names.remove(&tenant.name);
        }
    }

    fn queue_of(&mut self, task: &Task) -> QueueId {
        let tenant_id = match self.tenant_names.get(task.tenant_id.as_str()) {
            Some(&id) => id,
            None => {
                let name = task.tenant_id.clone();
                let id = self.tenants.insert(Tenant { name: name.clone(), ..Tenant::default() });
                self.tenant_names.insert(name, id);
                id
            }
        };
        let name = queue_name(&task.command);
        if let Some(&id) = self.tenants[tenant_id].queues.get(&*name) {
            return id;
        }
        let name = Text::from(name.as_ref());
        let id = self.queues.insert(Queue::new(tenant_id, name.clone()));
        self.tenants[tenant_id].queues.insert(name, id);
        id
    }

    fn returned(&mut self, slot: Slot, placement: Placement, now: Instant) -> Returned {
        let task = self.entries[slot].task.clone();
        let awoke = self.place(slot, placement);
        let delay = match placement {
            Placement::Delayed(at) => at.since(now),
            _ => Millis::ZERO,
        };
        Returned { task, delay, awoke }
    }

    /// Hands the first claimable task of a queue to a worker who may have one more.
    fn deliver(
        &mut self,
        queue: QueueId,
        claim: &Claim,
        now: Instant,
        to: &mut Batch<Boxed<Task>>,
    ) -> bool {
        if to.len() >= claim.max as usize {
            return false;
        }
        let Some(slot) = self.queues[queue].first(Place::Ready) else {
            return false;
        };
        let task = &mut self.entries[slot].task;
        let placement = self.rules.claim(task, &claim.worker_id, claim.lease, now);
        to.push(task.clone());
        self.place(slot, placement);
        true
    }

    /// The queue with claimable tasks whose turn it is.
    fn next_in_turn(&self, tenant: TenantId) -> Option<QueueId> {
        let Tenant { ready, served, .. } = &self.tenants[tenant];
        ready.range((Excluded(*served), Unbounded)).next().or_else(|| ready.first()).copied()
    }

    fn set_alarm(&mut self, id: QueueId, place: Place, at: Instant) {
        let tenant = self.queues[id].tenant;
        if let Some(alarms) = self.tenants[tenant].alarms.at(place)
            && alarms.set(id, at)
            && let Some(alarms) = self.alarms.at(place)
        {
            alarms.set(tenant, at);
        }
    }

    /// Moves what has come due in a queue. Answers how many tasks that were.
    fn advance(&mut self, id: QueueId, step: Step, moved: &mut Moved) -> u32 {
        let Step { place, limit, until, now } = step;
        let mut count = 0;
        while count < limit
            && self.queues[id].next_due(place).is_some_and(|due| due <= until)
            && let Some(slot) = self.queues[id].first(place)
        {
            let task = &mut self.entries[slot].task;
            let placement = match place {
                Place::Leased => self.rules.expire(task, Jitter::random(), now),
                _ => self.rules.come_due(task, now),
            };
            let awoke = self.place(slot, placement);
            self.report(slot, place, placement, awoke, moved);
            count += 1;
        }
        moved.count += count;
        count
    }

    fn report(
        &self,
        slot: Slot,
        from: Place,
        placement: Placement,
        awoke: bool,
        moved: &mut Moved,
    ) {
        let task = &self.entries[slot].task;
        let same = |queue: &QueueKey| {
            queue.tenant_id == task.tenant_id
                && queue_name(&queue.command) == queue_name(&task.command)
        };
        let key = || QueueKey { tenant_id: task.tenant_id.clone(), command: task.command.clone() };
        if from == Place::Leased {
            match moved.expired.last_mut().filter(|tally| same(&tally.queue)) {
                Some(tally) => tally.count += 1,
                None => moved.expired.push(Tally { queue: key(), count: 1 }),
            }
        }
        match placement {
            Placement::Ready => match moved.arrivals.last_mut().filter(|last| same(&last.queue)) {
                Some(arrival) => {
                    arrival.count += 1;
                    arrival.awoke |= awoke;
                }
                None => moved.arrivals.push(Arrival { queue: key(), count: 1, awoke }),
            },
            Placement::Dead => moved.dead.push(task.clone()),
            _ => {}
        }
    }

    fn advance_all(&mut self, place: Place, limit: u32, now: Instant) -> Moved {
        let mut moved = Moved::default();
        while moved.count < limit
            && let Some(alarms) = self.alarms.at(place)
            && let Some(tenant) = alarms.ring(now)
        {
            // As far as the next tenant's alarm, so that the earliest of all come first.
            let until = alarms.next().map_or(now, |next| next.min(now));
            let step = Step { place, limit: limit - moved.count, until, now };
            self.advance_tenant(tenant, step, &mut moved);
        }
        moved.next = self.alarms.at(place).and_then(|alarms| alarms.next()).into();
        moved
    }

    /// Moves what has come due in those queues of a tenant whose alarm has rung, and sets the
    /// alarms again.
    fn advance_tenant(&mut self, id: TenantId, step: Step, moved: &mut Moved) {
        let Step { place, mut limit, .. } = step;
        while limit > 0
            && let Some(alarms) =
                self.tenants.get_mut(id).and_then(|tenant| tenant.alarms.at(place))
            && let Some(queue) = alarms.ring(step.until)
        {
            let until = alarms.next().map_or(step.until, |next| next.min(step.until));
            // A queue that is gone may still have an alarm; its number may be another tenant's now.
            if self.queues.get(queue).is_some_and(|queue| queue.tenant == id) {
                limit -= self.advance(queue, Step { limit, until, ..step }, moved);
                if let Some(due) = self.queues[queue].next_due(place) {
                    self.set_alarm(queue, place, due);
                }
            }
        }
        if let Some(next) =
            self.tenants.get_mut(id).and_then(|tenant| tenant.alarms.at(place)?.next())
            && let Some(alarms) = self.alarms.at(place)
        {
            alarms.set(id, next);
        }
    }

    /// Removes the tasks of a tenant whose retention had ended at `before`.
    fn clean_tenant(&mut self, id: TenantId, before: Instant, limit: u32, now: Instant) -> u32 {
        let mut removed = 0;
        while removed < limit
            && let Some(tenant) = self.tenants.get_mut(id)
            && let Some(&Reverse((at, slot, serial))) = tenant.retention.peek()
            && at <= before
        {
            tenant.retention.pop();
            let Some(entry) = self
                .entries
                .get_mut(slot)
                .filter(|entry| entry.serial == serial && entry.looked_at == at)
            else {
                continue;
            };
            let retained_until = self.rules.retained_until(&entry.task, entry.placement);
            if retained_until > before {
                entry.looked_at = retained_until;
                tenant.retention.push(Reverse((retained_until, slot, serial)));
                continue;
            }
            self.remove(slot);
            removed += 1;
        }
        self.forget_keys(id, now);
        removed
    }

    /// Makes the alarm ring when the next task or key of a tenant may have to go.
    fn set_retention_alarm(&mut self, id: TenantId) {
        let Some(tenant) = self.tenants.get(id) else {
            return;
        };
        let task = tenant.retention.peek().map(|Reverse((at, ..))| *at);
        let key = tenant.forgetting.front().map(|(until, _)| *until);
        if let Some(next) = task.into_iter().chain(key).min() {
            self.alarms.retention.set(id, next);
        }
    }

    /// The task that has an idempotency key already. A key whose task was deleted is free again.
    fn remembered(&self, tenant: &Text, key: &Text, now: Instant) -> Option<&Boxed<Task>> {
        if key.is_empty() {
            return None;
        }
        let keys = &self.tenants[*self.tenant_names.get(tenant.as_str())?].idempotency;
        let earlier = keys.get(key.as_str()).filter(|earlier| now < earlier.until)?;
        let task = &self.entries[*self.by_id.get(earlier.task_id.as_str())?].task;
        (task.tenant_id == *tenant).then_some(task)
    }

    fn remember(&mut self, slot: Slot, key: Text, until: Instant) {
        let Entry { queue, ref task, .. } = self.entries[slot];
        let earlier = Remembered { task_id: task.id.clone(), until };
        let id = self.queues[queue].tenant;
        self.alarms.retention.set(id, until);
        let tenant = &mut self.tenants[id];
        tenant.forgetting.push_back((until, key.clone()));
        tenant.idempotency.insert(key, earlier);
    }

    fn forget_keys(&mut self, id: TenantId, now: Instant) {
        let Some(tenant) = self.tenants.get_mut(id) else {
            return;
        };
        while let Some((until, key)) = tenant.forgetting.pop_front_if(|(until, _)| *until <= now) {
            // A key whose task was deleted may have been taken again since.
            if tenant.idempotency.get(key.as_str()).is_some_and(|earlier| earlier.until == until) {
                tenant.idempotency.remove(key.as_str());
            }
        }
        self.drop_tenant_if_deserted(id);
    }
}
