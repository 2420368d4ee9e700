//! The sqlite plugin: everything in one SQLite file, durable, and without a server.
//!
//! One thread writes. Operations of all callers that wait at the same time are one transaction: they
//! are run together, committed once, synced once, and answered. In the order in which a request meets
//! them:
//!
//! - [`store`]: [`Sqlite`], which opens the store; [`tasks`], [`results`] and [`subscriptions`]
//!   implement the storage traits: an operation is handed to the writer, a question to a reader.
//! - [`writer`]: the thread that runs groups; [`enqueues`]: what it is given most;
//!   [`sync`]: when groups are on the disk and answered.
//! - [`engine`]: the operations, as statements, with [`queues`] and [`ids`] as what it keeps in
//!   memory.
//! - [`readers`]: threads that read; [`reading`] and [`list`]: what they look up.
//! - [`schema`]: the file's layout, [`place`] and [`rows`]: records as rows.
//! - [`connection`], [`ownership`], [`fault`], [`backup`]: opening the file, keeping other hosts out of
//!   it, what goes wrong there, and a copy of it.

#![forbid(unsafe_code)]

mod backup;
mod config;
mod connection;
mod engine;
mod enqueues;
mod fault;
mod filter;
mod ids;
mod list;
mod ownership;
mod place;
mod queues;
mod readers;
mod reading;
mod results;
mod rows;
mod schema;
mod store;
mod subscriptions;
mod sync;
mod tasks;
mod writer;

pub use config::{Config, Durability};
pub use store::Sqlite;

codeq_plugin::export_plugin! {
    name: "sqlite",
    description: "keeps everything in one SQLite file; survives power loss, needs no server",
    durability: Disk,
    capabilities: [Subscriptions, Listing, Backup],
    config_schema: include_str!("config.schema.json"),
    async_store: Sqlite,
}
