//! The file's layout: made, brought up to date, or refused, before anything else is read.

use std::path::Path;

use codeq_plugin::{Error, Result};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::fault::fault;

/// Tells codeQ's files from those of other programs: "codQ" in ASCII.
const APPLICATION_ID: i32 = 0x636F_6451;

/// The steps that lead from an empty file to the present layout. The version of a file is how many of
/// them it has behind it. A step that was released stays as it is; a change is a step of its own.
const STEPS: &[&str] = &[include_str!("schema.sql")];

/// Makes the layout of a new file, or brings that of an older one up to date.
///
/// # Errors
///
/// `InvalidConfig` for a file of another program or of a newer version of this one; otherwise what
/// kept SQLite from reading or writing it.
pub(crate) fn prepare(db: &mut Connection, path: &Path) -> Result<()> {
    migrate(db, path, STEPS)
}

fn migrate(db: &mut Connection, path: &Path, steps: &[&str]) -> Result<()> {
    let version = version(db, path)?;
    let newest = steps.len();
    if version > newest {
        return Err(Error::invalid_config(format!(
            "{} was written by a newer version of this plugin (layout {version}; this one knows {newest}): \
             install that version, or name another file",
            path.display()
        )));
    }
    if version == newest {
        return Ok(());
    }
    let broken = |error: rusqlite::Error| fault(&error, path);
    let change = Transaction::new(db, TransactionBehavior::Immediate).map_err(broken)?;
    for step in &steps[version..] {
        change.execute_batch(step).map_err(broken)?;
    }
    change.pragma_update(None, "application_id", APPLICATION_ID).map_err(broken)?;
    change.pragma_update(None, "user_version", newest as i64).map_err(broken)?;
    change.commit().map_err(broken)
}

/// How many of the steps a file has behind it, if it is one of ours.
///
/// # Errors
///
/// `InvalidConfig` for a file of another program, `Corrupt` for one that is no database.
pub(crate) fn version(db: &Connection, path: &Path) -> Result<usize> {
    let pragma = |name: &str| {
        db.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|error| fault(&error, path))
    };
    let (id, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| fault(&error, path))?;
    let fresh = id == 0 && version == 0 && tables == 0;
    if fresh || (id == i64::from(APPLICATION_ID) && version > 0) {
        return Ok(usize::try_from(version).unwrap_or(usize::MAX));
    }
    Err(Error::invalid_config(format!(
        "{} is an SQLite database of another program ({tables} tables and indexes, application id {id}): \
         name another file",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1);";
    const SECOND: &str = "ALTER TABLE a ADD COLUMN y INTEGER; UPDATE a SET y = x + 1;";

    fn path() -> &'static Path {
        Path::new("codeq.db")
    }

    fn user_version(db: &Connection) -> i64 {
        db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_older_file_takes_the_steps_that_it_lacks() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, path(), &[FIRST]).unwrap();
        migrate(&mut db, path(), &[FIRST, SECOND]).unwrap();
        migrate(&mut db, path(), &[FIRST, SECOND]).unwrap();
        let row = db.query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(row, Ok((1, 2)));
        assert_eq!(user_version(&db), 2);
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, path(), &[FIRST]).unwrap();
        let broken = "DROP TABLE a; CREATE TABLE b (;";
        assert!(migrate(&mut db, path(), &[FIRST, SECOND, broken]).is_err());
        assert_eq!(user_version(&db), 1);
        let columns = db.query_row("SELECT * FROM a", [], |row| Ok(row.as_ref().column_count()));
        assert_eq!(columns, Ok(1));
    }

    #[test]
    fn a_newer_file_and_one_of_another_program_are_refused() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, path(), &[FIRST, SECOND]).unwrap();
        let refusal = migrate(&mut db, path(), &[FIRST]).unwrap_err().to_string();
        assert!(refusal.contains("codeq.db was written by a newer version"), "{refusal}");
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
        let refusal = prepare(&mut db, path()).unwrap_err().to_string();
        assert!(refusal.contains("of another program (1 tables"), "{refusal}");
    }

    #[test]
    fn a_new_file_gets_the_present_layout() {
        let mut db = Connection::open_in_memory().unwrap();
        prepare(&mut db, path()).unwrap();
        assert_eq!(user_version(&db), STEPS.len() as i64);
        let tasks =
            db.query_row("SELECT count(*) FROM codeq_tasks", [], |row| row.get::<_, i64>(0));
        assert_eq!(tasks, Ok(0));
    }
}
