//! Subscriptions, and rule 14: one that has expired is never returned.

use std::thread;

use codeq_memory::Memory;
use codeq_plugin::{
    AllowNotify, Boxed, ByCommand, ByWorker, ErrorKind, GroupKey, Instant, Millis, Renew,
    Subscription, SubscriptionStorage, Unregister,
};

use crate::support::*;

fn subscription(id: &str, events: &[&str]) -> Subscription {
    Subscription {
        id: id.into(),
        worker_id: "w".into(),
        tenant_id: TENANT.into(),
        callback_url: "http://localhost/notify".into(),
        event_types: texts(events),
        expires_at: Instant::now() + LONG,
        ..Subscription::default()
    }
}

fn register(store: &Memory, subscription: Subscription) {
    store.register(Boxed::new(subscription)).unwrap();
}

fn by_command(store: &Memory, tenant: &str, command: &str) -> Vec<String> {
    let by = ByCommand { tenant_id: tenant.into(), command: command.into() };
    sorted(&store.get_by_command(by).unwrap())
}

fn by_worker(store: &Memory, tenant: &str, worker: &str) -> Vec<String> {
    let by = ByWorker { tenant_id: tenant.into(), worker_id: worker.into() };
    sorted(&store.get_by_worker(by).unwrap())
}

fn sorted(subscriptions: &[Boxed<Subscription>]) -> Vec<String> {
    let mut ids: Vec<_> = subscriptions.iter().map(|found| found.id.to_string()).collect();
    ids.sort();
    ids
}

fn unregister(id: &str) -> Unregister {
    Unregister {
        id: id.into(),
        worker_id: "w".into(),
        tenant_id: TENANT.into(),
        ..Unregister::default()
    }
}

fn renew(id: &str) -> Renew {
    Renew {
        id: id.into(),
        worker_id: "w".into(),
        tenant_id: TENANT.into(),
        expires_at: Instant::now() + LONG,
        ..Renew::default()
    }
}

#[test]
fn a_subscription_is_found_as_it_was_registered() {
    let store = open();
    let made = Subscription { min_interval_seconds: 7, ..subscription("s", &["Resize", "crop"]) };
    register(&store, made.clone());
    let by = ByCommand { tenant_id: TENANT.into(), command: "crop".into() };
    assert_eq!(*store.get_by_command(by).unwrap()[0], made);
}

#[test]
fn a_subscription_is_found_by_each_of_its_commands_in_any_case() {
    let store = open();
    register(&store, subscription("s", &["Resize", "crop"]));
    for command in ["resize", "RESIZE", "Crop"] {
        assert_eq!(by_command(&store, TENANT, command), ["s"], "{command}");
    }
    assert!(by_command(&store, TENANT, "blur").is_empty());
}

#[test]
fn a_subscription_to_any_command_is_found_once_by_every_command() {
    let store = open();
    register(&store, subscription("any", &["*"]));
    register(&store, subscription("both", &["*", "resize"]));
    register(&store, subscription("one", &["resize"]));
    assert_eq!(by_command(&store, TENANT, "resize"), ["any", "both", "one"]);
    assert_eq!(by_command(&store, TENANT, "crop"), ["any", "both"]);
}

#[test]
fn a_subscription_is_found_by_its_worker() {
    let store = open();
    register(&store, subscription("s", &["resize", "crop"]));
    register(&store, Subscription { worker_id: "v".into(), ..subscription("t", &["resize"]) });
    assert_eq!(by_worker(&store, TENANT, "w"), ["s"]);
    assert_eq!(by_worker(&store, TENANT, "v"), ["t"]);
}

#[test]
fn a_subscription_is_its_tenants() {
    let store = open();
    for tenant in ["acme", "rival", ""] {
        let id = format!("of {tenant}");
        register(&store, Subscription { tenant_id: tenant.into(), ..subscription(&id, &["*"]) });
    }
    for tenant in ["acme", "rival", ""] {
        assert_eq!(by_command(&store, tenant, "resize"), [format!("of {tenant}")]);
        assert_eq!(by_worker(&store, tenant, "w"), [format!("of {tenant}")]);
    }
}

#[test]
fn a_subscription_that_is_registered_again_replaces_itself() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    register(&store, Subscription { worker_id: "v".into(), ..subscription("s", &["crop"]) });
    assert!(by_command(&store, TENANT, "resize").is_empty());
    assert!(by_worker(&store, TENANT, "w").is_empty());
    assert_eq!(by_command(&store, TENANT, "crop"), ["s"]);
    assert_eq!(by_worker(&store, TENANT, "v"), ["s"]);
}

#[test]
fn an_expired_subscription_is_never_returned() {
    let store = open();
    let expires_at = Instant::now() + SHORT;
    register(&store, Subscription { expires_at, ..subscription("s", &["resize", "*"]) });
    wait_until(expires_at);
    assert!(by_command(&store, TENANT, "resize").is_empty());
    assert!(by_worker(&store, TENANT, "w").is_empty());
    assert_eq!(kind(store.renew(renew("s"))), ErrorKind::NotFound);
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: Millis::ZERO };
    assert!(!store.allow_notify(ask).unwrap());
}

#[test]
fn a_renewed_subscription_lives_on() {
    let store = open();
    let expires_at = Instant::now() + Millis(500);
    register(&store, Subscription { expires_at, ..subscription("s", &["resize"]) });
    let renewal = renew("s");
    let renewed = store.renew(renewal.clone()).unwrap();
    assert_eq!(renewed.expires_at, renewal.expires_at);
    wait_until(expires_at);
    assert_eq!(store.remove_expired(10).unwrap(), 0);
    assert_eq!(by_command(&store, TENANT, "resize"), ["s"]);
}

#[test]
fn a_renewed_subscription_is_removed_at_its_new_end() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    let expires_at = Instant::now();
    let sooner = Renew { expires_at, ..renew("s") };
    store.renew(sooner).unwrap();
    assert_eq!(store.remove_expired(10).unwrap(), 1);
}

#[test]
fn a_subscription_is_renewed_by_its_owner_only() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    let by_other = Renew { worker_id: "v".into(), ..renew("s") };
    assert_eq!(kind(store.renew(by_other)), ErrorKind::NotOwner);
    let of_other = Renew { tenant_id: "rival".into(), ..renew("s") };
    assert_eq!(kind(store.renew(of_other)), ErrorKind::NotFound);
    assert_eq!(kind(store.renew(renew("unknown"))), ErrorKind::NotFound);
}

#[test]
fn a_subscription_is_ended_by_its_id() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    register(&store, subscription("t", &["resize"]));
    assert_eq!(store.unregister(unregister("s")).unwrap(), 1);
    assert_eq!(by_command(&store, TENANT, "resize"), ["t"]);
    assert_eq!(store.unregister(unregister("s")).unwrap(), 0);
}

#[test]
fn a_subscription_of_another_tenant_is_not_ended() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    for id in ["s", ""] {
        let foreign = Unregister { tenant_id: "rival".into(), ..unregister(id) };
        assert_eq!(store.unregister(foreign).unwrap(), 0);
    }
    assert_eq!(by_worker(&store, TENANT, "w"), ["s"]);
}

#[test]
fn the_subscriptions_of_a_worker_about_some_commands_are_ended() {
    let store = open();
    register(&store, subscription("resize", &["Resize"]));
    register(&store, subscription("both", &["crop", "resize"]));
    register(&store, subscription("crop", &["crop"]));
    register(&store, Subscription { worker_id: "v".into(), ..subscription("other", &["resize"]) });
    let about = Unregister { commands: texts(&["RESIZE", "blur"]), ..unregister("") };
    assert_eq!(store.unregister(about).unwrap(), 2);
    assert_eq!(by_worker(&store, TENANT, "w"), ["crop"]);
    assert_eq!(by_worker(&store, TENANT, "v"), ["other"]);
}

#[test]
fn all_subscriptions_of_a_worker_are_ended() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    register(&store, subscription("t", &["*"]));
    register(&store, Subscription { worker_id: "v".into(), ..subscription("other", &["*"]) });
    assert_eq!(store.unregister(unregister("")).unwrap(), 2);
    assert_eq!(by_command(&store, TENANT, "resize"), ["other"]);
}

#[test]
fn a_subscriber_is_told_once_in_an_interval() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    let ask = |interval| {
        let ask = AllowNotify { subscription_id: "s".into(), min_interval: interval };
        store.allow_notify(ask).unwrap()
    };
    assert!(ask(LONG));
    assert!(!ask(LONG));
    let before = Instant::now();
    while !ask(SHORT) {
        thread::yield_now();
    }
    assert!(Instant::now().since(before) < Millis(5_000));
}

#[test]
fn a_refusal_does_not_prolong_the_interval() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    let ask = |interval| AllowNotify { subscription_id: "s".into(), min_interval: interval };
    assert!(store.allow_notify(ask(SHORT)).unwrap());
    let due = Instant::now() + SHORT;
    while Instant::now() < due {
        store.allow_notify(ask(LONG)).unwrap();
    }
    assert!(store.allow_notify(ask(SHORT)).unwrap());
}

#[test]
fn a_subscriber_without_an_interval_is_always_told() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: Millis::ZERO };
    assert!(store.allow_notify(ask.clone()).unwrap());
    assert!(store.allow_notify(ask).unwrap());
}

#[test]
fn an_unknown_subscriber_is_not_told() {
    let store = open();
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: Millis::ZERO };
    assert!(!store.allow_notify(ask).unwrap());
}

#[test]
fn one_of_many_who_ask_at_once_may_tell() {
    let store = open();
    register(&store, subscription("s", &["resize"]));
    let allowed = thread::scope(|scope| {
        let askers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let ask = AllowNotify { subscription_id: "s".into(), min_interval: LONG };
                    store.allow_notify(ask).unwrap()
                })
            })
            .collect();
        askers.into_iter().map(|asker| u32::from(asker.join().unwrap())).sum::<u32>()
    });
    assert_eq!(allowed, 1);
}

#[test]
fn a_group_takes_turns_of_its_own() {
    let store = open();
    let turn = |tenant: &str, command: &str, group: &str| {
        let group =
            GroupKey { tenant_id: tenant.into(), command: command.into(), group_id: group.into() };
        store.next_group_index(group).unwrap()
    };
    assert_eq!([0; 3].map(|_| turn("a", "resize", "g")), [0, 1, 2]);
    assert_eq!(turn("a", "RESIZE", "g"), 3);
    assert_eq!(turn("a", "crop", "g"), 0);
    assert_eq!(turn("a", "resize", "h"), 0);
    assert_eq!(turn("b", "resize", "g"), 0);
}

#[test]
fn what_has_expired_is_removed_and_counted_up_to_the_limit() {
    let store = open();
    for number in 0..5 {
        let expires_at = Instant(number);
        register(&store, Subscription { expires_at, ..subscription(&number.to_string(), &["*"]) });
    }
    register(&store, subscription("active", &["*"]));
    for expected in [3, 2, 0] {
        assert_eq!(store.remove_expired(3).unwrap(), expected);
    }
    assert_eq!(by_command(&store, TENANT, "resize"), ["active"]);
}
