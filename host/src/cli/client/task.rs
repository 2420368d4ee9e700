//! `codeq task`: the life of a task, step by step.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::{json, value::RawValue};

use super::{
    Common,
    api::{Api, Request},
    error::ClientError,
    input, show,
    target::Role,
};
use crate::{
    cli::{
        Failure,
        style::{self, BAD, GOOD, NAME, in_style},
    },
    http::scope,
};

/// The longest wait of one request, as the host grants it.
const LONGEST_CLAIM_WAIT: Duration = Duration::from_secs(30);
const LONGEST_RESULT_WAIT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(in crate::cli) struct TaskArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: TaskCommand,
}

#[derive(Subcommand)]
enum TaskCommand {
    /// Enqueue a task.
    #[command(after_help = "\
Examples:
  codeq task create render '{\"page\": 7}' --priority 5
  codeq task create render @page.json --delay 10m --max-attempts 3
  jq .page book.json | codeq task create render - --key book-7")]
    Create(Create),
    /// Show a task.
    #[command(after_help = "\
Examples:
  codeq task get c2acf2bb-2a3c-4f5b-9f0e-5d1f6f1f6a01
  codeq task get c2acf2bb-2a3c-4f5b-9f0e-5d1f6f1f6a01 --json | jq -r .payload")]
    Get(OneTask),
    /// Show the result of a task.
    #[command(after_help = "\
A task without a result is a failure (exit code 1); one that failed and said so is none.

Examples:
  codeq task result ID
  codeq task result ID --wait 5m --json | jq .result.result")]
    Result(ResultOf),
    /// Take tasks to work on, under a lease.
    #[command(after_help = "\
That there is nothing to claim is no failure: the exit code is 0, standard output is empty (with --json:
null, or {\"tasks\":[]} with --count), and a note goes to standard error.

Examples:
  codeq task claim render --lease 10m --wait 30s
  codeq task claim render print --count 10 --json | jq -r '.tasks[].id'")]
    Claim(Claim),
    /// Extend the lease of a task.
    #[command(after_help = "Example:\n  codeq task heartbeat ID --extend 10m")]
    Heartbeat(Heartbeat),
    /// Finish a task with a result.
    #[command(after_help = "\
Examples:
  codeq task complete ID '{\"url\": \"https://example.org/7.pdf\"}'
  codeq task complete ID @result.json --artifact 7.pdf --artifact log.txt")]
    Complete(Complete),
    /// Finish a task as failed, for good.
    #[command(after_help = "Example:\n  codeq task fail ID --error 'page 7 does not exist'")]
    Fail(Fail),
    /// Give a task back as failed; it is tried again, or ends among the dead letters.
    #[command(after_help = "Example:\n  codeq task nack ID --delay 2m --reason 'printer on fire'")]
    Nack(Nack),
    /// Give a task back unharmed, to be claimed at once.
    #[command(after_help = "Example:\n  codeq task abandon ID")]
    Abandon(OneTask),
}

#[derive(Args)]
struct OneTask {
    /// The task.
    #[arg(value_parser = input::name)]
    id: String,
}

#[derive(Args)]
struct Create {
    /// The kind of work.
    command: String,
    /// Any JSON; @FILE reads a file, - standard input.
    #[arg(default_value = "{}", allow_negative_numbers = true)]
    payload: String,
    /// 0 to 9, highest first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// How often it may be delivered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// Claimable only after this time, such as 30s or 1h30m.
    #[arg(long, value_name = "SPAN", value_parser = input::span, conflicts_with = "at")]
    delay: Option<Duration>,
    /// Claimable only from this moment on, in RFC 3339.
    #[arg(long, value_name = "MOMENT", value_parser = input::moment)]
    at: Option<String>,
    /// With the same key there is one task, however often it is created.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Where the result is posted to.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
}

#[derive(Args)]
struct ResultOf {
    #[command(flatten)]
    task: OneTask,
    /// Wait this long for it.
    #[arg(long, value_name = "SPAN", value_parser = input::span, default_value = "0s")]
    wait: Duration,
}

#[derive(Args)]
struct Claim {
    /// The kinds of work; without any, all that the token may do.
    commands: Vec<String>,
    /// How long to hold them without a heartbeat [default: the host's].
    #[arg(long, value_name = "SPAN", value_parser = input::span)]
    lease: Option<Duration>,
    /// Wait this long for a task to come.
    #[arg(long, value_name = "SPAN", value_parser = input::span, default_value = "0s")]
    wait: Duration,
    /// At most how many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=10))]
    count: Option<u8>,
}

#[derive(Args)]
struct Heartbeat {
    #[command(flatten)]
    task: OneTask,
    /// How long the lease is from now on [default: the host's].
    #[arg(long, value_name = "SPAN", value_parser = input::span)]
    extend: Option<Duration>,
}

#[derive(Args)]
struct Complete {
    #[command(flatten)]
    task: OneTask,
    /// A JSON object; @FILE reads a file, - standard input.
    #[arg(default_value = "{}")]
    result: String,
    /// A file that belongs to the result; may be given several times.
    #[arg(long, value_name = "FILE")]
    artifact: Vec<PathBuf>,
}

#[derive(Args)]
struct Fail {
    #[command(flatten)]
    task: OneTask,
    /// Why.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    error: String,
}

#[derive(Args)]
struct Nack {
    #[command(flatten)]
    task: OneTask,
    /// When it may be claimed again [default: after the host's backoff].
    #[arg(long, value_name = "SPAN", value_parser = input::span)]
    delay: Option<Duration>,
    /// Why.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    reason: Option<String>,
}

pub(in crate::cli) fn run(args: &TaskArgs) -> Result<(), Failure> {
    let json = args.common.json;
    let api = |role| args.common.api(role);
    super::block_on(async {
        match &args.command {
            TaskCommand::Create(args) => create(&api(Role::Producer)?, args, json).await,
            TaskCommand::Get(OneTask { id }) => {
                let answer = api(Role::Reader)?.ask(Request::get(&["tasks", id])).await?;
                super::tell(json, &answer, show::task);
                Ok(())
            }
            TaskCommand::Result(args) => result(&api(Role::Reader)?, args, json).await,
            TaskCommand::Claim(args) => claim(&api(Role::Worker)?, args, json).await,
            TaskCommand::Heartbeat(args) => heartbeat(&api(Role::Worker)?, args, json).await,
            TaskCommand::Complete(args) => complete(&api(Role::Worker)?, args, json).await,
            TaskCommand::Fail(Fail { task, error }) => {
                let outcome =
                    Outcome { status: "FAILED", error: Some(error), ..Outcome::default() };
                submit(&api(Role::Worker)?, &task.id, &outcome, json).await
            }
            TaskCommand::Nack(args) => nack(&api(Role::Worker)?, args, json).await,
            TaskCommand::Abandon(OneTask { id }) => {
                let path = ["tasks", id, "abandon"];
                let request = Request::post(&path).scope(scope::ABANDON);
                let answer = api(Role::Worker)?.ask(request).await?;
                super::tell(json, &answer, |_| done("requeued", id, ""));
                Ok(())
            }
        }
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewTask<'a> {
    command: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<&'a str>,
}

async fn create(api: &Api, args: &Create, json: bool) -> Result<(), Failure> {
    let payload = input::json("PAYLOAD", &args.payload)?;
    // For a host, null is no payload at all.
    if payload.get() == "null" {
        return Err(Failure::Wrong(
            "PAYLOAD is null, which no task can carry: leave it out".into(),
        ));
    }
    let task = NewTask {
        command: &args.command,
        payload: &payload,
        priority: args.priority,
        max_attempts: args.max_attempts,
        delay_seconds: args.delay.map(|delay| delay.as_secs_f64()),
        run_at: args.at.as_deref(),
        idempotency_key: args.key.as_deref(),
        webhook: args.webhook.as_deref(),
    };
    let answer = api.ask(Request::post(&["tasks"]).body(text_of(&task)?)).await?;
    super::tell(json, &answer, show::task);
    Ok(())
}

async fn result(api: &Api, args: &ResultOf, json: bool) -> Result<(), Failure> {
    let path = ["tasks", &args.task.id, "result"];
    let mut waiting = Waiting::new(args.wait, LONGEST_RESULT_WAIT);
    let answer = loop {
        let asked = waiting.ask();
        let request = Request::get(&path).query("waitSeconds", seconds(asked)).wait(asked);
        match api.ask(request).await {
            Ok(answer) => break answer,
            Err(error) if error.is(StatusCode::NOT_FOUND, "result not found") => {
                if !waiting.goes_on().await {
                    return Err(no_result(api, args).await?);
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    super::tell(json, &answer, |both| show::task_and_result(&both["task"], &both["result"]));
    Ok(())
}

/// Why there is no result.
async fn no_result(api: &Api, args: &ResultOf) -> Result<Failure, ClientError> {
    let id = &args.task.id;
    let task = api.ask(Request::get(&["tasks", id])).await?.value;
    let state = show::state(&task);
    Ok(Failure::Failed(match show::text(&task["status"]) {
        "FAILED" => {
            let error = show::plain(show::text(&task["error"]));
            format!("task {id} has no result: it {state}: {error}")
        }
        _ if args.wait.is_zero() => {
            format!("task {id} has no result yet, it is {state}; wait for it with --wait 30s")
        }
        _ => {
            let waited = show::span(args.wait.as_secs());
            format!("task {id} has no result yet after {waited}, it is {state}")
        }
    }))
}

async fn claim(api: &Api, args: &Claim, json: bool) -> Result<(), Failure> {
    let path: &[&str] = match args.count {
        Some(_) => &["tasks", "claim", "batch"],
        None => &["tasks", "claim"],
    };
    let mut waiting = Waiting::new(args.wait, LONGEST_CLAIM_WAIT);
    loop {
        let asked = waiting.ask();
        let mut body = json!({ "commands": args.commands, "waitSeconds": seconds(asked) });
        if let Some(lease) = args.lease {
            body["leaseSeconds"] = seconds(lease).into();
        }
        if let Some(count) = args.count {
            body["count"] = count.into();
        }
        let request = Request::post(path).body(&body).wait(asked).scope(scope::CLAIM);
        let answer = api.ask(request).await?;
        if !answer.text.is_empty() {
            super::tell(json, &answer, |answer| match answer["tasks"].as_array() {
                Some(tasks) => show::tasks(tasks),
                None => show::task(answer),
            });
            return Ok(());
        }
        if !waiting.goes_on().await {
            break;
        }
    }
    if json {
        style::line(if args.count.is_some() { r#"{"tasks":[]}"# } else { "null" });
    }
    style::note(
        "nothing to claim",
        match args.commands.as_slice() {
            [] => "no task is ready for this token; wait for one with --wait 30s".to_owned(),
            commands => {
                format!("no task of {} is ready; wait for one with --wait 30s", commands.join(", "))
            }
        },
    );
    Ok(())
}

async fn heartbeat(api: &Api, args: &Heartbeat, json: bool) -> Result<(), Failure> {
    let id = &args.task.id;
    let body = match args.extend {
        Some(extend) => json!({ "extendSeconds": seconds(extend) }),
        None => json!({}),
    };
    let path = ["tasks", id, "heartbeat"];
    let answer = api.ask(Request::post(&path).body(body).scope(scope::HEARTBEAT)).await?;
    super::tell(json, &answer, |_| done("lease extended", id, ""));
    Ok(())
}

/// How a task ends.
#[derive(Default, Serialize)]
struct Outcome<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    artifacts: Vec<Artifact>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    name: String,
    content_base64: String,
}

async fn complete(api: &Api, args: &Complete, json: bool) -> Result<(), Failure> {
    let result = input::json("RESULT", &args.result)?;
    if !result.get().starts_with('{') {
        return Err(Failure::Wrong(
            "RESULT is no JSON object: write it like '{\"answer\": 42}'".into(),
        ));
    }
    let artifacts = args.artifact.iter().map(|file| artifact(file)).collect::<Result<_, _>>()?;
    let outcome =
        Outcome { status: "COMPLETED", result: Some(&result), artifacts, ..Outcome::default() };
    submit(api, &args.task.id, &outcome, json).await
}

fn artifact(file: &Path) -> Result<Artifact, Failure> {
    let place = file.display().to_string();
    let name = file.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Failure::Wrong(format!("--artifact: `{place}` has no name that a result can carry"))
    })?;
    let content = input::file_contents("--artifact", file)?;
    Ok(Artifact { name: name.to_owned(), content_base64: BASE64_STANDARD.encode(content) })
}

async fn submit(api: &Api, id: &str, outcome: &Outcome<'_>, json: bool) -> Result<(), Failure> {
    let path = ["tasks", id, "result"];
    let request = Request::post(&path).body(text_of(outcome)?).scope(scope::RESULT);
    let answer = api.ask(request).await?;
    super::tell(json, &answer, show::result);
    Ok(())
}

async fn nack(api: &Api, args: &Nack, json: bool) -> Result<(), Failure> {
    let id = &args.task.id;
    let mut body = json!({});
    if let Some(delay) = args.delay {
        body["delaySeconds"] = delay.as_secs_f64().into();
    }
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    let path = ["tasks", id, "nack"];
    let answer = api.ask(Request::post(&path).body(body).scope(scope::NACK)).await?;
    super::tell(json, &answer, |answer| match show::text(&answer["status"]) {
        "dlq" => style::line(format_args!(
            "{} {}, it was the last attempt; see `codeq dlq`",
            in_style(BAD, "dead-lettered"),
            in_style(NAME, show::plain(id)),
        )),
        _ => {
            let after = match answer["delaySeconds"].as_u64() {
                None | Some(0) => "claimable now".to_owned(),
                Some(seconds) => format!("claimable in {}", show::span(seconds)),
            };
            done("requeued", id, &format!(", {after}"));
        }
    });
    Ok(())
}

fn done(what: &str, id: &str, more: &str) {
    let id = in_style(NAME, show::plain(id));
    style::line(format_args!("{} {id}{more}", in_style(GOOD, what)));
}

fn text_of(body: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(body)
        .map_err(|error| Failure::Failed(format!("the request cannot be written: {error}")))
}

/// Whole seconds, as the API counts waits and leases; a part of one is one.
fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// A wait that may be longer than one request's.
struct Waiting {
    until: Instant,
    longest: Duration,
    asked: Duration,
    since: Instant,
}

impl Waiting {
    fn new(wait: Duration, longest: Duration) -> Waiting {
        let now = Instant::now();
        // What is longer may end beyond what can be counted.
        const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        Waiting { until: now + wait.min(YEARS), longest, asked: Duration::ZERO, since: now }
    }

    /// How long the next request is to wait.
    fn ask(&mut self) -> Duration {
        self.since = Instant::now();
        self.asked = self.left().min(self.longest);
        self.asked
    }

    /// Whether there is time for one more.
    async fn goes_on(&self) -> bool {
        if self.left().is_zero() {
            return false;
        }
        // Whoever answers long before he was asked to is not asked again and again.
        if self.since.elapsed() < self.asked / 2 {
            tokio::time::sleep(Duration::from_secs(1).min(self.left())).await;
        }
        true
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}
