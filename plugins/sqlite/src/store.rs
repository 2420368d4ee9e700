//! The store itself: opening it, asking after it, closing it.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use codeq_plugin::{AsyncPersistence, BackedUp, Context, Error, Result, rules::Rules};
use tokio::{
    sync::oneshot,
    task::{self, JoinHandle},
    time,
};

use crate::{
    backup,
    config::{Config, Durability},
    engine::Engine,
    fault::Outcome,
    ids::RecentIds,
    readers::{Readers, View},
    sync::Syncer,
    writer::{Work, Writer},
};

/// A store in an SQLite file.
pub struct Sqlite {
    writer: Arc<Writer>,
    readers: Readers,
    rules: Rules,
    config: Config,
    /// Where the tasks begin whose retention was not looked at yet.
    unlooked: Arc<AtomicI64>,
    /// Which file it was when it was opened.
    file: (u64, u64),
    /// See [`keep_a_timer`].
    timer: JoinHandle<()>,
}

impl Sqlite {
    /// Has something written.
    pub(crate) async fn write<A: Send + 'static>(
        &self,
        run: impl FnMut(&mut Engine<'_>) -> Outcome<A> + Send + 'static,
    ) -> Result<A> {
        self.answer(self.writer.submit(run)).await
    }

    /// Has something written that comes as more than a function.
    pub(crate) async fn hand_in<A>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<A>>) -> Box<dyn Work>,
    ) -> Result<A> {
        let (reply, receiver) = oneshot::channel();
        self.writer.hand_in(work(reply));
        self.answer(receiver).await
    }

    /// Has something read.
    pub(crate) async fn read<A: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Outcome<A> + Send + 'static,
    ) -> Result<A> {
        self.answer(self.readers.ask(read)).await
    }

    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    pub(crate) fn unlooked(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.unlooked)
    }

    async fn answer<A>(&self, receiver: oneshot::Receiver<Result<A>>) -> Result<A> {
        match time::timeout(self.config.operation_timeout(), receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                Err(Error::unavailable("the operation was interrupted; it may be tried again"))
            }
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Error {
        Error::timeout(format!(
            "{} did not answer in {} ms (operationTimeoutMs): look at the disk",
            self.config.path.display(),
            self.config.operation_timeout_ms
        ))
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// Keeps a timer that ends before the time-out of any operation does.
///
/// A runtime is woken up whenever a timer is set that ends before all others. Without this one, that
/// would be every operation of a lone caller, and cost him a tenth of it.
fn keep_a_timer(timeout: Duration) -> JoinHandle<()> {
    task::spawn(async move {
        let mut timer = time::interval(timeout / 2);
        loop {
            timer.tick().await;
        }
    })
}

impl AsyncPersistence for Sqlite {
    type Config = Config;

    async fn open(config: Config, context: Context) -> Result<Sqlite> {
        let config = config.checked()?;
        let rules = context.rules;
        let timer = keep_a_timer(config.operation_timeout());
        let opening = task::spawn_blocking(move || {
            let ids = Arc::new(RecentIds::default());
            let syncer = Syncer::start(&config)?;
            let writer = Writer::start(&config, &context, Arc::clone(&ids), Arc::clone(&syncer))
                .inspect_err(|_| syncer.close())?;
            let readers = Readers::start(&config, &ids, &syncer)?;
            let file = identity(&config.path)?;
            Ok(Sqlite {
                writer: Arc::new(writer),
                readers,
                rules,
                config,
                file,
                unlooked: Arc::default(),
                timer,
            })
        });
        opening.await.unwrap_or_else(|error| {
            Err(Error::internal("opening the file ended early").because(&error))
        })
    }

    fn durability(&self) -> Option<codeq_plugin::Durability> {
        Some(match self.config.durability {
            Durability::Disk => codeq_plugin::Durability::Disk,
            Durability::Process => codeq_plugin::Durability::Process,
        })
    }

    async fn backup(config: Config, _: Context, to: &Path) -> Result<BackedUp> {
        let to = to.to_owned();
        let writing = task::spawn_blocking(move || backup::write(config, &to));
        writing
            .await
            .unwrap_or_else(|error| Err(Error::internal("the backup ended early").because(&error)))
    }

    async fn health(&self) -> Result<()> {
        let (path, file) = (self.config.path.clone(), self.file);
        // A file that was removed or replaced takes writes, but nobody will find them.
        let found = task::spawn_blocking(move || match identity(&path)? == file {
            true => Ok(()),
            false => Err(Error::unavailable(format!(
                "{} was replaced while it was in use: put the file back, or restart the host",
                path.display()
            ))),
        });
        let found = time::timeout(self.config.operation_timeout(), found).await;
        found.map_err(|_| self.too_late())?.unwrap_or_else(|error| {
            Err(Error::internal("looking for the file ended early").because(&error))
        })?;
        self.read(|view| view.probe()).await?;
        self.write(|engine| engine.probe()).await
    }

    async fn close(&self) -> Result<()> {
        self.readers.close();
        let writer = Arc::clone(&self.writer);
        let closing = task::spawn_blocking(move || writer.close());
        closing.await.map_err(|error| Error::internal("closing ended early").because(&error))
    }
}

/// How a file is told from another of the same name.
fn identity(path: &Path) -> Result<(u64, u64)> {
    let metadata = path.metadata().map_err(|error| {
        Error::unavailable(format!("{} cannot be found any more", path.display())).because(&error)
    })?;
    Ok((metadata.dev(), metadata.ino()))
}

/// How long one step of a long operation may keep others waiting, at most: that of so many tasks.
pub(crate) const STEP: usize = 64;
