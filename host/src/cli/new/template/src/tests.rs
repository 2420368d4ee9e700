//! The store as the host opens and uses it. `tests/contract.rs` checks the whole storage contract;
//! here is what only this store does, and a task's life as an example.

use codeq_plugin::{
    Boxed, Claim, Complete, Context, Enqueue, ErrorKind, Instant, Lease, Location, Millis, Nack,
    Persistence, ResultStorage, Task, TaskResult, TaskStatus, TaskStorage, log::LogSink,
    rules::Rules,
};

use crate::{Config, Store};

fn open(config: &str) -> Store {
    let context = Context {
        provider: "test".into(),
        rules: Rules::default(),
        timezone: "UTC".into(),
        repair_limit: 100,
        log: LogSink::none(),
        extensions: Default::default(),
    };
    let config: Config = serde_json::from_str(config).unwrap();
    Store::open(config, context).unwrap()
}

fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        command: "render".into(),
        payload: "{}".into(),
        ..Task::default()
    }
}

fn claim(store: &Store) -> Option<Boxed<Task>> {
    let claim = Claim {
        worker_id: "w".into(),
        commands: ["RENDER".into()].into_iter().collect(),
        max: 1,
        lease: Millis::from_secs(60),
        ..Claim::default()
    };
    store.claim(claim).unwrap().tasks.into_only()
}

fn lease(task: &Task) -> Lease {
    Lease {
        task_id: task.id.clone(),
        worker_id: task.worker_id.clone(),
        attempt: task.attempts,
        ..Lease::default()
    }
}

#[test]
fn a_task_is_claimed_and_completed_once() {
    let store = open("{}");
    store.enqueue(Enqueue::now(task("a"))).unwrap();
    let claimed = claim(&store).unwrap();
    assert!(claim(&store).is_none());
    let result = TaskResult {
        task_id: "a".into(),
        status: TaskStatus::Completed,
        ..TaskResult::default()
    };
    let complete = Complete {
        lease: lease(&claimed),
        result: Boxed::new(result),
    };
    let done = store.complete(complete.clone()).unwrap().task;
    assert_eq!(done.status, TaskStatus::Completed);
    assert_eq!(store.get_result("a").unwrap(), complete.result);
    let again = store.complete(complete).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotInProgress);
}

#[test]
fn a_failed_task_waits_for_its_next_attempt() {
    let store = open("{}");
    store.enqueue(Enqueue::now(task("a"))).unwrap();
    let nack = Nack {
        lease: lease(&claim(&store).unwrap()),
        delay: Some(Millis::from_secs(60)).into(),
        reason: "no disk".into(),
    };
    let returned = store.nack(nack).unwrap();
    assert_eq!(returned.delay, Millis::from_secs(60));
    assert_eq!(returned.task.last_known_location, Location::DelayedZset);
    assert!(claim(&store).is_none());
    let due = store.move_due_delayed(10).unwrap().next.into_option();
    assert!(due.is_some_and(|due| due > Instant::now()));
}

#[test]
fn a_full_store_takes_no_more_tasks_until_one_is_gone() {
    let store = open(r#"{"maxTasks": 1}"#);
    store.enqueue(Enqueue::now(task("a"))).unwrap();
    let full = store.enqueue(Enqueue::now(task("b"))).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Unavailable);
    assert!(full.message().contains("maxTasks"), "{full}");
    store.delete("a").unwrap();
    store.enqueue(Enqueue::now(task("b"))).unwrap();
}
