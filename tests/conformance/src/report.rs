//! What the kit found out.

use codeq_plugin::{Capability, Durability};
use serde::{Deserialize, Serialize};

use crate::case::Rule;

/// The report about one plugin.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// What answered writes were held to survive.
    pub durability: Durability,
    /// What the plugin declares to be able to do.
    pub capabilities: Vec<Capability>,
    /// What the random choices came from; the same seed makes the same choices.
    pub seed: u64,
    /// Every case, in the order of the contract.
    pub cases: Vec<Verdict>,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// The most memory that a process with the plugin used, in KiB, where the system tells.
    pub peak_memory_kib: Option<u64>,
}

/// What came out of one case.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The rule that it proves.
    pub rule: Rule,
    /// The case, as a sentence.
    pub case: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What it measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The plugin does what it must.
    Passed,
    /// The plugin does not promise this, or the kit was not told how to try it.
    NotApplicable {
        /// Which of the two, and what to do in the second case.
        why: String,
    },
    /// A figure that deserves a look.
    Flagged {
        /// Which one.
        why: String,
    },
    /// The plugin does not do what it must.
    Failed {
        /// What was expected, and what happened.
        why: String,
    },
    /// It was not tried.
    NotRun {
        /// Why not.
        why: String,
    },
}

/// A measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// How many tasks there were.
    pub tasks: u64,
    /// The median, in nanoseconds.
    pub nanos: u64,
}

impl Report {
    /// Whether every case passed that the plugin must pass, and was run.
    pub fn passed(&self) -> bool {
        !self.cases.iter().any(|verdict| {
            matches!(verdict.outcome, Outcome::Failed { .. } | Outcome::NotRun { .. })
        })
    }

    /// The verdicts on one rule.
    pub fn of(&self, rule: Rule) -> impl Iterator<Item = &Verdict> {
        self.cases.iter().filter(move |verdict| verdict.rule == rule)
    }
}
