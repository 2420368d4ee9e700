//! The requests of a client, the same for every contestant.

use codeq_plugin::{
    Boxed, Claim, Complete, Enqueue, Extensions, Lease, Millis, Task, TaskResult, TaskStatus, Text,
};
use uuid::Uuid;

pub(crate) const TENANT: &str = "acme";
pub(crate) const COMMAND: &str = "render";

/// 200 bytes, as in the measurements that the design rests on.
const PAYLOAD: &str = match std::str::from_utf8(&[b'x'; 200]) {
    Ok(text) => text,
    Err(_) => "",
};

/// A task with an id as the host gives it.
pub(crate) fn enqueue() -> Enqueue {
    let mut id = Uuid::encode_buffer();
    Enqueue::now(Task {
        id: Text::from(&*Uuid::new_v4().hyphenated().encode_lower(&mut id)),
        command: COMMAND.into(),
        payload: PAYLOAD.into(),
        tenant_id: TENANT.into(),
        ..Task::default()
    })
}

/// A claim that may last for as long as the benchmark does.
pub(crate) fn claim(max: u32) -> Claim {
    Claim {
        worker_id: "worker".into(),
        tenant_id: TENANT.into(),
        commands: [Text::from(COMMAND)].into_iter().collect(),
        max,
        lease: Millis::DAY,
        extensions: Extensions::new(),
    }
}

/// The hold that the claim of a task gave.
pub(crate) fn lease(task: Boxed<Task>) -> Lease {
    let task = Boxed::into_inner(task);
    Lease {
        task_id: task.id,
        worker_id: task.worker_id,
        tenant_id: task.tenant_id,
        attempt: task.attempts,
        extensions: Extensions::new(),
    }
}

pub(crate) fn complete(task: Boxed<Task>) -> Complete {
    let lease = lease(task);
    let result = TaskResult {
        task_id: lease.task_id.clone(),
        status: TaskStatus::Completed,
        result: r#"{"ok":true}"#.into(),
        ..TaskResult::default()
    };
    Complete { lease, result: Boxed::new(result) }
}
