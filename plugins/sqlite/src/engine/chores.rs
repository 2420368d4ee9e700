//! Work that nobody waits for, in steps of a millisecond or so: ids are written to their table, those
//! whose tasks are gone are removed from it, and free space is given back to the disk.

use rusqlite::params;

use super::{Engine, read_meta, statements::Statements};
use crate::ids::{Merge, RecentIds};

/// What is under way.
#[derive(Default)]
pub(super) struct Chores {
    merge: Option<Merge>,
    /// The last of a batch of ids is written in this transaction.
    merged: bool,
    /// How far the table of ids has been searched for those whose tasks are gone.
    collected_to: Option<i64>,
    /// How many entries of the table have outlived their tasks, about.
    left_behind: i64,
    is_left_behind_changed: bool,
}

/// How many ids come together before they are written: the more there are in the table, the more it
/// takes for several to fall on one page. At most so many that reading them again after a crash takes
/// no time that anybody notices.
const BATCH: std::ops::RangeInclusive<u64> = (1 << 14)..=(1 << 17);
const TASKS_PER_ID: u64 = 16;

/// How many entries of the table of ids one step looks at.
const COLLECTED_AT_ONCE: i64 = 512;
/// So many entries without a task are not worth a search.
const FEW_LEFT_BEHIND: i64 = 10_000;

/// A file is made smaller when a quarter of it is free, and more than 4 MiB.
const FEW_FREE_PAGES: i64 = 1024;

impl Chores {
    pub(super) fn load(&mut self, sql: &mut Statements<'_>) -> rusqlite::Result<()> {
        self.left_behind = read_meta(sql, "left_behind")?.unwrap_or(0);
        self.is_left_behind_changed = false;
        Ok(())
    }

    /// How many entries of the table of ids have outlived their tasks, about.
    pub(super) fn left_behind(&self) -> u64 {
        self.left_behind.max(0).cast_unsigned()
    }

    pub(super) fn id_was_left_behind(&mut self) {
        self.left_behind += 1;
        self.is_left_behind_changed = true;
    }

    pub(super) fn committed(&mut self, ids: &RecentIds) {
        if std::mem::take(&mut self.merged)
            && let Some(merge) = self.merge.take()
        {
            merge.finish(ids);
        }
    }

    /// Answers whether the ids that are in memory have to be read again.
    pub(super) fn rolled_back(&mut self) -> bool {
        self.merged = false;
        self.collected_to = None;
        self.merge.take().is_some()
    }
}

impl Engine<'_> {
    /// Does a step of what there is to do beside the operations, in their transaction. Answers whether
    /// there is more.
    pub(crate) fn chore(&mut self, idle: bool) -> rusqlite::Result<bool> {
        let tasks = self.queues.tasks();
        if self.chores.merge.is_none() {
            let batch = (tasks / TASKS_PER_ID).clamp(*BATCH.start(), *BATCH.end());
            self.id_filter.take_over();
            if self.ids.len() as u64 >= batch {
                if self.id_filter.is_wanted() {
                    self.make_id_filter();
                }
                self.chores.merge = Some(Merge::start(&self.ids, self.id_hash, self.numbers.next));
            }
        }
        if self.chores.merge.is_some() {
            let count = if idle { 1024 } else { 64 + 4 * self.new_ids.len() };
            return self.write_ids(count, false);
        }
        let many = FEW_LEFT_BEHIND.max(tasks.cast_signed() / 4);
        if self.chores.collected_to.is_some() || self.chores.left_behind > many {
            return self.collect_ids();
        }
        if idle { self.give_space_back() } else { Ok(false) }
    }

    /// Writes all ids to their table, so that the next start need not read them.
    pub(crate) fn write_all_ids(&mut self) -> rusqlite::Result<()> {
        if self.chores.merge.is_none() && self.ids.len() > 0 {
            self.chores.merge = Some(Merge::start(&self.ids, self.id_hash, self.numbers.next));
        }
        if self.chores.merge.is_some() {
            self.write_ids(usize::MAX, true)?;
        }
        Ok(())
    }

    /// Keeps what the chores count, before the transaction is committed.
    pub(super) fn keep_chores(&mut self) -> rusqlite::Result<()> {
        if std::mem::take(&mut self.chores.is_left_behind_changed) {
            self.sql.keep_meta.execute(params!["left_behind", self.chores.left_behind])?;
        }
        Ok(())
    }

    fn write_ids(&mut self, count: usize, wait: bool) -> rusqlite::Result<bool> {
        let Some(merge) = &mut self.chores.merge else { return Ok(false) };
        // Sorting is under way; whoever is idle need not look again at once.
        let Some(ids) = merge.next(count, wait) else { return Ok(false) };
        for (hash, seq) in ids {
            self.id_filter.add(hash);
            self.sql.keep_id.execute([hash, seq])?;
        }
        if merge.is_finished() {
            self.sql.keep_meta.execute(params!["indexed", merge.up_to])?;
            self.chores.merged = true;
        }
        Ok(!self.chores.merged)
    }

    fn collect_ids(&mut self) -> rusqlite::Result<bool> {
        let from = self.chores.collected_to.take().unwrap_or(-1);
        let to: Option<i64> = {
            let mut rows = self.sql.nth_hash_after.query([from, COLLECTED_AT_ONCE])?;
            rows.next()?.map(|row| row.get(0)).transpose()?
        };
        let removed = self.sql.drop_ids.execute([from, to.unwrap_or(i64::MAX)])?;
        let removed = i64::try_from(removed).unwrap_or(i64::MAX);
        // The search finds all there are, so at its end there are none.
        self.chores.left_behind = match to {
            Some(_) => (self.chores.left_behind - removed).max(0),
            None => 0,
        };
        self.chores.is_left_behind_changed = true;
        self.chores.collected_to = to;
        Ok(self.chores.collected_to.is_some())
    }

    fn give_space_back(&mut self) -> rusqlite::Result<bool> {
        let free: i64 = self.sql.free_pages.query_row([], |row| row.get(0))?;
        if free <= FEW_FREE_PAGES {
            return Ok(false);
        }
        let pages: i64 = self.sql.pages.query_row([], |row| row.get(0))?;
        if free < pages / 4 {
            return Ok(false);
        }
        let mut rows = self.sql.vacuum.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }
}
