//! A round: so many clients, each with its own cycles one after another, for some time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{task::yield_now, time::sleep};

use crate::{contestant::Contestant, options::Options, requests};

/// What a round tells.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) cycles_per_second: f64,
    /// Milliseconds that a cycle takes its client.
    pub(crate) median: f64,
    pub(crate) p99: f64,
    /// Microseconds of all threads of this process, kernel time and clients included.
    pub(crate) cpu_per_cycle: f64,
}

/// What the clients are to do. Only what ends while measuring counts, so that neither the first cycles,
/// which find everything cold, nor the last ones, which are alone, make a difference.
const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// What a client did while it was measured.
#[derive(Default)]
struct Done {
    /// Counted one by one: the cycles of many clients tend to end together, and a round that just
    /// catches or misses such a moment would tell too much or too little.
    steps: u32,
    /// The whole cycles.
    cycles: Vec<Duration>,
}

pub(crate) async fn round<C: Contestant>(
    contestant: &C,
    clients: usize,
    options: &Options,
) -> Round {
    let phase = Arc::new(AtomicU8::new(WARMING_UP));
    let start = || tokio::spawn(client(contestant.clone(), Arc::clone(&phase)));
    let clients: Vec<_> = (0..clients).map(|_| start()).collect();
    sleep(options.warm_up).await;
    phase.store(MEASURING, Ordering::Relaxed);
    let (begin, cpu) = (Instant::now(), cpu_time());
    sleep(options.window).await;
    phase.store(OVER, Ordering::Relaxed);
    let (time, cpu) = (begin.elapsed(), cpu_time() - cpu);
    let mut all = Done::default();
    for client in clients {
        let done = client.await.unwrap();
        all.steps += done.steps;
        all.cycles.extend(done.cycles);
    }
    all.cycles.sort_unstable();
    let at = |part: usize| {
        let time = all.cycles.get(all.cycles.len() * part / 100);
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    let cycles = f64::from(all.steps) / 3.0;
    Round {
        cycles_per_second: cycles / time.as_secs_f64(),
        median: at(50),
        p99: at(99),
        cpu_per_cycle: cpu.as_secs_f64() * 1e6 / cycles,
    }
}

async fn client<C: Contestant>(contestant: C, phase: Arc<AtomicU8>) -> Done {
    let mut done = Done::default();
    let is = |wanted| phase.load(Ordering::Relaxed) == wanted;
    loop {
        let begin = Instant::now();
        contestant.enqueue(requests::enqueue()).await;
        done.steps += u32::from(is(MEASURING));
        // Whoever claims has enqueued, so there is one for everybody. It may be another client's:
        // then that one is completed, and its client completes another.
        let task = contestant.claim(requests::claim(1)).await.expect("a task to claim");
        done.steps += u32::from(is(MEASURING));
        contestant.complete(requests::complete(task)).await;
        let time = begin.elapsed();
        if is(MEASURING) {
            done.steps += 1;
            done.cycles.push(time);
        }
        if is(OVER) {
            return done;
        }
        // A store that always answers at once would leave the other clients no turn.
        yield_now().await;
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}
