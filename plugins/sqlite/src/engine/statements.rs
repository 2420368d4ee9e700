//! The statements of the writer, prepared once.

use rusqlite::{Connection, Statement};

use crate::{
    ids::find_id,
    rows::{entry_columns, subscription_columns},
};

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $sql:expr;)*) => {
        /// Every statement that the writer runs.
        ///
        /// What is run for every task is an `INSERT` that does not replace: one that may has SQLite
        /// keep what it would need to undo half of it.
        pub(super) struct Statements<'c> {
            $($(#[$doc])* pub(super) $name: Statement<'c>,)*
        }

        impl<'c> Statements<'c> {
            pub(super) fn prepare(db: &'c Connection) -> rusqlite::Result<Statements<'c>> {
                Ok(Statements { $($name: db.prepare($sql)?,)* })
            }
        }

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $sql)),*];
    };
}

statements! {
    data_version: "PRAGMA data_version";
    read_meta: "SELECT value FROM meta WHERE name = ?1";
    keep_meta: "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)";

    all_queues: "SELECT queue, tenant, command, ready, delayed, leased, dead, completed, failed, \
                 unreadable FROM queues";
    count_all: "SELECT queue, place, count(*) FROM tasks GROUP BY queue, place";
    change_queue: "UPDATE queues SET ready = ?2, delayed = ?3, leased = ?4, dead = ?5, completed = ?6, \
                   failed = ?7, unreadable = ?8 WHERE queue = ?1";
    add_queue: "INSERT INTO queues (queue, ready, delayed, leased, dead, completed, failed, unreadable, \
                tenant, command) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    drop_queue: "DELETE FROM queues WHERE queue = ?1";

    find_id: find_id!();
    any_id: "SELECT 1 FROM ids LIMIT 1";
    keep_id: "INSERT OR IGNORE INTO ids (hash, seq) VALUES (?1, ?2)";
    ids_from: "SELECT id, seq FROM tasks WHERE seq >= ?1";
    nth_hash_after: "SELECT hash FROM ids WHERE hash > ?1 ORDER BY hash LIMIT 1 OFFSET ?2";
    drop_ids: "DELETE FROM ids WHERE hash > ?1 AND hash <= ?2 \
               AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.seq = ids.seq)";

    read_task: concat!("SELECT ", entry_columns!(), " FROM tasks t LEFT JOIN bodies b USING (seq) \
                        WHERE t.seq = ?1");
    first_ready: concat!("SELECT ", entry_columns!(), " FROM tasks t INDEXED BY tasks_in_order \
                          LEFT JOIN bodies b USING (seq) WHERE t.queue = ?1 AND t.place = 0 \
                          ORDER BY t.rank, t.arrival LIMIT ?2");
    due: "SELECT seq, rank, arrival FROM tasks INDEXED BY tasks_in_order \
          WHERE queue = ?1 AND place = ?2 AND rank <= ?3 ORDER BY rank, arrival LIMIT ?4";
    first_rank: "SELECT rank FROM tasks INDEXED BY tasks_in_order WHERE queue = ?1 AND place = ?2 \
                 ORDER BY rank, arrival LIMIT 1";
    place_of: "SELECT queue, place, rank, arrival FROM tasks WHERE seq = ?1";

    add_task: "INSERT INTO tasks (seq, queue, place, rank, arrival, created_at, \
                updated_at, look_at, status, location, attempts, lease_until, id, worker, error, \
                result_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
                ?15, ?16)";
    add_body: "INSERT INTO bodies (seq, command, priority, max_attempts, webhook, \
               trace_parent, trace_state, extensions, payload) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    move_task: "UPDATE tasks SET place = ?2, rank = ?3, arrival = ?4, updated_at = ?5, status = ?6, \
                location = ?7, attempts = ?8, lease_until = ?9, worker = ?10, error = ?11, \
                result_key = ?12 WHERE seq = ?1";
    set_aside: "UPDATE tasks SET place = 6, rank = 0, arrival = ?2 WHERE seq = ?1";
    look_at: "UPDATE tasks SET look_at = ?2 WHERE seq = ?1";
    drop_task: "DELETE FROM tasks WHERE seq = ?1";
    drop_body: "DELETE FROM bodies WHERE seq = ?1";

    add_result: "INSERT OR IGNORE INTO results (seq, status, completed_at, error, artifacts, \
                 extensions, result) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    drop_result: "DELETE FROM results WHERE seq = ?1";

    find_key: "SELECT seq, until FROM idempotency WHERE tenant = ?1 AND key = ?2";
    keep_key: "INSERT OR REPLACE INTO idempotency (until, seq, tenant, key) VALUES (?1, ?2, ?3, ?4)";
    forget_keys: "DELETE FROM idempotency WHERE number IN \
                  (SELECT number FROM idempotency ORDER BY number LIMIT ?2) AND until <= ?1";

    subscription: concat!("SELECT ", subscription_columns!(), ", s.notified_at FROM subscriptions s \
                           WHERE s.id = ?1");
    keep_subscription: "INSERT OR REPLACE INTO subscriptions (id, tenant, worker, callback_url, \
                        event_types, delivery_mode, group_id, min_interval_seconds, expires_at, \
                        created_at, notified_at, extensions) \
                        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    drop_subscription: "DELETE FROM subscriptions WHERE id = ?1";
    subscribe: "INSERT OR IGNORE INTO subscribed (tenant, command, subscription) VALUES (?1, ?2, ?3)";
    unsubscribe: "DELETE FROM subscribed WHERE tenant = ?1 AND command = ?2 AND subscription = ?3";
    subscriptions_of: "SELECT id FROM subscriptions WHERE tenant = ?1 AND worker = ?2";
    ended_subscriptions: "SELECT id FROM subscriptions WHERE expires_at <= ?1 ORDER BY expires_at \
                          LIMIT ?2";
    renew_subscription: "UPDATE subscriptions SET expires_at = ?2 WHERE id = ?1";
    notified: "UPDATE subscriptions SET notified_at = ?2 WHERE id = ?1";
    next_turn: "INSERT INTO turns (tenant, command, group_id, next) VALUES (?1, ?2, ?3, 1) \
                ON CONFLICT (tenant, command, group_id) DO UPDATE SET next = next + 1 \
                RETURNING next - 1";

    free_pages: "PRAGMA freelist_count";
    pages: "PRAGMA page_count";
    vacuum: "PRAGMA incremental_vacuum(64)";
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::schema;

    /// What reads a table from its beginning: all of it when something has to be counted anew, or a
    /// few rows in the order in which they lie there.
    const SCANS: [&str; 4] = ["all_queues", "any_id", "count_all", "forget_keys"];

    #[test]
    fn no_operation_searches_a_table_or_sorts() {
        let mut db = Connection::open_in_memory().unwrap();
        schema::prepare(&mut db, Path::new("codeq.db")).unwrap();
        for (name, sql) in ALL {
            if sql.starts_with("PRAGMA") {
                continue;
            }
            let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let parameters = vec![rusqlite::types::Value::Null; explain.parameter_count()];
            let steps = explain
                .query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>(3))
                .unwrap();
            for step in steps.map(Result::unwrap) {
                let is_search = !step.starts_with("SCAN") || SCANS.contains(name);
                assert!(is_search && !step.contains("TEMP B-TREE"), "{name}: {step}");
            }
        }
    }
}
