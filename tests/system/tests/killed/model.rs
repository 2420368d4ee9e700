//! What a task can be, and what an operation makes of it.
//!
//! Where only bounds are known, the bounds are kept: a heartbeat ends the lease so much after the
//! moment at which it took effect, and that was some time between its beginning and its answer.

use super::step::{Answer, Deed, MILLI, Micros, Record, Spec, Step};

/// How far apart the clocks of clients and backend may be: they are one clock, but it is read in whole
/// milliseconds, and by some servers once for several operations.
const BLUR: Micros = 5 * MILLI;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) place: Place,
    pub(crate) attempts: u32,
    /// What its error must be, where that is known.
    error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Not enqueued yet.
    Absent,
    /// Enqueued by a host that was killed before it said so, and maybe claimed by such a host since.
    Unseen { from: Micros },
    /// Claimable at a moment between these, at once if they are 0.
    Waiting { from: Micros, to: Micros },
    /// Leased until a moment between these.
    Leased { to: String, from: Micros, until: Micros },
    /// Completed with this result.
    Completed(String),
    /// A dead letter.
    Dead,
}

impl State {
    fn new(place: Place, attempts: u32) -> State {
        State { place, attempts, error: None }
    }

    pub(crate) fn absent() -> State {
        State::new(Place::Absent, 0)
    }

    /// A task of which only unanswered enqueues are known.
    pub(crate) fn unseen(spec: &Spec, steps: &[Step]) -> State {
        let begin = steps.iter().map(|step| step.begin).min().unwrap_or(0);
        State::new(Place::Unseen { from: begin + spec.delay - BLUR }, 0)
    }

    /// Whether the lease that there is may be one that this claim took.
    pub(crate) fn may_be_leased_by(&self, claim: &Step) -> bool {
        let (Place::Leased { to, from, .. }, Deed::Claim { lease }) = (&self.place, &claim.deed)
        else {
            return false;
        };
        to == claim.subject
            && (claim.begin + lease - BLUR..=claim.end + lease + BLUR).contains(from)
    }

    /// Whether nothing happens to the task any more.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.place, Place::Completed(_) | Place::Dead)
    }

    /// What becomes of the task by itself until `end`, and when: its lease runs out.
    pub(crate) fn left_alone(
        &self,
        spec: &Spec,
        at: Micros,
        end: Micros,
    ) -> Option<(State, Micros)> {
        let Place::Leased { from, .. } = self.place else { return None };
        let at = at.max(from);
        (at <= end).then(|| (self.failed(spec, 0..0), at))
    }

    /// The task after a delivery that came to nothing.
    fn failed(&self, spec: &Spec, due: std::ops::Range<Micros>) -> State {
        let place = if self.attempts >= spec.max_attempts {
            Place::Dead
        } else {
            Place::Waiting { from: due.start, to: due.end }
        };
        State::new(place, self.attempts)
    }

    /// What an operation makes of the task, and when at the earliest; none if the task cannot have
    /// been so. `at` is the earliest moment.
    pub(crate) fn after(&self, spec: &Spec, step: &Step, at: Micros) -> Option<(State, Micros)> {
        let at = at.max(step.begin);
        if at > step.end {
            return None;
        }
        let by = |moment: Micros| Some(at.max(moment)).filter(|at| *at <= step.end);
        let span = |length: Micros| at + length - BLUR..step.end + length;
        let mine = matches!(&self.place, Place::Leased { to, .. } if to == step.subject);
        match (&step.deed, &step.answer) {
            (Deed::Enqueue, answer) if self.place == Place::Absent => {
                let due = if spec.delay > 0 { span(spec.delay) } else { 0..0 };
                let new = State::new(Place::Waiting { from: due.start, to: due.end }, 0);
                match answer {
                    Answer::None => Some((new, at)),
                    Answer::Task(record) => new.shown_as(record, at, step.end),
                    _ => None,
                }
            }
            (Deed::Enqueue | Deed::Look, Answer::Task(record)) => {
                self.shown_as(record, at, step.end)
            }
            (Deed::Look, Answer::Missing) => {
                (self.place == Place::Absent).then(|| (self.clone(), at))
            }
            (Deed::Claim { lease }, answer) => {
                let from = match self.place {
                    Place::Unseen { from } | Place::Waiting { from, .. } => from,
                    _ => return None,
                };
                let at = by(from)?;
                let lease = at + lease - BLUR..step.end + lease + BLUR;
                let to = step.subject.to_owned();
                let leased = Place::Leased { to, from: lease.start, until: lease.end };
                let leased = match (answer, &self.place) {
                    (Answer::Task(record), Place::Unseen { .. }) => {
                        State::new(leased, record.attempts)
                    }
                    _ => State { place: leased, attempts: self.attempts + 1, ..self.clone() },
                };
                match answer {
                    Answer::None => Some((leased, at)),
                    Answer::Task(record) if record.attempts > 0 => {
                        leased.shown_as(record, at, step.end)
                    }
                    _ => None,
                }
            }
            (_, Answer::Refused(403)) => {
                (!mine && matches!(self.place, Place::Leased { .. })).then(|| (self.clone(), at))
            }
            (_, Answer::Refused(409)) => {
                let nobody =
                    matches!(self.place, Place::Waiting { .. } | Place::Completed(_) | Place::Dead);
                nobody.then(|| (self.clone(), at))
            }
            (_, Answer::Refused(_)) => None,
            _ if !mine => None,
            (Deed::Heartbeat { by }, _) => {
                let until = span(*by);
                let to = step.subject.to_owned();
                let place = Place::Leased { to, from: until.start, until: until.end + BLUR };
                Some((State { place, ..self.clone() }, at))
            }
            (Deed::Abandon, _) => {
                let waiting = Place::Waiting { from: 0, to: 0 };
                Some((State::new(waiting, self.attempts.saturating_sub(1)), at))
            }
            (Deed::Nack { delay, reason }, answer) => {
                let due = if *delay > 0 { span(*delay) } else { 0..0 };
                let failed = State { error: Some(reason.clone()), ..self.failed(spec, due) };
                let buried = failed.place == Place::Dead;
                let so = match answer {
                    Answer::Done => !buried,
                    Answer::Buried => buried,
                    _ => true,
                };
                so.then_some((failed, at))
            }
            (Deed::Complete { result }, _) => {
                Some((State::new(Place::Completed(result.clone()), self.attempts), at))
            }
            _ => None,
        }
    }

    /// The task as a record has it, if that can be.
    fn shown_as(&self, record: &Record, at: Micros, end: Micros) -> Option<(State, Micros)> {
        if let Place::Unseen { .. } = self.place {
            return Some((State::of(record)?, at));
        }
        let error = self.error.as_ref().is_none_or(|error| *error == record.error);
        if !error || record.attempts != self.attempts {
            return None;
        }
        let looks = (record.status.as_str(), record.location.as_str());
        let exact = |place: Place| State { place, ..self.clone() };
        match (&self.place, looks) {
            (Place::Waiting { from, .. }, ("PENDING", "PENDING_LIST")) => {
                let at = at.max(*from);
                (at <= end && record.until.is_none())
                    .then(|| (exact(Place::Waiting { from: 0, to: 0 }), at))
            }
            (Place::Waiting { to, .. }, ("PENDING", "DELAYED_ZSET")) => {
                (*to > 0 && record.until.is_none()).then(|| (self.clone(), at))
            }
            (Place::Leased { to, from, until }, ("IN_PROGRESS", "INPROG_SET")) => {
                let shown = record.until.filter(|shown| (*from..=*until).contains(shown))?;
                let leased = Place::Leased { to: to.clone(), from: shown, until: shown };
                (*to == record.worker).then(|| (exact(leased), at))
            }
            (Place::Completed(result), ("COMPLETED", "NONE")) => {
                let same = record.result.as_ref().is_none_or(|shown| shown == result);
                same.then(|| (self.clone(), at))
            }
            (Place::Dead, ("FAILED", "DLQ_SET")) => Some((self.clone(), at)),
            _ => None,
        }
    }

    /// A task of which nothing but its record is known.
    fn of(record: &Record) -> Option<State> {
        let place = match (record.status.as_str(), record.location.as_str(), record.until) {
            ("PENDING", "PENDING_LIST", None) => Place::Waiting { from: 0, to: 0 },
            // When it is due, its record does not tell.
            ("PENDING", "DELAYED_ZSET", None) => Place::Waiting { from: 0, to: Micros::MAX },
            ("IN_PROGRESS", "INPROG_SET", Some(until)) => {
                Place::Leased { to: record.worker.clone(), from: until, until }
            }
            _ => return None,
        };
        Some(State::new(place, record.attempts))
    }
}
