//! The redis plugin with one fault at a time, for the rules that need a backend.
//!
//! Its source is that of the redis plugin; [the build script](../build.rs) puts the
//! [faults](faults::FAULTS) into it. The environment chooses one.

use std::sync::LazyLock;

#[allow(dead_code, reason = "the build script and a test read them")]
mod faults;

// The source as it was written, with changes that are not all pretty.
#[allow(clippy::all, missing_docs, unreachable_pub, unused)]
mod plugin {
    include!(concat!(env!("OUT_DIR"), "/redis.rs"));
    pub(crate) use config::Config;
    pub(crate) use store::Redis;
}

codeq_plugin::export_plugin! {
    name: "mutants-redis",
    description: "the redis plugin with one fault at a time, for tests",
    durability: Process,
    capabilities: [Subscriptions, Listing, Shared, Events],
    config_schema: include_str!("../../../../plugins/redis/src/config.schema.json"),
    async_store: plugin::Redis,
}

/// Whether this is the fault that the environment chooses.
fn is(fault: &str) -> bool {
    static CHOSEN: LazyLock<String> =
        LazyLock::new(|| std::env::var("CODEQ_FAULT").unwrap_or_default());
    *CHOSEN == fault
}
