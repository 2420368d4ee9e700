//! What readers look up.

use std::sync::atomic::{AtomicI64, Ordering};

use codeq_plugin::{
    Boxed, ByCommand, ByWorker, Cleanup, Error, Instant, Queue as QueueKey, QueueStats,
    Subscription, Task, TaskResult, Text, queue_name,
    rules::{self, Rules},
};
use rusqlite::{Row, params};

use crate::{
    fault::{Failure, Outcome},
    place::Place,
    queues::{Queue, Seq},
    readers::View,
    rows::{
        Entry, entry_columns, read_result, read_subscription, result_columns, subscription_columns,
    },
};

impl View<'_> {
    /// Reads something, to see whether that can be done.
    pub(crate) fn probe(&self) -> Outcome<()> {
        self.db.prepare_cached("SELECT count(*) FROM meta")?.query_row([], |_| Ok(()))?;
        Ok(())
    }

    pub(crate) fn task(&self, id: &str) -> Outcome<Boxed<Task>> {
        let missing = || Failure::Refused(rules::not_found(id));
        let seq = self.seq(id)?.ok_or_else(missing)?;
        let mut read = self.db.prepare_cached(concat!(
            "SELECT ",
            entry_columns!(),
            ", q.tenant FROM tasks t LEFT JOIN bodies b USING (seq) LEFT JOIN queues q USING (queue) \
             WHERE t.seq = ?1"
        ))?;
        let mut rows = read.query([seq])?;
        let entry = read_with_tenant(rows.next()?.ok_or_else(missing)?)?;
        // An entry in the table of ids may have outlived its task.
        if entry.task.id != id {
            return Err(missing());
        }
        Ok(entry.task)
    }

    pub(crate) fn result(&self, id: &str) -> Outcome<Boxed<TaskResult>> {
        let missing = || Failure::Refused(rules::not_found(id));
        let seq = self.seq(id)?.ok_or_else(missing)?;
        let mut read = self.db.prepare_cached(concat!(
            "SELECT ",
            result_columns!(),
            ", t.id FROM tasks t LEFT JOIN results r USING (seq) WHERE t.seq = ?1"
        ))?;
        let mut rows = read.query([seq])?;
        let row = rows.next()?.ok_or_else(missing)?;
        if row.get_ref(6)?.as_str().is_ok_and(|found| found != id) {
            return Err(missing());
        }
        if row.get_ref(0)?.data_type() == rusqlite::types::Type::Null {
            return Err(Error::not_found(format!("task {id} has no result")).into());
        }
        Ok(read_result(row, id, seq)?)
    }

    pub(crate) fn stats(&self, queue: &QueueKey) -> Outcome<QueueStats> {
        let command = queue_name(&queue.command);
        let mut read = self.db.prepare_cached(
            "SELECT ready, delayed, leased, dead FROM queues WHERE tenant = ?1 AND command = ?2",
        )?;
        let mut rows = read.query([queue.tenant_id.as_str(), &command])?;
        let counts = match rows.next()? {
            Some(row) => counts(row, 0)?,
            None => [0; Place::COUNT],
        };
        Ok(Queue::stats(queue.tenant_id.clone(), Text::from(&*command), &counts))
    }

    pub(crate) fn all_stats(&self, tenant: Option<&str>) -> Outcome<Vec<QueueStats>> {
        let mut read = self.db.prepare_cached(
            "SELECT ready, delayed, leased, dead, tenant, command FROM queues \
             WHERE ?1 IS NULL OR tenant = ?1 ORDER BY tenant, command",
        )?;
        let mut rows = read.query([tenant])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let text = |index| row.get::<_, String>(index).map(Text::from);
            all.push(Queue::stats(text(4)?, text(5)?, &counts(row, 0)?));
        }
        Ok(all)
    }

    pub(crate) fn subscriptions_to(&self, by: &ByCommand) -> Outcome<Vec<Boxed<Subscription>>> {
        let mut read = self.db.prepare_cached(concat!(
            "SELECT ",
            subscription_columns!(),
            " FROM subscriptions s WHERE s.expires_at > ?3 AND s.id IN (SELECT subscription \
             FROM subscribed WHERE tenant = ?1 AND command IN (?2, '*')) ORDER BY s.id"
        ))?;
        let now = Instant::now().0;
        let name = queue_name(&by.command);
        let mut rows = read.query(params![by.tenant_id.as_str(), &*name, now])?;
        readable_subscriptions(&mut rows)
    }

    pub(crate) fn subscriptions_of(&self, by: &ByWorker) -> Outcome<Vec<Boxed<Subscription>>> {
        let mut read = self.db.prepare_cached(concat!(
            "SELECT ",
            subscription_columns!(),
            " FROM subscriptions s WHERE s.tenant = ?1 AND s.worker = ?2 AND s.expires_at > ?3 \
             ORDER BY s.id"
        ))?;
        let now = Instant::now().0;
        let mut rows = read.query(params![by.tenant_id.as_str(), by.worker_id.as_str(), now])?;
        readable_subscriptions(&mut rows)
    }

    /// Tasks whose retention may have ended, the earliest first. No task before `unlooked` is still to
    /// be looked at in the order of `seq`.
    pub(crate) fn retirable(
        &self,
        cleanup: &Cleanup,
        rules: &Rules,
        unlooked: &AtomicI64,
    ) -> Outcome<Vec<Seq>> {
        let tenant = cleanup.tenant_id.as_ref().into_option().map(Text::as_str);
        let limit = i64::from(cleanup.limit);
        let mut seqs = Vec::new();
        let mut look = self.db.prepare_cached(
            "SELECT seq FROM tasks WHERE look_at <= ?1 AND place <> 6 AND (?2 IS NULL OR queue IN \
             (SELECT queue FROM queues WHERE tenant = ?2)) ORDER BY look_at LIMIT ?3",
        )?;
        let mut rows = look.query(params![cleanup.before.0, tenant, limit])?;
        while let Some(row) = rows.next()? {
            seqs.push(row.get(0)?);
        }
        // All others are looked at in the order in which they came. A task of another tenant among
        // them is passed by, and the first one that is too young ends the search.
        let mut oldest = self.db.prepare_cached(
            "SELECT seq, created_at, ?1 IS NULL OR queue IN (SELECT queue FROM queues \
             WHERE tenant = ?1) FROM tasks WHERE seq >= ?2 AND look_at IS NULL AND place <> 6 \
             ORDER BY seq",
        )?;
        let mut rows = oldest.query(params![tenant, unlooked.load(Ordering::Relaxed)])?;
        let mut is_first = true;
        while seqs.len() < cleanup.limit as usize
            && let Some(row) = rows.next()?
        {
            if std::mem::take(&mut is_first) {
                unlooked.fetch_max(row.get(0)?, Ordering::Relaxed);
            }
            if Instant(row.get(1)?) + rules.retention > cleanup.before {
                break;
            }
            if row.get(2)? {
                seqs.push(row.get(0)?);
            }
        }
        Ok(seqs)
    }
}

/// Reads a task with its tenant behind the columns of its record.
pub(crate) fn read_with_tenant(row: &Row<'_>) -> Result<Entry, Error> {
    let tenant = row.get_ref("tenant").ok().and_then(|tenant| tenant.as_str().ok());
    let entry = Entry::read(row, tenant.map(Text::from).unwrap_or_default())?;
    match tenant {
        Some(_) => Ok(entry),
        None => Err(Error::corrupt(format!(
            "task {} (seq {} in the file) cannot be read: its queue {} is not there",
            entry.task.id, entry.at.seq, entry.at.queue
        ))),
    }
}

fn readable_subscriptions(rows: &mut rusqlite::Rows<'_>) -> Outcome<Vec<Boxed<Subscription>>> {
    let mut subscriptions = Vec::new();
    while let Some(row) = rows.next()? {
        match read_subscription(row) {
            Ok(subscription) => subscriptions.push(subscription),
            // It does not keep the others from hearing.
            Err(error) => tracing::error!("{error}"),
        }
    }
    Ok(subscriptions)
}

fn counts(row: &Row<'_>, first: usize) -> rusqlite::Result<[u64; Place::COUNT]> {
    let mut counts = [0; Place::COUNT];
    for place in [Place::Ready, Place::Delayed, Place::Leased, Place::Dead] {
        let index = place as usize;
        counts[index] = row.get::<_, i64>(first + index)?.max(0).cast_unsigned();
    }
    Ok(counts)
}
