//! What clients did to a task, when, and what they were answered.

use std::time::{SystemTime, UNIX_EPOCH};

use codeq_plugin::Instant;
use serde_json::{Value, json};

/// Moments and spans, by this machine's clock, which clients and hosts share.
pub(crate) type Micros = i64;

pub(crate) const MILLI: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

pub(crate) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_micros().try_into().unwrap()
}

/// A task as its producer wants it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    /// What tells the task from all others, whatever its id turns out to be. It is the payload; the
    /// idempotency key, too, if the task has one.
    pub(crate) name: String,
    pub(crate) keyed: bool,
    pub(crate) command: &'static str,
    pub(crate) priority: u32,
    pub(crate) max_attempts: u32,
    pub(crate) delay: Micros,
}

impl Spec {
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "command": self.command,
            "payload": { "name": self.name },
            "priority": self.priority,
            "maxAttempts": self.max_attempts,
        });
        if self.delay > 0 {
            body["delaySeconds"] = seconds(self.delay);
        }
        if self.keyed {
            body["idempotencyKey"] = self.name.as_str().into();
        }
        body
    }
}

/// A span as the API takes it.
pub(crate) fn seconds(span: Micros) -> Value {
    // Exact to the millisecond.
    json!(span as f64 / SECOND as f64)
}

/// One operation on one task.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) round: u32,
    pub(crate) begin: Micros,
    /// When it was answered; else when its host was dead.
    pub(crate) end: Micros,
    pub(crate) who: String,
    /// Whom the host takes the caller for.
    pub(crate) subject: &'static str,
    pub(crate) deed: Deed,
    pub(crate) answer: Answer,
}

#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Enqueue,
    Claim { lease: Micros },
    Heartbeat { by: Micros },
    Abandon,
    Nack { delay: Micros, reason: String },
    Complete { result: String },
    Look,
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The host was killed before it answered, and may have done it or not.
    None,
    Done,
    /// Nacked for the last time.
    Buried,
    /// Refused with this status.
    Refused(u16),
    /// The task as it is now.
    Task(Box<Record>),
    /// There is no such task.
    Missing,
}

impl Step {
    pub(crate) fn is_answered(&self) -> bool {
        !matches!(self.answer, Answer::None)
    }
}

/// A task as the host shows it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) spec: Shown,
    pub(crate) status: String,
    pub(crate) location: String,
    pub(crate) worker: String,
    pub(crate) until: Option<Micros>,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    /// Its result, if somebody asked for that, too.
    pub(crate) result: Option<String>,
}

/// What of a task never changes.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) name: String,
    command: String,
    priority: u64,
    max_attempts: u64,
}

impl Record {
    /// Reads a task. None if it is none of this test's.
    pub(crate) fn read(task: &Value) -> Option<Record> {
        let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| task[key].as_u64().unwrap_or(0);
        let payload: Value = serde_json::from_str(task["payload"].as_str()?).ok()?;
        let until = match &task["leaseUntil"] {
            Value::Null => None,
            until => Some(Instant::parse_rfc3339(until.as_str()?)?.0 * MILLI),
        };
        Some(Record {
            id: task["id"].as_str()?.to_owned(),
            spec: Shown {
                name: payload["name"].as_str()?.to_owned(),
                command: text("command"),
                priority: number("priority"),
                max_attempts: number("maxAttempts"),
            },
            status: text("status"),
            location: text("lastKnownLocation"),
            worker: text("workerId"),
            until,
            attempts: number("attempts").try_into().ok()?,
            error: text("error"),
            result: None,
        })
    }
}

impl Shown {
    /// Whether it is what the producer sent.
    pub(crate) fn is(&self, spec: &Spec) -> bool {
        self.name == spec.name
            && self.command == spec.command
            && self.priority == u64::from(spec.priority)
            && self.max_attempts == u64::from(spec.max_attempts)
    }
}
