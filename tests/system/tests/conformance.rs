//! The shipped plugins against the whole storage contract, as anybody verifies a plugin.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and where"
)]

mod verified;

use std::{process::Command, thread};

use codeq_system_tests::{codeq, plugin, start_on};
use codeq_test_servers::Redis;
use serde_json::{Value, json};
use verified::{ON_CLUSTER, ON_REDIS, ON_SQLITE, Verified, verify, verify_faulty};

#[test]
fn memory_keeps_the_contract() {
    let verified = verify("memory", &["--quick"]);
    assert!(verified.keeps_the_contract(), "{:#?}", verified.bad());
}

#[test]
fn what_codeq_plugins_new_writes_keeps_the_contract() {
    let verified = verify("template", &["--quick"]);
    assert!(verified.keeps_the_contract(), "{:#?}", verified.bad());
}

#[test]
fn redis_keeps_the_contract() {
    let verified = verify("redis", &[&["--quick"][..], &ON_REDIS].concat());
    assert!(verified.keeps_the_contract(), "{:#?}", verified.bad());
    // With a server to stop and records to spoil there is nothing that was not tried.
    assert_eq!(verified.with("not-applicable"), [""; 0]);
}

#[test]
fn redis_keeps_the_contract_in_a_cluster() {
    let verified = verify("redis", &[&["--quick"][..], &ON_CLUSTER].concat());
    assert!(verified.keeps_the_contract(), "{:#?}", verified.bad());
    assert_eq!(verified.with("not-applicable"), [""; 0]);
}

#[test]
fn sqlite_keeps_the_contract() {
    let verified = verify("sqlite", &[&["--quick"][..], &ON_SQLITE].concat());
    assert!(verified.keeps_the_contract(), "{:#?}", verified.bad());
}

#[test]
fn sqlite_that_does_not_wait_for_the_disk_survives_its_host() {
    let config = r#"{"path": "{dir}/codeq.db", "durability": "process"}"#;
    let args = ["--quick", "--rule", "1", "--durability", "process", "--config", config];
    let verified = verify("sqlite", &args);
    assert!(verified.keeps_the_contract(), "{:#?}", verified.bad());
}

#[test]
fn redis_that_writes_to_disk_loses_nothing_with_its_host_either() {
    let args = [
        "--rule",
        "1",
        "--config",
        r#"{"addr": "127.0.0.1:{port}"}"#,
        "--backend",
        "redis-server --port {port} --bind 127.0.0.1 --dir {dir} --appendonly yes --appendfsync always",
    ];
    let verified = verify("redis", &args);
    assert!(verified.keeps_the_contract(), "{:#?}", verified.bad());
}

#[test]
fn a_report_names_the_rule_the_case_and_what_went_wrong() {
    // What memory forgets with its host breaks the first rule, once more is promised for it.
    let verified = verify("memory", &["--quick", "--rule", "1", "--durability", "process"]);
    assert_eq!(verified.exit, Some(1));
    let [bad] = &verified.bad()[..] else { panic!("{:#?}", verified.report) };
    assert_eq!(bad["rule"], "durability");
    assert_eq!(bad["case"], "what was answered survives kill 9 of the host");
    let why = bad["why"].as_str().unwrap();
    assert!(why.contains("was enqueued, and is not there any more"), "{why}");
    assert!(why.contains("enqueue h0-p"), "there is no time line: {why}");
}

#[test]
fn a_plugin_is_held_to_what_its_store_promises_unless_told_otherwise() {
    let settings = r#"{"at": "nowhere", "durability": "process"}"#;
    let args = ["--quick", "--rule", "1", "--config", settings];
    for (level, args) in
        [("process", &args[..]), ("volatile", &[&args[..], &["--durability", "volatile"]].concat())]
    {
        let report = verify("hostile", args).report;
        assert_eq!(report["durability"], level, "{report:#}");
        let cases: Vec<&Value> = report["cases"].as_array().unwrap().iter().collect();
        let kills = cases.iter().any(|case| case["case"].as_str().unwrap().contains("kill 9"));
        assert_eq!(kills, level == "process", "{report:#}");
    }
}

#[test]
fn a_backend_that_has_tasks_is_left_alone() {
    let redis = Redis::start();
    let host = start_on("redis", Some(&redis), &json!({}));
    host.client().create("render");
    drop(host);
    let config = json!({ "addr": redis.addr() }).to_string();
    let output = Command::new(codeq())
        .args(["plugins", "verify", "--quick", "--config", &config])
        .arg(plugin("redis"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the backend has 1 tasks already"), "{said}");
}

/// What is verified need not be well behaved. Each of these would hang or end a program that loaded it
/// and trusted it.
#[test]
fn a_hostile_plugin_ends_in_a_report() {
    let ways = ["open", "start", "call", "poll", "value", "future", "drop", "close", "count"];
    let more = ["health", "ids", "leak", "durability"];
    each(&[&ways[..], &more].concat(), |_, _| {});
}

#[test]
fn a_plugin_that_never_answers_ends_in_a_report() {
    each(&["never", "block"], |way, verified| {
        assert!(!verified.with("not-run").is_empty(), "it went on for ever: {way}");
    });
}

#[test]
fn a_plugin_that_ends_its_process_ends_in_a_report() {
    each(&["exit", "abort"], |way, verified| {
        let why = verified.bad().iter().filter_map(|bad| bad["why"].as_str()).collect::<String>();
        assert!(why.contains("the process with the plugin died"), "{way}: {why}");
    });
}

#[test]
fn a_plugin_that_ends_its_process_when_it_is_loaded_ends_in_a_report() {
    let args = ["--quick", "--config", r#"{"at": ""}"#];
    let verified = verify_faulty("hostile", "at-loading", &args);
    assert_eq!(verified.exit, Some(1), "{}", verified.errors);
    let failed = verified.with("failed");
    assert_eq!(failed, ["the plugin can be loaded"]);
    assert!(verified.with("passed").is_empty());
}

/// Verifies the hostile plugin in several ways at a time.
fn each(ways: &[&str], check: impl Fn(&str, &Verified) + Sync) {
    thread::scope(|scope| {
        for way in ways {
            let check = &check;
            scope.spawn(move || {
                let config = format!(r#"{{"at": "{way}"}}"#);
                let verified = verify("hostile", &["--quick", "--config", &config]);
                assert_eq!(verified.exit, Some(1), "{way}: {}", verified.errors);
                assert!(!verified.bad().is_empty(), "{way}");
                assert_eq!(verified.report["plugin"], "hostile", "{way}");
                check(way, &verified);
            });
        }
    });
}
