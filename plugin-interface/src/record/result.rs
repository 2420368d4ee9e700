//! The result: what a worker hands in for a task.

use abi_stable::StableAbi;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

use super::{Extensions, Instant, List, TaskStatus, Text};

/// The outcome of a task.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskResult {
    /// The task this is the outcome of.
    pub task_id: Text,
    /// [`TaskStatus::Completed`] or [`TaskStatus::Failed`].
    pub status: TaskStatus,
    /// A JSON object as text, which the queue never looks into; empty if there is none.
    #[serde(
        skip_serializing_if = "Text::is_empty",
        serialize_with = "as_json",
        deserialize_with = "from_json"
    )]
    pub result: Text,
    /// Why the task failed.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub error: Text,
    /// Files that belong to the result.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub artifacts: List<Artifact>,
    /// When the worker handed it in.
    pub completed_at: Instant,
    /// Later fields.
    #[serde(skip)]
    pub extensions: Extensions,
}

/// A file that belongs to a result.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Artifact {
    /// What the worker calls it.
    pub name: Text,
    /// Where it can be fetched.
    pub url: Text,
}

/// The result is JSON inside JSON, so it is embedded as it stands rather than quoted.
fn as_json<S: Serializer>(text: &Text, serializer: S) -> Result<S::Ok, S::Error> {
    let raw: &RawValue = serde_json::from_str(text).map_err(ser::Error::custom)?;
    raw.serialize(serializer)
}

fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer).map_err(de::Error::custom)?;
    Ok(match raw.get() {
        "null" => Text::new(),
        text => Text::from(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_embedded_as_json_and_read_back_as_it_stood() {
        let result = TaskResult {
            result: r#"{"b": 1, "a": 12345678901234567890}"#.into(),
            ..Default::default()
        };
        let json = serde_json::to_string(&result).unwrap();
        assert!(json.contains(r#""result":{"b": 1, "a": 12345678901234567890}"#), "{json}");
        assert_eq!(serde_json::from_str::<TaskResult>(&json).unwrap(), result);
    }
}
