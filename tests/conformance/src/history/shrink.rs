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

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

    use super::*;
    use crate::{case::Rule, history::check};

    fn step(begin: i64, deed: Deed, end: i64, answer: Answer) -> Step {
        Step { who: "h0/w0".into(), begin, deed, end: Some((end, answer)) }
    }

    fn enqueue(at: i64, id: &str) -> Step {
        let (id, command) = (id.to_owned(), "render".to_owned());
        let answer = Answer::Enqueued { id: id.clone(), created: true };
        let key = String::new();
        let deed = Deed::Enqueue { id, command, priority: 0, key, visible_at: 0, max_attempts: 4 };
        step(at, deed, at + 10, answer)
    }

    /// A claim for 50 ms. Times are in microseconds, deadlines in milliseconds.
    fn claim(at: i64, id: &str, worker: &str, attempts: u32) -> Step {
        let deed =
            Deed::Claim { worker: worker.into(), commands: vec!["render".into()], lease: 50 };
        let got = Got {
            id: id.into(),
            command: "render".into(),
            priority: 0,
            attempts,
            max_attempts: 4,
            lease_until: at / 1_000 + 50,
        };
        step(at, deed, at + 10, Answer::Claimed { tasks: vec![got] })
    }

    fn check_of(rule: Rule) -> &'static Check {
        check::ALL.iter().find(|check| check.rule == rule).expect("a check of that rule")
    }

    #[test]
    fn a_history_that_does_not_hold_is_told_by_the_steps_that_show_it() {
        let steps = vec![
            enqueue(0, "a"),
            enqueue(20, "b"),
            claim(1_000, "b", "w1", 1),
            claim(2_000, "a", "w2", 1),
            claim(9_000, "a", "w3", 2),
            claim(70_000, "b", "w4", 2),
        ];
        let history = History { steps, ..History::default() };
        let told = explain(check_of(Rule::OneOwner), &history).expect("two owners");
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        assert!(lines[0].contains("w2 and w3 held task a at once"), "{told}");
        assert!(lines[1].contains("claim by w2") && lines[2].contains("claim by w3"), "{told}");
    }

    #[test]
    fn a_history_that_holds_is_not_told() {
        let steps = vec![
            enqueue(0, "a"),
            claim(1_000, "a", "w1", 1),
            // The first lease is over.
            claim(52_000, "a", "w2", 2),
        ];
        let history = History { steps, ..History::default() };
        for check in check::ALL {
            assert_eq!(explain(check, &history), None, "{}", check.name);
        }
    }

    #[test]
    fn who_is_overtaken_is_found() {
        let steps = vec![
            enqueue(0, "first"),
            enqueue(100, "second"),
            claim(1_000, "second", "w1", 1),
            claim(2_000, "first", "w2", 1),
        ];
        let history = History { steps, ..History::default() };
        let told = explain(check_of(Rule::Order), &history).expect("an order");
        assert!(told.starts_with("task first was enqueued before task second"), "{told}");
    }

    #[test]
    fn an_operation_that_was_never_answered_may_have_been_done_or_not() {
        let mut lost = claim(1_000, "a", "w1", 1);
        lost.end = None;
        let steps = vec![enqueue(0, "a"), lost, claim(80_000, "a", "w2", 2)];
        let history = History { steps, ..History::default() };
        for check in check::ALL {
            assert_eq!(explain(check, &history), None, "{}", check.name);
        }
    }
}
