//! Rule 10: no tenant has to do with another's tasks.

use crate::{
    case::{Case, Rule, cases},
    stage::Stage,
    store::Store,
};
use codeq_plugin::{Cleanup, ErrorKind, Instant, Lease, ListTasks, Millis, TaskKey, rules::Rules};

use super::support::*;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Tenants:
        #[alone] a_claim_takes_tasks_of_its_tenant_only,
        #[alone] a_tenant_without_tasks_has_nothing_to_claim,
        #[alone] the_counts_are_those_of_one_tenant,
        #[alone] the_queues_are_those_of_one_tenant_or_of_all,
        #[alone] #[listing] a_list_is_of_one_tenant_or_of_all,
        #[alone] a_worker_of_another_tenant_does_not_find_the_task,
        #[listing] a_dead_letter_of_another_tenant_is_not_redriven,
        #[alone] a_cleanup_removes_the_tasks_of_its_tenant_only,
        a_claim_reports_what_moved_of_its_tenant_only,
        a_claim_of_any_command_does_not_move_tasks_of_another_tenant,
    ]
    .into_iter()
}

/// Two tenants, and the empty one, which is a tenant of its own.
const TENANTS: [&str; 3] = ["acme", "rival", ""];

fn a_task_each(stage: &Stage) -> Store {
    let store = stage.open();
    for tenant in TENANTS {
        enqueue(&store, task_of(tenant, COMMAND, &format!("of {tenant}")));
    }
    store
}

fn a_claim_takes_tasks_of_its_tenant_only(stage: &Stage) {
    for commands in [&[COMMAND][..], &[]] {
        let store = a_task_each(stage);
        for tenant in TENANTS {
            let claimed = claimed_ids(&store, claim_from(tenant, commands, "w"));
            assert_eq!(claimed, [format!("of {tenant}")]);
        }
    }
}

fn a_tenant_without_tasks_has_nothing_to_claim(stage: &Stage) {
    let store = a_task_each(stage);
    for commands in [&[COMMAND][..], &[]] {
        assert!(claim(&store, claim_from("nobody", commands, "w")).is_empty());
    }
}

fn the_counts_are_those_of_one_tenant(stage: &Stage) {
    let store = a_task_each(stage);
    claim(&store, claim_from("acme", &[COMMAND], "w"));
    let stats = |tenant| counts_of(&store.queue_stats(queue(tenant, COMMAND)).unwrap());
    assert_eq!(stats("acme"), [0, 0, 1, 0]);
    assert_eq!(stats("rival"), [1, 0, 0, 0]);
    assert_eq!(stats(""), [1, 0, 0, 0]);
    assert_eq!(stats("nobody"), [0; 4]);
}

fn the_queues_are_those_of_one_tenant_or_of_all(stage: &Stage) {
    let store = a_task_each(stage);
    let tenants = |of: Option<&str>| -> Vec<String> {
        let queues = store.admin_queues(of.map(Into::into)).unwrap();
        queues.iter().map(|queue| queue.tenant_id.to_string()).collect()
    };
    for tenant in TENANTS {
        assert_eq!(tenants(Some(tenant)), [tenant]);
    }
    assert_eq!(tenants(None), ["", "acme", "rival"]);
}

fn a_list_is_of_one_tenant_or_of_all(stage: &Stage) {
    let store = a_task_each(stage);
    for tenant in TENANTS {
        let list = ListTasks { tenant_id: some(tenant.into()), ..super::listing::all() };
        assert_eq!(super::listing::page_ids(&store, list), [format!("of {tenant}")]);
    }
    assert_eq!(super::listing::page_ids(&store, super::listing::all()).len(), 3);
}

fn a_worker_of_another_tenant_does_not_find_the_task(stage: &Stage) {
    let store = a_task_each(stage);
    for tenant in TENANTS {
        let claimed = claim(&store, claim_from(tenant, &[COMMAND], "w"));
        for other in TENANTS.into_iter().filter(|other| *other != tenant) {
            let foreign = Lease { tenant_id: other.into(), ..lease(&claimed[0]) };
            assert_eq!(kind(store.abandon_lease(foreign)), ErrorKind::NotFound);
        }
    }
}

fn a_dead_letter_of_another_tenant_is_not_redriven(stage: &Stage) {
    let store = stage.open();
    bury(&store, task("a"));
    let foreign = TaskKey { id: "a".into(), tenant_id: "rival".into() };
    assert_eq!(kind(store.redrive(foreign)), ErrorKind::NotFound);
    assert_eq!(counts(&store), [0, 0, 0, 1]);
}

fn a_cleanup_removes_the_tasks_of_its_tenant_only(stage: &Stage) {
    let store = stage.open_with(Rules { retention: Millis(0), ..no_wait() });
    for tenant in TENANTS {
        enqueue(&store, task_of(tenant, COMMAND, &format!("of {tenant}")));
    }
    let cleanup = Cleanup {
        tenant_id: some("acme".into()),
        before: Instant::now(),
        limit: 10,
        ..Cleanup::default()
    };
    assert_eq!(store.cleanup_expired(cleanup).unwrap(), 1);
    assert_eq!(kind(store.get("of acme")), ErrorKind::NotFound);
    assert!(store.get("of rival").is_ok() && store.get("of ").is_ok());
}

fn a_claim_reports_what_moved_of_its_tenant_only(stage: &Stage) {
    for commands in [&[COMMAND][..], &[]] {
        let store = stage.open();
        for tenant in TENANTS {
            let due = super::records::delayed(
                task_of(tenant, COMMAND, &format!("of {tenant}")),
                Instant(1),
            );
            store.save(due).unwrap();
        }
        let claimed = store.claim(claim_from("rival", commands, "w")).unwrap();
        assert_eq!(claimed.moved.as_ref().unwrap().count, 1);
        let told = !claimed.moved.as_ref().unwrap().arrivals.is_empty();
        given(Rule::Reports, told, || "no arrival was reported".into());
        assert_eq!(claimed.moved.as_ref().unwrap().arrivals[0].queue.tenant_id, "rival");
    }
}

fn a_claim_of_any_command_does_not_move_tasks_of_another_tenant(stage: &Stage) {
    let store = stage.open();
    enqueue(&store, task_of("acme", "stays", "stays"));
    let due = enqueue_in(&store, SHORT, task_of("acme", "x", "gone"));
    store.delete("gone").unwrap();
    store.save(super::records::delayed(task_of("rival", "x", "theirs"), Instant(1))).unwrap();
    wait_until(due);
    let claimed = store.claim(claim_from("acme", &[], "w"));
    assert_eq!(moved_by(claimed), codeq_plugin::Moved::default());
}
