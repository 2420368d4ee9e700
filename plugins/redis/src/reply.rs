//! The reply of a script: a flat row of texts, read from the front.

use std::str::FromStr;

use codeq_plugin::{
    Arrival, Boxed, Error, Extensions, Instant, Lease, List, Millis, Moved, Optional, Queue,
    Result, Returned, Tally, Task, Text, rules,
};
use redis::Value;

use crate::record;

/// What a script answered.
pub(crate) struct Reply {
    script: &'static str,
    parts: std::vec::IntoIter<Value>,
    /// The server's time when the script ran.
    pub(crate) now: Instant,
}

/// What a script answered to one item of a batch.
pub(crate) struct Answer<'a> {
    reply: &'a mut Reply,
}

impl Reply {
    /// Reads what every script begins its answer with. Records in the hash `tasks` that it could not read
    /// go to the log.
    pub(crate) fn new(script: &'static str, tasks: &str, value: Value) -> Result<Reply> {
        let mut outer = Reply::of(script, value)?;
        let now = outer.instant()?;
        let mut unreadable = outer.part()?;
        while !unreadable.is_empty() {
            record::report_unreadable(tasks, &String::from_utf8_lossy(&unreadable.bytes()?));
        }
        Ok(Reply { now, ..outer.part()? })
    }

    fn of(script: &'static str, value: Value) -> Result<Reply> {
        match value {
            Value::Array(parts) => {
                Ok(Reply { script, parts: parts.into_iter(), now: Instant::EPOCH })
            }
            _ => Err(Error::internal(format!("the script `{script}` answered {value:?}"))),
        }
    }

    /// The next part, which is a row itself.
    fn part(&mut self) -> Result<Reply> {
        let part = self.parts.next().unwrap_or(Value::Nil);
        Reply::of(self.script, part)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.len() == 0
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.parts.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            other => Err(self.unexpected(&format!("{other:?} instead of a text"))),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes).map_err(|error| self.unexpected(&error.to_string()))
    }

    pub(crate) fn number<T: FromStr>(&mut self) -> Result<T> {
        let text = self.text()?;
        text.parse().map_err(|_| self.unexpected(&format!("`{text}` instead of a number")))
    }

    pub(crate) fn instant(&mut self) -> Result<Instant> {
        self.number().map(Instant)
    }

    /// An instant, or nothing where the text is empty.
    pub(crate) fn instant_if_any(&mut self) -> Result<Option<Instant>> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let at = text.parse().map(Instant);
        at.map(Some).map_err(|_| self.unexpected(&format!("`{text}` instead of a time")))
    }

    pub(crate) fn flag(&mut self) -> Result<bool> {
        Ok(self.text()? == "1")
    }

    pub(crate) fn moved(&mut self) -> Result<Moved> {
        let count = self.number()?;
        let next = self.instant_if_any()?.into();
        let mut arrivals = List::new();
        for _ in 0..self.number::<usize>()? {
            let (queue, count) = (self.queue()?, self.number()?);
            arrivals.push(Arrival { queue, count, awoke: self.flag()? });
        }
        let mut expired = List::new();
        for _ in 0..self.number::<usize>()? {
            expired.push(Tally { queue: self.queue()?, count: self.number()? });
        }
        let mut dead = List::new();
        for _ in 0..self.number::<usize>()? {
            match record::read_task("", &self.bytes()?) {
                Ok(task) => dead.push(task),
                Err(error) => tracing::error!(%error, "a dead letter cannot be reported"),
            }
        }
        Ok(Moved { count, arrivals, expired, dead, next, extensions: Extensions::new() })
    }

    /// Reads the answer to each of `items`: a text that says what became of it, and `width` more. An
    /// answer that cannot be read fails the whole batch.
    pub(crate) fn answers<I, T>(
        mut self,
        items: &[I],
        width: usize,
        name: impl Fn(&I) -> &str,
        read: impl Fn(&I, &mut Answer<'_>, &str) -> Result<T>,
    ) -> Result<Vec<Result<T>>> {
        let mut answers = Vec::with_capacity(items.len());
        for item in items {
            let tag = self.text()?;
            let before = self.parts.len();
            let mut answer = Answer { reply: &mut self };
            let read = match tag.as_str() {
                "+" | "created" | "found" | "forbidden" => read(item, &mut answer, &tag),
                code => Err(answer.refusal(code, name(item))?),
            };
            answers.push(read);
            // Whatever was not read of the item's texts is skipped.
            while before - self.parts.len() < width {
                self.bytes()?;
            }
        }
        Ok(answers)
    }

    fn queue(&mut self) -> Result<Queue> {
        let command = self.text()?.into();
        Ok(Queue { command, tenant_id: self.text()?.into() })
    }

    fn unexpected(&self, what: &str) -> Error {
        Error::internal(format!("the script `{}` answered {what}", self.script))
    }
}

impl Answer<'_> {
    pub(crate) fn now(&self) -> Instant {
        self.reply.now
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>> {
        self.reply.bytes()
    }

    pub(crate) fn number<T: FromStr>(&mut self) -> Result<T> {
        self.reply.number()
    }

    pub(crate) fn instant(&mut self) -> Result<Instant> {
        self.reply.instant()
    }

    pub(crate) fn flag(&mut self) -> Result<bool> {
        self.reply.flag()
    }

    pub(crate) fn task(&mut self, id: &str) -> Result<Boxed<Task>> {
        record::read_task(id, &self.bytes()?)
    }

    /// A task behind the exact deadline of its lease, if it has one, and a blank.
    pub(crate) fn leased_task(&mut self, id: &str) -> Result<Boxed<Task>> {
        let bytes = self.bytes()?;
        let blank = bytes.iter().position(|byte| *byte == b' ').unwrap_or_default();
        let (deadline, json) = bytes.split_at(blank);
        let mut task = record::read_task(id, json)?;
        if let Some(deadline) = str::from_utf8(deadline).ok().and_then(|text| text.parse().ok()) {
            task.lease_until = Optional::RSome(Instant(deadline));
        }
        Ok(task)
    }

    pub(crate) fn returned(&mut self, id: &str) -> Result<Returned> {
        let task = self.task(id)?;
        let delay = Millis(self.number()?);
        Ok(Returned { task, delay, awoke: self.flag()? })
    }

    /// The error that a script's code stands for.
    fn refusal(&mut self, code: &str, name: &str) -> Result<Error> {
        let detail = self.reply.text()?;
        Ok(match code {
            "NOT_FOUND" => rules::not_found(name),
            "CORRUPT" if detail.is_empty() => record::unreadable(name),
            "CORRUPT" => record::unreadable(&detail),
            "OTHERS" => {
                Error::already_exists(format!("{name} is there already, of another tenant"))
            }
            "ALREADY_EXISTS" => Error::already_exists(format!("there is a task {name} already")),
            "NOT_IN_PROGRESS" => Error::not_in_progress(format!(
                "task {name} is not in progress: its status is {detail}"
            )),
            "NOT_OWNER" if detail.is_empty() => {
                Error::not_owner(format!("task {name} is leased to another worker"))
            }
            "NOT_OWNER" => Error::not_owner(format!(
                "task {name} was delivered again: attempt {detail} is running"
            )),
            "NOT_DEAD" => Error::invalid_argument(format!(
                "task {name} is not dead-lettered: its status is {detail}"
            )),
            "NO_SUBSCRIPTION" => Error::not_found(format!("there is no subscription {name}")),
            "NOT_SUBSCRIBER" => {
                Error::not_owner(format!("subscription {name} is another worker's"))
            }
            _ => return Err(self.reply.unexpected(&format!("`{code}`"))),
        })
    }
}

/// The id that an error about a lease names.
pub(crate) fn task_of(lease: &Lease) -> &str {
    &lease.task_id
}

/// The id that an error about an item names, where the item is the id.
pub(crate) fn itself(id: &Text) -> &str {
    id
}

/// The answers to a whole batch, some of whose items were refused before anything was sent.
pub(crate) fn merged<C, T>(checked: Vec<Result<C>>, answers: Vec<Result<T>>) -> Vec<Result<T>> {
    let mut answers = answers.into_iter();
    let lost = || Err(Error::internal("an item was not answered"));
    checked
        .into_iter()
        .map(|checked| checked.and_then(|_| answers.next().unwrap_or_else(lost)))
        .collect()
}
