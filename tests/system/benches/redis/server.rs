//! A redis-server of the benchmark's own, and what it did.

use std::{
    fmt::{self, Display},
    time::{Duration, Instant},
};

use codeq_host::Store;
use codeq_test_servers::Redis;
use serde_json::json;

use crate::plugin::Plugin;

#[derive(Clone, Copy)]
pub(crate) enum Persistence {
    None,
    /// Everything goes into a log, which is synced once a second.
    EverySecond,
}

pub(crate) struct Server(Redis);

/// What a server had done at some moment.
pub(crate) struct Mark {
    at: Instant,
    server: Duration,
}

/// What a phase took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) tasks: f64,
    pub(crate) time: Duration,
    /// The server's processor time.
    pub(crate) server: Duration,
}

impl Server {
    pub(crate) fn start(persistence: Persistence) -> Server {
        let log: &[&str] = match persistence {
            Persistence::None => &["--appendonly", "no"],
            Persistence::EverySecond => &["--appendonly", "yes", "--appendfsync", "everysec"],
        };
        // A log that is written anew in the middle of a phase would count as the phase's work.
        let all = [log, &["--save", "", "--auto-aof-rewrite-percentage", "0"]].concat();
        Server(Redis::start_with(&all))
    }

    pub(crate) fn addr(&self) -> String {
        self.0.addr()
    }

    pub(crate) async fn open(&self, plugin: &Plugin, db: u32) -> Store {
        plugin.open(&json!({ "addr": self.addr(), "db": db })).await.0
    }

    pub(crate) fn mark(&self) -> Mark {
        let url = format!("redis://{}/", self.addr());
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let info: String = redis::cmd("INFO").arg("cpu").query(&mut connection).unwrap();
        let seconds = |name: &str| -> f64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|text| text.trim().parse().ok()).expect("a figure of the server's")
        };
        let server = seconds("used_cpu_user") + seconds("used_cpu_sys");
        Mark { at: Instant::now(), server: Duration::from_secs_f64(server) }
    }

    /// What `tasks` took since a mark.
    pub(crate) fn since(&self, mark: &Mark, tasks: usize) -> Cost {
        let now = self.mark();
        Cost { tasks: tasks as f64, time: now.at - mark.at, server: now.server - mark.server }
    }
}

impl Cost {
    pub(crate) fn per_second(&self) -> f64 {
        self.tasks / self.time.as_secs_f64()
    }

    /// How many tasks a second keep one core of the server busy.
    pub(crate) fn per_core_second(&self) -> f64 {
        self.tasks / self.server.as_secs_f64()
    }

    /// Microseconds of the server's for a task.
    pub(crate) fn server_micros(&self) -> f64 {
        self.server.as_secs_f64() * 1e6 / self.tasks
    }
}

impl Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Persistence::None => "no persistence",
            Persistence::EverySecond => "a log that is synced every second",
        })
    }
}
