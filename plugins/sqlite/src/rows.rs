//! Rows of the file as records, and back.

use codeq_plugin::{
    Artifact, Boxed, DeliveryMode, Error, Extension, Extensions, Instant, List, Location, Optional,
    Subscription, Task, TaskResult, TaskStatus, Text,
};
use rusqlite::{Row, types::ValueRef};

use crate::{
    place::{Place, Position},
    queues::{QueueId, Seq},
};

/// The columns that [`Entry::read`] reads.
macro_rules! entry_columns {
    () => {
        "t.seq, t.id, t.queue, t.place, t.rank, t.arrival, t.look_at, t.created_at, t.updated_at, \
         t.status, t.location, t.attempts, t.lease_until, t.worker, t.error, t.result_key, \
         b.command, b.priority, b.max_attempts, b.webhook, b.trace_parent, b.trace_state, \
         b.extensions, b.payload"
    };
}
pub(crate) use entry_columns;

/// The columns that [`read_result`] reads.
macro_rules! result_columns {
    () => {
        "r.status, r.result, r.error, r.artifacts, r.completed_at, r.extensions"
    };
}
pub(crate) use result_columns;

/// The columns that [`read_subscription`] reads.
macro_rules! subscription_columns {
    () => {
        "s.id, s.worker, s.tenant, s.callback_url, s.event_types, s.delivery_mode, s.group_id, \
         s.min_interval_seconds, s.expires_at, s.created_at, s.extensions"
    };
}
pub(crate) use subscription_columns;

/// A task, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Spot,
    pub(crate) task: Boxed<Task>,
}

/// Where a task is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) seq: Seq,
    pub(crate) queue: QueueId,
    pub(crate) place: Place,
    pub(crate) position: Position,
    /// When to look whether its retention has ended, if not in the order of `seq`.
    pub(crate) look_at: Option<Instant>,
}

impl Entry {
    /// Reads a task's record.
    ///
    /// # Errors
    ///
    /// `Corrupt`, which names the task and the column.
    pub(crate) fn read(row: &Row<'_>, tenant: Text) -> Result<Entry, Error> {
        let mut columns = Columns { row, next: 2, names: &ENTRY };
        let entry = columns.entry(tenant);
        entry.map_err(|wrong| {
            let seq = row.get::<_, Seq>(0).unwrap_or_default();
            let id = row.get::<_, String>(1);
            unreadable("task", id.as_deref().unwrap_or("of an unreadable id"), seq, &wrong)
        })
    }
}

/// Reads the result of a task.
///
/// # Errors
///
/// `Corrupt`, which names the task and the column.
pub(crate) fn read_result(
    row: &Row<'_>,
    task_id: &str,
    seq: Seq,
) -> Result<Boxed<TaskResult>, Error> {
    let mut columns = Columns { row, next: 0, names: &RESULT };
    let result = columns.result(task_id);
    result.map(Boxed::new).map_err(|wrong| unreadable("the result of task", task_id, seq, &wrong))
}

/// Reads a subscription.
///
/// # Errors
///
/// `Corrupt`, which names the subscription and the column.
pub(crate) fn read_subscription(row: &Row<'_>) -> Result<Boxed<Subscription>, Error> {
    let mut columns = Columns { row, next: 0, names: &SUBSCRIPTION };
    let subscription = columns.subscription();
    subscription.map(Boxed::new).map_err(|wrong| {
        let id = row.get::<_, String>(0).unwrap_or_default();
        Error::corrupt(format!("subscription {id} cannot be read: {wrong}"))
    })
}

fn unreadable(what: &str, id: &str, seq: Seq, wrong: &str) -> Error {
    let what = if what == "task" { format!("task {id}") } else { format!("{what} {id}") };
    Error::corrupt(format!("{what} (seq {seq} in the file) cannot be read: {wrong}"))
}

const ENTRY: [&str; 24] = [
    "seq",
    "id",
    "queue",
    "place",
    "rank",
    "arrival",
    "look_at",
    "created_at",
    "updated_at",
    "status",
    "location",
    "attempts",
    "lease_until",
    "worker",
    "error",
    "result_key",
    "command",
    "priority",
    "max_attempts",
    "webhook",
    "trace_parent",
    "trace_state",
    "extensions",
    "payload",
];
const RESULT: [&str; 6] = ["status", "result", "error", "artifacts", "completed_at", "extensions"];
const SUBSCRIPTION: [&str; 11] = [
    "id",
    "worker",
    "tenant",
    "callback_url",
    "event_types",
    "delivery_mode",
    "group_id",
    "min_interval_seconds",
    "expires_at",
    "created_at",
    "extensions",
];

/// The columns of a row, one after another.
struct Columns<'r> {
    row: &'r Row<'r>,
    next: usize,
    names: &'static [&'static str],
}

/// What is wrong with a column.
type Read<T> = Result<T, String>;

impl Columns<'_> {
    fn entry(&mut self, tenant: Text) -> Read<Entry> {
        // In the order of `ENTRY`; the message of what is wrong comes from the position.
        let queue = self.number()?;
        let place = self.number()?;
        let place = Place::of_number(place).ok_or_else(|| self.wrong(place))?;
        let position = Position { rank: self.number()?, arrival: self.number()? };
        let look_at = self.instant_if_any()?;
        let mut task = Task {
            tenant_id: tenant,
            created_at: Instant(self.number()?),
            updated_at: Instant(self.number()?),
            status: self.one_of(&STATUSES)?,
            last_known_location: self.one_of(&LOCATIONS)?,
            attempts: self.small()?,
            lease_until: self.instant_if_any()?.into(),
            worker_id: self.text()?,
            error: self.text()?,
            result_key: self.text()?,
            command: self.text()?,
            priority: self.small()?,
            max_attempts: self.small()?,
            webhook: self.text()?,
            trace_parent: self.text()?,
            trace_state: self.text()?,
            extensions: self.extensions()?,
            payload: self.text()?,
            ..Task::default()
        };
        self.next = 0;
        let seq = self.number()?;
        task.id = self.text()?;
        let at = Spot { seq, queue, place, position, look_at };
        Ok(Entry { at, task: Boxed::new(task) })
    }

    fn result(&mut self, task_id: &str) -> Read<TaskResult> {
        Ok(TaskResult {
            task_id: task_id.into(),
            status: self.one_of(&STATUSES)?,
            result: self.text()?,
            error: self.text()?,
            artifacts: self.json::<Artifact>()?,
            completed_at: Instant(self.number()?),
            extensions: self.extensions()?,
        })
    }

    fn subscription(&mut self) -> Read<Subscription> {
        Ok(Subscription {
            id: self.text()?,
            worker_id: self.text()?,
            tenant_id: self.text()?,
            callback_url: self.text()?,
            event_types: self.json()?,
            delivery_mode: self.one_of(&MODES)?,
            group_id: self.text()?,
            min_interval_seconds: self.small()?,
            expires_at: Instant(self.number()?),
            created_at: Instant(self.number()?),
            extensions: self.extensions()?,
        })
    }

    fn value(&mut self) -> Read<ValueRef<'_>> {
        let index = self.next;
        self.next += 1;
        self.row.get_ref(index).map_err(|error| error.to_string())
    }

    fn wrong(&self, value: impl std::fmt::Display) -> String {
        format!("its {} is {value}", self.names.get(self.next - 1).unwrap_or(&"record"))
    }

    fn number(&mut self) -> Read<i64> {
        match self.value()? {
            ValueRef::Integer(number) => Ok(number),
            other => {
                let kind = other.data_type();
                Err(self.wrong(format_args!("{kind}, not a number")))
            }
        }
    }

    fn small<T: TryFrom<i64>>(&mut self) -> Read<T> {
        let number = self.number()?;
        T::try_from(number).map_err(|_| self.wrong(number))
    }

    fn one_of<T: Copy>(&mut self, known: &[T]) -> Read<T> {
        let number = self.number()?;
        let index = usize::try_from(number).ok();
        index.and_then(|index| known.get(index)).copied().ok_or_else(|| self.wrong(number))
    }

    fn instant_if_any(&mut self) -> Read<Option<Instant>> {
        match self.value()? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => Ok(Some(Instant(number))),
            other => {
                let kind = other.data_type();
                Err(self.wrong(format_args!("{kind}, not a time")))
            }
        }
    }

    fn text(&mut self) -> Read<Text> {
        let text = match self.value()? {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).map(Text::from).ok(),
            _ => None,
        };
        text.ok_or_else(|| self.wrong("not UTF-8 text"))
    }

    /// A JSON array; an empty text is an empty one.
    fn json<T: serde::de::DeserializeOwned>(&mut self) -> Read<List<T>> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(List::new());
        }
        let items: Result<Vec<T>, _> = serde_json::from_str(&text);
        items.map(List::from).map_err(|error| self.wrong(format_args!("no JSON array: {error}")))
    }

    fn extensions(&mut self) -> Read<Extensions> {
        let extensions = match self.value()? {
            ValueRef::Null => Some(Extensions::new()),
            ValueRef::Blob(bytes) => decode_extensions(bytes),
            _ => None,
        };
        extensions.ok_or_else(|| self.wrong("not what this plugin writes"))
    }
}

const STATUSES: [TaskStatus; 4] =
    [TaskStatus::Pending, TaskStatus::InProgress, TaskStatus::Completed, TaskStatus::Failed];
const LOCATIONS: [Location; 5] = [
    Location::PendingList,
    Location::DelayedZset,
    Location::InprogSet,
    Location::DlqSet,
    Location::None,
];
const MODES: [DeliveryMode; 3] = [DeliveryMode::Fanout, DeliveryMode::Group, DeliveryMode::Hash];

fn number_in<T: PartialEq>(known: &[T], value: &T) -> i64 {
    known.iter().position(|other| other == value).map_or(-1, |index| index as i64)
}

pub(crate) fn status(status: TaskStatus) -> i64 {
    number_in(&STATUSES, &status)
}

pub(crate) fn location(location: Location) -> i64 {
    number_in(&LOCATIONS, &location)
}

pub(crate) fn delivery_mode(mode: DeliveryMode) -> i64 {
    number_in(&MODES, &mode)
}

pub(crate) fn instant(instant: &Optional<Instant>) -> Option<i64> {
    instant.as_ref().into_option().map(|instant| instant.0)
}

/// A JSON array; nothing for an empty one.
pub(crate) fn json<T: serde::Serialize>(items: &[T]) -> String {
    if items.is_empty() { String::new() } else { serde_json::to_string(items).unwrap_or_default() }
}

/// Each extension is its tag and its length, both in four bytes, lowest first, and its bytes.
pub(crate) fn extensions(extensions: &Extensions) -> Option<Vec<u8>> {
    if extensions.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for extension in extensions {
        bytes.extend(extension.tag.to_le_bytes());
        bytes.extend(u32::try_from(extension.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(extension.bytes.iter());
    }
    Some(bytes)
}

fn decode_extensions(mut bytes: &[u8]) -> Option<Extensions> {
    let mut extensions = Extensions::new();
    while !bytes.is_empty() {
        let (tag, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        extensions.push(Extension { tag: u32::from_le_bytes(*tag), bytes: value.to_vec().into() });
        bytes = rest;
    }
    Some(extensions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_survive_their_bytes_and_torn_ones_are_no_extensions() {
        let list: Extensions = [(7, &b"one"[..]), (9, b""), (7, b"\0\xff")]
            .map(|(tag, bytes)| Extension { tag, bytes: bytes.to_vec().into() })
            .into_iter()
            .collect();
        let bytes = extensions(&list).unwrap();
        assert_eq!(decode_extensions(&bytes), Some(list));
        assert_eq!(decode_extensions(&bytes[..bytes.len() - 1]), None);
        assert_eq!(extensions(&Extensions::new()), None);
    }
}
