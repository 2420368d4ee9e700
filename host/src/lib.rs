//! The codeQ host: loads a persistence plugin at run time and serves the task queue through it.
//!
//! In the order in which a request meets them: [`http`] → [`service`] → [`store`] → the plugin,
//! which [`plugins`] found and loaded as [`config`] says. [`cli`] is the program's command line.
//!
//! Beside that way: [`artifacts`] keeps the files of results, which no store has to; [`webhook`] calls
//! others; [`metrics`] and [`trace`] tell operators what goes on.
//!
//! [`verify`] tries whether a compiled plugin keeps the storage contract.
//!
//! Without the server, for tests and for programs that embed a queue, [`Store::open`] is all it
//! takes.

pub mod artifacts;
pub mod cli;
pub mod config;
pub mod http;
pub mod metrics;
pub mod plugins;
pub mod service;
pub mod store;
pub mod trace;
pub mod verify;
pub mod webhook;

mod causes;
mod nearest;
mod rate_limit;

pub use store::{Store, StoreError};
