//! `codeq queue watch`: the counts of the queues, again and again.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use jiff::Zoned;
use rustix::termios::tcgetwinsize;
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    api::{Answer, Api, Request},
    error::ClientError,
    queue::{self, Watch},
    show,
};
use crate::cli::{
    Failure,
    style::{self, BAD, FAINT, in_style},
};

/// Shows the counts until somebody ends it.
pub(super) async fn run(api: &Api, args: &Watch, json: bool) -> Result<(), Failure> {
    let stop = |kind| {
        signal(kind).map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))
    };
    let mut interrupt = stop(SignalKind::interrupt())?;
    let mut terminate = stop(SignalKind::terminate())?;
    let mut screen = Screen::open(json);
    let watched = tokio::select! {
        watched = rounds(api, args, &mut screen) => watched,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    screen.close();
    watched
}

/// Goes on until what is wrong does not pass, or nobody reads any more.
async fn rounds(api: &Api, args: &Watch, screen: &mut Screen) -> Result<(), Failure> {
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Answer> = None;
    let mut away: Option<Instant> = None;
    loop {
        ticks.tick().await;
        match counts(api, args).await {
            Ok(answer) => {
                if away.take().is_some() {
                    screen.back();
                }
                let shown = screen.show(api, args, &answer, None);
                last = Some(answer);
                if shown.is_err() {
                    // Whoever read it has gone, such as `head`.
                    return Ok(());
                }
            }
            Err(error) => {
                // A host that was never there is a mistake; one that goes may come back.
                let (Some(last), Some(pause)) = (&last, error.passes()) else {
                    return Err(error.into());
                };
                let since = *away.get_or_insert_with(|| {
                    screen.lost(&error);
                    Instant::now()
                });
                if screen.show(api, args, last, Some((&error, since))).is_err() {
                    return Ok(());
                }
                sleep(pause).await;
            }
        }
    }
}

async fn counts(api: &Api, args: &Watch) -> Result<Answer, ClientError> {
    match &args.command {
        Some(command) => api.ask(Request::get(&["admin", "queues", command])).await,
        None => api.ask(Request::get(&["admin", "queues"])).await,
    }
}

/// Where the rounds are shown.
enum Screen {
    /// One line each.
    Json,
    /// One table below the other.
    Pipe,
    /// A table that is kept up to date on a page of its own; the last is left behind.
    Terminal { last: Vec<String> },
}

/// What terminals do for whoever asks in these words.
const OTHER_PAGE: &str = "\x1b[?1049h\x1b[?25l";
const FIRST_PAGE: &str = "\x1b[?25h\x1b[?1049l";
const TOP: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

impl Screen {
    fn open(json: bool) -> Screen {
        if json {
            Screen::Json
        } else if io::stdout().is_terminal() {
            raw(OTHER_PAGE);
            Screen::Terminal { last: Vec::new() }
        } else {
            Screen::Pipe
        }
    }

    fn close(self) {
        if let Screen::Terminal { last } = self {
            raw(FIRST_PAGE);
            style::table(&last);
        }
    }

    /// Shows a round; if the host is away, the last one, and since when.
    fn show(
        &mut self,
        api: &Api,
        args: &Watch,
        answer: &Answer,
        trouble: Option<(&ClientError, Instant)>,
    ) -> io::Result<()> {
        match self {
            // What is known already is of no use to a program.
            Screen::Json | Screen::Pipe if trouble.is_some() => Ok(()),
            Screen::Json => style::write(&format!("{}\n", one_line(&answer.value, &answer.text))),
            Screen::Pipe => {
                let table = style::aligned(&queue::rows(&answer.value));
                style::write(&format!("{}\n{table}\n", Zoned::now().strftime("%H:%M:%S")))
            }
            Screen::Terminal { last } => {
                *last = queue::rows(&answer.value);
                let mut lines = vec![heading(api, args.interval), String::new()];
                lines.extend(style::aligned(last).lines().map(str::to_owned));
                if let Some((error, since)) = trouble {
                    let since = show::span(since.elapsed().as_secs());
                    let word = in_style(BAD, format_args!("no counts for {since}"));
                    lines.extend([String::new(), format!("{word}: {error}")]);
                }
                redraw(&lines)
            }
        }
    }

    fn lost(&self, error: &ClientError) {
        if !matches!(self, Screen::Terminal { .. }) {
            style::warning(format_args!("{error}; watching on"));
        }
    }

    fn back(&self) {
        if !matches!(self, Screen::Terminal { .. }) {
            style::note("back", "the host answers again");
        }
    }
}

fn heading(api: &Api, interval: Duration) -> String {
    let url = api.url().as_str().trim_end_matches('/');
    let now = Zoned::now().strftime("%H:%M:%S");
    let every = format!("{} s", interval.as_secs_f64());
    in_style(FAINT, format_args!("{url}, {now}, every {every}; Ctrl-C ends"))
}

/// Writes over what is there, so that nothing flickers, and not beyond the last line.
fn redraw(lines: &[String]) -> io::Result<()> {
    let height = tcgetwinsize(io::stdout()).map_or(usize::MAX, |size| match size.ws_row {
        0 => usize::MAX,
        rows => rows.into(),
    });
    raw(TOP);
    let fits = lines.len() <= height;
    let shown = if fits { lines } else { &lines[..height.saturating_sub(1)] };
    for (nth, line) in shown.iter().enumerate() {
        if nth > 0 {
            raw("\r\n");
        }
        style::write(line)?;
        raw(CLEAR_LINE);
    }
    if !fits {
        let more = lines.len() - shown.len();
        style::write(&format!("\r\n{}", in_style(FAINT, format_args!("… {more} lines more"))))?;
    }
    raw(CLEAR_BELOW);
    Ok(())
}

/// Tells the terminal something that is not text, whether it has colours or not.
fn raw(sequence: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(sequence.as_bytes()).and_then(|()| out.flush());
}

/// JSON in one line; as it stands if it is in one already.
fn one_line(value: &Value, text: &str) -> String {
    if text.contains('\n') { value.to_string() } else { text.to_owned() }
}
