//! Writes the redis plugin's source with all faults in it.

use std::path::Path;

use patching::Sources;

#[allow(dead_code, reason = "which rules they break is for the test to know")]
#[path = "src/faults.rs"]
mod faults;
#[path = "../mutants/patching.rs"]
mod patching;

const MODULES: &[&str] = &[
    "access",
    "address",
    "arrivals",
    "backend",
    "call",
    "claims",
    "cluster",
    "config",
    "connection",
    "discovery",
    "events",
    "fault",
    "keys",
    "lanes",
    "leases",
    "link",
    "listing",
    "nodes",
    "operations",
    "pointers",
    "queues",
    "record",
    "repairs",
    "reply",
    "results",
    "route",
    "scripts",
    "sentinel",
    "server",
    "store",
    "subscriptions",
    "survey",
    "sweep",
    "tasks",
    "turns",
];

fn main() {
    let redis = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins/redis/src");
    let mut sources = Sources::read(&redis, MODULES);
    // What is included stays where it is.
    let redis = redis.display();
    sources.replace_all("scripts.rs", "\"scripts/", &format!("\"{redis}/scripts/"));
    let schema = "include_str!(\"config.schema.json\")";
    sources.change("config.rs", schema, &format!("include_str!(\"{redis}/config.schema.json\")"));
    sources.put_faults();
    sources.write("redis.rs");
}
