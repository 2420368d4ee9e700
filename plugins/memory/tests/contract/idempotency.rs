//! Rule 9: the same key gives the same task.

use std::thread;

use codeq_plugin::{Cleanup, Enqueue, ErrorKind, Instant, Millis, TaskStorage, rules::Rules};

use crate::support::*;

#[test]
fn the_second_enqueue_with_a_key_answers_with_the_first_task() {
    let store = open();
    let first = store.enqueue(keyed("k", task("first"))).unwrap();
    let second = store.enqueue(keyed("k", task("second"))).unwrap();
    assert!(first.created && !second.created);
    assert_eq!(second.task, first.task);
    assert!(!second.awoke);
    assert_eq!(counts(&store), [1, 0, 0, 0]);
    assert_eq!(kind(store.get("second")), ErrorKind::NotFound);
}

#[test]
fn the_answer_is_the_first_task_as_it_is_now() {
    let store = open();
    store.enqueue(keyed("k", task("first"))).unwrap();
    let claimed = claim_one(&store, "w");
    let again = store.enqueue(keyed("k", task("second"))).unwrap();
    assert_eq!(again.task, claimed);
    complete(&store, &claimed).unwrap();
    let again = store.enqueue(keyed("k", task("third"))).unwrap();
    assert_eq!(again.task, store.get("first").unwrap());
    assert!(claim(&store, claim_by("w")).is_empty());
}

#[test]
fn a_key_is_one_for_all_commands_of_its_tenant() {
    let store = open();
    store.enqueue(keyed("k", task_of(TENANT, "a", "first"))).unwrap();
    let second = store.enqueue(keyed("k", task_of(TENANT, "b", "second"))).unwrap();
    assert_eq!(second.task.id, "first");
}

#[test]
fn the_same_key_of_different_tenants_gives_different_tasks() {
    let store = open();
    for tenant in ["a", "b", ""] {
        let enqueued = store.enqueue(keyed("k", task_of(tenant, COMMAND, &format!("of {tenant}"))));
        assert!(enqueued.unwrap().created);
    }
}

#[test]
fn no_key_is_no_key() {
    let store = open();
    for id in ["a", "b"] {
        assert!(store.enqueue(keyed("", task(id))).unwrap().created);
    }
}

#[test]
fn different_keys_give_different_tasks() {
    let store = open();
    for id in ["a", "b"] {
        assert!(store.enqueue(keyed(id, task(id))).unwrap().created);
    }
}

#[test]
fn an_id_that_is_taken_already_exists() {
    let store = open();
    enqueue(&store, task("a"));
    assert_eq!(kind(store.enqueue(Enqueue::now(task("a")))), ErrorKind::AlreadyExists);
    assert_eq!(kind(store.enqueue(keyed("k", task("a")))), ErrorKind::AlreadyExists);
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}

#[test]
fn an_enqueue_that_failed_does_not_use_up_its_key() {
    let store = open();
    enqueue(&store, task("a"));
    assert!(store.enqueue(keyed("k", task("a"))).is_err());
    assert!(store.enqueue(keyed("k", task("b"))).unwrap().created);
}

#[test]
fn the_same_id_and_key_again_is_a_repetition_and_no_conflict() {
    let store = open();
    store.enqueue(keyed("k", task("a"))).unwrap();
    assert!(!store.enqueue(keyed("k", task("a"))).unwrap().created);
}

#[test]
fn the_key_of_a_deleted_task_may_be_used_again() {
    let store = open();
    store.enqueue(keyed("k", task("a"))).unwrap();
    store.delete("a").unwrap();
    assert!(store.enqueue(keyed("k", task("b"))).unwrap().created);
    assert_eq!(store.enqueue(keyed("k", task("c"))).unwrap().task.id, "b");
}

#[test]
fn the_key_of_a_deleted_task_does_not_name_the_task_that_took_its_memory() {
    let store = open();
    store.enqueue(keyed("k", task("a"))).unwrap();
    store.delete("a").unwrap();
    enqueue(&store, task("unrelated"));
    assert!(store.enqueue(keyed("k", task("b"))).unwrap().created);
}

#[test]
fn a_key_is_remembered_through_its_window_and_no_longer() {
    let store = open_with(Rules { idempotency_window: Millis(30), ..no_wait() });
    store.enqueue(keyed("k", task("0"))).unwrap();
    let first = store.get("0").unwrap();
    let forgotten = first.created_at + Millis(30);
    for number in 1.. {
        let before = Instant::now();
        let again = store.enqueue(keyed("k", task(&number.to_string()))).unwrap();
        if again.created {
            assert!(Instant::now() >= forgotten);
            return;
        }
        assert!(before < forgotten);
        thread::yield_now();
    }
}

#[test]
fn a_key_that_is_used_again_after_its_window_is_not_forgotten_with_the_old_use() {
    let store = open_with(Rules { idempotency_window: SHORT, ..no_wait() });
    store.enqueue(keyed("k", task("old"))).unwrap();
    wait_until(store.get("old").unwrap().created_at + SHORT);
    let new = store.enqueue(keyed("k", task("new"))).unwrap();
    let cleanup = Cleanup { before: Instant::now(), limit: 10, ..Cleanup::default() };
    store.cleanup_expired(cleanup).unwrap();
    let again = store.enqueue(keyed("k", task("newer"))).unwrap();
    let still = Instant::now() < new.task.created_at + SHORT;
    assert!(!still || again.task.id == "new");
}

#[test]
fn enqueues_that_race_with_one_key_give_one_task() {
    let store = open();
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

#[test]
fn enqueues_that_race_for_one_id_give_one_task() {
    let store = open();
    let created = thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| store.enqueue(Enqueue::now(task("a"))).is_ok()))
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).filter(|created| *created).count()
    });
    assert_eq!(created, 1);
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}
