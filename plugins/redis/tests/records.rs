//! Records by id, results, counts, pages, retention.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::collections::BTreeSet;

use codeq_plugin::{
    Artifact, AsyncResultStorage, AsyncTaskStorage, Boxed, Claim, Cleanup, Complete, Enqueue,
    ErrorKind, Extension, Finish, Instant, ListTasks, Location, Millis, Optional, Page, Placed,
    Task, TaskResult, TaskStatus, Text, rules::Rules,
};
use codeq_redis::Redis;
use redis::Commands;
use support::*;

fn placed(task: Task, visible_at: Instant) -> Placed {
    Placed { task: Boxed::new(task), visible_at }
}

async fn save(store: &Redis, placed: Placed) {
    only(store.save(vec![placed]).await).unwrap();
}

#[tokio::test]
async fn a_record_is_saved_as_it_stands_into_the_place_it_names() {
    let server = Server::start();
    let store = server.store().await;
    let later = Instant::now() + Millis::from_secs(60);
    let states = [
        ("1", TaskStatus::Pending, Location::PendingList),
        ("2", TaskStatus::Pending, Location::DelayedZset),
        ("3", TaskStatus::InProgress, Location::InprogSet),
        ("4", TaskStatus::Failed, Location::DlqSet),
        ("5", TaskStatus::Completed, Location::None),
    ];
    for (id, status, last_known_location) in states {
        let leased = status == TaskStatus::InProgress;
        let task = Task {
            status,
            last_known_location,
            attempts: 2,
            worker_id: if leased { "w".into() } else { "".into() },
            lease_until: leased.then_some(later).into(),
            created_at: Instant(1_600_000_000_123),
            updated_at: Instant::now(),
            extensions: [Extension { tag: 3, bytes: vec![7].into() }].into_iter().collect(),
            ..task(id)
        };
        save(&store, placed(task.clone(), later)).await;
        assert_eq!(*store.one(id).await.unwrap(), task);
    }
    assert_eq!(store.stats().await, [1, 1, 1, 1]);
    store.finish(lease("3", 2)).await.unwrap();
}

#[tokio::test]
async fn saving_again_moves_the_task_and_keeps_what_is_unknown() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    let mut redis = server.redis();
    let text: String = redis.hget("codeq:tasks", "t").unwrap();
    let text = text.replacen('{', r#"{"unknown":[1],"#, 1);
    let () = redis.hset("codeq:tasks", "t", text).unwrap();
    let mut task = store.one("t").await.unwrap();
    task.command = "SMS".into();
    save(&store, Placed { task, visible_at: Instant::EPOCH }).await;
    assert_eq!(store.stats().await, [0, 0, 0, 0]);
    let text: String = redis.hget("codeq:tasks", "t").unwrap();
    assert!(text.contains(r#""unknown":[1]"#), "{text}");
    let claim = Claim { commands: ["sms".into()].into_iter().collect(), ..ask(1) };
    assert_eq!(store.take(claim).await.len(), 1);
}

#[tokio::test]
async fn a_deleted_task_leaves_nothing_behind() {
    let server = Server::start();
    let store = server.store().await;
    let now = Instant::now();
    store.put(task("ready")).await;
    store.put_as(delayed(task("delayed"), now + Millis::DAY)).await.unwrap();
    for id in ["leased", "dead", "done"] {
        store.put(Task { max_attempts: 1, priority: 9, ..task(id) }).await;
        store.take(ask(1)).await;
    }
    store.fail(lease("dead", 1), "").await.unwrap();
    store.finish(lease("done", 1)).await.unwrap();
    for id in ["ready", "delayed", "leased", "dead", "done"] {
        only(store.delete(vec![id.into()]).await).unwrap();
        assert_eq!(
            only(store.delete(vec![id.into()]).await).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    assert_eq!(store.stats().await, [0, 0, 0, 0]);
    let mut left: Vec<String> = server.redis().keys("codeq:*").unwrap();
    left.retain(|key| !key.starts_with("codeq:x:"));
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_result_is_kept_with_its_task() {
    let server = Server::start();
    let store = server.store().await;
    let get = async |id: &str| only(store.get_result(vec![id.into()]).await);
    assert_eq!(get("t").await.unwrap_err().kind(), ErrorKind::NotFound);
    let orphan = only(store.save_result(vec![outcome("t", TaskStatus::Completed)]).await);
    assert_eq!(orphan.unwrap_err().kind(), ErrorKind::NotFound);
    store.put(task("t")).await;
    store.take(ask(1)).await;
    let result = Boxed::new(TaskResult {
        status: TaskStatus::Failed,
        error: "no disk".into(),
        result: r#"{"n": 1.0}"#.into(),
        artifacts: [Artifact { name: "log".into(), url: "u".into() }].into_iter().collect(),
        ..(*outcome("t", TaskStatus::Failed)).clone()
    });
    let complete = Complete { lease: lease("t", 1), result: result.clone() };
    let completed = only(store.complete(vec![complete]).await).unwrap();
    assert_eq!(
        (completed.task.status, completed.task.error.as_str()),
        (TaskStatus::Failed, "no disk")
    );
    assert_eq!(get("t").await.unwrap(), result);
    only(store.save_result(vec![outcome("t", TaskStatus::Completed)]).await).unwrap();
    assert_eq!(get("t").await.unwrap().status, TaskStatus::Completed);
    let () = server.redis().hset("codeq:results", "t", "{").unwrap();
    assert_eq!(get("t").await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_batch_of_results_is_answered_item_by_item() {
    let server = Server::start();
    let store = server.store().await;
    for id in ["1", "2"] {
        store.put(task(id)).await;
    }
    store.take(ask(9)).await;
    let complete = |id: &str, status, result: &str| Complete {
        lease: lease(id, 1),
        result: Boxed::new(TaskResult { result: result.into(), ..(*outcome(id, status)).clone() }),
    };
    let batch = vec![
        complete("1", TaskStatus::Pending, "{}"),
        complete("1", TaskStatus::Completed, "{"),
        complete("missing", TaskStatus::Completed, "{}"),
        complete("2", TaskStatus::Completed, "{}"),
        complete("2", TaskStatus::Completed, "{}"),
    ];
    let kinds: Vec<_> = store
        .complete(batch)
        .await
        .unwrap()
        .into_iter()
        .map(|answer| answer.map_err(|error| error.kind()).err())
        .collect();
    let invalid = Some(ErrorKind::InvalidArgument);
    let missing = Some(ErrorKind::NotFound);
    assert_eq!(kinds, [invalid, invalid, missing, None, Some(ErrorKind::NotInProgress)]);
}

#[tokio::test]
async fn an_operator_finishes_a_task_whoever_holds_it() {
    let server = Server::start();
    let store = server.store().await;
    let finish = |id: &str, status| Finish {
        task_id: id.into(),
        status,
        error: "by hand".into(),
        ..Finish::default()
    };
    for id in ["ready", "leased"] {
        store.put(task(id)).await;
    }
    store.take(ask(1)).await;
    store.put_as(delayed(task("delayed"), Instant::now() + Millis::DAY)).await.unwrap();
    for id in ["ready", "leased", "delayed"] {
        only(store.update_task_on_complete(vec![finish(id, TaskStatus::Failed)]).await).unwrap();
        assert_eq!(store.one(id).await.unwrap().error, "by hand");
    }
    assert_eq!(store.stats().await, [0, 0, 0, 0]);
    let refused = only(store.update_task_on_complete(vec![finish("x", TaskStatus::Pending)]).await);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let missing = only(store.update_task_on_complete(vec![finish("x", TaskStatus::Failed)]).await);
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_lease_that_outlived_its_worker_is_cleared_and_the_task_is_not_lost() {
    let server = Server::start();
    let store = server.store().await;
    let clear =
        async |id: &str| only(store.remove_from_inprog_and_clear_lease(vec![id.into()]).await);
    assert_eq!(clear("t").await.unwrap_err().kind(), ErrorKind::NotFound);
    store.put(task("t")).await;
    store.take(ask(1)).await;
    clear("t").await.unwrap();
    assert_eq!(store.take_ids(1).await, ["t"]);
    store.finish(lease("t", 2)).await.unwrap();
    let () = server.redis().sadd("codeq:q:mail:a:inprog", "t").unwrap();
    clear("t").await.unwrap();
    assert_eq!(store.stats().await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn every_queue_is_counted_by_tenant_and_command() {
    let server = Server::start();
    let store = server.store().await;
    for (id, tenant, command) in [("1", "b", "X"), ("2", "a", "Y"), ("3", "a", "X"), ("4", "", "Z")]
    {
        store.put(Task { tenant_id: tenant.into(), command: command.into(), ..task(id) }).await;
    }
    let all = store.admin_queues(None).await.unwrap();
    let names: Vec<_> =
        all.iter().map(|one| (one.tenant_id.as_str(), one.command.as_str(), one.ready)).collect();
    assert_eq!(names, [("", "z", 1), ("a", "x", 1), ("a", "y", 1), ("b", "x", 1)]);
    assert_eq!(store.admin_queues(Some("a".into())).await.unwrap().len(), 2);
    assert_eq!(store.queue_length(queue()).await.unwrap(), 0);
}

#[tokio::test]
async fn tasks_are_removed_when_their_retention_ends_and_not_before() {
    let server = Server::start();
    let store = server.store_with(Rules { retention: Millis(500), ..rules() }).await;
    let now = Instant::now();
    store.put(task("old")).await;
    store.put(Task { tenant_id: "b".into(), ..task("theirs") }).await;
    store.put_as(delayed(task("delayed"), now + Millis(5_000))).await.unwrap();
    store.put(with_priority("leased", 9)).await;
    store.take(ask(1)).await;
    let clean = async |tenant: Option<&str>, limit| {
        let tenant_id: Optional<Text> = tenant.map(Text::from).into();
        store
            .cleanup_expired(Cleanup {
                tenant_id,
                before: Instant::now(),
                limit,
                ..Cleanup::default()
            })
            .await
            .unwrap()
    };
    assert_eq!(clean(None, 9).await, 0);
    until(Instant::now() + Millis(505)).await;
    assert_eq!(clean(Some("c"), 9).await, 0);
    assert_eq!(clean(Some("b"), 9).await, 1);
    assert_eq!(clean(None, 0).await, 0);
    assert_eq!(clean(None, 9).await, 1);
    assert_eq!(store.one("old").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.stats().await, [0, 1, 1, 0]);
}

#[tokio::test]
async fn a_limit_of_the_cleanup_is_kept() {
    let server = Server::start();
    let store = server.store_with(Rules { retention: Millis(0), ..rules() }).await;
    store.enqueue((0..30).map(|n| Enqueue::now(task(&n.to_string()))).collect()).await.unwrap();
    until(Instant::now() + Millis(2)).await;
    let clean = async |limit| {
        let cleanup = Cleanup { before: Instant::now(), limit, ..Cleanup::default() };
        store.cleanup_expired(cleanup).await.unwrap()
    };
    assert_eq!((clean(7).await, clean(100).await, clean(100).await), (7, 23, 0));
}

async fn pages(store: &Redis, list: ListTasks) -> Vec<String> {
    let mut list = list;
    let mut ids = Vec::new();
    loop {
        let Page { tasks, cursor } = store.list(list.clone()).await.unwrap();
        assert!(tasks.len() <= list.limit as usize);
        ids.extend(tasks.iter().map(|placed| placed.task.id.to_string()));
        if cursor.is_empty() {
            return ids;
        }
        list.cursor = cursor;
    }
}

#[tokio::test]
async fn every_task_is_on_exactly_one_page_of_every_list_it_belongs_to() {
    let server = Server::start();
    let store = server.store().await;
    let now = Instant::now();
    for n in 0..60 {
        store.put(Task { max_attempts: 1, ..with_priority(&format!("{n:02}"), n / 10) }).await;
    }
    for n in 0..20_i64 {
        let at = now + Millis::DAY + Millis(n / 4);
        store.put_as(delayed(task(&format!("d{n:02}")), at)).await.unwrap();
    }
    for (n, id) in store.take_ids(40).await.iter().enumerate() {
        match n % 4 {
            0 | 1 => drop(store.fail(lease(id, 1), "").await.unwrap()),
            2 => drop(store.finish(lease(id, 1)).await.unwrap()),
            _ => {}
        }
    }
    store.put(Task { command: "SMS".into(), ..task("other") }).await;
    store.put(Task { tenant_id: "b".into(), ..task("theirs") }).await;

    let of_queue = |place: Option<Location>, limit| ListTasks {
        tenant_id: Some("a".into()).into(),
        command: Some("mail".into()).into(),
        location: place.into(),
        limit,
        ..ListTasks::default()
    };
    let expected = [
        (Some(Location::PendingList), 20),
        (Some(Location::DelayedZset), 20),
        (Some(Location::DlqSet), 20),
        (Some(Location::InprogSet), 10),
        (Some(Location::None), 10),
        (None, 80),
    ];
    for (place, count) in expected {
        for limit in [1, 7, 500] {
            let ids = pages(&store, of_queue(place, limit)).await;
            assert_eq!(ids.len(), count, "{place:?} by {limit}: {ids:?}");
            assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), count);
        }
    }
    let ready = pages(&store, of_queue(Some(Location::PendingList), 3)).await;
    assert_eq!(ready, store.take_ids(20).await, "as they are claimed");
    let all = pages(&store, ListTasks { limit: 9, ..ListTasks::default() }).await;
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 82);
    let failed =
        ListTasks { status: Some(TaskStatus::Failed).into(), limit: 9, ..Default::default() };
    assert_eq!(pages(&store, failed).await.len(), 20);
}

#[tokio::test]
async fn a_page_goes_on_behind_tasks_that_were_taken_meanwhile() {
    let server = Server::start();
    let store = server.store().await;
    for n in 0..9 {
        store.put(task(&n.to_string())).await;
    }
    let mut list = ListTasks {
        tenant_id: Some("a".into()).into(),
        command: Some("MAIL".into()).into(),
        location: Some(Location::PendingList).into(),
        limit: 3,
        ..ListTasks::default()
    };
    list.cursor = store.list(list.clone()).await.unwrap().cursor;
    store.take_ids(2).await;
    let ids =
        |page: &Page| page.tasks.iter().map(|one| one.task.id.to_string()).collect::<Vec<_>>();
    let page = store.list(list.clone()).await.unwrap();
    assert_eq!(ids(&page), ["3", "4", "5"]);
    list.cursor = page.cursor;
    store.take_ids(5).await;
    assert_eq!(ids(&store.list(list).await.unwrap()), ["7", "8"]);
}

#[tokio::test]
async fn a_page_tells_when_tasks_become_visible_and_leases_end() {
    let server = Server::start();
    let store = server.store().await;
    let at = Instant::now() + Millis(70_123);
    store.put_as(delayed(task("d"), at)).await.unwrap();
    store.put(task("l")).await;
    let deadline = store.take(ask(1)).await[0].lease_until;
    for tenant_id in [Some("a".into()), None] {
        let list = ListTasks { tenant_id: tenant_id.into(), limit: 9, ..ListTasks::default() };
        let page = store.list(list).await.unwrap();
        for placed in &page.tasks {
            match placed.task.id.as_str() {
                "d" => assert_eq!(placed.visible_at, at),
                _ => assert_eq!(placed.task.lease_until, deadline),
            }
        }
        assert_eq!(page.tasks.len(), 2);
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_is_refused() {
    let server = Server::start();
    let store = server.store().await;
    let list = ListTasks { cursor: "nonsense".into(), limit: 1, ..ListTasks::default() };
    assert_eq!(store.list(list).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
}
