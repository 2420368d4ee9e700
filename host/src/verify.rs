//! Trying whether a compiled plugin keeps the storage contract.
//!
//! The [conformance kit](codeq_conformance) does it, in processes that load the plugin just as this
//! host does. `codeq plugins verify` is its command line; [`this_crate`] is for the tests of a plugin.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use codeq_conformance::{
    Plan, Subject, agent,
    stage::{Opener, Setup},
};
use codeq_plugin::{Error, Result, boundary::InstanceBox, manifest::Manifest};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::{
    cli,
    plugins::{Loaded, OpenError, OpenOptions, Refusal, inspect},
};

/// Verifies the plugin of the crate whose test this is: builds its library, and tries it with the
/// configuration. Prints what came out.
///
/// It is the whole `main` of a test without the usual harness, because the processes that load the
/// plugin are this test, too:
///
/// ```no_run
/// // tests/contract.rs, with `harness = false` in Cargo.toml
/// fn main() -> std::process::ExitCode {
///     codeq_host::verify::this_crate(&serde_json::json!({}))
/// }
/// ```
///
/// `{dir}` in the configuration becomes a directory of its own for every store. Arguments are those of
/// `codeq plugins verify`, so `cargo test --test contract -- --rule 3` tries one rule. For a plugin
/// with a backend, [`this_crate_with`] takes them from the test. What `cargo test` passes to all tests
/// is understood, too: `cargo test NAME` runs this one only if the file that it is in has such a name.
pub fn this_crate(config: &Value) -> ExitCode {
    this_crate_with(config, &[])
}

/// As [`this_crate`], with arguments of `codeq plugins verify` that come before those of the test.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     let config = serde_json::json!({ "addr": "127.0.0.1:{port}" });
///     codeq_host::verify::this_crate_with(&config, &["--backend", "redis-server --port {port}"])
/// }
/// ```
pub fn this_crate_with(config: &Value, args: &[&str]) -> ExitCode {
    if agent::is_wanted().is_some() {
        let library = env::args_os().nth(1).map(PathBuf::from).unwrap_or_default();
        return cli::agent(&library);
    }
    cli::verify(build_library, config, args)
}

/// Builds the library of the crate that cargo runs a test of.
fn build_library() -> std::result::Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let dir = env::var_os("CARGO_MANIFEST_DIR").ok_or("this is to be run by `cargo test`")?;
    let manifest = Path::new(&dir).join("Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["build", "--lib", "--message-format=json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = command.current_dir(dir).stderr(Stdio::inherit()).output();
    let built = built.map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !built.status.success() {
        return Err("the plugin does not build".into());
    }
    let messages = built.stdout.split(|byte| *byte == b'\n');
    let files = messages
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        // A dependency may be a library of this kind, too.
        .filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(&manifest))
        .filter_map(|message| message["filenames"].as_array().cloned())
        .flatten();
    let mut libraries = files.filter_map(|path| path.as_str().map(PathBuf::from)).filter(|path| {
        path.extension().is_some_and(|extension| extension == &env::consts::DLL_SUFFIX[1..])
    });
    libraries.next().ok_or_else(|| {
        format!("{} needs `crate-type = [\"cdylib\"]` below `[lib]`", manifest.display())
    })
}

/// A plugin to be verified, held by processes that `agent` starts with the library's path as argument.
pub(crate) fn subject(
    library: &Path,
    config: Value,
    agent: impl Fn() -> Command + 'static,
) -> std::result::Result<Subject, Refusal> {
    let found = inspect(library)?;
    let library = found.path.clone();
    Ok(Subject {
        manifest: found.manifest,
        config,
        durability: None,
        backend: None,
        corrupt: None,
        agent: Box::new(move || {
            let mut command = agent();
            command.arg(&library);
            command
        }),
    })
}

/// How much is tried by default: everything, or little of it.
pub(crate) fn plan(quick: bool, seed: u64) -> Plan {
    if quick { Plan::quick(seed) } else { Plan::whole(seed) }
}

/// Opens stores as this host does, with a library that is loaded once.
struct Loader {
    plugin: Loaded,
    runtime: Runtime,
}

/// What an agent opens stores with.
pub(crate) fn opener(library: &Path) -> std::result::Result<Arc<dyn Opener>, String> {
    let plugin = Loaded::load(library);
    let plugin = plugin.map_err(|refusal| format!("{} {refusal}", refusal.code()))?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(Loader { plugin, runtime }))
}

impl Opener for Loader {
    fn manifest(&self) -> &Manifest {
        &self.plugin.manifest
    }

    fn open(&self, config: &Value, setup: &Setup) -> Result<InstanceBox> {
        let Setup { rules, repair_limit } = *setup;
        let options = OpenOptions { rules, repair_limit, ..OpenOptions::default() };
        let opened = self.runtime.block_on(self.plugin.open(config, &options));
        opened.map_err(|error| match error {
            OpenError::Plugin { error, .. } => error,
            wrong if wrong.is_configuration() => Error::invalid_config(wrong.to_string()),
            refused => Error::internal(format!("{}: {refused}", refused.code())),
        })
    }
}
