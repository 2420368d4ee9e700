//! What of the disk for tests is in the process: a library that is preloaded and stands before the C
//! library's functions for files. `codeq-test-disk` says what it is for, and what it does.
//!
//! - `exports`: the functions, as C has them.
//! - `writes`, `names`, `syncs`: what they do to files under the directory.
//! - `layer`: the lock, the trace and the faults.
//! - `place`: whether a file is under the directory.
//! - `raw`: the system calls themselves.
//!
//! Nothing here may call what is interposed while it holds the lock, other than to open and read files.

// On other systems there is nothing to preload.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "it takes the place of functions of C, and calls the system")]

mod exports;
mod layer;
mod names;
mod place;
mod raw;
mod syncs;
mod writes;
