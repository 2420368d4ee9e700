//! What the boundary costs: enqueue + claim + complete on the memory plugin, through the loaded
//! library and with the same code linked in.
//!
//! Criterion times each side by itself. The ratio comes from short rounds in which the two take
//! turns, so that both meet the same machine. Run it with `make bench`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up fails")]

use std::{
    fmt::Display,
    ops::Range,
    time::{Duration, Instant as Clock},
};

use codeq_host::{
    Store,
    plugins::{OpenOptions, Plugins},
};
use codeq_memory::{Config, Memory};
use codeq_plugin::{
    Batch, Boxed, Claim, Cleanup, Complete, Context, Enqueue, Extensions, Instant, Lease, Millis,
    Optional, Persistence, ResultStorage, Task, TaskResult, TaskStatus, TaskStorage, Text,
    log::LogSink, rules::Rules,
};
use codeq_system_tests::plugin_dir;
use criterion::Criterion;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

/// Pairs of rounds, and cycles in a round.
const ROUNDS: usize = 100;
const CYCLES: u64 = 4000;

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let dir = plugin_dir(&["memory"]);
    let loading = Clock::now();
    let plugins = Plugins::discover(&[dir.path().to_owned()]);
    let store = runtime.block_on(plugins.open("memory", &json!({}), &OpenOptions::default()));
    let loading = loading.elapsed();
    let loaded = Loaded { runtime, store: store.unwrap() };
    let linked = Linked(Memory::open(Config::default(), context()).unwrap());

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("enqueue + claim + complete");
    group.bench_function("linked", |bencher| bencher.iter_custom(|cycles| linked.time(cycles)));
    group.bench_function("loaded", |bencher| bencher.iter_custom(|cycles| loaded.time(cycles)));
    group.finish();

    let pairs = compare(&linked, &loaded);
    println!("\n{ROUNDS} pairs of rounds of {CYCLES} cycles, the two sides in turn, one thread");
    row("linked", &[("median", ns(pairs.linked))]);
    row("loaded", &[("median", ns(pairs.loaded))]);
    let quartiles = format!("{:.3} to {:.3}", pairs.quartiles.0, pairs.quartiles.1);
    row("loaded / linked", &[("median", format!("{:.3}", pairs.ratio)), ("quartiles", quartiles)]);
    row("finding and loading", &[("once", format!("{loading:.1?}"))]);
}

/// One side of the comparison.
trait Side {
    fn run(&self, ids: Range<u64>);
    fn clear(&self);

    /// The time of some cycles. What a round leaves behind is cleared outside of it, so that the
    /// number of rounds makes no difference.
    fn time(&self, cycles: u64) -> Duration {
        let mut time = Duration::ZERO;
        let mut from = 0;
        while from < cycles {
            let to = cycles.min(from + CYCLES);
            let start = Clock::now();
            self.run(from..to);
            time += start.elapsed();
            self.clear();
            from = to;
        }
        time
    }
}

/// The plugin's code, linked into this program.
struct Linked(Memory);

/// The plugin's library, and the runtime of its host.
struct Loaded {
    runtime: Runtime,
    store: Store,
}

impl Side for Linked {
    fn run(&self, ids: Range<u64>) {
        ids.for_each(|id| linked_cycle(&self.0, id));
    }

    fn clear(&self) {
        self.0.cleanup_expired(everything()).unwrap();
    }
}

impl Side for Loaded {
    fn run(&self, ids: Range<u64>) {
        self.runtime.block_on(async {
            for id in ids {
                loaded_cycle(&self.store, id).await;
            }
        });
    }

    fn clear(&self) {
        self.runtime.block_on(self.store.cleanup_expired(everything())).unwrap();
    }
}

fn everything() -> Cleanup {
    Cleanup {
        tenant_id: Optional::RNone,
        before: Instant(i64::MAX),
        limit: u32::MAX,
        ..Cleanup::default()
    }
}

/// What the paired rounds tell.
struct Comparison {
    linked: Duration,
    loaded: Duration,
    ratio: f64,
    quartiles: (f64, f64),
}

/// Times rounds of both sides in turn; each goes first every other time.
fn compare(linked: &Linked, loaded: &Loaded) -> Comparison {
    let pair = |round: usize| {
        if round.is_multiple_of(2) {
            let linked = linked.time(CYCLES);
            (linked, loaded.time(CYCLES))
        } else {
            let loaded = loaded.time(CYCLES);
            (linked.time(CYCLES), loaded)
        }
    };
    let pairs: Vec<_> = (0..ROUNDS).map(pair).collect();
    let mut ratios: Vec<_> =
        pairs.iter().map(|(linked, loaded)| loaded.as_secs_f64() / linked.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[ROUNDS / 2]
    };
    Comparison {
        linked: median(pairs.iter().map(|pair| pair.0).collect()),
        loaded: median(pairs.iter().map(|pair| pair.1).collect()),
        ratio: ratios[ROUNDS / 2],
        quartiles: (ratios[ROUNDS / 4], ratios[ROUNDS * 3 / 4]),
    }
}

fn linked_cycle(store: &Memory, id: u64) {
    let enqueued = store.enqueue(Enqueue::now(task(id))).unwrap();
    let claimed = store.claim(claim()).unwrap().tasks.into_only().unwrap();
    assert_eq!(enqueued.task.id, claimed.id);
    let completed = store.complete(complete(claimed)).unwrap();
    std::hint::black_box(completed);
}

async fn loaded_cycle(store: &Store, id: u64) {
    let batch = Batch::One(Enqueue::now(task(id)));
    let enqueued = store.enqueue(batch).await.unwrap().into_only().unwrap().unwrap();
    let claimed = store.claim(claim()).await.unwrap().tasks.into_only().unwrap();
    assert_eq!(enqueued.task.id, claimed.id);
    let batch = Batch::One(complete(claimed));
    let completed = store.complete(batch).await.unwrap().into_only().unwrap().unwrap();
    std::hint::black_box(completed);
}

fn task(id: u64) -> Task {
    Task {
        id: format!("00000000-0000-4000-8000-{id:012}").into(),
        command: "render".into(),
        payload: PAYLOAD.into(),
        tenant_id: "acme".into(),
        ..Task::default()
    }
}

/// 200 bytes, as in the measurements that the design rests on.
const PAYLOAD: &str = match std::str::from_utf8(&[b'x'; 200]) {
    Ok(text) => text,
    Err(_) => "",
};

fn claim() -> Claim {
    Claim {
        worker_id: "worker".into(),
        tenant_id: "acme".into(),
        commands: [Text::from("render")].into_iter().collect(),
        max: 1,
        lease: Millis::from_secs(300),
        extensions: Extensions::new(),
    }
}

fn complete(task: Boxed<Task>) -> Complete {
    let task = Boxed::into_inner(task);
    let lease = Lease {
        task_id: task.id.clone(),
        worker_id: task.worker_id,
        tenant_id: task.tenant_id,
        attempt: task.attempts,
        extensions: Extensions::new(),
    };
    let result = TaskResult {
        task_id: task.id,
        status: TaskStatus::Completed,
        result: r#"{"ok":true}"#.into(),
        ..TaskResult::default()
    };
    Complete { lease, result: Boxed::new(result) }
}

fn context() -> Context {
    Context {
        provider: "memory".into(),
        rules: Rules::default(),
        timezone: "UTC".into(),
        repair_limit: 200,
        log: LogSink::none(),
        extensions: Extensions::new(),
    }
}

fn ns(round: Duration) -> String {
    format!("{} ns a cycle", round.as_nanos() / u128::from(CYCLES))
}

fn row(name: &str, figures: &[(&str, impl Display)]) {
    let figures: Vec<_> = figures.iter().map(|(name, figure)| format!("{name} {figure}")).collect();
    println!("  {name:<24}{}", figures.join(", "));
}
