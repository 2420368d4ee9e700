//! Tasks a second and what they cost the server, with batches and one by one, beside the bare commands.

use crate::{
    bare,
    drive::{self, Clients, Idempotency},
    options::Options,
    plugin::Plugin,
    report::{line, median, ratio},
    server::{Cost, Persistence, Server},
};

/// Callers of single operations.
const CALLERS: usize = 64;

/// What a round measures, in the order in which it does.
#[derive(Default)]
struct Round {
    enqueue: Cost,
    consume: Cost,
    keyed: Cost,
    enqueue_single: Cost,
    consume_single: Cost,
    bare_enqueue: Cost,
    bare_consume: Cost,
}

pub(crate) async fn run(options: &Options, plugin: &Plugin) {
    for persistence in [Persistence::None, Persistence::EverySecond] {
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            rounds.push(round(options, plugin, persistence).await);
        }
        tell(options, persistence, &rounds);
    }
}

async fn round(options: &Options, plugin: &Plugin, persistence: Persistence) -> Round {
    let Options { tasks, batch, clients, .. } = *options;
    let (batches, singles) =
        (Clients { count: clients, batch }, Clients { count: CALLERS, batch: 1 });
    let mut round = Round::default();
    let server = Server::start(persistence);
    let store = server.open(plugin, 0).await;
    round.enqueue = drive::enqueue(&server, &store, batches, tasks, Idempotency::None).await;
    round.consume = drive::consume(&server, &store, batches, tasks).await;
    round.keyed = drive::enqueue(&server, &store, batches, tasks, Idempotency::Keys).await;
    store.close().await.unwrap();
    // Each kind of client finds the same server, with nothing in it.
    let server = Server::start(persistence);
    let store = server.open(plugin, 0).await;
    round.enqueue_single = drive::enqueue(&server, &store, singles, tasks, Idempotency::None).await;
    round.consume_single = drive::consume(&server, &store, singles, tasks).await;
    store.close().await.unwrap();
    let server = Server::start(persistence);
    round.bare_enqueue = bare::enqueue(&server, tasks, batch);
    round.bare_consume = bare::consume(&server, tasks, batch);
    round
}

type Figure = fn(&Round) -> &Cost;

fn tell(options: &Options, persistence: Persistence, rounds: &[Round]) {
    let Options { tasks, batch, clients, .. } = options;
    println!(
        "\n{persistence}; {tasks} tasks, batches of {batch} by {clients} clients, single operations by \
         {CALLERS} callers; medians of {} rounds",
        rounds.len()
    );
    println!("  {:<38}  tasks/s  tasks/s of a core  server µs/task", "");
    let rows: [(&str, Figure); 7] = [
        ("enqueue, batches", |round| &round.enqueue),
        ("enqueue, batches, idempotency keys", |round| &round.keyed),
        ("enqueue, single", |round| &round.enqueue_single),
        ("bare commands of an enqueue", |round| &round.bare_enqueue),
        ("claim + complete, batches", |round| &round.consume),
        ("claim + complete, single", |round| &round.consume_single),
        ("bare commands of claim + complete", |round| &round.bare_consume),
    ];
    for (name, of) in rows {
        let figure =
            |figure: fn(&Cost) -> f64| median(rounds.iter().map(|round| figure(of(round))));
        println!(
            "  {name:<38} {:>8.0}  {:>17.0}  {:>14.2}",
            figure(Cost::per_second),
            figure(Cost::per_core_second),
            figure(Cost::server_micros),
        );
    }
    let cores = |one: Figure, other: Figure| {
        let pair = move |round| (one(round).per_core_second(), other(round).per_core_second());
        rounds.iter().map(pair)
    };
    let rates = |one: Figure, other: Figure| {
        rounds.iter().map(move |round| (one(round).per_second(), other(round).per_second()))
    };
    let of_a_core = |of: Figure| median(rounds.iter().map(|round| of(round).per_core_second()));
    let per_core = |of: Figure| format!("{:.0}/s", of_a_core(of));
    line("enqueue, tasks of a core", per_core(|round| &round.enqueue), "≥ 60000/s");
    line("claim + complete, tasks of a core", per_core(|round| &round.consume), "≥ 48000/s");
    ratio(
        "enqueue / bare commands, of a core",
        cores(|r| &r.enqueue, |r| &r.bare_enqueue),
        "≥ 0.5",
    );
    ratio(
        "claim + complete / bare, of a core",
        cores(|r| &r.consume, |r| &r.bare_consume),
        "≥ 0.5",
    );
    ratio("single / batches, enqueue", rates(|r| &r.enqueue_single, |r| &r.enqueue), "≥ 0.5");
    ratio(
        "single / batches, claim + complete",
        rates(|r| &r.consume_single, |r| &r.consume),
        "≥ 0.5",
    );
}
