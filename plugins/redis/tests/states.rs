//! Every state that codeQ's servers may have left a task in, also those in which one of them died, and
//! every odd but legal form of its record: whatever it is, the task is delivered as often as it should.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::collections::BTreeMap;

use codeq_plugin::{AsyncTaskStorage, Instant};
use codeq_redis::Redis;
use redis::Commands;
use support::*;

/// What becomes of a task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is handed out, once.
    Delivered,
    /// It is not, and stays where it is: somebody has it, or it is over, or it is not its time yet.
    Kept,
}
use Fate::{Delivered, Kept};

/// Where an id may stand.
#[derive(Clone, Copy)]
enum In {
    Ready,
    Due,
    Later,
    Claimed,
    ClaimedWithoutTenant,
    Dead,
    DeadList,
    Leased,
}
use In::{Claimed, ClaimedWithoutTenant, Dead, DeadList, Due, Later, Leased, Ready};

fn put(redis: &mut redis::Connection, id: &str, place: In) {
    let queue = "codeq:q:mail:a";
    let now = Instant::now().0 as f64 / 1000.0;
    match place {
        Ready => redis.lpush::<_, _, ()>(format!("{queue}:pending:3"), id),
        // Scores may have any fraction.
        Due => redis.zadd(format!("{queue}:delayed"), id, now - 0.000_123_456),
        Later => redis.zadd(format!("{queue}:delayed"), id, now + 3600.5),
        Claimed => redis.sadd(format!("{queue}:inprog"), id),
        ClaimedWithoutTenant => redis.sadd("codeq:q:mail:inprog", id),
        Dead => redis.sadd(format!("{queue}:dlq"), id),
        DeadList => redis.lpush("codeq:q:old:a:dlq", id),
        Leased => redis.set_ex(format!("codeq:lease:{id}"), "w", 600),
    }
    .unwrap();
}

/// A record as codeQ writes it.
fn record(id: &str, status: &str, location: &str) -> String {
    let worker = if status == "IN_PROGRESS" { r#","workerId":"w","attempts":1"# } else { "" };
    let command = if id.starts_with("old") { "old" } else { "MAIL" };
    format!(
        r#"{{"id":"{id}","command":"{command}","payload":"{{\"n\":1}}","priority":3,"status":"{status}","lastKnownLocation":"{location}","maxAttempts":5,"tenantId":"a"{worker},"createdAt":"2026-01-02T09:00:00.123456789-03:00","updatedAt":"2026-01-02T09:00:00-03:00"}}"#
    )
}

const PENDING: (&str, &str) = ("PENDING", "PENDING_LIST");
const DELAYED: (&str, &str) = ("PENDING", "DELAYED_ZSET");
const HELD: (&str, &str) = ("IN_PROGRESS", "INPROG_SET");
const DONE: (&str, &str) = ("COMPLETED", "NONE");
const FAILED: (&str, &str) = ("FAILED", "DLQ_SET");
const GONE: (&str, &str) = ("", "");

/// A name, what the record says, where the id stands, and what should become of it.
type State = (&'static str, (&'static str, &'static str), &'static [In], Fate);

const STATES: &[State] = &[
    ("ready", PENDING, &[Ready], Delivered),
    ("ready-twice", PENDING, &[Ready, Ready], Delivered),
    ("ready-and-due", PENDING, &[Ready, Due], Delivered),
    ("moved-to-ready-by-halves", DELAYED, &[Ready, Due], Delivered),
    ("due", DELAYED, &[Due], Delivered),
    ("due-that-says-ready", PENDING, &[Due], Delivered),
    ("later", DELAYED, &[Later], Kept),
    ("later-that-says-ready", PENDING, &[Later], Kept),
    ("held", HELD, &[Claimed, Leased], Kept),
    ("held-without-tenant", HELD, &[ClaimedWithoutTenant, Leased], Kept),
    ("held-and-ready", HELD, &[Claimed, Leased, Ready], Kept),
    ("lease-over", HELD, &[Claimed], Delivered),
    ("lease-over-and-ready", HELD, &[Claimed, Ready], Delivered),
    ("given-back-by-halves", HELD, &[Ready], Delivered),
    ("done", DONE, &[], Kept),
    ("done-and-ready", DONE, &[Ready], Kept),
    ("done-and-due", DONE, &[Due], Kept),
    ("done-and-claimed", DONE, &[Claimed], Kept),
    ("dead", FAILED, &[Dead], Kept),
    ("old-dead", FAILED, &[DeadList], Kept),
    ("dead-and-ready", FAILED, &[Dead, Ready], Kept),
    ("gone-and-ready", GONE, &[Ready], Kept),
    ("gone-and-due", GONE, &[Due], Kept),
    ("gone-and-claimed", GONE, &[Claimed], Kept),
    ("gone-and-dead", GONE, &[Dead], Kept),
];

/// A name, and how a record is written in that form.
type Form = (&'static str, fn(&str) -> String);

/// Forms that codeQ's reader takes for the same record.
const FORMS: &[Form] = &[
    ("plain", str::to_owned),
    ("spaced", |text| text.replace(r#"":"#, r#"" : "#).replace(r#","status"#, ",\n  \"status")),
    ("unknown", |text| text.replace(r#""status":"#, r#""x":{"y":[1,"}",null]},"status":"#)),
    ("nulls", |text| text.replace(r#""status":"#, r#""webhook":null,"error":null,"status":"#)),
    ("empty", |text| text.replace(r#""status":"#, r#""leaseUntil":"","error":"","status":"#)),
    ("utc", |text| text.replace("-03:00", "Z")),
    ("twice", |text| text.replace(r#""status":"#, r#""attempts":4,"attempts":1,"status":"#)),
    ("no-location", |text| {
        let from = text.find(r#""lastKnownLocation""#).unwrap();
        let to = from + text[from..].find(',').unwrap() + 1;
        text[..from].to_owned() + &text[to..]
    }),
];

/// Everything that is handed out, until there is nothing left; how often.
async fn drain(store: &Redis, by_name: bool) -> BTreeMap<String, usize> {
    let mut delivered = BTreeMap::new();
    for _ in 0..6 {
        store.move_due_delayed(500).await.unwrap();
        store.requeue_expired(500).await.unwrap();
        let claim = if by_name { ask(500) } else { ask_any(500) };
        for task in store.take(claim).await {
            *delivered.entry(task.id.to_string()).or_default() += 1;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    delivered
}

async fn check(by_name: bool) {
    let server = Server::start();
    let mut redis = server.redis();
    let mut expected = BTreeMap::new();
    for (name, (status, location), places, fate) in STATES {
        for (form, written) in FORMS {
            let id = format!("{name}-{form}");
            if !status.is_empty() {
                let text = written(&record(&id, status, location));
                let () = redis.hset("codeq:tasks", &id, text).unwrap();
                let () = redis.zadd("codeq:tasks:ttl", &id, 4_000_000_000.25).unwrap();
            }
            places.iter().for_each(|place| put(&mut redis, &id, *place));
            if *fate == Delivered {
                expected.insert(id, 1);
            }
        }
    }
    let store = server.store().await;
    let delivered = drain(&store, by_name).await;
    let wrong: Vec<_> = delivered.iter().filter(|(id, n)| expected.get(*id) != Some(n)).collect();
    let missed: Vec<_> = expected.keys().filter(|id| !delivered.contains_key(*id)).collect();
    assert!(wrong.is_empty() && missed.is_empty(), "delivered {wrong:?}, missed {missed:?}");
    // What was handed out is brought to its end by its worker.
    for id in delivered.keys() {
        let attempt = store.one(id).await.unwrap().attempts;
        store.finish(lease(id, attempt)).await.unwrap();
    }
    assert!(drain(&store, by_name).await.is_empty());
    // What somebody holds is still his.
    for (form, _) in FORMS {
        store.finish(lease(&format!("held-{form}"), 0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_claim_by_name_delivers_each_task_as_often_as_it_should() {
    check(true).await;
}

#[tokio::test]
async fn a_claim_of_any_command_delivers_each_task_as_often_as_it_should() {
    check(false).await;
}
