//! The conformance kit: proves that a compiled plugin keeps the storage contract.
//!
//! A plugin is tried as the host will use it: compiled, loaded, through the boundary, in processes of
//! their own, so that whatever it does ends in a [`Report`].
//!
//! - [`case`]: the rules of the contract. `cases` has the examples for them, each a short play on a
//!   [`stage`] of its own.
//! - [`history`]: many workers and producers at once, in one process or several, some of which are
//!   killed; what they saw is written down and checked afterwards.
//! - [`mod@verify`]: runs it all in [`agent`]s, which are processes that hold the plugin, and puts
//!   together the [`report`].
//!
//! The kit knows no host: whoever runs it says how a process opens a store ([`stage::Opener`]).

#![forbid(unsafe_code)]

pub mod agent;
pub mod case;
mod cases;
pub mod history;
mod plan;
mod protocol;
pub mod report;
mod scenarios;
mod scope;
pub mod stage;
pub mod store;
pub mod verify;
mod world;

pub use case::Rule;
pub use plan::Plan;
pub use report::{Figure, Outcome, Report, Verdict};
pub use verify::{Progress, Subject, verify};
