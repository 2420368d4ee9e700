//! The counts of the queues against what is known of the tasks.

use super::{
    ledger::Ledger,
    model::Place,
    producers::heard,
    step::{Micros, now},
    wire::Wire,
    workers::COMMANDS,
};

const PLACES: [&str; 4] = ["ready", "delayed", "inProgress", "dlq"];
const READY: usize = 0;
const DELAYED: usize = 1;
const LEASED: usize = 2;
const DEAD: usize = 3;

/// How many tasks there must be, and can be.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    least: u64,
    most: u64,
}

/// What the counts of a queue must be like.
#[derive(Debug, Default)]
struct Expected {
    places: [Bounds; 4],
    all: Bounds,
}

/// Compares the counts of every queue.
pub(crate) fn check(ledger: &Ledger, wire: &mut Wire) {
    for command in COMMANDS {
        let path = format!("/admin/queues/{command}");
        let Some((status, answer)) = heard(ledger, &path, wire.get(&path)) else { return };
        let counts = PLACES.map(|place| answer[place].as_u64().unwrap_or(u64::MAX));
        let expected = expected(ledger, command, now());
        if status != 200 || !expected.allow(counts) {
            let what = format!("{path} is answered {status} {answer} instead of {expected:?}");
            ledger.complain(None, what);
        }
    }
}

/// Whether the queues have nothing but dead letters.
pub(crate) fn are_drained(ledger: &Ledger, wire: &mut Wire) -> bool {
    COMMANDS.iter().all(|command| {
        let path = format!("/admin/queues/{command}");
        let answer = heard(ledger, &path, wire.get(&path));
        answer.is_some_and(|(_, counts)| PLACES[..3].iter().all(|place| counts[place] == 0))
    })
}

fn expected(ledger: &Ledger, command: &str, now: Micros) -> Expected {
    let mut expected = Expected::default();
    let book = ledger.book();
    for _ in 0..book.dead.get(command).copied().unwrap_or(0) {
        expected.add(&[Some(DEAD)]);
    }
    for life in book.open().filter(|life| life.spec.command == command) {
        let mut places: Vec<Option<usize>> = Vec::new();
        for state in &life.states {
            let at_limit = state.attempts >= life.spec.max_attempts;
            let may_be: &[Option<usize>] = match state.place {
                Place::Absent | Place::Completed(_) => &[None],
                Place::Unseen { .. } => &[Some(READY), Some(DELAYED), Some(LEASED)],
                Place::Waiting { to: 0, .. } => &[Some(READY)],
                Place::Waiting { from, .. } if from > now => &[Some(DELAYED)],
                Place::Waiting { .. } => &[Some(READY), Some(DELAYED)],
                Place::Leased { from, .. } if from > now => &[Some(LEASED)],
                Place::Leased { .. } if at_limit => &[Some(LEASED), Some(DEAD)],
                Place::Leased { .. } => &[Some(LEASED), Some(READY)],
                Place::Dead => &[Some(DEAD)],
            };
            places.extend_from_slice(may_be);
        }
        places.sort_unstable();
        places.dedup();
        expected.add(&places);
    }
    expected
}

impl Expected {
    /// A task that is in one of these places, or in none.
    fn add(&mut self, places: &[Option<usize>]) {
        for place in places.iter().copied().flatten() {
            self.places[place].most += 1;
            self.places[place].least += u64::from(places.len() == 1);
        }
        self.all.most += u64::from(places.iter().any(Option::is_some));
        self.all.least += u64::from(!places.is_empty() && places.iter().all(Option::is_some));
    }

    fn allow(&self, counts: [u64; 4]) -> bool {
        let within = |bounds: &Bounds, count: u64| (bounds.least..=bounds.most).contains(&count);
        let each = self.places.iter().zip(counts).all(|(bounds, count)| within(bounds, count));
        each && within(&self.all, counts.iter().sum())
    }
}
