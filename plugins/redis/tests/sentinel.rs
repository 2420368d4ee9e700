//! A master that Sentinels know: finding it, and following it when it fails or is replaced.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{AsyncPersistence, Error, ErrorKind, Result};
use codeq_redis::{Config, Redis};
use codeq_test_servers::SentinelGroup;
use support::{
    traffic::{LIMIT, Traffic, hears_of_tasks, insist, interrupted},
    *,
};
use tokio::time::sleep;

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
    let traffic = Traffic::begin(&[Arc::clone(&store)], &["MAIL"]);
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
    let traffic = Traffic::begin(&[Arc::clone(&store)], &["MAIL"]);
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
    let traffic = Traffic::begin(&[Arc::clone(&store)], &["MAIL"]);
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
