//! The program `codeq`. See [`codeq_host::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    codeq_host::cli::run()
}
