//! The command line: `codeq`.
//!
//! Exit codes: 0; 1 if what was asked failed; 2 for wrong usage or a wrong configuration.

mod announce;
mod backup;
mod client;
mod completions;
mod config;
mod help;
mod log;
mod new;
mod plugins;
mod serve;
mod style;
mod verify;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Value;

/// Keeps codeQ's tasks in a storage plugin of your choice, and serves them over HTTP.
#[derive(Parser)]
#[command(name = "codeq", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API.
    Serve(ConfigFile),
    /// Create, claim and finish tasks.
    Task(client::task::TaskArgs),
    /// Look at the queues, and into them.
    Queue(client::queue::QueueArgs),
    /// Look at dead letters, put them back, or remove them.
    Dlq(client::dlq::DlqArgs),
    /// Keep hosts and tokens under names.
    #[command(subcommand)]
    Profile(client::profile::ProfileCommand),
    /// Copy all that the plugin keeps to a new place, while hosts use it.
    Backup(backup::Backup),
    /// Look at the persistence plugins, or begin a new one.
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write the script that completes commands in a shell.
    Completions(completions::Completions),
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file [default: codeq.yml in the working directory, if there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct Json {
    /// Write JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum PluginsCommand {
    /// List the plugins that are there, those that were refused, and where they were looked for.
    List {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        output: Json,
    },
    /// Show what a compiled plugin says about itself, without running any of it.
    Inspect {
        /// The library.
        path: PathBuf,
        #[command(flatten)]
        output: Json,
    },
    /// Prove that a compiled plugin keeps the storage contract.
    Verify(verify::Verify),
    /// Hold a plugin for `codeq plugins verify`.
    #[command(hide = true)]
    Agent {
        /// The library.
        path: PathBuf,
    },
    /// Write the crate of a new plugin, which works as it stands.
    New(new::NewPlugin),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Show the effective configuration, secrets masked.
    Show {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        output: Json,
    },
    /// Check the configuration, and that its plugin is there and accepts its part.
    Check(ConfigFile),
    /// Write a configuration for this host from a codeQ server's file and environment.
    Import(config::Import),
}

/// How a command failed.
enum Failure {
    /// What was asked could not be done.
    Failed(String),
    /// The usage or the configuration is wrong.
    Wrong(String),
}

/// Runs the program.
pub fn run() -> ExitCode {
    let program = help::grouped(Cli::command());
    let cli = Cli::from_arg_matches(&program.clone().get_matches());
    let result = match cli.unwrap_or_else(|error| error.exit()).command {
        Command::Serve(file) => serve::run(&file),
        Command::Task(args) => client::task::run(&args),
        Command::Queue(args) => client::queue::run(&args),
        Command::Dlq(args) => client::dlq::run(&args),
        Command::Profile(command) => client::profile::run(&command),
        Command::Completions(args) => completions::run(&args, program),
        Command::Backup(backup) => backup::run(&backup),
        Command::Plugins(PluginsCommand::List { config, output }) => {
            plugins::list(&config, output.json)
        }
        Command::Plugins(PluginsCommand::Inspect { path, output }) => {
            plugins::inspect(&path, output.json)
        }
        Command::Plugins(PluginsCommand::Verify(verify)) => verify::run(&verify),
        Command::Plugins(PluginsCommand::Agent { path }) => verify::agent(&path),
        Command::Plugins(PluginsCommand::New(plugin)) => new::run(&plugin),
        Command::Config(ConfigCommand::Show { config, output }) => {
            config::show(&config, output.json)
        }
        Command::Config(ConfigCommand::Check(file)) => config::check(&file),
        Command::Config(ConfigCommand::Import(args)) => config::import(&args),
    };
    exit(result)
}

/// Verifies the plugin of a crate from its test. See [`crate::verify::this_crate`].
pub(crate) fn verify(
    library: impl FnOnce() -> Result<PathBuf, String>,
    config: &Value,
    args: &[&str],
) -> ExitCode {
    verify::of_test(library, config, args)
}

/// Becomes a process that holds a plugin.
pub(crate) fn agent(library: &Path) -> ExitCode {
    exit(verify::agent(library))
}

fn exit(result: Result<(), Failure>) -> ExitCode {
    let (message, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (message, 1),
        Err(Failure::Wrong(message)) => (message, 2),
    };
    style::error(&message);
    ExitCode::from(code)
}
