//! The host and the memory plugin as another version of their sources would make them.

use std::{
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

const MEMBERS: [&str; 3] = ["plugin-interface", "host", "plugins/memory"];

impl Workspace {
    /// Copies the sources. What is built of them has the name at its end: `codeq-<name>`.
    pub(crate) fn new(name: &'static str) -> Workspace {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files: Vec<(PathBuf, String)> = ["Cargo.toml", "Cargo.lock"]
            .map(|file| (file.into(), fs::read_to_string(root.join(file)).unwrap()))
            .into();
        for member in MEMBERS {
            read_sources(&root, Path::new(member), &mut files).unwrap();
        }
        let workspace = Workspace { name, files };
        let members = MEMBERS.map(|member| format!("{name}/{member}"));
        let workspace =
            workspace.replace("Cargo.toml", "members = ", &format!("members = {members:?} # "));
        let workspace = MEMBERS.iter().fold(workspace, |workspace, member| {
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

    /// Builds the host; answers the program.
    pub(crate) fn host(&self) -> PathBuf {
        self.build("codeq-host", &format!("codeq-{}", self.name))
    }

    /// Builds the memory plugin; answers the library.
    pub(crate) fn memory(&self) -> PathBuf {
        use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
        self.build("codeq-memory", &format!("{DLL_PREFIX}codeq_memory_{}{DLL_SUFFIX}", self.name))
    }

    fn build(&self, package: &str, artifact: &str) -> PathBuf {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tmp.join("altered").join(self.name);
        for (path, text) in &self.files {
            // Cargo knows a package by its path within the workspace, and in one target directory it
            // takes those of the same path for the same.
            let is_member = path.components().count() > 1;
            let path = if is_member { Path::new(self.name).join(path) } else { path.clone() };
            write_changed(&dir.join(path), text).unwrap();
        }
        let target = tmp.parent().unwrap();
        // Offline: the lock file has more crates than this workspace, and none that is not there.
        let args = ["-p", package, "--offline", "--target-dir", target.to_str().unwrap()];
        build_in(&dir, &args).remove(artifact).expect(artifact)
    }
}

/// Reads what a package is built from, all of which is text.
fn read_sources(root: &Path, at: &Path, files: &mut Vec<(PathBuf, String)>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(at))? {
        let entry = entry?;
        let path = at.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            files.push((path, fs::read_to_string(entry.path())?));
        } else if entry.file_name() != "tests" {
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
