//! Rule 11: the counts are those of the tasks, and no task is lost.

use crate::{
    case::{Case, Rule, cases},
    stage::{Setup, Stage},
    store::Store,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{
    Claim, Cleanup, Enqueue, Extend, Finish, Instant, Lease, Location, Millis, Nack, QueueStats,
    Task, TaskKey, TaskStatus,
    rules::{BackoffPolicy, Rules},
};
use fastrand::Rng;

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Counts:
        #[alone] every_place_is_counted,
        #[alone] a_queue_that_nobody_used_has_no_tasks,
        #[alone] queues_are_told_by_tenant_and_command,
        #[alone] the_counts_are_those_of_the_tasks_after_any_operations,
    ]
    .into_iter()
}

const TENANTS: [&str; 3] = ["", "acme", "rival"];
const COMMANDS: [&str; 4] = ["resize", "Resize", "crop", "blur"];

fn every_place_is_counted(stage: &Stage) {
    let store = stage.open();
    bury(&store, task("dead"));
    enqueue(&store, task("leased"));
    claim_one(&store, "w");
    enqueue(&store, task("completed"));
    complete(&store, &claim_one(&store, "w")).unwrap();
    enqueue_in(&store, LONG, task("delayed"));
    enqueue_all(&store, &["ready", "ready too"]);
    assert_eq!(counts(&store), [2, 1, 1, 1]);
    assert_eq!(store.queue_length(queue(TENANT, COMMAND)).unwrap(), 2);
    let ids = ["dead", "leased", "completed", "delayed", "ready", "ready too"];
    assert_eq!(assert_reconciled(&store, ids).len(), ids.len());
}

fn a_queue_that_nobody_used_has_no_tasks(stage: &Stage) {
    let store = stage.open();
    let unused = store.queue_stats(queue(TENANT, "Unused")).unwrap();
    let expected =
        QueueStats { command: "unused".into(), tenant_id: TENANT.into(), ..QueueStats::default() };
    assert_eq!(unused, expected);
    assert_eq!(store.queue_length(queue(TENANT, "Unused")).unwrap(), 0);
    assert!(used_queues(&store).is_empty());
}

fn queues_are_told_by_tenant_and_command(stage: &Stage) {
    let store = stage.open();
    for (tenant, command) in [("b", "x"), ("a", "Y"), ("a", "x"), ("", "z")] {
        enqueue(&store, task_of(tenant, command, &format!("{tenant}{command}")));
    }
    let queues = store.admin_queues(None).unwrap();
    let names: Vec<_> = queues.iter().map(|queue| (&*queue.tenant_id, &*queue.command)).collect();
    assert_eq!(names, [("", "z"), ("a", "x"), ("a", "y"), ("b", "x")]);
}

fn the_counts_are_those_of_the_tasks_after_any_operations(stage: &Stage) {
    // As many as there is time for: a walk of a store in memory takes milliseconds, one over a
    // network seconds.
    let end = Clock::now() + WALKING;
    for seed in 0..12 {
        Walk::new(stage, stage.plan().seed.wrapping_add(seed)).run(end);
        if Clock::now() > end {
            break;
        }
    }
}

/// Checks that the counts, the list and the records tell the same, and answers the ids there are. In a
/// store that does not list tasks it looks for those that are `known`.
pub(super) fn assert_reconciled<I: AsRef<str>>(
    store: &Store,
    known: impl IntoIterator<Item = I>,
) -> BTreeSet<String> {
    let mut tallies: BTreeMap<(String, String), [u64; 4]> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut listed_twice = None;
    let tasks: Vec<_> = if store.lists() {
        everything(store).into_iter().map(|placed| placed.task).collect()
    } else {
        known.into_iter().filter_map(|id| store.get(id.as_ref()).ok()).collect()
    };
    for task in tasks {
        assert_eq!(store.get(&task.id).unwrap(), task, "the list and the record differ");
        if !ids.insert(task.id.to_string()) {
            listed_twice = Some(task.id.clone());
            continue;
        }
        let (index, status) = match task.last_known_location {
            Location::PendingList => (0, TaskStatus::Pending),
            Location::DelayedZset => (1, TaskStatus::Pending),
            Location::InprogSet => (2, TaskStatus::InProgress),
            Location::DlqSet => (3, TaskStatus::Failed),
            Location::None => {
                assert!(task.status.is_terminal());
                continue;
            }
        };
        assert_eq!(task.status, status);
        let held = status == TaskStatus::InProgress;
        assert_eq!(held, task.lease_until.is_some());
        assert_eq!(held, !task.worker_id.is_empty());
        let queue = (task.tenant_id.to_string(), task.command.to_lowercase());
        tallies.entry(queue).or_default()[index] += 1;
    }
    for stats in store.admin_queues(None).unwrap() {
        let queue = (stats.tenant_id.to_string(), stats.command.to_lowercase());
        let listed = tallies.remove(&queue).unwrap_or_default();
        assert_eq!(counts_of(&stats), listed, "the counts of {queue:?}");
        let same = store.queue_stats(self::queue(&stats.tenant_id, &stats.command));
        assert_eq!(same.unwrap(), stats);
        let length = store.queue_length(self::queue(&stats.tenant_id, &stats.command));
        assert_eq!(length.unwrap(), stats.ready);
    }
    assert!(tallies.is_empty(), "queues without counts: {tallies:?}");
    // The counts know it once, so it is the list that has it twice.
    given(Rule::Listing, listed_twice.is_none(), || format!("{listed_twice:?} is on two pages"));
    ids
}

/// How many steps a walk has, and how long all of them take at most.
const STEPS: u32 = 3_000;
const WALKING: Duration = Duration::from_secs(3);

/// A long series of operations, the same one for a seed, but for the clock.
struct Walk {
    store: Store,
    random: Rng,
    seed: u64,
    made: u32,
    /// Every task that must be there.
    alive: BTreeSet<String>,
    /// What workers believe to hold.
    held: Vec<Lease>,
}

impl Walk {
    fn new(stage: &Stage, seed: u64) -> Walk {
        let mut random = Rng::with_seed(seed);
        let policy = random.choice(BackoffPolicy::ALL).unwrap();
        let rules = Rules { max_attempts: 3, ..waiting(policy, 1, 4) };
        let repair_limit = random.u32(0..5);
        Walk {
            store: stage.open_in(Setup { rules, repair_limit }),
            random,
            seed,
            made: 0,
            alive: BTreeSet::new(),
            held: Vec::new(),
        }
    }

    fn run(mut self, end: Clock) {
        for step in 0..STEPS {
            self.step();
            if Clock::now() > end {
                break;
            }
            if step % 50 == 0 {
                let there = assert_reconciled(&self.store, &self.alive);
                let ghost = there.difference(&self.alive).next();
                given(Rule::Records, ghost.is_none(), || format!("task {ghost:?} was deleted"));
                assert_eq!(there, self.alive, "seed {}, step {step}", self.seed);
            }
        }
        self.drain();
    }

    /// Every task that is not at its end is delivered in the end, and can be completed.
    fn drain(mut self) {
        let store = &self.store;
        let ended = |id: &String| store.get(id).unwrap().status.is_terminal();
        let open: Vec<_> = self.alive.iter().filter(|id| !ended(id)).cloned().collect();
        let deadline = Instant::now() + Millis::from_secs(10);
        while !open.iter().all(ended) {
            if Instant::now() > deadline {
                stuck(store, open);
            }
            for tenant in TENANTS {
                let claim = Claim { lease: LONG, ..claim_from(tenant, &[], "drain") };
                for claimed in self::claim(store, claim) {
                    complete(store, &claimed).unwrap();
                }
            }
        }
        assert_eq!(assert_reconciled(store, &self.alive), self.alive);
        self.alive.clear();
        let end = Instant::now() + Millis(2 * Millis::DAY.0);
        while store
            .cleanup_expired(Cleanup { before: end, limit: 10, ..Cleanup::default() })
            .unwrap()
            > 0
        {}
        assert!(assert_reconciled(store, &self.alive).is_empty());
        assert!(used_queues(store).is_empty());
    }

    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..25 => self.enqueue(),
            25..50 => self.claim(),
            50..60 => self.with_lease(|store, lease, _| store.abandon_lease(lease).is_ok()),
            60..70 => self.with_lease(|store, lease, random| {
                let delay = random.bool().then(|| Millis(random.i64(-1..6)));
                let nack = Nack { lease, delay: delay.into(), reason: "".into() };
                store.nack(nack).is_ok()
            }),
            70..78 => self.with_lease(|store, lease, random| {
                let by = Millis(random.i64(-1..6));
                store.update_lease(Extend { lease, by }).is_ok()
            }),
            78..84 => self.with_lease(|store, lease, random| {
                let result = result_of(&lease.task_id, random.choice(ENDS).unwrap());
                let result = codeq_plugin::Boxed::new(result);
                store.complete(codeq_plugin::Complete { lease, result }).is_ok()
            }),
            84..87 => drop(self.store.move_due_delayed(self.random.u32(0..4)).unwrap()),
            87..90 => drop(self.store.requeue_expired(self.random.u32(0..4)).unwrap()),
            90..92 => self.with_task(|store, task, _| {
                let _ = store.redrive(TaskKey { id: task.id, tenant_id: task.tenant_id });
            }),
            92..94 => self.with_task(|store, task, random| {
                let status = random.choice(ENDS).unwrap();
                let finish = Finish { task_id: task.id, status, ..Finish::default() };
                store.update_task_on_complete(finish).unwrap();
            }),
            94..95 => self.with_task(|store, task, _| {
                store.remove_from_inprog_and_clear_lease(&task.id).unwrap();
            }),
            95..97 => self.with_task(|store, task, random| {
                let visible_at = Instant::now() + Millis(random.i64(-2..5));
                let task = codeq_plugin::Boxed::new(Task {
                    tenant_id: random.choice(TENANTS).unwrap().into(),
                    ..task
                });
                store.save(codeq_plugin::Placed { task, visible_at }).unwrap();
            }),
            97..99 => {
                if let Some(id) = self.random.choice(&self.alive).cloned() {
                    self.store.delete(&id).unwrap();
                    self.alive.remove(&id);
                }
            }
            // Nothing is old enough to go.
            _ => {
                let before = Instant::now() + Millis(Millis::DAY.0 / 2);
                let cleanup = Cleanup { before, limit: 10, ..Cleanup::default() };
                assert_eq!(self.store.cleanup_expired(cleanup).unwrap(), 0);
            }
        }
    }

    fn enqueue(&mut self) {
        self.made += 1;
        let id = self.made.to_string();
        let task = Task {
            priority: self.random.u8(0..12),
            max_attempts: self.random.u32(0..4),
            ..task_of(
                self.random.choice(TENANTS).unwrap(),
                self.random.choice(COMMANDS).unwrap(),
                &id,
            )
        };
        let key =
            if self.random.bool() { String::new() } else { self.random.u8(0..30).to_string() };
        let enqueue = Enqueue {
            visible_at: Instant::now() + Millis(self.random.i64(-6..6)),
            ..keyed(&key, task)
        };
        let enqueued = self.store.enqueue(enqueue).unwrap();
        assert_eq!(enqueued.created, enqueued.task.id == id.as_str());
        self.alive.insert(enqueued.task.id.to_string());
    }

    fn claim(&mut self) {
        let tenant = self.random.choice(TENANTS).unwrap();
        let named = self.random.usize(0..=COMMANDS.len());
        let commands = self.random.choose_multiple(COMMANDS, named);
        let worker = self.random.choice(["v", "w"]).unwrap();
        let claim = Claim {
            max: self.random.u32(0..4),
            lease: Millis(self.random.i64(1..6)),
            ..claim_from(tenant, &commands, worker)
        };
        for claimed in self::claim(&self.store, claim) {
            let same = claimed.tenant_id == tenant;
            given(Rule::Tenants, same, || {
                format!("`{tenant}` got a task of `{}`", claimed.tenant_id)
            });
            self.held.push(lease(&claimed));
        }
    }

    /// Lets a worker do something to a task that he holds, or held.
    fn with_lease(&mut self, act: impl Fn(&Store, Lease, &mut Rng) -> bool) {
        if self.held.is_empty() {
            return;
        }
        let index = self.random.usize(0..self.held.len());
        let lease = self.held[index].clone();
        let before = self.store.get(&lease.task_id).ok();
        let mine = before.is_some_and(|task| {
            task.status == TaskStatus::InProgress && self::lease(&task) == lease
        });
        let done = act(&self.store, lease, &mut self.random);
        given(Rule::Fencing, done == mine, || format!("seed {}: it was done: {done}", self.seed));
        if !mine {
            self.held.swap_remove(index);
        }
    }

    fn with_task(&mut self, act: impl Fn(&Store, Task, &mut Rng)) {
        if let Some(id) = self.random.choice(&self.alive) {
            let task = self.store.get(id).unwrap();
            act(&self.store, codeq_plugin::Boxed::into_inner(task), &mut self.random);
        }
    }
}

const ENDS: [TaskStatus; 2] = [TaskStatus::Completed, TaskStatus::Failed];
