//! The places that a task can be in, and its position there.

use codeq_plugin::{Location, MAX_PRIORITY, Task, TaskStatus, rules::Placement};

/// A place that a task can be in. Every task is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Ready,
    Delayed,
    Leased,
    Dead,
    Completed,
    Failed,
    /// Set aside, because its record cannot be read.
    Unreadable,
}

/// The order of the tasks in a place: by rank, then in the order in which they came.
///
/// The rank is what the place is sorted by: the priority, highest first, where tasks are ready; the
/// moment they come due where they wait for one; nothing elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) rank: i64,
    pub(crate) arrival: i64,
}

impl Place {
    /// The places of tasks that can be read, in the order in which they are listed.
    pub(crate) const LISTED: [Place; 6] =
        [Place::Ready, Place::Delayed, Place::Leased, Place::Dead, Place::Completed, Place::Failed];

    /// How many places there are.
    pub(crate) const COUNT: usize = 7;

    /// The place of a number in the file.
    pub(crate) fn of_number(number: i64) -> Option<Place> {
        let known = Place::LISTED.into_iter().chain([Place::Unreadable]);
        known.into_iter().find(|place| place.number() == number)
    }

    /// The place's number in the file.
    pub(crate) const fn number(self) -> i64 {
        self as i64
    }

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
        match self {
            Place::Ready | Place::Delayed => status == TaskStatus::Pending,
            Place::Leased => status == TaskStatus::InProgress,
            Place::Completed => status == TaskStatus::Completed,
            Place::Dead | Place::Failed => status == TaskStatus::Failed,
            Place::Unreadable => false,
        }
    }

    /// Whether this place goes by that name outside.
    pub(crate) fn is_location(self, location: Location) -> bool {
        match self {
            Place::Ready => location == Location::PendingList,
            Place::Delayed => location == Location::DelayedZset,
            Place::Leased => location == Location::InprogSet,
            Place::Dead => location == Location::DlqSet,
            Place::Completed | Place::Failed => location == Location::None,
            Place::Unreadable => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_number() {
        for place in Place::LISTED.into_iter().chain([Place::Unreadable]) {
            assert_eq!(Place::of_number(place.number()), Some(place));
            assert!(place.number() < Place::COUNT as i64);
        }
        assert_eq!(Place::of_number(7), None);
        assert_eq!(Place::of_number(-1), None);
    }
}
