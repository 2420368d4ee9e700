//! Other queues in Redis, each with the settings that its documentation recommends for throughput: the
//! drivers in `tests/peers` say which. Same server, same machine, same payload, one after another.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    drive::{self, Clients, Idempotency},
    options::Options,
    plugin::Plugin,
    report::median,
    server::{Cost, Persistence, Server},
};

const PAYLOAD_BYTES: &str = "200";

/// A queue that is measured beside the plugin.
#[derive(Clone)]
struct Peer {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    /// How many tasks it can be asked to do in a reasonable time.
    most: usize,
}

#[derive(Clone, Copy)]
struct Phases {
    enqueue: Cost,
    process: Cost,
}

pub(crate) async fn run(options: &Options, plugin: &Plugin) {
    let apalis = apalis();
    let locking = Peer {
        name: "apalis-redis, locking",
        args: vec!["--lock-tasks".into()],
        // Each lock searches the whole queue.
        most: 5_000,
        ..apalis.clone()
    };
    let peers = [bullmq(), apalis, locking];
    for persistence in [Persistence::None, Persistence::EverySecond] {
        let mut of_plugin = Vec::new();
        let mut of_peers = vec![Vec::new(); peers.len()];
        for _ in 0..options.rounds {
            of_plugin.push(ours(options, plugin, persistence).await);
            for (peer, phases) in peers.iter().zip(&mut of_peers) {
                phases.push(theirs(peer, options, persistence));
            }
        }
        println!(
            "\n{persistence}; {} tasks, in batches of {} where there are any; medians of {} rounds",
            options.tasks, options.batch, options.rounds
        );
        println!("  {:<22}  enqueued/s  server µs  processed/s  server µs", "");
        tell("redis plugin", &of_plugin);
        for (peer, phases) in peers.iter().zip(&of_peers) {
            tell(peer.name, phases);
        }
    }
}

async fn ours(options: &Options, plugin: &Plugin, persistence: Persistence) -> Phases {
    let server = Server::start(persistence);
    let store = server.open(plugin, 0).await;
    let clients = Clients { count: options.clients, batch: options.batch };
    let enqueue = drive::enqueue(&server, &store, clients, options.tasks, Idempotency::None).await;
    let process = drive::consume(&server, &store, clients, options.tasks).await;
    store.close().await.unwrap();
    Phases { enqueue, process }
}

fn theirs(peer: &Peer, options: &Options, persistence: Persistence) -> Phases {
    let server = Server::start(persistence);
    let output = Command::new(&peer.program)
        .args(&peer.args)
        .args(["--addr", &server.addr(), "--payload-bytes", PAYLOAD_BYTES])
        .args([
            "--tasks",
            &options.tasks.min(peer.most).to_string(),
            "--batch",
            &options.batch.to_string(),
        ])
        .args(["--clients", &options.clients.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{} failed: {}", peer.name, output.status);
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let phase = |name: &str| {
        let line = lines.iter().find(|line| line["phase"] == name).expect("a line of the phase");
        let seconds = |name: &str| Duration::from_secs_f64(line[name].as_f64().unwrap());
        Cost {
            tasks: line["tasks"].as_f64().unwrap(),
            time: seconds("seconds"),
            server: seconds("server_seconds"),
        }
    };
    Phases { enqueue: phase("enqueue"), process: phase("process") }
}

fn tell(name: &str, phases: &[Phases]) {
    let of = |figure: fn(&Phases) -> f64| median(phases.iter().map(figure));
    println!(
        "  {name:<22}  {:>10.0}  {:>9.2}  {:>11.0}  {:>9.2}",
        of(|phases| phases.enqueue.per_second()),
        of(|phases| phases.enqueue.server_micros()),
        of(|phases| phases.process.per_second()),
        of(|phases| phases.process.server_micros()),
    );
}

fn bullmq() -> Peer {
    let dir = peers_dir().join("bullmq");
    done(
        Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir),
        "apt-get install nodejs npm",
    );
    let script = dir.join("bench.mjs").to_str().unwrap().to_owned();
    Peer { name: "BullMQ", program: "node".into(), args: vec![script], most: usize::MAX }
}

fn apalis() -> Peer {
    let dir = peers_dir().join("apalis");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apalis");
    done(
        Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet"])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(&dir),
        "https://rustup.rs",
    );
    Peer {
        name: "apalis-redis",
        program: target.join("release/apalis-bench"),
        args: vec![],
        most: usize::MAX,
    }
}

fn peers_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers")
}

/// Runs a command whose output nobody needs.
fn done(command: &mut Command, remedy: &str) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| {
        panic!("{command:?} cannot be run ({error}); install it: {remedy}")
    });
    assert!(status.success(), "{command:?} failed: {status}");
}
