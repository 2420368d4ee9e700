//! Whether claims slow down as a queue fills, or as leases pile up. The same server keeps a small and a
//! large store in two databases, and they take turns.

use std::time::Instant;

use codeq_host::Store;
use codeq_plugin::{Batch, Lease};

use crate::{
    drive::{self, Clients, Idempotency},
    options::Options,
    plugin::Plugin,
    report::{line, median},
    requests,
    server::{Persistence, Server},
};

const FEW: usize = 1_000;
const CLAIMS: usize = 300;

/// Medians of the claims on a store.
struct Claims {
    /// Microseconds that a caller waits.
    wait: f64,
    /// Microseconds of the server's.
    server: f64,
}

pub(crate) async fn run(options: &Options, plugin: &Plugin) {
    let leases = options.many / 10;
    let server = Server::start(Persistence::None);
    let (few, many, leased) = (
        filled(&server, plugin, 0, FEW, 0).await,
        filled(&server, plugin, 1, options.many, 0).await,
        filled(&server, plugin, 2, FEW, leases).await,
    );
    let (mut of_few, mut of_many, mut of_leased) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        of_few.push(claims(&server, &few).await);
        of_many.push(claims(&server, &many).await);
        of_leased.push(claims(&server, &leased).await);
    }
    println!("\nclaims of 1 task as the store grows; medians of 5 rounds of {CLAIMS} claims");
    tell("ready tasks: 1,000, no leases", &of_few, &of_few);
    tell(&format!("ready tasks: {}, no leases", options.many), &of_many, &of_few);
    tell(&format!("ready tasks: 1,000, leases: {leases}"), &of_leased, &of_few);
}

async fn filled(server: &Server, plugin: &Plugin, db: u32, ready: usize, leases: usize) -> Store {
    let store = server.open(plugin, db).await;
    let clients = Clients { count: 2, batch: 500 };
    drive::enqueue(server, &store, clients, ready + leases, Idempotency::None).await;
    let mut taken = 0;
    while taken < leases {
        taken += store.claim(requests::claim(500)).await.unwrap().tasks.len();
    }
    store
}

/// Claims one task after another, and gives them back.
async fn claims(server: &Server, store: &Store) -> Claims {
    let mut waits = Vec::with_capacity(CLAIMS);
    let mut taken = Vec::with_capacity(CLAIMS);
    let begin = server.mark();
    for _ in 0..CLAIMS {
        let asked = Instant::now();
        let claimed = store.claim(requests::claim(1)).await.unwrap();
        waits.push(asked.elapsed().as_secs_f64() * 1e6);
        taken.extend(claimed.tasks);
    }
    let cost = server.since(&begin, CLAIMS);
    assert_eq!(taken.len(), CLAIMS);
    let leases: Batch<Lease> = taken.into_iter().map(requests::lease).collect();
    for answer in store.abandon_lease(leases).await.unwrap() {
        answer.unwrap();
    }
    Claims { wait: median(waits), server: cost.server_micros() }
}

fn tell(name: &str, claims: &[Claims], few: &[Claims]) {
    let of = |claims: &[Claims], figure: fn(&Claims) -> f64| median(claims.iter().map(figure));
    let (wait, server) = (of(claims, |claims| claims.wait), of(claims, |claims| claims.server));
    let times = server / of(few, |claims| claims.server);
    line(name, format!("{wait:.0} µs, server {server:.1} µs, {times:.2} times"), "");
}
