//! One host at a time has the file.
//!
//! The host keeps much of the file in memory, so a second one beside it would work on stale records.
//! A lock on a file beside it, which the system takes back whenever its holder ends, however that
//! happens, keeps others out; what stands in that file tells them who it is. Programs that only look,
//! such as the sqlite3 shell or a backup, do not need it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use codeq_plugin::{Error, Result};

/// The right to write to the file; it ends when this is dropped.
pub(crate) struct Ownership(#[expect(dead_code, reason = "holds the lock")] File);

/// How often a lock is tried while somebody else has it.
const RETRY: Duration = Duration::from_millis(50);

impl Ownership {
    /// Takes the lock, waiting for up to `patience` for another host to end.
    ///
    /// # Errors
    ///
    /// `Unavailable`, which names the holder.
    pub(crate) fn take(path: &Path, lock: &PathBuf, patience: Duration) -> Result<Ownership> {
        let cannot = |error: std::io::Error| {
            let message = format!(
                "cannot make {}: give the host's user write permission on its directory",
                lock.display()
            );
            Error::unavailable(message).because(&error)
        };
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock);
        let mut file = open.map_err(cannot)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(RETRY);
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    let holder = holder.trim();
                    let holder = if holder.is_empty() { "another process" } else { holder };
                    return Err(Error::unavailable(format!(
                        "{} is in use by {holder}: stop that host, or give this one a file of its own",
                        path.display()
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "process {}{}", process::id(), name())
        };
        // With a full disk nobody learns the name, but the lock holds.
        if let Err(error) = write(&mut file) {
            tracing::warn!("cannot write to {}: {error}", lock.display());
        }
        Ok(Ownership(file))
    }
}

/// The program and the machine, as far as they are known.
fn name() -> String {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let machine = machine.as_deref().map(str::trim).filter(|machine| !machine.is_empty());
    let program = program.map(|program| format!(" ({program})")).unwrap_or_default();
    let machine = machine.map(|machine| format!(" on {machine}")).unwrap_or_default();
    program + &machine
}
