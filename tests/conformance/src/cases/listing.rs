//! Paging through tasks, and redriving dead letters.

use crate::{
    case::{Case, cases},
    stage::Stage,
    store::Store,
};
use codeq_plugin::{
    ErrorKind, Instant, ListTasks, Location, Millis, Page, Placed, Task, TaskKey, TaskStatus, Text,
};

use super::{
    records::{delayed, ended, leased, ready},
    support::*,
};

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        Listing:
        #[alone] #[listing] a_list_without_filters_has_every_task_once,
        #[alone] #[listing] the_order_does_not_depend_on_the_size_of_the_pages,
        #[alone] #[listing] a_filtered_list_has_what_matches_however_it_is_paged,
        #[alone] #[listing] a_list_tells_until_when_a_task_is_delayed,
        #[alone] #[listing] a_listed_task_can_be_saved_elsewhere_and_is_the_same_there,
        #[alone] #[listing] a_task_that_does_not_change_is_on_one_page_while_others_come_and_go,
        #[alone] #[listing] paging_goes_on_behind_a_queue_that_is_gone,
        #[alone] #[listing] a_page_of_nothing_is_the_last,
        #[alone] #[listing] a_cursor_of_somebody_elses_making_is_refused,
        #[alone] #[listing] tenants_and_commands_with_odd_names_are_paged_through,
        #[listing] a_redriven_task_has_a_fresh_start,
        #[alone] #[listing] only_dead_letters_are_redriven,
        #[listing] a_completed_record_that_says_it_is_a_dead_letter_is_not_redriven,
    ]
    .into_iter()
}

/// Asks for everything at once.
pub(super) fn all() -> ListTasks {
    ListTasks { limit: 10_000, ..ListTasks::default() }
}

pub(super) fn key(task: &Task) -> TaskKey {
    TaskKey { id: task.id.clone(), tenant_id: task.tenant_id.clone() }
}

pub(super) fn page_ids(store: &Store, list: ListTasks) -> Vec<String> {
    ids_of(&store.list(list).unwrap())
}

/// All pages of `list`, each of at most `limit` tasks.
pub(super) fn pages(store: &Store, list: &ListTasks, limit: u32) -> Vec<Vec<Placed>> {
    let mut pages = Vec::new();
    let mut cursor = Text::new();
    loop {
        let page = store.list(ListTasks { cursor, limit, ..list.clone() }).unwrap();
        assert!(page.tasks.len() <= limit as usize);
        pages.push(page.tasks.into_vec());
        if page.cursor.is_empty() {
            return pages;
        }
        assert!(pages.len() < 10_000, "the pages go round in circles");
        cursor = page.cursor;
    }
}

fn ids_of(page: &Page) -> Vec<String> {
    page.tasks.iter().map(|placed| placed.task.id.to_string()).collect()
}

/// A store with a task in every place of several queues.
fn one_of_each(stage: &Stage) -> Store {
    let store = stage.open();
    for tenant in ["acme", "rival"] {
        for command in ["crop", "Resize"] {
            let task = |place| task_of(tenant, command, &format!("{place} {tenant} {command}"));
            for placed in [
                ready(task("ready")),
                delayed(task("delayed"), Instant::now() + LONG),
                leased(task("leased"), Instant::now() + LONG),
                ended(task("dead"), TaskStatus::Failed, Location::DlqSet),
                ended(task("failed"), TaskStatus::Failed, Location::None),
                ended(task("completed"), TaskStatus::Completed, Location::None),
            ] {
                store.save(placed).unwrap();
            }
        }
    }
    store
}

fn a_list_without_filters_has_every_task_once(stage: &Stage) {
    let store = one_of_each(stage);
    let mut ids = page_ids(&store, all());
    assert_eq!(ids.len(), 24);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 24);
}

fn the_order_does_not_depend_on_the_size_of_the_pages(stage: &Stage) {
    let store = one_of_each(stage);
    let whole = page_ids(&store, all());
    for limit in 1..=25 {
        let paged: Vec<_> = pages(&store, &all(), limit).concat();
        let ids: Vec<_> = paged.iter().map(|placed| placed.task.id.to_string()).collect();
        assert_eq!(ids, whole, "with {limit} to a page");
    }
}

fn a_filtered_list_has_what_matches_however_it_is_paged(stage: &Stage) {
    let store = one_of_each(stage);
    let everything = store.list(all()).unwrap().tasks;
    for tenant in [None, Some("acme"), Some("nobody")] {
        for command in [None, Some("RESIZE"), Some("blur")] {
            for status in [None, Some(TaskStatus::Pending), Some(TaskStatus::Failed)] {
                for location in
                    [None, Some(Location::None), Some(Location::InprogSet), Some(Location::DlqSet)]
                {
                    let list = ListTasks {
                        tenant_id: tenant.map(Text::from).into(),
                        command: command.map(Text::from).into(),
                        status: status.into(),
                        location: location.into(),
                        ..all()
                    };
                    let expected: Vec<_> = everything
                        .iter()
                        .filter(|Placed { task, .. }| {
                            tenant.is_none_or(|tenant| task.tenant_id == tenant)
                                && command.is_none_or(|command| {
                                    task.command.eq_ignore_ascii_case(command)
                                })
                                && status.is_none_or(|status| task.status == status)
                                && location.is_none_or(|at| task.last_known_location == at)
                        })
                        .cloned()
                        .collect();
                    for limit in [1, 2, 100] {
                        assert_eq!(pages(&store, &list, limit).concat(), expected, "{list:?}");
                    }
                }
            }
        }
    }
}

fn a_list_tells_until_when_a_task_is_delayed(stage: &Stage) {
    let store = stage.open();
    let due = enqueue_in(&store, LONG, task("a"));
    assert_eq!(store.list(all()).unwrap().tasks[0].visible_at, due);
}

fn a_listed_task_can_be_saved_elsewhere_and_is_the_same_there(stage: &Stage) {
    let (here, there) = (one_of_each(stage), stage.open());
    for placed in here.list(all()).unwrap().tasks {
        there.save(placed).unwrap();
    }
    assert_eq!(there.list(all()).unwrap(), here.list(all()).unwrap());
    assert_eq!(there.admin_queues(None).unwrap(), here.admin_queues(None).unwrap());
}

fn a_task_that_does_not_change_is_on_one_page_while_others_come_and_go(stage: &Stage) {
    let store = stage.open();
    for number in 0..20 {
        enqueue(&store, task(&format!("stays {number:02}")));
        enqueue(&store, task(&format!("goes {number:02}")));
    }
    let mut seen = Vec::new();
    let mut cursor = Text::new();
    for number in 0.. {
        let page = store.list(ListTasks { cursor, limit: 3, ..all() }).unwrap();
        seen.extend(ids_of(&page).into_iter().filter(|id| id.starts_with("stays")));
        if page.cursor.is_empty() {
            break;
        }
        cursor = page.cursor;
        if number < 20 {
            store.delete(&format!("goes {number:02}")).unwrap();
            enqueue(&store, Task { priority: 9, ..task(&format!("comes {number:02}")) });
        }
    }
    let expected: Vec<_> = (0..20).map(|number| format!("stays {number:02}")).collect();
    seen.sort();
    assert_eq!(seen, expected);
}

fn paging_goes_on_behind_a_queue_that_is_gone(stage: &Stage) {
    let store = stage.open();
    for command in ["a", "b", "c"] {
        enqueue(&store, task_of(TENANT, command, command));
    }
    let first = store.list(ListTasks { limit: 1, ..all() }).unwrap();
    assert_eq!(ids_of(&first), ["a"]);
    store.delete("a").unwrap();
    let rest = ListTasks { cursor: first.cursor, ..all() };
    assert_eq!(page_ids(&store, rest), ["b", "c"]);
}

fn a_page_of_nothing_is_the_last(stage: &Stage) {
    let store = stage.open();
    assert_eq!(store.list(all()).unwrap(), Page::default());
    enqueue(&store, task("a"));
    assert_eq!(store.list(ListTasks { limit: 0, ..all() }).unwrap(), Page::default());
}

fn a_cursor_of_somebody_elses_making_is_refused(stage: &Stage) {
    let store = one_of_each(stage);
    for cursor in ["x", "{}", "[]", r#"["acme","crop",0]"#] {
        let list = ListTasks { cursor: cursor.into(), ..all() };
        assert_eq!(kind(store.list(list)), ErrorKind::InvalidArgument, "{cursor}");
    }
}

fn tenants_and_commands_with_odd_names_are_paged_through(stage: &Stage) {
    let store = stage.open();
    let names = ["", "\"", "a\\b", "ä\n", "[1]", "\u{0}"];
    let mut number = 0;
    for tenant in names {
        for command in names.into_iter().skip(1) {
            enqueue(&store, task_of(tenant, command, &format!("{number}")));
            number += 1;
        }
    }
    assert_eq!(pages(&store, &all(), 1).concat(), store.list(all()).unwrap().tasks.into_vec());
}

fn a_redriven_task_has_a_fresh_start(stage: &Stage) {
    let store = stage.open();
    let dead = bury(&store, task("a"));
    let redriven = store.redrive(key(&dead)).unwrap();
    assert!(redriven.awoke);
    assert_eq!(redriven.delay, Millis::ZERO);
    let fresh = redriven.task;
    assert_eq!((fresh.attempts, fresh.error.as_str()), (0, ""));
    assert_eq!(fresh.status, TaskStatus::Pending);
    assert_eq!(fresh.last_known_location, Location::PendingList);
    assert_eq!(store.get("a").unwrap(), fresh);
    assert_eq!(claim_one(&store, "w").attempts, 1);
}

fn only_dead_letters_are_redriven(stage: &Stage) {
    let store = one_of_each(stage);
    for place in ["ready", "delayed", "leased", "failed", "completed"] {
        let kept = store.get(&format!("{place} acme crop")).unwrap();
        assert_eq!(kind(store.redrive(key(&kept))), ErrorKind::InvalidArgument, "{place}");
        assert_eq!(store.get(&kept.id).unwrap(), kept);
    }
    assert_eq!(kind(store.redrive(key(&task("unknown")))), ErrorKind::NotFound);
}

fn a_completed_record_that_says_it_is_a_dead_letter_is_not_redriven(stage: &Stage) {
    let store = stage.open();
    store.save(ended(task("a"), TaskStatus::Completed, Location::DlqSet)).unwrap();
    assert!(store.redrive(key(&task("a"))).is_err());
}
