//! Threads that read, each with a connection of its own: they see what is committed and wait for
//! nobody who writes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use codeq_plugin::{Error, Result};
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::{
    config::Config,
    connection,
    fault::{Failure, Outcome, fault},
    ids::{Id, IdHash, RecentIds, find_id},
    queues::Seq,
    sync::Syncer,
};

/// How many threads read.
const THREADS: usize = 2;

/// The way to the readers.
pub(crate) struct Readers {
    /// Nothing once the store is closed.
    questions: Mutex<Option<mpsc::Sender<Question>>>,
}

type Question = Box<dyn FnOnce(&mut Desk) + Send>;

/// What a reader has.
struct Desk {
    config: Config,
    ids: Arc<RecentIds>,
    syncer: Arc<Syncer>,
    db: Option<(Connection, IdHash)>,
}

/// The file, as a reader sees it at one moment.
pub(crate) struct View<'c> {
    pub(crate) db: &'c Connection,
    ids: &'c RecentIds,
    id_hash: IdHash,
}

impl View<'_> {
    /// The number of the task with an id; the task may be gone.
    pub(crate) fn seq(&self, id: &str) -> rusqlite::Result<Option<Seq>> {
        // What is in memory first: an id leaves it only once the table has it.
        if let Some(seq) = self.ids.find(&Id::of(id)) {
            return Ok(Some(seq));
        }
        let mut find = self.db.prepare_cached(find_id!())?;
        let mut rows = find.query(params![self.id_hash.of(id), id])?;
        rows.next()?.map(|row| row.get(0)).transpose()
    }
}

impl Readers {
    pub(crate) fn start(
        config: &Config,
        ids: &Arc<RecentIds>,
        syncer: &Arc<Syncer>,
    ) -> Result<Readers> {
        let (questions, asked) = mpsc::channel::<Question>();
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..THREADS {
            let asked = Arc::clone(&asked);
            let mut desk = Desk {
                config: config.clone(),
                ids: Arc::clone(ids),
                syncer: Arc::clone(syncer),
                db: None,
            };
            let thread = thread::Builder::new().name("codeq-sqlite-r".into()).spawn(move || {
                let next = || asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok(question) = next() {
                    question(&mut desk);
                }
            });
            thread.map_err(|error| {
                Error::unavailable("cannot start a thread that reads").because(&error)
            })?;
        }
        Ok(Readers { questions: Mutex::new(Some(questions)) })
    }

    /// Has something read.
    pub(crate) fn ask<A: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Outcome<A> + Send + 'static,
    ) -> oneshot::Receiver<Result<A>> {
        let (reply, receiver) = oneshot::channel();
        let question: Question = Box::new(move |desk| {
            // Whoever asked may have gone, before or after.
            if reply.is_closed() {
                return;
            }
            let answer = desk.read(read);
            desk.syncer.when_on_disk(|told| {
                let _ = reply.send(told.and(answer));
            });
        });
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(questions) = &*questions {
            // Without readers the receiver hears that its sender is gone.
            let _ = questions.send(question);
        }
        receiver
    }

    /// Lets the threads end once all that was asked is answered.
    pub(crate) fn close(&self) {
        *self.questions.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Desk {
    fn open(&self) -> Result<(Connection, IdHash)> {
        let db = connection::reader(&self.config)?;
        let secret =
            connection::id_secret(&db).map_err(|error| fault(&error, &self.config.path))?;
        Ok((db, IdHash::new(secret)))
    }

    fn read<A>(&mut self, read: impl FnOnce(&View<'_>) -> Outcome<A>) -> Result<A> {
        let (db, id_hash) = match self.db.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let view = View { db: &db, ids: &self.ids, id_hash };
        let answer = catch_unwind(AssertUnwindSafe(|| read(&view)));
        let answer = answer.unwrap_or_else(|_| {
            Err(Failure::Refused(Error::internal("reading panicked; look at the host's log")))
        });
        // A connection on which something went wrong is not used again.
        if !matches!(answer, Err(Failure::Broken(_))) {
            self.db = Some((db, id_hash));
        }
        answer.map_err(|failure| failure.into_error(&self.config.path))
    }
}
