//! The life cycle: opening, health, closing.

use codeq_plugin::{
    AllowNotify, Boxed, ByCommand, ByWorker, Capability, Claim, Enqueue, ErrorKind, GroupKey,
    ListTasks, Renew, Subscription, TaskKey, TaskStatus, Unregister,
};
use serde_json::{Value, json};

use super::support::*;
use crate::{
    case::{Case, cases},
    stage::Stage,
};

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Life:
        an_open_store_is_healthy,
        closing_twice_is_closing_once,
        #[alone] every_operation_after_closing_is_closed,
        a_store_can_be_opened_again_after_closing,
        a_configuration_of_the_wrong_kind_is_refused,
        a_setting_that_does_not_exist_is_refused_by_its_name,
        #[alone] what_is_not_declared_is_unsupported,
        a_batch_is_answered_item_by_item_in_its_order,
        an_empty_batch_is_answered_with_none,
        closing_waits_for_what_is_in_flight,
    ]
    .into_iter()
}

fn an_open_store_is_healthy(stage: &Stage) {
    stage.open().health().unwrap();
}

fn closing_twice_is_closing_once(stage: &Stage) {
    let store = stage.open();
    store.close().unwrap();
    store.close().unwrap();
}

fn every_operation_after_closing_is_closed(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    store.close().unwrap();
    assert_eq!(kind(store.get("a")), ErrorKind::Closed);
    assert_eq!(kind(store.enqueue(Enqueue::now(task("b")))), ErrorKind::Closed);
    assert_eq!(kind(store.claim(claim_by("w"))), ErrorKind::Closed);
    assert_eq!(kind(store.queue_stats(queue(TENANT, COMMAND))), ErrorKind::Closed);
    assert_eq!(kind(store.get_result("a")), ErrorKind::Closed);
    assert_eq!(kind(store.move_due_delayed(1)), ErrorKind::Closed);
    assert_eq!(kind(store.requeue_expired(1)), ErrorKind::Closed);
    assert_eq!(kind(store.health()), ErrorKind::Closed);
}

fn a_store_can_be_opened_again_after_closing(stage: &Stage) {
    for _ in 0..3 {
        let store = stage.open();
        enqueue(&store, task("a"));
        claim_one(&store, "w");
        store.clear();
        store.close().unwrap();
    }
}

fn a_configuration_of_the_wrong_kind_is_refused(stage: &Stage) {
    for wrong in [json!("text"), json!([1]), json!(7)] {
        let refused = stage.try_open(&wrong).err();
        let refused = refused.unwrap_or_else(|| panic!("it opened with the configuration {wrong}"));
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig, "{wrong}: {refused}");
    }
}

fn a_setting_that_does_not_exist_is_refused_by_its_name(stage: &Stage) {
    let mut config = stage.config().clone();
    if let Value::Object(settings) = &mut config {
        settings.insert("noSuchSetting".into(), json!(1));
    }
    let refused = stage.try_open(&config).err().expect("an unknown setting must be refused");
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig, "{refused}");
    assert!(refused.to_string().contains("noSuchSetting"), "{refused}");
}

fn what_is_not_declared_is_unsupported(stage: &Stage) {
    let store = stage.open();
    if !stage.has(Capability::Listing) {
        assert_eq!(kind(store.list(ListTasks::default())), ErrorKind::Unsupported);
        assert_eq!(kind(store.redrive(TaskKey::default())), ErrorKind::Unsupported);
    }
    if !stage.has(Capability::Subscriptions) {
        let subscription = Boxed::new(Subscription::default());
        assert_eq!(kind(store.register(subscription)), ErrorKind::Unsupported);
        assert_eq!(kind(store.renew(Renew::default())), ErrorKind::Unsupported);
        assert_eq!(kind(store.unregister(Unregister::default())), ErrorKind::Unsupported);
        assert_eq!(kind(store.get_by_command(ByCommand::default())), ErrorKind::Unsupported);
        assert_eq!(kind(store.get_by_worker(ByWorker::default())), ErrorKind::Unsupported);
        assert_eq!(kind(store.allow_notify(AllowNotify::default())), ErrorKind::Unsupported);
        assert_eq!(kind(store.next_group_index(GroupKey::default())), ErrorKind::Unsupported);
        assert_eq!(kind(store.remove_expired(1)), ErrorKind::Unsupported);
    }
    if !stage.has(Capability::Events) {
        assert_eq!(kind(store.next_events()), ErrorKind::Unsupported);
    }
}

fn a_batch_is_answered_item_by_item_in_its_order(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("taken"));
    let batch = ["a", "taken", "b", "a", "c"].map(|id| Enqueue::now(task(id)));
    let answers = store.enqueue_all(batch.to_vec()).unwrap();
    let ids: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.map(|made| made.task.id.to_string()).map_err(|error| error.kind()))
        .collect();
    let taken = || Err(ErrorKind::AlreadyExists);
    assert_eq!(ids, [Ok("a".into()), taken(), Ok("b".into()), taken(), Ok("c".into())]);
    let claimed = claim(&store, Claim { max: 3, ..claim_by("w") });
    let batch: Vec<_> = claimed.iter().rev().chain(&claimed[..1]).collect();
    let mut expected: Vec<_> = batch.iter().map(|task| Ok(task.id.to_string())).collect();
    expected[3] = Err(ErrorKind::NotInProgress);
    let batch = batch.into_iter().map(|task| completion(task, TaskStatus::Completed)).collect();
    let answers = store.complete_all(batch).unwrap();
    let ids: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.map(|done| done.task.id.to_string()).map_err(|error| error.kind()))
        .collect();
    assert_eq!(ids, expected);
}

fn an_empty_batch_is_answered_with_none(stage: &Stage) {
    let store = stage.open();
    assert!(store.enqueue_all(Vec::new()).unwrap().is_empty());
    assert!(store.complete_all(Vec::new()).unwrap().is_empty());
}

fn closing_waits_for_what_is_in_flight(stage: &Stage) {
    let store = stage.open();
    let outcome = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for number in 0.. {
                let made = store.enqueue(Enqueue::now(task(&number.to_string())));
                if let Err(error) = made {
                    return error.kind();
                }
            }
            unreachable!("numbers do not end")
        });
        std::thread::sleep(std::time::Duration::from_millis(5));
        store.close().unwrap();
        busy.join().expect("the thread that enqueues")
    });
    assert_eq!(outcome, ErrorKind::Closed);
}
