//! Users of a server that knows who may do what.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use codeq_plugin::{
    AsyncPersistence, AsyncSubscriptionStorage, AsyncTaskStorage, Boxed, Cleanup, Enqueue,
    ErrorKind, Instant, ListTasks, Millis, Subscription,
};
use codeq_redis::{Config, Redis};
use support::*;

/// The rights that the operating guide names.
const RIGHTS: [&str; 9] = [
    "~codeq:*",
    "&codeq:x:events",
    "-@all",
    "+@read",
    "+@write",
    "+@scripting",
    "+@connection",
    "+@pubsub",
    "+time",
];

fn user(server: &Server, name: &str, rights: &[&str]) -> Config {
    let mut command = redis::cmd("ACL");
    command.arg(&["SETUSER", name, "reset", "on", ">secret"]).arg(rights);
    let () = command.query(&mut server.redis()).unwrap();
    Config { username: name.into(), password: "secret".into(), ..server.config() }
}

#[tokio::test]
async fn a_user_with_the_rights_that_are_named_may_do_everything() {
    let server = Server::start();
    let config = user(&server, "codeq", &RIGHTS);
    let store = Redis::open(config.clone(), context(rules())).await.unwrap();
    let other = Redis::open(config, context(rules())).await.unwrap();
    let events = tokio::spawn(async move { other.next_events().await });
    store.put_as(keyed(task("t"), "key")).await.unwrap();
    let later = Instant::now() + Millis(500);
    store.enqueue(vec![delayed(task("later"), later)]).await.unwrap();
    assert_eq!(store.take_ids(1).await, ["t"]);
    store.fail_for(lease("t", 1), 0).await.unwrap();
    assert_eq!(store.take(ask_any(1)).await.len(), 1);
    store.hand_back(lease("t", 2)).await.unwrap();
    assert_eq!(store.take_ids(1).await, ["t"]);
    store.finish(lease("t", 2)).await.unwrap();
    until(later + Millis(5)).await;
    store.move_due_delayed(10).await.unwrap();
    store.requeue_expired(10).await.unwrap();
    assert_eq!(store.admin_queues(None).await.unwrap().len(), 1);
    assert_eq!(
        store.list(ListTasks { limit: 10, ..ListTasks::default() }).await.unwrap().tasks.len(),
        2
    );
    let subscription = Subscription {
        id: "s".into(),
        tenant_id: "a".into(),
        event_types: ["MAIL".into()].into_iter().collect(),
        expires_at: later + Millis::DAY,
        ..Subscription::default()
    };
    store.register(vec![Boxed::new(subscription)]).await.unwrap();
    store.remove_expired(10).await.unwrap();
    let cleanup =
        Cleanup { before: later + Millis(3 * Millis::DAY.0), limit: 10, ..Cleanup::default() };
    assert_eq!(store.cleanup_expired(cleanup).await.unwrap(), 2);
    // The subscription may have come after the first event.
    while !events.is_finished() {
        store.enqueue(vec![Enqueue::now(task("again"))]).await.unwrap();
        store.delete(vec!["again".into()]).await.unwrap();
    }
    assert!(!events.await.unwrap().unwrap().is_empty());
    store.health().await.unwrap();
}

#[tokio::test]
async fn a_user_who_may_not_use_codeq_s_keys_is_refused_when_the_store_opens() {
    let server = Server::start();
    for rights in [&["~other:*", "+@all"][..], &["~codeq:*", "+@all", "-eval", "-evalsha"]] {
        let config = user(&server, "stranger", rights);
        let error = Redis::open(config, context(rules())).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("persistenceConfig.username"), "{error}");
    }
}

#[tokio::test]
async fn databases_of_one_server_know_nothing_of_each_other() {
    let server = Server::start();
    let open =
        async |db| Redis::open(Config { db, ..server.config() }, context(rules())).await.unwrap();
    let (store, other) = (open(0).await, open(7).await);
    store.put(task("t")).await;
    other.put(task("t")).await;
    assert_eq!(other.take_ids(5).await, ["t"]);
    assert_eq!(store.take_ids(5).await, ["t"]);
}
