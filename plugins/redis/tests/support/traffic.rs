//! Clients who work all the time, whatever befalls the servers.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{
    AsyncTaskStorage, Claim, Enqueue, Error, ErrorKind, Millis, Result, Task, Text,
};
use codeq_redis::Redis;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{One, ask, ask_any, lease, task};

/// How long whatever has to happen may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Clients who enqueue, claim and complete all the time, and try again what the store cannot do just
/// then.
pub struct Traffic {
    told: Arc<Told>,
    producers: JoinSet<()>,
    workers: JoinSet<()>,
}

/// What clients were told, and when.
#[derive(Default)]
pub struct Told {
    enqueued: Mutex<Vec<(Text, Clock)>>,
    claimed: Mutex<Vec<(Text, Clock)>>,
    completed: Mutex<Vec<(Text, Clock)>>,
    enough: AtomicBool,
}

impl Traffic {
    /// Begins with tasks of these commands.
    pub fn begin(stores: &[Arc<Redis>], commands: &'static [&'static str]) -> Traffic {
        let told = Arc::<Told>::default();
        let (mut producers, mut workers) = (JoinSet::new(), JoinSet::new());
        for (n, name) in ["a", "b"].into_iter().enumerate() {
            let store = &stores[n % stores.len()];
            producers.spawn(produce(name, commands, Arc::clone(store), Arc::clone(&told)));
            let any = commands.len() > 1 && n % 2 == 1;
            let commands = if any { &[] } else { commands };
            workers.spawn(work(commands, Arc::clone(store), Arc::clone(&told)));
            workers.spawn(return_expired(Arc::clone(store)));
        }
        Traffic { told, producers, workers }
    }

    /// Waits until more tasks are enqueued, and more completed.
    pub async fn flows(&self) {
        let done = || {
            let (Told { enqueued, completed, .. }, more) = (&*self.told, 100);
            (enqueued.lock().unwrap().len() + more, completed.lock().unwrap().len() + more)
        };
        let (enqueued, completed) = done();
        let flows = async {
            while self.told.enqueued.lock().unwrap().len() < enqueued
                || self.told.completed.lock().unwrap().len() < completed
            {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, flows).await.unwrap();
    }

    /// The id of a task whose enqueueing is acknowledged from now on.
    pub async fn next_acknowledged(&self) -> String {
        let before = self.told.enqueued.lock().unwrap().len();
        let next = async {
            loop {
                if let Some((id, _)) = self.told.enqueued.lock().unwrap().get(before) {
                    return id.to_string();
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, next).await.unwrap()
    }

    /// Has the producers stop, and the workers work until nothing is left.
    pub async fn end(mut self, store: &Redis) -> Account {
        self.told.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.producers.join_next().await {
            ended.unwrap();
        }
        let begun = Clock::now();
        loop {
            let stats = insist(|| store.admin_queues(None)).await;
            if stats.iter().all(|one| one.ready + one.delayed + one.in_progress + one.dlq == 0) {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{stats:?}");
            sleep(Duration::from_millis(20)).await;
        }
        // A worker that panicked would be one that was told something wrong.
        self.workers.abort_all();
        while let Some(ended) = self.workers.join_next().await {
            assert!(ended.is_err_and(|error| error.is_cancelled()));
        }
        let ids = self.told.enqueued.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        let ids: Vec<Text> = ids;
        let found = insist(|| store.get(ids.clone())).await.into_iter();
        let kept = found.filter_map(|task| task.ok().map(|task| task.id.clone())).collect();
        Account { told: self.told, kept }
    }
}

async fn produce(name: &str, commands: &[&str], store: Arc<Redis>, told: Arc<Told>) {
    for number in 0.. {
        if told.enough.load(Ordering::Relaxed) {
            return;
        }
        let command = commands[number % commands.len()].into();
        let new = Enqueue::now(Task { command, ..task(&format!("{name}{number}")) });
        let id = new.task.id.clone();
        insist(|| async {
            match store.put_as(new.clone()).await {
                // By an attempt whose answer was lost.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                answer => answer.map(drop),
            }
        })
        .await;
        told.enqueued.lock().unwrap().push((id, Clock::now()));
        sleep(Duration::from_millis(3)).await;
    }
}

/// How long workers hold a task at most.
const LEASE: Millis = Millis::from_secs(2);

async fn work(commands: &[&str], store: Arc<Redis>, told: Arc<Told>) {
    let named = Claim { commands: commands.iter().map(|name| (*name).into()).collect(), ..ask(10) };
    let claim = if commands.is_empty() { ask_any(10) } else { named };
    let claim = Claim { lease: LEASE, ..claim };
    loop {
        let claimed = insist(|| store.claim(claim.clone())).await;
        for task in claimed.tasks {
            told.claimed.lock().unwrap().push((task.id.clone(), Clock::now()));
            let held = lease(&task.id, task.attempts);
            let finished = insist(|| async {
                match store.finish(held.clone()).await {
                    // Redis lost the task or the claim, or completed it and lost the answer.
                    Err(error) if is_of_a_lost_write(&error) => Ok(false),
                    answer => answer.map(|_| true),
                }
            });
            if finished.await {
                told.completed.lock().unwrap().push((task.id.clone(), Clock::now()));
            }
        }
        sleep(Duration::from_millis(3)).await;
    }
}

fn is_of_a_lost_write(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotOwner | ErrorKind::NotInProgress)
}

async fn return_expired(store: Arc<Redis>) {
    loop {
        let _ = store.requeue_expired(100).await;
        sleep(Duration::from_millis(200)).await;
    }
}

/// Tries until the store can.
pub async fn insist<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> T {
    let begun = Clock::now();
    loop {
        match attempt().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert!(error.is_retryable() && begun.elapsed() < LIMIT, "{error:?}");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// What clients were told, and which tasks there are in the end. No work is left.
pub struct Account {
    told: Arc<Told>,
    kept: HashSet<Text>,
}

impl Account {
    /// Whatever was acknowledged before `replicated` or after `followed` has to be there; Redis itself
    /// may have lost what was acknowledged between them.
    pub fn lost_nothing_outside(&self, replicated: Clock, followed: Clock) {
        let at_risk = |at: &Clock| *at > replicated && *at < followed;
        let enqueued = self.told.enqueued.lock().unwrap();
        let (risked, safe): (Vec<_>, Vec<_>) = enqueued.iter().partition(|(_, at)| at_risk(at));
        let lost = |(id, _): &&&(Text, Clock)| !self.kept.contains(id);
        let lost_safe: Vec<_> = safe.iter().filter(lost).collect();
        assert!(lost_safe.is_empty(), "{} of {}: {lost_safe:?}", lost_safe.len(), safe.len());
        eprintln!(
            "redis lost {} of {} tasks that were acknowledged during its failover; {} others are kept",
            risked.iter().filter(lost).count(),
            risked.len(),
            safe.len()
        );

        let completed = self.told.completed.lock().unwrap();
        let completed: HashMap<_, _> = completed.iter().map(|(id, at)| (id, at)).collect();
        for (id, claimed) in self.told.claimed.lock().unwrap().iter() {
            if let Some(completed) = completed.get(id).filter(|at| !at_risk(at)) {
                assert!(claimed <= *completed, "{id} was claimed after it was completed");
            }
        }
    }

    /// No task was handed out again while somebody held it.
    pub fn delivered_once_per_lease(&self) {
        let mut last: HashMap<Text, Clock> = HashMap::new();
        for (id, at) in self.told.claimed.lock().unwrap().iter() {
            if let Some(before) = last.insert(id.clone(), *at) {
                // An answer takes its time.
                let held = at.duration_since(before) + Duration::from_millis(500);
                assert!(held.as_millis() >= LEASE.0.unsigned_abs().into(), "{id}: {held:?}");
            }
        }
    }
}

/// Waits until a listener hears of tasks that somebody enqueues meanwhile.
pub async fn hears_of_tasks(listener: &Redis, other: &Redis) {
    let hears = async { while listener.next_events().await.is_err() {} };
    let enqueues = async {
        loop {
            let new = Enqueue::now(task(&fastrand::u64(..).to_string()));
            insist(|| other.put_as(new.clone())).await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    let heard = async {
        tokio::select! { () = hears => (), () = enqueues => () }
    };
    timeout(LIMIT, heard).await.unwrap();
}

/// Waits until a listener is told that it may have missed something.
pub async fn interrupted(listener: &Redis) {
    let told = async {
        loop {
            if let Err(error) = listener.next_events().await {
                return error.kind();
            }
        }
    };
    assert_eq!(timeout(LIMIT, told).await.unwrap(), ErrorKind::Unavailable);
}
