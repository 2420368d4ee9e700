//! What the tests of the whole have in common: the compiled program and plugins, a running host, and
//! clients for it.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot be set up fails"
)]

mod artifacts;
mod client;
mod host;
mod metrics;
mod providers;
mod raw;
mod receiver;

pub use artifacts::{build, build_in, codeq, library_dir, plugin, plugin_dir};
pub use client::{Answer, Client, many};
pub use host::{Host, open_files};
pub use metrics::Metrics;
pub use providers::{
    PATIENCE, PROVIDERS, Setup, on_every_provider, on_every_provider_with, start_on,
};
pub use raw::Raw;
pub use receiver::{Reaction, Received, Receiver};
