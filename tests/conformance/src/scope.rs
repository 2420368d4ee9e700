//! Keeping cases apart on a backend that they share: every case has names of its own.

use codeq_plugin::{Arrival, Boxed, Lease, List, Moved, Queue, QueueStats, Tally, Task, Text};

/// The prefix of a case's names.
///
/// Ids and tenants get it. The empty tenant must stay empty, so its commands get it instead.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope(String);

impl Scope {
    /// A scope whose names begin with `prefix`, which is in lower case, since commands get it, too.
    pub(crate) fn new(prefix: impl Into<String>) -> Scope {
        Scope(prefix.into())
    }

    pub(crate) fn name_in(&self, name: &str) -> Text {
        if name.is_empty() { Text::new() } else { format!("{}{name}", self.0).into() }
    }

    pub(crate) fn name_out(&self, name: &str) -> Text {
        name.strip_prefix(&self.0).unwrap_or(name).into()
    }

    fn command_in(&self, tenant: &str, command: &str) -> Text {
        if tenant.is_empty() { self.name_in(command) } else { command.into() }
    }

    fn command_out(&self, tenant: &str, command: &str) -> Text {
        if tenant.is_empty() { self.name_out(command) } else { command.into() }
    }

    pub(crate) fn commands_in(&self, tenant: &str, commands: &mut List<Text>) {
        for command in commands {
            *command = self.command_in(tenant, command);
        }
    }

    pub(crate) fn task_in(&self, task: &mut Task) {
        task.command = self.command_in(&task.tenant_id, &task.command);
        task.id = self.name_in(&task.id);
        task.tenant_id = self.name_in(&task.tenant_id);
    }

    pub(crate) fn task_out(&self, mut task: Boxed<Task>) -> Boxed<Task> {
        task.command = self.command_out(&task.tenant_id, &task.command);
        task.id = self.name_out(&task.id);
        task.result_key = self.name_out(&task.result_key);
        task.tenant_id = self.name_out(&task.tenant_id);
        task
    }

    pub(crate) fn lease_in(&self, lease: &mut Lease) {
        lease.task_id = self.name_in(&lease.task_id);
        lease.tenant_id = self.name_in(&lease.tenant_id);
    }

    pub(crate) fn queue_in(&self, queue: Queue) -> Queue {
        Queue {
            command: self.command_in(&queue.tenant_id, &queue.command),
            tenant_id: self.name_in(&queue.tenant_id),
        }
    }

    pub(crate) fn queue_out(&self, queue: &Queue) -> Queue {
        Queue {
            command: self.command_out(&queue.tenant_id, &queue.command),
            tenant_id: self.name_out(&queue.tenant_id),
        }
    }

    pub(crate) fn stats_out(&self, stats: QueueStats) -> QueueStats {
        QueueStats {
            command: self.command_out(&stats.tenant_id, &stats.command),
            tenant_id: self.name_out(&stats.tenant_id),
            ..stats
        }
    }

    pub(crate) fn has_queue(&self, tenant: &str, command: &str) -> bool {
        if tenant.is_empty() { command.starts_with(&self.0) } else { tenant.starts_with(&self.0) }
    }

    pub(crate) fn has_task(&self, task: &Task) -> bool {
        task.id.starts_with(&self.0)
    }

    /// What of a report is the case's own. The count stays as it was told.
    pub(crate) fn moved_out(&self, moved: Moved) -> Moved {
        let mine = |queue: &Queue| self.has_queue(&queue.tenant_id, &queue.command);
        let arrivals = moved.arrivals.into_iter().filter(|arrival| mine(&arrival.queue));
        let expired = moved.expired.into_iter().filter(|tally| mine(&tally.queue));
        let dead = moved.dead.into_iter().filter(|task| self.has_task(task));
        Moved {
            arrivals: arrivals
                .map(|arrival| Arrival { queue: self.queue_out(&arrival.queue), ..arrival })
                .collect(),
            expired: expired
                .map(|tally| Tally { queue: self.queue_out(&tally.queue), ..tally })
                .collect(),
            dead: dead.map(|task| self.task_out(task)).collect(),
            ..moved
        }
    }
}
