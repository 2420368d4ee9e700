//! What goes wrong in SQLite, as the interface's errors.

use std::path::Path;

use codeq_plugin::Error;
use rusqlite::ErrorCode;

/// Why an operation did not happen.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The rules refuse it, or a record cannot be read. It has written nothing.
    Refused(Error),
    /// SQLite failed. Whatever was written since the transaction began is to be undone.
    Broken(rusqlite::Error),
}

/// What operations inside the writer answer.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Refused(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Broken(error)
    }
}

impl Failure {
    pub(crate) fn into_error(self, path: &Path) -> Error {
        match self {
            Failure::Refused(error) => error,
            Failure::Broken(error) => fault(&error, path),
        }
    }
}

/// Whether something in the file is not what SQLite wrote there.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Says what a failure of SQLite means to whoever uses the store, and what to do.
pub(crate) fn fault(error: &rusqlite::Error, path: &Path) -> Error {
    let path = path.display();
    let told = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::unavailable(format!(
            "there is no space left for {path}: free some; what was answered so far is safe"
        )),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::unavailable(format!(
            "another program has locked {path}, such as a shell in a transaction: end that"
        )),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Error::unavailable(format!(
            "{path} cannot be written: give the host's user write permission on it and its directory"
        )),
        Some(ErrorCode::CannotOpen) => Error::unavailable(format!(
            "{path} cannot be opened: check that it and its directory are there, and may be read and \
             written by the host's user"
        )),
        Some(ErrorCode::SystemIoFailure) => Error::unavailable(format!(
            "reading or writing {path} failed: look at the disk, and at the system's log"
        )),
        Some(ErrorCode::DatabaseCorrupt) => Error::corrupt(format!(
            "{path} is damaged: stop the host, keep a copy, and restore a backup or recover what can \
             be read (sqlite3 {path} .recover)"
        )),
        Some(ErrorCode::NotADatabase) => Error::corrupt(format!(
            "{path} is not an SQLite database, or a damaged one: name another file, or restore a backup"
        )),
        Some(ErrorCode::TooBig) => {
            Error::invalid_argument("a record is larger than SQLite keeps (1 GB): send less")
        }
        Some(ErrorCode::OutOfMemory) => Error::unavailable("there is no memory left for SQLite"),
        _ => Error::internal(format!("SQLite refused a statement on {path}")),
    };
    told.because(error)
}
