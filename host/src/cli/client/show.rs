//! Tasks, times and texts as people read them.

use codeq_plugin::Instant;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use crate::cli::style::{self, BAD, FAINT, GOOD, NAME, in_style};

/// A text of others in one line, without what a terminal would take for a command.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_reordering(c) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Characters that make a text look like another.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same, cut to a number of characters.
pub(super) fn short(text: &str, most: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A text of a record; empty if it has none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// How far away a moment of a record is.
pub(super) fn away(value: &Value) -> String {
    match moment(value) {
        Some(at) => distance(at.0 - Instant::now().0),
        None => String::new(),
    }
}

/// The same, and the moment itself in the zone of the one who reads.
pub(super) fn when(value: &Value) -> String {
    let Some(at) = moment(value) else {
        return String::new();
    };
    let zone = TimeZone::system();
    let exact = Timestamp::from_millisecond(at.0)
        .map(|at| at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %:z").to_string());
    let exact = in_style(FAINT, format!("({})", exact.unwrap_or_default()));
    format!("{} {exact}", distance(at.0 - Instant::now().0))
}

fn moment(value: &Value) -> Option<Instant> {
    Instant::parse_rfc3339(value.as_str()?)
}

/// A distance from now in milliseconds: "in 12 s", "3 min ago".
fn distance(millis: i64) -> String {
    let seconds = millis.unsigned_abs().div_ceil(1000);
    let span = span(seconds);
    match millis {
        -999..=999 => "now".into(),
        1000.. => format!("in {span}"),
        _ => format!("{span} ago"),
    }
}

/// Seconds in the unit that tells most.
pub(super) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(24 * 3600, "days"), (3600, "h"), (60, "min")];
    // Two of a unit at least: 90 min say more than 1 h.
    match UNITS.into_iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

/// Shows all that people want to know of a task.
pub(super) fn task(task: &Value) {
    let mut rows = head(task);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(format!("{name}\t{value}"));
        }
    };
    row("priority", task["priority"].as_u64().unwrap_or(0).to_string());
    row("attempts", attempts(task));
    row("webhook", plain(text(&task["webhook"])));
    row("tenant", plain(text(&task["tenantId"])));
    row("created", when(&task["createdAt"]));
    row("changed", when(&task["updatedAt"]));
    row("error", plain(text(&task["error"])));
    row("payload", plain(text(&task["payload"])));
    style::table(&rows);
}

/// Shows tasks, one below the other.
pub(super) fn tasks(tasks: &[Value]) {
    for (nth, next) in tasks.iter().enumerate() {
        if nth > 0 {
            style::line("");
        }
        task(next);
    }
}

/// Shows a task together with its result.
pub(super) fn task_and_result(task: &Value, result: &Value) {
    let mut rows = head(task);
    rows.push(format!("attempts\t{}", attempts(task)));
    rows.extend(outcome(result));
    style::table(&rows);
}

/// Shows a result.
pub(super) fn result(result: &Value) {
    let id = in_style(NAME, plain(text(&result["taskId"])));
    let mut rows = vec![format!("task\t{id}"), format!("state\t{}", state(result))];
    rows.extend(outcome(result));
    style::table(&rows);
}

fn head(task: &Value) -> Vec<String> {
    vec![
        format!("task\t{}", in_style(NAME, plain(text(&task["id"])))),
        format!("command\t{}", plain(text(&task["command"]))),
        format!("state\t{}", state(task)),
    ]
}

fn outcome(result: &Value) -> Vec<String> {
    let mut rows = vec![format!("finished\t{}", when(&result["completedAt"]))];
    if let Some(error) = result["error"].as_str().filter(|error| !error.is_empty()) {
        rows.push(format!("error\t{}", plain(error)));
    }
    for artifact in result["artifacts"].as_array().into_iter().flatten() {
        let (name, url) = (plain(text(&artifact["name"])), plain(text(&artifact["url"])));
        rows.push(format!("artifact\t{name}  {}", in_style(FAINT, url)));
    }
    if !result["result"].is_null() {
        rows.push(format!("result\t{}", plain(&result["result"].to_string())));
    }
    rows
}

/// The state of a task or a result in words.
pub(super) fn state(task: &Value) -> String {
    let holder = || match text(&task["workerId"]) {
        "" => String::new(),
        worker => {
            format!(", held by {}, its lease ends {}", plain(worker), away(&task["leaseUntil"]))
        }
    };
    match (text(&task["status"]), text(&task["lastKnownLocation"])) {
        ("PENDING", "DELAYED_ZSET") => "delayed".into(),
        ("PENDING", _) => "ready".into(),
        ("IN_PROGRESS", _) => format!("in progress{}", holder()),
        ("COMPLETED", _) => in_style(GOOD, "completed"),
        ("FAILED", "DLQ_SET") => in_style(BAD, "failed, among the dead letters"),
        ("FAILED", _) => in_style(BAD, "failed"),
        (other, _) => plain(other),
    }
}

/// "2 of 5"
pub(super) fn attempts(task: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    match number(&task["maxAttempts"]) {
        0 => number(&task["attempts"]).to_string(),
        most => format!("{} of {most}", number(&task["attempts"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_told_in_the_unit_that_says_most() {
        for (millis, told) in [
            (0, "now"),
            (-900, "now"),
            (12_000, "in 12 s"),
            (11_001, "in 12 s"),
            (-119_000, "119 s ago"),
            (-180_000, "3 min ago"),
            (7_200_000, "in 2 h"),
            (-86_400_000 * 3, "3 days ago"),
        ] {
            assert_eq!(distance(millis), told);
        }
    }

    #[test]
    fn what_others_wrote_commands_no_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\tc\nd\u{9b}e\u{202e}"), r"a\u{1b}[2Jb\tc\nd\u{9b}e\u{202e}");
        assert_eq!(plain("schön 🎉"), "schön 🎉");
        assert_eq!(short("schönes", 4), "schö…");
        assert_eq!(short("schö", 4), "schö");
    }
}
