//! The compiled program and plugins.

use std::{
    collections::BTreeMap,
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

/// The program `codeq`.
pub fn codeq() -> &'static Path {
    &artifacts()["codeq"]
}

/// The compiled library of the plugin crate `codeq-<name>`.
pub fn plugin(name: &str) -> &'static Path {
    &artifacts()[&library(name)]
}

/// A directory that only this user may write, with these plugins in it.
pub fn plugin_dir(names: &[&str]) -> TempDir {
    library_dir(names.iter().map(|name| plugin(name)))
}

/// A directory that only this user may write, with copies of these libraries in it.
pub fn library_dir<'a>(libraries: impl IntoIterator<Item = &'a Path>) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for library in libraries {
        let copy = dir.path().join(library.file_name().unwrap());
        fs::copy(library, &copy).unwrap();
        fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

fn library(name: &str) -> String {
    format!("{DLL_PREFIX}codeq_{}{DLL_SUFFIX}", name.replace('-', "_"))
}

/// Builds with cargo as this test was built, and answers the program and the libraries that came out
/// of it, by file name.
pub fn build(args: &[&str]) -> BTreeMap<String, PathBuf> {
    build_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), args)
}

/// The same in another workspace.
pub fn build_in(workspace: &Path, args: &[&str]) -> BTreeMap<String, PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command.arg("build").args(args).arg("--message-format=json-render-diagnostics");
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output =
        command.current_dir(workspace).stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo build {args:?} failed");
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let paths = messages
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|path| path.as_str().map(PathBuf::from));
    paths
        .filter(|path| path.extension().is_none_or(|extension| DLL_SUFFIX[1..] == *extension))
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
        .collect()
}

fn artifacts() -> &'static BTreeMap<String, PathBuf> {
    static ARTIFACTS: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    ARTIFACTS.get_or_init(|| {
        if cfg!(debug_assertions) {
            // With the tests, cargo chooses the same features as for this test, and has it all built.
            build(&["--workspace", "--lib", "--bins", "--tests"])
        } else {
            build(&["--workspace", "--lib", "--bins"])
        }
    })
}
