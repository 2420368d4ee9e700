//! Single operations of many callers, which go out together.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::{collections::BTreeSet, sync::Arc};

use codeq_plugin::{
    AsyncResultStorage, AsyncTaskStorage, Complete, Enqueue, ErrorKind, Task, TaskStatus,
};
use futures_util::future::join_all;
use redis::Commands;
use support::*;

fn scripts(server: &Server) -> u64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut server.redis()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn what_many_callers_ask_for_at_once_takes_few_scripts_and_each_gets_his_own() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("first")).await;
    store.finish(lease(&store.take_ids(1).await[0], 1)).await.unwrap();
    let before = scripts(&server);
    let ids: Vec<String> = (0..64).map(|n| format!("t{n}")).collect();
    let created = join_all(ids.iter().map(|id| store.enqueue(vec![Enqueue::now(task(id))]))).await;
    for (answers, id) in created.into_iter().zip(&ids) {
        let answers = answers.unwrap();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].as_ref().unwrap().task.id, id.as_str());
    }
    let claims = (0..80).map(|n| {
        let mut claim = ask(1);
        claim.worker_id = format!("w{n}").as_str().into();
        store.claim(claim)
    });
    let mut taken = Vec::new();
    for (n, claimed) in join_all(claims).await.into_iter().enumerate() {
        for task in claimed.unwrap().tasks {
            assert_eq!(task.worker_id, format!("w{n}").as_str());
            taken.push(task);
        }
    }
    let different: BTreeSet<_> = taken.iter().map(|task| task.id.as_str()).collect();
    assert_eq!((taken.len(), different.len()), (64, 64));
    let completions = taken.iter().map(|task| {
        let lease = codeq_plugin::Lease { worker_id: task.worker_id.clone(), ..lease(&task.id, 1) };
        let result = outcome(&task.id, TaskStatus::Completed);
        store.complete(vec![Complete { lease, result }])
    });
    for (answers, task) in join_all(completions).await.into_iter().zip(&taken) {
        assert_eq!(answers.unwrap()[0].as_ref().unwrap().task.id, task.id);
    }
    let used = scripts(&server) - before;
    assert!(used <= 24, "{used} scripts for 208 calls");
}

#[tokio::test]
async fn a_call_that_fails_fails_no_other() {
    let server = Server::start();
    let store = Arc::new(server.store().await);
    let () = server.redis().set("codeq:q:broken:a:pending:0", "of another type").unwrap();
    let calls = (0..60).map(|n| {
        let command = if n % 20 == 7 { "BROKEN" } else { "MAIL" };
        let task = Task { command: command.into(), ..task(&format!("t{n}")) };
        store.enqueue(vec![Enqueue::now(task)])
    });
    for (n, answers) in join_all(calls).await.into_iter().enumerate() {
        match answers {
            Ok(answers) => assert!(answers[0].as_ref().unwrap().created && n % 20 != 7, "{n}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert_eq!(n % 20, 7, "{error}");
            }
        }
    }
    assert_eq!(store.take_ids(60).await.len(), 57);
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_sent() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("first")).await;
    // The server answers nobody, so what comes second waits behind what came first.
    server.hang();
    let first = store.enqueue(vec![Enqueue::now(task("a"))]);
    let second = async {
        // Until the first is on its way.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        store.enqueue(vec![Enqueue::now(task("b"))]).await
    };
    let patience = std::time::Duration::from_millis(200);
    let (first, second) = tokio::join!(
        async {
            let waited = tokio::time::timeout(patience * 3, first).await;
            server.go_on();
            waited
        },
        tokio::time::timeout(patience, second),
    );
    assert!(first.is_err() && second.is_err(), "nobody was answered");
    assert_eq!(
        store.get(vec!["b".into()]).await.unwrap()[0].as_ref().unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn what_nobody_is_there_to_take_is_given_back() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    server.hang();
    let patience = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(patience, store.claim(ask(1))).await.is_err());
    server.go_on();
    let begun = std::time::Instant::now();
    loop {
        let task = store.one("t").await.unwrap();
        if task.status == TaskStatus::Pending && task.attempts == 0 {
            let stats = store.queue_stats(queue()).await.unwrap();
            assert_eq!((stats.ready, stats.in_progress), (1, 0));
            return;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{task:?}");
        tokio::task::yield_now().await;
    }
}
