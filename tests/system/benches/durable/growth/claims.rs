//! What a claim costs in two stores, which take turns. What is claimed is given back outside of the
//! timing.

use std::time::Instant;

use codeq_host::Store;
use codeq_plugin::{Boxed, Task};

use super::bulk;
use crate::{
    contestant::Contestant,
    report::{line, median, ratio},
    requests,
};

/// How often the stores take turns.
const ROUNDS: usize = 9;

/// Claims in a round: by one client, and by many together. There are as many in the smallest store.
const ALONE: usize = 512;
const TOGETHER: usize = 8192;

/// One client's claims, one after another; the median of each round.
pub(super) async fn alone(name: &str, one: &Store, other: &Store, wanted: &str) {
    let mut rounds = Vec::new();
    for number in 0..ROUNDS {
        let mut figures = [0.0; 2];
        for turn in 0..2 {
            let which = (number + turn) % 2;
            let store = [one, other][which];
            let (times, tasks) = timed(store, ALONE).await;
            assert_eq!(tasks.len(), ALONE);
            bulk::give_back(store, tasks).await;
            figures[which] = median(times);
        }
        rounds.push(figures);
    }
    tell(name, &rounds, wanted);
}

/// Claims by so many clients at once; the whole time by the number of claims.
pub(super) async fn crowd(name: &str, clients: usize, one: &Store, other: &Store, wanted: &str) {
    let mut rounds = Vec::new();
    for number in 0..ROUNDS {
        let mut figures = [0.0; 2];
        for turn in 0..2 {
            let which = (number + turn) % 2;
            figures[which] = together([one, other][which], clients).await;
        }
        rounds.push(figures);
    }
    tell(name, &rounds, wanted);
}

/// One client's claims while nothing is ready.
pub(super) async fn of_nothing(name: &str, one: &Store, other: &Store) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (first, tasks) = timed(one, ALONE).await;
        let (second, more) = timed(other, ALONE).await;
        assert!(tasks.is_empty() && more.is_empty());
        rounds.push([median(first), median(second)]);
    }
    tell(name, &rounds, "");
}

/// Microseconds of each claim, and what was claimed.
async fn timed(store: &Store, claims: usize) -> (Vec<f64>, Vec<Boxed<Task>>) {
    let (mut times, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..claims {
        let begin = Instant::now();
        tasks.extend(Contestant::claim(store, requests::claim(1)).await);
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    (times, tasks)
}

async fn together(store: &Store, clients: usize) -> f64 {
    let each = TOGETHER / clients;
    let begin = Instant::now();
    let client = |store: Store| async move { timed(&store, each).await.1 };
    let clients: Vec<_> = (0..clients).map(|_| tokio::spawn(client(store.clone()))).collect();
    let mut tasks = Vec::new();
    for client in clients {
        tasks.extend(client.await.unwrap());
    }
    let time = begin.elapsed();
    let figure = time.as_secs_f64() * 1e6 / tasks.len() as f64;
    bulk::give_back(store, tasks).await;
    figure
}

fn tell(name: &str, rounds: &[[f64; 2]], wanted: &str) {
    let each = |which: usize| median(rounds.iter().map(|round| round[which]));
    line(name, format!("{:.1} and {:.1} µs", each(0), each(1)), "");
    ratio("", rounds.iter().map(|[one, other]| (*one, *other)), wanted);
}
