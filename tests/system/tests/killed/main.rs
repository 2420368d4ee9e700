//! Hosts that are killed under full load, hundreds of times, each started again on what the last one
//! left: whatever was acknowledged is there afterwards, once, as it was acknowledged.
//!
//! The kills, and what the clients do, come from a seed, which every run prints; `CODEQ_KILL_SEED`
//! runs the same again, as far as threads and the system let it be the same.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod checks;
mod counts;
mod course;
mod drain;
mod explain;
mod ledger;
mod model;
mod producers;
mod proofs;
mod report;
mod step;
mod wire;
mod workers;

use codeq_test_servers::Redis;
use serde_json::{Value, json};
use tempfile::TempDir;

use course::{Course, Summary};
use report::Report;

/// How many hosts are killed on a server that outlives them: what is at stake is the host more than
/// the plugin.
const ROUNDS_BESIDE_A_SERVER: u32 = 25;
/// How many are killed that write to the disk themselves.
const ROUNDS_ON_A_FILE: u32 = 250;

/// Kills hosts of a provider, and has everything checked.
fn kill_hosts(provider: &str, config: &Value, rounds: u32) {
    match survive(provider, config, rounds) {
        Ok(summary) => println!("{summary}"),
        Err(report) => panic!("{report}"),
    }
}

fn survive(provider: &str, config: &Value, rounds: u32) -> Result<Summary, Box<Report>> {
    let seed = std::env::var("CODEQ_KILL_SEED").ok().map(|text| text.parse().expect("a number"));
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    // Shown with the output of a test that fails.
    println!("on {provider}, CODEQ_KILL_SEED={seed}");
    Course::new(provider, config, seed).run(rounds)
}

#[test]
fn what_a_killed_host_acknowledged_is_in_redis() {
    let redis = Redis::start();
    kill_hosts("redis", &json!({ "redisAddr": redis.addr() }), ROUNDS_BESIDE_A_SERVER);
}

#[test]
fn what_a_killed_host_acknowledged_is_in_its_sqlite_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("codeq.db");
    kill_hosts("sqlite", &json!({ "persistenceConfig": { "path": path } }), ROUNDS_ON_A_FILE);
}

#[test]
fn a_store_that_forgets_is_noticed_at_the_first_kill() {
    let report = survive("memory", &json!({}), 1).expect_err("nothing survives in memory");
    let text = report.to_string();
    for part in ["lost", "round 1", "CODEQ_KILL_SEED=", "enqueue", "look -> no such task"] {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}
