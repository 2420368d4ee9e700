//! Plugins: discover → inspect → load → open.
//!
//! 1. [`discover`](Plugins::discover) looks through the plugin directories, in order.
//! 2. [`inspect`](inspect()) reads a library's manifest without running a line of it. What is not
//!    fit to be loaded is refused here, each with a stable code ([`Refusal::code`]).
//! 3. `load` maps exactly the bytes that were inspected, and never unmaps them.
//! 4. [`open`](Plugins::open) checks the configuration against the plugin's own schema, then lets
//!    the plugin open a store with it. [`backup`](Plugins::backup) goes the same way to a copy of what
//!    the plugin keeps.
//!
//! A refused plugin is an entry in a list. The host and the other plugins carry on.

mod backup;
mod discover;
mod inspect;
mod layout;
mod load;
mod log;
mod open;
mod refusal;

pub use backup::BackupError;
pub use discover::{Found, Hidden, Plugins, default_dirs};
pub(crate) use inspect::is_label;
pub use inspect::{Inspected, inspect};
pub(crate) use open::Loaded;
pub use open::{OpenError, OpenOptions};
pub use refusal::{Refusal, RefusalKind};
