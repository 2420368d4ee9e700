//! Notes: what has to be told about the end of a task, as it is kept in the store until then.

use codeq_plugin::{Artifact, Enqueue, Instant, Location, Task, TaskResult, TaskStatus, Text};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::INTERNAL_TENANT;
use crate::webhook::Target;

/// The end of a task whose producer wants to hear of it. Its JSON is the payload of an internal task.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    pub(super) url: String,
    pub(super) tenant_id: Text,
    pub(super) command: Text,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub(super) trace_parent: Text,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub(super) trace_state: Text,
    /// Whether the task was dead-lettered.
    pub(super) dead: bool,
    /// Whether the body of the result is in the store rather than here.
    pub(super) elsewhere: bool,
    pub(super) result: TaskResult,
}

/// Larger results are not copied: they are read from the store when they are sent.
const LARGEST_COPY: usize = 16 * 1024;

/// Each receiver has a queue of its own, so that none waits for another.
const QUEUE_PREFIX: &str = "result-callback@";

/// As many deliveries as there can be. The host counts attempts itself, by the settings that it has
/// when it calls.
const ANY_NUMBER: u32 = i32::MAX.cast_unsigned();

/// The queue of the notes for a receiver.
pub(super) fn queue_of(target: &Target) -> Text {
    format!("{QUEUE_PREFIX}{}", target.authority()).into()
}

/// The receiver of the notes in a queue; nothing if it is not one of notes.
pub(super) fn receiver_of(queue: &str) -> Option<&str> {
    queue.strip_prefix(QUEUE_PREFIX)
}

impl Note {
    /// The note of a task that was completed, with its result.
    pub(super) fn of_result(task: &Task, result: &TaskResult) -> Note {
        let artifacts = result.artifacts.iter();
        let size =
            artifacts.map(|artifact| artifact.name.len() + artifact.url.len()).sum::<usize>()
                + result.result.len();
        let elsewhere = size > LARGEST_COPY;
        let result = if elsewhere { without_body(result) } else { result.clone() };
        Note { elsewhere, ..Note::new(task, result) }
    }

    /// The note of a task that was dead-lettered.
    pub(super) fn of_dead(task: &Task) -> Note {
        let result = TaskResult {
            task_id: task.id.clone(),
            status: TaskStatus::Failed,
            error: task.error.clone(),
            completed_at: task.updated_at,
            ..TaskResult::default()
        };
        Note { dead: true, ..Note::new(task, result) }
    }

    fn new(task: &Task, result: TaskResult) -> Note {
        Note {
            url: task.webhook.as_str().to_owned(),
            tenant_id: task.tenant_id.clone(),
            command: task.command.clone(),
            trace_parent: task.trace_parent.clone(),
            trace_state: task.trace_state.clone(),
            dead: false,
            elsewhere: false,
            result,
        }
    }

    pub(super) fn read(payload: &str) -> serde_json::Result<Note> {
        serde_json::from_str(payload)
    }

    /// The internal task that carries the note. Noted twice, the same end has the same id.
    pub(super) fn into_enqueue(
        self,
        ended_at: Instant,
        target: &Target,
    ) -> serde_json::Result<Enqueue> {
        Ok(Enqueue::now(Task {
            id: format!("{}.{}", self.result.task_id, ended_at.0).into(),
            command: queue_of(target),
            payload: serde_json::to_string(&self)?.into(),
            max_attempts: ANY_NUMBER,
            tenant_id: INTERNAL_TENANT.into(),
            ..Task::default()
        }))
    }

    /// What the receiver gets.
    pub(super) fn body(&self) -> serde_json::Result<Vec<u8>> {
        self.body_with(&self.result)
    }

    /// What the receiver gets, with the result that the store has if it is of the same end.
    pub(super) fn body_of(&self, kept: &TaskResult) -> serde_json::Result<Vec<u8>> {
        let is_same =
            (kept.status, kept.completed_at) == (self.result.status, self.result.completed_at);
        self.body_with(if is_same { kept } else { &self.result })
    }

    fn body_with(&self, result: &TaskResult) -> serde_json::Result<Vec<u8>> {
        let TaskResult { task_id, status, result, error, artifacts, completed_at, .. } = result;
        let result = (!result.is_empty()).then(|| serde_json::from_str(result)).transpose()?;
        serde_json::to_vec(&Body {
            task_id,
            event_type: &self.command,
            status: *status,
            result,
            error,
            artifacts: (!artifacts.is_empty()).then_some(artifacts),
            completed_at: *completed_at,
        })
    }
}

/// As codeQ sends it: what there is not is null, an error that there is not is empty.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    task_id: &'a str,
    event_type: &'a str,
    status: TaskStatus,
    result: Option<&'a RawValue>,
    error: &'a str,
    artifacts: Option<&'a [Artifact]>,
    completed_at: Instant,
}

fn without_body(result: &TaskResult) -> TaskResult {
    TaskResult {
        task_id: result.task_id.clone(),
        status: result.status,
        error: result.error.clone(),
        completed_at: result.completed_at,
        ..TaskResult::default()
    }
}

/// Whether a task was dead-lettered, rather than completed.
pub(super) fn is_dead(task: &Task) -> bool {
    task.last_known_location == Location::DlqSet
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task() -> Task {
        Task {
            id: "t1".into(),
            command: "Render".into(),
            webhook: "https://example.org/done".into(),
            tenant_id: "acme".into(),
            error: "boom".into(),
            updated_at: Instant(1_700_000_000_000),
            ..Task::default()
        }
    }

    fn result(body: &str) -> TaskResult {
        TaskResult {
            task_id: "t1".into(),
            status: TaskStatus::Completed,
            result: body.into(),
            completed_at: Instant(1_700_000_000_123),
            ..TaskResult::default()
        }
    }

    fn again(note: &Note) -> Note {
        Note::read(&serde_json::to_string(note).unwrap()).unwrap()
    }

    fn body(note: &Note) -> Value {
        serde_json::from_slice(&note.body().unwrap()).unwrap()
    }

    #[test]
    fn a_small_result_travels_with_its_note() {
        let note = again(&Note::of_result(&task(), &result(r#"{"n":1e400}"#)));
        let text = String::from_utf8(note.body().unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{"taskId":"t1","eventType":"Render","status":"COMPLETED","result":{"n":1e400},"error":"","artifacts":null,"completedAt":"2023-11-14T22:13:20.123Z"}"#
        );
    }

    #[test]
    fn a_large_result_is_read_from_the_store_if_it_is_of_the_same_end() {
        let large = result(&format!(r#"{{"a":"{}"}}"#, "x".repeat(LARGEST_COPY)));
        let note = again(&Note::of_result(&task(), &large));
        assert!(note.elsewhere && note.result.result.is_empty());
        let later = TaskResult { completed_at: Instant(1_800_000_000_000), ..large.clone() };
        let sent = |kept| {
            serde_json::from_slice::<Value>(&note.body_of(kept).unwrap()).unwrap()["result"].take()
        };
        assert_eq!(sent(&later), Value::Null);
        assert_eq!(sent(&large), serde_json::from_str::<Value>(&large.result).unwrap());
    }

    #[test]
    fn a_dead_letter_is_a_failure_with_its_reason() {
        let expected = json!({
            "taskId": "t1",
            "eventType": "Render",
            "status": "FAILED",
            "result": null,
            "error": "boom",
            "artifacts": null,
            "completedAt": "2023-11-14T22:13:20Z",
        });
        assert_eq!(body(&again(&Note::of_dead(&task()))), expected);
    }
}
