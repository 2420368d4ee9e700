//! The course of a test: start, check, load, kill, and again.

use std::{
    fmt, thread,
    time::{Duration, Instant as Clock},
};

use codeq_system_tests::{Host, plugin_dir};
use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    checks::{Scope, check},
    drain::drain,
    ledger::Ledger,
    producers::Producer,
    report::Report,
    step::{MILLI, Micros, now},
    workers::{Subject, Worker},
};

const PRODUCERS: usize = 3;
const WORKERS: usize = 6;
/// How long the load lasts that has to leave something behind.
const FIRST_LOAD: Duration = Duration::from_millis(300);

/// How long after its end something may still happen that a host asked a server for.
const AFTERMATH: Micros = 50 * MILLI;

pub(crate) struct Course {
    provider: String,
    plugins: TempDir,
    config: Value,
    seed: u64,
    random: Rng,
    ledger: Ledger,
    producers: Vec<Producer>,
    workers: Vec<Worker>,
    summary: Summary,
}

/// What a course did, and where the time went.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    kills: u32,
    tasks: usize,
    acknowledged: usize,
    unanswered: usize,
    starting: Duration,
    starts: u32,
    checking: Duration,
    loading: Duration,
    draining: Duration,
}

impl Course {
    pub(crate) fn new(provider: &str, config: &Value, seed: u64) -> Course {
        let mut random = Rng::with_seed(seed);
        let raw = json!({ "tenantId": "acme", "role": "ADMIN" });
        let mut all = json!({
            "persistenceProvider": provider,
            "backoffPolicy": "fixed",
            "backoffBaseSeconds": 0,
            "producerAuthProvider": "static",
            "producerAuthConfig": {
                "token": Subject::RIGHT.token, "subject": Subject::RIGHT.name, "raw": raw,
            },
            "workerAuthProvider": "static",
            "workerAuthConfig": {
                "token": Subject::LEFT.token,
                "subject": Subject::LEFT.name,
                "eventTypes": ["*"],
                "scopes":
                    ["codeq:claim", "codeq:heartbeat", "codeq:abandon", "codeq:nack", "codeq:result"],
                "raw": raw,
            },
            "allowProducerAsWorker": true,
        });
        all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        Course {
            provider: provider.to_owned(),
            plugins: plugin_dir(&[provider]),
            config: all,
            seed,
            producers: (0..PRODUCERS).map(|n| Producer::new(n, random.fork())).collect(),
            workers: (0..WORKERS).map(|n| Worker::new(n, random.fork())).collect(),
            random,
            ledger: Ledger::new(),
            summary: Summary::default(),
        }
    }

    /// Kills so many hosts under load.
    pub(crate) fn run(mut self, rounds: u32) -> Result<Summary, Box<Report>> {
        for round in 1..=rounds {
            self.ledger.begin_round(round);
            if self.random.u32(0..5) == 0 {
                self.kill_at_the_start();
            }
            let host = self.start();
            // Some load comes at once, and what it does is checked a round later.
            if self.random.u32(0..4) > 0 {
                self.check(&host)?;
            }
            let time = match self.random.u32(0..4) {
                _ if round == 1 => FIRST_LOAD,
                0 => Duration::from_millis(self.random.u64(0..40)),
                _ => Duration::from_millis(self.random.u64(40..450)),
            };
            self.load_and_kill(host, time)?;
        }
        self.ledger.begin_round(rounds + 1);
        let host = self.start();
        self.check(&host)?;
        let begin = Clock::now();
        let mut last = Worker::new(2 * WORKERS, self.random.fork());
        drain(&self.ledger, host.addr(), &mut self.workers, &mut last);
        self.look_out(&host.log())?;
        self.summary.draining = begin.elapsed();
        let book = self.ledger.book();
        self.summary.tasks = book.lives.values().filter(|life| life.id.is_some()).count();
        (self.summary.acknowledged, self.summary.unanswered) = (book.acknowledged, book.unanswered);
        drop(book);
        Ok(self.summary)
    }

    fn start(&mut self) -> Host {
        let begin = Clock::now();
        let host = Host::start(self.plugins.path(), self.config.clone());
        self.summary.starting += begin.elapsed();
        self.summary.starts += 1;
        host
    }

    /// Kills a host that nobody uses yet, while it opens what the last one left.
    fn kill_at_the_start(&mut self) {
        let usual = self.summary.starting / self.summary.starts.max(1);
        let host = Host::launch(self.plugins.path(), self.config.clone());
        thread::sleep(usual.mul_f64(self.random.f64() * 1.2));
        drop(host);
        self.summary.kills += 1;
    }

    fn check(&mut self, host: &Host) -> Result<(), Box<Report>> {
        let begin = Clock::now();
        check(&self.ledger, host.addr(), &mut self.workers, Scope::Touched);
        self.summary.checking += begin.elapsed();
        self.look_out(&host.log())
    }

    fn load_and_kill(&mut self, host: Host, time: Duration) -> Result<(), Box<Report>> {
        let (ledger, addr) = (&self.ledger, host.addr().to_owned());
        let addr = addr.as_str();
        let log = thread::scope(|threads| {
            for producer in &mut self.producers {
                threads.spawn(move || producer.run(ledger, addr));
            }
            for worker in &mut self.workers {
                threads.spawn(move || worker.run(ledger, addr));
            }
            thread::sleep(time);
            let log = host.log();
            ledger.begin_kill();
            // As by kill -9.
            drop(host);
            log
        });
        self.ledger.book().bury(now() + AFTERMATH);
        self.summary.loading += time;
        self.summary.kills += 1;
        self.look_out(&log)
    }

    /// Fails if something is wrong by now.
    fn look_out(&self, log: &[String]) -> Result<(), Box<Report>> {
        let unwell = |line: &&String| line.contains("\"ERROR\"") || line.contains("panicked");
        if let Some(line) = log.iter().find(unwell) {
            self.ledger.complain(None, format!("the host says {line}"));
        }
        if self.ledger.book().faults.is_empty() {
            return Ok(());
        }
        Err(Box::new(Report::new(&self.ledger, &self.provider, self.seed, log)))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { kills, tasks, acknowledged, unanswered, starts, .. } = self;
        let each = |time: Duration| time / (*starts).max(1);
        write!(
            f,
            "{kills} kills, {tasks} tasks, {acknowledged} operations acknowledged, {unanswered} cut \
             off; a start took {:.0?}, a check {:.0?}, a load {:.0?}, the end {:.1?}",
            each(self.starting),
            each(self.checking),
            each(self.loading),
            self.draining
        )
    }
}
