//! A disk for tests that fills up, fails, stalls and loses its power, under the files of a real process.
//!
//! A process that is started with [`Disk::env`] has a layer under its file operations, the preloaded
//! library of the crate `codeq-disk-shim`. It writes down what the process does to the files in one
//! directory, and when; other files it leaves alone. From that the test builds what a power cut could
//! have left on a disk, at any moment and in any number of ways.
//!
//! ```no_run
//! use codeq_test_disk::{Disk, moment};
//!
//! let dir = tempfile::tempdir().unwrap();
//! let disk = Disk::under(dir.path());
//! let mut process = std::process::Command::new("a-store").envs(disk.env()).spawn().unwrap();
//! // It acknowledged something.
//! let acknowledged = moment();
//! process.kill().unwrap();
//! process.wait().unwrap();
//! let trace = disk.trace();
//! for cut in trace.moments(0, 50, 1) {
//!     for seed in 0..8 {
//!         let left = tempfile::tempdir().unwrap();
//!         trace.power_cut(cut, seed, left.path());
//!         // A store on `left` has it, if `acknowledged <= cut`.
//!     }
//! }
//! ```
//!
//! # What survives a power cut
//!
//! - **A sync is a promise about what came before it.** What was written to a file before a sync of it
//!   began is certain when that sync has ended without an error. Nothing else makes anything certain: not
//!   time, not closing the file, not `sync(2)`, `syncfs`, `sync_file_range` or `msync`.
//! - **Of everything else anything may have happened**, as the [seed](Trace::power_cut) chooses. Sectors of
//!   512 bytes are written whole and in any order; the size of a file goes its own way, too. Where a file
//!   grew and its bytes did not arrive, there are zeros. Two writes to the same sector are never there
//!   the other way round, because the system writes out what is in its cache.
//! - **A sync that failed loses what it covers.** Linux takes the pages for clean after that; a later sync
//!   that succeeds says nothing about them, unless they are written again.
//! - **A name is certain when its directory was synced**, and no sooner: a file that was made, synced and
//!   acknowledged may be gone if the directory was not synced after it was made. Most file systems are
//!   kinder. The same goes for a file that was removed, or renamed, which it is or is not, never half.
//!   A rename between directories counts for the new one. What is in a directory whose own name does not
//!   survive is gone with it.
//! - **What is mapped to be written does not survive**, be it that the file is there with zeros. The layer
//!   does not see what is written to memory.
//!
//! # What the layer does not see
//!
//! It stands before the functions of the C library. A program that makes system calls of its own goes
//! past it, which the crates rustix and tempfile do, as does the C library itself in `fopen` and what
//! belongs to it. [`Disk::unseen`] tells. What it knows no good answer for is refused, as some file systems
//! do: hard links, nameless files (`O_TMPFILE`), renaming directories, copies within the kernel,
//! and all modes of `fallocate` but the plain one. Symbolic links are not followed up: they do not survive.

#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a test that has no disk fails")]

mod disk;
mod fate;
mod library;
mod model;
mod trace;
pub mod wire;

pub use disk::{Disk, moment};
pub use trace::{Contents, EVERYTHING, NOTHING, Trace};
pub use wire::{Event, What};
