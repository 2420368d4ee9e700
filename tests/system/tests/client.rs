//! The commands that ask a running host: what they do, what they print, and how they exit.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use codeq_system_tests::{Host, Setup, codeq, plugin_dir};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Somebody at a shell of his own.
struct Person {
    home: TempDir,
    env: Vec<(&'static str, String)>,
}

impl Person {
    fn new() -> Person {
        Person { home: TempDir::new().unwrap(), env: Vec::new() }
    }

    /// Somebody whose environment names a host.
    fn at(host: &Host) -> Person {
        Person::new().with("CODEQ_URL", format!("http://{}", host.addr()))
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Person {
        self.env.push((name, value.into()));
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(codeq());
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a command that succeeds prints.
    fn out(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", err(&output));
        out(&output)
    }

    /// The JSON of a command that succeeds.
    fn json(&self, args: &[&str]) -> Value {
        let printed = self.out(&[args, &["--json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// What a command that fails with a code says.
    fn error(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", out(&output), err(&output));
        err(&output)
    }

    fn create(&self, args: &[&str]) -> String {
        let task = self.json(&[&["task", "create"], args].concat());
        task["id"].as_str().unwrap().to_owned()
    }

    /// Makes a dead letter of a command; answers its id.
    fn bury(&self, command: &str) -> String {
        let id = self.create(&[command, "--max-attempts", "1"]);
        self.out(&["task", "claim", command]);
        let said = self.out(&["task", "nack", &id, "--reason", "no paper"]);
        assert!(said.contains("dead-lettered"), "{said}");
        id
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn profiles(&self) -> PathBuf {
        self.home.path().join(".config/codeq/profiles.yml")
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

fn memory() -> Setup {
    Setup::start("memory", &json!({}))
}

/// A host with a token for producers, which is an admin's, and one for workers.
fn with_tokens() -> Setup {
    let claims = |token: &str, scopes: &[&str], commands: &[&str]| {
        json!({
            "token": token, "subject": format!("{token}er"), "scopes": scopes,
            "eventTypes": commands, "raw": { "tid": "acme" },
        })
    };
    Setup::start(
        "memory",
        &json!({
            "producerAuthProvider": "static",
            "producerAuthConfig": claims("produce", &["codeq:admin"], &[]),
            "workerAuthProvider": "static",
            "workerAuthConfig": claims("work", &["codeq:claim", "codeq:result"], &["render"]),
            "env": "prod",
        }),
    )
}

#[test]
fn a_task_lives_by_commands_alone() {
    for provider in ["memory", "redis"] {
        println!("on {provider}:");
        let setup = Setup::start(provider, &json!({}));
        let me = Person::at(&setup.host);
        let payload = r#"{"page": 7, "size": 1.50}"#;
        let id = me.create(&["Render", payload, "--priority", "5", "--max-attempts", "3"]);
        let task = me.json(&["task", "get", &id]);
        assert_eq!((&task["payload"], &task["priority"]), (&json!(payload), &json!(5)));
        says(&me.out(&["task", "get", &id]), &["Render", "ready", "0 of 3", payload, "created"]);
        says(&me.error(1, &["task", "result", &id]), &["no result yet, it is ready", "--wait"]);

        let claimed = me.json(&["task", "claim", "render", "--lease", "1m", "--wait", "5s"]);
        assert_eq!(claimed["id"], id.as_str());
        says(&me.out(&["task", "get", &id]), &["in progress, held by local", "60 s"]);
        says(&me.out(&["task", "heartbeat", &id, "--extend", "10m"]), &["lease extended", &id]);
        says(&me.out(&["task", "get", &id]), &["its lease ends in 10 min"]);
        let said = me.out(&["task", "nack", &id, "--delay", "0s", "--reason", "printer on fire"]);
        says(&said, &["requeued", "claimable now"]);
        says(&me.out(&["task", "claim", "render"]), &[&id, "2 of 3", "printer on fire"]);
        says(&me.out(&["task", "abandon", &id]), &["requeued"]);
        let claimed = me.json(&["task", "claim", "--count", "10"]);
        assert_eq!(claimed["tasks"].as_array().unwrap().len(), 1);

        let result = me.json(&["task", "complete", &id, r#"{"url": "https://example.org/7"}"#]);
        assert_eq!(result["status"], "COMPLETED");
        let both = me.json(&["task", "result", &id, "--wait", "5s"]);
        assert_eq!(both["result"]["result"]["url"], "https://example.org/7");
        says(
            &me.out(&["task", "result", &id]),
            &["completed", "https://example.org/7", "finished"],
        );
        says(
            &me.error(1, &["task", "heartbeat", &id]),
            &["nobody holds the task", "codeq task get"],
        );
    }
}

#[test]
fn a_task_that_failed_says_why() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let id = me.create(&["render"]);
    me.out(&["task", "claim"]);
    let result = me.json(&["task", "fail", &id, "--error", "page 7 does not exist"]);
    assert_eq!(result["status"], "FAILED");
    says(&me.out(&["task", "result", &id]), &["failed", "page 7 does not exist"]);
}

#[test]
fn files_are_handed_in_with_a_result() {
    let me = Person::new();
    let kept = me.home.path().join("kept");
    let setup = Setup::start("memory", &json!({ "localArtifactsDir": kept }));
    let me = me.with("CODEQ_URL", format!("http://{}", setup.host.addr()));
    me.file("page 7.json", r#"{"page": 7}"#);
    me.file("log.txt", "done");
    let id = me.create(&["render"]);
    me.out(&["task", "claim"]);
    let files = ["--artifact", "page 7.json", "--artifact", "log.txt"];
    let result = me.json(&[&["task", "complete", &id, "{}"], &files[..]].concat());
    assert_eq!(result["artifacts"][1]["name"], "log.txt");
    let url = result["artifacts"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix("/v1/codeq").unwrap();
    assert_eq!(setup.host.client().get(path).expect(200), json!({ "page": 7 }));
    says(&me.out(&["task", "result", &id]), &["artifact", "page 7.json", url]);
    says(
        &me.error(2, &["task", "complete", &id, "--artifact", "none"]),
        &["`none` cannot be read"],
    );
    says(&me.error(2, &["task", "complete", &id, "[]"]), &["RESULT is no JSON object"]);
}

#[test]
fn a_payload_is_given_as_it_is_or_from_a_file_or_from_standard_input() {
    let setup = memory();
    let me = Person::at(&setup.host);
    me.file("page.json", "{\n  \"page\": 8\n}\n");
    for (args, input, payload) in [
        (&["a", r#""text""#][..], "", r#""text""#),
        (&["a", "-7"], "", "-7"),
        (&["a"], "", "{}"),
        (&["a", "@page.json"], "", "{\n  \"page\": 8\n}"),
        (&["a", "-"], " [1, 2] \n", "[1, 2]"),
    ] {
        let args = [&["task", "create"], args, &["--json"]].concat();
        let output = me.run_with_input(&args, input);
        let task: Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(task["payload"], payload, "{args:?}");
    }
    for (payload, parts) in [
        ("hello", &["PAYLOAD is not JSON", "@FILE"][..]),
        ("@none.json", &["none.json", "cannot be read"]),
        ("null", &["PAYLOAD is null"]),
    ] {
        says(&me.error(2, &["task", "create", "a", payload]), parts);
    }
}

#[test]
fn a_delayed_task_says_when_it_comes_due() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let id = me.create(&["render", "--delay", "1h30m"]);
    says(&me.out(&["task", "get", &id]), &["delayed"]);
    let listed = me.out(&["queue", "tasks", "render", "--state", "delayed"]);
    says(&listed, &["DUE", &id, "in 90 min"]);
    me.create(&["render", "--at", "2099-01-01T00:00:00Z"]);
    assert_eq!(me.json(&["queue", "stats", "render"])["delayed"], 2);
    for args in [
        &["--delay", "soon"][..],
        &["--at", "tomorrow"],
        &["--delay", "1s", "--at", "2099-01-01T00:00:00Z"],
        &["--priority", "10"],
    ] {
        me.error(2, &[&["task", "create", "render"], args].concat());
    }
}

#[test]
fn the_same_key_makes_one_task() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let create = || me.create(&["render", "--key", "book-7"]);
    assert_eq!(create(), create());
}

#[test]
fn nothing_to_claim_is_no_failure() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let output = me.run(&["task", "claim", "render"]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), ""));
    says(&err(&output), &["no task of render is ready"]);
    assert_eq!(me.json(&["task", "claim", "render", "--wait", "50ms"]), Value::Null);
    assert_eq!(me.json(&["task", "claim", "--count", "3"]), json!({ "tasks": [] }));
}

#[test]
fn a_claim_waits_for_a_task_to_come() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let args = ["task", "claim", "render", "--wait", "30s", "--json"];
    let waiting = me.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let id = me.create(&["render"]);
    let claimed: Value = serde_json::from_str(&out(&waiting.wait_with_output().unwrap())).unwrap();
    assert_eq!(claimed["id"], id.as_str());
}

#[test]
fn names_are_no_paths() {
    let setup = memory();
    let me = Person::at(&setup.host);
    me.create(&["a/b ?c%2F#d"]);
    assert_eq!(me.json(&["queue", "stats", "a/b ?c%2F#d"])["ready"], 1);
    says(&me.error(1, &["task", "get", "../admin/queues"]), &["no such task"]);
    me.error(2, &["task", "get", ".."]);
    me.error(2, &["task", "get", ""]);
}

#[test]
fn queues_are_listed_with_their_counts() {
    let setup = memory();
    let me = Person::at(&setup.host);
    says(&me.out(&["queue", "list"]), &["there are no queues"]);
    me.create(&["render"]);
    me.create(&["print"]);
    me.out(&["task", "claim", "print"]);
    let table = me.out(&["queue", "list"]);
    says(&table, &["COMMAND", "DEAD LETTERS"]);
    assert!(table.lines().any(|line| line.split_whitespace().eq(["print", "0", "0", "1", "0"])));
    let queues = me.json(&["queue", "list"]);
    assert_eq!(queues["queues"].as_array().unwrap().len(), 2);
    assert_eq!(me.json(&["queue", "stats", "render"])["ready"], 1);
}

#[test]
fn all_tasks_of_a_queue_are_one_document() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let client = setup.host.client();
    let mut ids: Vec<String> = (0..7).map(|_| client.create("render")).collect();
    let args = ["queue", "tasks", "render", "--limit", "3"];
    let page = me.json(&args);
    assert_eq!(page["tasks"].as_array().unwrap().len(), 3);
    assert!(page["nextCursor"].is_string(), "{page}");
    let output = me.run(&args);
    says(&err(&output), &["there are more", "--all"]);
    let all = me.json(&[&args[..], &["--all"]].concat());
    let mut listed: Vec<String> = all["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["id"].as_str().unwrap().into())
        .collect();
    listed.sort();
    ids.sort();
    assert_eq!(listed, ids);
    let table = me.out(&[&args[..], &["--all"]].concat());
    assert_eq!(table.lines().count(), 8, "{table}");
    says(&me.out(&["queue", "tasks", "print"]), &["print has no ready task"]);
    assert_eq!(me.json(&["queue", "tasks", "print", "--all"]), json!({ "tasks": [] }));
    me.out(&["task", "claim", "render"]);
    let leased = me.out(&["queue", "tasks", "render", "--state", "inProgress"]);
    says(&leased, &["LEASE ENDS", "local", "in 5 min"]);
}

#[test]
fn dead_letters_are_listed_and_put_back() {
    for provider in ["memory", "redis"] {
        println!("on {provider}:");
        let setup = Setup::start(provider, &json!({}));
        let me = Person::at(&setup.host);
        let ids = [0, 1, 2].map(|_| me.bury("render"));
        says(&me.out(&["dlq", "list", "render"]), &["no paper", "1 of 1", &ids[0]]);
        says(&me.error(1, &["task", "result", &ids[0]]), &["dead letters"]);
        says(&me.out(&["dlq", "redrive", "render", &ids[0]]), &["requeued 1 dead letter"]);
        assert_eq!(setup.host.client().counts("render"), [1, 0, 0, 2]);
        let again = me.error(1, &["dlq", "redrive", "render", &ids[0], &ids[1]]);
        says(&again, &[&ids[0], "not among the dead letters, it is ready", "1 of 2"]);
        let bulk = me.json(&["dlq", "redrive", "render", "--all"]);
        assert_eq!(bulk, json!({ "requeued": 1, "remaining": false }));
        assert_eq!(setup.host.client().counts("render"), [3, 0, 0, 0]);
    }
}

#[test]
fn dead_letters_are_removed_if_it_is_meant() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let ids = [0, 1, 2].map(|_| me.bury("render"));
    let other = me.bury("print");
    let alive = me.create(&["render"]);
    says(&me.error(2, &["dlq", "purge", "render", "--all"]), &["nothing was removed", "--yes"]);
    assert_eq!(setup.host.client().counts("render"), [1, 0, 0, 3]);
    // Neither another queue's nor one that is alive is removed by its id.
    let said = me.error(1, &["dlq", "purge", "render", &ids[0], &other, &alive, "--yes"]);
    says(&said, &["a task of print", "not among the dead letters, it is ready", "2 of 3"]);
    assert_eq!(setup.host.client().counts("render"), [1, 0, 0, 2]);
    assert_eq!(setup.host.client().counts("print"), [0, 0, 0, 1]);
    let purged = me.json(&["dlq", "purge", "render", "--all", "--yes"]);
    assert_eq!(purged, json!({ "purged": 2, "remaining": false }));
    assert_eq!(setup.host.client().counts("render"), [1, 0, 0, 0]);
    says(&me.out(&["dlq", "purge", "render", "--all", "--yes"]), &["removed 0 dead letters"]);
    me.error(2, &["dlq", "purge", "render", "--yes"]);
    me.error(2, &["dlq", "redrive", "render", "--all", &other]);
}

#[test]
fn profiles_are_kept_in_a_private_file() {
    let me = Person::new();
    says(&me.out(&["profile", "list"]), &["no profiles", "codeq profile set"]);
    let set = ["profile", "set", "prod", "--url", "https://queue.example.org", "--token", "-"];
    let output = me.run_with_input(&set, "hunter2\n");
    says(&out(&output), &["made profile prod", "the current one"]);
    me.out(&["profile", "set", "dev", "--url", "http://127.0.0.1:1", "--admin-token", "${ADMIN}"]);
    let mode = fs::metadata(me.profiles()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let shown = [
        me.out(&["profile", "list"]),
        me.out(&["profile", "show", "prod"]),
        me.out(&["profile", "show"]),
        me.json(&["profile", "list"]).to_string(),
        me.json(&["profile", "show", "prod"]).to_string(),
        me.json(&["profile", "show"]).to_string(),
    ];
    for shown in &shown {
        says(shown, &["prod", "https://queue.example.org"]);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    says(&me.out(&["profile", "show", "dev"]), &["adminToken", "${ADMIN}"]);
    me.out(&["profile", "use", "dev"]);
    says(&me.error(2, &["queue", "list"]), &["adminToken of the profile `dev`", "set ADMIN"]);
    says(&me.error(2, &["profile", "use", "prdo"]), &["did you mean `prod`?"]);
    says(&me.error(2, &["queue", "list", "--profile", "x"]), &["there is no profile `x`"]);
    me.out(&["profile", "set", "dev", "--admin-token", ""]);
    assert_eq!(me.json(&["profile", "show", "dev"])["adminToken"], Value::Null);
    says(&me.out(&["profile", "remove", "dev"]), &["removed dev", "no profile is the current one"]);
    assert_eq!(me.json(&["profile", "list"])["profiles"].as_array().unwrap().len(), 1);
    for args in [&["a b", "--url", "http://h"][..], &["new"], &["new", "--url", "h:80"]] {
        me.error(2, &[&["profile", "set"], args].concat());
    }
}

#[test]
fn a_file_of_profiles_that_others_may_read_is_warned_of() {
    let me = Person::new();
    me.out(&["profile", "set", "dev", "--url", "http://127.0.0.1:1", "--token", "hunter2"]);
    fs::set_permissions(me.profiles(), fs::Permissions::from_mode(0o640)).unwrap();
    says(&me.error(1, &["queue", "list"]), &["may be read by others", "chmod 600"]);
    fs::write(me.profiles(), "profiles:\n  dev: {url: 'http://h', tokn: hunter2}\n").unwrap();
    let said = me.error(2, &["queue", "list"]);
    says(&said, &["profiles.yml", "tokn"]);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_profile_has_a_token_for_each_part() {
    let setup = with_tokens();
    let url = format!("http://{}", setup.host.addr());
    let me = Person::new().with("WORK", "work");
    me.out(&[
        "profile",
        "set",
        "here",
        "--url",
        &url,
        "--token",
        "produce",
        "--worker-token",
        "${WORK}",
    ]);
    let id = me.create(&["render"]);
    assert_eq!(me.json(&["task", "claim"])["workerId"], "worker");
    me.out(&["task", "complete", &id]);
    assert_eq!(me.json(&["task", "result", &id])["task"]["status"], "COMPLETED");
    me.out(&["queue", "list"]);
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_profile() {
    let setup = with_tokens();
    let url = format!("http://{}", setup.host.addr());
    let me = Person::new().with("CODEQ_TOKEN", "wrong");
    me.out(&["profile", "set", "here", "--url", &url, "--token", "produce"]);
    says(&me.error(1, &["queue", "list"]), &["CODEQ_TOKEN", "invalid token"]);
    me.out(&["queue", "list", "--token", "produce"]);
    let said = me.error(1, &["queue", "list", "--url", "http://127.0.0.1:1"]);
    says(&said, &["http://127.0.0.1:1 (from --url)"]);
    let elsewhere = Person { env: vec![("CODEQ_URL", "http://127.0.0.1:2".into())], ..me };
    says(&elsewhere.error(1, &["queue", "list"]), &["from the environment: CODEQ_URL"]);
    elsewhere.out(&["queue", "list", "--url", &url]);
}

#[test]
fn the_tokens_of_a_profile_go_to_its_host_only() {
    let setup = with_tokens();
    let other = format!("http://{}", setup.host.addr());
    let me = Person::new();
    me.out(&["profile", "set", "prod", "--url", "http://127.0.0.1:1", "--token", "produce"]);
    let said = me.error(1, &["queue", "list", "--url", &other]);
    says(&said, &["wants a token", "`prod` is for another host", "--profile prod"]);
    me.out(&["queue", "list", "--url", &other, "--profile", "prod"]);
    says(&me.out(&["profile", "show", "--url", &other]), &["`prod` is for another host"]);
}

#[test]
fn what_a_token_lacks_is_said() {
    let setup = with_tokens();
    let me = Person::at(&setup.host);
    says(&me.error(1, &["task", "create", "a"]), &["wants a token", "CODEQ_TOKEN", "profile set"]);
    let with = |token: &'static str| Person::at(&setup.host).with("CODEQ_TOKEN", token);
    let said = with("wrong").error(1, &["task", "create", "render"]);
    says(&said, &["refuses the token from the environment: CODEQ_TOKEN", "invalid token"]);
    assert!(!said.contains("wrong"), "{said}");
    let worker = with("work");
    says(&worker.error(1, &["queue", "list"]), &["forbids", "`codeq:admin`", "role: ADMIN"]);
    says(&worker.error(1, &["task", "claim", "print"]), &["event type not allowed", "eventTypes"]);
    let id = with("produce").create(&["render"]);
    worker.out(&["task", "claim"]);
    says(&worker.error(1, &["task", "nack", &id]), &["the scope `codeq:nack`"]);
    says(&worker.error(1, &["task", "heartbeat", &id]), &["the scope `codeq:heartbeat`"]);
    says(&with("produce").error(1, &["task", "get", "none"]), &["no such task"]);
}

#[test]
fn a_host_that_is_not_there_is_named_with_what_to_do() {
    let me = Person::new().with("CODEQ_URL", "http://127.0.0.1:1");
    let said = me.error(1, &["queue", "list"]);
    let parts = ["http://127.0.0.1:1", "CODEQ_URL", "Connection refused", "codeq serve", "--url"];
    says(&said, &parts);
    let said = me.error(1, &["queue", "watch"]);
    says(&said, &["no host answers"]);
    let said = me.error(1, &["queue", "list", "--url", "http://no-such-host.invalid"]);
    says(&said, &["no such name in the network"]);
    says(&me.error(2, &["queue", "list", "--url", "localhost:8080"]), &["--url", "http://"]);
}

/// A server that gives every request the same answer.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            reply(&mut connection.unwrap(), answer);
        }
    });
    url
}

fn reply(connection: &mut TcpStream, answer: &str) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap_or(0) > 0 {
        request.extend(byte);
    }
    let _ = connection.write_all(answer.as_bytes());
    let _ = connection.flush();
}

#[test]
fn what_answers_otherwise_is_told_apart() {
    let me = Person::new();
    for (answer, parts) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
            &["is no codeQ host", "text/html", "404"][..],
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]",
            &["is no codeQ host"],
        ),
        (
            "HTTP/1.1 301 Moved\r\nlocation: https://queue.example.org/\r\ncontent-length: 0\r\n\r\n",
            &["redirects to https://queue.example.org/", "--url"],
        ),
        (
            "HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-length: 32\r\n\r\n\
             {\"error\": \"rate limit exceeded\"}",
            &["too many requests", "rate limit exceeded", "try again in 7 s"],
        ),
        (
            "HTTP/1.1 503 Away\r\nretry-after: 1\r\ncontent-length: 32\r\n\r\n\
             {\"error\": \"backend unavailable\"}",
            &["cannot do it just now", "backend unavailable", "try again in 1 s"],
        ),
        (
            "HTTP/1.1 500 Oops\r\nx-request-id: r77\r\ncontent-length: 27\r\n\r\n\
             {\"error\": \"internal error\"}",
            &["internal error", "log", "r77"],
        ),
        ("\x15\x03\x01nonsense\r\n\r\n", &["broke off", "https://"]),
    ] {
        says(&me.error(1, &["queue", "list", "--url", &server(answer)]), parts);
    }
}

#[test]
fn what_others_wrote_does_not_command_the_terminal() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let id = me.create(&["render", "--max-attempts", "1"]);
    me.out(&["task", "claim"]);
    me.out(&["task", "nack", &id, "--reason", "\u{1b}[2J\u{9b}gone\tfar"]);
    for args in [&["task", "get", &id][..], &["dlq", "list", "render"]] {
        let shown = me.out(args);
        says(&shown, &[r"\u{1b}[2J\u{9b}gone\tfar"]);
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{9b}'), "{shown}");
    }
}

#[test]
fn a_private_authority_is_trusted_if_it_is_named() {
    let me = Person::new();
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let ours = me.file("ours.pem", &made.cert.pem());
    let key = me.file("key.pem", &made.signing_key.serialize_pem());
    let config = json!({ "persistenceProvider": "memory", "tlsCertFile": ours, "tlsKeyFile": key });
    let host = Host::spawn(plugin_dir(&["memory"]).path(), config);
    let port = host.addr().rsplit(':').next().unwrap();
    let ours = ours.to_str().unwrap();
    let list = |scheme: &str, name: &str, ca_file: &str| {
        let url = format!("{scheme}://{name}:{port}");
        me.run(&["queue", "list", "--url", &url, "--ca-file", ca_file])
    };
    says(&out(&list("https", "localhost", ours)), &["there are no queues"]);
    let said = err(&list("https", "localhost", &other_authority(&me)));
    says(&said, &["is not safe", "--ca-file"]);
    let said = err(&list("https", "127.0.0.1", ours));
    says(&said, &["is not safe", "use the name"]);
    says(&err(&list("http", "localhost", ours)), &["if that port wants TLS, write https://"]);
    says(&err(&list("https", "localhost", "none.pem")), &["none.pem", "from --ca-file"]);
    me.file("empty.pem", "hello");
    says(&err(&list("https", "localhost", "empty.pem")), &["no certificate"]);
    let url = format!("https://localhost:{port}");
    me.out(&["profile", "set", "ours", "--url", &url, "--ca-file", "ours.pem"]);
    me.out(&["queue", "list"]);
    let plain = memory();
    let url = format!("https://{}", plain.host.addr());
    let said = me.error(1, &["queue", "list", "--url", &url, "--ca-file", ours]);
    says(&said, &["does not speak TLS", "http://"]);
}

fn other_authority(me: &Person) -> String {
    let other = rcgen::generate_simple_self_signed(["other".into()]).unwrap();
    me.file("other.pem", &other.cert.pem()).to_str().unwrap().to_owned()
}

/// A watch in the background.
struct Watching {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Watching {
    fn start(me: &Person, args: &[&str]) -> Watching {
        let args = [&["queue", "watch", "--interval", "100ms"], args].concat();
        let mut process =
            me.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Watching { process, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn wait_for(&mut self, mut is_so: impl FnMut(&Value) -> bool) {
        while !is_so(&self.next()) {}
    }

    /// Ends it as a person does; answers what it said besides.
    fn interrupt(mut self) -> String {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        // Its last lines are read, so that it does not end for want of a reader.
        std::io::copy(&mut self.lines, &mut std::io::sink()).unwrap();
        let output = self.process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        err(&output)
    }
}

#[test]
fn a_watch_shows_what_changes_until_it_is_interrupted() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let client = setup.host.client();
    let mut all = Watching::start(&me, &["--json"]);
    let mut one = Watching::start(&me, &["render", "--json"]);
    assert_eq!(all.next(), json!({ "queues": [] }));
    assert_eq!(one.next()["ready"], 0);
    client.create("render");
    all.wait_for(|queues| queues["queues"][0]["ready"] == 1);
    one.wait_for(|queue| queue["ready"] == 1);
    assert_eq!(all.interrupt(), "");
    assert_eq!(one.interrupt(), "");
}

#[test]
fn a_watch_ends_when_nobody_reads_it() {
    let setup = memory();
    let me = Person::at(&setup.host);
    let mut watching = Watching::start(&me, &["--json"]);
    watching.next();
    drop(watching.lines);
    assert_eq!(watching.process.wait().unwrap().code(), Some(0));
}

/// A place that leads to one host after another, as a host has that is started again.
struct Relay {
    addr: String,
    to: Arc<Mutex<String>>,
}

impl Relay {
    fn start(host: &Host) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let to = Arc::new(Mutex::new(host.addr().to_owned()));
        let target = Arc::clone(&to);
        thread::spawn(move || {
            for caller in listener.incoming() {
                let caller = caller.unwrap();
                // Without a host, the connection is closed.
                if let Ok(host) = TcpStream::connect(&*target.lock().unwrap()) {
                    pass_on(&caller, &host);
                    pass_on(&host, &caller);
                }
            }
        });
        Relay { addr, to }
    }
}

fn pass_on(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

#[test]
fn a_watch_outlives_its_host() {
    let first = memory();
    let relay = Relay::start(&first.host);
    let me = Person::new().with("CODEQ_URL", format!("http://{}", relay.addr));
    let mut watching = Watching::start(&me, &["--json"]);
    watching.next();
    drop(first);
    // It has noticed when it says so, which is before anything else can come.
    let mut said = BufReader::new(watching.process.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    says(&line, &["warning", "watching on"]);
    let second = memory();
    second.host.client().create("render");
    *relay.to.lock().unwrap() = second.host.addr().to_owned();
    watching.wait_for(|queues| queues["queues"][0]["ready"] == 1);
    watching.process.stderr = None;
    watching.interrupt();
    line.clear();
    said.read_line(&mut line).unwrap();
    says(&line, &["answers again"]);
}

#[test]
fn a_table_is_watched_in_a_pipe_without_colours() {
    let setup = memory();
    setup.host.client().create("render");
    let me = Person::at(&setup.host);
    let mut watching = Watching::start(&me, &[]);
    let mut text = String::new();
    while !text.contains("render") {
        watching.lines.read_line(&mut text).unwrap();
    }
    says(&text, &["COMMAND", "READY"]);
    assert!(!text.contains('\u{1b}'), "{text}");
    watching.interrupt();
}

#[test]
fn shells_are_given_their_completions() {
    let me = Person::new();
    for shell in ["bash", "zsh", "fish"] {
        says(&me.out(&["completions", shell]), &["codeq", "redrive", "heartbeat"]);
    }
    me.error(2, &["completions", "tcsh"]);
}

#[test]
fn every_command_explains_itself() {
    let me = Person::new();
    says(&me.out(&["--help"]), &["A host:", "Its tasks", "task", "queue", "dlq", "serve"]);
    for command in [
        &["task", "create"][..],
        &["task", "claim"],
        &["queue", "watch"],
        &["dlq", "redrive"],
        &["profile", "set"],
    ] {
        says(&me.out(&[command, &["--help"]].concat()), &["Example", "codeq "]);
    }
}
