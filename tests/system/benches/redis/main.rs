//! What tasks cost a redis-server: the loaded plugin with batches and with single operations of many
//! callers, beside the bare commands that no queue in Redis could do without, and beside other queues.
//!
//! A server has one core for commands, so what counts is how much of it a task takes: the server's own
//! account of its processor time, which does not mind that the clients share the machine with it.
//!
//! `cargo bench -p codeq-system-tests --bench redis -- rates --quick` runs one part, shortly;
//! [`options`] lists the rest. `make bench` runs all of it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that cannot be set up fails"
)]

mod bare;
mod drive;
mod growth;
mod options;
mod peers;
#[path = "../shared/plugin.rs"]
mod plugin;
mod rates;
#[path = "../shared/report.rs"]
mod report;
#[path = "../shared/requests.rs"]
mod requests;
mod server;

use tokio::runtime::Builder;

use crate::{
    options::{Options, Part},
    plugin::Plugin,
};

fn main() {
    let options = Options::from_args();
    let plugin = Plugin::build("redis");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for part in &options.parts {
        match part {
            Part::Rates => runtime.block_on(rates::run(&options, &plugin)),
            Part::Growth => runtime.block_on(growth::run(&options, &plugin)),
            Part::Peers => runtime.block_on(peers::run(&options, &plugin)),
        }
    }
}
