//! What a failure tells.

use std::fmt;

use super::{
    explain::Stuck,
    ledger::{Fault, Ledger, Life},
    model::{Place, State},
    step::{Answer, Deed, Micros, Record, SECOND, Step},
};

/// How many faults are told in full.
const SHOWN: usize = 3;

pub(crate) struct Report {
    text: String,
}

impl Report {
    pub(crate) fn new(ledger: &Ledger, provider: &str, seed: u64, log: &[String]) -> Report {
        let book = ledger.book();
        let count = book.faults.len();
        let mut text = format!("{count} faults on {provider} with CODEQ_KILL_SEED={seed}\n");
        for Fault { round, what, task } in book.faults.iter().take(SHOWN) {
            text += &format!("\nround {round}: {what}\n");
            if let Some(life) = task.as_ref().and_then(|name| book.lives.get(name)) {
                text += &history(life, ledger.origin);
            }
        }
        let unusual: Vec<_> = log.iter().filter(|line| !line.contains("\"INFO\"")).collect();
        if !unusual.is_empty() {
            let from = unusual.len().saturating_sub(10);
            text += &format!("\nthe last host said {:#?}\n", &unusual[from..]);
        }
        Report { text }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with a task whose history makes no sense.
pub(crate) fn of_stuck(Stuck { step, state }: &Stuck, origin: Micros) -> String {
    let what = match step.answer {
        Answer::Missing => "a task is lost".to_owned(),
        _ => format!("the {} of {} makes no sense", name(&step.deed), step.who),
    };
    format!("{what}: the task was {}, and then\n  {}", be(state, origin), line(step, origin))
}

fn history(life: &Life, origin: Micros) -> String {
    let id = life.id.as_deref().unwrap_or("unknown");
    let spec = &life.spec;
    let mut text = format!(
        "history of task {id} ({}, of {}, priority {}, at most {} attempts, delay {})\n",
        spec.name,
        spec.command,
        spec.priority,
        spec.max_attempts,
        span(spec.delay)
    );
    let mut steps: Vec<&Step> = life.past.iter().chain(&life.fresh).collect();
    steps.sort_by_key(|step| step.begin);
    for step in steps {
        text += &format!("  {}\n", line(step, origin));
    }
    text
}

fn line(step: &Step, origin: Micros) -> String {
    let Step { round, begin, end, who, subject, deed, answer } = step;
    let (begin, end) = (clock(*begin, origin), clock(*end, origin));
    let answer = match answer {
        Answer::None => "not answered before the kill".to_owned(),
        Answer::Done => "done".to_owned(),
        Answer::Buried => "a dead letter".to_owned(),
        Answer::Refused(status) => format!("refused with {status}"),
        Answer::Missing => "no such task".to_owned(),
        Answer::Task(record) => shown(record, origin),
    };
    let deed = match deed {
        Deed::Claim { lease } => format!("claim for {}", span(*lease)),
        Deed::Heartbeat { by } => format!("heartbeat for {}", span(*by)),
        Deed::Nack { delay, reason } => format!("nack for {} ({reason})", span(*delay)),
        Deed::Complete { result } => format!("complete with {result}"),
        Deed::Enqueue | Deed::Abandon | Deed::Look => name(deed).to_owned(),
    };
    format!("round {round}, {begin} to {end}, {who} as {subject}: {deed} -> {answer}")
}

fn name(deed: &Deed) -> &'static str {
    match deed {
        Deed::Enqueue => "enqueue",
        Deed::Claim { .. } => "claim",
        Deed::Heartbeat { .. } => "heartbeat",
        Deed::Abandon => "abandon",
        Deed::Nack { .. } => "nack",
        Deed::Complete { .. } => "complete",
        Deed::Look => "look",
    }
}

fn shown(record: &Record, origin: Micros) -> String {
    let Record { status, location, attempts, .. } = record;
    let mut text = format!("{status} in {location} after {attempts} attempts");
    if let Some(until) = record.until {
        text += &format!(", leased to {} until {}", record.worker, clock(until, origin));
    }
    if !record.error.is_empty() {
        text += &format!(", error {}", record.error);
    }
    if let Some(result) = &record.result {
        text += &format!(", result {result}");
    }
    text
}

fn be(state: &State, origin: Micros) -> String {
    let State { place, attempts, .. } = state;
    let place = match place {
        Place::Absent => "not there".to_owned(),
        Place::Unseen { .. } => "not seen yet".to_owned(),
        Place::Waiting { to: 0, .. } => "waiting".to_owned(),
        Place::Waiting { from, .. } => format!("waiting until {}", clock(*from, origin)),
        Place::Leased { to, from, .. } => format!("leased to {to} until {}", clock(*from, origin)),
        Place::Completed(result) => format!("completed with {result}"),
        Place::Dead => "a dead letter".to_owned(),
    };
    format!("{place} after {attempts} attempts")
}

fn clock(at: Micros, origin: Micros) -> String {
    if at == Micros::MAX { "the kill".to_owned() } else { span(at - origin) }
}

fn span(span: Micros) -> String {
    format!("{}.{:06} s", span / SECOND, (span % SECOND).abs())
}
