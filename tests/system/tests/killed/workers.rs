//! Workers: they claim one task or several, for short or long, and do with them what workers do. What
//! one holds when its host is killed it holds on to, and goes on with it at the next host.

use std::{collections::BTreeSet, sync::atomic::Ordering, thread, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};

use super::{
    ledger::{Ledger, LostClaim},
    producers::{connect, heard},
    step::{Answer, Deed, MILLI, Micros, Record, SECOND, Step, now, seconds},
    wire::Wire,
};

pub(crate) const COMMANDS: [&str; 3] = ["render", "resize", "upload"];

/// Whom the host takes a worker for. The API knows workers by their tokens, of which a host has two.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) token: &'static str,
}

impl Subject {
    /// The one of the worker's token.
    pub(crate) const LEFT: Subject = Subject { name: "left", token: "the-workers-secret" };
    /// The one of the producer's token.
    pub(crate) const RIGHT: Subject = Subject { name: "right", token: "the-producers-secret" };
}

/// A task that a worker takes for its own.
pub(crate) struct Held {
    pub(crate) name: String,
    pub(crate) id: String,
}

pub(crate) struct Worker {
    pub(crate) who: String,
    pub(crate) subject: Subject,
    pub(crate) held: Vec<Held>,
    /// No two workers of a subject claim for as long, so that a lease tells whose it is.
    leases: [Micros; 2],
    random: Rng,
    turn: u32,
}

impl Worker {
    pub(crate) fn new(number: usize, random: Rng) -> Worker {
        let subject = [Subject::LEFT, Subject::RIGHT][number % 2];
        let n = Micros::try_from(number).unwrap() / 2;
        Worker {
            who: format!("w{number}"),
            subject,
            held: Vec::new(),
            leases: [(1 + n) * SECOND, (4 + n) * SECOND],
            random,
            turn: 0,
        }
    }

    /// Works until the host is killed.
    pub(crate) fn run(&mut self, ledger: &Ledger, addr: &str) {
        let Some(mut wire) = connect(ledger, addr, self.subject) else { return };
        while !ledger.is_dying() {
            let busy = self.held.len() >= 12 || self.random.u32(0..12) < 7;
            let went_on = if busy && !self.held.is_empty() {
                self.treat(ledger, &mut wire)
            } else {
                self.claim(ledger, &mut wire)
            };
            if went_on.is_none() {
                return;
            }
        }
    }

    /// Claims. Answers none if the host does not.
    fn claim(&mut self, ledger: &Ledger, wire: &mut Wire) -> Option<()> {
        let random = &mut self.random;
        let lease = self.leases[usize::from(random.u32(0..3) == 0)];
        let count = if random.bool() { 1 } else { random.usize(1..=10) };
        let mut commands = COMMANDS.to_vec();
        random.shuffle(&mut commands);
        commands.truncate(random.usize(0..=COMMANDS.len()));
        let wait = u32::from(random.u32(0..3) == 0);
        let batch = count > 1 || random.u32(0..8) == 0;
        let got = self.take(ledger, wire, commands, count, [lease, wait.into()], batch)?;
        if got == 0 {
            thread::sleep(Duration::from_micros(self.random.u64(0..2_000)));
        }
        Some(())
    }

    /// Claims so many tasks for so long, and waits for so many seconds. Answers how many it got; none
    /// if the host does not answer.
    pub(crate) fn take(
        &mut self,
        ledger: &Ledger,
        wire: &mut Wire,
        commands: Vec<&'static str>,
        count: usize,
        [lease, wait]: [Micros; 2],
        batch: bool,
    ) -> Option<usize> {
        let mut body = json!({
            "commands": commands,
            "leaseSeconds": lease / SECOND,
            "waitSeconds": wait,
        });
        if batch {
            body["count"] = count.into();
        }
        let path = if batch { "/tasks/claim/batch" } else { "/tasks/claim" };
        let step = ledger.step(&self.who, self.subject.name, Deed::Claim { lease });
        let answered = wire.post(path, &body);
        let end = now();
        let Some(answer) = heard(ledger, path, answered) else {
            ledger.lost_claim(LostClaim { step, commands, count });
            return None;
        };
        let step = Step { end, ..step };
        let records = claimed(&answer).filter(|records| records.len() <= count);
        let Some(records) = records else {
            ledger.complain(None, format!("{} claims {body}: {answer:?}", self.who));
            return Some(0);
        };
        let got = records.len();
        self.held.extend(records.iter().map(held));
        records.into_iter().for_each(|record| ledger.shown(step.clone(), record));
        Some(got)
    }

    /// Does something with a task that it holds. Answers none if the host does not answer.
    fn treat(&mut self, ledger: &Ledger, wire: &mut Wire) -> Option<()> {
        self.turn += 1;
        let random = &mut self.random;
        let which = random.usize(..self.held.len());
        let (deed, body) = match random.u32(0..20) {
            0..=2 => {
                let by = self.leases[random.usize(0..2)];
                (Deed::Heartbeat { by }, json!({ "extendSeconds": by / SECOND }))
            }
            3 | 4 => (Deed::Abandon, json!({})),
            5..=8 => {
                let named = random.bool();
                let delay = if named { random.i64(0..500) * MILLI } else { 0 };
                let reason = format!("{} failed at turn {}", self.who, self.turn);
                let mut body = json!({ "reason": reason });
                if named {
                    body["delaySeconds"] = seconds(delay);
                }
                (Deed::Nack { delay, reason }, body)
            }
            // It forgets the task, whose lease has to run out.
            9 => {
                self.held.swap_remove(which);
                return Some(());
            }
            10..=12 => {
                let least = self.held.len() - random.usize(1..=self.held.len().min(4));
                return self.complete_all(ledger, wire, least);
            }
            _ => {
                let result = self.result();
                let body = json!({ "status": "COMPLETED", "result": result });
                (Deed::Complete { result: result.to_string() }, body)
            }
        };
        let action = match &deed {
            Deed::Heartbeat { .. } => "heartbeat",
            Deed::Abandon => "abandon",
            Deed::Nack { .. } => "nack",
            _ => "result",
        };
        let step = ledger.step(&self.who, self.subject.name, deed);
        let Held { name, id } = &self.held[which];
        let path = format!("/tasks/{id}/{action}");
        let answered = wire.post(&path, &body);
        let end = now();
        let Some((status, answer)) = heard(ledger, &path, answered) else {
            ledger.happened(name, step);
            return None;
        };
        let answer = match status {
            200 if answer["status"] == "dlq" => Answer::Buried,
            200 => Answer::Done,
            403 | 404 | 409 => Answer::Refused(status),
            _ => {
                ledger.complain(Some(name), format!("{} is answered {status} {answer}", self.who));
                return Some(());
            }
        };
        let stays = matches!((&step.deed, &answer), (Deed::Heartbeat { .. }, Answer::Done));
        ended(ledger, &step.deed, &answer);
        ledger.happened(name, Step { end, answer, ..step });
        if !stays {
            self.held.swap_remove(which);
        }
        Some(())
    }

    /// Completes all but so many of its tasks at once. Answers none if the host does not answer.
    pub(crate) fn complete_all(
        &mut self,
        ledger: &Ledger,
        wire: &mut Wire,
        least: usize,
    ) -> Option<()> {
        // A batch has at most so many.
        let held = self.held.split_off(least.max(self.held.len().saturating_sub(100)));
        let done: Vec<(Held, Value)> = held.into_iter().map(|held| (held, self.result())).collect();
        if done.is_empty() {
            return Some(());
        }
        let step = |(_, result): &(Held, Value)| {
            let deed = Deed::Complete { result: result.to_string() };
            ledger.step(&self.who, self.subject.name, deed)
        };
        let steps: Vec<Step> = done.iter().map(step).collect();
        let items = done.iter().map(
            |(held, result)| json!({ "taskId": held.id, "status": "COMPLETED", "result": result }),
        );
        let path = "/tasks/batch/results";
        let answered = wire.post(path, &json!({ "results": items.collect::<Vec<_>>() }));
        let end = now();
        let Some((status, answer)) = heard(ledger, path, answered) else {
            let unanswered = done.into_iter().zip(steps);
            unanswered.for_each(|((held, _), step)| {
                ledger.happened(&held.name, step);
                // Not knowing better, it tries again.
                self.held.push(held);
            });
            return None;
        };
        for (n, ((held, _), step)) in done.into_iter().zip(steps).enumerate() {
            let item = &answer["results"][n];
            let answer = match item["error"].as_str() {
                None if status == 200 && item["taskId"] == *held.id => Answer::Done,
                Some("not-in-progress") => Answer::Refused(409),
                Some("not-owner") => Answer::Refused(403),
                _ => {
                    let what = format!("{} is answered {status} {answer}", self.who);
                    ledger.complain(Some(&held.name), what);
                    continue;
                }
            };
            ended(ledger, &step.deed, &answer);
            ledger.happened(&held.name, Step { end, answer, ..step });
        }
        Some(())
    }

    /// A result unlike any other.
    fn result(&mut self) -> Value {
        self.turn += 1;
        json!({ "by": self.who, "turn": self.turn })
    }

    /// Takes a task over that an unanswered claim left to its subject, or lets its lease run out.
    pub(crate) fn find(&mut self, name: &str, id: &str) {
        if self.random.bool() {
            self.held.push(Held { name: name.to_owned(), id: id.to_owned() });
        }
    }
}

/// The names of all that the workers of a subject hold.
pub(crate) fn held_by<'a>(workers: &'a [Worker], subject: &str) -> BTreeSet<&'a str> {
    let mine = workers.iter().filter(|worker| worker.subject.name == subject);
    mine.flat_map(|worker| worker.held.iter().map(|held| held.name.as_str())).collect()
}

fn held(record: &Record) -> Held {
    Held { name: record.spec.name.clone(), id: record.id.clone() }
}

/// The tasks that a claim was answered with.
fn claimed((status, answer): &(u16, Value)) -> Option<Vec<Record>> {
    match (status, answer["tasks"].as_array()) {
        (204, _) => Some(Vec::new()),
        (200, Some(tasks)) => tasks.iter().map(Record::read).collect(),
        (200, None) => Some(vec![Record::read(answer)?]),
        _ => None,
    }
}

fn ended(ledger: &Ledger, deed: &Deed, answer: &Answer) {
    if matches!((deed, answer), (Deed::Complete { .. }, Answer::Done) | (_, Answer::Buried)) {
        let one_less = |open: usize| Some(open.saturating_sub(1));
        let _ = ledger.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }
}
