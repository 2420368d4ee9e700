//! The task: what a producer enqueues and a worker claims.

use std::{borrow::Cow, fmt};

use abi_stable::StableAbi;
use serde::{Deserialize, Serialize};

use super::{Extensions, Instant, Optional, Text};

/// The highest priority; 0 is the lowest.
pub const MAX_PRIORITY: u8 = 9;

/// A task, as it is kept and as clients see it.
///
/// In JSON the fields have their camelCase names, and optional ones that are empty are left out.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Task {
    /// A UUID v4, unless the caller gave one of his own.
    pub id: Text,
    /// The kind of work, as the producer spelled it. Commands compare case-insensitively.
    pub command: Text,
    /// JSON text that the queue never looks into.
    pub payload: Text,
    /// 0 to [`MAX_PRIORITY`], highest first.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: u8,
    /// Where the result is posted to; empty if nowhere.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub webhook: Text,
    /// The producer's W3C `traceparent`.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub trace_parent: Text,
    /// The producer's W3C `tracestate`.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub trace_state: Text,
    /// How far the task has come.
    pub status: TaskStatus,
    /// Which of the queue's places holds the task.
    pub last_known_location: Location,
    /// The worker that holds the lease; empty while nobody does.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub worker_id: Text,
    /// When the lease ends, while there is one.
    #[serde(skip_serializing_if = "Optional::is_none")]
    pub lease_until: Optional<Instant>,
    /// How often the task has been delivered.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// How often it may be delivered.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_attempts: u32,
    /// Why the task failed, last time or for good.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub error: Text,
    /// Names the result record once there is one.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub result_key: Text,
    /// Whose task it is. The empty tenant is a tenant of its own.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub tenant_id: Text,
    /// When the task was enqueued.
    pub created_at: Instant,
    /// When the task last changed. Retention counts from here.
    pub updated_at: Instant,
    /// Later fields.
    #[serde(skip)]
    pub extensions: Extensions,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// How far a task has come.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    /// Waiting for a worker, now or after a delay.
    #[default]
    Pending,
    /// Leased to a worker.
    InProgress,
    /// Finished with a result.
    Completed,
    /// Finished with an error, or dead-lettered.
    Failed,
}

impl TaskStatus {
    /// The name that JSON and the codeQ keyspace use.
    pub const fn as_str(self) -> &'static str {
        match self {
            TaskStatus::Pending => "PENDING",
            TaskStatus::InProgress => "IN_PROGRESS",
            TaskStatus::Completed => "COMPLETED",
            TaskStatus::Failed => "FAILED",
        }
    }

    /// Whether the task has come to its end.
    pub const fn is_terminal(self) -> bool {
        matches!(self, TaskStatus::Completed | TaskStatus::Failed)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which of a queue's places holds a task.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Claimable.
    PendingList,
    /// Claimable later.
    DelayedZset,
    /// Leased.
    InprogSet,
    /// Dead-lettered.
    DlqSet,
    /// In none of them: the task is finished.
    #[default]
    None,
}

impl Location {
    /// The name that JSON and the codeQ keyspace use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Location::PendingList => "PENDING_LIST",
            Location::DelayedZset => "DELAYED_ZSET",
            Location::InprogSet => "INPROG_SET",
            Location::DlqSet => "DLQ_SET",
            Location::None => "NONE",
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name under which a command's queue is kept: the command in lower case, letter by letter.
pub fn queue_name(command: &str) -> Cow<'_, str> {
    let is_lower = |c: char| c.is_ascii() && !c.is_ascii_uppercase();
    if command.chars().all(is_lower) {
        Cow::Borrowed(command)
    } else {
        Cow::Owned(command.chars().flat_map(char::to_lowercase).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_one_queue_however_it_is_spelled() {
        for (one, other) in [("Render", "rENDER"), ("ΟΔΟΣ", "οδοσ"), ("ǅ", "ǆ"), ("É", "é")]
        {
            assert_eq!(queue_name(one), queue_name(other));
        }
    }
}
