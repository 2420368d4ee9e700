//! The host and the memory plugin as another version of their sources would make them.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs, io,
    path::{Path, PathBuf},
};

use codeq_system_tests::build_in;

/// A workspace with copies of the interface, the host and the memory plugin.
///
/// It is in cargo's directory for the files of tests and stays there. What is built from it goes where
/// this test was built, so that other people's crates need not be built again.
pub(crate) struct Workspace {
    name: &'static str,
    files: Vec<(PathBuf, String)>,
}

const COPIED: [&str; 4] = ["plugin-interface", "host", "plugins/memory", "tests/conformance"];

/// Members without code. They are there for what they depend on, see [`depending_on_all`].
const EMPTY: [&str; 6] = [
    "plugins/redis",
    "tests/disk",
    "tests/disk/shim",
    "tests/servers",
    "tests/system",
    "tests/plugins/hostile",
];

impl Workspace {
    /// Copies the sources. What is built of them has the name at its end: `codeq-<name>`.
    pub(crate) fn new(name: &'static str) -> Workspace {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files: Vec<(PathBuf, String)> = ["Cargo.toml", "Cargo.lock"]
            .map(|file| (file.into(), fs::read_to_string(root.join(file)).unwrap()))
            .into();
        for member in COPIED {
            read_sources(&root, Path::new(member), &mut files).unwrap();
        }
        for member in EMPTY.map(Path::new) {
            let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).unwrap();
            let manifest = manifest.split("[[bench]]").next().unwrap_or_default();
            let manifest = manifest.replace("crate-type = ", "# ");
            files.push((member.join("Cargo.toml"), manifest));
            files.push((member.join("src/lib.rs"), "//! Nothing.".to_owned()));
        }
        files.iter_mut().for_each(|(_, text)| depending_on_all(text));
        let workspace = Workspace { name, files };
        let members: Vec<String> =
            COPIED.iter().chain(&EMPTY).map(|member| format!("{name}/{member}")).collect();
        let workspace =
            workspace.replace("Cargo.toml", "members = ", &format!("members = {members:?} # "));
        let workspace = COPIED.iter().fold(workspace, |workspace, member| {
            let path = |member: &str| format!("path = \"{member}\"");
            workspace.replace("Cargo.toml", &path(member), &path(&format!("{name}/{member}")))
        });
        workspace
            .replace("host/Cargo.toml", "name = \"codeq\"", &format!("name = \"codeq-{name}\""))
            .replace(
                "plugins/memory/Cargo.toml",
                "[lib]",
                &format!("[lib]\nname = \"codeq_memory_{name}\""),
            )
    }

    /// Replaces a text that is in a file exactly once.
    pub(crate) fn replace(mut self, file: &str, from: &str, to: &str) -> Workspace {
        let (_, text) = self.files.iter_mut().find(|(path, _)| path == Path::new(file)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "`{from}` is in {file} once");
        *text = text.replace(from, to);
        self
    }

    /// The program of the host.
    pub(crate) fn host(&self) -> PathBuf {
        self.build(&format!("codeq-{}", self.name))
    }

    /// The library of the memory plugin.
    pub(crate) fn memory(&self) -> PathBuf {
        self.build(&format!("{DLL_PREFIX}codeq_memory_{}{DLL_SUFFIX}", self.name))
    }

    fn build(&self, artifact: &str) -> PathBuf {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tmp.join("altered").join(self.name);
        for (path, text) in &self.files {
            // Cargo knows a package by its path within the workspace, and in one target directory it
            // takes those of the same path for the same.
            let is_member = path.components().count() > 1;
            let path = if is_member { Path::new(self.name).join(path) } else { path.clone() };
            write_changed(&dir.join(path), text).unwrap();
        }
        let target = tmp.parent().unwrap().to_str().unwrap();
        // Offline: the lock file has every crate that this workspace needs, and all were built before.
        let args = ["--workspace", "--lib", "--bins", "--offline", "--target-dir", target];
        build_in(&dir, &args).remove(artifact).expect(artifact)
    }
}

/// Makes a package depend on what its tests depend on, as well. With that in all members, every crate
/// has the features that it has in the real workspace, and was built with them already.
fn depending_on_all(manifest: &mut String) {
    *manifest = manifest.replace("[dev-dependencies]", "[target.'cfg(all())'.dependencies]");
}

/// Reads what a package is built from, all of which is text.
fn read_sources(root: &Path, at: &Path, files: &mut Vec<(PathBuf, String)>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(at))? {
        let entry = entry?;
        let path = at.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            files.push((path, fs::read_to_string(entry.path())?));
        } else if !COPIED.iter().any(|member| path == Path::new(member).join("tests")) {
            read_sources(root, &path, files)?;
        }
    }
    Ok(())
}

/// Leaves a file alone that is as it should be, so that cargo need not build it again.
fn write_changed(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap())?;
    fs::write(path, text)
}
