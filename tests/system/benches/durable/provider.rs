//! The plugin that is measured: its library, its configuration, and its stores.

use std::{
    fmt::{self, Display},
    path::Path,
    time::{Duration, Instant},
};

use codeq_host::{
    Store,
    plugins::{OpenOptions, Plugins},
};
use codeq_system_tests::{build, library_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Provider {
    name: String,
    library: TempDir,
}

/// When an answer is given.
#[derive(Clone, Copy)]
pub(crate) enum Durability {
    /// When it is on disk; what a store does unless it is told otherwise.
    Disk,
    /// When it would survive this process, but not the machine. No sync hides what the rest costs.
    Process,
}

impl Provider {
    /// Builds the plugin by itself, as `make plugins` does.
    pub(crate) fn build(name: &str) -> Provider {
        let files = build(&["--lib", "-p", &format!("codeq-{name}")]);
        let library = files.iter().find(|(file, _)| file.starts_with(&library_name(name)));
        let (_, library) = library.expect("the plugin's crate makes a library to be loaded");
        Provider { name: name.into(), library: library_dir([library.as_path()]) }
    }

    /// Opens the store that is kept in `dir`.
    pub(crate) async fn open(&self, dir: &Path, durability: Durability) -> Store {
        self.open_timed(dir, durability).await.0
    }

    /// The same, and how long it took once the library was known.
    pub(crate) async fn open_timed(&self, dir: &Path, durability: Durability) -> (Store, Duration) {
        let plugins = Plugins::discover(&[self.library.path().to_owned()]);
        let (config, options) = (self.config(dir, durability), OpenOptions::default());
        let begin = Instant::now();
        let store = plugins.open(&self.name, &config, &options).await.unwrap();
        (store, begin.elapsed())
    }

    /// The one place that knows the plugins' settings.
    fn config(&self, dir: &Path, durability: Durability) -> Value {
        match (self.name.as_str(), durability) {
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
        write!(f, "{} plugin", self.name)
    }
}

fn library_name(name: &str) -> String {
    format!("{}codeq_{}.", std::env::consts::DLL_PREFIX, name.replace('-', "_"))
}
