//! The load of a history: producers enqueue, workers claim and do everything that workers do.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH},
};

use codeq_plugin::{
    Boxed, Claim, Complete, Enqueue, ErrorKind, Extend, Extensions, Instant, Lease, Millis, Nack,
    Queue, Result, Task, TaskResult, TaskStatus, Text,
};
use fastrand::Rng;

use super::{Answer, Deed, Final, Got, Micros, Spell, Word};
use crate::store::Store;

/// The tenant of every history.
pub const TENANT: &str = "history";
/// Its queues.
pub const COMMANDS: [&str; 2] = ["render", "resize"];
/// How often its tasks are delivered at most.
const MAX_ATTEMPTS: u32 = 4;
/// How many tasks may wait before the producers pause, so that what is left settles quickly.
const BACKLOG: u64 = 150;
/// How long settling may take, and how long it goes on when nothing happens any more. Every lease and
/// delay of a history is over by then.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);
const STANDSTILL: Duration = Duration::from_secs(2);

/// Works until the time is up. Every step is told to `say` before it begins and when it is answered.
pub fn work(store: &Store, spell: &Spell, say: &(dyn Fn(Word) + Sync)) {
    let load = Load {
        store,
        say,
        steps: AtomicU64::new(0),
        waiting: AtomicU64::new(0),
        over: now() + i64::try_from(spell.millis).unwrap_or(i64::MAX / 1000) * 1000,
        stale: Mutex::default(),
    };
    let load = &load;
    thread::scope(|scope| {
        for number in 0..spell.producers {
            let random = Rng::with_seed(spell.seed.wrapping_mul(31).wrapping_add(number.into()));
            let name = format!("p{number}");
            scope.spawn(move || load.produce(spell, &name, random));
        }
        for number in 0..spell.workers {
            let random =
                Rng::with_seed(spell.seed.wrapping_mul(37).wrapping_add(1_000 + u64::from(number)));
            let name = format!("w{number}");
            scope.spawn(move || load.toil(spell, &name, random));
        }
    });
}

/// Completes all that is left, then looks at what became of the tasks.
pub fn settle(store: &Store, spell: &Spell, ids: &[String], say: &(dyn Fn(Word) + Sync)) -> Final {
    let load = Load {
        store,
        say,
        steps: AtomicU64::new(1 << 40),
        waiting: AtomicU64::new(0),
        over: i64::MAX,
        stale: Mutex::default(),
    };
    let mut left = Final::default();
    let began = Clock::now();
    let mut moved = began;
    for turn in 0.. {
        let worker = format!("{}-settle-{turn}", spell.actor);
        let claimed = load.claim("settle", &worker, &COMMANDS, 100, Millis::from_secs(10));
        for got in &claimed {
            load.complete("settle", got, &worker, got.attempts);
        }
        match counts(store) {
            Ok(counts) => {
                if counts != left.counts || !claimed.is_empty() {
                    moved = Clock::now();
                }
                left.counts = counts;
                if counts[..3] == [0; 3] && claimed.is_empty() {
                    break;
                }
            }
            Err(error) => left.fault = Some(format!("the counts cannot be had: {error}")),
        }
        if began.elapsed() > SETTLE_LIMIT || moved.elapsed() > STANDSTILL {
            left.fault.get_or_insert_with(|| {
                let [ready, delayed, leased, _] = left.counts;
                format!(
                    "after {:.1} s of completing all that can be claimed, the counts still say \
                     {ready} ready, {delayed} delayed, {leased} leased",
                    began.elapsed().as_secs_f64()
                )
            });
            break;
        }
        if claimed.is_empty() {
            thread::sleep(Duration::from_millis(2));
        }
    }
    for id in ids {
        let found = match store.get(id) {
            Ok(task) => Some((task.status.to_string(), task.last_known_location.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some((format!("unreadable: {error}"), String::new())),
        };
        left.tasks.insert(id.clone(), found);
    }
    left
}

fn counts(store: &Store) -> Result<[u64; 4]> {
    let mut counts = [0; 4];
    for command in COMMANDS {
        let queue = Queue { tenant_id: TENANT.into(), command: command.into() };
        let stats = store.queue_stats(queue)?;
        counts[0] += stats.ready;
        counts[1] += stats.delayed;
        counts[2] += stats.in_progress;
        counts[3] += stats.dlq;
    }
    Ok(counts)
}

struct Load<'a> {
    store: &'a Store,
    say: &'a (dyn Fn(Word) + Sync),
    steps: AtomicU64,
    /// About how many tasks wait.
    waiting: AtomicU64,
    over: Micros,
    /// Leases that somebody held once, for those who come too late.
    stale: Mutex<Vec<(Got, String)>>,
}

impl Load<'_> {
    /// Takes a step, and says so.
    fn step<T>(
        &self,
        thread: &str,
        deed: Deed,
        act: impl FnOnce() -> Result<T>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Option<T> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        (self.say)(Word::Begin { step, at: now(), thread: thread.into(), deed });
        let result = act();
        let at = now();
        let (answer, value) = match result {
            Ok(value) => (answer(&value), Some(value)),
            Err(error) => {
                let kind = error.kind().to_string();
                let answer = match error.kind() {
                    ErrorKind::NotOwner | ErrorKind::NotInProgress | ErrorKind::NotFound => {
                        Answer::Refused { kind }
                    }
                    _ => Answer::Failed { kind, text: error.to_string() },
                };
                (answer, None)
            }
        };
        (self.say)(Word::End { step, at, answer });
        value
    }

    fn produce(&self, spell: &Spell, name: &str, mut random: Rng) {
        for number in 0_u64.. {
            if now() >= self.over {
                return;
            }
            while self.waiting.load(Ordering::Relaxed) > BACKLOG {
                thread::sleep(Duration::from_millis(1));
                if now() >= self.over {
                    return;
                }
            }
            let id = format!("{}-{name}-{number}", spell.actor);
            let delay = if random.u32(0..5) == 0 { random.i64(1..40) } else { 0 };
            let visible_at =
                if delay == 0 { Instant::EPOCH } else { Instant::now() + Millis(delay) };
            // Few keys, so that they meet, within a process and between processes.
            let key =
                if random.u32(0..6) == 0 { format!("k{}", number / 8) } else { String::new() };
            let task = Task {
                id: id.as_str().into(),
                tenant_id: TENANT.into(),
                command: random.choice(COMMANDS).unwrap_or(COMMANDS[0]).into(),
                payload: "{}".into(),
                priority: random.u8(0..3),
                max_attempts: MAX_ATTEMPTS,
                ..Task::default()
            };
            let deed = Deed::Enqueue {
                id,
                command: task.command.to_string(),
                priority: i64::from(task.priority),
                key: key.clone(),
                visible_at: visible_at.0,
                max_attempts: MAX_ATTEMPTS,
            };
            let enqueue = Enqueue {
                task: Boxed::new(task),
                visible_at,
                idempotency_key: key.into(),
                extensions: Extensions::new(),
            };
            let made = self.step(
                name,
                deed,
                || self.store.enqueue(enqueue),
                |made| Answer::Enqueued { id: made.task.id.to_string(), created: made.created },
            );
            match made {
                Some(_) => {
                    self.waiting.fetch_add(1, Ordering::Relaxed);
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn toil(&self, spell: &Spell, name: &str, mut random: Rng) {
        for number in 0_u64.. {
            if now() >= self.over {
                return;
            }
            let worker = format!("{}-{name}-{number}", spell.actor);
            let commands =
                if random.bool() { [COMMANDS[0], COMMANDS[1]] } else { [COMMANDS[1], COMMANDS[0]] };
            let commands = &commands[..random.usize(1..=2)];
            let lease = Millis(random.i64(20..80));
            let claimed = self.claim(name, &worker, commands, random.u32(1..4), lease);
            if claimed.is_empty() {
                self.come_too_late(name, &mut random);
                thread::sleep(Duration::from_micros(random.u64(100..1_500)));
            }
            for got in claimed {
                self.treat(name, got, &worker, &mut random);
            }
        }
    }

    /// What workers do with a task.
    fn treat(&self, name: &str, got: Got, worker: &str, random: &mut Rng) {
        let attempt = if random.bool() { got.attempts } else { 0 };
        if random.u32(0..8) == 0 {
            self.extend(name, &got, worker, attempt, Millis(random.i64(10..60)));
        }
        match random.u32(0..20) {
            0..2 => {
                self.abandon(name, &got, worker, attempt);
                self.keep(got, worker);
            }
            2..4 => {
                let delay = Millis(random.i64(0..20));
                self.nack(name, &got, worker, attempt, delay);
                self.keep(got, worker);
            }
            // Forgotten, until its lease has run out; then the worker remembers.
            4..6 => {
                if random.bool() {
                    thread::sleep(Duration::from_millis(random.u64(0..60)));
                    self.complete(name, &got, worker, attempt);
                } else {
                    self.keep(got, worker);
                }
            }
            _ => {
                if random.u32(0..4) == 0 {
                    thread::sleep(Duration::from_micros(random.u64(0..4_000)));
                }
                if self.complete(name, &got, worker, attempt) {
                    let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                        Some(n.saturating_sub(1))
                    });
                }
            }
        }
    }

    fn keep(&self, got: Got, worker: &str) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        stale.push((got, worker.into()));
        if stale.len() > 50 {
            stale.remove(0);
        }
    }

    /// Somebody who held a task once acts as if he still did.
    fn come_too_late(&self, name: &str, random: &mut Rng) {
        let stale = {
            let stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
            random.choice(stale.as_slice()).cloned()
        };
        let Some((got, worker)) = stale else {
            return;
        };
        match random.u32(0..4) {
            0 => self.extend(name, &got, &worker, 0, Millis(30)),
            1 => self.abandon(name, &got, &worker, 0),
            2 => self.nack(name, &got, &worker, 0, Millis(1)),
            _ => drop(self.complete(name, &got, &worker, 0)),
        }
    }

    fn claim(
        &self,
        name: &str,
        worker: &str,
        commands: &[&str],
        max: u32,
        lease: Millis,
    ) -> Vec<Got> {
        let deed = Deed::Claim {
            worker: worker.into(),
            commands: commands.iter().map(|command| (*command).into()).collect(),
            lease: lease.0,
        };
        let claim = Claim {
            worker_id: worker.into(),
            tenant_id: TENANT.into(),
            commands: commands.iter().map(|command| Text::from(*command)).collect(),
            max,
            lease,
            extensions: Extensions::new(),
        };
        let got = |task: &Boxed<Task>| Got {
            id: task.id.to_string(),
            command: task.command.to_string(),
            priority: i64::from(task.priority),
            attempts: task.attempts,
            max_attempts: task.max_attempts,
            lease_until: task.lease_until.map_or(0, |until| until.0),
        };
        let claimed = self.step(
            name,
            deed,
            || self.store.claim(claim),
            |claimed| Answer::Claimed { tasks: claimed.tasks.iter().map(got).collect() },
        );
        match claimed {
            Some(claimed) => claimed.tasks.iter().map(got).collect(),
            None => {
                thread::sleep(Duration::from_millis(5));
                Vec::new()
            }
        }
    }

    fn extend(&self, name: &str, got: &Got, worker: &str, attempt: u32, by: Millis) {
        let deed = Deed::Extend { id: got.id.clone(), worker: worker.into(), attempt };
        let extend = Extend { lease: lease(got, worker, attempt), by };
        self.step(
            name,
            deed,
            || self.store.update_lease(extend),
            |until| Answer::Until { deadline: until.0 },
        );
    }

    fn abandon(&self, name: &str, got: &Got, worker: &str, attempt: u32) {
        let deed = Deed::Abandon { id: got.id.clone(), worker: worker.into(), attempt };
        let lease = lease(got, worker, attempt);
        self.step(name, deed, || self.store.abandon_lease(lease), |_| Answer::Done);
    }

    fn nack(&self, name: &str, got: &Got, worker: &str, attempt: u32, delay: Millis) {
        let id = got.id.clone();
        let deed = Deed::Nack { id, worker: worker.into(), attempt, delay: delay.0 };
        let lease = lease(got, worker, attempt);
        let nack = Nack { lease, delay: Some(delay).into(), reason: "no luck".into() };
        self.step(name, deed, || self.store.nack(nack), |_| Answer::Done);
    }

    fn complete(&self, name: &str, got: &Got, worker: &str, attempt: u32) -> bool {
        let deed = Deed::Complete { id: got.id.clone(), worker: worker.into(), attempt };
        let result = TaskResult {
            task_id: got.id.as_str().into(),
            status: TaskStatus::Completed,
            result: "{}".into(),
            completed_at: Instant::now(),
            ..TaskResult::default()
        };
        let complete = Complete { lease: lease(got, worker, attempt), result: Boxed::new(result) };
        self.step(name, deed, || self.store.complete(complete), |_| Answer::Done).is_some()
    }
}

fn lease(got: &Got, worker: &str, attempt: u32) -> Lease {
    Lease {
        task_id: got.id.as_str().into(),
        worker_id: worker.into(),
        tenant_id: TENANT.into(),
        attempt,
        extensions: Extensions::new(),
    }
}

/// This machine's clock, which all processes of a history share.
fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
