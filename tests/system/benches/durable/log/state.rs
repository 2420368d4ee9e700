//! What the log's contestants keep in memory, and what they write of each change.

use std::collections::{HashMap, VecDeque};

use codeq_plugin::{
    Boxed, Claim, Complete, Completed, Enqueue, Enqueued, Instant, Task, TaskResult, Text,
    queue_name, rules::Rules,
};

use crate::mailbox::Engine;

#[derive(Default)]
pub(crate) struct State {
    rules: Rules,
    /// By tenant and queue, the oldest first.
    ready: HashMap<Text, HashMap<Text, VecDeque<Text>>>,
    tasks: HashMap<Text, Boxed<Task>>,
    results: HashMap<Text, Boxed<TaskResult>>,
    /// The changes that are not written yet.
    pub(crate) log: Vec<u8>,
}

impl Engine for State {
    fn enqueue(&mut self, enqueue: Enqueue) -> Enqueued {
        let Enqueue { mut task, visible_at, .. } = enqueue;
        self.rules.enqueue(&mut task, visible_at, Instant::now());
        self.write(b'e', &[&task.id, &task.tenant_id, &task.command, &task.payload]);
        self.number(task.created_at.0);
        self.log.push(task.priority);
        self.text(&[&task.webhook, &task.trace_parent, &task.trace_state]);
        let queues = self.ready.entry(task.tenant_id.clone()).or_default();
        let queue = queues.entry(Text::from(queue_name(&task.command))).or_default();
        let awoke = queue.is_empty();
        queue.push_back(task.id.clone());
        self.tasks.insert(task.id.clone(), task.clone());
        Enqueued { task, created: true, awoke }
    }

    fn claim(&mut self, claim: Claim) -> Option<Boxed<Task>> {
        let queues = self.ready.get_mut(&claim.tenant_id)?;
        let mut queues = claim.commands.iter().filter_map(|command| {
            queues.get_mut(&*queue_name(command)).and_then(VecDeque::pop_front)
        });
        let id = queues.next()?;
        let task = self.tasks.get_mut(&id)?;
        self.rules.claim(task, &claim.worker_id, claim.lease, Instant::now());
        let task = task.clone();
        self.write(b'c', &[&task.id, &task.worker_id]);
        self.number(task.updated_at.0);
        self.number(claim.lease.0);
        Some(task)
    }

    fn complete(&mut self, complete: Complete) -> Completed {
        let Complete { lease, mut result } = complete;
        let now = Instant::now();
        let task = self.tasks.get_mut(&lease.task_id).unwrap();
        self.rules.complete(task, &lease, result.status, &result.error, now).unwrap();
        result.completed_at = now;
        let task = task.clone();
        self.write(b'f', &[&task.id, &result.result, &result.error]);
        self.number(now.0);
        self.log.push(task.status as u8);
        self.results.insert(task.id.clone(), result);
        Completed { task }
    }
}

impl State {
    fn write(&mut self, kind: u8, texts: &[&str]) {
        self.log.push(kind);
        self.text(texts);
    }

    fn text(&mut self, texts: &[&str]) {
        for text in texts {
            let len = u32::try_from(text.len()).unwrap();
            self.log.extend_from_slice(&len.to_le_bytes());
            self.log.extend_from_slice(text.as_bytes());
        }
    }

    fn number(&mut self, number: i64) {
        self.log.extend_from_slice(&number.to_le_bytes());
    }
}
