//! The lock, the trace and the faults, all of which the test has a hand in.

use std::{
    env,
    ffi::{CString, OsString, c_int},
    io,
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    ptr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use codeq_test_disk::wire::{
    CONTROL, DIR_VARIABLE, Event, GATE, STATE_VARIABLE, TRACE, UNLIMITED, What, Word,
};
use libc::{LOCK_EX, LOCK_SH, LOCK_UN, O_CLOEXEC, O_RDWR, off_t};

use crate::{
    place::Place,
    raw::{self, Answer},
};

/// The layer of this process.
pub(crate) struct Layer {
    /// The directory that it is under.
    pub(crate) root: PathBuf,
    control: c_int,
    trace: c_int,
    gate: c_int,
    words: &'static [AtomicU64; Word::COUNT],
    // Threads of a process share its lock of the file.
    threads: Mutex<()>,
}

/// Whether this is a process that was forked and has not become a program of its own. Its locks may be
/// held by threads that it does not have.
static FORKED: AtomicBool = AtomicBool::new(false);

impl Layer {
    /// The layer, if there is to be one in this process.
    pub(crate) fn get() -> Option<&'static Layer> {
        static LAYER: OnceLock<Option<Layer>> = OnceLock::new();
        if FORKED.load(Relaxed) {
            return None;
        }
        LAYER.get_or_init(Layer::open).as_ref()
    }

    fn open() -> Option<Layer> {
        let root = env::var_os(DIR_VARIABLE)?.into();
        let state = PathBuf::from(env::var_os(STATE_VARIABLE)?);
        let [control, trace, gate] = [CONTROL, TRACE, GATE].map(|name| {
            let path = state.join(name).into_os_string();
            open(path).unwrap_or_else(|error| give_up("its files cannot be opened", error))
        });
        let (size, access) = (Word::COUNT * 8, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the system chooses where.
        let at = unsafe { raw::mmap(ptr::null_mut(), size, access, libc::MAP_SHARED, control, 0) };
        let at = raw::answer(at)
            .unwrap_or_else(|error| give_up("its control file cannot be mapped", error));
        // SAFETY: so much is mapped there, and stays; it begins at a page.
        let words = unsafe { &*ptr::with_exposed_provenance(at as usize) };
        extern "C" fn forked() {
            FORKED.store(true, Relaxed);
        }
        // SAFETY: what is called does nothing but set a flag.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        Some(Layer { root, control, trace, gate, words, threads: Mutex::new(()) })
    }

    /// Waits for this thread's turn: nobody else does anything to the files while it has it.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock(self.control, LOCK_EX);
        let turn = Turn { layer: self, _threads: threads };
        if turn.get(Word::Busy) != 0 {
            // Who had the lock was killed, and did or did not do something that is not in the trace.
            turn.append(|moment| {
                Event::found(moment, &self.root).unwrap_or_else(|error| {
                    give_up("the directory cannot be read", error.raw_os_error().unwrap_or(0))
                })
            });
        }
        turn.set(Word::Busy, 1);
        turn
    }

    /// Goes through the gate of all syncs, which waits while the test holds it.
    pub(crate) fn pass_gate(&self) {
        self.lock(self.gate, LOCK_SH);
        self.lock(self.gate, LOCK_UN);
    }

    fn lock(&self, fd: c_int, operation: c_int) {
        if let Err(error) = raw::flock(fd, operation) {
            give_up("its files cannot be locked", error);
        }
    }
}

/// A thread's turn.
pub(crate) struct Turn<'a> {
    layer: &'a Layer,
    _threads: MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Whether syncs fail now.
    pub(crate) fn syncs_fail(&self) -> bool {
        self.get(Word::FailSyncs) != 0
    }

    /// Fails if writes do now.
    pub(crate) fn may_write(&self) -> Answer<()> {
        if self.get(Word::FailWrites) == 0 { Ok(()) } else { Err(libc::EIO) }
    }

    /// As far as a file of a size can grow that is to end there. Fails if it has to grow and cannot
    /// at all.
    pub(crate) fn room(&self, size: u64, end: u64) -> Answer<u64> {
        match self.get(Word::Free) {
            0 if end > size => Err(libc::ENOSPC),
            free => Ok(end.min(size.saturating_add(free))),
        }
    }

    /// A file has become larger or smaller.
    pub(crate) fn resized(&self, from: u64, to: u64) {
        let free = self.get(Word::Free);
        if free != UNLIMITED {
            self.set(Word::Free, (free.saturating_add(from)).saturating_sub(to));
        }
    }

    /// Writes down what happened to a file.
    pub(crate) fn record(&self, place: &Place, what: What) {
        let Place { path, inode, .. } = place;
        self.append(|moment| Event { moment, inode: *inode, path: path.clone(), what });
    }

    /// A number that no other sync has.
    pub(crate) fn next_sync(&self) -> u64 {
        self.get(Word::Length)
    }

    fn append(&self, event: impl FnOnce(u64) -> Event) {
        let event = event(moment()).encode();
        let length = self.get(Word::Length);
        let mut rest = event.as_slice();
        let mut at = length as off_t;
        while !rest.is_empty() {
            match raw::pwrite(self.layer.trace, rest, at) {
                Ok(written) => {
                    rest = &rest[written as usize..];
                    at += written;
                }
                Err(error) => give_up("there is no room for the trace", error),
            }
        }
        // Only now it counts.
        self.set(Word::Length, length + event.len() as u64);
    }

    fn get(&self, word: Word) -> u64 {
        self.layer.words[word as usize].load(Relaxed)
    }

    fn set(&self, word: Word, value: u64) {
        self.layer.words[word as usize].store(value, Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.set(Word::Busy, 0);
        self.layer.lock(self.layer.control, LOCK_UN);
    }
}

fn open(path: OsString) -> Answer<c_int> {
    let path = CString::new(path.into_vec()).map_err(|_| libc::EINVAL)?;
    raw::openat(raw::HERE, &path, O_RDWR | O_CLOEXEC, 0)
}

/// The moment, by a clock that all processes share.
fn moment() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Ends the process: a test that goes on without its disk would prove nothing.
fn give_up(what: &str, error: c_int) -> ! {
    let error = io::Error::from_raw_os_error(error);
    let text = format!("the disk for tests: {what}: {error}\n");
    let _ = raw::write(libc::STDERR_FILENO, text.as_bytes());
    // SAFETY: it may be called by anybody.
    unsafe { libc::abort() }
}
