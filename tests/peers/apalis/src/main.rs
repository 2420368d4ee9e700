//! apalis-redis's throughput on a given, empty redis-server: how fast tasks are
//! pushed, then how fast workers with a no-op handler complete them.
//!
//! ```text
//! cargo run --release -- --addr 127.0.0.1:6379 --tasks 50000 --batch 100 --clients 4 --payload-bytes 64
//! ```
//!
//! Enqueue: each client has its own connection and awaits one `push_bulk` of
//! `--batch` tasks at a time, which apalis-redis sends as one script call.
//! <https://docs.rs/apalis-core/1.0.0/apalis_core/backend/trait.TaskSink.html>
//!
//! Process: 4 workers, each with its own connection, fetching up to 500 tasks at a
//! time. No events are published, and tasks are not locked unless `--lock-tasks`
//! says so, which the documentation allows for those shorter than a heartbeat. A
//! dead worker's tasks are still put back, and results are still stored.
//! <https://docs.rs/apalis-redis/1.0.0/apalis_redis/struct.Config.html>
//!
//! apalis-redis 1.0.0 cannot start on a backlog of 8,000 tasks or more. A push
//! puts every task in the scheduled set, even one that is due at once, and the
//! first fetch moves all due tasks to the queue by a single Lua `unpack`, which
//! fails beyond 7,999 ("too many results to unpack"). The release candidates 9 to
//! 11 push and fetch in the same way. So this driver makes that move itself, in
//! parts and within the time measured; the rest is apalis's own.
//!
//! Also tried, with 50,000 tasks of 64 bytes on 2 cores shared with Redis (rough
//! figures, in tasks a second; the settings above push 63,000 to 108,000 and
//! complete 48,000 to 78,000, with the server's CPU the limit):
//! - pushing: batches of 10: 47,000 to 70,000; of 50 to 1,000, by 1 to 16 clients:
//!   58,000 to 108,000, no different within the noise;
//! - one worker fetching 10: 20,000; 50: 33,000; 100 to 5,000: 35,000 to 48,000;
//! - 4 to 16 workers fetching 200 to 1,000: 48,000 to 78,000, and 36,000 to 46,000
//!   while something else was compiled;
//! - `parallelize(tokio::spawn)`: 28,000 to 32,000, beside 39,000 without;
//! - `concurrency(100)` or `concurrency(1000)`, `poll_with_interval` of 10 ms,
//!   events published, and a runtime of one thread: no gain;
//! - `lock_tasks(true)`, the default, with 20,000 tasks: 3,500, since locking a
//!   task searches the whole queue for it;
//! - apalis-redis 0.7.4, which has no such limit and no bulk push, with 20,000
//!   tasks: pushes 98,000 to 137,000 by 200 concurrent pushes on one connection,
//!   completes 9,500 to 11,000.

use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_redis::{Config, ConnectionManager, RedisStorage};
use clap::Parser;
use redis::{AsyncCommands, Client, Script, aio::MultiplexedConnection};
use tokio::{task::JoinSet, time::sleep};

type Result<T = ()> = std::result::Result<T, BoxDynError>;
type Storage = RedisStorage<String, ConnectionManager>;

const WORKERS: usize = 4;
const FETCH: usize = 500;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:6379")]
    addr: String,
    #[arg(long, default_value_t = 50_000)]
    tasks: usize,
    #[arg(long, default_value_t = 100, value_parser = positive)]
    batch: usize,
    #[arg(long, default_value_t = 4, value_parser = positive)]
    clients: usize,
    #[arg(long, default_value_t = 64)]
    payload_bytes: usize,
    /// Lock tasks, which is apalis's default.
    #[arg(long)]
    lock_tasks: bool,
}

fn positive(text: &str) -> Result<usize> {
    match text.parse()? {
        0 => Err("it must be above 0".into()),
        number => Ok(number),
    }
}

#[tokio::main]
async fn main() -> Result {
    let args = Args::parse();
    let config = Config::default()
        .queue("bench")
        .batch_size(FETCH)
        .lock_tasks(args.lock_tasks)
        .emit_events(false);
    let url = format!("redis://{}", args.addr);
    let mut server = Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
    if redis::cmd("DBSIZE").query_async::<usize>(&mut server).await? > 0 {
        return Err(format!("the server at {} is not empty", args.addr).into());
    }

    let clients = connect(&url, &config, args.clients).await?;
    let phase = Phase::start("enqueue", &mut server).await?;
    enqueue(clients, &args).await?;
    phase.end(args.tasks, &mut server).await?;
    expect(args.tasks, server.zcard(config.scheduled_jobs_set()).await?, "pushed")?;

    let workers = connect(&url, &config, WORKERS).await?;
    let phase = Phase::start("process", &mut server).await?;
    complete_all(workers, args.tasks, &config, &mut server).await?;
    phase.end(args.tasks, &mut server).await?;
    expect(args.tasks, server.scard(config.done_jobs_set()).await?, "done")?;
    expect(0, server.llen(config.active_jobs_list()).await?, "left in the queue")
}

/// As many storages, each with a connection of its own.
async fn connect(url: &str, config: &Config, count: usize) -> Result<Vec<Storage>> {
    let mut storages = Vec::with_capacity(count);
    for _ in 0..count {
        let connection = apalis_redis::connect(url).await?;
        storages.push(RedisStorage::new(connection).with_config(config.clone()));
    }
    Ok(storages)
}

async fn enqueue(clients: Vec<Storage>, args: &Args) -> Result {
    let text = "x".repeat(args.payload_bytes);
    let (batch, count) = (args.batch, clients.len());
    let mut producers = JoinSet::new();
    for (i, mut client) in clients.into_iter().enumerate() {
        let text = text.clone();
        let mut left = args.tasks / count + usize::from(i < args.tasks % count);
        producers.spawn(async move {
            while left > 0 {
                let size = batch.min(left);
                client.push_bulk(vec![text.clone(); size]).await?;
                left -= size;
            }
            Result::Ok(())
        });
    }
    while let Some(producer) = producers.join_next().await {
        producer??;
    }
    Ok(())
}

async fn complete_all(
    storages: Vec<Storage>,
    tasks: usize,
    config: &Config,
    server: &mut MultiplexedConnection,
) -> Result {
    queue_all(config, server).await?;
    let mut workers = JoinSet::new();
    for (i, storage) in storages.into_iter().enumerate() {
        let worker = WorkerBuilder::new(format!("worker-{i}")).backend(storage).build(handle);
        workers.spawn(worker.run());
    }
    // A task enters this set in the script that acknowledges it.
    let done = config.done_jobs_set();
    while server.scard::<_, usize>(&done).await? < tasks {
        if let Some(ended) = workers.try_join_next() {
            return Err(format!("a worker ended early: {ended:?}").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn handle(_: String) {}

/// Moves the tasks from the scheduled set to the queue, 5,000 at a time, which a
/// worker's first fetch would do if it could (see the top of this file).
async fn queue_all(config: &Config, server: &mut MultiplexedConnection) -> Result {
    let script = Script::new(
        "local due = redis.call('ZRANGE', KEYS[1], 0, 4999)
         if #due > 0 then
             redis.call('RPUSH', KEYS[2], unpack(due))
             redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #due - 1)
         end
         return #due",
    );
    let mut call = script.key(config.scheduled_jobs_set());
    call.key(config.active_jobs_list());
    while call.invoke_async::<usize>(server).await? > 0 {}
    Ok(())
}

struct Phase {
    name: &'static str,
    server_seconds: f64,
    start: Instant,
}

impl Phase {
    async fn start(name: &'static str, server: &mut MultiplexedConnection) -> Result<Self> {
        let server_seconds = server_seconds(server).await?;
        Ok(Self { name, server_seconds, start: Instant::now() })
    }

    async fn end(self, tasks: usize, server: &mut MultiplexedConnection) -> Result {
        let seconds = self.start.elapsed().as_secs_f64();
        let server_seconds = server_seconds(server).await? - self.server_seconds;
        println!(
            r#"{{"phase":"{}","tasks":{tasks},"seconds":{seconds:.6},"server_seconds":{server_seconds:.6}}}"#,
            self.name
        );
        Ok(())
    }
}

/// The CPU time the server has used so far.
async fn server_seconds(server: &mut MultiplexedConnection) -> Result<f64> {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(server).await?;
    let field = |name| -> Result<f64> {
        let value = info.lines().find_map(|line| line.strip_prefix(name));
        Ok(value.ok_or_else(|| format!("no {name} in INFO cpu"))?.parse()?)
    };
    Ok(field("used_cpu_user:")? + field("used_cpu_sys:")?)
}

fn expect(wanted: usize, found: usize, what: &str) -> Result {
    if found == wanted { Ok(()) } else { Err(format!("{found} tasks {what}, not {wanted}").into()) }
}
