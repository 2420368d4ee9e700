//! Puts faults into the source of a plugin. Belongs to the build scripts of the plugins with faults.

use std::{collections::BTreeMap, env, fs, path::Path};

use super::faults::{FAULTS, Fault};

/// The source of a plugin, by module.
pub(crate) struct Sources(BTreeMap<String, String>);

impl Sources {
    /// Reads modules from the directory `src` of the plugin in `plugins/<name>`.
    pub(crate) fn read(src: &Path, modules: &[&str]) -> Sources {
        println!("cargo::rerun-if-changed=src/faults.rs");
        println!("cargo::rerun-if-changed={}", src.display());
        let read = |module: &&str| {
            let file = format!("{module}.rs");
            let source = fs::read_to_string(src.join(&file))
                .unwrap_or_else(|error| panic!("{file} of the plugin: {error}"));
            (file, source)
        };
        Sources(modules.iter().map(read).collect())
    }

    /// Puts `to` where `from` stands, which must be there once.
    pub(crate) fn change(&mut self, file: &str, from: &str, to: &str) {
        let source = self.0.get_mut(file).unwrap_or_else(|| panic!("there is no module {file}"));
        let count = source.matches(from).count();
        assert!(count == 1, "`{from}` is in {file} {count} times, and must be there once");
        *source = source.replace(from, to);
    }

    /// Puts `to` wherever `from` stands.
    #[allow(dead_code, reason = "not every plugin needs it")]
    pub(crate) fn replace_all(&mut self, file: &str, from: &str, to: &str) {
        let source = self.0.get_mut(file).unwrap_or_else(|| panic!("there is no module {file}"));
        *source = source.replace(from, to);
    }

    /// Puts all faults in, each to sleep until it is chosen.
    pub(crate) fn put_faults(&mut self) {
        for Fault { name, changes, .. } in FAULTS {
            let faulty = format!("crate::is(\"{name}\")");
            for (file, from, to) in *changes {
                self.change(file, from, &to.replace("FAULTY", &faulty));
            }
        }
    }

    /// Writes all modules into one file, to be included in a module.
    pub(crate) fn write(&self, name: &str) {
        let module = |(file, source): (&String, &String)| {
            let module = file.trim_end_matches(".rs");
            // What the crate's root was is a module here.
            let source = source.replace("use crate::", "use super::");
            format!("pub(crate) mod {module} {{\n{source}\n}}\n")
        };
        let all: String = self.0.iter().map(module).collect();
        let out = env::var_os("OUT_DIR").unwrap_or_else(|| panic!("cargo says where"));
        fs::write(Path::new(&out).join(name), all)
            .unwrap_or_else(|error| panic!("the source cannot be written: {error}"));
    }
}
