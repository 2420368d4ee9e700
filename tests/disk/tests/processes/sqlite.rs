//! SQLite on the disk: what it promises, it keeps, and the disk finds out when it promises nothing.

use std::{io, ops::Range, path::Path};

use codeq_test_disk::{Disk, Trace};
use libc::{EIO, ENOSPC};
use rusqlite::{Connection, ErrorCode};
use tempfile::TempDir;

use crate::child::{Child, all_seen, fresh};

const FILE: &str = "numbers.db";

/// What the process does: it opens a database, and commits numbers to it, each on its own.
pub(crate) fn obey(database: &mut Option<Connection>, words: &[&str]) -> io::Result<String> {
    let result = match *words {
        ["database", mode, checkpoint] => open(mode, checkpoint == "checkpoint").map(|opened| {
            *database = Some(opened);
            String::new()
        }),
        ["commit", number] => {
            let sql = "INSERT INTO numbers VALUES (?, ?)";
            let number: usize = number.parse().unwrap();
            // Of many sizes, with more than a page in some.
            let text = "text".repeat(number * 7919 % 3000);
            let added = database.as_ref().unwrap().execute(sql, (number as i64, text));
            added.map(|added| added.to_string())
        }
        _ => panic!("{words:?}"),
    };
    result.map_err(error)
}

fn open(mode: &str, checkpoint: bool) -> rusqlite::Result<Connection> {
    let connection = Connection::open(FILE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", mode)?;
    // Often, so that power cuts meet it.
    connection.pragma_update(None, "wal_autocheckpoint", 20)?;
    if checkpoint {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
    }
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, text TEXT)",
    )?;
    Ok(connection)
}

fn error(error: rusqlite::Error) -> io::Error {
    io::Error::from_raw_os_error(match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ENOSPC,
        Some(ErrorCode::SystemIoFailure) => EIO,
        _ => panic!("{error:?}"),
    })
}

/// Numbers that were acknowledged, with the moments.
type Acknowledged = Vec<(u32, u64)>;

/// Has numbers committed as long as that succeeds. Answers the error that ended it.
fn commit(child: &mut Child, numbers: Range<u32>, acknowledged: &mut Acknowledged) -> Option<i32> {
    for number in numbers {
        match child.ask(&format!("commit {number}")) {
            Ok((moment, _)) => acknowledged.push((number, moment)),
            Err(error) => return Some(error),
        }
    }
    None
}

/// The numbers that are in the database after a power cut; nothing if it is damaged.
fn numbers(dir: &Path) -> Option<Vec<u32>> {
    let read = || -> rusqlite::Result<Vec<u32>> {
        let connection = Connection::open(dir.join(FILE))?;
        let check: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0))?;
        if check != "ok" {
            return Err(rusqlite::Error::InvalidQuery);
        }
        let tables: u32 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        if tables == 0 {
            return Ok(Vec::new());
        }
        let mut rows = connection.prepare("SELECT number FROM numbers ORDER BY number")?;
        rows.query_map((), |row| row.get(0))?.collect()
    };
    read().ok()
}

/// What became of a database in all the states that were tried.
#[derive(Debug, Default)]
struct Outcome {
    states: usize,
    /// In so many, something that was acknowledged was gone.
    lost: usize,
    /// So many could not be read.
    damaged: usize,
}

fn try_states(trace: &Trace, acknowledged: &Acknowledged) -> Outcome {
    let mut outcome = Outcome::default();
    for cut in trace.moments(0, 40, 1) {
        for seed in 0..10 {
            let left = TempDir::new().unwrap();
            trace.power_cut(cut, seed, left.path());
            outcome.states += 1;
            match numbers(left.path()) {
                Some(numbers) => {
                    let mut due = acknowledged.iter().filter(|(_, moment)| *moment <= cut);
                    outcome.lost += usize::from(!due.all(|(number, _)| numbers.contains(number)));
                }
                None => outcome.damaged += 1,
            }
        }
    }
    outcome
}

/// Commits in a mode, and tries what power cuts leave of it.
fn outcome(mode: &str) -> Outcome {
    let (_dir, disk, mut child) = fresh();
    let mut acknowledged = Acknowledged::new();
    child.done(&format!("database {mode} -"));
    assert_eq!(commit(&mut child, 0..60, &mut acknowledged), None);
    child.kill();
    all_seen(&disk);
    let outcome = try_states(&disk.trace(), &acknowledged);
    println!("{mode}: {outcome:?}");
    assert!(outcome.states > 300);
    outcome
}

#[test]
fn what_it_acknowledged_survives_if_it_is_to_sync_each_commit() {
    let Outcome { lost, damaged, .. } = outcome("FULL");
    assert_eq!([lost, damaged], [0, 0]);
}

#[test]
fn what_it_acknowledged_may_be_lost_but_nothing_damaged_if_it_is_to_sync_now_and_then() {
    let Outcome { lost, damaged, .. } = outcome("NORMAL");
    assert!(lost > 0);
    assert_eq!(damaged, 0);
}

#[test]
fn all_may_be_lost_if_it_is_not_to_sync() {
    let Outcome { lost, damaged, .. } = outcome("OFF");
    assert!(lost > 0 && damaged > 0);
}

/// Gives a disk a fault, or takes it away.
type Fault = fn(&Disk, bool);

#[test]
fn what_it_acknowledged_survives_faults_and_then_a_power_cut() {
    let (_dir, disk, mut child) = fresh();
    let mut acknowledged = Acknowledged::new();
    child.done("database FULL -");
    let faults: [(Fault, i32); 3] = [
        (|disk, on| disk.set_capacity(on.then_some(10_000)), ENOSPC),
        (Disk::fail_syncs, EIO),
        (Disk::fail_writes, EIO),
    ];
    let mut next = 0;
    for (fault, error) in faults.into_iter().cycle().take(9) {
        assert_eq!(commit(&mut child, next..next + 7, &mut acknowledged), None);
        fault(&disk, true);
        assert_eq!(commit(&mut child, next + 10..next + 100, &mut acknowledged), Some(error));
        assert_eq!(commit(&mut child, next + 100..next + 101, &mut acknowledged), Some(error));
        fault(&disk, false);
        next += 200;
    }
    child.kill();
    all_seen(&disk);
    let outcome = try_states(&disk.trace(), &acknowledged);
    assert_eq!([outcome.lost, outcome.damaged], [0, 0], "{outcome:?}");
}

/// A commit fails because it is not synced; the process is killed and another goes on. What becomes of
/// what that acknowledges?
fn after_a_failed_sync_and_a_crash(open: &str) -> Outcome {
    let (dir, disk, mut child) = fresh();
    let mut acknowledged = Acknowledged::new();
    child.done("database FULL -");
    assert_eq!(commit(&mut child, 0..5, &mut acknowledged), None);
    disk.fail_syncs(true);
    assert_eq!(commit(&mut child, 5..6, &mut acknowledged), Some(EIO));
    disk.fail_syncs(false);
    child.kill();
    let mut child = Child::start(&disk, dir.path());
    child.done(open);
    assert_eq!(commit(&mut child, 10..12, &mut acknowledged), None);
    child.kill();
    all_seen(&disk);
    try_states(&disk.trace(), &acknowledged)
}

#[test]
fn a_commit_that_failed_to_be_synced_and_is_found_after_a_crash_is_lost_with_all_that_follows_it() {
    // The log is in the cache, so it is read again; it is not on the disk, and no sync brings it there.
    assert!(after_a_failed_sync_and_a_crash("database FULL -").lost > 0);
}

#[test]
fn what_is_found_after_a_crash_is_certain_when_it_was_checkpointed() {
    let outcome = after_a_failed_sync_and_a_crash("database FULL checkpoint");
    assert_eq!([outcome.lost, outcome.damaged], [0, 0], "{outcome:?}");
}
