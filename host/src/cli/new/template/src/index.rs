//! The order of the tasks: who is claimed first, and when something has to happen.
//!
//! Nothing here is ever searched. Whatever an operation asks for is the first entry at or behind a
//! key, so it costs the logarithm of what is stored, however much that is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use codeq_plugin::{Instant, MAX_PRIORITY, Task, queue_name, rules::Placement};

/// A text that several keys share: a task's id, a tenant, or a command in lower case.
pub(crate) type Name = Arc<str>;

/// Every task, in the orders in which tasks are asked for.
#[derive(Default)]
pub(crate) struct Index {
    /// All tasks, by tenant and place, then queue by queue, in the order in which they are claimed.
    lines: BTreeMap<Spot, Name>,
    /// The tasks that wait for a moment, by that moment: of each tenant, and of all (no tenant).
    timed: BTreeMap<TimedKey, Name>,
    /// All tasks, by the end of their retention: of each tenant, and of all (no tenant).
    retention: BTreeSet<RetentionKey>,
    /// How many tasks a queue (tenant, command) has in each place. Only queues that have any.
    counts: BTreeMap<(Name, Name), Counts>,
    /// The queue from which a tenant's worker that takes any command was served last.
    served: HashMap<Name, Name>,
    sequence: u64,
}

type TimedKey = (Option<Name>, Place, Instant, u64);
type RetentionKey = (Option<Name>, Instant, Name);

/// How many tasks are in each place.
pub(crate) type Counts = [u64; Place::ALL.len()];

/// All that the index knows of a task, to find it again.
pub(crate) struct Ticket {
    pub(crate) id: Name,
    spot: Spot,
    retained_until: Instant,
}

/// Where a task stands. The order of the fields is the order of the index.
///
/// The place comes before the queue, so that the claimable tasks of a tenant are next to each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    pub(crate) tenant: Name,
    pub(crate) place: Place,
    pub(crate) queue: Name,
    /// What the place is sorted by: the priority, highest first, where tasks are ready; the moment
    /// where they wait for one; nothing elsewhere.
    pub(crate) rank: i64,
    /// First in, first out.
    pub(crate) sequence: u64,
}

/// A place that a task can be in. Every task is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Ready,
    Delayed,
    Leased,
    Dead,
    Done,
}

/// Whose tasks are looked at: everybody's, those of a tenant, or those of a tenant's queue.
pub(crate) enum Scope {
    All,
    Tenant(Name),
    Queue(Name, Name),
}

impl Index {
    /// Puts a task at the back of its line. Answers its ticket, and whether its queue had no
    /// claimable task before and has one now.
    pub(crate) fn put(
        &mut self,
        id: Name,
        task: &Task,
        placement: Placement,
        retained_until: Instant,
    ) -> (Ticket, bool) {
        self.sequence += 1;
        let (place, rank) = Place::of(task, placement);
        let spot = Spot {
            tenant: task.tenant_id.as_str().into(),
            place,
            queue: queue_name(&task.command).into(),
            rank,
            sequence: self.sequence,
        };
        let ticket = Ticket {
            id,
            spot,
            retained_until,
        };
        self.timed
            .extend(ticket.timed().map(|key| (key, ticket.id.clone())));
        self.retention.extend(ticket.retention());
        self.lines.insert(ticket.spot.clone(), ticket.id.clone());
        let count = &mut self.counts.entry(ticket.queue()).or_default()[place as usize];
        *count += 1;
        let awoke = place == Place::Ready && *count == 1;
        (ticket, awoke)
    }

    /// Takes a task out of its line.
    pub(crate) fn take(&mut self, ticket: &Ticket) {
        for key in ticket.timed() {
            self.timed.remove(&key);
        }
        for key in ticket.retention() {
            self.retention.remove(&key);
        }
        self.lines.remove(&ticket.spot);
        let queue = ticket.queue();
        if let Some(counts) = self.counts.get_mut(&queue) {
            counts[ticket.spot.place as usize] -= 1;
            if *counts == Counts::default() {
                self.counts.remove(&queue);
                self.forget_turn(&ticket.spot.tenant);
            }
        }
    }

    /// The claimable task that is next. That of a tenant is of the queue whose turn it is, and uses
    /// the turn up.
    pub(crate) fn next_ready(&mut self, scope: &Scope) -> Option<Name> {
        match scope {
            Scope::Queue(tenant, queue) => {
                let (_, id) = self.first(tenant, Place::Ready, queue)?;
                Some(id.clone())
            }
            Scope::Tenant(tenant) => self.take_turn(tenant),
            // No worker takes tasks of several tenants.
            Scope::All => None,
        }
    }

    /// The task that comes due or expires next, and when.
    pub(crate) fn next_timed(&self, place: Place, scope: &Scope) -> Option<(Instant, Name)> {
        let whose = match scope {
            Scope::All => None,
            Scope::Tenant(tenant) => Some(tenant.clone()),
            Scope::Queue(tenant, queue) => {
                let (spot, id) = self.first(tenant, place, queue)?;
                return Some((spot.moment()?, id.clone()));
            }
        };
        let start = (whose.clone(), place, Instant(i64::MIN), 0);
        let ((owner, at, moment, _), id) = self.timed.range(start..).next()?;
        (*owner == whose && *at == place).then(|| (*moment, id.clone()))
    }

    /// The task of one tenant, or of all, whose retention ends next, and when that is.
    pub(crate) fn next_retained(&self, tenant: Option<&Name>) -> Option<(Instant, Name)> {
        let start = (tenant.cloned(), Instant(i64::MIN), Name::from(""));
        let (whose, until, id) = self.retention.range(start..).next()?;
        (whose.as_ref() == tenant).then(|| (*until, id.clone()))
    }

    /// Every task behind a spot.
    pub(crate) fn after(&self, spot: &Spot) -> impl Iterator<Item = (&Spot, &Name)> {
        self.lines.range((Excluded(spot), Unbounded))
    }

    /// How many tasks a queue has in each place.
    pub(crate) fn counts(&self, tenant: &Name, queue: &Name) -> Counts {
        let counts = self.counts.get(&(tenant.clone(), queue.clone()));
        counts.copied().unwrap_or_default()
    }

    /// The queues of one tenant, or of all, with their counts.
    pub(crate) fn queues(
        &self,
        tenant: Option<&str>,
    ) -> impl Iterator<Item = (&(Name, Name), &Counts)> {
        let first = (Name::from(tenant.unwrap_or("")), Name::from(""));
        self.counts
            .range(first..)
            .take_while(move |((whose, _), _)| tenant.is_none_or(|tenant| **whose == *tenant))
    }

    fn take_turn(&mut self, tenant: &Name) -> Option<Name> {
        let first = Spot::before(tenant, Place::Ready, &"".into());
        let next = self.served.get(tenant).map(|queue| Spot {
            rank: i64::MAX,
            sequence: u64::MAX,
            ..Spot::before(tenant, Place::Ready, queue)
        });
        // Behind the last queue it is the first one's turn again.
        let (spot, id) = [next, Some(first)]
            .iter()
            .flatten()
            .filter_map(|from| self.after(from).next())
            .find(|(spot, _)| spot.tenant == *tenant && spot.place == Place::Ready)?;
        let (queue, id) = (spot.queue.clone(), id.clone());
        self.served.insert(tenant.clone(), queue);
        Some(id)
    }

    fn first(&self, tenant: &Name, place: Place, queue: &Name) -> Option<(&Spot, &Name)> {
        let before = Spot::before(tenant, place, queue);
        let (spot, id) = self.after(&before).next()?;
        let found = (&spot.tenant, spot.place, &spot.queue) == (tenant, place, queue);
        found.then_some((spot, id))
    }

    /// A tenant without any tasks leaves nothing behind.
    fn forget_turn(&mut self, tenant: &Name) {
        if self.queues(Some(tenant)).next().is_none() {
            self.served.remove(tenant);
        }
    }
}

impl Spot {
    /// A spot that no task has, in front of all in that place and queue.
    pub(crate) fn before(tenant: &Name, place: Place, queue: &Name) -> Spot {
        let (tenant, queue) = (tenant.clone(), queue.clone());
        Spot {
            tenant,
            place,
            queue,
            rank: i64::MIN,
            sequence: 0,
        }
    }

    /// When something has to happen to the task that stands here.
    fn moment(&self) -> Option<Instant> {
        let timed = matches!(self.place, Place::Delayed | Place::Leased);
        timed.then_some(Instant(self.rank))
    }
}

impl Ticket {
    fn queue(&self) -> (Name, Name) {
        (self.spot.tenant.clone(), self.spot.queue.clone())
    }

    /// The task's keys in [`Index::timed`].
    fn timed(&self) -> impl Iterator<Item = TimedKey> {
        let (place, sequence) = (self.spot.place, self.spot.sequence);
        let moment = self.spot.moment().into_iter();
        moment.flat_map(move |at| self.scopes().map(|whose| (whose, place, at, sequence)))
    }

    /// The task's keys in [`Index::retention`].
    fn retention(&self) -> impl Iterator<Item = RetentionKey> {
        let scopes = self.scopes().into_iter();
        scopes.map(|whose| (whose, self.retained_until, self.id.clone()))
    }

    fn scopes(&self) -> [Option<Name>; 2] {
        [None, Some(self.spot.tenant.clone())]
    }
}

impl Place {
    pub(crate) const ALL: [Place; 5] = {
        use Place::*;
        [Ready, Delayed, Leased, Dead, Done]
    };

    /// The place of a task that a rule placed, and its rank in it.
    fn of(task: &Task, placement: Placement) -> (Place, i64) {
        match placement {
            Placement::Ready => {
                let priority = task.priority.min(MAX_PRIORITY);
                (Place::Ready, i64::from(MAX_PRIORITY - priority))
            }
            Placement::Delayed(until) => (Place::Delayed, until.0),
            Placement::Leased(until) => (Place::Leased, until.0),
            Placement::Dead => (Place::Dead, 0),
            Placement::Done => (Place::Done, 0),
        }
    }
}
