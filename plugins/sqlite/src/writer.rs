//! The only thread that writes, and how operations get there and back.
//!
//! Operations of all callers wait in one inbox. The writer takes all that wait, runs them in one
//! transaction and commits it once. While that group is synced to the disk, by a second thread, the
//! next one gathers and runs; so groups form by themselves, without a timer, and a lone caller waits
//! for nobody. An operation is answered when its group is on the disk.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use codeq_plugin::{Context, Error, Result};
use rusqlite::{Connection, ErrorCode, Statement, config::DbConfig};
use tokio::sync::oneshot;

use crate::{
    config::Config,
    connection::{self, CHECKPOINT_PAGES},
    engine::Engine,
    fault::{Failure, Outcome, fault, is_damage},
    ids::RecentIds,
    ownership::Ownership,
    schema,
    sync::{Group, Syncer},
};

/// The way to the writer.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

struct Inbox {
    work: Vec<Box<dyn Work>>,
    is_open: bool,
}

/// An operation on its way.
pub(crate) trait Work: Send {
    /// Runs it inside a transaction. It may be run again if that is rolled back.
    ///
    /// # Errors
    ///
    /// What went wrong in SQLite. What the rules refuse is an answer.
    fn run(&mut self, engine: &mut Engine<'_>) -> rusqlite::Result<()>;
    /// Answers whoever asked.
    fn answer(self: Box<Self>);
    /// Tells whoever asked that it did not happen.
    fn fail(self: Box<Self>, error: Error);
    /// Whether somebody still waits for the answer. What nobody waits for is left: whoever has given up
    /// was told that it may or may not happen, and may have asked again.
    fn is_awaited(&self) -> bool;
}

struct Job<F, A> {
    run: F,
    answer: Option<Result<A>>,
    reply: oneshot::Sender<Result<A>>,
}

impl<F, A> Work for Job<F, A>
where
    F: FnMut(&mut Engine<'_>) -> Outcome<A> + Send,
    A: Send,
{
    fn run(&mut self, engine: &mut Engine<'_>) -> rusqlite::Result<()> {
        self.answer = Some(match (self.run)(engine) {
            Ok(answer) => Ok(answer),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Broken(error)) => return Err(error),
        });
        Ok(())
    }

    fn answer(self: Box<Self>) {
        let answer = self.answer.unwrap_or_else(|| Err(Error::internal("it was not run")));
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }

    fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }
}

impl Writer {
    /// Opens the file, and starts the threads that write to it.
    ///
    /// # Errors
    ///
    /// Why the file cannot be used.
    pub(crate) fn start(
        config: &Config,
        context: &Context,
        ids: Arc<RecentIds>,
        syncer: Arc<Syncer>,
    ) -> Result<Writer> {
        let lock = config.beside("-host");
        let ownership = Ownership::take(&config.path, &lock, config.open_timeout())?;
        let logged = Arc::default();
        let mut db = connection::writer(config, &logged)?;
        schema::prepare(&mut db, &config.path)?;
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox { work: Vec::new(), is_open: true }),
            arrived: Condvar::new(),
        });
        let room = Room {
            shared: Arc::clone(&shared),
            config: config.clone(),
            context: context.clone(),
            ids,
            syncer,
            logged,
        };
        let (opened, wait) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("codeq-sqlite-w".into()).spawn(move || {
            room.live(db, ownership, opened);
        });
        let thread = thread.map_err(|error| {
            Error::unavailable("cannot start the thread that writes").because(&error)
        })?;
        let told = wait.recv();
        told.unwrap_or_else(|_| Err(Error::internal("the thread that writes ended at once")))?;
        Ok(Writer { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Has an operation run in the next group. The answer comes when it is as durable as the store
    /// promises.
    pub(crate) fn submit<A: Send + 'static>(
        &self,
        run: impl FnMut(&mut Engine<'_>) -> Outcome<A> + Send + 'static,
    ) -> oneshot::Receiver<Result<A>> {
        let (reply, receiver) = oneshot::channel();
        self.hand_in(Box::new(Job { run, answer: None, reply }));
        receiver
    }

    /// Has an operation run in the next group.
    pub(crate) fn hand_in(&self, work: Box<dyn Work>) {
        let mut inbox = self.shared.inbox();
        if !inbox.is_open {
            drop(inbox);
            return work.fail(Error::closed());
        }
        inbox.work.push(work);
        // A writer that is at work looks into the inbox anyway.
        if inbox.work.len() == 1 {
            drop(inbox);
            self.shared.arrived.notify_one();
        }
    }

    /// Lets the writer finish what was asked of it, and waits for its end.
    pub(crate) fn close(&self) {
        self.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic in it was told already.
            let _ = thread.join();
        }
    }

    fn stop(&self) {
        self.shared.inbox().is_open = false;
        self.shared.arrived.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever drops a store does not wait for it.
        self.stop();
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the writer does when nothing has been asked for a while.
#[derive(Clone, Copy, PartialEq)]
enum Idle {
    /// There was work just now.
    Fresh,
    /// Chores are done; the log may have to be copied into the file.
    Tidy,
    /// There is nothing left to do.
    Asleep,
}

/// How long nothing has to be asked before chores are done, and before the log is copied.
const BREATH: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_secs(1);

/// What is there when the writer wakes up.
enum Turn {
    Work(Vec<Box<dyn Work>>),
    Nothing,
    Closed,
}

/// All that the writer's thread has.
struct Room {
    shared: Arc<Shared>,
    config: Config,
    context: Context,
    ids: Arc<RecentIds>,
    syncer: Arc<Syncer>,
    /// How many pages are in the log.
    logged: Arc<AtomicU32>,
}

impl Room {
    /// The writer's life: groups, until the store is closed. When the file or this code fails in a way
    /// that leaves doubt, everything is opened anew.
    fn live(
        self,
        db: Connection,
        ownership: Ownership,
        opened: std::sync::mpsc::SyncSender<Result<()>>,
    ) {
        let mut db = Some(db);
        let mut opened = Some(opened);
        let mut told = String::new();
        loop {
            let began = Instant::now();
            let result = match db.take() {
                Some(db) => Ok(db),
                None => connection::writer(&self.config, &self.logged),
            };
            let lived = result.and_then(|db| {
                let broken = |error| fault(&error, &self.config.path);
                let mut desk = Desk::open(&self, &db).map_err(broken)?;
                if let Some(opened) = opened.take() {
                    // The other end waits for exactly this.
                    let _ = opened.send(Ok(()));
                }
                let lived = catch_unwind(AssertUnwindSafe(|| desk.work_until_closed()));
                lived.unwrap_or_else(|_| {
                    Err(Error::internal("the thread that writes panicked; it starts anew"))
                })
            });
            let Err(error) = lived else { break };
            self.syncer.doubt();
            if let Some(opened) = opened.take() {
                let _ = opened.send(Err(error));
                break;
            }
            // The same fault is told again only if it has worked for a while.
            if told != error.to_string() || began.elapsed() > REST {
                told = error.to_string();
                tracing::error!("{told}");
            }
            // Until it works again, everybody is told why it does not.
            match self.wait(BREATH) {
                Turn::Work(work) => work.into_iter().for_each(|work| work.fail(error.clone())),
                Turn::Nothing => {}
                Turn::Closed => break,
            }
        }
        self.syncer.close();
        // Whoever asked in the meantime hears that it is over.
        let rest = {
            let mut inbox = self.shared.inbox();
            inbox.is_open = false;
            std::mem::take(&mut inbox.work)
        };
        rest.into_iter().for_each(|work| work.fail(Error::closed()));
        drop(ownership);
    }

    fn wait(&self, patience: Duration) -> Turn {
        let mut inbox = self.shared.inbox();
        if inbox.work.is_empty() && inbox.is_open {
            let waited = self.shared.arrived.wait_timeout(inbox, patience);
            inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if !inbox.work.is_empty() {
            return Turn::Work(std::mem::take(&mut inbox.work));
        }
        if inbox.is_open { Turn::Nothing } else { Turn::Closed }
    }
}

/// The open file, and what is needed to run a group on it.
struct Desk<'c> {
    room: &'c Room,
    db: &'c Connection,
    engine: Engine<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    idle: Idle,
    /// How many pages the log may have before it is copied into the file.
    log_limit: u32,
    /// Whether the last try to copy it failed.
    is_log_stuck: bool,
    /// Whether chores are left until everything is opened anew, since one of them met damage in the file.
    without_chores: bool,
    /// What the log was last told to be wrong, while it is.
    trouble: Option<String>,
}

/// What became of a group.
enum Ran {
    /// It is committed; whether it has written anything.
    Committed(bool),
    /// It is rolled back.
    Broken(rusqlite::Error),
}

impl<'c> Desk<'c> {
    fn open(room: &'c Room, db: &'c Connection) -> rusqlite::Result<Desk<'c>> {
        Ok(Desk {
            room,
            db,
            engine: Engine::new(db, &room.config, &room.context, Arc::clone(&room.ids))?,
            begin: db.prepare("BEGIN IMMEDIATE")?,
            commit: db.prepare("COMMIT")?,
            rollback: db.prepare("ROLLBACK")?,
            idle: Idle::Fresh,
            log_limit: CHECKPOINT_PAGES,
            is_log_stuck: false,
            without_chores: false,
            trouble: None,
        })
    }

    fn work_until_closed(&mut self) -> Result<()> {
        // Readers wait for this. If it fails, the first who writes hears why.
        let _ = self.restore_trust();
        // It is as good without.
        let _ = self.make_log_ahead();
        loop {
            let patience = match self.idle {
                Idle::Fresh => BREATH,
                Idle::Tidy => REST,
                Idle::Asleep => Duration::MAX,
            };
            match self.room.wait(patience) {
                Turn::Work(work) => {
                    self.idle = Idle::Fresh;
                    self.run_group(work)?;
                }
                Turn::Nothing => self.tidy_up()?,
                Turn::Closed => {
                    self.leave_in_order();
                    return Ok(());
                }
            }
        }
    }

    /// Has the log written again if it may not be on the disk.
    fn restore_trust(&mut self) -> Result<()> {
        if !self.room.syncer.is_in_doubt() {
            return Ok(());
        }
        let broken = |error| fault(&error, &self.room.config.path);
        let length = connection::log_length(self.db).map_err(broken)?;
        // While nobody else can write to it, such as a shell.
        self.begin.execute([]).map_err(broken)?;
        let restored = self.room.syncer.restore_trust(length);
        self.rollback.execute([]).map_err(broken)?;
        restored
    }

    /// Makes the log ahead, while nobody else can write to it.
    fn make_log_ahead(&mut self) -> rusqlite::Result<()> {
        self.begin.execute([])?;
        connection::make_log_ahead(&self.room.config);
        self.rollback.execute([])?;
        Ok(())
    }

    /// Runs operations in one transaction. If one of them breaks it, they are run again one by one, so
    /// that only that one fails.
    fn run_group(&mut self, mut work: Vec<Box<dyn Work>>) -> Result<()> {
        if let Err(error) = self.restore_trust() {
            work.into_iter().for_each(|work| work.fail(error.clone()));
            return Ok(());
        }
        work.retain(|work| work.is_awaited());
        let had_chores = !self.without_chores;
        match self.transact(&mut work)? {
            Ran::Committed(wrote) => {
                if wrote && self.trouble.take().is_some() {
                    tracing::info!("writing to {} works again", self.room.config.path.display());
                }
                let is_alone = self.room.shared.inbox().work.is_empty();
                self.room.syncer.settle(Group { work, wrote }, is_alone);
                self.keep_log_short();
            }
            Ran::Broken(_) if self.engine.has_met_damage() => self.run_group(work)?,
            Ran::Broken(error) if had_chores && self.without_chores => {
                let error = fault(&error, &self.room.config.path);
                tracing::error!("chores are left until the next start: {error}");
                self.run_group(work)?;
            }
            Ran::Broken(error) if work.len() > 1 && is_about_one(&error) => {
                for work in work {
                    self.run_group(vec![work])?;
                }
            }
            Ran::Broken(error) => {
                let error = fault(&error, &self.room.config.path);
                // Told once, however many ask for it.
                if self.trouble.as_deref() != Some(error.message()) {
                    tracing::error!("{error}");
                    self.trouble = Some(error.message().to_owned());
                }
                work.into_iter().for_each(|work| work.fail(error.clone()));
            }
        }
        Ok(())
    }

    fn transact(&mut self, work: &mut [Box<dyn Work>]) -> Result<Ran> {
        let before = self.db.total_changes();
        match self.try_transact(work) {
            Ok(()) => {
                self.engine.committed();
                Ok(Ran::Committed(self.db.total_changes() != before))
            }
            Err(error) => {
                self.broke(&error)?;
                Ok(Ran::Broken(error))
            }
        }
    }

    /// Leaves a transaction that has failed.
    fn broke(&mut self, error: &rusqlite::Error) -> Result<()> {
        if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
            self.room.syncer.doubt();
        }
        self.roll_back().map_err(|error| fault(&error, &self.room.config.path))
    }

    fn try_transact(&mut self, work: &mut [Box<dyn Work>]) -> rusqlite::Result<()> {
        self.begin.execute([])?;
        self.engine.begin()?;
        for work in work {
            self.engine.tick();
            work.run(&mut self.engine)?;
        }
        if !self.without_chores {
            // A full disk or a lock passes, and without chores ids would gather in memory.
            let done = self.engine.chore(false);
            done.inspect_err(|error| self.without_chores |= is_damage(error))?;
        }
        self.engine.finish()?;
        // What readers see from here on is not on the disk yet.
        self.room.syncer.commit_begins();
        let committed = self.commit.execute([]);
        if committed.is_err() {
            self.room.syncer.commit_failed();
        }
        committed.map(drop)
    }

    fn roll_back(&mut self) -> rusqlite::Result<()> {
        if !self.db.is_autocommit() {
            self.rollback.execute([])?;
        }
        self.engine.rolled_back()
    }

    fn tidy_up(&mut self) -> Result<()> {
        if self.restore_trust().is_err() {
            // Whoever reads is refused until it can be; there may be nobody who writes.
            self.idle = Idle::Tidy;
            return Ok(());
        }
        match self.idle {
            Idle::Fresh => {
                if !self.do_chores()? {
                    self.idle = Idle::Tidy;
                }
            }
            Idle::Tidy => {
                self.checkpoint("PASSIVE");
                // If the disk failed, whoever reads is waiting.
                if self.restore_trust().is_ok() {
                    self.idle = Idle::Asleep;
                }
            }
            Idle::Asleep => {}
        }
        Ok(())
    }

    /// Does a step of the chores in a transaction of its own. Answers whether there is more.
    fn do_chores(&mut self) -> Result<bool> {
        if self.without_chores {
            return Ok(false);
        }
        match self.aside(|engine| engine.chore(true)) {
            Ok(more) => {
                self.engine.committed();
                self.keep_log_short();
                Ok(more)
            }
            Err(error) => {
                // They can wait: until the disk has space again, or the other program is done.
                tracing::debug!("chores were put off: {error}");
                self.broke(&error)?;
                Ok(false)
            }
        }
    }

    /// Does something in a transaction of its own that nobody waits for.
    fn aside<A>(
        &mut self,
        run: impl FnOnce(&mut Engine<'c>) -> rusqlite::Result<A>,
    ) -> rusqlite::Result<A> {
        self.begin.execute([])?;
        self.engine.begin()?;
        let done = run(&mut self.engine)?;
        self.engine.finish()?;
        self.commit.execute([])?;
        Ok(done)
    }

    fn keep_log_short(&mut self) {
        let logged = self.room.logged.load(Ordering::Relaxed);
        if logged >= self.log_limit {
            self.checkpoint("PASSIVE");
            // As long as somebody reads what is in the log, it cannot be begun anew; then it is not worth
            // another try after every group.
            self.log_limit = logged + CHECKPOINT_PAGES;
        } else if logged < CHECKPOINT_PAGES {
            self.log_limit = CHECKPOINT_PAGES;
        }
    }

    /// Copies the log into the file. Answers whether that was done without a fault.
    fn checkpoint(&mut self, mode: &str) -> bool {
        if !self.room.syncer.is_all_on_disk() {
            return false;
        }
        let done = self.db.pragma_update_and_check(None, "wal_checkpoint", mode, |_| Ok(()));
        match &done {
            Ok(()) => self.is_log_stuck = false,
            Err(error) => {
                if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
                    self.room.syncer.doubt();
                }
                // Told once, however often it is tried.
                if !std::mem::replace(&mut self.is_log_stuck, true) {
                    let error = fault(error, &self.room.config.path);
                    tracing::warn!("the log grows, it cannot be copied into the file: {error}");
                }
            }
        }
        done.is_ok()
    }

    /// Leaves a file that the next start need not mend.
    fn leave_in_order(&mut self) {
        // Everything that was answered is in the log already. Of the ids, a batch may be on its way, and
        // others have come since.
        for _ in 0..2 {
            if let Err(error) = self.aside(Engine::write_all_ids) {
                tracing::warn!("{}", fault(&error, &self.room.config.path));
                if !self.db.is_autocommit() {
                    let _ = self.rollback.execute([]);
                }
                break;
            }
            self.engine.committed();
        }
        if self.checkpoint("TRUNCATE") {
            // There is nothing in it any more, so it need not stay beside the file.
            let _ = self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
    }
}

/// Whether the operations beside the one that failed have a chance by themselves.
fn is_about_one(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
        )
    )
}
