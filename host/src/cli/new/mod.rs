//! `codeq plugins new`: writes the crate of a new plugin.
//!
//! What it writes is in `template`, which is built and tested as a crate of this workspace, too. Only
//! a few words of it are filled in.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Failure, style};
use crate::plugins::is_label;

/// What the crate is made of: the path in it, and the text.
macro_rules! template {
    ($($path:literal from $file:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("template/", $file)))),*]
    };
}

const TEMPLATE: [(&str, &str); 15] = template![
    "Cargo.toml" from "Cargo.toml.in",
    "README.md" from "README.md",
    ".gitignore" from "gitignore",
    ".github/workflows/ci.yml" from "ci.yml",
    "src/lib.rs" from "src/lib.rs",
    "src/config.rs" from "src/config.rs",
    "src/config.schema.json" from "src/config.schema.json",
    "src/store.rs" from "src/store.rs",
    "src/tasks.rs" from "src/tasks.rs",
    "src/index.rs" from "src/index.rs",
    "src/keys.rs" from "src/keys.rs",
    "src/report.rs" from "src/report.rs",
    "src/list.rs" from "src/list.rs",
    "src/tests.rs" from "src/tests.rs",
    "tests/contract.rs" from "tests/contract.rs",
];

/// What the new plugin is called, and where it goes.
#[derive(Args)]
pub(super) struct NewPlugin {
    /// The name by which the plugin is selected: a-z, 0-9 and `-`, beginning with a letter.
    name: String,
    /// The directory to write into; it must be empty, or not there yet [default: NAME].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Build against codeQ's source code in this directory [default: this version on crates.io].
    #[arg(long, value_name = "DIR")]
    codeq_path: Option<PathBuf>,
    /// Build against codeQ's source code in this git repository.
    #[arg(long, value_name = "URL", conflicts_with = "codeq_path")]
    codeq_git: Option<String>,
}

/// Writes the crate, and says what to do next.
pub(super) fn run(new: &NewPlugin) -> Result<(), Failure> {
    let NewPlugin { name, dir, .. } = new;
    check_name(name)?;
    let source = Source::of(new)?;
    let dir = dir.as_deref().unwrap_or(Path::new(name));
    check_vacant(dir)?;
    let library = name.replace('-', "_");
    for (path, text) in TEMPLATE {
        let text = text
            .replace("{{dependencies}}\n", &source.to_string())
            .replace("{{rust_version}}", env!("CARGO_PKG_RUST_VERSION"))
            .replace("{{library}}", &library)
            .replace("{{name}}", name);
        let path = dir.join(path);
        write(&path, &text).map_err(|error| {
            Failure::Failed(format!("cannot write {}: {error}", path.display()))
        })?;
    }
    let file = format!("target/release/{DLL_PREFIX}{library}{DLL_SUFFIX}");
    let named = style::in_style(style::NAME, name);
    style::line(format_args!("wrote the plugin {named} into {}", dir.display()));
    style::line(format_args!("\n{}", style::in_style(style::HEADING, "next")));
    let step = |command: &str, about: &str| {
        format!("{command}\t{}", style::in_style(style::FAINT, format!("# {about}")))
    };
    style::table(&[
        step(&format!("cd {}", dir.display()), "begin with src/lib.rs"),
        step("cargo test", "its own tests, and every rule of the storage contract"),
        step("cargo build --release", &file),
        step(&format!("codeq plugins inspect {file}"), "what it says about itself"),
        format!("CODEQ_PLUGIN_PATH=target/release PERSISTENCE_PROVIDER={name} codeq serve"),
    ]);
    Ok(())
}

/// Where the new crate takes codeQ's own crates from.
enum Source<'a> {
    Registry,
    Directory(String),
    Git(&'a str),
}

impl Source<'_> {
    fn of(new: &NewPlugin) -> Result<Source<'_>, Failure> {
        match (&new.codeq_path, &new.codeq_git) {
            (Some(path), _) => directory(path).map(Source::Directory),
            (None, Some(url)) => Ok(Source::Git(url)),
            (None, None) => Ok(Source::Registry),
        }
    }

    fn key(&self, crate_dir: &str) -> String {
        match self {
            Source::Registry => format!("version = {}", quoted(env!("CARGO_PKG_VERSION"))),
            Source::Directory(path) => format!("path = {}", quoted(&format!("{path}/{crate_dir}"))),
            Source::Git(url) => format!("git = {}", quoted(url)),
        }
    }
}

/// The sections of `Cargo.toml` that name what the crate depends on.
impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Source::Directory(_) = self {
            f.write_str(
                "# Only this machine has the `path`: name a `git` repository or a `version` of\n\
                 # codeq-plugin and codeq-host instead before others build this.\n",
            )?;
        }
        writeln!(f, "[dependencies]")?;
        writeln!(f, "# The feature `async` is for stores that wait for a network or a disk.")?;
        let plugin = self.key("plugin-interface");
        writeln!(f, "codeq-plugin = {{ {plugin}, default-features = false }}")?;
        writeln!(f, "serde = {{ version = \"1\", features = [\"derive\"] }}")?;
        writeln!(f, "\n[dev-dependencies]")?;
        writeln!(f, "codeq-host = {{ {} }}", self.key("host"))?;
        writeln!(f, "serde_json = \"1\"\n")
    }
}

/// A text as TOML writes it; its escapes are those of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The absolute path of codeQ's source code.
fn directory(path: &Path) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let message =
            format!("--codeq-path: {} {why}; name the root of codeQ's source code", path.display());
        Err(Failure::Wrong(message))
    };
    if !["plugin-interface", "host"].iter().all(|part| path.join(part).join("Cargo.toml").is_file())
    {
        return wrong("does not hold plugin-interface/Cargo.toml and host/Cargo.toml");
    }
    match path.canonicalize().map(PathBuf::into_os_string).map(|path| path.into_string()) {
        Ok(Ok(path)) => Ok(path),
        Ok(Err(_)) => wrong("is not UTF-8"),
        Err(error) => wrong(&format!("cannot be resolved ({error})")),
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    if !is_label(name) {
        return Err(Failure::Wrong(format!(
            "`{}` cannot be the name of a plugin: use a-z, 0-9 and `-`, beginning with a letter, at \
             most 63 of them",
            name.escape_debug()
        )));
    }
    if RESERVED.split(' ').any(|reserved| reserved == name) {
        return Err(Failure::Wrong(format!(
            "`{name}` cannot be the name of a plugin: it is a word of Rust, or a crate that \
             every plugin depends on; try `{name}-store`"
        )));
    }
    Ok(())
}

/// What a crate cannot be called that depends on those of the template: keywords, and their names.
const RESERVED: &str = "abstract alloc as async await become box break codeq-host codeq-plugin \
    const continue core crate do dyn else enum extern false final fn for gen if impl in let loop \
    macro match mod move mut override priv proc-macro pub ref return self serde serde-json static \
    std struct super test trait true try type typeof unsafe unsized use virtual where while yield";

/// The directory must not be there, or be empty: nothing of anybody's is overwritten.
fn check_vacant(dir: &Path) -> Result<(), Failure> {
    let wrong = |why: &str| {
        let message = format!("{} {why}; name another directory with --dir", dir.display());
        Err(Failure::Wrong(message))
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| wrong("is not empty")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => wrong("is not a directory"),
        Err(error) => wrong(&format!("cannot be read ({error})")),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, text)
}
