//! The memory plugin against the storage contract, a module for each group of its rules.
//!
//! The store reads the real clock. So a test that is about time asks over and over until the moment
//! has come, and what must not happen meanwhile gets a day rather than a guess.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and where"
)]

mod attempts;
mod backoff;
mod claiming;
mod completion;
mod corners;
mod delay;
mod fencing;
mod idempotency;
mod leases;
mod listing;
mod moved;
mod order;
mod records;
mod retention;
mod stats;
mod subscriptions;
mod support;
mod tenants;
mod threads;
