//! Rule 9: the same key gives the same task.

use crate::{
    case::{Case, cases},
    stage::Stage,
};
use std::thread;

use codeq_plugin::{Cleanup, Enqueue, ErrorKind, Instant, Millis, Placed, rules::Rules};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Idempotency:
        the_second_enqueue_with_a_key_answers_with_the_first_task,
        the_answer_is_the_first_task_as_it_is_now,
        a_key_is_one_for_all_commands_of_its_tenant,
        the_same_key_of_different_tenants_gives_different_tasks,
        no_key_is_no_key,
        different_keys_give_different_tasks,
        an_id_that_is_taken_already_exists,
        an_enqueue_that_failed_does_not_use_up_its_key,
        the_same_id_and_key_again_is_a_repetition_and_no_conflict,
        the_key_of_a_deleted_task_may_be_used_again,
        the_key_of_a_deleted_task_does_not_name_the_task_that_took_its_memory,
        a_key_is_remembered_through_its_window_and_no_longer,
        #[alone] a_key_that_is_used_again_after_its_window_is_not_forgotten_with_the_old_use,
        enqueues_that_race_with_one_key_give_one_task,
        enqueues_that_race_for_one_id_give_one_task,
        saving_a_task_does_not_forget_its_key,
    ]
    .into_iter()
}

fn the_second_enqueue_with_a_key_answers_with_the_first_task(stage: &Stage) {
    let store = stage.open();
    let first = store.enqueue(keyed("k", task("first"))).unwrap();
    let second = store.enqueue(keyed("k", task("second"))).unwrap();
    assert!(first.created && !second.created);
    assert_eq!(second.task, first.task);
    assert!(!second.awoke);
    assert_eq!(counts(&store), [1, 0, 0, 0]);
    assert_eq!(kind(store.get("second")), ErrorKind::NotFound);
}

fn the_answer_is_the_first_task_as_it_is_now(stage: &Stage) {
    let store = stage.open();
    store.enqueue(keyed("k", task("first"))).unwrap();
    let claimed = claim_one(&store, "w");
    let again = store.enqueue(keyed("k", task("second"))).unwrap();
    assert_eq!(again.task, claimed);
    complete(&store, &claimed).unwrap();
    let again = store.enqueue(keyed("k", task("third"))).unwrap();
    assert_eq!(again.task, store.get("first").unwrap());
    assert!(claim(&store, claim_by("w")).is_empty());
}

fn a_key_is_one_for_all_commands_of_its_tenant(stage: &Stage) {
    let store = stage.open();
    store.enqueue(keyed("k", task_of(TENANT, "a", "first"))).unwrap();
    let second = store.enqueue(keyed("k", task_of(TENANT, "b", "second"))).unwrap();
    assert_eq!(second.task.id, "first");
}

fn the_same_key_of_different_tenants_gives_different_tasks(stage: &Stage) {
    let store = stage.open();
    for tenant in ["a", "b", ""] {
        let enqueued = store.enqueue(keyed("k", task_of(tenant, COMMAND, &format!("of {tenant}"))));
        assert!(enqueued.unwrap().created);
    }
}

fn no_key_is_no_key(stage: &Stage) {
    let store = stage.open();
    for id in ["a", "b"] {
        assert!(store.enqueue(keyed("", task(id))).unwrap().created);
    }
}

fn different_keys_give_different_tasks(stage: &Stage) {
    let store = stage.open();
    for id in ["a", "b"] {
        assert!(store.enqueue(keyed(id, task(id))).unwrap().created);
    }
}

fn an_id_that_is_taken_already_exists(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    assert_eq!(kind(store.enqueue(Enqueue::now(task("a")))), ErrorKind::AlreadyExists);
    assert_eq!(kind(store.enqueue(keyed("k", task("a")))), ErrorKind::AlreadyExists);
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}

fn an_enqueue_that_failed_does_not_use_up_its_key(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    assert!(store.enqueue(keyed("k", task("a"))).is_err());
    assert!(store.enqueue(keyed("k", task("b"))).unwrap().created);
}

fn the_same_id_and_key_again_is_a_repetition_and_no_conflict(stage: &Stage) {
    let store = stage.open();
    store.enqueue(keyed("k", task("a"))).unwrap();
    assert!(!store.enqueue(keyed("k", task("a"))).unwrap().created);
}

fn the_key_of_a_deleted_task_may_be_used_again(stage: &Stage) {
    let store = stage.open();
    store.enqueue(keyed("k", task("a"))).unwrap();
    store.delete("a").unwrap();
    assert!(store.enqueue(keyed("k", task("b"))).unwrap().created);
    assert_eq!(store.enqueue(keyed("k", task("c"))).unwrap().task.id, "b");
}

fn the_key_of_a_deleted_task_does_not_name_the_task_that_took_its_memory(stage: &Stage) {
    let store = stage.open();
    store.enqueue(keyed("k", task("a"))).unwrap();
    store.delete("a").unwrap();
    enqueue(&store, task("unrelated"));
    assert!(store.enqueue(keyed("k", task("b"))).unwrap().created);
}

fn a_key_is_remembered_through_its_window_and_no_longer(stage: &Stage) {
    let store = stage.open_with(Rules { idempotency_window: Millis(40), ..no_wait() });
    let before = Instant::now();
    store.enqueue(keyed("k", task("first"))).unwrap();
    let forgotten = before + Millis(40);
    let mut number = 0;
    at_some_moment(Instant::now() + Millis(5_000), || {
        number += 1;
        let again = store.enqueue(keyed("k", task(&number.to_string()))).unwrap();
        assert!(!again.created || Instant::now() >= forgotten, "a key was forgotten too early");
        again.created
    });
}

fn a_key_that_is_used_again_after_its_window_is_not_forgotten_with_the_old_use(stage: &Stage) {
    let window = Millis(60);
    let store = stage.open_with(Rules { idempotency_window: window, ..no_wait() });
    let mut number = 0;
    let mut use_again = || {
        number += 1;
        store.enqueue(keyed("k", task(&number.to_string()))).unwrap()
    };
    use_again();
    let mut again = use_again();
    at_some_moment(Instant::now() + Millis(5_000), || {
        again = use_again();
        again.created
    });
    let cleanup = Cleanup { before: Instant::now(), limit: 10, ..Cleanup::default() };
    store.cleanup_expired(cleanup).unwrap();
    let last = use_again();
    let still = Instant::now() < again.task.created_at + window;
    assert!(!still || last.task.id == again.task.id);
}

fn enqueues_that_race_with_one_key_give_one_task(stage: &Stage) {
    let store = stage.open();
    for round in 0..50 {
        let key = format!("k{round}");
        let answers: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|racer| {
                    let (store, key) = (&store, &key);
                    scope.spawn(move || {
                        let id = format!("{round}/{racer}");
                        store.enqueue(keyed(key, task(&id))).unwrap()
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
        assert!(answers.iter().all(|answer| answer.task.id == answers[0].task.id));
    }
    assert_eq!(counts(&store), [50, 0, 0, 0]);
}

fn enqueues_that_race_for_one_id_give_one_task(stage: &Stage) {
    let store = stage.open();
    let created = thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| store.enqueue(Enqueue::now(task("a"))).is_ok()))
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).filter(|created| *created).count()
    });
    assert_eq!(created, 1);
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}

fn saving_a_task_does_not_forget_its_key(stage: &Stage) {
    let store = stage.open();
    let kept = store.enqueue(keyed("k", task("a"))).unwrap().task;
    store.save(Placed { task: kept, visible_at: Instant::EPOCH }).unwrap();
    let again = store.enqueue(keyed("k", task("b"))).unwrap();
    assert!(!again.created);
}
