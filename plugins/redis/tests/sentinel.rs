//! A master that Sentinels know: finding it, and following it when it fails or is replaced.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{
    AsyncPersistence, AsyncTaskStorage, Claim, Enqueue, Error, ErrorKind, Millis, Result, Text,
};
use codeq_redis::{Config, Redis};
use codeq_test_servers::SentinelGroup;
use support::*;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long whatever has to happen may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a store needs to follow its master, at most. By itself, the former master of a planned
/// failover would keep its clients for eight seconds.
const FOLLOWED: Duration = Duration::from_secs(6);

fn config(group: &SentinelGroup) -> Config {
    Config {
        // Nobody is there.
        addr: "127.0.0.1:1".into(),
        sentinels: group.sentinels(),
        sentinel_master: SentinelGroup::MASTER.into(),
        ..Config::default()
    }
}

async fn open(config: Config) -> Result<Redis> {
    Redis::open(config, context(rules())).await
}

async fn refusal(config: Config) -> Error {
    open(config).await.err().unwrap()
}

#[tokio::test]
async fn any_sentinel_leads_to_the_master() {
    let mut group = SentinelGroup::start();
    let store = open(config(&group)).await.unwrap();
    store.put(task("t")).await;
    assert_eq!(store.take_ids(1).await, ["t"]);

    group.sentinel(0).kill();
    open(config(&group)).await.unwrap().put(task("the first is down")).await;
    group.sentinel(1).hang();
    open(config(&group)).await.unwrap().put(task("the second hangs")).await;
    group.sentinel(1).resume();

    let stranger = Server::start();
    let sentinels = [vec![stranger.addr()], group.sentinels()].concat();
    let store = open(Config { sentinels, ..config(&group) }).await.unwrap();
    store.put(task("one is no Sentinel")).await;

    let master = group.kill_master();
    for index in 0..3 {
        group.sentinel(index).kill();
    }
    let error = refusal(config(&group)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    for sentinel in group.sentinels() {
        assert!(error.to_string().contains(&sentinel), "{error}");
    }
    assert!(error.to_string().contains("persistenceConfig.sentinels"), "{error}");
    let error = unavailable_for(&store, "no Sentinel says where").await;
    assert!(error.contains(&group.sentinels()[2]), "{error}");

    // A Sentinel that comes back remembers a master that does not.
    group.sentinel(1).restart();
    let error = unavailable_for(&store, "cannot reach redis at").await;
    assert!(error.contains(&master) && error.contains(SentinelGroup::MASTER), "{error}");
}

/// Waits until the store is unavailable for that reason; answers all that it says.
async fn unavailable_for(store: &Redis, reason: &str) -> String {
    let begun = Clock::now();
    loop {
        let error = store.one("t").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let said = error.to_string();
        if said.contains(reason) {
            return said;
        }
        assert!(begun.elapsed() < LIMIT, "{said}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn settings_that_lead_to_no_master_are_named() {
    let group = SentinelGroup::start_guarded("of servers", "of sentinels");
    let right = || Config {
        password: "of servers".into(),
        sentinel_password: "of sentinels".into(),
        ..config(&group)
    };
    open(right()).await.unwrap().put(task("t")).await;

    let error = refusal(Config { sentinel_master: "nobody".into(), ..right() }).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    let said = error.to_string();
    assert!(said.contains("persistenceConfig.sentinelMaster is `nobody`"), "{said}");
    assert!(said.contains(&group.sentinels().join(", ")), "{said}");

    for password in ["", "wrong"] {
        let error = refusal(Config { sentinel_password: password.into(), ..right() }).await;
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("persistenceConfig.sentinelPassword"), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");

        let error = refusal(Config { password: password.into(), ..right() }).await;
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("persistenceConfig.password"), "{error}");
    }
    let error = refusal(Config { sentinel_master: String::new(), ..right() }).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_have_outlives_the_master() {
    let mut group = SentinelGroup::start();
    let store = Arc::new(open(config(&group)).await.unwrap());
    let traffic = Traffic::begin(&store);
    traffic.flows().await;

    let replicated = Clock::now();
    group.wait_for_replicas();
    let master = group.kill_master();
    let successor = group.wait_for_successor(&master);
    let elected = Clock::now();
    insist(|| store.health()).await;
    assert!(elected.elapsed() < FOLLOWED, "{:?}", elected.elapsed());
    let followed = Clock::now();
    traffic.flows().await;

    group.hurry();
    group.restart(&master);
    group.wait_until_replica(&master);
    assert_eq!(group.master(), successor);
    traffic.flows().await;
    traffic.end(&store).await.lost_nothing_outside(replicated, followed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_replaced_is_left() {
    let group = SentinelGroup::start();
    let store = Arc::new(open(config(&group)).await.unwrap());
    let traffic = Traffic::begin(&store);
    traffic.flows().await;

    let replicated = Clock::now();
    group.wait_for_replicas();
    let master = group.master();
    group.fail_over();
    let successor = open(Config { addr: group.wait_for_successor(&master), ..Config::default() });
    let successor = successor.await.unwrap();
    let elected = Clock::now();
    while successor.one(&traffic.next_acknowledged().await).await.is_err() {
        assert!(elected.elapsed() < FOLLOWED, "the store still writes to the former master");
    }
    let followed = Clock::now();
    traffic.flows().await;

    group.hurry();
    group.wait_until_replica(&master);
    traffic.flows().await;
    traffic.end(&store).await.lost_nothing_outside(replicated, followed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pause_of_writes_a_master_is_replaced_without_a_loss() {
    let group = SentinelGroup::start();
    let config = Config { command_timeout_ms: 1_000, ..config(&group) };
    let store = Arc::new(open(config).await.unwrap());
    let traffic = Traffic::begin(&store);
    traffic.flows().await;

    let master = group.master();
    let pause = redis::cmd("CLIENT").arg(&["PAUSE", "30000", "WRITE"]).clone();
    let () = pause.query(&mut group.connection(&master)).unwrap();
    group.fail_over();
    group.wait_for_successor(&master);
    traffic.flows().await;
    let never = Clock::now();
    traffic.end(&store).await.lost_nothing_outside(never, never);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_again_from_the_next_master() {
    let mut group = SentinelGroup::start();
    let (here, elsewhere) =
        (open(config(&group)).await.unwrap(), open(config(&group)).await.unwrap());
    hears_of_tasks(&elsewhere, &here).await;

    let master = group.kill_master();
    interrupted(&elsewhere).await;
    let successor = group.wait_for_successor(&master);
    hears_of_tasks(&elsewhere, &here).await;

    group.fail_over();
    group.wait_for_successor(&successor);
    // Its former server is there still, and has nothing to tell.
    let elected = Clock::now();
    interrupted(&elsewhere).await;
    hears_of_tasks(&elsewhere, &here).await;
    assert!(elected.elapsed() < FOLLOWED, "{:?}", elected.elapsed());
}

/// Waits until a listener hears of tasks that somebody enqueues meanwhile.
async fn hears_of_tasks(listener: &Redis, other: &Redis) {
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
async fn interrupted(listener: &Redis) {
    let told = async {
        loop {
            if let Err(error) = listener.next_events().await {
                return error.kind();
            }
        }
    };
    assert_eq!(timeout(LIMIT, told).await.unwrap(), ErrorKind::Unavailable);
}

/// Clients who enqueue, claim and complete all the time, and try again what the store cannot do just
/// then.
struct Traffic {
    told: Arc<Told>,
    producers: JoinSet<()>,
    workers: JoinSet<()>,
}

/// What clients were told, and when.
#[derive(Default)]
struct Told {
    enqueued: Mutex<Vec<(Text, Clock)>>,
    claimed: Mutex<Vec<(Text, Clock)>>,
    completed: Mutex<Vec<(Text, Clock)>>,
    enough: AtomicBool,
}

impl Traffic {
    fn begin(store: &Arc<Redis>) -> Traffic {
        let told = Arc::<Told>::default();
        let (mut producers, mut workers) = (JoinSet::new(), JoinSet::new());
        for name in ["a", "b"] {
            producers.spawn(produce(name, Arc::clone(store), Arc::clone(&told)));
            workers.spawn(work(Arc::clone(store), Arc::clone(&told)));
        }
        workers.spawn(return_expired(Arc::clone(store)));
        Traffic { told, producers, workers }
    }

    /// Waits until more tasks are enqueued, and more completed.
    async fn flows(&self) {
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
    async fn next_acknowledged(&self) -> String {
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
    async fn end(mut self, store: &Redis) -> Account {
        self.told.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.producers.join_next().await {
            ended.unwrap();
        }
        let begun = Clock::now();
        while store.stats().await != [0; 4] {
            assert!(begun.elapsed() < LIMIT, "{:?}", store.stats().await);
            sleep(Duration::from_millis(20)).await;
        }
        // A worker that panicked would be one that was told something wrong.
        self.workers.abort_all();
        while let Some(ended) = self.workers.join_next().await {
            assert!(ended.is_err_and(|error| error.is_cancelled()));
        }
        let ids = self.told.enqueued.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        let found = store.get(ids).await.unwrap().into_iter();
        let kept = found.filter_map(|task| task.ok().map(|task| task.id.clone())).collect();
        Account { told: self.told, kept }
    }
}

async fn produce(name: &str, store: Arc<Redis>, told: Arc<Told>) {
    for number in 0.. {
        if told.enough.load(Ordering::Relaxed) {
            return;
        }
        let new = Enqueue::now(task(&format!("{name}{number}")));
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

async fn work(store: Arc<Redis>, told: Arc<Told>) {
    loop {
        let claim = Claim { lease: Millis::from_secs(2), ..ask(10) };
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
async fn insist<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> T {
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
struct Account {
    told: Arc<Told>,
    kept: HashSet<Text>,
}

impl Account {
    /// Whatever was acknowledged before `replicated` or after `followed` has to be there; Redis itself
    /// may have lost what was acknowledged between them.
    fn lost_nothing_outside(&self, replicated: Clock, followed: Clock) {
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
                assert!(claimed <= completed, "{id} was claimed after it was completed");
            }
        }
    }
}
