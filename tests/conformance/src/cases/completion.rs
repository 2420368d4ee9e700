//! Results, and rule 13: what has come to its end stays there.

use crate::{
    case::{Case, cases},
    stage::Stage,
};
use codeq_plugin::{Artifact, Boxed, ErrorKind, Finish, Location, Task, TaskResult, TaskStatus};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Completion:
        a_completed_task_says_so,
        a_task_that_a_worker_gives_up_is_failed_and_no_dead_letter,
        the_result_is_read_as_it_was_handed_in,
        a_completed_task_cannot_be_completed_again,
        a_completed_task_cannot_be_claimed,
        #[alone] a_completed_task_does_not_expire,
        #[listing] a_completed_task_cannot_be_redriven,
        a_task_cannot_be_completed_with_a_status_that_is_no_end,
        a_task_that_is_not_completed_has_no_result,
        a_saved_result_is_read_and_replaced,
        the_result_of_an_unknown_task_is_not_saved,
        a_repair_ends_a_task_whoever_holds_it,
        a_repair_ends_a_task_in_any_place,
        a_repair_needs_a_task_and_an_end,
        a_result_of_another_task_is_refused,
    ]
    .into_iter()
}

fn a_completed_task_says_so(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let completed = complete(&store, &claim_one(&store, "w")).unwrap().task;
    assert_eq!(completed.status, TaskStatus::Completed);
    assert_eq!(completed.last_known_location, Location::None);
    assert!(!completed.result_key.is_empty());
    assert!(completed.worker_id.is_empty() && completed.lease_until.is_none());
    assert_eq!(store.get("a").unwrap(), completed);
    assert_eq!(counts(&store), [0; 4]);
}

fn a_task_that_a_worker_gives_up_is_failed_and_no_dead_letter(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let mut failure = completion(&claimed, TaskStatus::Failed);
    failure.result.error = "bad image".into();
    let failed = store.complete(failure).unwrap().task;
    assert_eq!(failed.status, TaskStatus::Failed);
    assert_eq!(failed.last_known_location, Location::None);
    assert_eq!(failed.error, "bad image");
    assert_eq!(counts(&store), [0; 4]);
}

fn the_result_is_read_as_it_was_handed_in(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let mut handed_in = completion(&claim_one(&store, "w"), TaskStatus::Completed);
    let artifact = Artifact { name: "log".into(), url: "http://localhost/log".into() };
    handed_in.result.artifacts.push(artifact);
    store.complete(handed_in.clone()).unwrap();
    assert_eq!(store.get_result("a").unwrap(), handed_in.result);
}

fn a_completed_task_cannot_be_completed_again(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    complete(&store, &claimed).unwrap();
    let result = store.get_result("a").unwrap();
    let again = store.complete(completion(&claimed, TaskStatus::Failed));
    assert_eq!(kind(again), ErrorKind::NotInProgress);
    assert_eq!(store.get_result("a").unwrap(), result);
}

fn a_completed_task_cannot_be_claimed(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    complete(&store, &claim_one(&store, "w")).unwrap();
    assert!(claim(&store, claim_by("w")).is_empty());
    assert!(claim(&store, claim_from(TENANT, &[], "w")).is_empty());
}

fn a_completed_task_does_not_expire(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, codeq_plugin::Claim { lease: SHORT, ..claim_by("w") });
    complete(&store, &taken[0]).unwrap();
    wait_until(lease_until(&taken[0]));
    assert_eq!(store.requeue_expired(10).unwrap().count, 0);
    assert_eq!(store.get("a").unwrap().status, TaskStatus::Completed);
}

fn a_completed_task_cannot_be_redriven(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let completed = complete(&store, &claim_one(&store, "w")).unwrap().task;
    let redriven = store.redrive(super::listing::key(&completed));
    assert_eq!(kind(redriven), ErrorKind::InvalidArgument);
}

fn a_task_cannot_be_completed_with_a_status_that_is_no_end(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    for status in [TaskStatus::Pending, TaskStatus::InProgress] {
        let refused = store.complete(completion(&claimed, status));
        assert_eq!(kind(refused), ErrorKind::InvalidArgument);
    }
    assert_eq!(store.get("a").unwrap(), claimed);
    assert_eq!(kind(store.get_result("a")), ErrorKind::NotFound);
}

fn a_task_that_is_not_completed_has_no_result(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    assert_eq!(kind(store.get_result("a")), ErrorKind::NotFound);
    assert_eq!(kind(store.get_result("unknown")), ErrorKind::NotFound);
}

fn a_saved_result_is_read_and_replaced(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    for status in [TaskStatus::Failed, TaskStatus::Completed] {
        let result = Boxed::new(result_of("a", status));
        store.save_result(result.clone()).unwrap();
        assert_eq!(store.get_result("a").unwrap(), result);
    }
    assert_eq!(counts(&store), [1, 0, 0, 0]);
}

fn the_result_of_an_unknown_task_is_not_saved(stage: &Stage) {
    let store = stage.open();
    let orphan = Boxed::new(TaskResult::default());
    assert_eq!(kind(store.save_result(orphan)), ErrorKind::NotFound);
}

fn a_repair_ends_a_task_whoever_holds_it(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let finish = Finish {
        task_id: "a".into(),
        status: TaskStatus::Failed,
        error: "by hand".into(),
        result_key: "r".into(),
        ..Finish::default()
    };
    store.update_task_on_complete(finish).unwrap();
    let ended = store.get("a").unwrap();
    assert_eq!(ended.status, TaskStatus::Failed);
    assert_eq!(ended.last_known_location, Location::None);
    assert_eq!((ended.error.as_str(), ended.result_key.as_str()), ("by hand", "r"));
    assert!(ended.worker_id.is_empty() && ended.lease_until.is_none());
    assert_eq!(counts(&store), [0; 4]);
    assert_eq!(kind(complete(&store, &claimed)), ErrorKind::NotInProgress);
}

fn a_repair_ends_a_task_in_any_place(stage: &Stage) {
    let store = stage.open();
    enqueue_in(&store, LONG, task("delayed"));
    bury(&store, task("dead"));
    enqueue(&store, task("ready"));
    for id in ["delayed", "dead", "ready"] {
        let finish =
            Finish { task_id: id.into(), status: TaskStatus::Completed, ..Finish::default() };
        store.update_task_on_complete(finish).unwrap();
        assert_eq!(location(&store, id), Location::None);
    }
    assert_eq!(counts(&store), [0; 4]);
    assert!(claim(&store, claim_from(TENANT, &[], "w")).is_empty());
}

fn a_repair_needs_a_task_and_an_end(stage: &Stage) {
    let store = stage.open();
    let finish = |status| Finish { task_id: "a".into(), status, ..Finish::default() };
    let unknown = store.update_task_on_complete(finish(TaskStatus::Completed));
    assert_eq!(kind(unknown), ErrorKind::NotFound);
    assert_eq!(kind(store.remove_from_inprog_and_clear_lease("a")), ErrorKind::NotFound);
    let kept = enqueue(&store, Task { priority: 3, ..task("a") }).task;
    let endless = store.update_task_on_complete(finish(TaskStatus::Pending));
    assert_eq!(kind(endless), ErrorKind::InvalidArgument);
    assert_eq!(store.get("a").unwrap(), kept);
}

fn a_result_of_another_task_is_refused(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    let mut foreign = completion(&claimed, TaskStatus::Completed);
    foreign.result.task_id = "b".into();
    assert_eq!(kind(store.complete(foreign)), ErrorKind::InvalidArgument);
    assert_eq!(kind(store.get_result("a")), ErrorKind::NotFound);
    complete(&store, &claimed).unwrap();
}
