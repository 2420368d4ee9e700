//! Making a history that does not hold as short as it gets, and drawing its time line.

use std::fmt::Write;

use super::{Answer, Deed, Got, History, Step, check::Check};

/// The most steps that a time line shows.
const LONGEST: usize = 60;

/// What a check found wrong with a history, with a time line of what it takes to show it.
///
/// Answers nothing if the history is right.
pub fn explain(check: &Check, history: &History) -> Option<String> {
    let breach = check.find(history)?;
    let mut told = format!("{}\n", breach.what);
    let shortest = shrink(check, history, &breach.tasks);
    let origin = shortest.steps.first().map_or(0, |step| step.begin);
    for step in shortest.steps.iter().take(LONGEST) {
        let _ = writeln!(told, "{}", line(step, origin));
    }
    if shortest.steps.len() > LONGEST {
        let _ = writeln!(told, "      … and {} more steps", shortest.steps.len() - LONGEST);
    }
    for id in &breach.tasks {
        match shortest.left.tasks.get(id) {
            Some(Some((status, location))) => {
                let _ = writeln!(told, "      at the end: {id} is {status} in {location}");
            }
            Some(None) => {
                let _ = writeln!(told, "      at the end: {id} is not there");
            }
            None => {}
        }
    }
    Some(told)
}

/// Leaves out all that the check does not need to fail.
fn shrink(check: &Check, history: &History, tasks: &[String]) -> History {
    let mut short = history.clone();
    let only: Vec<Step> = history.steps.iter().filter_map(|step| about(step, tasks)).collect();
    let projected = History { steps: only, left: history.left.clone() };
    if !tasks.is_empty() && check.find(&projected).is_some() {
        short = projected;
    }
    if short.steps.len() > 2_000 {
        return short;
    }
    let mut index = short.steps.len();
    while index > 0 {
        index -= 1;
        let mut shorter = short.clone();
        shorter.steps.remove(index);
        if check.find(&shorter).is_some_and(|breach| breach.tasks == tasks) {
            short = shorter;
        }
    }
    short
}

/// The part of a step that is about these tasks.
fn about(step: &Step, tasks: &[String]) -> Option<Step> {
    let mine = |id: &String| tasks.contains(id);
    match &step.deed {
        Deed::Claim { .. } => {
            let Some((end, Answer::Claimed { tasks: got })) = &step.end else { return None };
            let got: Vec<Got> = got.iter().filter(|got| mine(&got.id)).cloned().collect();
            (!got.is_empty())
                .then(|| Step { end: Some((*end, Answer::Claimed { tasks: got })), ..step.clone() })
        }
        Deed::Enqueue { id, .. } => {
            let answered = match &step.end {
                Some((_, Answer::Enqueued { id, .. })) => mine(id),
                _ => false,
            };
            (mine(id) || answered).then(|| step.clone())
        }
        Deed::Extend { id, .. }
        | Deed::Abandon { id, .. }
        | Deed::Nack { id, .. }
        | Deed::Complete { id, .. } => mine(id).then(|| step.clone()),
    }
}

fn line(step: &Step, origin: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a history lasts seconds")]
    let millis = |at: i64| (at - origin) as f64 / 1_000.0;
    let deed = match &step.deed {
        Deed::Enqueue { id, priority, key, visible_at, .. } => {
            let key = if key.is_empty() { String::new() } else { format!(" key {key}") };
            let delay = if *visible_at == 0 {
                String::new()
            } else {
                format!(" due {:.3}", millis(visible_at * 1_000))
            };
            format!("enqueue {id} priority {priority}{key}{delay}")
        }
        Deed::Claim { worker, lease, .. } => format!("claim by {worker} for {lease} ms"),
        Deed::Extend { id, worker, attempt } => format!("extend {id} by {worker}/{attempt}"),
        Deed::Abandon { id, worker, attempt } => format!("abandon {id} by {worker}/{attempt}"),
        Deed::Nack { id, worker, attempt, delay } => {
            format!("nack {id} by {worker}/{attempt} for {delay} ms")
        }
        Deed::Complete { id, worker, attempt } => format!("complete {id} by {worker}/{attempt}"),
    };
    let (end, answer) = match &step.end {
        None => ("     …".to_owned(), "never answered".to_owned()),
        Some((end, answer)) => (format!("{:9.3}", millis(*end)), told(answer, origin)),
    };
    format!("  {:9.3} – {end} ms  {:<12} {deed} → {answer}", millis(step.begin), step.who)
}

fn told(answer: &Answer, origin: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a history lasts seconds")]
    let millis = |at: i64| (at * 1_000 - origin) as f64 / 1_000.0;
    match answer {
        Answer::Enqueued { id, created: true } => format!("{id}, new"),
        Answer::Enqueued { id, created: false } => format!("{id}, there before"),
        Answer::Claimed { tasks } if tasks.is_empty() => "nothing".into(),
        Answer::Claimed { tasks } => tasks
            .iter()
            .map(|got| {
                let until = millis(got.lease_until);
                format!("{} (attempt {}, until {until:.3})", got.id, got.attempts)
            })
            .collect::<Vec<_>>()
            .join(", "),
        Answer::Until { deadline } => format!("until {:.3}", millis(*deadline)),
        Answer::Done => "done".into(),
        Answer::Refused { kind } => format!("refused: {kind}"),
        Answer::Failed { kind, text } => format!("failed: {kind}: {text}"),
    }
}
