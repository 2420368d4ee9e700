//! The queues as the writer keeps them in memory: how many tasks are in each place, who is next, and
//! when something comes due. The file has the same, row by row; all of this can be made anew from it.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Bound::{Excluded, Unbounded},
};

use codeq_plugin::{Instant, QueueStats, Text, queue_name};
use hashbrown::HashMap;

use crate::place::{Place, Position};

/// The number of a queue in the file.
pub(crate) type QueueId = i64;
/// The number of a task in the file.
pub(crate) type Seq = i64;

/// All queues of all tenants.
#[derive(Default)]
pub(crate) struct Queues {
    by_id: HashMap<QueueId, Queue>,
    tenants: HashMap<Text, Tenant>,
    due: Due,
    changed: Vec<QueueId>,
    newest: QueueId,
    /// How many tasks there are.
    tasks: u64,
}

/// The tasks of one command and one tenant.
pub(crate) struct Queue {
    pub(crate) tenant: Text,
    /// The command in lower case.
    pub(crate) command: Text,
    pub(crate) counts: [u64; Place::COUNT],
    /// The first of the ready tasks: all of them if there are few.
    head: VecDeque<(Position, Seq)>,
    alarms: [Option<Instant>; 2],
    is_changed: bool,
}

#[derive(Default)]
struct Tenant {
    queues: HashMap<Text, QueueId>,
    /// The queues with claimable tasks, for workers who take any command.
    ready: BTreeSet<QueueId>,
    /// The queue that such a worker was served from last; the next one is served first now.
    served: QueueId,
    due: Due,
}

/// Which queues have to be looked at for tasks that come due, and when.
///
/// An alarm may ring early, never late: it is set when something gets due sooner than all before it,
/// and left alone when that something goes away. So the usual life of a lease, which ends long before
/// its deadline, costs nothing here.
#[derive(Default)]
struct Due([BTreeSet<(Instant, QueueId)>; 2]);

/// The places whose tasks come due.
pub(crate) const DUE: [Place; 2] = [Place::Delayed, Place::Leased];

/// How many of a queue's ready tasks are known ahead, at most.
const HEAD: usize = 256;

fn alarm_of(place: Place) -> Option<usize> {
    DUE.iter().position(|due| *due == place)
}

impl Queues {
    /// Takes a queue in as the file has it.
    pub(crate) fn load(
        &mut self,
        id: QueueId,
        tenant: Text,
        command: Text,
        counts: [u64; Place::COUNT],
    ) {
        self.newest = self.newest.max(id);
        self.insert(id, tenant, command);
        let Some(queue) = self.by_id.get_mut(&id) else { return };
        queue.counts = counts;
        self.tasks += counts.iter().sum::<u64>();
        let ready = counts[Place::Ready as usize] > 0;
        let due = DUE.map(|place| counts[place as usize] > 0);
        if ready && let Some(tenant) = self.tenants.get_mut(&self.by_id[&id].tenant) {
            tenant.ready.insert(id);
        }
        for (place, due) in DUE.into_iter().zip(due) {
            if due {
                // When exactly, is found out at the first look.
                self.set_alarm(id, place, Instant(i64::MIN));
            }
        }
    }

    pub(crate) fn get(&self, id: QueueId) -> Option<&Queue> {
        self.by_id.get(&id)
    }

    pub(crate) fn find(&self, tenant: &str, command: &str) -> Option<QueueId> {
        self.tenants.get(tenant)?.queues.get(&*queue_name(command)).copied()
    }

    pub(crate) fn find_or_make(&mut self, tenant: &Text, command: &str) -> QueueId {
        if let Some(id) = self.find(tenant, command) {
            return id;
        }
        self.newest += 1;
        let id = self.newest;
        self.insert(id, tenant.clone(), Text::from(&*queue_name(command)));
        id
    }

    fn insert(&mut self, id: QueueId, tenant: Text, command: Text) {
        let of_tenant = self.tenants.entry(tenant.clone()).or_default();
        of_tenant.queues.insert(command.clone(), id);
        let queue = Queue {
            tenant,
            command,
            counts: [0; Place::COUNT],
            head: VecDeque::new(),
            alarms: [None; 2],
            is_changed: false,
        };
        self.by_id.insert(id, queue);
    }

    /// A task comes into a place. Answers whether its queue had no claimable task before and has one
    /// now.
    pub(crate) fn arrive(&mut self, id: QueueId, place: Place, at: Position, seq: Seq) -> bool {
        let Some(queue) = self.by_id.get_mut(&id) else { return false };
        queue.mark(id, &mut self.changed);
        let awoke = place == Place::Ready && queue.count(Place::Ready) == 0;
        if place == Place::Ready {
            queue.offer(at, seq);
        }
        queue.counts[place as usize] += 1;
        self.tasks += 1;
        if awoke && let Some(tenant) = self.tenants.get_mut(&queue.tenant) {
            tenant.ready.insert(id);
        }
        self.set_alarm(id, place, Instant(at.rank));
        awoke
    }

    /// A task leaves a place.
    pub(crate) fn leave(&mut self, id: QueueId, place: Place, at: Position) {
        let Some(queue) = self.by_id.get_mut(&id) else { return };
        queue.mark(id, &mut self.changed);
        if place == Place::Ready {
            queue.forget(at);
        }
        let count = &mut queue.counts[place as usize];
        *count = count.saturating_sub(1);
        self.tasks = self.tasks.saturating_sub(1);
        if place == Place::Ready
            && *count == 0
            && let Some(tenant) = self.tenants.get_mut(&queue.tenant)
        {
            tenant.ready.remove(&id);
        }
    }

    /// The first claimable task of a queue, as far as it is known ahead.
    pub(crate) fn first_ready(&self, id: QueueId) -> Next {
        match self.by_id.get(&id) {
            None => Next::None,
            Some(queue) => match queue.head.front() {
                Some((position, seq)) => Next::Task(*position, *seq),
                None if queue.count(Place::Ready) == 0 => Next::None,
                None => Next::Unknown,
            },
        }
    }

    /// Makes the first claimable tasks of a queue known, in order.
    pub(crate) fn know(&mut self, id: QueueId, first: impl IntoIterator<Item = (Position, Seq)>) {
        if let Some(queue) = self.by_id.get_mut(&id) {
            queue.head = first.into_iter().collect();
        }
    }

    /// Believes the file rather than the counts: there is nothing claimable in a queue.
    pub(crate) fn has_none_ready(&mut self, id: QueueId) {
        if let Some(queue) = self.by_id.get_mut(&id) {
            queue.mark(id, &mut self.changed);
            queue.counts[Place::Ready as usize] = 0;
            if let Some(tenant) = self.tenants.get_mut(&queue.tenant) {
                tenant.ready.remove(&id);
            }
        }
    }

    /// Whether the queue knows this ready task ahead.
    pub(crate) fn is_known(&self, id: QueueId, at: Position) -> bool {
        self.by_id
            .get(&id)
            .is_some_and(|queue| queue.head.binary_search_by_key(&at, |(known, _)| *known).is_ok())
    }

    /// The queue with claimable tasks whose turn it is, for a worker who takes any command.
    pub(crate) fn next_in_turn(&self, tenant: &str) -> Option<QueueId> {
        let Tenant { ready, served, .. } = self.tenants.get(tenant)?;
        ready.range((Excluded(*served), Unbounded)).next().or_else(|| ready.first()).copied()
    }

    pub(crate) fn served(&mut self, tenant: &str, queue: QueueId) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.served = queue;
        }
    }

    /// Makes sure that a queue is looked at when a task of that place comes due.
    pub(crate) fn set_alarm(&mut self, id: QueueId, place: Place, at: Instant) {
        let (Some(alarm), Some(queue)) = (alarm_of(place), self.by_id.get_mut(&id)) else {
            return;
        };
        let before = queue.alarms[alarm];
        if before.is_some_and(|before| before <= at) {
            return;
        }
        queue.alarms[alarm] = Some(at);
        let tenant = self.tenants.get_mut(&queue.tenant);
        let of_tenant = tenant.map(|tenant| &mut tenant.due.0[alarm]);
        for set in of_tenant.into_iter().chain([&mut self.due.0[alarm]]) {
            if let Some(before) = before {
                set.remove(&(before, id));
            }
            set.insert((at, id));
        }
    }

    fn stop_alarm(&mut self, id: QueueId, place: Place) {
        let (Some(alarm), Some(queue)) = (alarm_of(place), self.by_id.get_mut(&id)) else {
            return;
        };
        let Some(at) = queue.alarms[alarm].take() else { return };
        self.due.0[alarm].remove(&(at, id));
        if let Some(tenant) = self.tenants.get_mut(&queue.tenant) {
            tenant.due.0[alarm].remove(&(at, id));
        }
    }

    /// Replaces the alarm of a queue by what was found out about it.
    pub(crate) fn reset_alarm(&mut self, id: QueueId, place: Place, at: Option<Instant>) {
        self.stop_alarm(id, place);
        if let Some(at) = at {
            self.set_alarm(id, place, at);
        }
    }

    /// Whether this queue may have tasks that have come due.
    pub(crate) fn rings(&self, id: QueueId, place: Place, now: Instant) -> bool {
        let queue = alarm_of(place).zip(self.by_id.get(&id));
        queue.is_some_and(|(alarm, queue)| queue.alarms[alarm].is_some_and(|at| at <= now))
    }

    /// The queue whose alarm rings first, of one tenant or of all.
    pub(crate) fn first_alarm(
        &self,
        tenant: Option<&str>,
        place: Place,
    ) -> Option<(Instant, QueueId)> {
        let due = match tenant {
            Some(tenant) => &self.tenants.get(tenant)?.due,
            None => &self.due,
        };
        due.0[alarm_of(place)?].first().copied()
    }

    /// The next alarm of another queue.
    pub(crate) fn alarm_after(
        &self,
        tenant: Option<&str>,
        place: Place,
        queue: QueueId,
    ) -> Option<Instant> {
        let due = match tenant {
            Some(tenant) => &self.tenants.get(tenant)?.due,
            None => &self.due,
        };
        due.0[alarm_of(place)?].iter().find(|(_, id)| *id != queue).map(|(at, _)| *at)
    }

    /// The queues whose counts changed since they were last asked for.
    pub(crate) fn take_changed(&mut self) -> Vec<QueueId> {
        let changed = std::mem::take(&mut self.changed);
        for id in &changed {
            if let Some(queue) = self.by_id.get_mut(id) {
                queue.is_changed = false;
            }
        }
        changed
    }

    /// Drops a queue that has no task left. Queues come with their first task and go with their last.
    pub(crate) fn drop_if_deserted(&mut self, id: QueueId) -> bool {
        if !self.by_id.get(&id).is_some_and(Queue::is_deserted) {
            return false;
        }
        DUE.into_iter().for_each(|place| self.stop_alarm(id, place));
        if let Some(queue) = self.by_id.remove(&id)
            && let Some(tenant) = self.tenants.get_mut(&queue.tenant)
        {
            tenant.ready.remove(&id);
            tenant.queues.remove(&queue.command);
            if tenant.queues.is_empty() {
                self.tenants.remove(&queue.tenant);
            }
        }
        true
    }

    /// Has the counts of a queue written to the file.
    pub(crate) fn mark(&mut self, id: QueueId) {
        if let Some(queue) = self.by_id.get_mut(&id) {
            queue.mark(id, &mut self.changed);
        }
    }

    /// How many tasks there are.
    pub(crate) fn tasks(&self) -> u64 {
        self.tasks
    }
}

/// What is known about the first claimable task of a queue.
pub(crate) enum Next {
    Task(Position, Seq),
    /// There are some; the file knows which.
    Unknown,
    None,
}

impl Queue {
    fn count(&self, place: Place) -> u64 {
        self.counts[place as usize]
    }

    fn is_deserted(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    fn mark(&mut self, id: QueueId, changed: &mut Vec<QueueId>) {
        if !self.is_changed {
            self.is_changed = true;
            changed.push(id);
        }
    }

    /// Notes a new ready task, if it is among the first.
    fn offer(&mut self, at: Position, seq: Seq) {
        let knows_all = self.head.len() as u64 == self.count(Place::Ready);
        if knows_all && self.head.back().is_none_or(|(last, _)| *last < at) {
            if self.head.len() < HEAD {
                self.head.push_back((at, seq));
            }
            return;
        }
        if self.head.back().is_some_and(|(last, _)| at < *last) {
            let index = self.head.partition_point(|(known, _)| *known < at);
            self.head.insert(index, (at, seq));
            self.head.truncate(HEAD);
        }
    }

    fn forget(&mut self, at: Position) {
        if self.head.front().is_some_and(|(first, _)| *first == at) {
            self.head.pop_front();
        } else if let Ok(index) = self.head.binary_search_by_key(&at, |(known, _)| *known) {
            self.head.remove(index);
        }
    }

    /// The counts as others see them.
    pub(crate) fn stats(tenant: Text, command: Text, counts: &[u64; Place::COUNT]) -> QueueStats {
        let count = |place: Place| counts[place as usize];
        QueueStats {
            command,
            tenant_id: tenant,
            ready: count(Place::Ready),
            delayed: count(Place::Delayed),
            in_progress: count(Place::Leased),
            dlq: count(Place::Dead),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rank: i64, arrival: i64) -> Position {
        Position { rank, arrival }
    }

    fn first(queues: &Queues, id: QueueId) -> Option<Seq> {
        match queues.first_ready(id) {
            Next::Task(_, seq) => Some(seq),
            _ => None,
        }
    }

    #[test]
    fn the_first_ready_tasks_are_known_in_order_until_there_are_too_many() {
        let mut queues = Queues::default();
        let id = queues.find_or_make(&"t".into(), "Render");
        assert_eq!(queues.find("t", "rENDER"), Some(id));
        for n in 0..2 * HEAD as i64 {
            assert_eq!(queues.arrive(id, Place::Ready, at(5, n), n), n == 0);
        }
        queues.arrive(id, Place::Ready, at(1, 1000), 1000);
        assert_eq!(first(&queues, id), Some(1000), "a higher priority comes first");
        queues.leave(id, Place::Ready, at(1, 1000));
        // One of the known ones made room for the higher priority.
        for n in 0..HEAD as i64 - 1 {
            assert_eq!(first(&queues, id), Some(n));
            queues.leave(id, Place::Ready, at(5, n));
        }
        assert!(matches!(queues.first_ready(id), Next::Unknown));
        // What comes now is behind those that are not known.
        queues.arrive(id, Place::Ready, at(5, 2000), 2000);
        assert!(matches!(queues.first_ready(id), Next::Unknown));
    }

    #[test]
    fn an_alarm_is_only_moved_to_the_front() {
        let mut queues = Queues::default();
        let (tenant, other) = ("t".into(), "u".into());
        let (a, b) = (queues.find_or_make(&tenant, "a"), queues.find_or_make(&other, "b"));
        queues.arrive(a, Place::Leased, at(30, 1), 1);
        queues.arrive(a, Place::Leased, at(40, 2), 2);
        queues.arrive(b, Place::Leased, at(35, 3), 3);
        assert_eq!(queues.first_alarm(None, Place::Leased), Some((Instant(30), a)));
        assert_eq!(queues.alarm_after(None, Place::Leased, a), Some(Instant(35)));
        assert_eq!(queues.first_alarm(Some("u"), Place::Leased), Some((Instant(35), b)));
        assert!(queues.rings(a, Place::Leased, Instant(30)));
        assert!(!queues.rings(a, Place::Leased, Instant(29)));
        queues.reset_alarm(a, Place::Leased, Some(Instant(40)));
        assert_eq!(queues.first_alarm(None, Place::Leased), Some((Instant(35), b)));
        assert_eq!(queues.first_alarm(None, Place::Delayed), None);
    }

    #[test]
    fn a_queue_goes_with_its_last_task() {
        let mut queues = Queues::default();
        let id = queues.find_or_make(&"t".into(), "a");
        queues.arrive(id, Place::Delayed, at(9, 1), 1);
        assert!(!queues.drop_if_deserted(id));
        queues.leave(id, Place::Delayed, at(9, 1));
        assert_eq!(queues.take_changed(), [id]);
        assert!(queues.drop_if_deserted(id));
        assert_eq!(queues.find("t", "a"), None);
        assert_eq!(queues.first_alarm(None, Place::Delayed), None);
        assert_eq!(queues.tasks(), 0);
    }
}
