//! What is asked of a store about whole queues, and what it answers.

use abi_stable::StableAbi;
use serde::Serialize;

use super::{
    Boxed, Extensions, Instant, List, Location, Optional, Task, TaskKey, TaskStatus, Text,
};

/// A queue: the tasks of one command and one tenant.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    /// Whose queue.
    pub tenant_id: Text,
    /// Which command, in any case.
    pub command: Text,
}

/// How many tasks a queue has in each place.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStats {
    /// The command in lower case.
    pub command: Text,
    /// Whose queue.
    #[serde(skip)]
    pub tenant_id: Text,
    /// Claimable now.
    pub ready: u64,
    /// Claimable later.
    pub delayed: u64,
    /// Leased.
    pub in_progress: u64,
    /// Dead-lettered.
    pub dlq: u64,
}

/// What a repair moved.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// How many tasks.
    pub count: u32,
    /// Which queues got claimable tasks by it.
    pub arrivals: List<Arrival>,
    /// How many leases had run out, by queue.
    pub expired: List<Tally>,
    /// The tasks that were dead-lettered by it.
    pub dead: List<Boxed<Task>>,
    /// When the next task comes due or the next lease runs out, if the store knows.
    pub next: Optional<Instant>,
    /// Later fields.
    pub extensions: Extensions,
}

impl Moved {
    /// As a claim reports it: nothing if nothing moved.
    pub fn reported(self) -> Optional<Boxed<Moved>> {
        if self.count == 0 { Optional::RNone } else { Optional::RSome(Boxed::new(self)) }
    }
}

/// Claimable tasks that came into a queue.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Which queue.
    pub queue: Queue,
    /// How many.
    pub count: u32,
    /// Whether the queue had no claimable task before.
    pub awoke: bool,
}

/// A count for one queue.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Which queue.
    pub queue: Queue,
    /// How many.
    pub count: u32,
}

/// Something that happened in the store through another host.
#[repr(u8)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Claimable tasks came into a queue.
    Arrived(Arrival),
    /// A task came to its end.
    Finished(TaskKey),
}

/// Asks for tasks past their retention to be removed.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// Only this tenant's tasks; nothing means everybody's.
    pub tenant_id: Optional<Text>,
    /// Those whose retention had ended by then.
    pub before: Instant,
    /// At most how many.
    pub limit: u32,
    /// Later fields.
    pub extensions: Extensions,
}

/// Asks for a page of tasks. What is not named is not filtered by.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ListTasks {
    /// Whose tasks.
    pub tenant_id: Optional<Text>,
    /// Of which command.
    pub command: Optional<Text>,
    /// In which state.
    pub status: Optional<TaskStatus>,
    /// In which place.
    pub location: Optional<Location>,
    /// Where the page before ended; empty for the first page.
    pub cursor: Text,
    /// At most how many tasks.
    pub limit: u32,
    /// Later fields.
    pub extensions: Extensions,
}

/// A task, and from when on it may be claimed if that is not now.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The task; its location says where it belongs.
    pub task: Boxed<Task>,
    /// From when on a delayed task may be claimed.
    pub visible_at: Instant,
}

/// A page of tasks.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The tasks, in an order that stays the same for tasks that do not change.
    pub tasks: List<Placed>,
    /// Where the next page begins; empty if this is the last.
    pub cursor: Text,
}
