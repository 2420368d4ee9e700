//! Everything the author of a codeQ persistence plugin needs, and nothing of the host.
//!
//! A plugin is a shared library that keeps codeQ's tasks, results and subscriptions. Its author
//! writes plain Rust over the records of this crate and exports it with one macro:
//!
//! 1. [`record`]: the records and requests that cross between host and plugin.
//! 2. [`rules`]: the queue's rules as pure functions. A plugin only makes them atomic and durable.
//! 3. [`persistence`]: the traits to implement. [`Persistence`] is for stores that answer at once;
//!    [`AsyncPersistence`] is for stores that wait for a network or a disk.
//! 4. [`export_plugin!`]: exports the store, with a [`manifest`] that the host reads without
//!    running any of the plugin's code.
//! 5. [`error`]: what a store answers when it cannot do what was asked.
//!
//! The [`boundary`] is the part that two separately compiled programs must agree on. Authors never
//! touch it; the export macro and the host do.

pub mod boundary;
pub mod error;
mod export;
pub mod log;
pub mod manifest;
pub mod persistence;
pub mod record;
pub mod rules;

pub use error::{Error, ErrorKind, Result};
pub use manifest::{Capability, Durability};
#[cfg(feature = "async")]
pub use persistence::{
    Answers, AsyncPersistence, AsyncResultStorage, AsyncSubscriptionStorage, AsyncTaskStorage,
};
pub use persistence::{Context, Persistence, ResultStorage, SubscriptionStorage, TaskStorage};
pub use record::*;

/// What the expansion of [`export_plugin!`] names. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::export::*;
    pub use abi_stable;
}
