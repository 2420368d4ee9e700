//! When a group is on the disk, and what is answered then.
//!
//! SQLite's own `synchronous=FULL` has the writer wait for the disk at every commit. Here the
//! connection is in the mode `NORMAL`, in which a file is as consistent after a power loss, and the
//! log is synced by a thread of its own before anything is answered: the same promise, but the next
//! group runs meanwhile.

use std::{
    fs::{File, OpenOptions},
    io, mem,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use codeq_plugin::{Error, Result};

use crate::{
    config::{Config, Durability},
    writer::Work,
};

/// Operations that were committed together.
pub(crate) struct Group {
    pub(crate) work: Vec<Box<dyn Work>>,
    pub(crate) wrote: bool,
}

/// Brings what was committed to the disk, and answers.
pub(crate) struct Syncer {
    state: Mutex<State>,
    log: Log,
    /// There is a group for the thread that syncs.
    arrived: Condvar,
    /// Something was synced, or is not waiting any more.
    changed: Condvar,
    /// How many commits have begun, and how many of them are on the disk.
    begun: AtomicU64,
    synced: AtomicU64,
    /// Whether groups are synced at all.
    syncs: bool,
}

#[derive(Default)]
struct State {
    waiting: Option<Numbered>,
    is_busy: bool,
    is_closed: bool,
    trust: Trust,
    readers: Vec<Reader>,
}

/// Somebody who has read what may not be on the disk yet.
struct Reader {
    /// How many commits had begun by then.
    seen: u64,
    then: Box<dyn FnOnce(Result<()>) + Send>,
}

/// Whether what is in the log is on the disk once the log is synced.
#[derive(Clone, Copy, Default, PartialEq)]
enum Trust {
    /// The file was just opened. What an earlier host left in the log may be in the system's memory
    /// only, where a sync that failed has given it up: another sync would say that all is well, and
    /// what comes behind it would be lost with it.
    #[default]
    Opened,
    /// Everything is known to be on the disk, or on its way.
    Certain,
    /// A sync has failed, so what was committed since may or may not be on the disk.
    InDoubt,
}

/// SQLite's write-ahead log. It stays the same file for as long as the writer's connection is open.
struct Log {
    path: PathBuf,
    file: Mutex<Option<Arc<File>>>,
}

/// How much of the log is written again at once, in bytes.
const CHUNK: usize = 1 << 20;

impl Log {
    fn open(&self) -> io::Result<Arc<File>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(&self.path)?))
    }

    fn sync(&self) -> io::Result<()> {
        let file = {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            match &*file {
                Some(file) => Arc::clone(file),
                None => Arc::clone(file.insert(self.open()?)),
            }
        };
        file.sync_data()
    }

    /// Writes over its first bytes, so many, with the same, and syncs that: when a sync has failed, the
    /// system holds what it should have written for written, and no other sync would take it to the disk.
    fn write_again(&self, length: u64) -> io::Result<()> {
        // It may be another than before, if the writer had to open everything anew.
        let file = self.open()?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&file));
        let mut chunk = vec![0; CHUNK];
        let mut offset = 0;
        loop {
            let rest = usize::try_from(length - offset).map_or(CHUNK, |rest| rest.min(CHUNK));
            let read = file.read_at(&mut chunk[..rest], offset)?;
            if read == 0 {
                return file.sync_data();
            }
            file.write_all_at(&chunk[..read], offset)?;
            offset += read as u64;
        }
    }
}

/// A group, and how many commits had begun when it was committed.
struct Numbered {
    group: Group,
    number: u64,
}

impl Syncer {
    /// Starts the thread that syncs.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub(crate) fn start(config: &Config) -> Result<Arc<Syncer>> {
        let syncer = Arc::new(Syncer {
            syncs: config.durability == Durability::Disk,
            state: Mutex::default(),
            log: Log { path: config.beside("-wal"), file: Mutex::default() },
            arrived: Condvar::new(),
            changed: Condvar::new(),
            begun: AtomicU64::new(0),
            synced: AtomicU64::new(0),
        });
        if syncer.syncs {
            let this = Arc::clone(&syncer);
            let thread = thread::Builder::new().name("codeq-sqlite-s".into());
            thread.spawn(move || this.live()).map_err(|error| {
                Error::unavailable("cannot start the thread that syncs").because(&error)
            })?;
        }
        Ok(syncer)
    }

    /// Says that readers may see from now on what is not on the disk yet.
    pub(crate) fn commit_begins(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    /// Says that a commit failed, so there is nothing of it to be seen.
    pub(crate) fn commit_failed(&self) {
        self.begun.fetch_sub(1, Ordering::AcqRel);
        self.tell();
    }

    /// Brings a group to the disk and answers it; in the caller's thread if nothing else waits for the
    /// caller, else while the caller goes on.
    pub(crate) fn settle(&self, group: Group, is_alone: bool) {
        let number = self.begun.load(Ordering::Acquire);
        if !self.syncs {
            group.work.into_iter().for_each(Work::answer);
            return;
        }
        let mut state = self.state();
        let is_free = state.waiting.is_none() && !state.is_busy;
        if is_free && !group.wrote && state.trust == Trust::Certain {
            drop(state);
            self.reached(number);
            group.work.into_iter().for_each(Work::answer);
        } else if is_free && is_alone {
            state.is_busy = true;
            self.sync(state, Numbered { group, number });
        } else {
            // One group may wait while another is on its way: then a thread that wakes up late keeps
            // nobody from working, and groups still grow where the disk is slow.
            while state.waiting.is_some() && !state.is_closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting = Some(Numbered { group, number });
            self.arrived.notify_one();
        }
    }

    /// Says that the disk has failed the writer itself, so what is in the log may not be on the disk.
    pub(crate) fn doubt(&self) {
        let mut state = self.state();
        if state.trust == Trust::Certain {
            state.trust = Trust::InDoubt;
        }
    }

    /// Waits until the disk has answered for all that was committed. Answers whether it has taken it.
    ///
    /// Only then may the log be copied into the file: a power loss on the way is mended from the log.
    pub(crate) fn is_all_on_disk(&self) -> bool {
        self.at_rest().trust == Trust::Certain
    }

    /// Whether the log has to be written again before anything else is promised: the file was just
    /// opened, or the disk has failed.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.state().trust != Trust::Certain
    }

    /// Has what is in the log, that is its first bytes, so many, written and synced again.
    ///
    /// Only for the writer, outside a transaction.
    ///
    /// # Errors
    ///
    /// The disk still fails.
    pub(crate) fn restore_trust(&self, length: u64) -> Result<()> {
        let trust = self.at_rest().trust;
        self.log.write_again(length).map_err(|error| {
            let path = self.log.path.display();
            let message =
                format!("the disk does not take {path}: look at the disk, and at the system's log");
            Error::unavailable(message).because(&error)
        })?;
        if trust == Trust::InDoubt {
            tracing::info!("the disk takes what is written again");
        }
        self.state().trust = Trust::Certain;
        self.reached(self.begun.load(Ordering::Acquire));
        Ok(())
    }

    /// Does something once all that a reader can have seen by now is on the disk, so that nobody is told
    /// what a power loss could take back. It is an error if the disk did not take it.
    pub(crate) fn when_on_disk(&self, then: impl FnOnce(Result<()>) + Send + 'static) {
        let seen = self.begun.load(Ordering::Acquire);
        if !self.syncs || (seen > 0 && self.is_synced(seen)) {
            return then(Ok(()));
        }
        let mut state = self.state();
        match self.verdict(&state, seen) {
            Some(verdict) => {
                drop(state);
                then(verdict);
            }
            None => state.readers.push(Reader { seen, then: Box::new(then) }),
        }
    }

    /// Lets the thread end once everything is answered.
    pub(crate) fn close(&self) {
        self.at_rest().is_closed = true;
        self.arrived.notify_one();
        self.tell();
    }

    fn live(&self) {
        let mut state = self.state();
        loop {
            if !state.is_busy
                && let Some(group) = state.waiting.take()
            {
                state.is_busy = true;
                self.changed.notify_all();
                self.sync(state, group);
                state = self.state();
            } else if state.is_closed {
                return;
            } else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Syncs the log, whoever is busy with it, and answers.
    fn sync(&self, state: MutexGuard<'_, State>, Numbered { group, number }: Numbered) {
        let was_in_doubt = state.trust == Trust::InDoubt;
        drop(state);
        let synced = if was_in_doubt {
            Err(in_doubt())
        } else if group.wrote {
            self.log.sync().map_err(|error| in_doubt().because(&error))
        } else {
            Ok(())
        };
        if synced.is_ok() {
            self.synced.fetch_max(number, Ordering::AcqRel);
        }
        let mut state = self.state();
        state.is_busy = false;
        if synced.is_err() {
            state.trust = Trust::InDoubt;
        }
        drop(state);
        self.tell();
        match synced {
            Ok(()) => group.work.into_iter().for_each(Work::answer),
            Err(error) => {
                if !was_in_doubt {
                    tracing::error!("{error}");
                }
                group.work.into_iter().for_each(|work| work.fail(error.clone()));
            }
        }
    }

    fn reached(&self, number: u64) {
        self.synced.fetch_max(number, Ordering::AcqRel);
        self.tell();
    }

    /// Wakes those who wait for a change, and answers the readers that waited for it.
    fn tell(&self) {
        let mut state = self.state();
        let (told, waiting) = mem::take(&mut state.readers)
            .into_iter()
            .map(|reader| (self.verdict(&state, reader.seen), reader))
            .partition::<Vec<_>, _>(|(verdict, _)| verdict.is_some());
        state.readers = waiting.into_iter().map(|(_, reader)| reader).collect();
        drop(state);
        self.changed.notify_all();
        for (verdict, reader) in told {
            (reader.then)(verdict.unwrap_or(Ok(())));
        }
    }

    /// Whether somebody who has seen so many commits may tell of them; nothing while that is not known.
    fn verdict(&self, state: &State, seen: u64) -> Option<Result<()>> {
        if state.trust == Trust::InDoubt || state.is_closed {
            return Some(Err(in_doubt()));
        }
        // A commit that has begun may fail.
        let seen = seen.min(self.begun.load(Ordering::Acquire));
        let is_known = state.trust == Trust::Certain && self.is_synced(seen);
        is_known.then_some(Ok(()))
    }

    fn is_synced(&self, number: u64) -> bool {
        self.synced.load(Ordering::Acquire) >= number
    }

    /// The state once no group is on its way.
    fn at_rest(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while state.waiting.is_some() || state.is_busy {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_doubt() -> Error {
    Error::unavailable(
        "the disk did not take what was written, so what was asked may or may not have been done: look \
         at the disk, and at the system's log",
    )
}
