//! The plugin beside itself: with a long backlog, after many finished tasks, and with all of it gone.
//! Compared stores are open together, on files of their own, and take turns.

mod bulk;
mod claims;
mod kept;
mod opening;

use std::time::{Duration, Instant};

use self::{bulk::STEP, kept::Kept};
use crate::{
    disk::Disk,
    options::Options,
    provider::{Durability, Provider},
    report::{line, median, ratio},
    rounds::round,
};

/// A backlog that is not worth mentioning.
const FEW: usize = 10_000;

/// Clients of the cycles that are compared.
const CLIENTS: [usize; 2] = [64, 256];

pub(crate) async fn run(options: &Options, disk: &Disk, provider: &Provider) {
    let many = options.tasks;
    println!("\n{provider}, {many} tasks");
    let (full, time) = filled(disk, provider, many).await;
    line("filling it in batches", rate(many, time), "");
    if full.is_durable() {
        let size = full.size() as f64;
        let each = format!("{:.0} MB, {:.0} bytes a task", size / 1e6, size / many as f64);
        line("files, all tasks ready", each, "");
    }

    println!("\nclaims, {many} ready beside {FEW}");
    let (small, _) = filled(disk, provider, FEW).await;
    let (full, small) = claims_as_configured(full, small).await;
    drop(small.close().await);

    println!("\ncycles, {many} ready beside none");
    let empty = Kept::open(provider, disk.fresh()).await;
    cycles("backlog / none", &full, &empty, options, "≥ 0.7").await;
    drop(empty.close().await);

    let full = if full.is_durable() { opening::run(full, disk).await } else { full };

    println!("\nall of them claimed and completed, beside a new file");
    let begin = Instant::now();
    let finished = bulk::finish_all(&full.store).await;
    line("finishing them in batches", rate(finished, begin.elapsed()), "");
    let new = Kept::open(provider, disk.fresh()).await;
    cycles("finished tasks / none", &full, &new, options, "≥ 1.0").await;
    drop(new.close().await);

    println!("\nall of them removed, beside a new file");
    let full = remove_all(full).await;
    let new = Kept::open(provider, disk.fresh()).await;
    claims::of_nothing("claim of nothing, after / new", &full.store, &new.store).await;
    bulk::fill(&full.store, FEW).await;
    bulk::fill(&new.store, FEW).await;
    claims::alone("one client, after / new", &full.store, &new.store, "").await;
    claims::crowd("256 clients, after / new", 256, &full.store, &new.store, "").await;
    drop(full.close().await);
    drop(new.close().await);
}

/// A new store with tasks that are ready, closed and opened again if it can be, and how long the
/// tasks took.
async fn filled<'p>(disk: &Disk, provider: &'p Provider, tasks: usize) -> (Kept<'p>, Duration) {
    let kept = Kept::open(provider, disk.fresh()).await;
    let begin = Instant::now();
    bulk::fill(&kept.store, tasks).await;
    let time = begin.elapsed();
    (kept.reopen(Durability::Disk).await, time)
}

/// Claims that wait for the disk, and then claims that no sync hides.
async fn claims_as_configured<'p>(full: Kept<'p>, small: Kept<'p>) -> (Kept<'p>, Kept<'p>) {
    for clients in CLIENTS {
        let name = format!("on disk, {clients} clients");
        claims::crowd(&name, clients, &full.store, &small.store, "≤ 1.5").await;
    }
    if !full.is_durable() {
        claims::alone("in memory, one client", &full.store, &small.store, "≤ 1.5").await;
        return (full, small);
    }
    let full = full.reopen(Durability::Process).await;
    let small = small.reopen(Durability::Process).await;
    claims::alone("unsynced, one client", &full.store, &small.store, "≤ 1.5").await;
    claims::crowd("unsynced, 256 clients", 256, &full.store, &small.store, "≤ 1.5").await;
    (full.reopen(Durability::Disk).await, small.reopen(Durability::Disk).await)
}

async fn cycles(name: &str, one: &Kept<'_>, other: &Kept<'_>, options: &Options, wanted: &str) {
    for clients in CLIENTS {
        let mut rounds = Vec::new();
        for number in 0..options.rounds {
            let mut figures = [0.0; 2];
            for turn in 0..2 {
                let which = (number + turn) % 2;
                let store = [&one.store, &other.store][which];
                figures[which] = round(store, clients, options).await.cycles_per_second;
            }
            rounds.push(figures);
        }
        let rates: Vec<_> =
            (0..2).map(|which| median(rounds.iter().map(|round| round[which]))).collect();
        let figures = format!("{:.0} and {:.0} cycles/s", rates[0], rates[1]);
        line(&format!("{clients} clients"), figures, "");
        ratio(name, rounds.iter().map(|[one, other]| (*one, *other)), wanted);
    }
}

async fn remove_all(full: Kept<'_>) -> Kept<'_> {
    let before = full.size();
    let begin = Instant::now();
    let (removed, longest) = bulk::remove_all(&full.store).await;
    line(&format!("removing them, {STEP} at a time"), rate(removed, begin.elapsed()), "");
    line("longest step", format!("{:.1} ms", longest.as_secs_f64() * 1e3), "");
    let full = full.reopen(Durability::Disk).await;
    if full.is_durable() {
        let sizes = (before as f64 / 1e6, full.size() as f64 / 1e6);
        line("files before and after", format!("{:.0} MB, {:.0} MB", sizes.0, sizes.1), "");
    }
    full
}

fn rate(tasks: usize, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    format!("{tasks} in {seconds:.1} s, {:.1} µs each", seconds * 1e6 / tasks as f64)
}
