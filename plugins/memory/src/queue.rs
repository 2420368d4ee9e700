//! One queue: ordered sets of tasks, one for each place that a task can be in.

use std::collections::BTreeMap;

use codeq_plugin::{
    Instant, Location, MAX_PRIORITY, QueueStats, Task, TaskStatus, Text, rules::Placement,
};

/// Where in the store's memory a task is.
pub(crate) type Slot = usize;

/// The tasks of one command and one tenant.
pub(crate) struct Queue {
    /// Which tenant.
    pub(crate) tenant: usize,
    /// The command in lower case.
    pub(crate) name: Text,
    places: [BTreeMap<Position, Slot>; Place::ALL.len()],
}

/// A place that a task can be in. Every task is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Ready,
    Delayed,
    Leased,
    Dead,
    Completed,
    Failed,
}

/// The order of the tasks in a place: by rank, then in the order in which they came.
///
/// The rank is what the place is sorted by: the priority, highest first, where tasks are ready; the
/// moment they come due where they wait for one; nothing elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) rank: i64,
    pub(crate) arrival: u64,
}

impl Queue {
    pub(crate) fn new(tenant: usize, name: Text) -> Queue {
        Queue { tenant, name, places: Default::default() }
    }

    pub(crate) fn put(&mut self, place: Place, position: Position, slot: Slot) {
        self.places[place as usize].insert(position, slot);
    }

    pub(crate) fn take(&mut self, place: Place, position: Position) {
        self.places[place as usize].remove(&position);
    }

    /// The task that is first in a place.
    pub(crate) fn first(&self, place: Place) -> Option<Slot> {
        self.places[place as usize].first_key_value().map(|(_, slot)| *slot)
    }

    /// When the first task of a place comes due that is sorted by that.
    pub(crate) fn next_due(&self, place: Place) -> Option<Instant> {
        self.places[place as usize].first_key_value().map(|(position, _)| Instant(position.rank))
    }

    /// The tasks of a place, in order, from behind `after` on.
    pub(crate) fn iter_after(
        &self,
        place: Place,
        after: Option<Position>,
    ) -> impl Iterator<Item = (Position, Slot)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.places[place as usize]
            .range((from, Unbounded))
            .map(|(position, slot)| (*position, *slot))
    }

    pub(crate) fn is_empty(&self, place: Place) -> bool {
        self.places[place as usize].is_empty()
    }

    pub(crate) fn is_deserted(&self) -> bool {
        self.places.iter().all(BTreeMap::is_empty)
    }

    pub(crate) fn stats(&self, tenant: &Text) -> QueueStats {
        let count = |place: Place| self.places[place as usize].len() as u64;
        QueueStats {
            command: self.name.clone(),
            tenant_id: tenant.clone(),
            ready: count(Place::Ready),
            delayed: count(Place::Delayed),
            in_progress: count(Place::Leased),
            dlq: count(Place::Dead),
        }
    }
}

impl Place {
    pub(crate) const ALL: [Place; 6] =
        [Place::Ready, Place::Delayed, Place::Leased, Place::Dead, Place::Completed, Place::Failed];

    /// The place, and the rank in it, of a task that a rule placed.
    pub(crate) fn of(task: &Task, placement: Placement) -> (Place, i64) {
        match placement {
            Placement::Ready => {
                (Place::Ready, i64::from(MAX_PRIORITY - task.priority.min(MAX_PRIORITY)))
            }
            Placement::Delayed(at) => (Place::Delayed, at.0),
            Placement::Leased(until) => (Place::Leased, until.0),
            Placement::Dead => (Place::Dead, 0),
            Placement::Done if task.status == TaskStatus::Completed => (Place::Completed, 0),
            Placement::Done => (Place::Failed, 0),
        }
    }

    /// Whether the tasks of this place have that status.
    pub(crate) fn has_status(self, status: TaskStatus) -> bool {
        status
            == match self {
                Place::Ready | Place::Delayed => TaskStatus::Pending,
                Place::Leased => TaskStatus::InProgress,
                Place::Completed => TaskStatus::Completed,
                Place::Dead | Place::Failed => TaskStatus::Failed,
            }
    }

    /// Whether this place goes by that name outside.
    pub(crate) fn is_location(self, location: Location) -> bool {
        location
            == match self {
                Place::Ready => Location::PendingList,
                Place::Delayed => Location::DelayedZset,
                Place::Leased => Location::InprogSet,
                Place::Dead => Location::DlqSet,
                Place::Completed | Place::Failed => Location::None,
            }
    }
}
