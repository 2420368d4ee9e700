//! `codeq queue`: what is in the queues.

use std::{io, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Common,
    api::{Api, Request},
    error::ClientError,
    input, show,
    target::Role,
    watch,
};
use crate::cli::{
    Failure,
    style::{self, BAD, FAINT, HEADING, NAME, in_style},
};

#[derive(Args)]
pub(in crate::cli) struct QueueArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Subcommand)]
enum QueueCommand {
    /// List the queues with their counts.
    #[command(after_help = "\
Examples:
  codeq queue list
  codeq queue list --json | jq '.queues[] | select(.dlq > 0)'")]
    List,
    /// Show the counts of one queue.
    #[command(after_help = "Example:\n  codeq queue stats render")]
    Stats(OneQueue),
    /// Show the counts again and again, until Ctrl-C.
    #[command(after_help = "\
On a terminal a table is kept up to date; with --json each round is one line. A host that goes away is
waited for. Ctrl-C ends it with exit code 0.

Examples:
  codeq queue watch
  codeq queue watch render --interval 500ms --json")]
    Watch(Watch),
    /// List the tasks of a queue.
    #[command(after_help = "\
Examples:
  codeq queue tasks render
  codeq queue tasks render --state inProgress --limit 20
  codeq queue tasks render --state delayed --all --json")]
    Tasks(Tasks),
}

#[derive(Args)]
struct OneQueue {
    /// The kind of work.
    #[arg(value_parser = input::name)]
    command: String,
}

#[derive(Args)]
pub(super) struct Watch {
    /// Only this queue.
    #[arg(value_parser = input::name)]
    pub(super) command: Option<String>,
    /// How often.
    #[arg(long, value_name = "SPAN", value_parser = interval, default_value = "2s")]
    pub(super) interval: Duration,
}

#[derive(Args)]
struct Tasks {
    #[command(flatten)]
    queue: OneQueue,
    /// In which place.
    #[arg(long, value_name = "STATE", default_value = "ready")]
    state: State,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Args)]
pub(super) struct Paging {
    /// At most how many.
    #[arg(
        long, value_name = "N", default_value = "100",
        value_parser = clap::value_parser!(u32).range(1..=500)
    )]
    limit: u32,
    /// All of them, however many there are; --limit is then what is asked for at once.
    #[arg(long)]
    all: bool,
}

/// The places of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum State {
    /// Claimable now.
    Ready,
    /// Claimable later.
    Delayed,
    /// Leased.
    #[value(name = "inProgress", alias = "in-progress")]
    InProgress,
    /// Dead-lettered.
    Dlq,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Delayed => "delayed",
            State::InProgress => "inProgress",
            State::Dlq => "dlq",
        }
    }
}

pub(in crate::cli) fn run(args: &QueueArgs) -> Result<(), Failure> {
    let json = args.common.json;
    let api = args.common.api(Role::Admin)?;
    super::block_on(async {
        match &args.command {
            QueueCommand::List => {
                let answer = api.ask(Request::get(&["admin", "queues"])).await?;
                super::tell(json, &answer, |answer| style::table(&rows(answer)));
                Ok(())
            }
            QueueCommand::Stats(queue) => {
                let path = ["admin", "queues", queue.command.as_str()];
                let answer = api.ask(Request::get(&path)).await?;
                super::tell(json, &answer, |answer| style::table(&rows(answer)));
                Ok(())
            }
            QueueCommand::Watch(args) => watch::run(&api, args, json).await,
            QueueCommand::Tasks(args) => {
                list(&api, &args.queue.command, args.state, &args.paging, json).await
            }
        }
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    match input::span(text)? {
        short if short < Duration::from_millis(100) => {
            Err(format!("`{text}` is too short: 100ms at least"))
        }
        interval => Ok(interval),
    }
}

/// The counts of all queues, or of one, as a table.
pub(super) fn rows(counts: &Value) -> Vec<String> {
    let queues = match counts["queues"].as_array() {
        Some(queues) => queues.iter().collect(),
        None => vec![counts],
    };
    if queues.is_empty() {
        return vec!["there are no queues".into()];
    }
    let row = |queue: &Value| {
        let count = |name: &str| queue[name].as_u64().unwrap_or(0);
        let faint = |count: u64| match count {
            0 => in_style(FAINT, 0),
            some => some.to_string(),
        };
        let dead = match count("dlq") {
            0 => in_style(FAINT, 0),
            some => in_style(BAD, some),
        };
        let name = in_style(NAME, show::plain(show::text(&queue["command"])));
        let [ready, delayed, leased] = ["ready", "delayed", "inProgress"].map(|n| faint(count(n)));
        format!("{name}\t{ready}\t{delayed}\t{leased}\t{dead}")
    };
    let heading = headings(&["COMMAND", "READY", "DELAYED", "IN PROGRESS", "DEAD LETTERS"]);
    std::iter::once(heading).chain(queues.into_iter().map(row)).collect()
}

fn headings(titles: &[&str]) -> String {
    titles.iter().map(|title| in_style(HEADING, title)).collect::<Vec<_>>().join("\t")
}

/// A page of tasks, each as the host wrote it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    tasks: Vec<Box<RawValue>>,
    #[serde(default)]
    next_cursor: Option<String>,
}

/// Lists tasks, page by page, so that any number of them needs the memory of one page.
pub(super) async fn list(
    api: &Api,
    command: &str,
    state: State,
    paging: &Paging,
    json: bool,
) -> Result<(), Failure> {
    let path = ["admin", "queues", command, "tasks"];
    let mut cursor = String::new();
    let mut listed = 0;
    loop {
        let mut request = Request::get(&path).query("state", state.as_str());
        request = request.query("limit", paging.limit);
        if !cursor.is_empty() {
            request = request.query("cursor", &cursor);
        }
        let answer = api.ask(request).await?;
        if json && !paging.all {
            style::line(&answer.text);
            return Ok(());
        }
        let page: Page = serde_json::from_str(&answer.text).map_err(|error| {
            Failure::Failed(format!("the host's list of tasks cannot be read: {error}"))
        })?;
        let first = listed == 0;
        listed += page.tasks.len();
        let next = page.next_cursor.filter(|next| !next.is_empty());
        let written = if json {
            // All pages together are one document.
            write_json(&page.tasks, cursor.is_empty(), next.is_none())
        } else {
            write_table(&page.tasks, state, first)
        };
        if written.is_err() {
            // Whoever read it has gone, such as `head`.
            return Ok(());
        }
        match next {
            Some(next) if next == cursor => {
                return Err(Failure::Failed(
                    "the host's list of tasks goes round in circles".into(),
                ));
            }
            Some(next) if paging.all => cursor = next,
            next => {
                if !json {
                    conclude(command, state, listed, next.is_some());
                }
                return Ok(());
            }
        }
    }
}

fn write_json(tasks: &[Box<RawValue>], first: bool, last: bool) -> io::Result<()> {
    let tasks: Vec<&str> = tasks.iter().map(|task| task.get()).collect();
    let opening = if first { r#"{"tasks":["# } else { "" };
    let comma = if first || tasks.is_empty() { "" } else { "," };
    let closing = if last { "]}" } else { "" };
    style::write(&format!("{opening}{comma}{}{closing}\n", tasks.join(",")))
}

fn write_table(tasks: &[Box<RawValue>], state: State, first: bool) -> io::Result<()> {
    let mut rows = Vec::new();
    if first && !tasks.is_empty() {
        rows.push(headings(match state {
            State::Ready => &["TASK", "PRIORITY", "ATTEMPTS", "CREATED", "PAYLOAD"],
            State::Delayed => &["TASK", "PRIORITY", "ATTEMPTS", "DUE", "LAST ERROR"],
            State::InProgress => &["TASK", "PRIORITY", "ATTEMPTS", "LEASE ENDS", "WORKER"],
            State::Dlq => &["TASK", "PRIORITY", "ATTEMPTS", "DIED", "ERROR"],
        }));
    }
    rows.extend(tasks.iter().map(|raw| {
        let task: Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let text = |name: &str| show::short(show::text(&task[name]), 60);
        let (when, more) = match state {
            State::Ready => (&task["createdAt"], text("payload")),
            State::Delayed => (&task["visibleAt"], text("error")),
            State::InProgress => (&task["leaseUntil"], text("workerId")),
            State::Dlq => (&task["updatedAt"], text("error")),
        };
        let id = in_style(NAME, show::plain(show::text(&task["id"])));
        let priority = task["priority"].as_u64().unwrap_or(0);
        format!("{id}\t{priority}\t{}\t{}\t{more}", show::attempts(&task), show::away(when))
    }));
    style::write(&style::aligned(&rows))
}

fn conclude(command: &str, state: State, listed: usize, more: bool) {
    let what = match state {
        State::Ready => "ready task",
        State::Delayed => "delayed task",
        State::InProgress => "task in progress",
        State::Dlq => "dead letter",
    };
    if listed == 0 {
        style::line(format_args!("{command} has no {what}"));
    } else if more {
        style::note("there are more", "list them with --all, or more of them with --limit");
    }
}

/// How many dead letters a queue has.
pub(super) async fn dead(api: &Api, command: &str) -> Result<u64, ClientError> {
    let counts = api.ask(Request::get(&["admin", "queues", command])).await?.value;
    Ok(counts["dlq"].as_u64().unwrap_or(0))
}
