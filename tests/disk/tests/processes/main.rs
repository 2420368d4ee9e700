//! The disk under real processes: what it sees of them, how it fails them, and what power cuts leave.

#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod child;
mod faults;
mod power_cuts;
mod sqlite;
mod storm;
mod tracing;
