//! What the clients remember of all tasks, over all rounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

use super::{
    model::{Place, State},
    step::{Answer, Deed, Micros, Record, Spec, Step, now},
};

/// One task.
pub(crate) struct Life {
    pub(crate) spec: Spec,
    /// None as long as nobody was told.
    pub(crate) id: Option<String>,
    /// What it could be when it was last checked.
    pub(crate) states: Vec<State>,
    /// What happened since.
    pub(crate) fresh: Vec<Step>,
    /// What happened before.
    pub(crate) past: Vec<Step>,
}

impl Life {
    /// Whether something may still happen to the task.
    pub(crate) fn is_open(&self) -> bool {
        !self.states.iter().all(State::is_final)
    }
}

/// A claim that was never answered: it may have taken tasks of which nobody was told.
#[derive(Clone)]
pub(crate) struct LostClaim {
    pub(crate) step: Step,
    /// None stands for all.
    pub(crate) commands: Vec<&'static str>,
    pub(crate) count: usize,
}

/// Something that must not be.
pub(crate) struct Fault {
    pub(crate) round: u32,
    pub(crate) what: String,
    /// The task, by its name, if it is about one.
    pub(crate) task: Option<String>,
}

#[derive(Default)]
pub(crate) struct Book {
    /// All tasks by their names.
    pub(crate) lives: BTreeMap<String, Life>,
    /// Those to which something happened since they were last checked.
    pub(crate) touched: BTreeSet<String>,
    pub(crate) lost_claims: Vec<LostClaim>,
    pub(crate) faults: Vec<Fault>,
    /// Those to which something may still happen, and how many dead letters each command has.
    pub(crate) open: BTreeSet<String>,
    pub(crate) dead: BTreeMap<&'static str, usize>,
    /// The names that are idempotency keys.
    pub(crate) keys: Vec<String>,
    pub(crate) acknowledged: usize,
    pub(crate) unanswered: usize,
}

/// The book, and what all clients share beside it.
pub(crate) struct Ledger {
    book: Mutex<Book>,
    /// When it all began.
    pub(crate) origin: Micros,
    round: AtomicU32,
    dying: AtomicBool,
    /// About how many tasks are not finished.
    pub(crate) open: AtomicUsize,
}

impl Ledger {
    pub(crate) fn new() -> Ledger {
        Ledger {
            book: Mutex::default(),
            origin: now(),
            round: AtomicU32::new(0),
            dying: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub(crate) fn round(&self) -> u32 {
        self.round.load(Ordering::Relaxed)
    }

    /// A host is about to start.
    pub(crate) fn begin_round(&self, round: u32) {
        self.round.store(round, Ordering::Relaxed);
        self.dying.store(false, Ordering::SeqCst);
    }

    /// The host is about to be killed.
    pub(crate) fn begin_kill(&self) {
        self.dying.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_dying(&self) -> bool {
        self.dying.load(Ordering::SeqCst)
    }

    pub(crate) fn complain(&self, task: Option<&str>, what: impl Into<String>) {
        let fault = Fault { round: self.round(), what: what.into(), task: task.map(Into::into) };
        self.book().faults.push(fault);
    }

    /// A producer is about to enqueue a task. Answers how: whoever announces a key first decides.
    pub(crate) fn announce(&self, spec: Spec) -> Spec {
        let mut book = self.book();
        let name = spec.name.clone();
        if let Some(life) = book.lives.get(&name) {
            return life.spec.clone();
        }
        if spec.keyed {
            book.keys.push(name.clone());
        }
        let states = vec![State::absent()];
        let life =
            Life { spec: spec.clone(), id: None, states, fresh: Vec::new(), past: Vec::new() };
        book.open.insert(name.clone());
        book.lives.insert(name, life);
        spec
    }

    /// Something happened to a task.
    pub(crate) fn happened(&self, name: &str, step: Step) {
        let mut book = self.book();
        book.count(&step);
        book.add(name, step);
    }

    /// A host showed a task: it is one that somebody enqueued, and there is only one of it.
    pub(crate) fn shown(&self, step: Step, record: Record) {
        let mut book = self.book();
        book.count(&step);
        let name = record.spec.name.clone();
        let (round, who, id) = (step.round, step.who.clone(), record.id.clone());
        let fault = match book.lives.get_mut(&name) {
            None => Some(format!("{who} was shown task {id}, which nobody enqueued: {record:?}")),
            Some(life) => match &life.id {
                _ if !record.spec.is(&life.spec) => {
                    Some(format!("{who} was shown task {id} altered: {record:?}"))
                }
                Some(known) if *known != id => {
                    Some(format!("{who} was shown task {id}, which is task {known} once more"))
                }
                _ => {
                    life.id = Some(id);
                    None
                }
            },
        };
        match fault {
            Some(what) => book.faults.push(Fault { round, what, task: Some(name) }),
            None => book.add(&name, Step { answer: Answer::Task(Box::new(record)), ..step }),
        }
    }

    /// A claim was not answered.
    pub(crate) fn lost_claim(&self, claim: LostClaim) {
        let mut book = self.book();
        book.count(&claim.step);
        book.lost_claims.push(claim);
    }

    /// A step that begins now, and is not answered yet.
    pub(crate) fn step(&self, who: &str, subject: &'static str, deed: Deed) -> Step {
        let begin = now();
        Step {
            round: self.round(),
            begin,
            end: Micros::MAX,
            who: who.to_owned(),
            subject,
            deed,
            answer: Answer::None,
        }
    }
}

impl Book {
    fn count(&mut self, step: &Step) {
        // Claims are given with their answers.
        let lost = step.end == Micros::MAX;
        *(if lost { &mut self.unanswered } else { &mut self.acknowledged }) += 1;
    }

    fn add(&mut self, name: &str, step: Step) {
        self.touched.insert(name.to_owned());
        if let Some(life) = self.lives.get_mut(name) {
            life.fresh.push(step);
        }
    }

    /// Those to which something may still happen.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Life> {
        self.open.iter().filter_map(|name| self.lives.get(name))
    }

    /// What became of a task.
    pub(crate) fn settled(&mut self, name: &str) {
        let Some(life) = self.lives.get(name) else { return };
        if !life.is_open() && self.open.remove(name) {
            let dead = life.states.iter().any(|state| state.place == Place::Dead);
            *self.dead.entry(life.spec.command).or_default() += usize::from(dead);
        }
    }

    /// The host is dead: what it did not answer by `end` it never did.
    pub(crate) fn bury(&mut self, end: Micros) {
        for name in &self.touched {
            let Some(life) = self.lives.get_mut(name) else { continue };
            life.fresh.iter_mut().for_each(|step| step.end = step.end.min(end));
        }
        self.lost_claims.iter_mut().for_each(|claim| claim.step.end = claim.step.end.min(end));
    }
}
