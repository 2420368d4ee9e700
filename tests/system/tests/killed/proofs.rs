//! Proofs that the check can fail, and that it does not where it must not: histories made up by hand.

use super::{
    explain::explain,
    ledger::Ledger,
    model::{Place, State},
    step::{Answer, Deed, MILLI, Micros, Record, SECOND, Spec, Step},
};

const LEASE: Micros = 2 * SECOND;

fn spec() -> Spec {
    Spec {
        name: "some".into(),
        keyed: false,
        command: "render",
        priority: 0,
        max_attempts: 3,
        delay: 0,
    }
}

/// A task, as a host shows it.
fn task(place: &str, attempts: u32, lease: Option<(&str, Micros)>) -> Answer {
    let (status, location) = match place {
        "waiting" => ("PENDING", "PENDING_LIST"),
        "delayed" => ("PENDING", "DELAYED_ZSET"),
        "leased" => ("IN_PROGRESS", "INPROG_SET"),
        "completed" => ("COMPLETED", "NONE"),
        "dead" => ("FAILED", "DLQ_SET"),
        other => panic!("{other}"),
    };
    let shown = serde_json::json!({
        "id": "1", "command": "render", "payload": r#"{"name":"some"}"#, "maxAttempts": 3,
        "status": status, "lastKnownLocation": location, "attempts": attempts,
    });
    let mut record = Box::new(Record::read(&shown).unwrap());
    if let Some((worker, until)) = lease {
        (record.worker, record.until) = (worker.into(), Some(until));
    }
    Answer::Task(record)
}

/// An operation at a moment in milliseconds, which takes two.
fn step(at: i64, subject: &'static str, deed: Deed, answer: Answer) -> Step {
    let (begin, end) = (at * MILLI, (at + 2) * MILLI);
    Step { round: 1, begin, end, who: "w".into(), subject, deed, answer }
}

fn enqueue(at: i64) -> Step {
    step(at, "right", Deed::Enqueue, task("waiting", 0, None))
}

fn claim(at: i64, subject: &'static str, attempts: u32) -> Step {
    let leased = task("leased", attempts, Some((subject, at * MILLI + LEASE)));
    step(at, subject, Deed::Claim { lease: LEASE }, leased)
}

fn lost_claim(at: i64, subject: &'static str) -> Step {
    step(at, subject, Deed::Claim { lease: LEASE }, Answer::None)
}

fn complete(at: i64, subject: &'static str) -> Step {
    step(at, subject, Deed::Complete { result: "1".into() }, Answer::Done)
}

fn nack(at: i64, subject: &'static str, delay: i64) -> Step {
    let deed = Deed::Nack { delay: delay * MILLI, reason: String::new() };
    step(at, subject, deed, Answer::Done)
}

fn look(at: i64, answer: Answer) -> Step {
    step(at, "left", Deed::Look, answer)
}

fn result(at: i64, result: &str) -> Step {
    let Answer::Task(record) = task("completed", 1, None) else { panic!() };
    look(at, Answer::Task(Box::new(Record { result: Some(result.into()), ..*record })))
}

fn unanswered(step: Step) -> Step {
    Step { answer: Answer::None, ..step }
}

/// What a task can be after this.
fn after(steps: &[Step]) -> Option<Vec<Place>> {
    let states = explain(&spec(), &[State::absent()], steps).ok()?;
    Some(states.into_iter().map(|state| state.place).collect())
}

fn makes_sense(steps: &[Step]) -> bool {
    after(steps).is_some()
}

#[test]
fn a_task_that_is_enqueued_claimed_and_completed_makes_sense() {
    let steps = [enqueue(0), claim(10, "left", 1), complete(20, "left"), result(30, "1")];
    assert_eq!(after(&steps), Some(vec![Place::Completed("1".into())]));
}

#[test]
fn a_task_that_is_gone_is_noticed() {
    assert!(!makes_sense(&[enqueue(0), look(10, Answer::Missing)]));
    assert!(makes_sense(&[unanswered(enqueue(0)), look(10, Answer::Missing)]));
    assert!(makes_sense(&[unanswered(enqueue(0)), look(10, task("waiting", 0, None))]));
}

#[test]
fn two_leases_at_a_time_are_noticed() {
    assert!(!makes_sense(&[enqueue(0), claim(10, "left", 1), claim(20, "right", 2)]));
    assert!(!makes_sense(&[enqueue(0), claim(10, "left", 1), claim(11, "left", 1)]));
    // The first one has run out.
    assert!(makes_sense(&[enqueue(0), claim(10, "left", 1), claim(2_010, "right", 2)]));
    assert!(!makes_sense(&[enqueue(0), claim(10, "left", 1), claim(2_007, "right", 2)]));
}

#[test]
fn a_heartbeat_that_was_forgotten_is_noticed() {
    let by = 10 * SECOND;
    let beat = step(20, "left", Deed::Heartbeat { by }, Answer::Done);
    let steps = [enqueue(0), claim(10, "left", 1), beat, claim(2_020, "right", 2)];
    assert!(!makes_sense(&steps));
    let [enqueued, claimed, beat, again] = steps;
    assert!(makes_sense(&[enqueued, claimed, unanswered(beat), again]));
}

#[test]
fn a_completed_task_that_is_delivered_is_noticed() {
    let steps = [enqueue(0), claim(10, "left", 1), complete(20, "left"), claim(3_000, "left", 2)];
    assert!(!makes_sense(&steps));
    let [enqueued, claimed, completed, again] = steps;
    assert!(makes_sense(&[enqueued, claimed, unanswered(completed), again]));
}

#[test]
fn another_result_is_noticed() {
    let begin = [enqueue(0), claim(10, "left", 1), complete(20, "left")];
    assert!(!makes_sense(&[&begin[..], &[result(30, "2")]].concat()));
    assert!(!makes_sense(&[&begin[..], &[look(30, task("waiting", 1, None))]].concat()));
}

#[test]
fn a_nack_that_was_undone_is_noticed() {
    let begin = [enqueue(0), claim(10, "left", 1), nack(20, "left", 0)];
    let leased = look(30, task("leased", 1, Some(("left", 10 * MILLI + LEASE))));
    assert!(!makes_sense(&[&begin[..], std::slice::from_ref(&leased)].concat()));
    let [enqueued, claimed, nacked] = begin;
    assert!(makes_sense(&[enqueued, claimed, unanswered(nacked), leased]));
}

#[test]
fn a_delivery_too_early_or_too_often_is_noticed() {
    let nacked = |delay| [enqueue(0), claim(10, "left", 1), nack(20, "left", delay)];
    assert!(!makes_sense(&[&nacked(500)[..], &[claim(400, "left", 2)]].concat()));
    assert!(makes_sense(&[&nacked(500)[..], &[claim(530, "left", 2)]].concat()));
    assert!(!makes_sense(&[&nacked(0)[..], &[claim(30, "left", 3)]].concat()));
    assert!(!makes_sense(&[&nacked(0)[..], &[claim(30, "left", 1)]].concat()));
}

#[test]
fn an_abandoned_task_that_counts_the_delivery_is_noticed() {
    let abandon = step(20, "left", Deed::Abandon, Answer::Done);
    let begin = [enqueue(0), claim(10, "left", 1), abandon];
    assert!(!makes_sense(&[&begin[..], &[look(30, task("waiting", 1, None))]].concat()));
    assert!(makes_sense(&[&begin[..], &[look(30, task("waiting", 0, None))]].concat()));
}

#[test]
fn a_dead_letter_that_is_none_or_should_be_one_is_noticed() {
    let claims = [enqueue(0), claim(10, "left", 1), claim(2_020, "left", 2)];
    assert!(!makes_sense(&[&claims[..], &[look(5_000, task("dead", 2, None))]].concat()));
    let last = [&claims[..], &[claim(4_030, "left", 3)]].concat();
    assert!(!makes_sense(&[&last[..], &[look(9_000, task("waiting", 3, None))]].concat()));
    assert!(makes_sense(&[&last[..], &[look(9_000, task("dead", 3, None))]].concat()));
    assert!(!makes_sense(&[&last[..], &[nack(4_040, "left", 0)]].concat()));
}

#[test]
fn a_stranger_who_succeeds_is_noticed() {
    assert!(!makes_sense(&[enqueue(0), claim(10, "left", 1), complete(20, "right")]));
}

#[test]
fn an_owner_who_is_refused_is_noticed() {
    for status in [403, 404, 409] {
        let refused = Step { answer: Answer::Refused(status), ..complete(20, "left") };
        assert!(!makes_sense(&[enqueue(0), claim(10, "left", 1), refused]));
    }
    // It came too late.
    let late = Step { answer: Answer::Refused(409), ..complete(2_010, "left") };
    assert!(makes_sense(&[enqueue(0), claim(10, "left", 1), late]));
}

#[test]
fn a_lease_that_nobody_was_told_of_needs_an_unanswered_claim() {
    let leased = look(30, task("leased", 1, Some(("left", 10 * MILLI + LEASE))));
    assert!(!makes_sense(&[enqueue(0), leased.clone()]));
    assert!(makes_sense(&[enqueue(0), lost_claim(10, "left"), leased.clone()]));
    assert!(!makes_sense(&[enqueue(0), lost_claim(10, "right"), leased.clone()]));
    // Its lease would end later.
    assert!(!makes_sense(&[enqueue(0), lost_claim(20, "left"), leased]));
}

/// The faults in a ledger in which `some` was enqueued as task 1.
fn faults_after(show: impl Fn(&Ledger, Step, Record)) -> Vec<String> {
    let ledger = Ledger::new();
    ledger.announce(spec());
    let Answer::Task(record) = task("waiting", 0, None) else { panic!() };
    ledger.shown(enqueue(0), (*record).clone());
    show(&ledger, look(10, Answer::None), *record);
    let book = ledger.book();
    book.faults.iter().map(|fault| fault.what.clone()).collect()
}

#[test]
fn a_task_that_is_doubled_altered_or_made_up_is_noticed() {
    assert!(faults_after(Ledger::shown).is_empty());
    let doubled = faults_after(|ledger, step, record| {
        ledger.shown(step, Record { id: "2".into(), ..record });
    });
    assert!(doubled[0].contains("once more"), "{doubled:?}");
    let made_up = faults_after(|ledger, step, mut record| {
        record.spec.name = "other".into();
        ledger.shown(step, record);
    });
    assert!(made_up[0].contains("nobody enqueued"), "{made_up:?}");
    let altered = faults_after(|ledger, step, record| {
        ledger.book().lives.get_mut("some").unwrap().spec.priority = 5;
        ledger.shown(step, record);
    });
    assert!(altered[0].contains("altered"), "{altered:?}");
}
