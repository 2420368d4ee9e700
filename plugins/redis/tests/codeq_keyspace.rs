//! What codeQ's own servers left in the keyspace, and what they find there afterwards.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use codeq_plugin::{
    AsyncTaskStorage, Claim, ErrorKind, Instant, Location, Millis, Task, TaskStatus, rules::Rules,
};
use redis::Commands;
use support::*;

/// A record as codeQ writes it, with `more` members at its end.
fn record(id: &str, status: &str, more: &str) -> String {
    format!(
        r#"{{"id":"{id}","command":"MAIL","payload":"{{\"n\":1}}","status":"{status}","lastKnownLocation":"PENDING_LIST","maxAttempts":5,"tenantId":"a"{more},"createdAt":"2026-01-02T09:00:00.123456789-03:00","updatedAt":"2026-01-02T09:00:00-03:00"}}"#
    )
}

fn write(redis: &mut redis::Connection, id: &str, record: &str) {
    let () = redis.hset("codeq:tasks", id, record).unwrap();
    let () = redis.zadd("codeq:tasks:ttl", id, 4_000_000_000_i64).unwrap();
}

fn push(redis: &mut redis::Connection, id: &str) {
    let () = redis.lpush("codeq:q:mail:a:pending:0", id).unwrap();
}

fn raw(redis: &mut redis::Connection, id: &str) -> String {
    redis.hget("codeq:tasks", id).unwrap()
}

#[tokio::test]
async fn a_task_is_written_the_way_codeq_reads_it() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    store.put(Task { payload: r#"{"a": 1.50, "b": []}"#.into(), ..with_priority("t", 4) }).await;
    let text = raw(&mut redis, "t");
    assert!(text.contains(r#""payload":"{\"a\": 1.50, \"b\": []}""#), "{text}");
    assert!(text.contains(r#""status":"PENDING","lastKnownLocation":"PENDING_LIST""#), "{text}");
    assert!(text.contains(r#"-03:00","updatedAt":""#), "the zone's offset: {text}");
    assert!(!text.contains("attempts\":0") && !text.contains("webhook"), "{text}");
    let ids: Vec<String> = redis.lrange("codeq:q:mail:a:pending:4", 0, -1).unwrap();
    assert_eq!(ids, ["t"]);

    store.take_ids(1).await;
    let text = raw(&mut redis, "t");
    let lease_until = text.split(r#""leaseUntil":""#).nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(lease_until.len(), "2026-01-02T12:00:00Z".len(), "whole seconds, UTC: {text}");
    let worker: String = redis.get("codeq:lease:t").unwrap();
    let left: i64 = redis.pttl("codeq:lease:t").unwrap();
    assert_eq!(worker, "w");
    assert!((58_000..=60_000).contains(&left), "{left}");
    assert!(redis.sismember::<_, _, bool>("codeq:q:mail:a:inprog", "t").unwrap());

    store.finish(lease("t", 1)).await.unwrap();
    let text = raw(&mut redis, "t");
    assert!(text.contains(r#""resultKey":"codeq:results""#), "{text}");
    assert!(!text.contains("workerId") && !text.contains("leaseUntil"), "{text}");
    assert!(!redis.exists::<_, bool>("codeq:lease:t").unwrap());
    let result: String = redis.hget("codeq:results", "t").unwrap();
    assert_eq!(
        result,
        r#"{"taskId":"t","status":"COMPLETED","result":{"ok":true},"completedAt":"2023-11-14T19:13:20.123-03:00"}"#
    );
    let kept_until: f64 = redis.zscore("codeq:tasks:ttl", "t").unwrap();
    let a_day_from_now = Instant::now() + Millis::DAY;
    assert!((kept_until * 1000.0 - a_day_from_now.0 as f64).abs() < 5_000.0);
}

#[tokio::test]
async fn a_queue_without_a_tenant_has_no_tenant_in_its_keys() {
    let server = Server::start();
    let store = server.store().await;
    store.put_as(keyed(Task { tenant_id: "".into(), ..task("t") }, "k")).await.unwrap();
    let mut redis = server.redis();
    assert_eq!(redis.llen("codeq:q:mail:pending:0"), Ok(1));
    assert_eq!(redis.get("codeq:idempo:k"), Ok("t".to_owned()));
}

#[tokio::test]
async fn the_score_of_a_delayed_task_is_seconds_with_its_milliseconds() {
    let server = Server::start();
    let store = server.store().await;
    store.put_as(delayed(task("t"), Instant(4_000_000_000_123))).await.unwrap();
    let score: f64 = server.redis().zscore("codeq:q:mail:a:delayed", "t").unwrap();
    assert_eq!(score.to_bits(), 4_000_000_000.123_f64.to_bits());
}

#[tokio::test]
async fn what_a_record_says_besides_survives_every_change_of_the_task() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let odd = r#","big":12345678901234567890123,"none":[],"nested":{"status":"DONE","workerId":["\"status\":",{"attempts":7}]},"half\\":"\\","e":1e400"#;
    let payload = r#""{\"quote\":\"\\\"\\\\\",\"status\":\"x\",\"u\":\"\\u00e9é\",\"n\":1.0}""#;
    let text = record("t", "PENDING", odd).replace(r#""{\"n\":1}""#, payload);
    write(&mut redis, "t", &text);
    push(&mut redis, "t");

    let kept = |text: &str, step: &str| {
        assert!(text.contains(odd) && text.contains(payload), "after {step}: {text}");
    };
    store.take_ids(1).await;
    kept(&raw(&mut redis, "t"), "claim");
    store.fail_for(lease("t", 1), 1).await.unwrap();
    kept(&raw(&mut redis, "t"), "nack");
    until(Instant::now() + Millis(3)).await;
    assert_eq!(store.move_due_delayed(9).await.unwrap().count, 1);
    kept(&raw(&mut redis, "t"), "coming due");
    store.take_ids(1).await;
    store.hand_back(lease("t", 2)).await.unwrap();
    store.take_ids(1).await;
    let completed = store.finish(lease("t", 2)).await.unwrap();
    kept(&raw(&mut redis, "t"), "completion");
    assert_eq!(
        completed.task.payload,
        "{\"quote\":\"\\\"\\\\\",\"status\":\"x\",\"u\":\"\\u00e9é\",\"n\":1.0}"
    );
    let parsed: serde_json::Value =
        serde_json::from_str(&raw(&mut redis, "t").replace("1e400", "1")).unwrap();
    assert_eq!(parsed["status"], "COMPLETED");
}

#[tokio::test]
async fn a_record_with_another_layout_and_order_is_understood() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let text = "\n{ \"updatedAt\" : \"2026-01-02T12:00:00Z\",\n  \"status\": \"PENDING\" ,\"tenantId\"\t: \"a\", \
                \"payload\": \"a\\\\\", \"command\":\"Mail\", \"extra\": [ 1 , {\"}\": \"]\"} ],\n\
                \"createdAt\":\"2026-01-02T12:00:00Z\", \"id\":\"t\" }\n";
    write(&mut redis, "t", text);
    push(&mut redis, "t");
    let claimed = store.take(ask(1)).await;
    assert_eq!((claimed[0].attempts, claimed[0].payload.as_str()), (1, "a\\"));
    let text = raw(&mut redis, "t");
    assert!(text.contains(r#""extra":[ 1 , {"}": "]"} ]"#), "{text}");
    store.finish(lease("t", 1)).await.unwrap();
}

#[tokio::test]
async fn a_task_that_codeq_enqueued_is_claimed_by_name_and_by_any() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    for id in ["1", "2"] {
        write(&mut redis, id, &record(id, "PENDING", ""));
        push(&mut redis, id);
    }
    assert_eq!(store.take_ids(1).await, ["1"]);
    store.requeue_expired(9).await.unwrap();
    assert_eq!(store.take(ask_any(9)).await.len(), 1);
}

#[tokio::test]
async fn a_task_that_codeq_put_where_two_queues_have_one_key_goes_to_its_own() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let text = record("t", "PENDING", "").replace(r#","tenantId":"a""#, "");
    write(&mut redis, "t", &text.replace("MAIL", "mail:a"));
    push(&mut redis, "t");
    assert!(store.take_ids(9).await.is_empty(), "it is not of tenant a");
    let claim =
        Claim { tenant_id: "".into(), commands: ["mail:a".into()].into_iter().collect(), ..ask(9) };
    assert_eq!(store.take(claim).await.len(), 1);
    store.put(task("mine")).await;
    assert_eq!(store.take_ids(9).await, ["mine"]);
}

#[tokio::test]
async fn a_task_in_the_wrong_queue_is_brought_to_its_own() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    write(&mut redis, "t", &record("t", "PENDING", "").replace("MAIL", "SMS"));
    push(&mut redis, "t");
    assert!(store.take_ids(9).await.is_empty());
    let commands = ["sms".into()].into_iter().collect();
    assert_eq!(store.take(Claim { commands, ..ask(9) }).await.len(), 1);
}

#[tokio::test]
async fn a_task_that_codeq_delayed_comes_due() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    for (id, key) in [("1", "codeq:q:mail:a:delayed"), ("2", "codeq:q:mail:delayed")] {
        write(&mut redis, id, &record(id, "PENDING", ""));
        let () = redis.zadd(key, id, Instant::now().0 / 1000 - 1).unwrap();
    }
    let claimed = store.claim(ask(9)).await.unwrap();
    assert_eq!((ids(&claimed), claimed.moved.as_ref().unwrap().count), (vec!["1".to_owned()], 1));
    // The other is in the queue without a tenant, as some codeQ versions do it.
    store.requeue_expired(9).await.unwrap();
    assert_eq!(store.move_due_delayed(9).await.unwrap().count, 1);
    assert_eq!(store.take_ids(9).await, ["2"]);
}

#[tokio::test]
async fn a_task_that_codeq_claimed_belongs_to_its_worker_until_its_lease_key_is_gone() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    for id in ["live", "gone"] {
        let more = r#","workerId":"w","attempts":1"#;
        write(&mut redis, id, &record(id, "IN_PROGRESS", more));
        let () = redis.sadd("codeq:q:mail:a:inprog", id).unwrap();
    }
    let () =
        redis::cmd("SET").arg(&["codeq:lease:live", "w", "PX", "500"]).query(&mut redis).unwrap();
    let claimed = store.take(Claim { worker_id: "v".into(), ..ask(9) }).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].id.as_str(), claimed[0].attempts), ("gone", 2));
    until(Instant::now() + Millis(505)).await;
    let claimed = store.take(Claim { worker_id: "v".into(), ..ask(9) }).await;
    assert_eq!(claimed[0].id, "live");
}

#[tokio::test]
async fn a_worker_may_finish_here_what_it_claimed_from_codeq() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    write(&mut redis, "t", &record("t", "IN_PROGRESS", r#","workerId":"w","attempts":1"#));
    let () = redis.sadd("codeq:q:mail:a:inprog", "t").unwrap();
    let () = redis.set_ex("codeq:lease:t", "w", 60).unwrap();
    store.finish(lease("t", 1)).await.unwrap();
    assert_eq!(store.stats().await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn a_lease_that_codeq_extended_does_not_expire_here() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    store.take(Claim { lease: Millis(300), ..ask(1) }).await;
    let mut redis = server.redis();
    assert!(redis.expire::<_, bool>("codeq:lease:t", 60).unwrap());
    until(Instant::now() + Millis(305)).await;
    assert_eq!(store.requeue_expired(9).await.unwrap().count, 0);
    store.finish(lease("t", 1)).await.unwrap();
}

#[tokio::test]
async fn what_codeq_finished_or_lost_is_not_delivered_again() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    write(&mut redis, "done", &record("done", "COMPLETED", ""));
    write(&mut redis, "good", &record("good", "PENDING", ""));
    for id in ["done", "missing", "good"] {
        push(&mut redis, id);
    }
    let () = redis.sadd("codeq:q:mail:a:inprog", &["done", "missing2"]).unwrap();
    assert_eq!(store.take_ids(9).await, ["good"]);
    assert_eq!(store.stats().await, [0, 0, 1, 0]);
    assert_eq!(store.one("done").await.unwrap().status, TaskStatus::Completed);
}

#[tokio::test]
async fn a_task_of_which_codeq_died_while_claiming_it_is_not_lost() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    write(&mut redis, "t", &record("t", "PENDING", ""));
    let () = redis.sadd("codeq:q:mail:a:inprog", "t").unwrap();
    assert!(store.take_ids(9).await.is_empty(), "codeQ may still be at it");
    let () = redis.zadd("codeq:x:deadlines:codeq:q:mail:a", "t", 1).unwrap();
    assert_eq!(store.take_ids(9).await, ["t"]);
    assert_eq!(store.stats().await, [0, 0, 1, 0]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_does_not_stop_its_queue() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let wrong_type = record("typed", "PENDING", r#","webhook":5"#);
    let broken = ["{", "", "[]", "nonsense", r#"{"id":"x","status":"ODD"}"#, &wrong_type];
    for (n, text) in broken.iter().enumerate() {
        write(&mut redis, &format!("bad{n}"), text);
        push(&mut redis, &format!("bad{n}"));
    }
    write(&mut redis, "good", &record("good", "PENDING", ""));
    push(&mut redis, "good");
    assert_eq!(store.take_ids(1).await, ["good"]);
    assert_eq!(store.stats().await, [0, 0, 1, 0]);
    for (n, text) in broken.iter().enumerate() {
        let id = format!("bad{n}");
        let error = store.one(&id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains(&format!("task `{id}` in the hash `codeq:tasks`")));
        assert!(redis.hexists::<_, _, bool>("codeq:x:corrupt", &id).unwrap());
        assert!(text.contains("webhook") || raw(&mut redis, &id) == *text, "it is kept as it is");
    }
    only(store.delete(vec!["bad0".into()]).await).unwrap();
    assert_eq!(store.one("bad0").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_task_comes_back_when_its_record_is_mended() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    write(&mut redis, "t", "{");
    push(&mut redis, "t");
    assert!(store.take_ids(1).await.is_empty());
    write(&mut redis, "t", &record("t", "PENDING", ""));
    store.requeue_expired(9).await.unwrap();
    assert_eq!(store.take_ids(9).await, ["t"]);
}

#[tokio::test]
async fn a_command_that_only_codeq_spelled_so_far_keeps_its_queue() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    write(&mut redis, "t", &record("t", "PENDING", "").replace("MAIL", "ÉMAIL"));
    let () = redis.lpush("codeq:q:émail:a:pending:0", "t").unwrap();
    let claim = Claim { commands: ["émail".into()].into_iter().collect(), ..ask(1) };
    assert_eq!(store.take(claim.clone()).await.len(), 1);
    store.hand_back(lease("t", 1)).await.unwrap();
    assert_eq!(store.take(claim).await.len(), 1);
}

#[tokio::test]
async fn a_record_that_became_unreadable_while_leased_or_delayed_does_not_stop_its_queue() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    store.put(task("leased")).await;
    store.take(Claim { lease: Millis(5), ..ask(1) }).await;
    store.put_as(delayed(task("delayed"), Instant::now() + Millis(5))).await.unwrap();
    for id in ["leased", "delayed"] {
        let () = redis.hset("codeq:tasks", id, "{").unwrap();
    }
    store.put(task("good")).await;
    until(Instant::now() + Millis(8)).await;
    assert_eq!(store.finish(lease("leased", 1)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.take_ids(9).await, ["good"]);
    assert_eq!(store.stats().await, [0, 0, 1, 0]);
}

#[tokio::test]
async fn dead_letters_of_old_codeq_versions_become_a_set() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    write(&mut redis, "old", &record("old", "FAILED", "").replace("PENDING_LIST", "DLQ_SET"));
    let () = redis.lpush("codeq:q:mail:a:dlq", "old").unwrap();
    store.put(Task { max_attempts: 1, ..task("new") }).await;
    store.take(ask(1)).await;
    store.fail(lease("new", 1), "").await.unwrap();
    assert_eq!(store.stats().await, [0, 0, 0, 2]);
    let key = codeq_plugin::TaskKey { id: "old".into(), tenant_id: "a".into() };
    assert_eq!(only(store.redrive(vec![key]).await).unwrap().task.status, TaskStatus::Pending);
}

#[tokio::test]
async fn records_of_the_first_codeq_versions_have_no_location() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let text = record("t", "PENDING", "").replace(r#""lastKnownLocation":"PENDING_LIST","#, "");
    write(&mut redis, "t", &text);
    push(&mut redis, "t");
    assert_eq!(store.take(ask(1)).await[0].last_known_location, Location::InprogSet);
}

#[tokio::test]
async fn a_key_of_another_type_is_reported_as_corrupt() {
    let server = Server::start();
    let store = server.store().await;
    let () = server.redis().set("codeq:q:mail:a:delayed", "x").unwrap();
    let error = store.claim(ask(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_shorter_retention_of_codeq_does_not_remove_a_task_before_its_time() {
    let server = Server::start();
    let store = server.store_with(Rules { retention: Millis(0), ..rules() }).await;
    let mut redis = server.redis();
    write(&mut redis, "t", &record("t", "PENDING", "").replace("PENDING_LIST", "DELAYED_ZSET"));
    let () = redis.zadd("codeq:tasks:ttl", "t", 1).unwrap();
    let () = redis.zadd("codeq:q:mail:a:delayed", "t", Instant::now().0 / 1000 + 60).unwrap();
    let cleanup = codeq_plugin::Cleanup { before: Instant::now(), limit: 9, ..Default::default() };
    assert_eq!(store.cleanup_expired(cleanup).await.unwrap(), 0);
    store.one("t").await.unwrap();
}

#[tokio::test]
async fn a_lease_of_codeq_is_found_although_as_many_deadlines_are_known_as_tasks_are_claimed() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    // codeQ takes back what was claimed here; the deadline stays behind.
    store.put(task("here")).await;
    store.take(ask(1)).await;
    let () = redis.srem("codeq:q:mail:a:inprog", "here").unwrap();
    let () = redis.del("codeq:lease:here").unwrap();
    write(&mut redis, "here", &record("here", "PENDING", r#","attempts":2"#));
    let () = redis.lpush("codeq:q:mail:a:pending:0", "here").unwrap();
    // And it claims another one.
    write(&mut redis, "there", &record("there", "IN_PROGRESS", r#","workerId":"v","attempts":1"#));
    let () = redis.sadd("codeq:q:mail:a:inprog", "there").unwrap();
    let lease = ["codeq:lease:there", "v", "PX", "300"];
    let () = redis::cmd("SET").arg(&lease).query(&mut redis).unwrap();
    let ends = Instant::now() + Millis(305);
    assert_eq!(store.requeue_expired(9).await.unwrap().count, 0);
    until(ends).await;
    assert_eq!(store.requeue_expired(9).await.unwrap().count, 1);
    let mut claimed = store.take_ids(9).await;
    claimed.sort();
    assert_eq!(claimed, ["here", "there"]);
}

#[tokio::test]
async fn a_shorter_lease_of_codeq_ends_when_it_says() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    store.put(task("t")).await;
    store.take(ask(1)).await;
    // codeQ took it back and gave it to somebody else.
    let more = r#","workerId":"v","attempts":2"#;
    write(&mut redis, "t", &record("t", "IN_PROGRESS", more));
    let lease = ["codeq:lease:t", "v", "PX", "300"];
    let () = redis::cmd("SET").arg(&lease).query(&mut redis).unwrap();
    let ends = Instant::now() + Millis(305);
    assert_eq!(store.requeue_expired(9).await.unwrap().count, 0);
    until(ends).await;
    assert_eq!(store.requeue_expired(9).await.unwrap().count, 1);
    assert_eq!(store.take(ask(1)).await[0].attempts, 3);
}

#[tokio::test]
async fn what_codeq_puts_into_a_known_queue_is_soon_claimed_by_any_name() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    store.put(task("first")).await;
    assert_eq!(store.take(ask_any(9)).await.len(), 1);
    store.requeue_expired(9).await.unwrap();
    // After the first search, and long before the next one of all keys.
    write(&mut redis, "second", &record("second", "PENDING", ""));
    push(&mut redis, "second");
    until(Instant::now() + Millis(1_005)).await;
    store.requeue_expired(9).await.unwrap();
    assert_eq!(store.take(ask_any(9)).await[0].id, "second");
}

#[tokio::test]
async fn odd_records_that_codeq_reads_are_read() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let odd = [
        r#","webhook":null,"error":null,"workerId":null,"attempts":null"#,
        r#","leaseUntil":"","priority":12"#,
        r#","attempts":7,"attempts":0,"priority":-1"#,
    ];
    for (n, more) in odd.iter().enumerate() {
        let id = format!("odd{n}");
        write(&mut redis, &id, &record(&id, "PENDING", more));
        let () = redis.lpush("codeq:q:mail:a:pending:0", &id).unwrap();
        assert_eq!(store.one(&id).await.unwrap().attempts, 0, "{more}");
    }
    let claimed = store.take(ask(9)).await;
    assert_eq!(claimed.len(), odd.len());
    for task in &claimed {
        assert_eq!(task.attempts, 1);
        store.finish(lease(&task.id, 1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_codeq_remembered_without_a_tenant_is_that_of_its_task_s_tenant_only() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    write(&mut redis, "t", &record("t", "PENDING", ""));
    push(&mut redis, "t");
    let () = redis.set("codeq:idempo:k", "t").unwrap();
    let again = store.put_as(keyed(task("u"), "k")).await.unwrap();
    assert_eq!((again.created, again.task.id.as_str()), (false, "t"));
    let other = Task { tenant_id: "b".into(), ..task("v") };
    assert!(store.put_as(keyed(other, "k")).await.unwrap().created);
    assert_eq!(redis.get::<_, String>("codeq:idempo:k").unwrap(), "t");
}

#[tokio::test]
async fn a_key_of_another_type_costs_no_task() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    store.put(task("t")).await;
    // A claim has nowhere to put it.
    let () = redis.set("codeq:q:mail:a:inprog", "x").unwrap();
    for claim in [ask(1), ask_any(1)] {
        assert_eq!(store.claim(claim).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let () = redis.del("codeq:q:mail:a:inprog").unwrap();
    assert_eq!(store.take_ids(1).await, ["t"]);
    // Nor has a retry, nor one that was the last.
    let () = redis.set("codeq:q:mail:a:delayed", "x").unwrap();
    let error = store.fail_for(lease("t", 1), 60_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let () = redis.del("codeq:q:mail:a:delayed").unwrap();
    assert_eq!(store.stats().await, [0, 0, 1, 0]);
    store.fail_for(lease("t", 1), 60_000).await.unwrap();
    assert_eq!(store.stats().await, [0, 1, 0, 0]);
    // Nor has a new one.
    let () = redis.set("codeq:q:mail:a:pending:0", "x").unwrap();
    let error = store.put_as(codeq_plugin::Enqueue::now(task("u"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(store.one("u").await.unwrap_err().kind(), ErrorKind::NotFound);
    let () = redis.del("codeq:q:mail:a:pending:0").unwrap();
    store.put(task("u")).await;
}

#[tokio::test]
async fn a_queue_that_codeq_keeps_in_a_shard_stays_there() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let shard = "codeq:q:mail:a:s:blue";
    for (id, place) in [("ready", "pending:0"), ("elsewhere", "")] {
        write(&mut redis, id, &record(id, "PENDING", ""));
        let list = if place.is_empty() {
            "codeq:q:mail:a:pending:0".into()
        } else {
            format!("{shard}:{place}")
        };
        let () = redis.lpush(list, id).unwrap();
    }
    write(&mut redis, "due", &record("due", "PENDING", ""));
    let () = redis.zadd(format!("{shard}:delayed"), "due", 1.5).unwrap();
    let held = record("held", "IN_PROGRESS", r#","workerId":"w","attempts":1"#);
    write(&mut redis, "held", &held);
    let () = redis.sadd(format!("{shard}:inprog"), "held").unwrap();
    let () = redis.set_ex("codeq:lease:held", "w", 600).unwrap();

    store.requeue_expired(100).await.unwrap();
    let mut taken = store.take_ids(10).await;
    taken.sort_unstable();
    assert_eq!(taken, ["due", "elsewhere", "ready"]);
    store.finish(lease("held", 1)).await.unwrap();
    store.hand_back(lease("ready", 1)).await.unwrap();
    store.put(task("new")).await;
    let mut waiting: Vec<String> = redis.lrange(format!("{shard}:pending:0"), 0, -1).unwrap();
    waiting.sort_unstable();
    assert_eq!(waiting, ["new", "ready"], "codeQ looks for them there");
    let leased: Vec<String> = redis.smembers(format!("{shard}:inprog")).unwrap();
    assert_eq!(leased.len(), 2, "{leased:?}");
    let stats = store.queue_stats(queue()).await.unwrap();
    assert_eq!((stats.ready, stats.in_progress), (2, 2));
    assert_eq!(store.take(ask_any(10)).await.len(), 2);
}

#[tokio::test]
async fn a_task_that_an_older_codeq_left_in_nobody_s_hands_is_taken_back() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let over = r#","workerId":"w","leaseUntil":"2026-01-02T12:00:00Z","attempts":1"#;
    write(&mut redis, "lost", &record("lost", "IN_PROGRESS", over));
    write(&mut redis, "leased", &record("leased", "IN_PROGRESS", over));
    let () = redis.set_ex("codeq:lease:leased", "w", 600).unwrap();
    let fresh = Instant(Instant::now().0 - 5_000).to_rfc3339();
    let just_now = over.replace("2026-01-02T12:00:00Z", &fresh);
    write(&mut redis, "just-now", &record("just-now", "IN_PROGRESS", &just_now));
    store.requeue_expired(100).await.unwrap();
    assert_eq!(store.take_ids(10).await, ["lost"]);
}

#[tokio::test]
async fn a_worker_keeps_a_task_whose_record_codeq_wrote_late() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let before = record("t", "PENDING", "");
    write(&mut redis, "t", &before);
    push(&mut redis, "t");
    assert_eq!(store.take_ids(1).await, ["t"]);
    // What codeQ does last when it has moved a delayed task to the ready ones.
    write(&mut redis, "t", &before);
    assert!(store.finish(lease("t", 2)).await.is_err(), "another attempt");
    store.finish(lease("t", 1)).await.unwrap();
    assert!(store.take_ids(1).await.is_empty());
}

#[tokio::test]
async fn a_key_of_another_type_costs_no_task_of_another_queue() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    store.put(task("t")).await;
    let soon = Instant::now() + Millis(20);
    let due = Task { command: "SMS".into(), ..task("due") };
    store.enqueue(vec![delayed(due, soon)]).await.unwrap();
    let () = redis.set("codeq:q:sms:a:inprog", "of another type").unwrap();
    until(soon + Millis(5)).await;
    let both = || Claim { commands: ["mail".into(), "sms".into()].into_iter().collect(), ..ask(5) };
    for _ in 0..3 {
        assert_eq!(store.claim(both()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let waiting: Vec<String> = redis.lrange("codeq:q:sms:a:pending:0", 0, -1).unwrap();
    assert!(waiting.len() < 2, "{waiting:?}");
    let () = redis.del("codeq:q:sms:a:inprog").unwrap();
    assert_eq!(ids(&store.claim(both()).await.unwrap()), ["t", "due"]);
}

#[tokio::test]
async fn a_payload_that_somebody_spoiled_does_not_stop_the_queues() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let soon = Instant::now() + Millis(20);
    for (id, spoiled) in
        [("quotes", r#""payload":"{"a":1}""#), ("number", r#""command":5,"payload":"""#)]
    {
        store.enqueue(vec![delayed(task(id), soon)]).await.unwrap();
        let text = raw(&mut redis, id);
        let from = text.find(if id == "quotes" { r#""payload""# } else { r#""command""# }).unwrap();
        let to = text.find(r#", "status""#).unwrap();
        let text = format!("{}{spoiled}{}", &text[..from], &text[to..]);
        let () = redis.hset("codeq:tasks", id, text).unwrap();
    }
    store.put(task("fine")).await;
    until(soon + Millis(5)).await;
    store.move_due_delayed(10).await.unwrap();
    assert_eq!(store.take_ids(10).await, ["fine"]);
    assert!(store.take(ask_any(10)).await.is_empty());
    store.requeue_expired(10).await.unwrap();
    store.finish(lease("fine", 1)).await.unwrap();
}

#[tokio::test]
async fn a_task_that_was_brought_to_its_own_queue_is_claimed_by_any_name() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    store.put(Task { command: "SMS".into(), ..task("other") }).await;
    store.put(task("t")).await;
    assert_eq!(store.take(ask_any(2)).await.len(), 2);
    let () = redis.lpush("codeq:q:sms:a:pending:0", "mine").unwrap();
    write(&mut redis, "mine", &record("mine", "PENDING", ""));
    let sms = || Claim { commands: ["sms".into(), "mail".into()].into_iter().collect(), ..ask(5) };
    store.take(sms()).await;
    assert_eq!(store.take(ask_any(5)).await.len(), 1);
}

#[tokio::test]
async fn a_record_that_only_the_host_cannot_read_stays_out_of_its_queue() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let spoiled = record("t", "PENDING", "").replace("2026-01-02T09:00:00.123456789-03:00", "soon");
    write(&mut redis, "t", &spoiled);
    push(&mut redis, "t");
    assert!(store.take_ids(1).await.is_empty());
    let long_ago = raw(&mut redis, "t").replace(r#""leaseUntil":"2"#, r#""leaseUntil":"1"#);
    let () = redis.hset("codeq:tasks", "t", &long_ago).unwrap();
    let known =
        "redis.call('HSET', 'codeq:x:corrupt', 't', redis.sha1hex(ARGV[1]) .. ' codeq:q:mail:a')";
    let () = redis::cmd("EVAL").arg(known).arg(0).arg(long_ago).query(&mut redis).unwrap();
    store.requeue_expired(10).await.unwrap();
    let waiting: usize = redis.llen("codeq:q:mail:a:pending:0").unwrap();
    assert_eq!(waiting, 0);
}

#[tokio::test]
async fn what_was_in_hand_before_its_queue_got_a_shard_is_nowhere_twice() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    for id in ["delayed", "dead"] {
        store.put(Task { max_attempts: if id == "dead" { 1 } else { 5 }, ..task(id) }).await;
    }
    assert_eq!(store.take_ids(2).await.len(), 2);
    store.fail_for(lease("dead", 1), 0).await.unwrap();
    write(&mut redis, "new", &record("new", "PENDING", ""));
    let () = redis.lpush("codeq:q:mail:a:s:blue:pending:0", "new").unwrap();
    store.requeue_expired(10).await.unwrap();
    store.fail_for(lease("delayed", 1), 600_000).await.unwrap();
    let key = codeq_plugin::TaskKey { id: "dead".into(), tenant_id: "a".into() };
    store.redrive(vec![key]).await.unwrap()[0].as_ref().unwrap();
    let mut taken = store.take_ids(5).await;
    taken.sort_unstable();
    assert_eq!(taken, ["dead", "new"]);
    let stats = store.queue_stats(queue()).await.unwrap();
    assert_eq!((stats.ready, stats.delayed, stats.in_progress, stats.dlq), (0, 1, 2, 0));
}
