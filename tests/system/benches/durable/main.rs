//! What durable cycles cost: enqueue + claim + complete by many waiting clients, each step answered
//! only when it is on disk; and what becomes of it as the store grows.
//!
//! `cycles` compares the loaded plugin with SQLite as one would first write it, and with the least
//! that being durable can cost. `growth` compares the plugin with itself, full and empty. Contestants
//! take turns within one run, on one machine, under the same clients: their ratios are what counts.
//!
//! `cargo bench -p codeq-system-tests --bench durable -- cycles --quick` runs one part, shortly;
//! [`options`] lists the rest. `make bench` runs all of it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that cannot be set up fails"
)]

mod contestant;
mod cycles;
mod disk;
mod growth;
mod log;
mod mailbox;
mod naive;
mod options;
#[path = "../shared/plugin.rs"]
mod plugin;
mod provider;
#[path = "../shared/report.rs"]
mod report;
#[path = "../shared/requests.rs"]
mod requests;
mod rounds;

use tokio::runtime::Builder;

use crate::{
    disk::Disk,
    options::{Options, Part},
    provider::Provider,
};

/// Threads that run the clients, whatever they talk to.
const CLIENT_THREADS: usize = 2;

fn main() {
    let options = Options::from_args();
    let disk = Disk::choose();
    let provider = Provider::build(&options.provider);
    let runtime =
        Builder::new_multi_thread().worker_threads(CLIENT_THREADS).enable_all().build().unwrap();
    println!("{}", disk.describe());
    for part in &options.parts {
        match part {
            Part::Cycles => runtime.block_on(cycles::run(&options, &disk, &provider)),
            Part::Growth => runtime.block_on(growth::run(&options, &disk, &provider)),
        }
    }
}
