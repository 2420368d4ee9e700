//! Looking through the plugin directories.

use std::{
    env::consts::DLL_SUFFIX,
    fs,
    path::{Path, PathBuf},
};

use codeq_plugin::manifest::Manifest;

use super::{
    Refusal, RefusalKind,
    inspect::{self, Inspected},
};

/// What there is in the plugin directories.
#[derive(Debug, Default)]
pub struct Plugins {
    /// The directories, in the order in which they were searched.
    pub dirs: Vec<PathBuf>,
    /// The plugins that can be selected, by name.
    pub found: Vec<Found>,
    /// The libraries that cannot, and why.
    pub refused: Vec<Refusal>,
    /// The plugins whose name an earlier one has.
    pub hidden: Vec<Hidden>,
}

/// A plugin that can be selected.
pub type Found = Inspected;

/// A plugin that another one of the same name hides.
#[derive(Debug)]
pub struct Hidden {
    /// What it says about itself.
    pub manifest: Manifest,
    /// Why it cannot be selected.
    pub refusal: Refusal,
}

/// Where plugins are looked for when nobody says where: beside the program, then in the places of
/// the system.
pub fn default_dirs() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("plugins")));
    let system = ["/usr/local/lib/codeq/plugins", "/usr/lib/codeq/plugins"].map(PathBuf::from);
    beside.into_iter().chain(system).collect()
}

impl Plugins {
    /// Looks through `dirs`, in their order. In a directory the order is that of the file names. The
    /// first plugin of a name wins. A directory that does not exist is one without plugins.
    pub fn discover(dirs: &[PathBuf]) -> Plugins {
        let mut plugins = Plugins { dirs: dirs.to_vec(), ..Plugins::default() };
        for dir in dirs {
            match libraries(dir) {
                Ok(paths) => paths.iter().for_each(|path| plugins.consider(path)),
                Err(refusal) => plugins.refused.push(refusal),
            }
        }
        plugins.found.sort_by(|a, b| a.manifest.name.cmp(&b.manifest.name));
        plugins
    }

    /// The plugin of a name.
    pub fn get(&self, name: &str) -> Option<&Found> {
        self.found.iter().find(|found| found.manifest.name == name)
    }

    fn consider(&mut self, path: &Path) {
        match inspect::inspect(path) {
            Err(refusal) => self.refused.push(refusal),
            Ok(inspected) => match self.get(&inspected.manifest.name) {
                None => self.found.push(inspected),
                Some(first) => {
                    let (name, first) = (inspected.manifest.name.clone(), first.path.clone());
                    let kind = RefusalKind::DuplicateName { name, first };
                    let refusal = Refusal::new(path, kind);
                    self.hidden.push(Hidden { manifest: inspected.manifest, refusal });
                }
            },
        }
    }
}

fn libraries(dir: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let unreadable = |error| Refusal::new(dir, RefusalKind::Unreadable(error));
    match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unreadable(error)),
        Ok(entries) => {
            inspect::check_dir(dir)?;
            let mut paths = Vec::new();
            for entry in entries {
                let path = entry.map_err(unreadable)?.path();
                if path.to_string_lossy().ends_with(DLL_SUFFIX) {
                    paths.push(path);
                }
            }
            paths.sort();
            Ok(paths)
        }
    }
}
