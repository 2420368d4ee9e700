//! `codeq plugins verify`, as a program that reads its report.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::process::Command;

use codeq_system_tests::{codeq, plugin};
use serde_json::Value;

/// What came out.
pub(crate) struct Verified {
    pub(crate) report: Value,
    pub(crate) exit: Option<i32>,
    pub(crate) errors: String,
}

/// Verifies a compiled plugin of this workspace.
pub(crate) fn verify(name: &str, args: &[&str]) -> Verified {
    let output = Command::new(codeq())
        .args(["plugins", "verify", "--json"])
        .arg(plugin(name))
        .args(args)
        .output()
        .expect("codeq runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no report of `{name}` {args:?}: {error}: {errors}"));
    Verified { report, exit: output.status.code(), errors }
}

impl Verified {
    pub(crate) fn keeps_the_contract(&self) -> bool {
        self.exit == Some(0) && self.bad().is_empty() && self.cases().count() > 0
    }

    fn cases(&self) -> impl Iterator<Item = &Value> {
        self.report["cases"].as_array().into_iter().flatten()
    }

    /// The cases that failed or could not be run.
    pub(crate) fn bad(&self) -> Vec<&Value> {
        let bad = |case: &&Value| case["outcome"] == "failed" || case["outcome"] == "not-run";
        self.cases().filter(bad).collect()
    }

    /// The cases with an outcome, by name.
    pub(crate) fn with(&self, outcome: &str) -> Vec<&str> {
        let with = self.cases().filter(|case| case["outcome"] == outcome);
        with.filter_map(|case| case["case"].as_str()).collect()
    }

    /// The rules of which a case failed, or was flagged.
    pub(crate) fn broken(&self) -> std::collections::BTreeSet<&str> {
        let broken = |case: &&Value| {
            ["failed", "not-run", "flagged"].iter().any(|outcome| case["outcome"] == **outcome)
        };
        self.cases().filter(broken).filter_map(|case| case["rule"].as_str()).collect()
    }
}
