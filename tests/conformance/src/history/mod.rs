//! Histories: what many workers and producers saw, written down with times and checked afterwards.
//!
//! - [`work`]: the load. It runs in the processes that hold the plugin, and tells of every step when it
//!   begins and when it is answered, so that a process may be killed at any moment.
//! - [`check`]: what must hold in every history.
//! - [`shrink`]: makes a history that does not hold as short as it gets, and draws its time line.

pub mod check;
pub mod shrink;
pub mod work;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A moment, in microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// What a load is like.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spell {
    /// The prefix of the names on the backend.
    pub scope: String,
    /// Who does it; several processes work on one history at a time, each under a name of its own.
    pub actor: String,
    /// What its random choices come from.
    pub seed: u64,
    /// How many workers claim.
    pub workers: u32,
    /// How many producers enqueue.
    pub producers: u32,
    /// For how long, in milliseconds.
    pub millis: u64,
}

/// A word of a process about its work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Word {
    /// A step begins.
    Begin {
        /// Tells the steps of a process apart.
        step: u64,
        /// When.
        at: Micros,
        /// Which thread of the process.
        thread: String,
        /// What it asks for.
        deed: Deed,
    },
    /// A step was answered.
    End {
        /// Which one.
        step: u64,
        /// When.
        at: Micros,
        /// With what.
        answer: Answer,
    },
}

/// What is asked of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the requests")]
pub enum Deed {
    Enqueue {
        id: String,
        command: String,
        priority: i64,
        key: String,
        visible_at: i64,
        max_attempts: u32,
    },
    Claim {
        worker: String,
        commands: Vec<String>,
        lease: i64,
    },
    Extend {
        id: String,
        worker: String,
        attempt: u32,
    },
    Abandon {
        id: String,
        worker: String,
        attempt: u32,
    },
    Nack {
        id: String,
        worker: String,
        attempt: u32,
        delay: i64,
    },
    Complete {
        id: String,
        worker: String,
        attempt: u32,
    },
}

/// What the store answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the answers")]
pub enum Answer {
    Enqueued {
        id: String,
        created: bool,
    },
    Claimed {
        tasks: Vec<Got>,
    },
    /// The new deadline of a lease.
    Until {
        deadline: i64,
    },
    Done,
    /// An error that the contract knows for this case.
    Refused {
        kind: String,
    },
    /// Any other error.
    Failed {
        kind: String,
        text: String,
    },
}

/// A task as it was claimed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the task")]
pub struct Got {
    pub id: String,
    pub command: String,
    pub priority: i64,
    pub attempts: u32,
    pub max_attempts: u32,
    /// Milliseconds.
    pub lease_until: i64,
}

/// A step of a history.
#[derive(Clone, Debug)]
pub struct Step {
    /// The process and its thread.
    pub who: String,
    /// When it began.
    pub begin: Micros,
    /// What was asked.
    pub deed: Deed,
    /// When it was answered, and with what; nothing if the process was killed before.
    pub end: Option<(Micros, Answer)>,
}

/// What was left when all had settled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Final {
    /// The state and place of each task; nothing if it is not there.
    pub tasks: BTreeMap<String, Option<(String, String)>>,
    /// Ready, delayed, leased and dead in all queues.
    pub counts: [u64; 4],
    /// What did not settle in time.
    pub fault: Option<String>,
}

/// A whole history.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The steps, in the order in which they began.
    pub steps: Vec<Step>,
    /// What was left.
    pub left: Final,
}

impl History {
    /// Puts a history together from what its processes said.
    pub fn of(words: impl IntoIterator<Item = (String, Word)>, left: Final) -> History {
        let mut steps: Vec<Step> = Vec::new();
        let mut open: BTreeMap<(String, u64), usize> = BTreeMap::new();
        for (process, word) in words {
            match word {
                Word::Begin { step, at, thread, deed } => {
                    open.insert((process.clone(), step), steps.len());
                    let who = format!("{process}/{thread}");
                    steps.push(Step { who, begin: at, deed, end: None });
                }
                Word::End { step, at, answer } => {
                    if let Some(index) = open.remove(&(process, step)) {
                        steps[index].end = Some((at, answer));
                    }
                }
            }
        }
        steps.sort_by_key(|step| step.begin);
        History { steps, left }
    }

    /// The tasks whose enqueueing was answered.
    pub fn acknowledged(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match &step.end {
            Some((_, Answer::Enqueued { id, .. })) => Some(id.as_str()),
            _ => None,
        })
    }
}
