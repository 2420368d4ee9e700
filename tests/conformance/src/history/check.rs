//! What must hold in every history.
//!
//! Only what is certain counts: an operation took effect at some moment between its beginning and its
//! answer, and one that was never answered may have taken effect or not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Deed, Got, History, Micros, Step};
use crate::case::Rule;

/// One thing that must hold.
#[derive(Clone, Copy)]
pub struct Check {
    /// The rule that it belongs to.
    pub rule: Rule,
    /// What holds, as a sentence with underscores.
    pub name: &'static str,
    find: fn(&View<'_>) -> Option<Breach>,
}

/// Where it does not hold.
#[derive(Clone, Debug)]
pub struct Breach {
    /// What happened.
    pub what: String,
    /// The tasks that it happened to.
    pub tasks: Vec<String>,
}

impl Check {
    /// The first place in a history where this does not hold.
    pub fn find(&self, history: &History) -> Option<Breach> {
        (self.find)(&View::of(history))
    }
}

/// What must hold in any history.
pub const ALL: &[Check] = &[
    Check { rule: Rule::OneOwner, name: "no_task_has_two_owners_at_a_time", find: two_owners },
    Check { rule: Rule::Order, name: "who_came_first_is_served_first", find: overtaken },
    Check { rule: Rule::Delay, name: "no_task_is_claimed_before_its_time", find: too_early },
    Check { rule: Rule::Attempts, name: "deliveries_are_counted_and_limited", find: miscounted },
    Check { rule: Rule::Leases, name: "leases_last_as_asked_and_run_out", find: bad_lease },
    Check { rule: Rule::Fencing, name: "only_the_owner_succeeds", find: stale_success },
    Check { rule: Rule::Idempotency, name: "one_key_gives_one_task", find: two_for_a_key },
    Check { rule: Rule::Counts, name: "no_task_is_lost_and_the_counts_are_right", find: lost },
    Check { rule: Rule::Completion, name: "a_completed_task_stays_completed", find: uncompleted },
    Check { rule: Rule::Life, name: "no_operation_fails_without_reason", find: failed },
];

/// A history, by task.
struct View<'a> {
    history: &'a History,
    tasks: BTreeMap<&'a str, Life<'a>>,
    /// Whether a claim was never answered, which may have taken any task.
    lost_claims: bool,
}

/// What happened to one task.
#[derive(Default)]
struct Life<'a> {
    enqueued: Option<&'a Step>,
    claims: Vec<Taken<'a>>,
    /// What its workers did.
    deeds: Vec<&'a Step>,
}

#[derive(Clone, Copy)]
struct Taken<'a> {
    step: &'a Step,
    worker: &'a str,
    lease: i64,
    got: &'a Got,
    begin: Micros,
    end: Micros,
}

impl<'a> View<'a> {
    fn of(history: &'a History) -> View<'a> {
        let mut tasks: BTreeMap<&str, Life<'_>> = BTreeMap::new();
        let mut lost_claims = false;
        for step in &history.steps {
            match (&step.deed, &step.end) {
                (Deed::Enqueue { id, .. }, end) => {
                    let made = match end {
                        Some((_, Answer::Enqueued { id: answered, .. })) => answered == id,
                        _ => true,
                    };
                    if made {
                        tasks.entry(id).or_default().enqueued = Some(step);
                    }
                }
                (
                    Deed::Claim { worker, lease, .. },
                    Some((end, Answer::Claimed { tasks: got })),
                ) => {
                    for got in got {
                        tasks.entry(&got.id).or_default().claims.push(Taken {
                            step,
                            worker,
                            lease: *lease,
                            got,
                            begin: step.begin,
                            end: *end,
                        });
                    }
                }
                (Deed::Claim { .. }, end) => {
                    lost_claims |= end.is_none();
                }
                (
                    Deed::Extend { id, .. }
                    | Deed::Abandon { id, .. }
                    | Deed::Nack { id, .. }
                    | Deed::Complete { id, .. },
                    _,
                ) => tasks.entry(id).or_default().deeds.push(step),
            }
        }
        for life in tasks.values_mut() {
            life.claims.sort_by_key(|taken| taken.end);
        }
        View { history, tasks, lost_claims }
    }
}

impl Life<'_> {
    fn deeds_of<'b>(&'b self, worker: &'b str) -> impl Iterator<Item = &'b Step> + 'b {
        self.deeds.iter().copied().filter(move |step| worker_of(&step.deed) == Some(worker))
    }
}

fn worker_of(deed: &Deed) -> Option<&str> {
    match deed {
        Deed::Extend { worker, .. }
        | Deed::Abandon { worker, .. }
        | Deed::Nack { worker, .. }
        | Deed::Complete { worker, .. }
        | Deed::Claim { worker, .. } => Some(worker),
        Deed::Enqueue { .. } => None,
    }
}

impl Step {
    /// Whether it was done for certain.
    fn succeeded(&self) -> bool {
        matches!(&self.end, Some((_, Answer::Done | Answer::Until { .. })))
    }

    /// Whether it may have been done.
    fn may_have_been_done(&self) -> bool {
        match &self.end {
            None => true,
            Some((_, answer)) => !matches!(answer, Answer::Refused { .. }),
        }
    }

    fn end(&self) -> Micros {
        self.end.as_ref().map_or(Micros::MAX, |(end, _)| *end)
    }
}

fn breach(what: String, task: &str) -> Option<Breach> {
    Some(Breach { what, tasks: vec![task.to_owned()] })
}

/// The times in which a worker holds a task for certain.
fn holds(life: &Life<'_>, taken: &Taken<'_>) -> Vec<(Micros, Micros)> {
    let mut holds = Vec::new();
    let (mut from, mut until) = (taken.end, taken.got.lease_until * 1_000);
    for step in life.deeds_of(taken.worker).filter(|step| step.may_have_been_done()) {
        match (&step.deed, &step.end) {
            (Deed::Extend { .. }, Some((end, Answer::Until { deadline }))) => {
                holds.push((from, until.min(step.begin)));
                (from, until) = (*end, deadline * 1_000);
            }
            _ => {
                until = until.min(step.begin);
                if !matches!(step.deed, Deed::Extend { .. }) {
                    break;
                }
            }
        }
    }
    holds.push((from, until));
    // What another worker did to the task, be it that he had no right to, ended it.
    let foreign = life.deeds.iter().filter(|step| {
        worker_of(&step.deed) != Some(taken.worker) && step.succeeded() && step.begin >= taken.end
    });
    if let Some(end) = foreign.map(|step| step.begin).min() {
        holds.iter_mut().for_each(|(_, until)| *until = end.min(*until));
    }
    holds.retain(|(from, until)| from < until);
    holds
}

fn two_owners(view: &View<'_>) -> Option<Breach> {
    for (id, life) in &view.tasks {
        let mut holds: Vec<_> = life
            .claims
            .iter()
            .flat_map(|taken| holds(life, taken).into_iter().map(move |hold| (hold, taken.worker)))
            .collect();
        holds.sort();
        for pair in holds.windows(2) {
            let [((_, until), one), ((from, _), other)] = pair else { continue };
            if from < until && one != other {
                let overlap = until - from;
                let what = format!("{one} and {other} held task {id} at once, for {overlap} µs");
                return breach(what, id);
            }
        }
    }
    None
}

/// A task's first delivery, if it was claimable from the moment it was enqueued.
struct First<'a> {
    id: &'a str,
    enqueued: (Micros, Micros),
    claimed: (Micros, Micros),
    priority: i64,
}

fn first<'a>(id: &'a str, life: &Life<'a>) -> Option<(&'a str, First<'a>)> {
    let enqueued = life.enqueued?;
    let Deed::Enqueue { command, visible_at: 0, priority, .. } = &enqueued.deed else {
        return None;
    };
    let (end, Answer::Enqueued { created: true, .. }) = enqueued.end.as_ref()? else {
        return None;
    };
    let taken = life.claims.first().filter(|taken| taken.got.attempts == 1)?;
    let claimed = (taken.begin, taken.end);
    Some((command, First { id, enqueued: (enqueued.begin, *end), claimed, priority: *priority }))
}

fn overtaken(view: &View<'_>) -> Option<Breach> {
    let mut queues: BTreeMap<&str, Vec<First<'_>>> = BTreeMap::new();
    for (id, life) in &view.tasks {
        if let Some((command, first)) = first(id, life) {
            queues.entry(command).or_default().push(first);
        }
    }
    queues.values().find_map(|firsts| {
        out_of_turn(firsts).or_else(|| out_of_rank(firsts)).or_else(|| out_of_line(view, firsts))
    })
}

/// First in, first out within a priority.
fn out_of_turn(firsts: &[First<'_>]) -> Option<Breach> {
    let priorities: BTreeSet<i64> = firsts.iter().map(|first| first.priority).collect();
    for priority in priorities {
        let mut late: Vec<_> = firsts.iter().filter(|first| first.priority == priority).collect();
        let mut early = late.clone();
        early.sort_by_key(|first| first.enqueued.1);
        late.sort_by_key(|first| first.enqueued.0);
        let mut early = early.into_iter().peekable();
        let mut last: Option<&First<'_>> = None;
        for other in late {
            while let Some(next) = early.next_if(|next| next.enqueued.1 < other.enqueued.0) {
                if last.is_none_or(|last| next.claimed.0 > last.claimed.0) {
                    last = Some(next);
                }
            }
            if let Some(one) = last.filter(|one| other.claimed.1 < one.claimed.0) {
                let what = format!(
                    "task {} was enqueued before task {} of the same priority, and claimed after it",
                    one.id, other.id
                );
                return Some(Breach { what, tasks: vec![one.id.into(), other.id.into()] });
            }
        }
    }
    None
}

/// Higher priorities before lower ones.
fn out_of_rank(firsts: &[First<'_>]) -> Option<Breach> {
    let mut served: Vec<_> = firsts.iter().collect();
    served.sort_by_key(|first| first.claimed.0);
    let mut there: Vec<_> = firsts.iter().collect();
    there.sort_by_key(|first| first.enqueued.1);
    let mut there = there.into_iter().peekable();
    let mut last: BTreeMap<i64, &First<'_>> = BTreeMap::new();
    for other in served {
        while let Some(next) = there.next_if(|next| next.enqueued.1 < other.claimed.0) {
            let slot = last.entry(next.priority).or_insert(next);
            if next.claimed.0 > slot.claimed.0 {
                *slot = next;
            }
        }
        let higher = last.range(other.priority + 1..).map(|(_, first)| *first);
        if let Some(one) = higher.into_iter().find(|one| other.claimed.1 < one.claimed.0) {
            let what = format!(
                "task {} of priority {} waited while task {} of priority {} was claimed",
                one.id, one.priority, other.id, other.priority
            );
            return Some(Breach { what, tasks: vec![one.id.into(), other.id.into()] });
        }
    }
    None
}

/// The same within the answer to one claim.
fn out_of_line(view: &View<'_>, firsts: &[First<'_>]) -> Option<Breach> {
    let firsts: BTreeMap<&str, &First<'_>> = firsts.iter().map(|first| (first.id, first)).collect();
    for step in &view.history.steps {
        let Some((_, Answer::Claimed { tasks })) = &step.end else { continue };
        let known: Vec<_> = tasks.iter().filter_map(|got| firsts.get(got.id.as_str())).collect();
        for pair in known.windows(2) {
            let [one, other] = pair else { continue };
            let wrong = one.priority < other.priority
                || one.priority == other.priority && other.enqueued.1 < one.enqueued.0;
            let first = one.claimed == other.claimed && one.claimed.0 == step.begin;
            if wrong && first {
                let what = format!("one claim answered task {} before task {}", one.id, other.id);
                return Some(Breach { what, tasks: vec![one.id.into(), other.id.into()] });
            }
        }
    }
    None
}

fn too_early(view: &View<'_>) -> Option<Breach> {
    for (id, life) in &view.tasks {
        let visible_at = match life.enqueued.map(|step| &step.deed) {
            Some(Deed::Enqueue { visible_at, .. }) => *visible_at * 1_000,
            _ => 0,
        };
        if let Some(taken) = life.claims.iter().find(|taken| taken.end < visible_at) {
            let early = visible_at - taken.end;
            return breach(format!("task {id} was claimed {early} µs before it was due"), id);
        }
        for step in life.deeds.iter().filter(|step| step.succeeded()) {
            let Deed::Nack { delay, .. } = &step.deed else { continue };
            let due = (step.begin / 1_000 + delay) * 1_000;
            let next = life.claims.iter().find(|taken| taken.begin >= step.end());
            if let Some(taken) = next.filter(|taken| taken.end < due) {
                let early = due - taken.end;
                let what = format!("task {id} was claimed {early} µs before its retry was due");
                return breach(what, id);
            }
        }
    }
    None
}

fn miscounted(view: &View<'_>) -> Option<Breach> {
    for (id, life) in &view.tasks {
        let abandons =
            || life.deeds.iter().filter(|step| matches!(step.deed, Deed::Abandon { .. }));
        for taken in &life.claims {
            let Got { attempts, max_attempts, .. } = *taken.got;
            if attempts > max_attempts {
                let what =
                    format!("task {id} was delivered for the {attempts}th time of {max_attempts}");
                return breach(what, id);
            }
            let others =
                || life.claims.iter().filter(|other| !std::ptr::eq(other.step, taken.step));
            let before = others().filter(|other| other.end <= taken.begin).count();
            let may_be_before = others().filter(|other| other.begin < taken.end).count();
            let handed_back =
                abandons().filter(|step| step.succeeded() && step.end() <= taken.begin).count();
            let may_be_handed_back = abandons()
                .filter(|step| step.may_have_been_done() && step.begin < taken.end)
                .count();
            let least = (before + 1).saturating_sub(may_be_handed_back);
            let most = (may_be_before + 1).saturating_sub(handed_back);
            let attempts = attempts as usize;
            if attempts < least || attempts > most && !view.lost_claims {
                let what = format!(
                    "a delivery of task {id} says attempt {attempts}; after {before} others and \
                     {handed_back} hand-backs it must be {least} to {most}"
                );
                return breach(what, id);
            }
        }
        let left = view.history.left.tasks.get(*id).and_then(Option::as_ref);
        let dead = left.is_some_and(|(_, location)| location == "DLQ_SET");
        if dead && !view.lost_claims {
            let counted = life.claims.len() - abandons().filter(|step| step.succeeded()).count();
            let max = match life.enqueued.map(|step| &step.deed) {
                Some(Deed::Enqueue { max_attempts, .. }) => *max_attempts as usize,
                _ => 0,
            };
            if counted < max {
                let what = format!("task {id} was buried after {counted} of {max} deliveries");
                return breach(what, id);
            }
        }
    }
    None
}

fn bad_lease(view: &View<'_>) -> Option<Breach> {
    for (id, life) in &view.tasks {
        for taken in &life.claims {
            let least = taken.begin / 1_000 + taken.lease;
            let most = taken.end / 1_000 + taken.lease;
            let until = taken.got.lease_until;
            if !(least..=most).contains(&until) {
                let off = if until < least { until - least } else { until - most };
                let what = format!("a lease of {} ms on task {id} is {off:+} ms off", taken.lease);
                return breach(what, id);
            }
        }
        let left = view.history.left.tasks.get(*id).and_then(Option::as_ref);
        if left.is_some_and(|(status, _)| status == "IN_PROGRESS") {
            let what = format!("the last lease on task {id} has run out, and it never came back");
            return breach(what, id);
        }
    }
    None
}

fn stale_success(view: &View<'_>) -> Option<Breach> {
    for (id, life) in &view.tasks {
        for taken in &life.claims {
            let mut released: Option<&Step> = None;
            for step in life.deeds_of(taken.worker) {
                let later = life.claims.iter().find(|other| {
                    other.worker != taken.worker
                        && other.begin >= taken.end
                        && other.end <= step.begin
                });
                if step.succeeded() {
                    if let Some(other) = later {
                        let what = format!(
                            "{} succeeded on task {id}, which {} had claimed since",
                            taken.worker, other.worker
                        );
                        return breach(what, id);
                    }
                    let again = released.filter(|earlier| earlier.end() <= step.begin);
                    let twice = again.filter(|earlier| {
                        // That is another rule's.
                        !matches!(earlier.deed, Deed::Complete { .. })
                    });
                    if twice.is_some() {
                        let what = format!("{} succeeded on task {id} twice", taken.worker);
                        return breach(what, id);
                    }
                    if !matches!(step.deed, Deed::Extend { .. }) {
                        released = Some(step);
                    }
                } else if let Some((end, Answer::Refused { kind })) = &step.end {
                    let mine = holds(life, taken)
                        .into_iter()
                        .any(|(from, until)| from <= step.begin && *end < until);
                    // Who lost it to another owner is another rule's.
                    let robbed = life.claims.iter().any(|other| {
                        other.worker != taken.worker
                            && other.end > taken.begin
                            && other.begin < *end
                    });
                    if mine && !robbed && released.is_none() {
                        let what =
                            format!("{}, who held task {id}, was refused: {kind}", taken.worker);
                        return breach(what, id);
                    }
                }
            }
        }
    }
    None
}

fn two_for_a_key(view: &View<'_>) -> Option<Breach> {
    let mut keys: BTreeMap<&str, (&str, u32)> = BTreeMap::new();
    for step in &view.history.steps {
        let (Deed::Enqueue { id: asked, key, .. }, Some((_, Answer::Enqueued { id, created }))) =
            (&step.deed, &step.end)
        else {
            continue;
        };
        if *created && id != asked {
            return breach(format!("task {asked} was enqueued, and task {id} was created"), asked);
        }
        if key.is_empty() {
            if !created {
                return breach(format!("task {asked} has no key, and was not created"), asked);
            }
            continue;
        }
        let (first, count) = keys.entry(key).or_insert((id, 0));
        *count += u32::from(*created);
        if first != id || *count > 1 {
            let what = format!("the key {key} gave the tasks {first} and {id}");
            return Some(Breach { what, tasks: vec![(*first).into(), id.clone()] });
        }
    }
    None
}

fn lost(view: &View<'_>) -> Option<Breach> {
    let left = &view.history.left;
    for id in view.history.acknowledged() {
        match left.tasks.get(id) {
            Some(None) => {
                return breach(format!("task {id} was enqueued, and is not there any more"), id);
            }
            Some(Some((status, location))) if status == "PENDING" => {
                let what = format!("task {id} is {status} in {location}, and cannot be claimed");
                return breach(what, id);
            }
            Some(Some((status, _))) if status.starts_with("unreadable") => {
                return breach(format!("task {id} is {status}"), id);
            }
            _ => {}
        }
    }
    let leased = |(_, kept): &(_, &Option<(String, String)>)| {
        kept.as_ref().is_some_and(|(status, _)| status == "IN_PROGRESS")
    };
    // What is leased for ever is another rule's.
    if left.tasks.iter().any(|kept| leased(&kept)) {
        return None;
    }
    if let Some(fault) = &left.fault {
        return Some(Breach { what: fault.clone(), tasks: Vec::new() });
    }
    let dead = left.tasks.values().flatten().filter(|(_, location)| location == "DLQ_SET").count();
    (left.counts[3] != dead as u64).then(|| Breach {
        what: format!("{dead} tasks are dead letters, and the counts say {}", left.counts[3]),
        tasks: Vec::new(),
    })
}

fn uncompleted(view: &View<'_>) -> Option<Breach> {
    for (id, life) in &view.tasks {
        let done = |step: &&&Step| matches!(step.deed, Deed::Complete { .. }) && step.succeeded();
        let mut completed = life.deeds.iter().filter(done);
        let Some(first) = completed.next() else { continue };
        if completed.next().is_some() {
            return breach(format!("task {id} was completed twice"), id);
        }
        if let Some(taken) = life.claims.iter().find(|taken| taken.begin >= first.end()) {
            let what = format!("task {id} was completed, and claimed by {} later", taken.worker);
            return breach(what, id);
        }
        if let Some(Some((status, _))) = view.history.left.tasks.get(*id)
            && status != "COMPLETED"
        {
            return breach(format!("task {id} was completed, and is {status}"), id);
        }
    }
    None
}

fn failed(view: &View<'_>) -> Option<Breach> {
    view.history.steps.iter().find_map(|step| match &step.end {
        Some((_, Answer::Failed { kind, text })) => Some(Breach {
            what: format!("an operation failed with {kind}: {text}"),
            tasks: match &step.deed {
                Deed::Enqueue { id, .. }
                | Deed::Extend { id, .. }
                | Deed::Abandon { id, .. }
                | Deed::Nack { id, .. }
                | Deed::Complete { id, .. } => vec![id.clone()],
                Deed::Claim { .. } => Vec::new(),
            },
        }),
        _ => None,
    })
}
