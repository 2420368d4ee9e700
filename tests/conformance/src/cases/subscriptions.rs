//! Subscriptions, and rule 14: one that has expired is never returned.

use crate::{
    case::{Case, cases},
    stage::Stage,
    store::Store,
};
use std::thread;

use codeq_plugin::{
    AllowNotify, Boxed, ByCommand, ByWorker, ErrorKind, GroupKey, Instant, Millis, Renew,
    Subscription, Unregister,
};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Subscriptions:
        #[subscriptions] a_subscription_is_found_as_it_was_registered,
        #[subscriptions] a_subscription_is_found_by_each_of_its_commands_in_any_case,
        #[subscriptions] a_subscription_to_any_command_is_found_once_by_every_command,
        #[subscriptions] a_subscription_is_found_by_its_worker,
        #[subscriptions] #[alone] a_subscription_is_its_tenants,
        #[subscriptions] a_subscription_that_is_registered_again_replaces_itself,
        #[subscriptions] an_expired_subscription_is_never_returned,
        #[alone] #[subscriptions] a_renewed_subscription_lives_on,
        #[alone] #[subscriptions] a_renewed_subscription_is_removed_at_its_new_end,
        #[subscriptions] a_subscription_is_renewed_by_its_owner_only,
        #[subscriptions] a_subscription_is_ended_by_its_id,
        #[subscriptions] a_subscription_of_another_tenant_is_not_ended,
        #[subscriptions] the_subscriptions_of_a_worker_about_some_commands_are_ended,
        #[subscriptions] all_subscriptions_of_a_worker_are_ended,
        #[subscriptions] a_subscriber_is_told_once_in_an_interval,
        #[subscriptions] a_subscriber_is_not_told_again_within_a_long_interval,
        #[subscriptions] a_refusal_does_not_prolong_the_interval,
        #[subscriptions] a_subscriber_without_an_interval_is_always_told,
        #[subscriptions] an_unknown_subscriber_is_not_told,
        #[subscriptions] one_of_many_who_ask_at_once_may_tell,
        #[subscriptions] a_group_takes_turns_of_its_own,
        #[alone] #[subscriptions] what_has_expired_is_removed_and_counted_up_to_the_limit,
        #[subscriptions] a_subscriber_that_registers_again_is_not_told_again_within_its_interval,
        #[subscriptions] unregistering_does_not_count_what_has_expired,
        #[subscriptions] another_tenants_subscription_is_not_replaced,
    ]
    .into_iter()
}

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

fn register(store: &Store, subscription: Subscription) {
    store.register(Boxed::new(subscription)).unwrap();
}

fn by_command(store: &Store, tenant: &str, command: &str) -> Vec<String> {
    let by = ByCommand { tenant_id: tenant.into(), command: command.into() };
    sorted(&store.get_by_command(by).unwrap())
}

fn by_worker(store: &Store, tenant: &str, worker: &str) -> Vec<String> {
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

fn a_subscription_is_found_as_it_was_registered(stage: &Stage) {
    let store = stage.open();
    let made = Subscription { min_interval_seconds: 7, ..subscription("s", &["Resize", "crop"]) };
    register(&store, made.clone());
    let by = ByCommand { tenant_id: TENANT.into(), command: "crop".into() };
    assert_eq!(*store.get_by_command(by).unwrap()[0], made);
}

fn a_subscription_is_found_by_each_of_its_commands_in_any_case(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["Resize", "crop"]));
    for command in ["resize", "RESIZE", "Crop"] {
        assert_eq!(by_command(&store, TENANT, command), ["s"], "{command}");
    }
    assert!(by_command(&store, TENANT, "blur").is_empty());
}

fn a_subscription_to_any_command_is_found_once_by_every_command(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("any", &["*"]));
    register(&store, subscription("both", &["*", "resize"]));
    register(&store, subscription("one", &["resize"]));
    assert_eq!(by_command(&store, TENANT, "resize"), ["any", "both", "one"]);
    assert_eq!(by_command(&store, TENANT, "crop"), ["any", "both"]);
}

fn a_subscription_is_found_by_its_worker(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize", "crop"]));
    register(&store, Subscription { worker_id: "v".into(), ..subscription("t", &["resize"]) });
    assert_eq!(by_worker(&store, TENANT, "w"), ["s"]);
    assert_eq!(by_worker(&store, TENANT, "v"), ["t"]);
}

fn a_subscription_is_its_tenants(stage: &Stage) {
    let store = stage.open();
    for tenant in ["acme", "rival", ""] {
        let id = format!("of {tenant}");
        register(&store, Subscription { tenant_id: tenant.into(), ..subscription(&id, &["*"]) });
    }
    for tenant in ["acme", "rival", ""] {
        assert_eq!(by_command(&store, tenant, "resize"), [format!("of {tenant}")]);
        assert_eq!(by_worker(&store, tenant, "w"), [format!("of {tenant}")]);
    }
}

fn a_subscription_that_is_registered_again_replaces_itself(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    register(&store, Subscription { worker_id: "v".into(), ..subscription("s", &["crop"]) });
    assert!(by_command(&store, TENANT, "resize").is_empty());
    assert!(by_worker(&store, TENANT, "w").is_empty());
    assert_eq!(by_command(&store, TENANT, "crop"), ["s"]);
    assert_eq!(by_worker(&store, TENANT, "v"), ["s"]);
}

fn an_expired_subscription_is_never_returned(stage: &Stage) {
    let store = stage.open();
    let expires_at = Instant::now() + SHORT;
    register(&store, Subscription { expires_at, ..subscription("s", &["resize", "*"]) });
    wait_until(expires_at);
    assert!(by_command(&store, TENANT, "resize").is_empty());
    assert!(by_worker(&store, TENANT, "w").is_empty());
    assert_eq!(kind(store.renew(renew("s"))), ErrorKind::NotFound);
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: Millis::ZERO };
    assert!(!store.allow_notify(ask).unwrap());
}

fn a_renewed_subscription_lives_on(stage: &Stage) {
    let store = stage.open();
    let expires_at = Instant::now() + Millis(500);
    register(&store, Subscription { expires_at, ..subscription("s", &["resize"]) });
    let renewal = renew("s");
    let renewed = store.renew(renewal.clone()).unwrap();
    assert_eq!(renewed.expires_at, renewal.expires_at);
    wait_until(expires_at);
    assert_eq!(store.remove_expired(10).unwrap(), 0);
    assert_eq!(by_command(&store, TENANT, "resize"), ["s"]);
}

fn a_renewed_subscription_is_removed_at_its_new_end(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    let expires_at = Instant::now();
    let sooner = Renew { expires_at, ..renew("s") };
    store.renew(sooner).unwrap();
    assert_eq!(store.remove_expired(10).unwrap(), 1);
}

fn a_subscription_is_renewed_by_its_owner_only(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    let by_other = Renew { worker_id: "v".into(), ..renew("s") };
    assert_eq!(kind(store.renew(by_other)), ErrorKind::NotOwner);
    let of_other = Renew { tenant_id: "rival".into(), ..renew("s") };
    assert_eq!(kind(store.renew(of_other)), ErrorKind::NotFound);
    assert_eq!(kind(store.renew(renew("unknown"))), ErrorKind::NotFound);
}

fn a_subscription_is_ended_by_its_id(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    register(&store, subscription("t", &["resize"]));
    assert_eq!(store.unregister(unregister("s")).unwrap(), 1);
    assert_eq!(by_command(&store, TENANT, "resize"), ["t"]);
    assert_eq!(store.unregister(unregister("s")).unwrap(), 0);
}

fn a_subscription_of_another_tenant_is_not_ended(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    for id in ["s", ""] {
        let foreign = Unregister { tenant_id: "rival".into(), ..unregister(id) };
        assert_eq!(store.unregister(foreign).unwrap(), 0);
    }
    assert_eq!(by_worker(&store, TENANT, "w"), ["s"]);
}

fn the_subscriptions_of_a_worker_about_some_commands_are_ended(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("resize", &["Resize"]));
    register(&store, subscription("both", &["crop", "resize"]));
    register(&store, subscription("crop", &["crop"]));
    register(&store, Subscription { worker_id: "v".into(), ..subscription("other", &["resize"]) });
    let about = Unregister { commands: texts(&["RESIZE", "blur"]), ..unregister("") };
    assert_eq!(store.unregister(about).unwrap(), 2);
    assert_eq!(by_worker(&store, TENANT, "w"), ["crop"]);
    assert_eq!(by_worker(&store, TENANT, "v"), ["other"]);
}

fn all_subscriptions_of_a_worker_are_ended(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    register(&store, subscription("t", &["*"]));
    register(&store, Subscription { worker_id: "v".into(), ..subscription("other", &["*"]) });
    assert_eq!(store.unregister(unregister("")).unwrap(), 2);
    assert_eq!(by_command(&store, TENANT, "resize"), ["other"]);
}

fn a_subscriber_is_told_once_in_an_interval(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: Millis(30) };
    let before = Instant::now();
    assert!(store.allow_notify(ask.clone()).unwrap());
    let told = Instant::now();
    at_some_moment(told + Millis(5_000), || {
        let asked = store.allow_notify(ask.clone()).unwrap();
        assert!(!asked || Instant::now() >= before + Millis(30), "told twice within an interval");
        asked
    });
}

fn a_subscriber_is_not_told_again_within_a_long_interval(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: LONG };
    assert!(store.allow_notify(ask.clone()).unwrap());
    assert!(!store.allow_notify(ask.clone()).unwrap());
    assert!(!store.allow_notify(ask).unwrap());
}

fn a_refusal_does_not_prolong_the_interval(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: Millis(60) };
    let before = Instant::now();
    assert!(store.allow_notify(ask.clone()).unwrap());
    let due = Instant::now() + Millis(60);
    let mut allowed = false;
    while Instant::now() <= due {
        allowed |= store.allow_notify(ask.clone()).unwrap();
        // The store may have told the time at any moment of the first call.
        let is_due = Instant::now() >= before + Millis(60);
        assert!(!allowed || is_due, "told twice within an interval");
    }
    // Whoever asks all the time is told at the end of the interval all the same.
    assert!(allowed || store.allow_notify(ask).unwrap());
}

fn a_subscriber_without_an_interval_is_always_told(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["resize"]));
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: Millis::ZERO };
    assert!(store.allow_notify(ask.clone()).unwrap());
    assert!(store.allow_notify(ask).unwrap());
}

fn an_unknown_subscriber_is_not_told(stage: &Stage) {
    let store = stage.open();
    let ask = AllowNotify { subscription_id: "s".into(), min_interval: Millis::ZERO };
    assert!(!store.allow_notify(ask).unwrap());
}

fn one_of_many_who_ask_at_once_may_tell(stage: &Stage) {
    let store = stage.open();
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

fn a_group_takes_turns_of_its_own(stage: &Stage) {
    let store = stage.open();
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

fn what_has_expired_is_removed_and_counted_up_to_the_limit(stage: &Stage) {
    let store = stage.open();
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

fn a_subscriber_that_registers_again_is_not_told_again_within_its_interval(stage: &Stage) {
    let store = stage.open();
    let ask = || AllowNotify { subscription_id: "s".into(), min_interval: LONG };
    register(&store, subscription("s", &["*"]));
    assert!(store.allow_notify(ask()).unwrap());
    register(&store, subscription("s", &["*"]));
    assert!(!store.allow_notify(ask()).unwrap());
}

fn unregistering_does_not_count_what_has_expired(stage: &Stage) {
    let store = stage.open();
    register(&store, Subscription { expires_at: Instant(1), ..subscription("s", &["*"]) });
    assert_eq!(store.unregister(unregister("")).unwrap(), 0);
}

fn another_tenants_subscription_is_not_replaced(stage: &Stage) {
    let store = stage.open();
    register(&store, subscription("s", &["*"]));
    let foreign = Subscription { tenant_id: "rival".into(), ..subscription("s", &["*"]) };
    assert_eq!(kind(store.register(Boxed::new(foreign))), ErrorKind::AlreadyExists);
    assert_eq!(by_worker(&store, TENANT, "w"), ["s"]);
}
