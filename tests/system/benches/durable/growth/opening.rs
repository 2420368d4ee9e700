//! How long a store takes to open: closed in order, or left as it was by a process that was killed.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{bulk, kept::Kept};
use crate::{
    contestant::Contestant,
    disk::{self, Disk},
    provider::{Durability, Provider},
    report::{line, median},
    requests,
};

const TIMES: usize = 5;

/// Time for what the store may still do behind the answers.
const QUIET: Duration = Duration::from_secs(2);

const WANTED: &str = "< 50 ms";

/// Milliseconds until there is a store, and until it has answered a claim.
struct Times {
    open: f64,
    first: f64,
}

pub(super) async fn run<'p>(full: Kept<'p>, disk: &Disk) -> Kept<'p> {
    println!("\nopening it; the files are in the page cache");
    tokio::time::sleep(QUIET).await;
    let mut killed = Vec::new();
    for _ in 0..TIMES {
        // What a killed process leaves: the files as they are, and nobody who has them open.
        let copy = disk.fresh();
        disk::copy(full.dir.path(), copy.path());
        killed.push(open(full.provider, &copy).await);
    }
    let provider = full.provider;
    let dir = full.close().await;
    let mut closed = Vec::new();
    for _ in 0..TIMES {
        closed.push(open(provider, &dir).await);
    }
    let empty = Kept::open(provider, disk.fresh()).await.close().await;
    let mut nothing = Vec::new();
    for _ in 0..TIMES {
        nothing.push(open(provider, &empty).await);
    }
    tell("after it was closed", &closed, WANTED);
    tell("after it was killed", &killed, WANTED);
    tell("an empty one", &nothing, "");
    Kept::open(provider, dir).await
}

async fn open(provider: &Provider, dir: &TempDir) -> Times {
    let (store, time) = provider.open_timed(dir.path(), Durability::Disk).await;
    let begin = Instant::now();
    let task = Contestant::claim(&store, requests::claim(1)).await;
    let first = time + begin.elapsed();
    bulk::give_back(&store, task.into_iter().collect()).await;
    store.close().await.unwrap();
    Times { open: time.as_secs_f64() * 1e3, first: first.as_secs_f64() * 1e3 }
}

fn tell(name: &str, times: &[Times], wanted: &str) {
    let open = median(times.iter().map(|times| times.open));
    let first = median(times.iter().map(|times| times.first));
    line(name, format!("{open:.1} ms, {first:.1} with a claim"), wanted);
}
