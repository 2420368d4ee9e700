//! `codeq dlq`: tasks that have failed for good.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Common,
    api::{Api, Request},
    input,
    queue::{self, Paging, State},
    show,
    target::Role,
};
use crate::cli::{
    Failure,
    style::{self, GOOD, in_style},
};

/// At most how many dead letters one request moves or removes.
const AT_ONCE: u64 = 1000;

#[derive(Args)]
pub(in crate::cli) struct DlqArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Subcommand)]
enum DlqCommand {
    /// List the dead letters of a queue, with their errors.
    #[command(after_help = "\
Examples:
  codeq dlq list render
  codeq dlq list render --all --json | jq -r '.tasks[] | [.id, .error] | @tsv'")]
    List {
        /// The kind of work.
        #[arg(value_parser = input::name)]
        command: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Put dead letters back into their queue, with all their attempts before them.
    #[command(after_help = "\
--all means those that are there when the command begins: what dies again meanwhile is left.

Examples:
  codeq dlq redrive render c2acf2bb-2a3c-4f5b-9f0e-5d1f6f1f6a01
  codeq dlq redrive render --all")]
    Redrive(Which),
    /// Remove dead letters, for good.
    #[command(after_help = "\
Asks before it removes anything; without a terminal to ask on, it wants --yes.
--all means those that are there when the command begins.

Examples:
  codeq dlq purge render c2acf2bb-2a3c-4f5b-9f0e-5d1f6f1f6a01
  codeq dlq purge render --all --yes")]
    Purge {
        #[command(flatten)]
        which: Which,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
struct Which {
    /// The kind of work.
    #[arg(value_parser = input::name)]
    command: String,
    /// The tasks.
    #[arg(value_name = "ID", value_parser = input::name, required_unless_present = "all")]
    ids: Vec<String>,
    /// All dead letters of the queue.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

pub(in crate::cli) fn run(args: &DlqArgs) -> Result<(), Failure> {
    let json = args.common.json;
    let api = args.common.api(Role::Admin)?;
    super::block_on(async {
        match &args.command {
            DlqCommand::List { command, paging } => {
                queue::list(&api, command, State::Dlq, paging, json).await
            }
            DlqCommand::Redrive(which) => redrive(&api, which, json).await,
            DlqCommand::Purge { which, yes } => purge(&api, which, *yes, json).await,
        }
    })
}

async fn redrive(api: &Api, which: &Which, json: bool) -> Result<(), Failure> {
    let command = &which.command;
    if which.all {
        let most = queue::dead(api, command).await?;
        let (requeued, remaining) = in_bulk(api, command, "requeue", "requeued", most).await?;
        report(json, json!({ "requeued": requeued, "remaining": remaining }), "requeued", requeued);
        return Ok(());
    }
    let mut requeued = Vec::new();
    for id in &which.ids {
        let again = async {
            check(api, command, id).await?;
            Ok(api.ask(Request::post(&["admin", "tasks", id, "requeue"])).await?.text)
        };
        match again.await {
            Ok(task) => requeued.push(task),
            Err(failure) => failed(id, &failure),
        }
    }
    if json {
        style::line(format_args!(r#"{{"tasks":[{}]}}"#, requeued.join(",")));
    } else {
        tell("requeued", requeued.len());
    }
    all_done(requeued.len(), which.ids.len(), "put back")
}

async fn purge(api: &Api, which: &Which, yes: bool, json: bool) -> Result<(), Failure> {
    let command = &which.command;
    // Nobody is asked for a terminal only after the host has been asked.
    if !yes && !can_ask() {
        return Err(Failure::Wrong(
            "nothing was removed: there is no terminal to ask on; say --yes if it is meant".into(),
        ));
    }
    if which.all {
        let most = queue::dead(api, command).await?;
        if most > 0 && !yes {
            confirm(&format!("all {most} dead letters of {}", show::plain(command)))?;
        }
        let (purged, remaining) = in_bulk(api, command, "purge", "purged", most).await?;
        report(json, json!({ "purged": purged, "remaining": remaining }), "removed", purged);
        return Ok(());
    }
    // Any task may be removed by its id; here only dead letters of this queue are.
    let mut dead = Vec::new();
    for id in &which.ids {
        match check(api, command, id).await {
            Ok(()) => dead.push(id),
            Err(failure) => failed(id, &failure),
        }
    }
    if !dead.is_empty() && !yes {
        confirm(&format!("{} of {}", count(dead.len()), show::plain(command)))?;
    }
    let mut purged = 0;
    for id in dead {
        match api.ask(Request::delete(&["admin", "tasks", id])).await {
            Ok(_) => purged += 1,
            Err(error) => failed(id, &error.into()),
        }
    }
    report(json, json!({ "purged": purged }), "removed", purged);
    all_done(usize::try_from(purged).unwrap_or(usize::MAX), which.ids.len(), "removed")
}

/// Moves or removes as many dead letters as there were at the start, some at a time. Without that
/// bound, tasks that die again at once would be redriven for ever.
async fn in_bulk(
    api: &Api,
    command: &str,
    what: &str,
    counted: &str,
    most: u64,
) -> Result<(u64, bool), Failure> {
    let path = ["admin", "queues", command, "dlq", what];
    let mut done = 0;
    let mut remaining = false;
    while done < most {
        let limit = AT_ONCE.min(most - done);
        let answer =
            api.ask(Request::post(&path).query("limit", limit)).await.map_err(|error| {
                let so_far = if done > 0 {
                    format!("; {done} were {counted} before")
                } else {
                    String::new()
                };
                Failure::Failed(format!("{error}{so_far}"))
            })?;
        let moved = answer.value[counted].as_u64().unwrap_or(0);
        done += moved;
        remaining = answer.value["remaining"].as_bool().unwrap_or(false);
        if moved == 0 || !remaining {
            break;
        }
    }
    Ok((done, remaining))
}

/// Makes sure that a task is a dead letter of this queue.
async fn check(api: &Api, command: &str, id: &str) -> Result<(), Failure> {
    let task = api.ask(Request::get(&["tasks", id])).await?.value;
    let own = show::text(&task["command"]);
    if codeq_plugin::queue_name(own) != codeq_plugin::queue_name(command) {
        return Err(Failure::Failed(format!("it is a task of {}", show::plain(own))));
    }
    if task["lastKnownLocation"] != "DLQ_SET" {
        let state = show::state(&task);
        return Err(Failure::Failed(format!("it is not among the dead letters, it is {state}")));
    }
    Ok(())
}

fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn confirm(what: &str) -> Result<(), Failure> {
    let mut err = io::stderr();
    let _ = write!(err, "Remove {what} for good? [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(Failure::Failed("nothing was removed".into())),
    }
}

fn failed(id: &str, failure: &Failure) {
    let (Failure::Failed(message) | Failure::Wrong(message)) = failure;
    style::error(&format!("task {}: {message}", show::plain(id)));
}

fn report(json: bool, document: Value, what: &str, done: u64) {
    if json {
        style::line(document);
    } else {
        tell(what, usize::try_from(done).unwrap_or(usize::MAX));
    }
}

fn tell(what: &str, done: usize) {
    style::line(format_args!("{} {}", in_style(GOOD, what), count(done)));
}

fn count(tasks: usize) -> String {
    if tasks == 1 { "1 dead letter".into() } else { format!("{tasks} dead letters") }
}

fn all_done(done: usize, asked: usize, what: &str) -> Result<(), Failure> {
    if done == asked {
        return Ok(());
    }
    Err(Failure::Failed(format!("{} of {asked} were not {what}", asked - done)))
}
