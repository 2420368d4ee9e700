//! Subscriptions: who is told of waiting tasks, and when.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use codeq_plugin::{
    AllowNotify, AsyncSubscriptionStorage, Boxed, ByCommand, ByWorker, DeliveryMode, ErrorKind,
    GroupKey, Instant, Millis, Renew, Subscription, Unregister,
};
use codeq_redis::Redis;
use redis::Commands;
use support::*;

fn subscription(id: &str, commands: &[&str]) -> Subscription {
    Subscription {
        id: id.into(),
        worker_id: "w".into(),
        tenant_id: "a".into(),
        callback_url: "http://x/".into(),
        event_types: commands.iter().map(|command| (*command).into()).collect(),
        delivery_mode: DeliveryMode::Group,
        group_id: "g".into(),
        min_interval_seconds: 5,
        expires_at: Instant::now() + Millis::from_secs(60),
        created_at: Instant(1_700_000_000_123),
        ..Subscription::default()
    }
}

async fn register(store: &Redis, subscription: Subscription) {
    only(store.register(vec![Boxed::new(subscription)]).await).unwrap();
}

async fn about(store: &Redis, command: &str, tenant: &str) -> Vec<String> {
    let by = ByCommand { tenant_id: tenant.into(), command: command.into() };
    let found = store.get_by_command(by).await.unwrap();
    let mut ids: Vec<_> = found.iter().map(|subscription| subscription.id.to_string()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_subscription_is_found_by_command_and_by_worker() {
    let server = Server::start();
    let store = server.store().await;
    let mine = subscription("1", &["Mail", "SMS"]);
    register(&store, mine.clone()).await;
    register(&store, subscription("2", &["*"])).await;
    register(&store, Subscription { tenant_id: "b".into(), ..subscription("3", &["mail"]) }).await;
    assert_eq!(about(&store, "MAIL", "a").await, ["1", "2"]);
    assert_eq!(about(&store, "other", "a").await, ["2"]);
    assert_eq!(about(&store, "mail", "b").await, ["3"]);
    let by = ByWorker { tenant_id: "a".into(), worker_id: "w".into() };
    let found = store.get_by_worker(by).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|subscription| **subscription == mine));
}

#[tokio::test]
async fn an_expired_subscription_is_never_returned_removed_or_not() {
    let server = Server::start();
    let store = server.store().await;
    let ends = Instant::now() + Millis(300);
    register(&store, Subscription { expires_at: ends, ..subscription("1", &["mail"]) }).await;
    register(&store, subscription("2", &["mail"])).await;
    assert_eq!(about(&store, "mail", "a").await, ["1", "2"]);
    until(ends + Millis(1)).await;
    assert_eq!(about(&store, "mail", "a").await, ["2"]);
    let by = ByWorker { tenant_id: "a".into(), worker_id: "w".into() };
    assert_eq!(store.get_by_worker(by).await.unwrap().len(), 1);
    let ask = AllowNotify { subscription_id: "1".into(), min_interval: Millis(0) };
    assert!(!only(store.allow_notify(vec![ask]).await).unwrap());
    assert_eq!(store.remove_expired(0).await.unwrap(), 0);
    assert_eq!(store.remove_expired(9).await.unwrap(), 1);
    assert_eq!(store.remove_expired(9).await.unwrap(), 0);
    assert_eq!(server.redis().zcard("codeq:subs:mail"), Ok(1));
}

#[tokio::test]
async fn a_subscription_is_renewed_by_its_worker_while_it_lasts() {
    let server = Server::start();
    let store = server.store().await;
    let ends = Instant::now() + Millis(300);
    register(&store, Subscription { expires_at: ends, ..subscription("1", &["mail"]) }).await;
    let renew = |worker: &str, tenant: &str, expires_at| Renew {
        id: "1".into(),
        worker_id: worker.into(),
        tenant_id: tenant.into(),
        expires_at,
        ..Renew::default()
    };
    let later = Instant::now() + Millis(1_200);
    let refused = |answer: codeq_plugin::Result<_>| -> ErrorKind {
        let error: codeq_plugin::Error = answer.map(|_: Boxed<Subscription>| ()).unwrap_err();
        error.kind()
    };
    assert_eq!(refused(only(store.renew(vec![renew("v", "a", later)]).await)), ErrorKind::NotOwner);
    assert_eq!(refused(only(store.renew(vec![renew("w", "b", later)]).await)), ErrorKind::NotFound);
    let renewed = only(store.renew(vec![renew("w", "a", later)]).await).unwrap();
    assert_eq!(renewed.expires_at, later);
    until(ends + Millis(5)).await;
    assert_eq!(about(&store, "mail", "a").await, ["1"]);
    until(later + Millis(1)).await;
    assert_eq!(refused(only(store.renew(vec![renew("w", "a", later)]).await)), ErrorKind::NotFound);
}

#[tokio::test]
async fn subscriptions_end_by_id_or_by_worker_and_commands() {
    let server = Server::start();
    let store = server.store().await;
    for (id, command) in [("1", "A"), ("2", "B"), ("3", "C")] {
        register(&store, subscription(id, &[command])).await;
    }
    let end = async |id: &str, tenant: &str, commands: &[&str]| {
        let unregister = Unregister {
            id: id.into(),
            worker_id: "w".into(),
            tenant_id: tenant.into(),
            commands: commands.iter().map(|command| (*command).into()).collect(),
            ..Unregister::default()
        };
        only(store.unregister(vec![unregister]).await).unwrap()
    };
    assert_eq!(end("1", "b", &[]).await, 0);
    assert_eq!(end("1", "a", &[]).await, 1);
    assert_eq!(end("1", "a", &[]).await, 0);
    assert_eq!(end("", "a", &["b", "x"]).await, 1);
    assert_eq!(end("", "b", &[]).await, 0);
    assert_eq!(end("", "a", &[]).await, 1);
}

#[tokio::test]
async fn a_subscriber_is_told_once_per_interval() {
    let server = Server::start();
    let store = server.store().await;
    register(&store, subscription("1", &["mail"])).await;
    let allow = async |id: &str, interval| {
        let ask = AllowNotify { subscription_id: id.into(), min_interval: Millis(interval) };
        only(store.allow_notify(vec![ask]).await).unwrap()
    };
    assert!(allow("1", 400).await);
    assert!(!allow("1", 400).await);
    until(Instant::now() + Millis(405)).await;
    assert!(allow("1", 400).await);
    assert!(allow("1", 0).await);
    assert!(!allow("unknown", 50).await);
}

#[tokio::test]
async fn the_members_of_a_group_take_turns() {
    let server = Server::start();
    let store = server.store().await;
    let next = async |tenant: &str, command: &str, group: &str| {
        let key =
            GroupKey { tenant_id: tenant.into(), command: command.into(), group_id: group.into() };
        only(store.next_group_index(vec![key]).await).unwrap()
    };
    assert_eq!((next("a", "X", "g").await, next("a", "x", "g").await), (0, 1));
    assert_eq!((next("b", "X", "g").await, next("", "X", "g").await), (0, 0));
    assert_eq!((next("", "x:g", "h").await, next("", "x", "g:h").await), (0, 0));
    assert_eq!(server.redis().get("codeq:subs:rr:x:g"), Ok(1));
}

#[tokio::test]
async fn subscriptions_of_codeq_are_known_though_they_name_no_worker() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let text = r#"{"id":"1","callbackUrl":"http://x/","eventTypes":["MAIL"],"deliveryMode":"fanout","minIntervalSeconds":5,"expiresAt":"2100-01-02T09:00:00.5-03:00","createdAt":"2026-01-02T09:00:00-03:00"}"#;
    let () = redis.hset("codeq:subs", "1", text).unwrap();
    let () = redis.hset("codeq:subs", "broken", "{").unwrap();
    let () = redis
        .zadd_multiple("codeq:subs:mail", &[(4_102_574_400_i64, "1"), (4_102_574_400, "broken")])
        .unwrap();
    assert_eq!(about(&store, "mail", "").await, ["1"]);
    let expires_at = Instant::now() + Millis(1);
    let renew = Renew { id: "1".into(), worker_id: "w".into(), expires_at, ..Renew::default() };
    only(store.renew(vec![renew]).await).unwrap();
    until(expires_at + Millis(2)).await;
    assert_eq!(store.remove_expired(9).await.unwrap(), 1);
}
