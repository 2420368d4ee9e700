//! Producers: single tasks and batches, with priorities and delays, and keys that several of them use.

use std::{sync::atomic::Ordering, thread, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};

use super::{
    ledger::Ledger,
    step::{Deed, MILLI, Record, Spec, Step, now},
    wire::Wire,
    workers::{COMMANDS, Subject},
};

/// About how many tasks may be open, so that they can all be looked at after every kill.
const BACKLOG: usize = 120;
/// How often a task is delivered that is never to become a dead letter.
const FOREVER: u32 = 1_000_000;

pub(crate) struct Producer {
    who: String,
    random: Rng,
    turn: u32,
}

impl Producer {
    pub(crate) fn new(number: usize, random: Rng) -> Producer {
        Producer { who: format!("p{number}"), random, turn: 0 }
    }

    /// Enqueues until the host is killed.
    pub(crate) fn run(&mut self, ledger: &Ledger, addr: &str) {
        let Some(mut wire) = connect(ledger, addr, Subject::RIGHT) else { return };
        while !ledger.is_dying() {
            let again = ledger.open.load(Ordering::Relaxed) > BACKLOG;
            if again {
                thread::sleep(Duration::from_millis(1));
            }
            let count =
                if again || self.random.u32(0..4) > 0 { 1 } else { self.random.usize(2..9) };
            let mut specs: Vec<Spec> = Vec::new();
            while specs.len() < count {
                let spec = if again { self.again(ledger) } else { Some(self.invent(ledger)) };
                let Some(spec) = spec else { break };
                specs.push(spec);
            }
            let batch = count > 1 || self.random.u32(0..8) == 0;
            if !specs.is_empty() && !enqueue(ledger, &mut wire, &self.who, &specs, batch) {
                return;
            }
        }
    }

    fn invent(&mut self, ledger: &Ledger) -> Spec {
        self.turn += 1;
        let random = &mut self.random;
        if random.u32(0..12) == 0 {
            return self.again(ledger).unwrap_or_else(|| self.invent(ledger));
        }
        let keyed = random.u32(0..5) == 0;
        let name = if keyed {
            // Few, so that producers meet.
            format!("key-{}-{}", ledger.round(), random.u32(0..12))
        } else {
            format!("{}-{}", self.who, self.turn)
        };
        let delay = match random.u32(0..10) {
            0 | 1 => random.i64(1..400) * MILLI,
            2 => random.i64(400..4_000) * MILLI,
            _ => 0,
        };
        ledger.announce(Spec {
            name,
            keyed,
            command: COMMANDS[random.usize(..COMMANDS.len())],
            priority: random.u32(0..=9),
            // Of a task with a key nothing stays unknown: it is enqueued again after the kill.
            max_attempts: if keyed { random.u32(1..5) } else { FOREVER },
            delay,
        })
    }

    /// A key that somebody used before, maybe long ago.
    fn again(&mut self, ledger: &Ledger) -> Option<Spec> {
        let book = ledger.book();
        let recent = self.random.bool();
        let from = if recent { book.keys.len().saturating_sub(20) } else { 0 };
        let key = self.random.choice(&book.keys[from..])?;
        Some(book.lives[key].spec.clone())
    }
}

/// Connects. A host that is about to be killed need not answer.
pub(crate) fn connect(ledger: &Ledger, addr: &str, subject: Subject) -> Option<Wire> {
    match Wire::connect(addr, subject.token) {
        Ok(wire) => Some(wire),
        Err(error) => {
            if !ledger.is_dying() {
                ledger.complain(None, format!("the host takes no connection: {error}"));
            }
            None
        }
    }
}

/// Enqueues tasks. Answers whether the host did.
pub(crate) fn enqueue(
    ledger: &Ledger,
    wire: &mut Wire,
    who: &str,
    specs: &[Spec],
    batch: bool,
) -> bool {
    let (path, body) = if batch {
        let tasks: Vec<Value> = specs.iter().map(Spec::body).collect();
        ("/tasks/batch", json!({ "tasks": tasks }))
    } else {
        ("/tasks", specs[0].body())
    };
    let begun = ledger.step(who, Subject::RIGHT.name, Deed::Enqueue);
    let answered = wire.post(path, &body);
    let end = now();
    let Some((status, answer)) = heard(ledger, path, answered) else {
        specs.iter().for_each(|spec| ledger.happened(&spec.name, begun.clone()));
        return false;
    };
    let tasks: Vec<&Value> = match (status, answer["results"].as_array()) {
        (202, _) => vec![&answer],
        (200, Some(results)) => results.iter().map(|result| &result["task"]).collect(),
        _ => Vec::new(),
    };
    let records: Vec<Record> = tasks.iter().filter_map(|task| Record::read(task)).collect();
    let asked = specs.iter().map(|spec| &spec.name);
    if !asked.eq(records.iter().map(|record| &record.spec.name)) {
        let name = &specs[0].name;
        ledger.complain(Some(name), format!("{who} enqueues, and is answered {status} {answer}"));
        return true;
    }
    for record in records {
        if record.attempts == 0 && record.status == "PENDING" {
            ledger.open.fetch_add(1, Ordering::Relaxed);
        }
        ledger.shown(Step { end, ..begun.clone() }, record);
    }
    true
}

/// What the host answered, if it did. It has to, unless it is about to be killed.
pub(crate) fn heard(
    ledger: &Ledger,
    path: &str,
    answered: std::io::Result<(u16, Value)>,
) -> Option<(u16, Value)> {
    match answered {
        Ok(answer) => Some(answer),
        Err(error) => {
            if !ledger.is_dying() {
                ledger.complain(None, format!("the host does not answer {path}: {error}"));
            }
            None
        }
    }
}
