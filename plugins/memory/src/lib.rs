//! The memory plugin: every rule of the storage contract, and nothing that outlives the process.
//!
//! It is what developers test against, and the plugin to read first:
//!
//! - [`store`]: [`Memory`], which implements the storage traits behind a mutex.
//! - [`tasks`]: the tasks and their queues; each operation looks a task up, applies a rule of
//!   [`codeq_plugin::rules`], and puts the task where the rule says it belongs.
//! - [`queue`]: one queue, as ordered sets of tasks, one for each place a task can be in.
//! - [`alarms`]: who has to be looked at, and when, so that nothing is searched for what is due.
//! - [`list`]: paging through tasks.
//! - [`subscriptions`]: the webhooks of workers.
//!
//! No operation looks at more tasks than it answers with or moves. Each costs at most the logarithm
//! of what is stored.

#![forbid(unsafe_code)]

mod alarms;
mod list;
mod queue;
mod store;
mod subscriptions;
mod tasks;

pub use store::{Config, Memory};

codeq_plugin::export_plugin! {
    name: "memory",
    description: "keeps everything in memory; for tests and first steps, gone when the host stops",
    durability: Volatile,
    capabilities: [Subscriptions, Listing],
    config_schema: include_str!("../config.schema.json"),
    store: Memory,
}
