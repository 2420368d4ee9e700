//! A copy of the file, taken while a host uses it.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use codeq_plugin::{BackedUp, Error, Extensions, Result};
use rusqlite::Connection;

use crate::{config::Config, connection, fault::fault, schema};

/// Writes the state of one moment to a new file, as small as it can be.
///
/// It is written beside `to` first and gets its name once it is complete and on the disk.
///
/// # Errors
///
/// `AlreadyExists` if something is at `to`; otherwise what kept it from being written.
pub(crate) fn write(config: Config, to: &Path) -> Result<BackedUp> {
    let config = config.checked()?;
    if !config.path.exists() {
        return Err(Error::invalid_config(format!(
            "persistenceConfig.path is `{}`: there is no such file, so there is nothing to back up",
            config.path.display()
        )));
    }
    if to.exists() {
        return Err(taken(to));
    }
    let part = beside(to);
    let written = copy(&config, &part).and_then(|written| {
        put_in_place(&part, to)?;
        Ok(written)
    });
    // Nothing half-written stays behind.
    let _ = fs::remove_file(&part);
    written
}

fn copy(config: &Config, part: &Path) -> Result<BackedUp> {
    let cannot = |error: rusqlite::Error| {
        Error::unavailable(format!("the backup cannot be written to {}", part.display()))
            .because(&error)
    };
    match fs::remove_file(part) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let message = format!("what an earlier backup left at {} stays", part.display());
            return Err(Error::unavailable(message).because(&error));
        }
        _ => {}
    }
    let db = connection::reader(config)?;
    if schema::version(&db, &config.path)? == 0 {
        return Err(Error::invalid_config(format!(
            "{} is empty, so there is nothing to back up",
            config.path.display()
        )));
    }
    let name = part.to_str().ok_or_else(|| {
        Error::invalid_argument(format!("{} is not UTF-8: name another file", part.display()))
    })?;
    db.execute("VACUUM INTO ?1", [name]).map_err(cannot)?;
    let copy = Connection::open(part).map_err(cannot)?;
    let tasks: i64 = copy
        .query_row("SELECT count(*) FROM tasks", [], |row| row.get(0))
        .map_err(|error| fault(&error, part))?;
    drop(copy);
    let unsynced = |error: std::io::Error| {
        Error::unavailable(format!("the disk does not take {}", part.display())).because(&error)
    };
    let file = File::open(part).map_err(unsynced)?;
    file.sync_all().map_err(unsynced)?;
    let bytes = file.metadata().map_err(unsynced)?.len();
    Ok(BackedUp { bytes, tasks: tasks.max(0).cast_unsigned(), extensions: Extensions::new() })
}

/// Gives the finished file its name, unless something else has it by now.
fn put_in_place(part: &Path, to: &Path) -> Result<()> {
    let cannot = |error: std::io::Error| {
        Error::unavailable(format!("the backup cannot be written to {}", to.display()))
            .because(&error)
    };
    match fs::hard_link(part, to) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(taken(to)),
        // Some file systems know no second name for a file.
        Err(_) => fs::rename(part, to).map_err(cannot)?,
    }
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()).map_err(cannot)
}

fn beside(to: &Path) -> PathBuf {
    let mut part = to.to_owned().into_os_string();
    part.push(".part");
    part.into()
}

fn taken(to: &Path) -> Error {
    Error::already_exists(format!("{} is there already: name another file", to.display()))
}
