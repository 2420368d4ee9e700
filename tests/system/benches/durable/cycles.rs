//! The plugin beside SQLite as one would first write it, and beside the limit. Each round begins with
//! an empty file, so that who did more before has nothing to carry.

use std::{path::Path, thread::JoinHandle, time::Duration};

use crate::{
    disk::{Disk, SyncRate},
    log,
    mailbox::Mailbox,
    naive,
    options::Options,
    provider::{Durability, Provider},
    report::{line, median, ratio},
    rounds::{Round, round},
};

const CONTESTANTS: usize = 4;

/// In the order of the rounds' figures.
const PLUGIN: usize = 0;
const NAIVE: usize = 1;
const LOG: usize = 2;
const OVERLAPPED: usize = 3;

pub(crate) async fn run(options: &Options, disk: &Disk, provider: &Provider) {
    for &clients in &options.clients {
        let mut rounds = Vec::new();
        let mut syncs = Vec::new();
        for number in 0..options.rounds {
            let mut figures = [None; CONTESTANTS];
            // Each is first, second, … in turn.
            for turn in 0..CONTESTANTS {
                let which = (number + turn) % CONTESTANTS;
                let dir = disk.fresh();
                let figure = one(which, dir.path(), provider, clients, options).await;
                figures[which] = Some(figure);
            }
            rounds.push(figures.map(Option::unwrap));
            syncs.push(disk.sync_rate(Duration::from_millis(200)));
        }
        tell(clients, provider, &rounds, &syncs);
    }
}

async fn one(
    which: usize,
    dir: &Path,
    provider: &Provider,
    clients: usize,
    options: &Options,
) -> Round {
    match which {
        PLUGIN => {
            let store = provider.open(dir, Durability::Disk).await;
            let figure = round(&store, clients, options).await;
            store.close().await.unwrap();
            figure
        }
        NAIVE => served(naive::open(dir), clients, options).await,
        LOG => served(log::bare(dir), clients, options).await,
        _ => served(log::overlapped(dir), clients, options).await,
    }
}

async fn served(
    (mailbox, thread): (Mailbox, JoinHandle<()>),
    clients: usize,
    options: &Options,
) -> Round {
    let figure = round(&mailbox, clients, options).await;
    drop(mailbox);
    thread.join().unwrap();
    figure
}

fn tell(clients: usize, provider: &Provider, rounds: &[[Round; CONTESTANTS]], syncs: &[SyncRate]) {
    println!("\n{clients} waiting clients, {} rounds; medians of the rounds", rounds.len());
    println!("  {:<22}  cycles/s   p50 ms   p99 ms  CPU µs/cycle", "");
    let names = [&provider.to_string(), "naive SQLite", "bare log", "log, sync overlapped"];
    for (which, name) in names.into_iter().enumerate() {
        let of =
            |figure: fn(&Round) -> f64| median(rounds.iter().map(|round| figure(&round[which])));
        println!(
            "  {name:<22}  {:>8.0}  {:>7}  {:>7}  {:>12.1}",
            of(|round| round.cycles_per_second),
            time(of(|round| round.median)),
            time(of(|round| round.p99)),
            of(|round| round.cpu_per_cycle),
        );
    }
    let appended = median(syncs.iter().map(|sync| sync.appended));
    let over = median(syncs.iter().map(|sync| sync.over));
    line("fdatasync", format!("{appended:.0}/s appended, {over:.0}/s in place"), "");
    let rates = |one: usize, other: usize| {
        rounds
            .iter()
            .map(move |round| (round[one].cycles_per_second, round[other].cycles_per_second))
    };
    let (enough, near) = match clients {
        1 => ("≥ 0.77, within 1.3", ""),
        256 => ("≥ 20", "≥ 0.5, better 0.8"),
        _ => ("", ""),
    };
    ratio("plugin / naive", rates(PLUGIN, NAIVE), enough);
    ratio("plugin / bare log", rates(PLUGIN, LOG), near);
    ratio("plugin / log, sync overlapped", rates(PLUGIN, OVERLAPPED), "");
}

/// A dash if the rounds were too short for a whole cycle.
fn time(milliseconds: f64) -> String {
    if milliseconds.is_nan() { "–".into() } else { format!("{milliseconds:.2}") }
}
