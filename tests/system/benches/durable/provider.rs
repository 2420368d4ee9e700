//! The plugin that is measured: its configuration, and its stores.

use std::{
    fmt::{self, Display},
    path::Path,
    time::Duration,
};

use codeq_host::Store;
use serde_json::{Value, json};

use crate::plugin::Plugin;

pub(crate) struct Provider(Plugin);

/// When an answer is given.
#[derive(Clone, Copy)]
pub(crate) enum Durability {
    /// When it is on disk; what a store does unless it is told otherwise.
    Disk,
    /// When it would survive this process, but not the machine. No sync hides what the rest costs.
    Process,
}

impl Provider {
    pub(crate) fn build(name: &str) -> Provider {
        Provider(Plugin::build(name))
    }

    /// Opens the store that is kept in `dir`.
    pub(crate) async fn open(&self, dir: &Path, durability: Durability) -> Store {
        self.open_timed(dir, durability).await.0
    }

    /// The same, and how long it took once the library was known.
    pub(crate) async fn open_timed(&self, dir: &Path, durability: Durability) -> (Store, Duration) {
        self.0.open(&self.config(dir, durability)).await
    }

    /// The one place that knows the plugins' settings.
    fn config(&self, dir: &Path, durability: Durability) -> Value {
        match (self.0.name.as_str(), durability) {
            ("memory", _) => json!({}),
            (_, Durability::Disk) => json!({ "path": dir.join("codeq.db") }),
            (_, Durability::Process) => {
                json!({ "path": dir.join("codeq.db"), "durability": "process" })
            }
        }
    }
}

impl Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} plugin", self.0.name)
    }
}
