//! The commands that ask a running host: tasks, queues, dead letters, and the profiles that say which
//! host that is.
//!
//! In the order in which a command meets them: [`input`] reads what people give, [`target`] finds out
//! which host is meant, from flags, the environment and [`profiles`]; [`api`] asks it, [`error`] says
//! what went wrong and what to do, and [`show`] writes the answer for people. Programs get the host's
//! JSON as it stands.

pub(super) mod dlq;
pub(super) mod profile;
pub(super) mod queue;
pub(super) mod task;

mod api;
mod error;
mod input;
mod profiles;
mod show;
mod target;
mod watch;

use std::future::Future;

use clap::Args;
use serde_json::Value;
use tokio::runtime::Builder;

use self::{
    api::{Answer, Api},
    target::{Connection, Role},
};
use super::{Failure, style};

/// Options of every command that asks a host.
#[derive(Args)]
struct Common {
    /// Write JSON as the host sends it, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Common {
    /// The host that is meant, asked in a role.
    fn api(&self, role: Role) -> Result<Api, Failure> {
        Api::new(&self.connection.target()?, role)
    }
}

/// Writes an answer: as it stands for programs, as `show` does for people.
fn tell(json: bool, answer: &Answer, show: impl FnOnce(&Value)) {
    if json { style::line(&answer.text) } else { show(&answer.value) }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}
