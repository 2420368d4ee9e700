//! `codeq plugins verify`, as a program that reads its report.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::{collections::BTreeSet, process::Command};

use codeq_system_tests::{codeq, plugin};
use serde_json::Value;

/// How the kit starts a redis-server, reaches it, and spoils a record in it.
pub(crate) const ON_REDIS: [&str; 6] = [
    "--config",
    r#"{"addr": "127.0.0.1:{port}"}"#,
    "--backend",
    "redis-server --port {port} --bind 127.0.0.1 --dir {dir} --save '' --appendonly no",
    "--corrupt",
    "redis-cli -p {port} hset codeq:tasks {id} not-json",
];

/// The same with a cluster of one node, which finds in its file that it has all slots; the bus of the cluster
/// needs a port of its own.
pub(crate) const ON_CLUSTER: [&str; 6] = [
    "--config",
    r#"{"keyLayout": "cluster", "nodes": ["127.0.0.1:{port}"]}"#,
    "--backend",
    r#"sh -c 'test -e nodes.conf || printf "%040d 127.0.0.1:{port}@0 myself,master - 0 0 1 connected 0-16383\nvars currentEpoch 1 lastVoteEpoch 0\n" 1 > nodes.conf; exec redis-server --port {port} --bind 127.0.0.1 --dir {dir} --save "" --appendonly no --cluster-enabled yes --cluster-port $(({port} - 10000))'"#,
    "--corrupt",
    r#"redis-cli -p {port} hset "codeq:{$(redis-cli -p {port} get codeq:at:{{id}} | cut -d' ' -f1)}:tasks" {id} not-json"#,
];

/// Where the kit has sqlite keep its file, and how it spoils a record in it: with a text that is none.
pub(crate) const ON_SQLITE: [&str; 4] = [
    "--config",
    r#"{"path": "{dir}/codeq.db"}"#,
    "--corrupt",
    "sqlite3 {dir}/codeq.db \"UPDATE bodies SET payload = CAST(x'ff' AS TEXT) \
     WHERE seq = (SELECT seq FROM tasks WHERE id = '{id}')\"",
];

/// What came out.
pub(crate) struct Verified {
    pub(crate) report: Value,
    pub(crate) exit: Option<i32>,
    pub(crate) errors: String,
}

/// Verifies a compiled plugin of this workspace.
pub(crate) fn verify(name: &str, args: &[&str]) -> Verified {
    verify_faulty(name, "", args)
}

/// As [`verify`], with a fault that the environment chooses.
pub(crate) fn verify_faulty(name: &str, fault: &str, args: &[&str]) -> Verified {
    let output = Command::new(codeq())
        .env("CODEQ_FAULT", fault)
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

    /// The rules of which a case failed. A case that was not run builds on a rule that is broken.
    pub(crate) fn broken(&self) -> BTreeSet<&str> {
        self.rules_with("failed")
    }

    /// The rules that have cases.
    pub(crate) fn rules(&self) -> BTreeSet<&str> {
        self.cases().filter_map(|case| case["rule"].as_str()).collect()
    }

    /// The rules of which a case has that outcome.
    pub(crate) fn rules_with(&self, outcome: &str) -> BTreeSet<&str> {
        let with = self.cases().filter(|case| case["outcome"] == outcome);
        with.filter_map(|case| case["rule"].as_str()).collect()
    }
}
