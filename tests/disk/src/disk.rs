//! The test's hands on the layer in a running process.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{FlockOperation, flock},
    time::{ClockId, clock_gettime},
};
use tempfile::TempDir;

use crate::{
    Event, Trace,
    library::library,
    wire::{CONTROL, DIR_VARIABLE, GATE, STATE_VARIABLE, TRACE, UNLIMITED, Word},
};

/// This moment, in nanoseconds of `CLOCK_MONOTONIC`, which is the same in all processes.
pub fn moment() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the clock began at 0");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("a part of a second")
}

/// The disk under a directory. The faults that it has act on all processes on it, at once.
///
/// It stays while the handle lives; processes must not outlive it.
pub struct Disk {
    root: PathBuf,
    control: Mutex<File>,
    trace: File,
    gate: File,
    // Holds these files, and the library.
    state: TempDir,
}

impl Disk {
    /// Puts a disk under a directory. What is in it now is certain.
    pub fn under(dir: &Path) -> Disk {
        let root = fs::canonicalize(dir).expect("a directory that is there");
        let state = TempDir::new().expect("a temporary directory");
        // A copy, because a test that runs beside this one may build the library again.
        fs::copy(library(), state.path().join("layer.so")).expect("room for the layer");
        let open = |name| {
            let path = state.path().join(name);
            File::options().read(true).write(true).create_new(true).open(path).expect("a file")
        };
        let [control, trace, gate] = [CONTROL, TRACE, GATE].map(open);
        control.set_len(Word::COUNT as u64 * 8).expect("room for the control file");
        let disk = Disk { root, control: Mutex::new(control), trace, gate, state };
        let turn = disk.turn();
        turn.set(Word::Free, UNLIMITED);
        turn.find();
        drop(turn);
        disk
    }

    /// The environment of a process that is to be on this disk. There may be several, one after the
    /// other or at once.
    pub fn env(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.state.path().join("layer.so").into()),
            (DIR_VARIABLE, self.root.clone().into()),
            (STATE_VARIABLE, self.state.path().into()),
        ]
    }

    /// How many bytes the files of the directory may grow from now on; without end if nothing is said.
    ///
    /// What grows no more answers `ENOSPC`, after a write in part if some of it fits. What gets smaller
    /// or is removed makes room again.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.turn().set(Word::Free, bytes.unwrap_or(UNLIMITED));
    }

    /// Whether every sync answers `EIO`, and loses what it covers: see [the crate](crate).
    pub fn fail_syncs(&self, fail: bool) {
        self.turn().set(Word::FailSyncs, fail.into());
    }

    /// Whether every write, and whatever else changes a file's content, answers `EIO`.
    pub fn fail_writes(&self, fail: bool) {
        self.turn().set(Word::FailWrites, fail.into());
    }

    /// Whether every sync waits until it is released again. A sync that waits has begun in the trace, and
    /// not ended.
    pub fn stall_syncs(&self, stall: bool) {
        let operation = if stall { FlockOperation::LockExclusive } else { FlockOperation::Unlock };
        lock(&self.gate, operation);
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        let turn = self.turn();
        if turn.get(Word::Busy) != 0 {
            // Somebody was killed in the middle of it.
            turn.find();
            turn.set(Word::Busy, 0);
        }
        let length = usize::try_from(turn.get(Word::Length)).expect("less than the memory");
        let mut bytes = vec![0; length];
        self.trace.read_exact_at(&mut bytes, 0).expect("a trace");
        drop(turn);
        Trace::read(&bytes)
    }

    /// The events so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.trace().into_events()
    }

    /// Builds in a directory, which is empty, what a power cut at a moment may leave on the disk: see
    /// [`Trace::power_cut`].
    pub fn power_cut(&self, moment: u64, seed: u64, target: &Path) {
        self.trace().power_cut(moment, seed, target);
    }

    /// The files that are not as they should be after all that the layer saw, which means that somebody
    /// changed them who is not on this disk, or in a way that the layer does not see.
    pub fn unseen(&self) -> Vec<PathBuf> {
        let trace = self.trace();
        let found = Event::found(moment(), &self.root).expect("a directory");
        trace.differences(&found)
    }

    fn turn(&self) -> Turn<'_> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        lock(&control, FlockOperation::LockExclusive);
        Turn { disk: self, control }
    }
}

/// The lock of the control file.
struct Turn<'a> {
    disk: &'a Disk,
    control: MutexGuard<'a, File>,
}

impl Turn<'_> {
    fn get(&self, word: Word) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word.offset()).expect("a control file");
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, word: Word, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), word.offset()).expect("a control file");
    }

    /// Writes down what the directory holds.
    fn find(&self) {
        let event = Event::found(moment(), &self.disk.root).expect("a directory").encode();
        let length = self.get(Word::Length);
        self.disk.trace.write_all_at(&event, length).expect("room for the trace");
        self.set(Word::Length, length + event.len() as u64);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.control, FlockOperation::Unlock);
    }
}

fn lock(file: &File, operation: FlockOperation) {
    // A signal may come between.
    while let Err(error) = flock(file, operation) {
        assert_eq!(error, rustix::io::Errno::INTR, "a file that can be locked");
    }
}
