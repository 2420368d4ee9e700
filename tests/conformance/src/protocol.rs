//! What the kit and the processes that hold the plugin say to each other: a line of JSON each.

use std::path::PathBuf;

use codeq_plugin::Durability;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    history::{Final, Spell, Word},
    plan::Plan,
    report::{Figure, Outcome},
};

/// What the kit asks of an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Play a case.
    Play(Part),
    /// Work on the queues of a history.
    Work { config: Value, spell: Spell },
    /// Finish all that is left of a history, then tell what became of these tasks.
    Settle { config: Value, spell: Spell, ids: Vec<String> },
    /// Say how many tasks the backend has, and what its store promises.
    Look { config: Value },
    /// Open a store, and say how each of these goes until told otherwise.
    Watch { config: Value, scope: String },
    /// End the watch.
    Enough,
}

/// A case to play.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its place in the list of cases, which is the same in every process.
    pub(crate) case: usize,
    pub(crate) config: Value,
    /// Where `{dir}` is.
    pub(crate) dir: PathBuf,
    /// The command that spoils a record.
    pub(crate) corrupt: Option<String>,
    /// The prefix of its names.
    pub(crate) scope: String,
    /// Whether what it made is removed afterwards.
    pub(crate) clear: bool,
    pub(crate) plan: Plan,
}

/// What an agent tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Tale {
    /// A case has ended.
    Played {
        case: usize,
        outcome: Outcome,
        /// Whether it ended because an operation was not answered.
        unanswered: bool,
        figures: Vec<Figure>,
        peak_memory_kib: Option<u64>,
    },
    /// Something of a history happened.
    Word(Word),
    /// The work is over, or could not begin.
    Worked { fault: Option<String> },
    /// So many tasks are in the queues of the backend, and answered writes survive this. Nothing of it
    /// is known if the store did not open.
    Seen { tasks: u64, durability: Option<Durability> },
    /// All is settled.
    Settled(Final),
    /// How an operation of a watch went: its kind of error, if it failed.
    Watched { operation: String, error: Option<(String, String)>, millis: u64 },
}
