//! `codeq completions`.

use std::io::ErrorKind;

use clap::Args;
use clap_complete::{Shell, generate};

use super::{Failure, style};

/// Arguments of `codeq completions`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  codeq completions bash > ~/.local/share/bash-completion/completions/codeq
  codeq completions zsh > \"${fpath[1]}/_codeq\"
  codeq completions fish > ~/.config/fish/completions/codeq.fish")]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Writes the script that a shell completes commands with.
pub(super) fn run(args: &Completions, mut program: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut program, "codeq", &mut script);
    // A reader that has gone away wants no more of it.
    style::write(&String::from_utf8_lossy(&script))
        .or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
        .map_err(|error| Failure::Failed(format!("the script cannot be written: {error}")))
}
