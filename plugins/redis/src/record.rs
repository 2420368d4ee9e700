//! Tasks, results and subscriptions in codeQ's JSON: its field names and order, optional fields left
//! out when they are empty, times with the offset of the configured zone.

use std::fmt::Write;

use codeq_plugin::{
    Boxed, Error, Extension, Extensions, Instant, Result, Subscription, Task, TaskResult,
};
use jiff::tz::TimeZone;
use memchr::memmem;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

/// The part of a new task's record that comes before its state, which the script adds.
pub(crate) fn new_head(task: &Task) -> String {
    let mut record = head(task);
    record.extensions(&task.extensions);
    record.text
}

/// Those members of a new task's record that come behind its state, but for the times.
pub(crate) fn new_tail(task: &Task) -> String {
    let mut record = Members { text: String::new(), open: true };
    record.number_if_any("maxAttempts", task.max_attempts);
    record.text_if_any("tenantId", &task.tenant_id);
    record.text
}

/// A task's record as it stands.
pub(crate) fn task(task: &Task, zone: &TimeZone) -> String {
    let mut record = head(task);
    record.member("status", task.status.as_str());
    record.member("lastKnownLocation", task.last_known_location.as_str());
    record.text_if_any("workerId", &task.worker_id);
    if let Some(until) = task.lease_until.into_option() {
        let whole_seconds = Instant(until.0.div_euclid(1000) * 1000);
        record.member("leaseUntil", &whole_seconds.to_rfc3339());
    }
    record.number_if_any("attempts", task.attempts);
    record.number_if_any("maxAttempts", task.max_attempts);
    record.text_if_any("error", &task.error);
    record.text_if_any("resultKey", &task.result_key);
    record.text_if_any("tenantId", &task.tenant_id);
    record.extensions(&task.extensions);
    record.member("createdAt", &task.created_at.to_rfc3339_in(zone));
    record.member("updatedAt", &task.updated_at.to_rfc3339_in(zone));
    record.finish()
}

/// Reads a task's record; `id` is for the error.
pub(crate) fn read_task(id: &str, json: &[u8]) -> Result<Boxed<Task>> {
    let read = serde_json::from_slice(json);
    let mut task: Task = read
        .or_else(|error| read_leniently(json).ok_or(error))
        .map_err(|error| unreadable(id).because(&error))?;
    // A list reads as a record whose fields all have their defaults, and so does an empty object.
    if task.id.is_empty() {
        return Err(unreadable(id));
    }
    task.extensions = extensions(json);
    Ok(Boxed::new(task))
}

/// Reads a record that codeQ takes but this plugin never writes: with members that are `null`, with
/// times and a location that are empty, with a priority out of range, with a member twice.
fn read_leniently(json: &[u8]) -> Option<Task> {
    let mut record: serde_json::Map<String, Value> = read_if_well_formed(json)?;
    let may_be_empty = ["createdAt", "updatedAt", "leaseUntil", "lastKnownLocation"];
    record.retain(|name, value| {
        let is_empty = value == "" && may_be_empty.contains(&name.as_str());
        !value.is_null() && !is_empty
    });
    if let Some(priority) = record.get_mut("priority")
        && let Some(number) = priority.as_i64()
    {
        *priority = number.clamp(0, i64::from(codeq_plugin::MAX_PRIORITY)).into();
    }
    serde_json::from_value(Value::Object(record)).ok()
}

/// The error for a task's record that cannot be read.
pub(crate) fn unreadable(id: &str) -> Error {
    Error::corrupt(format!(
        "the record of task `{id}` in the hash `codeq:tasks` cannot be read (in a cluster \
         it is in the hash `tasks` of its queue): mend or delete it"
    ))
}

/// Tells the operator of a task's record in the hash `key` that cannot be read.
pub(crate) fn report_unreadable(key: &str, id: &str) {
    tracing::error!(
        key,
        id,
        "a task's record cannot be read; it is kept out of its queue: mend the record and the task \
         comes back within a minute, or delete it"
    );
}

/// A result's record. `InvalidArgument` if the result is not JSON.
pub(crate) fn result(result: &TaskResult, zone: &TimeZone) -> Result<String> {
    let mut record = Members::default();
    record.member("taskId", result.task_id.as_str());
    record.member("status", result.status.as_str());
    if !result.result.is_empty() {
        serde_json::from_str::<&RawValue>(&result.result).map_err(|error| {
            let message = format!("the result of task {} is not JSON", result.task_id);
            Error::invalid_argument(message).because(&error)
        })?;
        record.raw("result", &result.result);
    }
    record.text_if_any("error", &result.error);
    if !result.artifacts.is_empty() {
        record.member("artifacts", &result.artifacts);
    }
    record.member("completedAt", &result.completed_at.to_rfc3339_in(zone));
    record.extensions(&result.extensions);
    Ok(record.finish())
}

/// Reads a result's record.
pub(crate) fn read_result(id: &str, json: &[u8]) -> Result<Boxed<TaskResult>> {
    let mut result: TaskResult = serde_json::from_slice(json).map_err(|error| {
        Error::corrupt(format!(
            "the result of task `{id}` in the hash `codeq:results` cannot be read: mend or delete it"
        ))
        .because(&error)
    })?;
    result.extensions = extensions(json);
    Ok(Boxed::new(result))
}

/// A subscription's record.
pub(crate) fn subscription(subscription: &Subscription, zone: &TimeZone) -> String {
    let mut record = Members::default();
    record.member("id", subscription.id.as_str());
    record.text_if_any("workerId", &subscription.worker_id);
    record.text_if_any("tenantId", &subscription.tenant_id);
    record.member("callbackUrl", subscription.callback_url.as_str());
    record.member("eventTypes", &subscription.event_types);
    record.member("deliveryMode", &subscription.delivery_mode);
    record.text_if_any("groupId", &subscription.group_id);
    record.member("minIntervalSeconds", &subscription.min_interval_seconds);
    record.member("expiresAt", &subscription.expires_at.to_rfc3339_in(zone));
    record.member("createdAt", &subscription.created_at.to_rfc3339_in(zone));
    record.extensions(&subscription.extensions);
    record.finish()
}

/// Reads a subscription's record.
pub(crate) fn read_subscription(json: &[u8]) -> Result<Boxed<Subscription>> {
    let mut subscription: Subscription = serde_json::from_slice(json).map_err(|error| {
        Error::corrupt("a subscription in the hash `codeq:subs` cannot be read: mend or delete it")
            .because(&error)
    })?;
    subscription.extensions = extensions(json);
    Ok(Boxed::new(subscription))
}

/// A value as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Texts, numbers and lists of them always have a JSON form.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

fn head(task: &Task) -> Members {
    let mut record = Members::default();
    record.member("id", task.id.as_str());
    record.member("command", task.command.as_str());
    record.member("payload", task.payload.as_str());
    record.number_if_any("priority", task.priority.into());
    record.text_if_any("webhook", &task.webhook);
    record.text_if_any("traceParent", &task.trace_parent);
    record.text_if_any("traceState", &task.trace_state);
    record
}

/// A JSON object that is being written.
#[derive(Default)]
struct Members {
    text: String,
    open: bool,
}

impl Members {
    fn raw(&mut self, name: &str, value: &str) {
        self.text.push(if self.open { ',' } else { '{' });
        self.open = true;
        // Writing to a String cannot fail.
        let _ = write!(self.text, "\"{name}\":{value}");
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.raw(name, &json(value));
    }

    fn text_if_any(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.member(name, text);
        }
    }

    fn number_if_any(&mut self, name: &str, number: u32) {
        if number != 0 {
            self.member(name, &number);
        }
    }

    fn extensions(&mut self, extensions: &Extensions) {
        if !extensions.is_empty() {
            let kept = extensions.iter().map(|extension| KeptExtension {
                tag: extension.tag,
                bytes: extension.bytes.to_vec(),
            });
            self.member(EXTENSIONS, &kept.collect::<Vec<_>>());
        }
    }

    fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// The field of later fields. codeQ does not know it.
const EXTENSIONS: &str = "extensions";

#[derive(Serialize, Deserialize)]
struct KeptExtension {
    tag: u32,
    bytes: Vec<u8>,
}

fn extensions(json: &[u8]) -> Extensions {
    #[derive(Deserialize)]
    struct Extended {
        extensions: Vec<KeptExtension>,
    }
    // Records that have any are rare; the others are not read twice.
    if memmem::find(json, br#""extensions":["#).is_none() {
        return Extensions::new();
    }
    read_if_well_formed::<Extended>(json)
        .map(|record| record.extensions)
        .unwrap_or_default()
        .into_iter()
        .map(|kept| Extension { tag: kept.tag, bytes: kept.bytes.into() })
        .collect()
}

fn read_if_well_formed<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use codeq_plugin::{Location, Optional, TaskStatus};

    use super::*;

    #[test]
    fn a_task_survives_its_record() {
        let task = Task {
            id: "t".into(),
            command: "SEND \"MAIL\"".into(),
            payload: r#"{"n": 12345678901234567890, "s": "\u00e9\\"}"#.into(),
            priority: 3,
            webhook: "http://x/".into(),
            status: TaskStatus::InProgress,
            last_known_location: Location::InprogSet,
            worker_id: "w".into(),
            lease_until: Optional::RSome(Instant(1_700_000_000_000)),
            attempts: 2,
            max_attempts: 5,
            error: "no\ndisk".into(),
            tenant_id: "a".into(),
            created_at: Instant(1_600_000_000_123),
            updated_at: Instant(1_600_000_000_456),
            extensions: [Extension { tag: 7, bytes: vec![1, 2].into() }].into_iter().collect(),
            ..Task::default()
        };
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        let record = super::task(&task, &zone);
        assert!(record.contains(r#""leaseUntil":"2023-11-14T22:13:20Z""#), "{record}");
        assert!(record.contains(r#""createdAt":"2020-09-13T09:26:40.123-03:00""#), "{record}");
        assert_eq!(*read_task("t", record.as_bytes()).unwrap(), task);
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let task = Task { id: "t".into(), ..Task::default() };
        assert_eq!(new_head(&task), r#"{"id":"t","command":"","payload":"""#);
        assert_eq!(new_tail(&task), "");
    }

    #[test]
    fn a_result_that_is_no_json_is_refused_and_one_that_is_stays_as_it_is() {
        let zone = TimeZone::UTC;
        let broken = TaskResult { result: "{".into(), ..TaskResult::default() };
        assert!(result(&broken, &zone).unwrap_err().to_string().contains("is not JSON"));
        let fine = TaskResult { result: r#"{"a": 1e400}"#.into(), ..TaskResult::default() };
        assert!(result(&fine, &zone).unwrap().contains(r#""result":{"a": 1e400},"#));
    }
}
