//! The records, and where each of them stands.
//!
//! [`Tasks::insert`], [`Tasks::place`] and [`Tasks::remove`] are the only ways in and out of the
//! index, so no task is ever in two places, or in none.

use std::{collections::HashMap, num::NonZeroUsize};

use codeq_plugin::{
    Boxed, Error, Instant, Millis, Result, Returned, Task, TaskResult, Text,
    rules::{self, Placement, Rules},
};

use crate::{
    Config,
    index::{Index, Name, Ticket},
    keys::Keys,
};

/// All tasks of all tenants.
pub(crate) struct Tasks {
    rules: Rules,
    limit: Option<NonZeroUsize>,
    records: HashMap<Name, Record>,
    pub(crate) index: Index,
    pub(crate) keys: Keys,
}

/// A task with its result, and where it stands.
pub(crate) struct Record {
    pub(crate) task: Boxed<Task>,
    pub(crate) result: Option<Boxed<TaskResult>>,
    ticket: Ticket,
}

/// What became of a task.
pub(crate) struct Change<'a> {
    pub(crate) task: &'a Boxed<Task>,
    pub(crate) placement: Placement,
    /// Whether its queue had no claimable task before and has one now.
    pub(crate) awoke: bool,
}

impl Tasks {
    pub(crate) fn new(rules: Rules, config: &Config) -> Tasks {
        Tasks {
            rules,
            limit: config.max_tasks,
            records: HashMap::new(),
            index: Index::default(),
            keys: Keys::default(),
        }
    }

    pub(crate) fn get(&self, id: &str) -> Result<&Record> {
        self.records.get(id).ok_or_else(|| rules::not_found(id))
    }

    /// The record, to be changed by a rule. Whoever changes the task calls [`Tasks::place`] next.
    pub(crate) fn get_mut(&mut self, id: &str) -> Result<&mut Record> {
        self.records.get_mut(id).ok_or_else(|| rules::not_found(id))
    }

    /// Takes a new task in.
    pub(crate) fn insert(&mut self, task: Boxed<Task>, placement: Placement) -> Result<Change<'_>> {
        rules::check_task(&task)?;
        if self.records.contains_key(task.id.as_str()) {
            let message = format!("there is a task {} already", task.id);
            return Err(Error::already_exists(message));
        }
        if let Some(limit) = self.limit.filter(|limit| self.records.len() >= limit.get()) {
            return Err(Error::unavailable(format!(
                "the store is full: it keeps {limit} tasks at most; raise maxTasks, or wait until \
                 finished tasks are removed"
            )));
        }
        let id = Name::from(task.id.as_str());
        let retained_until = self.rules.retained_until(&task, placement);
        let (ticket, awoke) = self.index.put(id.clone(), &task, placement, retained_until);
        let record = Record {
            task,
            result: None,
            ticket,
        };
        let record = self.records.entry(id).insert_entry(record).into_mut();
        Ok(Change {
            task: &record.task,
            placement,
            awoke,
        })
    }

    /// Takes a task in as it is, in place of the one of its id, whose result it keeps.
    pub(crate) fn replace(&mut self, task: Boxed<Task>, placement: Placement) -> Result<()> {
        rules::check_task(&task)?;
        let id = task.id.clone();
        let replaced = self.remove(&id).ok();
        self.insert(task, placement)?;
        self.get_mut(&id)?.result = replaced.and_then(|record| record.result);
        Ok(())
    }

    /// Puts a task where a rule placed it.
    pub(crate) fn place(&mut self, id: &str, placement: Placement) -> Result<Change<'_>> {
        let unknown = || rules::not_found(id);
        let record = self.records.get_mut(id).ok_or_else(unknown)?;
        let Record { task, ticket, .. } = record;
        self.index.take(ticket);
        let id = ticket.id.clone();
        let retained_until = self.rules.retained_until(task, placement);
        let (new_ticket, awoke) = self.index.put(id, task, placement, retained_until);
        *ticket = new_ticket;
        Ok(Change {
            task,
            placement,
            awoke,
        })
    }

    /// Removes a task with its result.
    pub(crate) fn remove(&mut self, id: &str) -> Result<Record> {
        let record = self.records.remove(id);
        let record = record.ok_or_else(|| rules::not_found(id))?;
        self.index.take(&record.ticket);
        Ok(record)
    }

    /// The task that was enqueued with an idempotency key first, unless it is gone.
    pub(crate) fn enqueued_with(
        &self,
        tenant: &Text,
        key: &Text,
        now: Instant,
    ) -> Option<&Boxed<Task>> {
        let id = self.keys.find(tenant, key, now)?;
        let task = &self.records.get(id)?.task;
        (task.tenant_id == *tenant).then_some(task)
    }
}

impl Change<'_> {
    /// As a worker hears of it who gave the task back.
    pub(crate) fn returned(&self, now: Instant) -> Returned {
        let delay = match self.placement {
            Placement::Delayed(until) => until.since(now),
            _ => Millis::ZERO,
        };
        Returned {
            task: self.task.clone(),
            delay,
            awoke: self.awoke,
        }
    }
}
