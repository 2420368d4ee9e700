//! Reading, writing and removing records by their id.

use crate::{
    case::{Case, cases},
    stage::Stage,
};
use codeq_plugin::{Boxed, ErrorKind, Extension, Instant, Location, Placed, Task, TaskStatus};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Records:
        a_new_task_starts_from_the_beginning_whatever_its_record_says,
        a_task_is_read_as_it_was_enqueued,
        an_unknown_task_is_not_found,
        #[alone] a_task_without_an_id_or_a_command_is_refused,
        a_saved_record_stands_as_it_is,
        a_saved_ready_record_is_claimable,
        a_saved_delayed_record_is_claimable_from_its_moment_on_and_not_before,
        a_saved_leased_record_is_claimable_from_its_deadline_on_and_not_before,
        a_saved_leased_record_is_its_workers,
        a_saved_leased_record_without_a_deadline_is_taken_back_at_once,
        a_saved_record_replaces_the_one_of_its_id,
        a_saved_record_keeps_the_result_it_has,
        #[alone] a_deleted_task_is_gone_from_every_place,
        #[alone] the_lease_of_a_deleted_task_does_not_run_out,
        the_id_of_a_deleted_task_may_be_used_again,
        deleting_one_task_leaves_its_neighbours_where_they_are,
    ]
    .into_iter()
}

/// A record that says it is ready.
pub(super) fn ready(task: Task) -> Placed {
    delayed(Task { last_known_location: Location::PendingList, ..task }, Instant::EPOCH)
}

/// A record that says it is delayed, unless it says where it is.
pub(super) fn delayed(task: Task, visible_at: Instant) -> Placed {
    let last_known_location = match task.last_known_location {
        Location::None => Location::DelayedZset,
        elsewhere => elsewhere,
    };
    placed(Task { status: TaskStatus::Pending, last_known_location, ..task }, visible_at)
}

/// A record that says a worker `w` has it.
pub(super) fn leased(task: Task, until: Instant) -> Placed {
    let task = Task {
        status: TaskStatus::InProgress,
        last_known_location: Location::InprogSet,
        worker_id: "w".into(),
        lease_until: some(until),
        attempts: task.attempts.max(1),
        ..task
    };
    placed(task, Instant::EPOCH)
}

/// A record that says it has come to its end.
pub(super) fn ended(task: Task, status: TaskStatus, location: Location) -> Placed {
    let task = Task { status, last_known_location: location, ..task };
    placed(task, Instant::EPOCH)
}

fn placed(task: Task, visible_at: Instant) -> Placed {
    // Without a moment of its last change its retention would have ended long ago.
    let updated_at = Instant::now();
    Placed { task: Boxed::new(Task { updated_at, ..task }), visible_at }
}

fn a_new_task_starts_from_the_beginning_whatever_its_record_says(stage: &Stage) {
    let store = stage.open();
    let before = Instant::now();
    let used = Task {
        status: TaskStatus::Completed,
        last_known_location: Location::DlqSet,
        worker_id: "w".into(),
        lease_until: some(Instant(1)),
        attempts: 7,
        error: "no disk".into(),
        result_key: "a".into(),
        created_at: Instant(1),
        ..task("a")
    };
    let kept = enqueue(&store, used).task;
    let fresh = Task {
        status: TaskStatus::Pending,
        last_known_location: Location::PendingList,
        max_attempts: 5,
        created_at: kept.created_at,
        updated_at: kept.created_at,
        ..task("a")
    };
    assert_eq!(*kept, fresh);
    assert!((before..=Instant::now()).contains(&kept.created_at));
}

fn a_task_is_read_as_it_was_enqueued(stage: &Stage) {
    let store = stage.open();
    let extension = Extension { tag: 7, bytes: [1, 2].into_iter().collect() };
    let rich = Task {
        webhook: "http://localhost/hook".into(),
        trace_parent: "00-1-2-01".into(),
        trace_state: "k=v".into(),
        payload: r#"{"ä":1}"#.into(),
        priority: 4,
        max_attempts: 3,
        extensions: [extension].into_iter().collect(),
        ..task("a")
    };
    let kept = enqueue(&store, rich.clone()).task;
    assert_eq!(store.get("a").unwrap(), kept);
    assert_eq!((&kept.webhook, &kept.trace_parent), (&rich.webhook, &rich.trace_parent));
    assert_eq!((&kept.trace_state, &kept.payload), (&rich.trace_state, &rich.payload));
    assert_eq!((kept.priority, kept.max_attempts), (4, 3));
    assert_eq!(kept.extensions, rich.extensions);
}

fn an_unknown_task_is_not_found(stage: &Stage) {
    let store = stage.open();
    assert_eq!(kind(store.get("a")), ErrorKind::NotFound);
    assert_eq!(kind(store.delete("a")), ErrorKind::NotFound);
}

fn a_task_without_an_id_or_a_command_is_refused(stage: &Stage) {
    let store = stage.open();
    for nameless in [task(""), Task { command: "".into(), ..task("a") }] {
        let enqueue = codeq_plugin::Enqueue::now(nameless.clone());
        assert_eq!(kind(store.enqueue(enqueue)), ErrorKind::InvalidArgument);
        assert_eq!(kind(store.save(ready(nameless))), ErrorKind::InvalidArgument);
    }
    assert!(used_queues(&store).is_empty());
}

fn a_saved_record_stands_as_it_is(stage: &Stage) {
    let store = stage.open();
    for placed in [
        ready(task("ready")),
        delayed(task("delayed"), Instant::now() + LONG),
        leased(task("leased"), Instant::now() + LONG),
        ended(task("dead"), TaskStatus::Failed, Location::DlqSet),
        ended(task("failed"), TaskStatus::Failed, Location::None),
        ended(task("completed"), TaskStatus::Completed, Location::None),
    ] {
        store.save(placed.clone()).unwrap();
        assert_eq!(store.get(&placed.task.id).unwrap(), placed.task);
    }
    assert_eq!(counts(&store), [1, 1, 1, 1]);
}

fn a_saved_ready_record_is_claimable(stage: &Stage) {
    let store = stage.open();
    store.save(ready(task("a"))).unwrap();
    assert_eq!(claimed_ids(&store, claim_by("w")), ["a"]);
}

fn a_saved_delayed_record_is_claimable_from_its_moment_on_and_not_before(stage: &Stage) {
    let store = stage.open();
    let due = Instant::now() + SHORT;
    store.save(delayed(task("a"), due)).unwrap();
    claim_when_due(&store, &claim_by("w"), due);
}

fn a_saved_leased_record_is_claimable_from_its_deadline_on_and_not_before(stage: &Stage) {
    let store = stage.open();
    let until = Instant::now() + SHORT;
    store.save(leased(task("a"), until)).unwrap();
    assert_eq!(claim_when_expired(&store, &claim_by("v"), until).attempts, 2);
}

fn a_saved_leased_record_is_its_workers(stage: &Stage) {
    let store = stage.open();
    let held = leased(task("a"), Instant::now() + LONG);
    store.save(held.clone()).unwrap();
    complete(&store, &held.task).unwrap();
}

fn a_saved_leased_record_without_a_deadline_is_taken_back_at_once(stage: &Stage) {
    let store = stage.open();
    let mut forgotten = leased(task("a"), Instant::EPOCH);
    forgotten.task.lease_until = codeq_plugin::Optional::RNone;
    store.save(forgotten).unwrap();
    assert_eq!(claim_one(&store, "v").attempts, 2);
}

fn a_saved_record_replaces_the_one_of_its_id(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    store.save(delayed(task("a"), Instant::now() + LONG)).unwrap();
    assert_eq!(counts(&store), [0, 1, 0, 0]);
    store.save(ready(task_of("rival", "crop", "a"))).unwrap();
    assert_eq!(counts(&store), [0; 4]);
    assert_eq!(claimed_ids(&store, claim_from("rival", &["crop"], "w")), ["a"]);
}

fn a_saved_record_keeps_the_result_it_has(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    complete(&store, &claim_one(&store, "w")).unwrap();
    let kept = store.get("a").unwrap();
    store.save(Placed { task: kept, visible_at: Instant::EPOCH }).unwrap();
    assert!(store.get_result("a").is_ok());
}

fn a_deleted_task_is_gone_from_every_place(stage: &Stage) {
    for place in ["ready", "delayed", "leased", "dead", "completed"] {
        let store = stage.open();
        match place {
            "delayed" => drop(enqueue_in(&store, LONG, task("a"))),
            "dead" => drop(bury(&store, task("a"))),
            _ => drop(enqueue(&store, task("a"))),
        }
        if place == "leased" || place == "completed" {
            let claimed = claim_one(&store, "w");
            if place == "completed" {
                complete(&store, &claimed).unwrap();
            }
        }
        store.delete("a").unwrap();
        assert_eq!(kind(store.get("a")), ErrorKind::NotFound, "{place}");
        assert_eq!(kind(store.get_result("a")), ErrorKind::NotFound, "{place}");
        assert_eq!(kind(store.delete("a")), ErrorKind::NotFound, "{place}");
        assert_eq!(counts(&store), [0; 4], "{place}");
        assert!(claim(&store, claim_by("w")).is_empty(), "{place}");
        assert!(everything(&store).is_empty(), "{place}");
    }
}

fn the_lease_of_a_deleted_task_does_not_run_out(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let taken = claim(&store, codeq_plugin::Claim { lease: SHORT, ..claim_by("w") });
    store.delete("a").unwrap();
    wait_until(lease_until(&taken[0]));
    assert_eq!(store.requeue_expired(10).unwrap().count, 0);
}

fn the_id_of_a_deleted_task_may_be_used_again(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    store.delete("a").unwrap();
    assert!(enqueue(&store, task("a")).created);
    assert_eq!(kind(store.get_result("a")), ErrorKind::NotFound);
}

fn deleting_one_task_leaves_its_neighbours_where_they_are(stage: &Stage) {
    let store = stage.open();
    enqueue_all(&store, &["a", "b", "c"]);
    store.delete("b").unwrap();
    let mut left = claimed_ids(&store, claim_by("w"));
    left.sort();
    assert_eq!(left, ["a", "c"]);
}
