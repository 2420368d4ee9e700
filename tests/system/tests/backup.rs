//! `codeq backup`: a copy beside a serving host, and what happens if there can be none.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{fs, path::Path, process::Output};

use codeq_system_tests::{Host, plugin_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs `codeq backup` with the plugin hostile, which misbehaves `at` some place.
fn backup(at: &str, to: &Path, more: &[&str]) -> Output {
    let config = json!({ "at": at }).to_string();
    let env = [("PERSISTENCE_PROVIDER", "hostile"), ("PERSISTENCE_CONFIG", &*config)];
    run(to, more, &env)
}

fn run(to: &Path, more: &[&str], env: &[(&str, &str)]) -> Output {
    let plugins = plugin_dir(&["memory", "redis", "hostile"]);
    Host::run(plugins.path(), &[&["backup", to.to_str().unwrap()], more].concat(), env)
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// That there is no backup, for this reason.
fn assert_refused(output: &Output, exit: i32, parts: &[&str]) {
    let said = err(output);
    assert_eq!(output.status.code(), Some(exit), "{said}");
    assert!(output.stdout.is_empty(), "{said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "{part} is not in {said}"));
}

#[test]
fn a_backup_is_written_beside_a_serving_host_with_its_configuration() {
    let plugins = plugin_dir(&["hostile"]);
    let dir = TempDir::new().unwrap();
    let (to, file) = (dir.path().join("copy"), dir.path().join("codeq.yml"));
    let config = json!({
        "persistenceProvider": "hostile",
        "persistenceConfig": { "at": "nowhere" },
        "pluginDirs": [plugins.path()],
    });
    fs::write(&file, config.to_string()).unwrap();
    let host = Host::start(plugins.path(), config);
    let output = run(&to, &["--config", file.to_str().unwrap(), "--json"], &[]);
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(fs::read_to_string(&to).unwrap(), "nowhere");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["path"], to.to_str().unwrap());
    assert_eq!(told["plugin"], "hostile");
    assert_eq!((&told["tasks"], &told["bytes"]), (&json!(3), &json!(7)));
    assert!(told["millis"].is_u64(), "{told}");
    assert_eq!(host.client().get("/readyz").status, 200);
}

#[test]
fn a_backup_is_told_with_its_absolute_path_to_people_too() {
    let plugins = plugin_dir(&["hostile"]);
    let env = [("PERSISTENCE_PROVIDER", "hostile"), ("PERSISTENCE_CONFIG", r#"{"at": "nowhere"}"#)];
    // The working directory is one of the run's own.
    let output = Host::run(plugins.path(), &["backup", "copy"], &env);
    assert!(output.status.success(), "{}", err(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["backup written", "/copy\n", "hostile", "tasks", "3\n", "bytes", "7\n", "took"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn a_backup_overwrites_nothing() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("mine");
    fs::write(&to, "mine").unwrap();
    for taken in [&to, dir.path()] {
        let output = backup("nowhere", taken, &[]);
        assert_refused(&output, 2, &[taken.to_str().unwrap(), "is there already"]);
    }
    assert_eq!(fs::read_to_string(&to).unwrap(), "mine");
    // Whoever comes first while the plugin is at it.
    let to = dir.path().join("raced");
    assert_refused(&backup("race", &to, &[]), 2, &["`hostile` could not make the backup"]);
    assert_eq!(fs::read_to_string(&to).unwrap(), "");
}

#[test]
fn a_plugin_without_backups_says_what_to_do_instead() {
    let dir = TempDir::new().unwrap();
    for name in ["memory", "redis"] {
        let to = dir.path().join(name);
        let output = run(&to, &["--json"], &[("PERSISTENCE_PROVIDER", name)]);
        let plugin = format!("plugin `{name}` makes no backups");
        assert_refused(&output, 1, &[&plugin, "back up its server by that server's own means"]);
        assert!(!to.exists());
    }
}

#[test]
fn a_backup_that_fails_is_an_error_with_the_name_of_the_plugin() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("copy");
    for (at, why) in [
        ("backup", "it panicked: the payload of the panic"),
        ("start", "it panicked: the payload of the panic"),
        ("unavailable", "the backend is away"),
    ] {
        let output = backup(at, &to, &[]);
        assert_refused(&output, 1, &["plugin `hostile` could not make the backup", why]);
        assert!(!to.exists());
    }
}

#[test]
fn a_plugin_is_checked_for_a_backup_as_for_serving() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("copy");
    let hostile = ("PERSISTENCE_PROVIDER", "hostile");
    for (env, exit, part) in [
        (vec![("PERSISTENCE_PROVIDER", "memroy")], 2, "P-UNKNOWN: "),
        (vec![hostile, ("PERSISTENCE_CONFIG", r#"{"at": 1}"#)], 2, "persistenceConfig.at"),
        (
            vec![
                hostile,
                ("PERSISTENCE_CONFIG", r#"{"at": "nowhere"}"#),
                (
                    "CODEQ_PLUGIN_DIGESTS",
                    r#"{"hostile": "0000000000000000000000000000000000000000000000000000000000000000"}"#,
                ),
            ],
            1,
            "P-DIGEST: ",
        ),
    ] {
        assert_refused(&run(&to, &[], &env), exit, &[part]);
    }
    assert_eq!(run(&to, &["--nonsense"], &[]).status.code(), Some(2));
    assert!(!to.exists());
}
