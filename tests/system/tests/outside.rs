//! Plugins that are written and built outside this workspace: from its directory, from a git
//! repository, and from what is published on a registry.
//!
//! Cargo resolves and builds these crates on its own, so it may have to reach the registry.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod author;
mod embedded;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use author::{Author, cargo, lasting, locked, root, told};
use codeq_plugin::manifest::Manifest;
use codeq_system_tests::{Host, library_dir};
use embedded::{assert_works, open};
use serde_json::{Value, json};

/// An older version of a crate that `codeq-plugin` and this workspace use as well.
const OLDER: (&str, &str) = ("fastrand", "2.3.0");

/// Lets the author have other versions and other options than this workspace.
fn go_own_ways(author: &Author) {
    let (name, version) = OLDER;
    author.adds("dependencies", &format!("{name} = \"={version}\""));
    // Nothing is optimized, neither the plugin nor the host that tries it: cargo's default, not ours.
    author.adds("profile.dev", "debug = \"line-tables-only\"");
    author.adds("profile.release", "opt-level = \"s\"\ncodegen-units = 16");
}

#[test]
fn the_first_commands_of_an_author_make_a_plugin_that_serves() {
    let author = Author::begins("heron", &["--codeq-path", root().to_str().unwrap()]);
    go_own_ways(&author);
    let said = author.cargo(&["test"]);
    for part in ["a_task_is_claimed_and_completed_once ... ok", "heron keeps the contract"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let said = author.cargo(&["test", "a_full_store", "--", "--show-output"]);
    for part in ["1 passed", "contract: not run"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let (name, version) = OLDER;
    assert_eq!(author.locked(name), [version]);
    assert!(
        !locked(root(), name).contains(&version.to_owned()),
        "this workspace has {version}, too"
    );

    author.cargo(&["build", "--release"]);
    let plugins = library_dir([author.library("release").as_path()]);
    let host = Host::start(plugins.path(), json!({ "persistenceProvider": "heron" }));
    let client = host.client();
    let id = client.create("render");
    assert_eq!(client.claim("render").expect("a task")["id"], id.as_str());
    client.complete(&id).expect(200);
    let task = client.get(&format!("/tasks/{id}")).expect(200);
    assert_eq!(task["status"], "COMPLETED", "{task}");
    assert_eq!(client.claim("render"), None);
}

#[tokio::test]
async fn a_plugin_is_built_against_a_git_repository() {
    let repository = lasting("codeq.git");
    commit_all(&repository);
    let url = format!("file://{}", repository.to_str().unwrap());
    let author = Author::begins("egret", &["--codeq-git", &url]);
    go_own_ways(&author);
    author.cargo(&["build"]);
    is_accepted("egret", &author.library("debug")).await;
}

/// Puts all sources of this workspace into a new repository. The same sources make the same commit,
/// against which crates have been built before.
fn commit_all(repository: &Path) {
    fs::remove_dir_all(repository).unwrap();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        // What a hook sets that runs these tests is about another repository.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("GIT_") {
                git.env_remove(name);
            }
        }
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "codeQ");
            git.env(format!("GIT_{role}_EMAIL"), "codeq@example.org");
            git.env(format!("GIT_{role}_DATE"), "2000-01-01T00:00:00Z");
        }
        git.arg("--git-dir").arg(repository).args(args).current_dir(root());
        told(&format!("git {}", args.join(" ")), git.output().expect("git runs")).trim().to_owned()
    };
    git(&["init", "--bare", "--initial-branch=main", repository.to_str().unwrap()]);
    git(&["--work-tree=.", "add", "--all", "."]);
    let tree = git(&["write-tree"]);
    let commit = git(&["commit-tree", &tree, "-m", "All there is"]);
    git(&["update-ref", "refs/heads/main", &commit]);
}

/// What of this workspace is published, and what is in it beside `src`.
const PUBLISHED: [&str; 3] = ["codeq-plugin", "codeq-conformance", "codeq-host"];
const BESIDE: [&str; 6] =
    ["Cargo.toml", "Cargo.toml.orig", "Cargo.lock", "LICENSE", "build.rs", ".cargo_vcs_info.json"];

#[tokio::test]
async fn a_plugin_is_built_from_published_packages() {
    let packages = package();
    let author = Author::begins("stork", &[]);
    go_own_ways(&author);
    let vendor = author.dir().join("vendor");
    fs::create_dir(&vendor).unwrap();
    for (name, package) in PUBLISHED.iter().zip(packages) {
        let root = package.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut tar = Command::new("tar");
        // Cargo goes by files' times, and those in packages are always the same: so they are new.
        tar.arg("-xmzvf").arg(package).arg("-C").arg(&vendor);
        let files = told("tar", tar.output().expect("tar runs"));
        for file in files.lines() {
            let file = file.strip_prefix(&format!("{root}/")).expect(file);
            assert!(file.starts_with("src/") || BESIDE.contains(&file), "{name} has {file} in it");
        }
        author.adds("patch.crates-io", &format!("{name} = {{ path = \"vendor/{root}\" }}"));
    }
    // The tests of the crate need the host, which thereby proves to be whole as well.
    let said = author.cargo(&["test", "--lib"]);
    assert!(said.contains("a_task_is_claimed_and_completed_once ... ok"), "{said}");
    author.cargo(&["build"]);
    is_accepted("stork", &author.library("debug")).await;
}

/// Packs what is published, as `cargo publish` uploads it.
fn package() -> [PathBuf; 3] {
    let target = lasting("packages");
    let mut cargo = cargo();
    cargo.args(["package", "--allow-dirty", "--no-verify", "--target-dir"]).arg(&target);
    cargo.args(PUBLISHED.iter().flat_map(|name| ["--package", name]));
    told("cargo package", cargo.current_dir(root()).output().unwrap());
    let file = |name| format!("{name}-{}.crate", env!("CARGO_PKG_VERSION"));
    PUBLISHED.map(|name| target.join("package").join(file(name)))
}

/// Checks that the host's program finds nothing wrong with a library, and that a store opens.
async fn is_accepted(name: &str, library: &Path) {
    let plugins = library_dir([library]);
    let copy = plugins.path().join(library.file_name().unwrap());
    let args = ["plugins", "inspect", "--json", copy.to_str().unwrap()];
    let found: Value =
        serde_json::from_str(&told(&args.join(" "), Host::run(plugins.path(), &args, &[])))
            .unwrap();
    let manifest: Manifest = serde_json::from_value(found["manifest"].clone()).unwrap();
    assert_eq!(manifest.name, name);
    assert_works(&open(plugins.path(), name, json!({})).await.unwrap()).await;
}
