//! What the sqlite plugin keeps on a disk that loses its power, fails or fills up: the real host, with a
//! layer under its files.

#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_host::{Store, plugins::Plugins};
use codeq_plugin::{Batch, Boxed, Cleanup, Error, Instant, Task, TaskStatus};
use codeq_system_tests::{Client, Host, plugin_dir};
use codeq_test_disk::{Disk, moment};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Clients that load a host.
const CLIENTS: usize = 6;
/// How many moments of a run the power fails at, and in how many ways each.
const CUTS: usize = 40;
const WAYS: u64 = 5;

/// What was acknowledged about a task, and when.
#[derive(Default)]
struct Known {
    created: u64,
    claimed: Option<u64>,
    completed: Option<u64>,
}

type Ledger = BTreeMap<String, Known>;

fn on(dir: &Path) -> Value {
    json!({
        "persistenceProvider": "sqlite",
        "persistenceConfig": { "path": dir.join("codeq.db") },
    })
}

/// A large one, so that the log soon has to be copied into the file.
fn create(client: &Client) -> Option<String> {
    let body = json!({ "command": "cut", "payload": "x".repeat(12_000) });
    let answer = client.post("/tasks", body);
    (answer.status == 202).then(|| answer.body["id"].as_str().unwrap().to_owned())
}

/// Has clients create, claim and complete tasks until they are told to stop.
fn load(client: &Client, stop: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::new();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        if let Some(id) = create(client) {
            ledger.entry(id).or_default().created = moment();
        }
        // Some stay behind, so that there is something in every place.
        if round % 5 == 0 {
            continue;
        }
        let claim = json!({ "commands": ["cut"], "leaseSeconds": 600 });
        let claimed = client.post("/tasks/claim", claim);
        if claimed.status != 200 {
            continue;
        }
        let id = claimed.body["id"].as_str().unwrap().to_owned();
        // Others may have created it; their acknowledgements are put together later.
        ledger.entry(id.clone()).or_default().claimed = Some(moment());
        if round % 3 != 0 && client.complete(&id).status == 200 {
            ledger.entry(id).or_default().completed = Some(moment());
        }
    }
    ledger
}

fn load_for(host: &Host, time: Duration) -> Ledger {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let client = host.client();
                let stop = &stop;
                scope.spawn(move || load(&client, stop))
            })
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let mut all = Ledger::new();
        for (id, known) in clients.into_iter().flat_map(|client| client.join().unwrap()) {
            let entry = all.entry(id).or_default();
            entry.created = entry.created.max(known.created);
            entry.claimed = entry.claimed.or(known.claimed);
            entry.completed = entry.completed.or(known.completed);
        }
        all
    })
}

/// Opens what a power cut has left, and checks that everything is there that was acknowledged by then.
async fn check(library: &Path, ledger: &Ledger, dir: &Path, cut: u64) -> Result<(), String> {
    let path = dir.join("codeq.db");
    let by_then = |at: Option<u64>| at.is_some_and(|at| at != 0 && at <= cut);
    if !path.exists() {
        let is_lost = ledger.values().any(|known| by_then(Some(known.created)));
        return if is_lost { Err("there is no file".into()) } else { Ok(()) };
    }
    let plugins = Plugins::discover(&[library.to_owned()]);
    let store = plugins.open("sqlite", &json!({ "path": path }), &Default::default()).await;
    let store: Store = store.map_err(|error| error.to_string())?;
    for (id, known) in ledger {
        let is_certain = by_then(Some(known.created)) || by_then(known.claimed);
        let task = match get(&store, id).await {
            Err(error) if is_certain => return Err(format!("{id} is lost: {error}")),
            Err(_) => continue,
            Ok(task) => task,
        };
        if by_then(known.claimed) && task.attempts == 0 {
            return Err(format!("the claim of {id} is lost"));
        }
        if by_then(known.completed) {
            let result = store.get_result(Batch::One(id.as_str().into())).await.unwrap();
            let result = result.into_only().unwrap().into_result();
            let handed_in =
                result.ok().and_then(|result| serde_json::from_str(&result.result).ok());
            let is_kept = handed_in == Some(json!({ "ok": true }));
            if task.status != TaskStatus::Completed || !is_kept {
                return Err(format!("the end of {id} is lost"));
            }
        }
    }
    store.close().await.unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    let sound = file.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    let sound = sound.map_err(|error| error.to_string())?;
    if sound == "ok" { Ok(()) } else { Err(sound) }
}

async fn get(store: &Store, id: &str) -> Result<Boxed<Task>, Error> {
    let answers = store.get(Batch::One(id.into())).await.unwrap();
    answers.into_only().unwrap().into_result()
}

/// Cuts the power at many moments from one on, and checks what is left.
async fn cut_power(disk: &Disk, ledger: &Ledger, since: u64) -> Result<(), String> {
    assert_eq!(disk.unseen(), Vec::<PathBuf>::new());
    let trace = disk.trace();
    let library = plugin_dir(&["sqlite"]);
    for cut in trace.moments(since, CUTS, 1).into_iter().chain([moment()]) {
        for seed in 0..WAYS {
            let left = TempDir::new().unwrap();
            trace.power_cut(cut, seed, left.path());
            let checked = check(library.path(), ledger, left.path(), cut).await;
            checked.map_err(|wrong| format!("cut {cut}, way {seed}: {wrong}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_at_any_moment() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::under(dir.path());
    let plugins = plugin_dir(&["sqlite"]);
    let host = Host::start_with_env(plugins.path(), on(dir.path()), &disk.env());
    let ledger = load_for(&host, Duration::from_secs(3));
    drop(host);
    let completed = ledger.values().filter(|known| known.completed.is_some()).count();
    assert!(completed > 50, "only {completed} tasks came to their end");
    cut_power(&disk, &ledger, 0).await.unwrap();
}

#[tokio::test]
async fn a_store_that_does_not_wait_for_the_disk_is_caught_by_a_power_cut() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::under(dir.path());
    let plugins = plugin_dir(&["sqlite"]);
    let mut config = on(dir.path());
    config["persistenceConfig"]["durability"] = "process".into();
    let host = Host::start_with_env(plugins.path(), config, &disk.env());
    let ledger = load_for(&host, Duration::from_millis(500));
    drop(host);
    let wrong = cut_power(&disk, &ledger, 0).await.unwrap_err();
    assert!(wrong.contains("lost") || wrong.contains("no file"), "{wrong}");
}

#[tokio::test]
async fn a_disk_that_failed_to_sync_is_not_trusted_until_all_is_written_again() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::under(dir.path());
    let plugins = plugin_dir(&["sqlite"]);
    let host = Host::start_with_env(plugins.path(), on(dir.path()), &disk.env());
    let mut ledger = load_for(&host, Duration::from_millis(300));
    disk.fail_syncs(true);
    let client = host.client();
    assert_eq!(create(&client), None, "it was acknowledged without being on the disk");
    assert_eq!(client.get("/readyz").status, 503);
    disk.fail_syncs(false);
    host.wait_for(|_| client.get("/readyz").status == 200);
    ledger.extend(load_for(&host, Duration::from_millis(300)));
    // The same again, but the host ends before it could mend anything. The next one finds what the
    // last one wrote in the system's memory, which is no proof that the disk has it.
    disk.fail_syncs(true);
    assert_eq!(create(&client), None);
    drop(host);
    disk.fail_syncs(false);
    let host = Host::start_with_env(plugins.path(), on(dir.path()), &disk.env());
    let started = moment();
    let last = load_for(&host, Duration::from_millis(300));
    assert!(!last.is_empty());
    ledger.extend(last);
    drop(host);
    cut_power(&disk, &ledger, 0).await.unwrap();
    cut_power(&disk, &ledger, started).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_work_loses_nothing_and_is_used_again_once_it_has_space() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::under(dir.path());
    let plugins = plugin_dir(&["sqlite"]);
    let host = Host::start_with_env(plugins.path(), on(dir.path()), &disk.env());
    let client = host.client();
    let mut created = vec![create(&client).unwrap()];
    disk.set_capacity(Some(300_000));
    let deadline = Clock::now() + Duration::from_secs(20);
    let refusal = loop {
        assert!(Clock::now() < deadline, "the disk does not fill up");
        let body = json!({ "command": "cut", "payload": "x".repeat(12_000) });
        let answer = client.post("/tasks", body);
        match answer.status {
            202 => created.push(answer.body["id"].as_str().unwrap().to_owned()),
            _ => break answer,
        }
    };
    assert_eq!(refusal.status, 503, "{}", refusal.body);
    host.wait_for(|log| log.iter().any(|line| line.contains("there is no space left for")));
    host.wait_for(|_| client.get("/readyz").status == 503);
    // Reading goes on.
    for id in &created {
        client.get(&format!("/tasks/{id}")).expect(200);
    }
    assert_eq!(client.counts("cut")[0], created.len() as u64);
    disk.set_capacity(None);
    host.wait_for(|_| client.get("/readyz").status == 200);
    created.push(create(&client).unwrap());
    for id in &created {
        assert_eq!(client.claim("cut").unwrap()["id"], **id);
        client.complete(id).expect(200);
    }
    assert_eq!(client.counts("cut"), [0; 4]);
}

#[tokio::test]
async fn a_disk_without_space_is_an_error_of_opening_that_says_so() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::under(dir.path());
    disk.set_capacity(Some(1_000));
    let plugins = plugin_dir(&["sqlite"]);
    let mut host = Host::launch_with_env(plugins.path(), on(dir.path()), &disk.env());
    assert_eq!(host.wait().code(), Some(1));
    host.wait_for(|log| log.iter().any(|line| line.contains("P-OPEN")));
    let log = host.log().join("\n");
    assert!(
        log.contains("there is no space left for") || log.contains("reading or writing"),
        "{log}"
    );
}

#[tokio::test]
async fn a_disk_that_hangs_is_a_time_out_for_those_who_write() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::under(dir.path());
    let plugins = plugin_dir(&["sqlite"]);
    let mut config = on(dir.path());
    config["persistenceConfig"]["operationTimeoutMs"] = 300.into();
    let host = Host::start_with_env(plugins.path(), config, &disk.env());
    let client = host.client();
    let id = create(&client).unwrap();
    disk.stall_syncs(true);
    assert_eq!(create(&client), None);
    assert_eq!(client.get("/readyz").status, 503);
    disk.stall_syncs(false);
    host.wait_for(|_| client.get("/readyz").status == 200);
    client.get(&format!("/tasks/{id}")).expect(200);
    assert!(create(&client).is_some());
}

#[tokio::test]
async fn a_backup_that_is_taken_under_load_is_a_store_of_its_own() {
    let dir = TempDir::new().unwrap();
    let plugins = plugin_dir(&["sqlite"]);
    let host = Host::start(plugins.path(), on(dir.path()));
    let before = load_for(&host, Duration::from_millis(300));
    let (ledger, output) = thread::scope(|scope| {
        let loading = scope.spawn(|| load_for(&host, Duration::from_millis(1500)));
        thread::sleep(Duration::from_millis(300));
        let path = json!({ "path": dir.path().join("codeq.db") }).to_string();
        let copy = dir.path().join("copy.db");
        let output = Host::run(
            plugins.path(),
            &["backup", "--json", copy.to_str().unwrap()],
            &[("PERSISTENCE_PROVIDER", "sqlite"), ("PERSISTENCE_CONFIG", &path)],
        );
        (loading.join().unwrap(), output)
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let written: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tasks = written["tasks"].as_u64().unwrap() as usize;
    assert!(tasks >= before.len() && tasks <= before.len() + ledger.len(), "{written}");
    drop(host);
    let found = Plugins::discover(&[plugins.path().to_owned()]);
    let copy = json!({ "path": dir.path().join("copy.db") });
    let store = found.open("sqlite", &copy, &Default::default()).await.unwrap();
    for id in before.keys() {
        get(&store, id).await.unwrap();
    }
    // It can be used like any other.
    let everything = Cleanup { before: Instant(i64::MAX), limit: u32::MAX, ..Cleanup::default() };
    assert_eq!(store.cleanup_expired(everything).await.unwrap() as usize, tasks);
}
