//! Paging through tasks, and redriving dead letters.

use codeq_memory::Memory;
use codeq_plugin::{
    ErrorKind, Instant, ListTasks, Location, Millis, Page, Placed, Task, TaskKey, TaskStatus,
    TaskStorage, Text,
};

use crate::{
    records::{delayed, ended, leased, ready},
    support::*,
};

/// Asks for everything at once.
pub(crate) fn all() -> ListTasks {
    ListTasks { limit: 10_000, ..ListTasks::default() }
}

pub(crate) fn key(task: &Task) -> TaskKey {
    TaskKey { id: task.id.clone(), tenant_id: task.tenant_id.clone() }
}

pub(crate) fn page_ids(store: &Memory, list: ListTasks) -> Vec<String> {
    ids_of(&store.list(list).unwrap())
}

/// All pages of `list`, each of at most `limit` tasks.
pub(crate) fn pages(store: &Memory, list: &ListTasks, limit: u32) -> Vec<Vec<Placed>> {
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
fn one_of_each() -> Memory {
    let store = open();
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

#[test]
fn a_list_without_filters_has_every_task_once() {
    let store = one_of_each();
    let mut ids = page_ids(&store, all());
    assert_eq!(ids.len(), 24);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 24);
}

#[test]
fn the_order_does_not_depend_on_the_size_of_the_pages() {
    let store = one_of_each();
    let whole = page_ids(&store, all());
    for limit in 1..=25 {
        let paged: Vec<_> = pages(&store, &all(), limit).concat();
        let ids: Vec<_> = paged.iter().map(|placed| placed.task.id.to_string()).collect();
        assert_eq!(ids, whole, "with {limit} to a page");
    }
}

#[test]
fn a_filtered_list_has_what_matches_however_it_is_paged() {
    let store = one_of_each();
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

#[test]
fn a_list_tells_until_when_a_task_is_delayed() {
    let store = open();
    let due = enqueue_in(&store, LONG, task("a"));
    assert_eq!(store.list(all()).unwrap().tasks[0].visible_at, due);
}

#[test]
fn a_listed_task_can_be_saved_elsewhere_and_is_the_same_there() {
    let (here, there) = (one_of_each(), open());
    for placed in here.list(all()).unwrap().tasks {
        there.save(placed).unwrap();
    }
    assert_eq!(there.list(all()).unwrap(), here.list(all()).unwrap());
    assert_eq!(there.admin_queues(None).unwrap(), here.admin_queues(None).unwrap());
}

#[test]
fn a_task_that_does_not_change_is_on_one_page_while_others_come_and_go() {
    let store = open();
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
    assert_eq!(seen, expected);
}

#[test]
fn paging_goes_on_behind_a_queue_that_is_gone() {
    let store = open();
    for command in ["a", "b", "c"] {
        enqueue(&store, task_of(TENANT, command, command));
    }
    let first = store.list(ListTasks { limit: 1, ..all() }).unwrap();
    assert_eq!(ids_of(&first), ["a"]);
    store.delete("a").unwrap();
    let rest = ListTasks { cursor: first.cursor, ..all() };
    assert_eq!(page_ids(&store, rest), ["b", "c"]);
}

#[test]
fn a_page_of_nothing_is_the_last() {
    let store = open();
    assert_eq!(store.list(all()).unwrap(), Page::default());
    enqueue(&store, task("a"));
    assert_eq!(store.list(ListTasks { limit: 0, ..all() }).unwrap(), Page::default());
}

#[test]
fn a_cursor_of_somebody_elses_making_is_refused() {
    let store = one_of_each();
    for cursor in ["x", "{}", "[]", r#"["acme","crop",0]"#] {
        let list = ListTasks { cursor: cursor.into(), ..all() };
        assert_eq!(kind(store.list(list)), ErrorKind::InvalidArgument, "{cursor}");
    }
}

#[test]
fn tenants_and_commands_with_odd_names_are_paged_through() {
    let store = open();
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

#[test]
fn a_redriven_task_has_a_fresh_start() {
    let store = open();
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

#[test]
fn only_dead_letters_are_redriven() {
    let store = one_of_each();
    for place in ["ready", "delayed", "leased", "failed", "completed"] {
        let kept = store.get(&format!("{place} acme crop")).unwrap();
        assert_eq!(kind(store.redrive(key(&kept))), ErrorKind::InvalidArgument, "{place}");
        assert_eq!(store.get(&kept.id).unwrap(), kept);
    }
    assert_eq!(kind(store.redrive(key(&task("unknown")))), ErrorKind::NotFound);
}
