//! The conformance kit itself: it finds every fault, and only where the fault is.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and where"
)]

#[path = "../../plugins/mutants/src/faults.rs"]
#[allow(dead_code, reason = "how a fault is made is for its plugin to know")]
mod faults;
#[path = "../../plugins/mutants-redis/src/faults.rs"]
#[allow(dead_code, reason = "how a fault is made is for its plugin to know")]
mod redis_faults;
mod verified;

use std::{collections::BTreeSet, sync::Mutex, thread};

use faults::FAULTS;
use verified::{ON_REDIS, Verified, verify, verify_faulty};

/// How many faults are looked for at a time. The kit waits more than it works.
const AT_A_TIME: usize = 3;

#[test]
fn without_a_fault_the_plugin_keeps_the_contract() {
    let verified = verify("mutants", &["--quick", "--config", r#"{"fault": ""}"#]);
    assert!(verified.keeps_the_contract(), "{:#?}", verified.bad());
    assert_eq!(verified.broken(), BTreeSet::new());
}

#[test]
fn every_fault_fails_cases_of_the_rule_that_it_breaks_and_no_others() {
    let faults = FAULTS.iter().map(|fault| (fault.name, fault.rule)).collect();
    each_breaks_its_rule(faults, |fault| {
        let config = format!(r#"{{"fault": "{fault}"}}"#);
        verify("mutants", &["--quick", "--seed", "1", "--config", &config])
    });
}

#[test]
fn every_fault_with_a_backend_fails_cases_of_the_rule_that_it_breaks_and_no_others() {
    let faults = redis_faults::FAULTS.iter().map(|fault| (fault.name, fault.rule)).collect();
    // Those that the faults could be mistaken for.
    let rules = ["7", "11", "13", "15", "16", "life"].map(|rule| ["--rule", rule]);
    let args = [&["--quick", "--seed", "1"][..], rules.as_flattened(), &ON_REDIS].concat();
    each_breaks_its_rule(faults, |fault| verify_faulty("mutants-redis", fault, &args));
}

#[test]
fn a_plugin_that_promises_more_than_it_keeps_breaks_the_first_rule_and_no_others() {
    let promise = ["--quick", "--seed", "1", "--durability", "process"];
    each_breaks_its_rule(vec![("", "durability")], |fault| {
        let config = format!(r#"{{"fault": "{fault}"}}"#);
        verify("mutants", &[&promise[..], &["--config", &config]].concat())
    });
}

#[test]
fn every_rule_has_a_fault_that_breaks_it() {
    let memory = FAULTS.iter().map(|fault| fault.rule);
    let redis = redis_faults::FAULTS.iter().map(|fault| fault.rule);
    let broken: BTreeSet<&str> = memory.chain(redis).chain(["durability"]).collect();
    let verified = verify("memory", &["--quick", "--backlogs", "10"]);
    for rule in verified.rules() {
        assert!(broken.contains(rule), "no fault breaks the rule `{rule}`");
    }
}

/// Looks for faults, each of which breaks a rule.
fn each_breaks_its_rule(
    faults: Vec<(&'static str, &'static str)>,
    find: impl Fn(&str) -> Verified + Sync,
) {
    let left = Mutex::new(faults.into_iter());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((fault, rule)) = { left.lock().unwrap().next() } {
                    let verified = find(fault);
                    let mut broken = verified.broken();
                    // Figures are flagged, since a busy machine may be to blame for them.
                    if rule == "cost" {
                        broken.extend(verified.rules_with("flagged"));
                    }
                    if broken != BTreeSet::from([rule]) {
                        wrong.lock().unwrap().push(told(fault, rule, &verified));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn told(fault: &str, rule: &str, verified: &Verified) -> String {
    let cases: Vec<String> = verified
        .bad()
        .iter()
        .map(|case| format!("  {}: {}: {}", case["rule"], case["case"], case["why"]))
        .collect();
    let broken = verified.broken();
    format!("`{fault}` breaks `{rule}`, and the kit says {broken:?}\n{}", cases.join("\n"))
}
