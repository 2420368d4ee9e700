//! Somebody who writes a plugin with nothing of this repository but what it publishes.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use codeq_system_tests::{Host, plugin_dir};
use tempfile::TempDir;

/// The root of this workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A directory that stays from test to test, for what takes long to make.
pub(crate) fn lasting(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside").join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The crate of a plugin, in a directory of its own somewhere else on this machine.
///
/// Only what is built in its `target` stays with the tests of this workspace, so that other people's
/// crates need not be built anew each time. Nothing that this workspace builds is in there.
pub(crate) struct Author {
    name: &'static str,
    dir: PathBuf,
    _outside: TempDir,
}

impl Author {
    /// Begins a plugin with `codeq plugins new`.
    pub(crate) fn begins(name: &'static str, flags: &[&str]) -> Author {
        let outside = TempDir::new().unwrap();
        let dir = outside.path().join(name);
        let args = [&["plugins", "new", name, "--dir", dir.to_str().unwrap()], flags].concat();
        told(&args.join(" "), Host::run(plugin_dir(&[]).path(), &args, &[]));
        symlink(lasting("target"), dir.join("target")).unwrap();
        Author { name, dir, _outside: outside }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds lines at the end of a section of `Cargo.toml`, which is new if it is not there.
    pub(crate) fn adds(&self, section: &str, lines: &str) {
        let path = self.dir.join("Cargo.toml");
        let manifest = fs::read_to_string(&path).unwrap();
        let head = format!("[{section}]\n");
        if manifest.contains(&head) {
            fs::write(path, manifest.replace(&head, &format!("{head}{lines}\n"))).unwrap();
        } else {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            write!(file, "\n{head}{lines}\n").unwrap();
        }
    }

    /// Runs cargo in the crate; answers what it printed.
    pub(crate) fn cargo(&self, args: &[&str]) -> String {
        told(
            &format!("cargo {}", args.join(" ")),
            cargo().args(args).current_dir(&self.dir).output().unwrap(),
        )
    }

    /// The library that `cargo build` leaves: of the profile `debug` or `release`.
    pub(crate) fn library(&self, profile: &str) -> PathBuf {
        let file = format!("{DLL_PREFIX}{}{DLL_SUFFIX}", self.name);
        self.dir.join("target").join(profile).join(file)
    }

    /// The versions of a crate in the author's lock file.
    pub(crate) fn locked(&self, name: &str) -> Vec<String> {
        locked(&self.dir, name)
    }
}

/// The versions of a crate in the lock file of a workspace.
pub(crate) fn locked(workspace: &Path, name: &str) -> Vec<String> {
    let lock = fs::read_to_string(workspace.join("Cargo.lock")).unwrap();
    let head = format!("name = \"{name}\"\nversion = \"");
    let found = lock.split(&head).skip(1);
    found.map(|after| after.split('"').next().unwrap_or_default().to_owned()).collect()
}

/// Cargo as the author has it: not told where this workspace is built, nor for what.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    cargo
}

/// What a program printed, which has to have succeeded.
pub(crate) fn told(what: &str, output: Output) -> String {
    let Output { status, stdout, stderr } = output;
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{what}: {status}\n{stdout}\n{stderr}");
    stdout
}
