//! What is checked after a kill: every task that is open, or to which something happened.

use std::{collections::BTreeSet, mem, sync::atomic::Ordering, thread};

use super::{
    counts,
    explain::{Stuck, explain},
    ledger::{Book, Fault, Ledger, Life, LostClaim},
    model::{Place, State},
    producers::{connect, enqueue, heard},
    report,
    step::{Answer, Deed, Record, Spec, Step, now},
    wire::Wire,
    workers::{Subject, Worker, held_by},
};

/// How many look at the same time.
const LOOKERS: usize = 3;
/// How many tasks one batch enqueues.
const BATCH: usize = 50;

/// Which tasks are checked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scope {
    Touched,
    All,
}

/// Checks tasks and counts while nothing else happens. What is wrong goes into the book.
pub(crate) fn check(ledger: &Ledger, addr: &str, workers: &mut [Worker], scope: Scope) {
    let Some(mut wire) = connect(ledger, addr, Subject::RIGHT) else { return };
    repeat_keys(ledger, &mut wire, scope);
    let names = to_look_at(&ledger.book(), scope);
    thread::scope(|threads| {
        for names in names.chunks(names.len().div_ceil(LOOKERS).max(1)) {
            threads.spawn(move || {
                let Some(mut wire) = connect(ledger, addr, Subject::LEFT) else { return };
                names.iter().for_each(|(name, id)| look(ledger, &mut wire, name, id));
            });
        }
    });
    settle(ledger);
    find(ledger, workers);
    counts::check(ledger, &mut wire);
}

/// Whoever enqueues with a key again is answered with the same task.
fn repeat_keys(ledger: &Ledger, wire: &mut Wire, scope: Scope) {
    let specs: Vec<Spec> = {
        let book = ledger.book();
        let due: Vec<&String> = match scope {
            Scope::All => book.keys.iter().collect(),
            Scope::Touched => book.touched.iter().collect(),
        };
        let specs = due.into_iter().filter_map(|name| Some(&book.lives.get(name)?.spec));
        specs.filter(|spec| spec.keyed).cloned().collect()
    };
    for specs in specs.chunks(BATCH) {
        enqueue(ledger, wire, "check", specs, true);
    }
}

/// Names and ids.
fn to_look_at(book: &Book, scope: Scope) -> Vec<(String, String)> {
    let due: Vec<&String> = match scope {
        Scope::All => book.lives.keys().collect(),
        Scope::Touched => book.open.union(&book.touched).collect(),
    };
    let id_of = |name: &String| book.lives.get(name)?.id.clone();
    due.into_iter().filter_map(|name| Some((name.clone(), id_of(name)?))).collect()
}

/// Looks at a task, and at its result if it has one.
fn look(ledger: &Ledger, wire: &mut Wire, name: &str, id: &str) {
    let step = ledger.step("check", Subject::LEFT.name, Deed::Look);
    let path = format!("/tasks/{id}");
    let Some((status, task)) = heard(ledger, &path, wire.get(&path)) else { return };
    if status == 404 {
        return ledger.happened(name, Step { end: now(), answer: Answer::Missing, ..step });
    }
    let Some(mut record) = Record::read(&task).filter(|record| status == 200 && record.id == id)
    else {
        return ledger.complain(Some(name), format!("{path} is answered {status} {task}"));
    };
    if record.status == "COMPLETED" {
        let path = format!("/tasks/{id}/result");
        let Some((status, answer)) = heard(ledger, &path, wire.get(&path)) else { return };
        if status != 200 {
            return ledger.complain(Some(name), format!("{path} is answered {status} {answer}"));
        }
        record.result = Some(answer["result"]["result"].to_string());
    }
    ledger.shown(Step { end: now(), ..step }, record);
}

/// Sees whether everything that happened since the last check makes sense, task by task.
fn settle(ledger: &Ledger) {
    let mut book = ledger.book();
    let lost = mem::take(&mut book.lost_claims);
    let mut taken = vec![BTreeSet::new(); lost.len()];
    let mut faults = Vec::new();
    for name in mem::take(&mut book.touched) {
        let Some(life) = book.lives.get_mut(&name) else { continue };
        let steps = mem::take(&mut life.fresh);
        if life.id.is_none() {
            life.states = vec![State::absent(), State::unseen(&life.spec, &steps)];
        } else {
            match settle_one(life, &steps, &lost) {
                Ok((states, by_lost)) => {
                    life.states = states;
                    by_lost.into_iter().for_each(|claim| {
                        taken[claim].insert(name.clone());
                    });
                }
                Err(stuck) => faults.push((name.clone(), report::of_stuck(&stuck, ledger.origin))),
            }
        }
        life.past.extend(steps);
        book.settled(&name);
    }
    for (claim, names) in lost.iter().zip(taken) {
        if names.len() > claim.count {
            let (who, count) = (&claim.step.who, claim.count);
            let what = format!("a claim of {who} for {count}, unanswered, took {names:?}");
            faults.push((names.first().unwrap().clone(), what));
        }
    }
    ledger.open.store(book.open.len(), Ordering::Relaxed);
    let round = ledger.round();
    let faults = faults.into_iter().map(|(name, what)| Fault { round, what, task: Some(name) });
    // A history tells more than what one client noticed.
    book.faults.splice(0..0, faults);
}

/// What a task can be by now, and the one unanswered claim that took it if there is no other way.
fn settle_one(
    life: &Life,
    steps: &[Step],
    lost: &[LostClaim],
) -> Result<(Vec<State>, Option<usize>), Box<Stuck>> {
    let told = explain(&life.spec, &life.states, steps);
    if let Ok(states) = told {
        return Ok((states, None));
    }
    let may_have: Vec<usize> = (0..lost.len())
        .filter(|n| lost[*n].commands.is_empty() || lost[*n].commands.contains(&life.spec.command))
        .collect();
    let steps: Vec<Step> =
        steps.iter().chain(may_have.iter().map(|n| &lost[*n].step)).cloned().collect();
    let states = explain(&life.spec, &life.states, &steps)?;
    // As long as the lease lasts, it tells who took it.
    let mut takers = may_have
        .into_iter()
        .filter(|n| states.iter().any(|state| state.may_be_leased_by(&lost[*n].step)));
    let taker = takers.next().filter(|_| takers.next().is_none());
    Ok((states, taker))
}

/// Tasks that are leased to a subject of which no worker was told are found by one, or not.
fn find(ledger: &Ledger, workers: &mut [Worker]) {
    let book = ledger.book();
    for subject in [Subject::LEFT, Subject::RIGHT] {
        let held: BTreeSet<String> =
            held_by(workers, subject.name).into_iter().map(Into::into).collect();
        let leased = |life: &&Life| {
            let to_it = |state: &State| matches!(&state.place, Place::Leased { to, .. } if to == subject.name);
            life.states.iter().any(to_it) && !held.contains(&life.spec.name)
        };
        let mut mine: Vec<&mut Worker> =
            workers.iter_mut().filter(|worker| worker.subject.name == subject.name).collect();
        for (n, life) in book.open().filter(leased).enumerate() {
            let Some(id) = &life.id else { continue };
            let finder = n % mine.len();
            mine[finder].find(&life.spec.name, id);
        }
    }
}
