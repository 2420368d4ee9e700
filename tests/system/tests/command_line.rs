//! The program `codeq`: what it prints, and how it exits.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use codeq_system_tests::{Host, plugin, plugin_dir};
use serde_json::Value;

/// Runs the program with the plugins memory and hostile.
fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let dir = plugin_dir(&["memory", "hostile"]);
    Host::run(dir.path(), args, env)
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

const MEMORY: (&str, &str) = ("PERSISTENCE_PROVIDER", "memory");

#[test]
fn plugins_are_listed_with_what_they_are() {
    let output = run(&["plugins", "list"], &[MEMORY]);
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    for part in ["NAME", "memory", "volatile", "subscriptions, listing", "hostile", "searched"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.lines().any(|line| line.starts_with('*') && line.contains("memory")), "{text}");
}

#[test]
fn plugins_are_listed_as_json() {
    let list = json(&run(&["plugins", "list", "--json"], &[MEMORY]));
    assert_eq!(list["selected"], "memory");
    let names: Vec<_> = list["plugins"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[1]["manifest"]["name"], "memory");
    assert_eq!(names[1]["manifest"]["interface"]["major"], 1);
}

#[test]
fn refused_plugins_are_listed_with_their_code() {
    let dir = plugin_dir(&["memory"]);
    fs::write(dir.path().join("empty.so"), b"").unwrap();
    let output = Host::run(dir.path(), &["plugins", "list"], &[]);
    assert!(output.status.success());
    assert!(out(&output).contains("P-EMPTY"), "{}", out(&output));
    let list = json(&Host::run(dir.path(), &["plugins", "list", "--json"], &[]));
    assert_eq!(list["refused"][0]["code"], "P-EMPTY");
}

#[test]
fn a_plugin_is_inspected_without_being_run() {
    let path = plugin("redis").to_str().unwrap();
    let output = run(&["plugins", "inspect", path], &[]);
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    for part in ["redis", "durability", "process", "persistenceConfig", "addr", "panic=unwind"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let described = json(&run(&["plugins", "inspect", path, "--json"], &[]));
    assert_eq!(described["manifest"]["name"], "redis");
}

#[test]
fn a_plugin_that_is_unfit_fails_its_inspection_with_its_code() {
    let dir = plugin_dir(&[]);
    let file = dir.path().join("text.so");
    fs::write(&file, "hello").unwrap();
    let path = file.to_str().unwrap();
    let output = run(&["plugins", "inspect", path], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("P-NOT-LIBRARY"), "{}", err(&output));
    let output = run(&["plugins", "inspect", path, "--json"], &[]);
    assert_eq!((output.status.code(), &json(&output)["code"]), (Some(1), &"P-NOT-LIBRARY".into()));
}

#[test]
fn the_configuration_is_shown_with_its_origins_and_without_secrets() {
    let env = [MEMORY, ("REDIS_PASSWORD", "s3cret"), ("PORT", "81")];
    let output = run(&["config", "show"], &env);
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    assert!(!text.contains("s3cret"), "{text}");
    assert!(text.contains("# environment: PORT"), "{text}");
    let shown = json(&run(&["config", "show", "--json"], &env));
    assert_eq!(shown["port"]["value"], 81);
    assert_eq!(shown["redisPassword"]["value"], "******");
}

#[test]
fn what_is_shown_is_a_configuration_file() {
    let dir = plugin_dir(&["memory"]);
    let env = [MEMORY, ("BACKOFF_POLICY", "linear")];
    let shown = out(&Host::run(dir.path(), &["config", "show"], &env));
    let file = dir.path().join("codeq.yml");
    fs::write(&file, &shown).unwrap();
    let args = ["config", "show", "--json", "--config", file.to_str().unwrap()];
    let output = Host::run(dir.path(), &args, &[]);
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(json(&output)["backoffPolicy"]["value"], "linear");
}

#[test]
fn a_configuration_is_checked_together_with_its_plugin() {
    let good = run(&["config", "check"], &[MEMORY]);
    assert!(good.status.success(), "{}", err(&good));
    assert!(out(&good).contains("configuration ok"), "{}", out(&good));
    for (env, part) in [
        (vec![("PERSISTENCE_PROVIDER", "memroy")], "did you mean `memory`?"),
        (vec![MEMORY, ("PERSISTENCE_CONFIG", r#"{"size": 1}"#)], "persistenceConfig.size"),
        (vec![MEMORY, ("PORT", "many")], "environment variable PORT"),
        (vec![MEMORY, ("WORKER_AUTH_PROVIDER", "static")], "needs a `token`"),
    ] {
        let output = run(&["config", "check"], &env);
        assert_eq!(output.status.code(), Some(2), "{env:?}");
        assert!(err(&output).contains(part), "{part} is not in {}", err(&output));
    }
}

#[test]
fn a_setting_of_a_plugin_may_be_a_number_in_a_variable() {
    let dir = plugin_dir(&["redis"]);
    let file = dir.path().join("codeq.yml");
    let yaml =
        "persistenceConfig:\n  db: ${REDIS_DB}\n  tls: \"${REDIS_TLS}\"\n  password: ${SECRET}\n";
    fs::write(&file, yaml).unwrap();
    let check = |db| {
        let env = [("REDIS_DB", db), ("REDIS_TLS", "true"), ("SECRET", "1234")];
        let args = ["config", "check", "--config", file.to_str().unwrap()];
        Host::run(dir.path(), &args, &env)
    };
    let good = check("3");
    assert!(good.status.success(), "{}", err(&good));
    let wrong = check("three");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("persistenceConfig.db"), "{}", err(&wrong));
}

#[test]
fn a_token_of_no_tenant_is_told_before_anybody_uses_it() {
    let tokens = r#"{"token": "s3cret", "subject": "Ann@example.org"}"#;
    let env = [MEMORY, ("WORKER_AUTH_PROVIDER", "static"), ("WORKER_AUTH_CONFIG", tokens)];
    let output = run(&["config", "check"], &env);
    assert!(output.status.success(), "{}", err(&output));
    for part in ["warning", "`workerAuthConfig`", "`Ann@example.org`", "raw: { tenantId: … }"] {
        assert!(err(&output).contains(part), "{part} is not in {}", err(&output));
    }
    assert!(!err(&output).contains("s3cret"), "{}", err(&output));
}

#[test]
fn an_unknown_provider_is_a_wrong_configuration() {
    let output = run(&["serve"], &[("PERSISTENCE_PROVIDER", "memroy")]);
    assert_eq!(output.status.code(), Some(2));
    let said = err(&output);
    for part in ["P-UNKNOWN", "did you mean `memory`?", "hostile (", "searched: "] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&["serve"], &[MEMORY, ("PORT", &port)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{}",
        err(&output)
    );
}

#[test]
fn a_new_plugin_is_written_whole_and_with_its_name() {
    let dir = plugin_dir(&[]);
    let into = dir.path().join("deep/my-shelf");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let args = ["plugins", "new", "my-shelf", "--dir", into.to_str().unwrap()];
    let output = run(&[&args[..], &["--codeq-path", root]].concat(), &[]);
    assert!(output.status.success(), "{}", err(&output));
    for part in ["wrote the plugin my-shelf", "cargo test", "libmy_shelf", "codeq serve"] {
        assert!(out(&output).contains(part), "{part} is not in\n{}", out(&output));
    }
    let files = texts(&into);
    for (path, part) in [
        ("Cargo.toml", "name = \"my-shelf\""),
        ("Cargo.toml", "/plugin-interface\", default-features = false"),
        ("src/lib.rs", "name: env!(\"CARGO_PKG_NAME\"),"),
        ("src/config.schema.json", "maxTasks"),
        ("tests/contract.rs", "codeq_host::verify::this_crate"),
        ("README.md", "libmy_shelf.so"),
        (".gitignore", "/target"),
        (".github/workflows/ci.yml", "target/release/libmy_shelf.so"),
    ] {
        let text = &files[path];
        assert!(text.contains(part), "{part} is not in {path}:\n{text}");
    }
    for (path, text) in &files {
        assert!(!text.contains("{{"), "{path} has a gap:\n{text}");
    }
    let manifest = cargo_metadata(&into);
    assert_eq!(manifest["packages"][0]["name"], "my-shelf");
    let modules =
        fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../host/src/cli/new/template/src"));
    for module in modules.unwrap() {
        let path = format!("src/{}", module.unwrap().file_name().to_str().unwrap());
        assert!(files.contains_key(&path), "{path} was not written");
    }
}

/// Every file below a directory, by its path in it.
fn texts(dir: &Path) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                texts.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}

/// What cargo reads in a crate, without looking at what it depends on.
fn cargo_metadata(dir: &Path) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", err(&output));
    json(&output)
}

#[test]
fn a_new_plugin_depends_on_this_version_unless_told_otherwise() {
    let dir = plugin_dir(&[]);
    for (flags, source) in [
        (&[][..], concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"")),
        (&["--codeq-git", "https://example.org/codeq"], "git = \"https://example.org/codeq\""),
    ] {
        let into = dir.path().join(flags.len().to_string());
        let args = ["plugins", "new", "shelf", "--dir", into.to_str().unwrap()];
        let output = run(&[&args[..], flags].concat(), &[]);
        assert!(output.status.success(), "{}", err(&output));
        let text = fs::read_to_string(into.join("Cargo.toml")).unwrap();
        for line in [
            format!("codeq-plugin = {{ {source}, default-features = false }}"),
            format!("codeq-host = {{ {source} }}"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        cargo_metadata(&into);
    }
}

#[test]
fn a_new_plugin_needs_a_name_that_can_be_selected_and_compiled() {
    let long = "x".repeat(64);
    for name in ["Shelf", "my_shelf", "7up", "", "a/b", "..", "fn", "std", "codeq-plugin", &long] {
        let output = run(&["plugins", "new", name], &[]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let said = err(&output);
        assert!(said.contains(&format!("`{name}` cannot be the name of a plugin")), "{said}");
    }
}

#[test]
fn a_new_plugin_overwrites_nothing() {
    let dir = plugin_dir(&[]);
    let kept = dir.path().join("kept.txt");
    fs::write(&kept, "mine").unwrap();
    for (taken, why) in [(dir.path(), "is not empty"), (&kept, "is not a directory")] {
        let taken = taken.to_str().unwrap();
        let output = run(&["plugins", "new", "shelf", "--dir", taken], &[]);
        assert_eq!(output.status.code(), Some(2));
        let said = err(&output);
        assert!(said.contains(&format!("{taken} {why}")) && said.contains("--dir"), "{said}");
    }
    assert_eq!(texts(dir.path()).into_values().collect::<Vec<_>>(), ["mine"]);
}

#[test]
fn a_new_plugin_is_not_built_against_what_is_not_codeq() {
    let dir = plugin_dir(&[]);
    let elsewhere = dir.path().to_str().unwrap();
    let output = run(&["plugins", "new", "shelf", "--codeq-path", elsewhere], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains(&format!("--codeq-path: {elsewhere}")), "{}", err(&output));
    let both = ["--codeq-path", elsewhere, "--codeq-git", "https://example.org"];
    let output = run(&[&["plugins", "new", "shelf"][..], &both].concat(), &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_wrong_usage_is_told_apart_from_a_failure() {
    for args in [&["sreve"][..], &["plugins"], &["serve", "--nonsense"], &[]] {
        assert_eq!(run(args, &[]).status.code(), Some(2), "{args:?}");
    }
    assert!(run(&["--version"], &[]).status.success());
    assert!(out(&run(&["--help"], &[])).contains("serve"));
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    for args in [&["plugins", "list"][..], &["config", "show"], &["config", "check"], &["--help"]] {
        let output = run(args, &[MEMORY]);
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{args:?}");
    }
}

#[test]
fn a_codeq_server_s_file_is_taken_as_it_stands() {
    let dir = plugin_dir(&["memory"]);
    let file = dir.path().join("codeq.yml");
    let yaml = "\
        env: Production\n\
        logLevel: warning\n\
        logFormat: logfmt\n\
        persistenceProvider: memory\n\
        persistenceConfig: '{}'\n\
        identityServiceUrl: https://id.example.org\n\
        identityAudience: queue\n\
        workerAuthProvider: static\n\
        workerAuthConfig: '{\"token\": \"s3cret\", \"subject\": \"worker-1\"}'\n\
        workerStreamAddr: ':9091'\n\
        maxAttemptsDefault: 0\n\
        rateLimit: {producer: {requestsPerMinute: -1, burstSize: 0}}\n\
        sharding: {enabled: false}\n";
    fs::write(&file, yaml).unwrap();
    let args = ["config", "check", "--config", file.to_str().unwrap()];
    let output = Host::run(dir.path(), &args, &[]);
    assert!(output.status.success(), "{}", err(&output));
    for part in ["`workerStreamAddr`: has no effect", "the default 5 is taken", "json is taken"] {
        assert!(err(&output).contains(part), "{part} is not in {}", err(&output));
    }
    assert!(out(&output).contains("0.0.0.0:8080"), "{}", out(&output));
}

#[test]
fn a_codeq_server_s_configuration_is_carried_over() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (theirs, ours) = (path("theirs.yml"), path("ours.yml"));
    let yaml = "port: 9000\npersistenceProvider: memory\nworkerStreamAddr: ':9091'\n\
                colour: red\ndefaultLeaseSeconds: 0\n";
    fs::write(&theirs, yaml).unwrap();
    let secret = ("WEBHOOK_HMAC_SECRET", "hunter2");
    let output = run(&["config", "import", &theirs, "--output", &ours], &[secret]);
    let said = err(&output);
    assert_eq!(output.status.code(), Some(1), "producers lost their provider: {said}");
    for part in [
        "`producerAuthProvider`",
        "`workerStreamAddr`",
        "`colour`",
        "`defaultLeaseSeconds`: is 0",
        "timezone",
        "`webhookAllowPrivate`: is not set",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let written = fs::read_to_string(&ours).unwrap();
    assert!(!written.contains("hunter2") && !said.contains("hunter2"), "{written}\n{said}");
    let checked = run(&["config", "check", "--config", &ours], &[secret]);
    assert!(checked.status.success(), "{}\n{written}", err(&checked));
    // What is there is not overwritten.
    let again = run(&["config", "import", &theirs, "--output", &ours], &[]);
    assert_eq!(again.status.code(), Some(2));
    assert!(err(&again).contains("is there already"), "{}", err(&again));
    // Without a file to write it is printed, and nothing else is.
    let printed = run(&["config", "import", &theirs], &[secret]);
    // Each run has plugins of its own.
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("pluginDirs")).map(str::to_owned).collect()
    };
    assert_eq!(lines(&out(&printed)), lines(&written));
}
