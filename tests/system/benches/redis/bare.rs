//! The limit: the commands without which no queue could keep the same in Redis, driven by Redis's own
//! redis-benchmark, as many of them in a pipeline as the plugin has tasks in a batch.

use std::process::{Command, Stdio};

use crate::server::{Cost, Server};

/// As long as a record with a payload of 200 bytes.
const RECORD_BYTES: usize = 480;
const RESULT_BYTES: usize = 130;
/// As long as an id that the host gives.
const ID: &str = "0193c2d4-7aa0-7000-8000-__rand_int__";
const LEASE: &str = "codeq:lease:0193c2d4-7aa0-7000-8000-__rand_int__";
const PENDING: &str = "codeq:q:render:acme:pending:5";
const IN_PROGRESS: &str = "codeq:q:render:acme:inprog";
const DEADLINES: &str = "codeq:x:deadlines:codeq:q:render:acme";
const TASKS: &str = "codeq:tasks";
const RETENTION: &str = "codeq:tasks:ttl";
const RESULTS: &str = "codeq:results";
const SCORE: &str = "1700000000.123";
const DEADLINE: &str = "1700000000123";

/// A task's record, its retention, and its place.
pub(crate) fn enqueue(server: &Server, tasks: usize, batch: usize) -> Cost {
    let record = "x".repeat(RECORD_BYTES);
    run(
        server,
        tasks,
        batch,
        &[&["HSET", TASKS, ID, &record], &["ZADD", RETENTION, SCORE, ID], &["LPUSH", PENDING, ID]],
    )
}

/// From its place to its lease, and from there to its end.
pub(crate) fn consume(server: &Server, tasks: usize, batch: usize) -> Cost {
    let (record, result) = ("x".repeat(RECORD_BYTES), "x".repeat(RESULT_BYTES));
    run(
        server,
        tasks,
        batch,
        &[
            &["RPOP", PENDING],
            &["HGET", TASKS, ID],
            &["HSET", TASKS, ID, &record],
            &["SADD", IN_PROGRESS, ID],
            &["ZADD", DEADLINES, DEADLINE, ID],
            &["ZADD", RETENTION, SCORE, ID],
            &["SET", LEASE, "worker", "PX", "60000"],
            &["HGET", TASKS, ID],
            &["HSET", RESULTS, ID, &result],
            &["SREM", IN_PROGRESS, ID],
            &["ZREM", DEADLINES, ID],
            &["DEL", LEASE],
            &["HSET", TASKS, ID, &record],
            &["ZADD", RETENTION, SCORE, ID],
        ],
    )
}

fn run(server: &Server, tasks: usize, batch: usize, commands: &[&[&str]]) -> Cost {
    let begin = server.mark();
    for command in commands {
        benchmark(server, tasks, batch, command);
    }
    server.since(&begin, tasks)
}

fn benchmark(server: &Server, tasks: usize, batch: usize, command: &[&str]) {
    let addr = server.addr();
    let (host, port) = addr.rsplit_once(':').expect("host:port");
    let (tasks, batch) = (tasks.to_string(), batch.to_string());
    let status = Command::new("redis-benchmark")
        .args(["-h", host, "-p", port, "-c", "4", "-n", &tasks, "-r", &tasks, "-P", &batch, "-q"])
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let status = status.unwrap_or_else(|error| {
        panic!("redis-benchmark cannot be run ({error}); install it: apt-get install redis-tools")
    });
    assert!(status.success(), "redis-benchmark failed at {command:?}");
}
