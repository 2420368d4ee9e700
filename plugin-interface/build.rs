//! Records the target and the compiler, which every plugin's manifest states.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=CODEQ_TARGET={}", env::var("TARGET").unwrap_or_default());
    println!("cargo::rustc-env=CODEQ_RUSTC={}", rustc_version().unwrap_or_default());
}

fn rustc_version() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}
