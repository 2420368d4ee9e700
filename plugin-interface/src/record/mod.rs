//! The records of the queue and the requests about them.
//!
//! These types cross between separately compiled programs, so their layout is frozen for as long as
//! the interface's major version lasts; what a later minor version adds travels in
//! [`Extensions`]. They are ordinary structs otherwise: [`Text`] behaves like a `String`, [`List`]
//! like a `Vec`, [`Boxed`] like a `Box`, [`Optional`] like an `Option`. The aliases exist because the
//! memory behind them is freed by the library that allocated it, which the types of `std` cannot do.

mod backup;
mod batch;
mod queue;
mod request;
mod result;
mod subscription;
mod task;
mod time;

pub use backup::BackedUp;
pub use batch::{Batch, Outcome};
pub use queue::{
    Arrival, Cleanup, Event, ListTasks, Moved, Page, Placed, Queue, QueueStats, Tally,
};
pub use request::{
    Claim, Claimed, Complete, Completed, Enqueue, Enqueued, Extend, Finish, Lease, Nack, Returned,
    TaskKey,
};
pub use result::{Artifact, TaskResult};
pub use subscription::{
    AllowNotify, ByCommand, ByWorker, DeliveryMode, GroupKey, Renew, Subscription, Unregister,
};
pub use task::{Location, MAX_PRIORITY, Task, TaskStatus, queue_name};
pub use time::{Instant, Millis};

use abi_stable::{
    StableAbi,
    std_types::{RBox, ROption, RString, RVec},
};

/// UTF-8 text; behaves like a `String`.
pub type Text = RString;
/// A growable sequence; behaves like a `Vec`.
pub type List<T> = RVec<T>;
/// A value on the heap; behaves like a `Box`.
pub type Boxed<T> = RBox<T>;
/// A value or nothing; `.into_option()` and `.into()` go to and from `Option`.
pub type Optional<T> = ROption<T>;

/// Fields that a later minor version of the interface adds to a record, each under its tag.
///
/// A plugin or host that does not know a tag ignores it, and a store keeps it with the record.
pub type Extensions = List<Extension>;

/// One later field of a record.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// Which field this is. Tags are given out by the interface, never by a plugin.
    pub tag: u32,
    /// The field's value, encoded as the interface defines for the tag.
    pub bytes: List<u8>,
}
