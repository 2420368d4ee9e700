//! Connections to the file: the writer's, and those of readers.

use std::{
    ffi::c_int,
    fs::OpenOptions,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use codeq_plugin::Result;
use rusqlite::{Connection, OpenFlags, config::DbConfig, hooks::Wal};

use crate::{config::Config, fault::fault, schema};

/// The write-ahead log is copied into the file whenever it has grown by so many pages.
pub(crate) const CHECKPOINT_PAGES: u32 = 2_000;
/// How large the log gets by that, in bytes.
const LOG_AHEAD: usize = 8 << 20;
/// A log that has grown beyond this, in bytes, is made smaller again.
const LOG_BYTES: u32 = 64 << 20;

/// The connection of the only writer. It makes the file if there is none. How many pages are in the log
/// is counted with every commit.
pub(crate) fn writer(config: &Config, logged: &Arc<AtomicU32>) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut db = open(&config.path, flags, config.lock_timeout(), config.cache_megabytes)?;
    // Nothing is changed in a file of another program.
    schema::version(&db, &config.path)?;
    let logged = Arc::clone(logged);
    let set = || {
        // That a file can shrink has to be said before anything is written to it.
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        // The writer says when the log is copied: only once it is known to be on the disk.
        db.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        db.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
            logged.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))?;
        db.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))
    };
    set().map_err(|error| fault(&error, &config.path))?;
    Ok(db)
}

/// A connection that only reads.
pub(crate) fn reader(config: &Config) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    open(&config.path, flags, config.lock_timeout(), config.cache_megabytes.min(8))
}

/// Makes an empty log as large as it will get. To sync a file that grows takes a disk half as long again
/// as to sync one that is written over, since the growth has to be kept, too.
///
/// Only for the writer, and only while it has nothing in the log.
pub(crate) fn make_log_ahead(config: &Config) {
    let make = || {
        let mut log = OpenOptions::new().write(true).open(config.beside("-wal"))?;
        // Where a log ends is told by checksums, so what is behind it may be anything.
        match log.metadata()?.len() {
            0 => log.write_all(&vec![0; LOG_AHEAD]),
            _ => Ok(()),
        }
    };
    // It is as good without, and a full disk will be told of soon enough.
    if let Err(error) = make() {
        tracing::debug!("the log was not made ahead: {error}");
    }
}

/// How much of the log counts, in bytes. What is behind that is older, or was never committed.
pub(crate) fn log_length(db: &Connection) -> rusqlite::Result<u64> {
    // This copies nothing, it only tells. https://sqlite.org/pragma.html#pragma_wal_checkpoint
    let pages = db.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1))?;
    let page_size = db.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?;
    // A header of 32 bytes, and one of 24 before each page. https://sqlite.org/fileformat2.html#walformat
    Ok((32 + pages.max(0) * (24 + page_size)).cast_unsigned())
}

/// What the ids of this file are hashed with.
pub(crate) fn id_secret(db: &Connection) -> rusqlite::Result<(i64, i64)> {
    let half = |name| {
        db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, i64>(0))
    };
    Ok((half("id_secret_0")?, half("id_secret_1")?))
}

fn open(path: &Path, flags: OpenFlags, patience: Duration, megabytes: u32) -> Result<Connection> {
    // Each connection is one thread's, so SQLite need not lock it.
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| fault(&error, path))?;
    let set = || {
        db.busy_timeout(patience)?;
        // A plan that is good stays, whatever a table's statistics say.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        db.pragma_update(None, "cache_size", -i64::from(megabytes) * 1024)?;
        db.pragma_update(None, "temp_store", "MEMORY")
    };
    set().map_err(|error: rusqlite::Error| fault(&error, path))?;
    Ok(db)
}
