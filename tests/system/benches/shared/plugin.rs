//! A plugin as it is shipped: built by itself, loaded through its library.

use std::time::{Duration, Instant};

use codeq_host::{
    Store,
    plugins::{OpenOptions, Plugins},
};
use codeq_system_tests::{build, library_dir};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Plugin {
    pub(crate) name: String,
    library: TempDir,
}

impl Plugin {
    /// Builds the plugin as `make plugins` does.
    pub(crate) fn build(name: &str) -> Plugin {
        let files = build(&["--lib", "-p", &format!("codeq-{name}")]);
        let library = files.iter().find(|(file, _)| file.starts_with(&library_name(name)));
        let (_, library) = library.expect("the plugin's crate makes a library to be loaded");
        Plugin { name: name.into(), library: library_dir([library.as_path()]) }
    }

    /// Opens a store. Also tells how long that took once the library was known.
    pub(crate) async fn open(&self, config: &Value) -> (Store, Duration) {
        let plugins = Plugins::discover(&[self.library.path().to_owned()]);
        let begin = Instant::now();
        let store = plugins.open(&self.name, config, &OpenOptions::default()).await.unwrap();
        (store, begin.elapsed())
    }
}

fn library_name(name: &str) -> String {
    format!("{}codeq_{}.", std::env::consts::DLL_PREFIX, name.replace('-', "_"))
}
