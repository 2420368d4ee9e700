//! SQLite as one would first write it: every operation a transaction of its own, synced when it
//! commits, on a plain table with the indexes that its queries need.
//!
//! One thread has the connection, and statements that were prepared once. A lock around the
//! connection would make the clients' threads wait for the disk.

use std::{path::Path, sync::mpsc::Receiver, thread::JoinHandle};

use codeq_plugin::{
    Boxed, Claim, Complete, Completed, Enqueue, Enqueued, Extensions, Instant, Location, Optional,
    Task, TaskStatus, Text, queue_name, rules::Rules,
};
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use crate::mailbox::{Answer, Engine, Mailbox, Request};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE task (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        tenant_id TEXT NOT NULL,
        queue TEXT NOT NULL,
        command TEXT NOT NULL,
        payload TEXT NOT NULL,
        priority INTEGER NOT NULL,
        webhook TEXT NOT NULL,
        trace_parent TEXT NOT NULL,
        trace_state TEXT NOT NULL,
        status INTEGER NOT NULL,
        location INTEGER NOT NULL,
        worker_id TEXT NOT NULL,
        lease_until INTEGER,
        attempts INTEGER NOT NULL,
        max_attempts INTEGER NOT NULL,
        error TEXT NOT NULL,
        result_key TEXT NOT NULL,
        result TEXT,
        visible_at INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    );
    CREATE INDEX ready ON task (tenant_id, queue, location, priority DESC, seq);
    CREATE INDEX leased ON task (lease_until) WHERE lease_until IS NOT NULL;
    CREATE INDEX retained ON task (updated_at);
";

const IS_READY: &str = "tenant_id = ?1 AND queue = ?2 AND location = 0";

const COLUMNS: &str = "
    id, command, payload, priority, webhook, trace_parent, trace_state, status, location,
    worker_id, lease_until, attempts, max_attempts, error, result_key, tenant_id, created_at,
    updated_at, seq
";

pub(crate) fn open(dir: &Path) -> (Mailbox, JoinHandle<()>) {
    let connection = Connection::open(dir.join("naive.db")).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    Mailbox::served_by(move |requests| serve(&connection, &requests))
}

fn serve(connection: &Connection, requests: &Receiver<Request>) {
    let mut table = Table::new(connection);
    for request in requests {
        table.begin.execute([]).unwrap();
        let answer: Answer = request.execute(&mut table);
        table.commit.execute([]).unwrap();
        answer.send();
    }
}

struct Table<'c> {
    rules: Rules,
    begin: Statement<'c>,
    commit: Statement<'c>,
    any_ready: Statement<'c>,
    insert: Statement<'c>,
    first_ready: Statement<'c>,
    lease: Statement<'c>,
    by_id: Statement<'c>,
    finish: Statement<'c>,
}

impl<'c> Table<'c> {
    fn new(connection: &'c Connection) -> Table<'c> {
        let prepare = |sql: &str| connection.prepare(sql).unwrap();
        Table {
            rules: Rules::default(),
            begin: prepare("BEGIN IMMEDIATE"),
            commit: prepare("COMMIT"),
            any_ready: prepare(&format!("SELECT 1 FROM task WHERE {IS_READY} LIMIT 1")),
            insert: prepare(
                "INSERT INTO task (
                    id, tenant_id, queue, command, payload, priority, webhook, trace_parent,
                    trace_state, status, location, worker_id, lease_until, attempts, max_attempts,
                    error, result_key, visible_at, created_at, updated_at
                ) VALUES (
                    ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, '', NULL, 0, ?12, '', '', ?13,
                    ?14, ?14
                )",
            ),
            first_ready: prepare(&format!(
                "SELECT {COLUMNS} FROM task WHERE {IS_READY} ORDER BY priority DESC, seq LIMIT 1"
            )),
            lease: prepare(
                "UPDATE task SET status = ?2, location = ?3, worker_id = ?4, lease_until = ?5,
                attempts = ?6, updated_at = ?7 WHERE seq = ?1",
            ),
            by_id: prepare(&format!("SELECT {COLUMNS} FROM task WHERE id = ?1")),
            finish: prepare(
                "UPDATE task SET status = ?2, location = ?3, worker_id = '', lease_until = NULL,
                error = ?4, result = ?5, updated_at = ?6 WHERE seq = ?1",
            ),
        }
    }
}

impl Engine for Table<'_> {
    fn enqueue(&mut self, enqueue: Enqueue) -> Enqueued {
        let Enqueue { mut task, visible_at, .. } = enqueue;
        self.rules.enqueue(&mut task, visible_at, Instant::now());
        let queue = queue_name(&task.command);
        let awoke = !self.any_ready.exists(params![&*task.tenant_id, queue]).unwrap();
        let row = params![
            &*task.id,
            &*task.tenant_id,
            queue,
            &*task.command,
            &*task.payload,
            task.priority,
            &*task.webhook,
            &*task.trace_parent,
            &*task.trace_state,
            task.status as u8,
            task.last_known_location as u8,
            task.max_attempts,
            visible_at.0,
            task.created_at.0,
        ];
        self.insert.execute(row).unwrap();
        Enqueued { task, created: true, awoke }
    }

    fn claim(&mut self, claim: Claim) -> Option<Boxed<Task>> {
        let mut found = None;
        for command in &claim.commands {
            let queue = params![&*claim.tenant_id, queue_name(command)];
            found = self.first_ready.query_row(queue, task).optional().unwrap();
            if found.is_some() {
                break;
            }
        }
        let (seq, mut task) = found?;
        self.rules.claim(&mut task, &claim.worker_id, claim.lease, Instant::now());
        let row = params![
            seq,
            task.status as u8,
            task.last_known_location as u8,
            &*task.worker_id,
            task.lease_until.into_option().map(|until| until.0),
            task.attempts,
            task.updated_at.0,
        ];
        self.lease.execute(row).unwrap();
        Some(task)
    }

    fn complete(&mut self, complete: Complete) -> Completed {
        let Complete { lease, result } = complete;
        let (seq, mut task) = self.by_id.query_row([&*lease.task_id], task).unwrap();
        let now = Instant::now();
        self.rules.complete(&mut task, &lease, result.status, &result.error, now).unwrap();
        let row = params![
            seq,
            task.status as u8,
            task.last_known_location as u8,
            &*task.error,
            &*result.result,
            now.0,
        ];
        self.finish.execute(row).unwrap();
        Completed { task }
    }
}

/// A row of [`COLUMNS`].
fn task(row: &Row<'_>) -> rusqlite::Result<(i64, Boxed<Task>)> {
    let text = |column: usize| -> rusqlite::Result<Text> {
        Ok(Text::from(row.get_ref(column)?.as_str()?))
    };
    let task = Task {
        id: text(0)?,
        command: text(1)?,
        payload: text(2)?,
        priority: row.get(3)?,
        webhook: text(4)?,
        trace_parent: text(5)?,
        trace_state: text(6)?,
        status: match row.get(7)? {
            0 => TaskStatus::Pending,
            1 => TaskStatus::InProgress,
            2 => TaskStatus::Completed,
            _ => TaskStatus::Failed,
        },
        last_known_location: match row.get(8)? {
            0 => Location::PendingList,
            1 => Location::DelayedZset,
            2 => Location::InprogSet,
            3 => Location::DlqSet,
            _ => Location::None,
        },
        worker_id: text(9)?,
        lease_until: Optional::from(row.get::<_, Option<i64>>(10)?.map(Instant)),
        attempts: row.get(11)?,
        max_attempts: row.get(12)?,
        error: text(13)?,
        result_key: text(14)?,
        tenant_id: text(15)?,
        created_at: Instant(row.get(16)?),
        updated_at: Instant(row.get(17)?),
        extensions: Extensions::new(),
    };
    Ok((row.get(18)?, Boxed::new(task)))
}
