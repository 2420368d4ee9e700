//! A codeQ persistence plugin.
//!
//! It keeps tasks in memory and works as it stands. To keep them elsewhere, replace what is behind
//! `store`; the rules of the queue are codeQ's own and stay as they are.
//!
//! - `config`: the settings.
//! - `store`: the operations. Each one looks its task up, lets a rule of [`codeq_plugin::rules`]
//!   change it, and puts it where the rule says.
//! - `tasks`: the records, and the one way in and out of the index.
//! - `index`: who comes first, and when something has to happen. Its ordered maps are what would be
//!   ordered keys in a key-value store, or indexes in a database.
//! - `keys`: the idempotency keys.
//! - `report`: what a claim or a repair tells the host that it moved.
//! - `list`: paging through tasks.

#![forbid(unsafe_code)]

mod config;
mod index;
mod keys;
mod list;
mod report;
mod store;
mod tasks;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use store::Store;

codeq_plugin::export_plugin! {
    name: env!("CARGO_PKG_NAME"), // persistenceProvider
    description: "keeps tasks in memory; gone when the host stops",
    durability: Volatile,
    capabilities: [Listing],
    config_schema: include_str!("config.schema.json"),
    store: Store,
}
