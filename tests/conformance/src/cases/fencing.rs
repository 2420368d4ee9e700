//! Rule 7: who may do something to a leased task.

use crate::{
    case::{Case, cases},
    stage::Stage,
    store::Store,
};
use codeq_plugin::{
    Boxed, Claim, Complete, ErrorKind, Extend, Lease, Nack, Task, TaskStatus, Text,
};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Fencing:
        the_owner_may_do_all_of_it,
        an_owner_who_does_not_remember_the_attempt_may_do_all_of_it,
        an_unknown_task_is_not_found,
        a_task_of_another_tenant_is_not_found,
        another_worker_does_not_own_the_task,
        an_earlier_attempt_of_the_same_worker_does_not_own_the_task,
        a_stale_worker_does_not_own_a_task_that_another_took_over,
        a_task_that_was_never_claimed_is_not_in_progress,
        a_task_that_was_handed_back_is_not_in_progress,
        a_task_that_waits_for_its_retry_is_not_in_progress,
        #[alone] a_task_whose_lease_was_taken_back_is_not_in_progress,
        a_dead_letter_is_not_in_progress,
        a_completed_task_is_not_in_progress,
        a_deleted_task_is_not_found,
    ]
    .into_iter()
}

type Fenced = fn(&Store, Lease) -> codeq_plugin::Result<()>;

/// Every operation that the fence guards.
const FENCED: [(&str, Fenced); 4] = [
    ("update_lease", |store, lease| store.update_lease(Extend { lease, by: LONG }).map(drop)),
    ("abandon_lease", |store, lease| store.abandon_lease(lease).map(drop)),
    ("nack", |store, lease| store.nack(Nack { lease, ..Nack::default() }).map(drop)),
    ("complete", |store, lease| {
        let result = Boxed::new(result_of(&lease.task_id, TaskStatus::Completed));
        store.complete(Complete { lease, result }).map(drop)
    }),
];

/// Checks that every operation refuses `lease` with `kind`, and that nothing comes of it.
#[track_caller]
fn assert_refused(store: &Store, lease: &Lease, kind: ErrorKind) {
    let before = (store.get("a").ok(), store.get_result("a").ok());
    for (name, operation) in FENCED {
        let refusal = operation(store, lease.clone()).expect_err(name);
        assert_eq!(refusal.kind(), kind, "{name}: {refusal}");
        let after = (store.get("a").ok(), store.get_result("a").ok());
        assert_eq!(before, after, "{name} changed the task it refused");
    }
}

fn leased(stage: &Stage) -> (Store, Boxed<Task>) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let claimed = claim_one(&store, "w");
    (store, claimed)
}

fn the_owner_may_do_all_of_it(stage: &Stage) {
    for (name, operation) in FENCED {
        let (store, claimed) = leased(stage);
        operation(&store, lease(&claimed)).expect(name);
    }
}

fn an_owner_who_does_not_remember_the_attempt_may_do_all_of_it(stage: &Stage) {
    for (name, operation) in FENCED {
        let (store, claimed) = leased(stage);
        let forgetful = Lease { attempt: 0, ..lease(&claimed) };
        operation(&store, forgetful).expect(name);
    }
}

fn an_unknown_task_is_not_found(stage: &Stage) {
    let (store, claimed) = leased(stage);
    let unknown = Lease { task_id: "b".into(), ..lease(&claimed) };
    assert_refused(&store, &unknown, ErrorKind::NotFound);
}

fn a_task_of_another_tenant_is_not_found(stage: &Stage) {
    let (store, claimed) = leased(stage);
    let foreign = Lease { tenant_id: "rival".into(), ..lease(&claimed) };
    assert_refused(&store, &foreign, ErrorKind::NotFound);
}

fn another_worker_does_not_own_the_task(stage: &Stage) {
    let (store, claimed) = leased(stage);
    let other = Lease { worker_id: "v".into(), ..lease(&claimed) };
    assert_refused(&store, &other, ErrorKind::NotOwner);
}

fn an_earlier_attempt_of_the_same_worker_does_not_own_the_task(stage: &Stage) {
    let (store, first) = leased(stage);
    nack(&store, &first);
    claim_one(&store, "w");
    assert_refused(&store, &lease(&first), ErrorKind::NotOwner);
}

fn a_stale_worker_does_not_own_a_task_that_another_took_over(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let stale = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    claim_when_expired(&store, &claim_by("v"), lease_until(&stale[0]));
    assert_refused(&store, &lease(&stale[0]), ErrorKind::NotOwner);
    let forgetful = Lease { attempt: 0, ..lease(&stale[0]) };
    assert_refused(&store, &forgetful, ErrorKind::NotOwner);
}

fn a_task_that_was_never_claimed_is_not_in_progress(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let hopeful = Lease {
        task_id: "a".into(),
        worker_id: "w".into(),
        tenant_id: TENANT.into(),
        ..Lease::default()
    };
    assert_refused(&store, &hopeful, ErrorKind::NotInProgress);
    let nobody = Lease { worker_id: Text::new(), ..hopeful };
    assert_refused(&store, &nobody, ErrorKind::NotInProgress);
}

fn a_task_that_was_handed_back_is_not_in_progress(stage: &Stage) {
    let (store, claimed) = leased(stage);
    store.abandon_lease(lease(&claimed)).unwrap();
    assert_refused(&store, &lease(&claimed), ErrorKind::NotInProgress);
}

fn a_task_that_waits_for_its_retry_is_not_in_progress(stage: &Stage) {
    let (store, claimed) = leased(stage);
    store.nack(nack_of(&claimed, Some(LONG), "")).unwrap();
    assert_refused(&store, &lease(&claimed), ErrorKind::NotInProgress);
}

fn a_task_whose_lease_was_taken_back_is_not_in_progress(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task("a"));
    let stale = claim(&store, Claim { lease: SHORT, ..claim_by("w") });
    requeue_when_expired(&store, lease_until(&stale[0]));
    assert_refused(&store, &lease(&stale[0]), ErrorKind::NotInProgress);
}

fn a_dead_letter_is_not_in_progress(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, Task { max_attempts: 1, ..task("a") });
    let claimed = claim_one(&store, "w");
    nack(&store, &claimed);
    assert_refused(&store, &lease(&claimed), ErrorKind::NotInProgress);
}

fn a_completed_task_is_not_in_progress(stage: &Stage) {
    let (store, claimed) = leased(stage);
    complete(&store, &claimed).unwrap();
    assert_refused(&store, &lease(&claimed), ErrorKind::NotInProgress);
}

fn a_deleted_task_is_not_found(stage: &Stage) {
    let (store, claimed) = leased(stage);
    store.delete("a").unwrap();
    assert_refused(&store, &lease(&claimed), ErrorKind::NotFound);
}
