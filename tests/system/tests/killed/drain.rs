//! The end: everything that is left is delivered and completed, and then nothing is left.

use std::time::{Duration, Instant as Clock};

use super::{
    checks::{Scope, check},
    counts,
    ledger::Ledger,
    model::State,
    producers::connect,
    step::SECOND,
    workers::{COMMANDS, Subject, Worker},
};

/// By then every lease has run out and every delay is over, and there was time to complete it all.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn drain(ledger: &Ledger, addr: &str, workers: &mut [Worker], last: &mut Worker) {
    for worker in &mut *workers {
        let Some(mut wire) = connect(ledger, addr, worker.subject) else { return };
        // The leases of the others have to run out.
        let half = worker.held.len() / 2;
        worker.complete_all(ledger, &mut wire, half);
        worker.held.clear();
    }
    let Some(mut wire) = connect(ledger, addr, last.subject) else { return };
    let Some(mut admin) = connect(ledger, addr, Subject::RIGHT) else { return };
    let deadline = Clock::now() + LIMIT;
    loop {
        let lease = [30 * SECOND, 1];
        let got = last.take(ledger, &mut wire, COMMANDS.to_vec(), 10, lease, true);
        let done = last.complete_all(ledger, &mut wire, 0);
        if got.and(done).is_none() || !ledger.book().faults.is_empty() {
            return;
        }
        if got == Some(0) && counts::are_drained(ledger, &mut admin) {
            break;
        }
        if Clock::now() > deadline {
            ledger.complain(None, format!("after {LIMIT:?} there are still tasks to be had"));
            break;
        }
    }
    // What nobody was told of, and nobody was given, never was.
    for life in ledger.book().lives.values_mut().filter(|life| life.id.is_none()) {
        life.states = vec![State::absent()];
    }
    check(ledger, addr, workers, Scope::All);
    let unfinished: Vec<String> = {
        let book = ledger.book();
        let open = book.open().filter(|life| life.id.is_some());
        open.map(|life| life.spec.name.clone()).collect()
    };
    for name in unfinished {
        ledger.complain(Some(&name), "a task was never delivered again");
    }
}
