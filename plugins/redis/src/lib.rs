//! The redis plugin: tasks in Redis or KVRocks, in the keyspace of codeQ's own servers, so that one
//! can take over a live database from the other, and hand it back; or spread over a Redis Cluster, in keys
//! of this plugin's own.
//!
//! Every operation on tasks is one Lua script: one round trip for a whole batch, atomic, by the
//! server's clock. In a cluster that holds for the tasks of one queue. In the order in which a request
//! meets them:
//!
//! - [`store`]: [`Redis`], the storage traits; [`lanes`]: single operations of many callers become
//!   batches; [`operations`]: those in whichever layout the keys have.
//! - [`backend`], with [`tasks`], [`claims`], [`results`] and [`subscriptions`]: the operations on
//!   batches, in all of codeQ's keys or in one queue of a cluster. A call is made, its reply read.
//! - [`cluster`]: operations put together from those on several queues, with [`arrivals`] of new tasks,
//!   [`turns`] of claims, [`repairs`], [`survey`] for admin views, and the [`sweep`]. [`queues`] and
//!   [`pointers`]: what a host knows of queues, and where tasks are.
//! - [`keys`]: what a script works on; how keys in a cluster are named.
//! - [`call`]: what a script is given, [`leases`] where that is about leases, and [`reply`]: what it
//!   answers.
//! - [`scripts`]: the scripts, each the rules in Lua and the operation's own few lines.
//! - [`record`]: tasks, results and subscriptions as codeQ writes them in JSON.
//! - [`connection`]: the way to the data. [`server`]: one connection to a server for all calls, with its
//!   time-outs and its return after a loss; [`nodes`]: the servers of a cluster, and which of them has
//!   what; [`fault`]: what went wrong there, as the interface's errors.
//! - [`route`]: the ways to a server, be it in a fixed place or where Redis Sentinel says
//!   ([`sentinel`]); [`link`]: what they end in. [`address`] and [`access`]: where servers are, and
//!   what they want from their clients.
//! - [`listing`]: paging through tasks.
//! - [`events`]: what other hosts do in the same database.
//! - [`discovery`]: queues that codeQ's own servers filled.
//!
//! What a write survives is the server's business: with its default settings the loss of the host,
//! which is what the manifest declares; with `appendfsync always` or replicas more than that.

#![forbid(unsafe_code)]

mod access;
mod address;
mod arrivals;
mod backend;
mod call;
mod claims;
mod cluster;
mod config;
mod connection;
mod discovery;
mod events;
mod fault;
mod keys;
mod lanes;
mod leases;
mod link;
mod listing;
mod nodes;
mod operations;
mod pointers;
mod queues;
mod record;
mod repairs;
mod reply;
mod results;
mod route;
mod scripts;
mod sentinel;
mod server;
mod store;
mod subscriptions;
mod survey;
mod sweep;
mod tasks;
mod turns;

pub use config::Config;
pub use store::Redis;

codeq_plugin::export_plugin! {
    name: "redis",
    description: "keeps everything in Redis or KVRocks, in the keyspace of codeQ's own servers",
    durability: Process,
    capabilities: [Subscriptions, Listing, Shared, Events],
    config_schema: include_str!("config.schema.json"),
    async_store: Redis,
}
