//! The rules in Lua are those in Rust: whatever happens to a task, both make the same of it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use codeq_plugin::{
    AsyncPersistence, AsyncResultStorage, AsyncTaskStorage, Boxed, Claim, Complete, Enqueue,
    Extend, Instant, Millis, Nack, Optional, Task, TaskKey, TaskResult, TaskStatus,
    rules::{Backoff, BackoffPolicy, Jitter, Rules},
};
use codeq_redis::{Config, Redis};
use support::*;

/// What the server keeps of an instant in a record: a lease ends at a whole second there.
fn kept(mut task: Task) -> Task {
    if let Some(until) = task.lease_until.into_option() {
        task.lease_until = Optional::RSome(Instant(until.0 / 1000 * 1000));
    }
    task
}

async fn claimed(store: &Redis, claim: &Claim) -> Option<Boxed<Task>> {
    for _ in 0..200 {
        if let Some(task) = store.take(claim.clone()).await.pop() {
            return Some(task);
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    None
}

#[tokio::test]
async fn every_change_of_a_task_is_the_one_that_the_rules_make() {
    let server = Server::start();
    compare(&server.config()).await;
}

#[tokio::test]
async fn every_change_of_a_task_in_a_cluster_is_the_one_that_the_rules_make() {
    let cluster = codeq_test_servers::Cluster::start_single();
    let nodes = cluster.nodes();
    compare(&Config { key_layout: "cluster".into(), nodes, ..Config::default() }).await;
}

async fn compare(config: &Config) {
    let mut dice = fastrand::Rng::with_seed(7);
    for round in 0..60 {
        let policies = [BackoffPolicy::Fixed, BackoffPolicy::Linear, BackoffPolicy::Exponential];
        let rules = Rules {
            backoff: Backoff {
                policy: dice.choice(policies).unwrap(),
                base: Millis(dice.i64(0..4)),
                max: Millis(dice.i64(0..12)),
            },
            max_attempts: dice.u32(1..4),
            ..Rules::default()
        };
        let store = Redis::open(config.clone(), context(rules)).await.unwrap();
        let command = format!("Command {round}");
        let new = Task {
            command: command.as_str().into(),
            priority: dice.u8(0..12),
            max_attempts: dice.u32(0..4),
            webhook: if dice.bool() { "http://x/\"y\"".into() } else { "".into() },
            trace_parent: if dice.bool() { "00-1-2-01".into() } else { "".into() },
            ..task(&round.to_string())
        };
        let mut model = new.clone();
        let put = store.put_as(Enqueue::now(new)).await.unwrap().task;
        rules.enqueue(&mut model, Instant::EPOCH, put.created_at);
        assert_eq!(*put, model);
        let claim = Claim {
            commands: [command.as_str().into()].into_iter().collect(),
            worker_id: "w\\\"é".into(),
            ..ask(1)
        };
        for _ in 0..12 {
            let Some(task) = claimed(&store, &claim).await else { break };
            if model.last_known_location == codeq_plugin::Location::DelayedZset {
                rules.come_due(&mut model, task.updated_at);
            }
            rules.claim(&mut model, &claim.worker_id, claim.lease, task.updated_at);
            assert_eq!(*task, model);
            let held = codeq_plugin::Lease {
                worker_id: claim.worker_id.clone(),
                ..lease(&model.id, model.attempts)
            };
            match dice.u8(0..9) {
                0 => {
                    let extend = Extend { lease: held.clone(), by: Millis(9_000) };
                    only(store.update_lease(vec![extend]).await).unwrap();
                    let task = store.one(&model.id).await.unwrap();
                    rules.extend(&mut model, &held, Millis(9_000), task.updated_at).unwrap();
                    assert_eq!(*task, model);
                    store.hand_back(held.clone()).await.unwrap();
                    let task = store.one(&model.id).await.unwrap();
                    rules.abandon(&mut model, &held, task.updated_at).unwrap();
                    assert_eq!(*task, model);
                }
                1 | 2 => {
                    let task = store.hand_back(held.clone()).await.unwrap().task;
                    rules.abandon(&mut model, &held, task.updated_at).unwrap();
                    assert_eq!(*task, model);
                }
                3..=7 => {
                    let delay = dice.bool().then(|| Millis(dice.i64(-3..20)));
                    let reason = dice.choice(["", "no \"disk\"\n", "MAX_ATTEMPTS"]).unwrap();
                    let nack =
                        Nack { lease: held.clone(), delay: delay.into(), reason: reason.into() };
                    let returned = only(store.nack(vec![nack]).await).unwrap();
                    let now = returned.task.updated_at;
                    rules
                        .nack(&mut model, &held, delay, reason, Jitter::exactly(0.0), now)
                        .unwrap();
                    assert_eq!(*returned.task, model);
                    assert_eq!(
                        kept(model.clone()),
                        kept((*store.one(&model.id).await.unwrap()).clone())
                    );
                    if model.status == TaskStatus::Failed {
                        let key = TaskKey { id: model.id.clone(), tenant_id: "a".into() };
                        let task = only(store.redrive(vec![key]).await).unwrap().task;
                        rules.redrive(&mut model, task.updated_at).unwrap();
                        assert_eq!(*task, model);
                    }
                }
                _ => {
                    let status =
                        if dice.bool() { TaskStatus::Completed } else { TaskStatus::Failed };
                    let error = dice.choice(["", "é\\"]).unwrap();
                    let result = Boxed::new(TaskResult {
                        error: error.into(),
                        ..(*outcome(&model.id, status)).clone()
                    });
                    let complete = Complete { lease: held.clone(), result };
                    let task = only(store.complete(vec![complete]).await).unwrap().task;
                    rules.complete(&mut model, &held, status, error, task.updated_at).unwrap();
                    model.result_key = "codeq:results".into();
                    assert_eq!(*task, model);
                    break;
                }
            }
        }
    }
}
