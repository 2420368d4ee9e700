//! What takes more than one process: histories, several hosts on one backend, hosts that are killed, and
//! backends that go away.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use codeq_plugin::{Capability, Durability};
use serde_json::Value;

use crate::{
    case::Rule,
    history::{Answer, Deed, Final, History, Spell, Word, check, check::Check, shrink},
    protocol::{Order, Tale},
    report::{Outcome, Verdict},
    verify::{Agent, Run, VerifyError, millis_since, sentence},
    world::World,
};

/// How many hosts share a backend.
const HOSTS: u32 = 3;
/// How long a history may take to settle, the load not counted.
const SETTLE_LIMIT: Duration = Duration::from_secs(40);
/// How soon operations must fail when the backend is gone, and succeed when it is back.
const NOTICE_LIMIT: Duration = Duration::from_secs(15);

const IN_ONE_HOST: &str = "in_one_host";
const ON_SEVERAL_HOSTS: &str = "on_several_hosts";
const WHEN_HOSTS_ARE_KILLED: &str = "when_hosts_are_killed";
const SURVIVES: &str = "what_was_answered_survives_kill_9_of_the_host";
const STARTS_AGAIN: &str = "a_host_that_was_killed_starts_again_and_works";
const APART: &str = "a_second_host_is_refused_or_has_tasks_of_its_own";
const KILLED: &str = "operations_fail_as_retryable_while_the_backend_is_dead";
const HUNG: &str = "operations_fail_as_retryable_while_the_backend_hangs";
const BACK: &str = "the_same_store_works_again_when_the_backend_is_back";
const BACK_FROM_HANGING: &str = "the_same_store_works_again_when_the_backend_no_longer_hangs";

/// The checks of a history that go on when hosts are killed. What was lost and what was undone then is
/// a matter of durability.
fn checks_of_killed() -> impl Iterator<Item = &'static Check> {
    check::ALL.iter().filter(|check| {
        !matches!(check.rule, Rule::Counts | Rule::Completion | Rule::Life | Rule::Order)
    })
}

/// The verdicts that there will be.
pub(crate) fn names(run: &Run<'_>) -> Vec<(Rule, String)> {
    let of_history = |place: &str| -> Vec<(Rule, String)> {
        check::ALL.iter().map(|check| (check.rule, format!("{place}_{}", check.name))).collect()
    };
    let mut names = of_history(IN_ONE_HOST);
    if run.has(Capability::Shared) {
        names.extend(of_history(ON_SEVERAL_HOSTS));
    } else {
        names.push((Rule::OneOwner, APART.into()));
    }
    if run.durability == Durability::Volatile {
        names.push((Rule::Durability, STARTS_AGAIN.into()));
    } else {
        names.push((Rule::Durability, SURVIVES.into()));
        names.extend(
            checks_of_killed()
                .map(|check| (check.rule, format!("{WHEN_HOSTS_ARE_KILLED}_{}", check.name))),
        );
    }
    names.extend(
        [KILLED, BACK, HUNG, BACK_FROM_HANGING].map(|name| (Rule::BackendLoss, name.to_owned())),
    );
    names.retain(|(rule, _)| run.wants(*rule));
    names
}

/// Plays all scenarios that are wanted.
pub(crate) fn play(run: &mut Run<'_>) -> Result<(), VerifyError> {
    if let Some(why) = run.given_up() {
        for (rule, name) in names(run) {
            let outcome = Outcome::NotRun { why: why.clone() };
            run.verdict(told(rule, &name, outcome, Instant::now()));
        }
        return Ok(());
    }
    if check::ALL.iter().any(|check| run.wants(check.rule)) {
        run.begins("a history of one host");
        histories(run, 1, IN_ONE_HOST)?;
        if run.has(Capability::Shared) {
            run.begins("a history of several hosts");
            histories(run, HOSTS, ON_SEVERAL_HOSTS)?;
        } else if run.wants(Rule::OneOwner) {
            run.begins("two hosts on a backend that is not shared");
            hosts_apart(run)?;
        }
    }
    let killed = checks_of_killed().any(|check| run.wants(check.rule));
    if run.durability == Durability::Volatile {
        if run.wants(Rule::Durability) {
            run.begins("a host that is killed");
            start_again(run)?;
        }
    } else if run.wants(Rule::Durability) || killed {
        run.begins("hosts that are killed");
        kills(run)?;
    }
    if run.wants(Rule::BackendLoss) {
        if run.subject.backend.is_some() {
            run.begins("a backend that goes away");
            backend_loss(run)?;
        } else {
            let why = "the plugin was started without a backend; if it has one, name the command \
                       that starts it with --backend";
            for name in [KILLED, BACK, HUNG, BACK_FROM_HANGING] {
                let outcome = Outcome::NotApplicable { why: why.into() };
                run.verdict(told(Rule::BackendLoss, name, outcome, Instant::now()));
            }
        }
    }
    Ok(())
}

fn told(rule: Rule, name: &str, outcome: Outcome, began: Instant) -> Verdict {
    let case = sentence(name);
    Verdict { rule, case, outcome, millis: millis_since(began), figures: Vec::new() }
}

/// A load on one backend by so many hosts, and every check of what they saw.
fn histories(run: &mut Run<'_>, hosts: u32, name: &str) -> Result<(), VerifyError> {
    let began = Instant::now();
    let world = run.world()?;
    let played = load(run, &world, hosts, None)?;
    for check in check::ALL {
        let outcome = outcome(check, &played);
        run.verdict(told(check.rule, &format!("{name}_{}", check.name), outcome, began));
    }
    Ok(())
}

fn outcome(check: &Check, played: &Result<History, String>) -> Outcome {
    match played {
        Err(why) => Outcome::NotRun { why: why.clone() },
        Ok(history) => match shrink::explain(check, history) {
            None => Outcome::Passed,
            Some(why) => Outcome::Failed { why },
        },
    }
}

/// Puts a load on one backend; kills a host in its middle, if that is wanted, after so long. Answers
/// why there is no history, if the plugin does not let one happen.
fn load(
    run: &mut Run<'_>,
    world: &World,
    hosts: u32,
    kill_after: Option<Duration>,
) -> Result<Result<History, String>, VerifyError> {
    let config = world.config(&run.subject.config, &run.subject.manifest.config_schema);
    let scope = run.scope();
    let millis = run.plan.history_millis;
    let mut agents = Vec::new();
    for number in 0..hosts {
        let mut agent = run.agent()?;
        let actor = format!("h{number}");
        let spell = spell(run, &scope, actor, millis, hosts);
        agent.order(&Order::Work { config: config.clone(), spell });
        agents.push(agent);
    }
    let mut words: Vec<(String, Word)> = Vec::new();
    let mut victim = kill_after.map(|after| Instant::now() + after);
    let deadline = Instant::now() + Duration::from_millis(millis) + SETTLE_LIMIT;
    let mut working: BTreeSet<usize> = (0..agents.len()).collect();
    let mut fault = None;
    while !working.is_empty() {
        // Also while there is always something to hear.
        if victim.is_some_and(|moment| Instant::now() >= moment) {
            victim = None;
            // Its end is heard as that of any other.
            agents[0].kill();
        }
        match run.hear(&agents, victim.unwrap_or(deadline)) {
            Some((place, Some(Tale::Word(word)))) => words.push((format!("h{place}"), word)),
            Some((place, Some(Tale::Worked { fault: why }))) => {
                working.remove(&place);
                fault = fault.or(why);
            }
            Some((_, Some(_))) => {}
            Some((place, None)) => {
                let died = working.remove(&place) && (kill_after.is_none() || place != 0);
                if died {
                    let epitaph = agents[place].epitaph();
                    fault = fault.or(Some(format!("the process with the plugin died: {epitaph}")));
                }
            }
            None if victim.is_some() => {}
            None => return Ok(Err("the load did not end".into())),
        }
    }
    if let Some(fault) = fault {
        return Ok(Err(fault));
    }
    let ids = ids(&words);
    // A host finishes what it began, or one that is started after it finishes it.
    let mut last =
        if kill_after.is_some() { run.agent()? } else { agents.swap_remove(agents.len() - 1) };
    drop(agents);
    Ok(settle(run, &mut last, &config, &scope, ids, &mut words)
        .map(|left| History::of(words, left)))
}

/// The tasks that may be there.
fn ids(words: &[(String, Word)]) -> Vec<String> {
    let mut ids = BTreeSet::new();
    for (_, word) in words {
        match word {
            Word::Begin { deed: Deed::Enqueue { id, .. }, .. }
            | Word::End { answer: Answer::Enqueued { id, .. }, .. } => {
                ids.insert(id.clone());
            }
            _ => {}
        }
    }
    ids.into_iter().collect()
}

/// Has a host finish what is left.
fn settle(
    run: &mut Run<'_>,
    agent: &mut Agent,
    config: &Value,
    scope: &str,
    ids: Vec<String>,
    words: &mut Vec<(String, Word)>,
) -> Result<Final, String> {
    let spell = spell(run, scope, "last".into(), 0, 1);
    agent.order(&Order::Settle { config: config.clone(), spell, ids });
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        match run.hear(std::slice::from_ref(agent), deadline) {
            Some((_, Some(Tale::Word(word)))) => words.push(("last".into(), word)),
            Some((_, Some(Tale::Settled(left)))) => return Ok(left),
            Some((_, Some(Tale::Worked { fault }))) => return Err(fault.unwrap_or_default()),
            Some((_, Some(_))) => {}
            Some((_, None)) => {
                return Err(format!("the process with the plugin died: {}", agent.epitaph()));
            }
            None => return Err("what was left of the load could not be finished".into()),
        }
    }
}

fn spell(run: &mut Run<'_>, scope: &str, actor: String, millis: u64, hosts: u32) -> Spell {
    let share = |all: u32| (all / hosts).max(1);
    Spell {
        scope: scope.into(),
        actor,
        seed: run.rng.u64(..),
        workers: share(8).max(2),
        producers: share(3),
        millis,
    }
}

/// Two hosts on a backend that is not to be shared: the second one is refused, or it has tasks of its
/// own; the same task is never given to both.
fn hosts_apart(run: &mut Run<'_>) -> Result<(), VerifyError> {
    let began = Instant::now();
    let world = run.world()?;
    let config = world.config(&run.subject.config, &run.subject.manifest.config_schema);
    let scope = run.scope();
    let mut agents = Vec::new();
    for number in 0..2 {
        let mut agent = run.agent()?;
        let millis = run.plan.history_millis / 4;
        let spell = spell(run, &scope, format!("h{number}"), millis, 2);
        agent.order(&Order::Work { config: config.clone(), spell });
        agents.push(agent);
    }
    let mut words = Vec::new();
    let deadline = Instant::now() + Duration::from_millis(run.plan.history_millis) + SETTLE_LIMIT;
    let (mut working, mut refused, mut died) = (agents.len(), 0, None);
    while working > 0 {
        match run.hear(&agents, deadline) {
            Some((place, Some(Tale::Word(word)))) => words.push((format!("h{place}"), word)),
            Some((_, Some(Tale::Worked { fault }))) => {
                working -= 1;
                refused += u32::from(fault.is_some());
            }
            Some((_, Some(_))) => {}
            Some((place, None)) => {
                working -= 1;
                died = Some(agents[place].epitaph());
            }
            None => break,
        }
    }
    let history = History::of(words, Final::default());
    let owners = check::ALL.iter().find(|check| check.rule == Rule::OneOwner);
    let shared = owners.and_then(|check| shrink::explain(check, &history));
    let outcome = match shared {
        Some(why) => Outcome::Failed { why },
        None if let Some(epitaph) = died => {
            Outcome::Failed { why: format!("the process with the plugin died: {epitaph}") }
        }
        None if working > 0 => Outcome::Failed { why: "the load did not end".into() },
        None if refused > 1 => {
            Outcome::Failed { why: "each host kept the other from opening the store".into() }
        }
        None => Outcome::Passed,
    };
    run.verdict(told(Rule::OneOwner, APART, outcome, began));
    Ok(())
}

/// A store that forgets everything with its host must at least begin anew.
fn start_again(run: &mut Run<'_>) -> Result<(), VerifyError> {
    let began = Instant::now();
    let world = run.world()?;
    let config = world.config(&run.subject.config, &run.subject.manifest.config_schema);
    let scope = run.scope();
    let mut agents = [run.agent()?];
    let spell = spell(run, &scope, "h0".into(), 60_000, 1);
    agents[0].order(&Order::Work { config, spell });
    let until = Instant::now() + Duration::from_millis(run.rng.u64(50..200));
    while Instant::now() < until {
        run.hear(&agents, until);
    }
    agents[0].kill();
    let outcome = match load(run, &world, 1, None)? {
        Ok(history) if history.acknowledged().next().is_some() => Outcome::Passed,
        Ok(_) => Outcome::Failed { why: "afterwards no task could be enqueued".into() },
        Err(why) => Outcome::Failed { why },
    };
    run.verdict(told(Rule::Durability, STARTS_AGAIN, outcome, began));
    Ok(())
}

/// Hosts that are killed in the middle of their work.
fn kills(run: &mut Run<'_>) -> Result<(), VerifyError> {
    let began = Instant::now();
    let hosts = if run.has(Capability::Shared) { 2 } else { 1 };
    let mut histories = Vec::new();
    for _ in 0..run.plan.kills {
        let world = run.world()?;
        let after = Duration::from_millis(run.rng.u64(50..run.plan.history_millis.max(100)));
        histories.push(load(run, &world, hosts, Some(after))?);
    }
    let kept = histories.iter().map(|played| match played {
        Err(why) => Outcome::Failed { why: why.clone() },
        Ok(_) => check::ALL
            .iter()
            .filter(|check| matches!(check.rule, Rule::Counts | Rule::Completion))
            .map(|check| outcome(check, played))
            .find(|outcome| *outcome != Outcome::Passed)
            .unwrap_or(Outcome::Passed),
    });
    run.verdict(told(Rule::Durability, SURVIVES, worst(kept), began));
    for check in checks_of_killed() {
        let outcome = worst(histories.iter().map(|played| outcome(check, played)));
        let name = format!("{WHEN_HOSTS_ARE_KILLED}_{}", check.name);
        run.verdict(told(check.rule, &name, outcome, began));
    }
    Ok(())
}

/// The first outcome that is not good.
fn worst(mut outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    outcomes.find(|outcome| *outcome != Outcome::Passed).unwrap_or(Outcome::Passed)
}

/// A backend that dies, and one that hangs; and both come back.
fn backend_loss(run: &mut Run<'_>) -> Result<(), VerifyError> {
    for (gone, back, hangs) in [(KILLED, BACK, false), (HUNG, BACK_FROM_HANGING, true)] {
        let mut world = run.world()?;
        let config = world.config(&run.subject.config, &run.subject.manifest.config_schema);
        let scope = run.scope();
        let mut agents = [run.agent()?];
        agents[0].order(&Order::Watch { config, scope });
        let began = Instant::now();
        let before = watch_until(run, &agents, |error| error.is_none());
        if hangs {
            world.hang();
        } else {
            world.kill();
        }
        let failing = before.and_then(|()| {
            watch_until(run, &agents, |error| error.is_some())?;
            // From the first failure on, every operation fails, and in time.
            watch_for(run, &agents, Duration::from_millis(500))
        });
        let outcome = |result: &Result<(), String>| match result {
            Ok(()) => Outcome::Passed,
            Err(why) => Outcome::Failed { why: why.clone() },
        };
        run.verdict(told(Rule::BackendLoss, gone, outcome(&failing), began));
        let began = Instant::now();
        let there = if hangs {
            world.resume();
            Ok(())
        } else {
            world.start()
        };
        let working = there.and_then(|()| watch_until(run, &agents, |error| error.is_none()));
        run.verdict(told(Rule::BackendLoss, back, outcome(&working), began));
        agents[0].order(&Order::Enough);
    }
    Ok(())
}

/// Listens until three operations in a row, which are one of each kind, went as wanted.
fn watch_until(
    run: &mut Run<'_>,
    agents: &[Agent],
    wanted: fn(&Option<(String, String)>) -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + NOTICE_LIMIT;
    let mut row = 0;
    let mut last = "nothing was answered".to_owned();
    while row < 3 {
        match run.hear(agents, deadline) {
            Some((_, Some(Tale::Watched { operation, error, .. }))) => {
                if let Some((kind, text)) = &error {
                    must_be_retryable(&operation, kind, text)?;
                    last = format!("`{operation}` still fails: {text}");
                } else {
                    last = format!("`{operation}` still succeeds");
                }
                row = if wanted(&error) { row + 1 } else { 0 };
            }
            Some((_, Some(Tale::Worked { fault }))) => return Err(fault.unwrap_or_default()),
            Some((_, Some(_))) => {}
            Some((_, None)) => return Err("the process with the plugin died".into()),
            None => return Err(format!("{last}, {} s later", NOTICE_LIMIT.as_secs())),
        }
    }
    Ok(())
}

/// Listens for a while; whatever fails must do so as retryable.
fn watch_for(run: &mut Run<'_>, agents: &[Agent], time: Duration) -> Result<(), String> {
    let deadline = Instant::now() + time;
    loop {
        match run.hear(agents, deadline) {
            Some((_, Some(Tale::Watched { operation, error: Some((kind, text)), .. }))) => {
                must_be_retryable(&operation, &kind, &text)?;
            }
            Some((_, Some(Tale::Watched { operation, error: None, .. }))) => {
                return Err(format!("`{operation}` succeeded without a backend"));
            }
            Some((_, None)) => return Err("the process with the plugin died".into()),
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

fn must_be_retryable(operation: &str, kind: &str, text: &str) -> Result<(), String> {
    match kind {
        "unavailable" | "timeout" => Ok(()),
        "no answer" => Err(format!("`{operation}` did not answer")),
        _ => Err(format!(
            "`{operation}` failed as {kind}, which no caller tries again, instead of unavailable              or timeout: {text}"
        )),
    }
}
