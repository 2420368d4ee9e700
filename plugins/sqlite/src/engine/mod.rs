//! What the writer does to the file: the operations of the contract, each as a few statements inside
//! a transaction that others share.
//!
//! Whoever calls brings the transaction. An operation that is refused has written nothing; one that
//! fails in SQLite leaves the transaction to be rolled back, and [`Engine::rolled_back`] to be called.
//!
//! In memory is what saves statements: the queues' counts and heads, and the records of tasks that
//! will be asked for next. All of it can be made anew from the file, and is, whenever a transaction is
//! rolled back or another program has written to the file.

mod chores;
mod statements;
mod subscriptions;
mod tasks;

use std::{mem, sync::Arc};

use codeq_plugin::{Context, Error, Instant, Text, rules::Rules};
use hashbrown::{HashMap, HashSet};
use rusqlite::{Connection, params};

pub(crate) use self::tasks::Enqueueing;
use self::{chores::Chores, statements::Statements};
use crate::{
    config::Config,
    connection::id_secret,
    fault::{Failure, Outcome, is_damage},
    filter::IdFilter,
    ids::{Id, IdHash, Inserted, RecentIds},
    place::Place,
    queues::{QueueId, Queues, Seq},
    rows::{Entry, Spot},
};

/// The file, as its only writer sees it.
pub(crate) struct Engine<'c> {
    sql: Statements<'c>,
    rules: Rules,
    repair_limit: u32,
    queues: Queues,
    warm: Warm,
    ids: Arc<RecentIds>,
    id_hash: IdHash,
    id_filter: IdFilter,
    config: Config,
    /// The ids that this transaction has brought.
    new_ids: Vec<Inserted>,
    numbers: Numbers,
    damage: Damage,
    chores: Chores,
    /// Changes whenever another program writes to the file: as of the last commit, and of what is under
    /// way.
    version: i64,
    version_in_use: i64,
    now: Instant,
}

/// The records of tasks that will be asked for next: those at the heads of queues, to be claimed, and
/// those that are leased.
#[derive(Default)]
struct Warm {
    entries: HashMap<Seq, Entry>,
    bytes: usize,
}

/// How much memory warm records may take, in bytes. More tasks than that are read from the file when
/// they are asked for.
const WARM_BYTES: usize = 64 << 20;

/// Numbers for tasks and their moves, in order, each given out once. They are reserved in the file in
/// blocks, so that it need not be written for each.
struct Numbers {
    next: i64,
    reserved: i64,
}

const BLOCK: i64 = 1 << 16;

/// How many tasks each queue has in each place.
type Counted = HashMap<QueueId, [u64; Place::COUNT]>;

impl<'c> Engine<'c> {
    pub(crate) fn new(
        db: &'c Connection,
        config: &Config,
        context: &Context,
        ids: Arc<RecentIds>,
    ) -> rusqlite::Result<Engine<'c>> {
        let mut engine = Engine {
            sql: Statements::prepare(db)?,
            rules: context.rules,
            repair_limit: context.repair_limit.max(1),
            queues: Queues::default(),
            warm: Warm::default(),
            ids,
            id_hash: IdHash::default(),
            id_filter: IdFilter::default(),
            config: config.clone(),
            new_ids: Vec::new(),
            numbers: Numbers { next: 1, reserved: 1 },
            damage: Damage::default(),
            chores: Chores::default(),
            version: 0,
            version_in_use: 0,
            now: Instant::now(),
        };
        engine.version = engine.data_version()?;
        engine.id_hash = IdHash::new(id_secret(db)?);
        engine.load(None)?;
        engine.load_ids()?;
        engine.filter_ids()?;
        Ok(engine)
    }

    /// Begins a group of operations, inside a transaction that has just begun.
    pub(crate) fn begin(&mut self) -> rusqlite::Result<()> {
        let version = self.data_version()?;
        self.version_in_use = version;
        if version != self.version {
            tracing::warn!("another program has written to the file: counting anew");
            let counted = self.count_all()?;
            self.load(Some(&counted))?;
            self.load_ids()?;
            self.filter_ids()?;
        }
        Ok(())
    }

    /// Begins one operation of the group.
    pub(crate) fn tick(&mut self) {
        self.now = Instant::now();
    }

    /// Ends a group of operations, before the transaction is committed.
    pub(crate) fn finish(&mut self) -> rusqlite::Result<()> {
        for id in self.queues.take_changed() {
            if self.queues.drop_if_deserted(id) {
                self.sql.drop_queue.execute([id])?;
            } else if let Some(queue) = self.queues.get(id) {
                let count = |place: Place| queue.counts[place as usize].cast_signed();
                let [ready, delayed, leased, dead, completed, failed] = Place::LISTED.map(count);
                let unreadable = count(Place::Unreadable);
                let changed = self
                    .sql
                    .change_queue
                    .execute([id, ready, delayed, leased, dead, completed, failed, unreadable])?;
                if changed == 0 {
                    self.sql.add_queue.execute(params![
                        id,
                        ready,
                        delayed,
                        leased,
                        dead,
                        completed,
                        failed,
                        unreadable,
                        queue.tenant.as_str(),
                        queue.command.as_str(),
                    ])?;
                }
            }
        }
        self.keep_chores()
    }

    /// Takes note that the transaction is committed.
    pub(crate) fn committed(&mut self) {
        self.version = self.version_in_use;
        self.new_ids.clear();
        self.chores.committed(&self.ids);
    }

    /// Forgets what the file does not know after a transaction was rolled back.
    pub(crate) fn rolled_back(&mut self) -> rusqlite::Result<()> {
        self.ids.undo(mem::take(&mut self.new_ids));
        if self.chores.rolled_back() {
            self.load_ids()?;
        }
        self.load(None)
    }

    /// Writes something, to see whether that can be done.
    pub(crate) fn probe(&mut self) -> Outcome<()> {
        self.sql.keep_meta.execute(params!["probed", self.now.0])?;
        Ok(())
    }

    /// Reads the queues, and forgets the rest of what is in memory. What was counted is believed
    /// rather than what the file says.
    fn load(&mut self, counted: Option<&Counted>) -> rusqlite::Result<()> {
        self.queues = Queues::default();
        self.warm = Warm::default();
        let mut rows = self.sql.all_queues.query([])?;
        while let Some(row) = rows.next()? {
            let mut counts = [0; Place::COUNT];
            for (index, count) in counts.iter_mut().enumerate() {
                *count = row.get::<_, i64>(3 + index)?.max(0).cast_unsigned();
            }
            let id = row.get(0)?;
            let text = |index| row.get::<_, String>(index).map(Text::from);
            let really = counted.map_or(counts, |all| all.get(&id).copied().unwrap_or_default());
            self.queues.load(id, text(1)?, text(2)?, really);
            if really != counts {
                self.queues.mark(id);
            }
        }
        drop(rows);
        // What was reserved before may have been given out.
        let reserved = self.meta("numbered")?.unwrap_or(1).max(self.numbers.reserved);
        self.numbers = Numbers { next: reserved, reserved };
        self.chores.load(&mut self.sql)
    }

    /// Counts the tasks of every queue. Costs a look at each task.
    fn count_all(&mut self) -> rusqlite::Result<Counted> {
        let mut counted = Counted::new();
        let mut rows = self.sql.count_all.query([])?;
        while let Some(row) = rows.next()? {
            let place = Place::of_number(row.get(1)?).unwrap_or(Place::Unreadable);
            counted.entry(row.get(0)?).or_default()[place as usize] +=
                row.get::<_, i64>(2)?.cast_unsigned();
        }
        Ok(counted)
    }

    /// Reads the ids of the tasks that are not in the table of ids yet.
    fn load_ids(&mut self) -> rusqlite::Result<()> {
        let from = self.meta("indexed")?.unwrap_or(0);
        let mut recent = HashMap::new();
        let mut rows = self.sql.ids_from.query([from])?;
        while let Some(row) = rows.next()? {
            // An id that cannot be read cannot be asked for either.
            if let Ok(id) = row.get_ref(0)?.as_str() {
                recent.insert(Id::of(id), row.get(1)?);
            }
        }
        self.ids.replace(recent);
        Ok(())
    }

    /// Starts over with the filter of the ids that are in the table.
    fn filter_ids(&mut self) -> rusqlite::Result<()> {
        let is_empty = self.sql.any_id.query([])?.next()?.is_none();
        if is_empty {
            self.id_filter = IdFilter::empty();
        } else {
            self.id_filter = IdFilter::default();
            self.make_id_filter();
        }
        Ok(())
    }

    fn make_id_filter(&mut self) {
        let count = self.queues.tasks() + self.chores.left_behind();
        self.id_filter.make(&self.config, count);
    }

    fn meta(&mut self, name: &str) -> rusqlite::Result<Option<i64>> {
        read_meta(&mut self.sql, name)
    }

    fn data_version(&mut self) -> rusqlite::Result<i64> {
        self.sql.data_version.query_row([], |row| row.get(0))
    }

    /// The next number, for a task or a move.
    fn number(&mut self) -> rusqlite::Result<i64> {
        if self.numbers.next >= self.numbers.reserved {
            self.numbers.reserved = self.numbers.next + BLOCK;
            self.sql.keep_meta.execute(params!["numbered", self.numbers.reserved])?;
        }
        self.numbers.next += 1;
        Ok(self.numbers.next - 1)
    }

    /// The number of the task with an id.
    fn seq(&mut self, id: &str) -> rusqlite::Result<Option<Seq>> {
        self.seq_of(id, &Id::of(id))
    }

    /// The same, of an id that is in its form for the memory already.
    fn seq_of(&mut self, id: &str, short: &Id) -> rusqlite::Result<Option<Seq>> {
        if let Some(seq) = self.ids.find(short) {
            return Ok(Some(seq));
        }
        let hash = self.id_hash.of(id);
        if !self.id_filter.may_have(hash) {
            return Ok(None);
        }
        let mut rows = self.sql.find_id.query(params![hash, id])?;
        rows.next()?.map(|row| row.get(0)).transpose()
    }

    /// Takes a task's record out of memory, or reads it.
    fn take(&mut self, seq: Seq) -> Outcome<Option<Entry>> {
        if let Some(entry) = self.warm.take(seq) {
            return Ok(Some(entry));
        }
        self.damage.check(seq)?;
        let read = read_task(&mut self.sql, &self.queues, seq);
        read.inspect_err(|failure| self.damage.was_met(seq, failure))
    }

    /// Whether the transaction has failed for damage that it has met for the first time: run again, it
    /// will get by.
    pub(crate) fn has_met_damage(&mut self) -> bool {
        mem::take(&mut self.damage.is_new)
    }

    /// Takes the record of the task with an id.
    fn take_by_id(&mut self, id: &str) -> Outcome<Entry> {
        let missing = || codeq_plugin::rules::not_found(id);
        let seq = self.seq(id)?.ok_or_else(missing)?;
        let entry = self.take(seq)?.filter(|entry| entry.task.id == id);
        Ok(entry.ok_or_else(missing)?)
    }

    /// Keeps a record in memory if it will be asked for next; answers with the task.
    fn keep(&mut self, entry: Entry) -> codeq_plugin::Boxed<codeq_plugin::Task> {
        if self.is_next(&entry.at) && self.warm.has_room() {
            let task = entry.task.clone();
            self.warm.put(entry);
            return task;
        }
        entry.task
    }

    fn is_next(&self, at: &Spot) -> bool {
        match at.place {
            Place::Leased => true,
            Place::Ready => self.queues.is_known(at.queue, at.position),
            _ => false,
        }
    }
}

fn read_meta(sql: &mut Statements<'_>, name: &str) -> rusqlite::Result<Option<i64>> {
    let mut rows = sql.read_meta.query([name])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

fn read_task(sql: &mut Statements<'_>, queues: &Queues, seq: Seq) -> Outcome<Option<Entry>> {
    let mut rows = sql.read_task.query([seq])?;
    match rows.next()? {
        Some(row) => Ok(Some(read_entry(queues, row)?)),
        None => Ok(None),
    }
}

fn read_entry(queues: &Queues, row: &rusqlite::Row<'_>) -> Result<Entry, Error> {
    let queue = row.get::<_, QueueId>(2).ok().and_then(|id| queues.get(id));
    let tenant = queue.map(|queue| queue.tenant.clone()).unwrap_or_default();
    let entry = Entry::read(row, tenant)?;
    match queue {
        Some(_) => Ok(entry),
        None => Err(Error::corrupt(format!(
            "task {} (seq {} in the file) cannot be read: its queue {} is not there",
            entry.task.id, entry.at.seq, entry.at.queue
        ))),
    }
}

/// Where the file is damaged. A transaction that has met damage cannot write any more; so what was met
/// is remembered, and the transaction is run again without a look at it.
#[derive(Default)]
struct Damage {
    tasks: HashSet<Seq>,
    /// Some record of those that are read ahead.
    is_ahead: bool,
    /// There is more than when this was last asked.
    is_new: bool,
}

impl Damage {
    fn was_met(&mut self, seq: Seq, failure: &Failure) {
        if matches!(failure, Failure::Broken(error) if is_damage(error)) {
            self.is_new |= self.tasks.insert(seq);
        }
    }

    fn was_met_ahead(&mut self, error: &rusqlite::Error) {
        if is_damage(error) {
            self.is_new |= !self.is_ahead;
            self.is_ahead = true;
        }
    }

    fn check(&self, seq: Seq) -> Result<(), Error> {
        if self.tasks.contains(&seq) {
            return Err(Error::corrupt(format!(
                "task {seq} of the file lies on a damaged page: restore a backup, or recover what can be \
                 read (sqlite3 .recover)"
            )));
        }
        Ok(())
    }
}

impl Warm {
    fn take(&mut self, seq: Seq) -> Option<Entry> {
        let entry = self.entries.remove(&seq)?;
        self.bytes -= Warm::size(&entry);
        Some(entry)
    }

    fn put(&mut self, entry: Entry) {
        self.take(entry.at.seq);
        self.bytes += Warm::size(&entry);
        self.entries.insert(entry.at.seq, entry);
    }

    fn has_room(&self) -> bool {
        self.bytes < WARM_BYTES
    }

    /// About how many bytes an entry takes: its longest text, and some for the rest.
    fn size(entry: &Entry) -> usize {
        512 + entry.task.payload.len() + entry.task.error.len()
    }
}
