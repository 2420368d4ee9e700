//! One server: the connection to it, and what happens when that is lost.
//!
//! Calls share a multiplexed connection. A call that finds none connects, and so does a call after a
//! loss, or when another server is the one to talk to; callers that come meanwhile wait for that one
//! attempt. After a failed attempt there is a short pause in which every caller is told at once, and
//! the first one behind it tries again. No call takes longer than it may, whatever the server does.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use codeq_plugin::{Error, Result};
use redis::{Cmd, RedisError, Value};
use tokio::time::{Instant, timeout};

use crate::{
    fault,
    link::{Link, Messages, Tenure},
    route::Route,
    scripts::Form,
};

/// A server, wherever its route leads.
pub(crate) struct Server {
    route: Route,
    /// What the server is called in messages.
    addr: String,
    connect_timeout: Duration,
    live: Mutex<Live>,
    attempts: tokio::sync::Mutex<Attempts>,
    closed: AtomicBool,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) command: &'a Cmd,
    /// The script that the command names: if the server does not know it, it is taught once.
    pub(crate) script: Option<&'a Form>,
    /// Whether the server was named as the one that is about to get the keys.
    pub(crate) asking: bool,
}

/// Why there is no answer, or not the right one.
pub(crate) enum Failure {
    /// There is no connection; nothing was sent.
    Unreached(Error),
    /// The server answered with an error, or was lost before it answered.
    Failed(RedisError),
    /// There was no answer in time.
    Silence,
}

#[derive(Default)]
struct Live {
    link: Option<(Link, Tenure)>,
    /// Counts connections, so that a late failure of an old one does not end its successor.
    generation: u64,
}

/// How often connecting failed in a row, and what came of it.
#[derive(Default)]
pub(crate) struct Attempts {
    failures: u32,
    last: Option<(Instant, Error)>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Server {
    /// A server that nobody connected to yet.
    pub(crate) fn new(route: Route, addr: String, connect_timeout: Duration) -> Server {
        Server {
            route,
            addr,
            connect_timeout,
            live: Mutex::default(),
            attempts: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Connects for the first time.
    pub(crate) async fn open(&self) -> Result<()> {
        let first = timeout(self.connect_timeout, self.route.connect()).await;
        let first = first.map_err(|_| self.silent())?;
        self.install(first.map_err(|unreached| unreached.at_opening(&self.addr))?);
        Ok(())
    }

    /// Sends a request and waits for its answer, connecting included, for as long as `limit`.
    pub(crate) async fn exchange(
        &self,
        request: Request<'_>,
        limit: Duration,
    ) -> Result<Value, Failure> {
        // The generation of the connection that the command went out on; 0 before that.
        let sent_on = AtomicU64::new(0);
        let call = async {
            let (mut link, generation) = self.connected().await.map_err(Failure::Unreached)?;
            sent_on.store(generation, Ordering::Relaxed);
            request.send(&mut link).await.map_err(|error| {
                if fault::is_loss(&error) || fault::is_other_role(&error) {
                    self.drop_connection(generation);
                }
                Failure::Failed(error)
            })
        };
        if let Ok(answer) = timeout(limit, call).await {
            return answer;
        }
        let generation = sent_on.load(Ordering::Relaxed);
        if generation == 0 {
            return Err(Failure::Unreached(self.silent()));
        }
        self.drop_connection(generation);
        Err(Failure::Silence)
    }

    /// A connection of its own for messages.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<Messages> {
        self.check_open()?;
        match timeout(self.connect_timeout, self.route.subscribe(channel)).await {
            Ok(messages) => {
                messages.map_err(|unreached| unreached.later(&self.addr, "subscribing"))
            }
            Err(_) => Err(self.silent()),
        }
    }

    /// Forgets the connection, because another one to the same server was lost.
    pub(crate) fn suspect(&self) {
        self.live().link = None;
    }

    /// Lets go of the server. Every later call is `Closed`.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.suspect();
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(Error::closed()) } else { Ok(()) }
    }

    async fn connected(&self) -> Result<(Link, u64)> {
        self.check_open()?;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        attempts.check_pause()?;
        let attempt = match timeout(self.connect_timeout, self.route.connect()).await {
            Ok(reached) => reached.map_err(|unreached| unreached.later(&self.addr, "connecting")),
            Err(_) => Err(self.silent()),
        };
        let reached = attempts.record(attempt)?;
        self.check_open()?;
        tracing::info!(addr = %self.addr, "connected again");
        Ok(self.install(reached))
    }

    fn install(&self, reached: (Link, Tenure)) -> (Link, u64) {
        let mut live = self.live();
        live.generation += 1;
        let (link, _) = live.link.insert(reached);
        (link.clone(), live.generation)
    }

    fn current(&self) -> Option<(Link, u64)> {
        let mut live = self.live();
        if live.link.take_if(|(_, tenure)| tenure.is_over()).is_some() {
            tracing::warn!(addr = %self.addr, "another server is the master now");
        }
        live.link.as_ref().map(|(link, _)| (link.clone(), live.generation))
    }

    fn drop_connection(&self, generation: u64) {
        let mut live = self.live();
        if live.generation == generation && live.link.take().is_some() {
            tracing::warn!(addr = %self.addr, "the connection to redis is lost");
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent(&self) -> Error {
        Error::unavailable(format!(
            "redis at {} does not answer: look whether it runs and can be reached, or raise \
             persistenceConfig.connectTimeoutMs",
            self.addr
        ))
    }
}

impl Request<'_> {
    async fn send(&self, link: &mut Link) -> Result<Value, RedisError> {
        let answer = link.send_as(self.command, self.asking).await;
        let Err(error) = &answer else { return answer };
        let Some(script) = self.script.filter(|_| fault::is_unknown_script(error)) else {
            return answer;
        };
        link.send(redis::cmd("SCRIPT").arg("LOAD").arg(script.text())).await?;
        link.send_as(self.command, self.asking).await
    }
}

impl Attempts {
    /// How long to wait before the next attempt.
    pub(crate) fn pause(&self) -> Duration {
        let Some((failed_at, _)) = &self.last else { return Duration::ZERO };
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10).saturating_sub(1));
        doubled.min(LONGEST_PAUSE).saturating_sub(failed_at.elapsed())
    }

    pub(crate) fn record<T>(&mut self, attempt: Result<T>) -> Result<T> {
        match &attempt {
            Ok(_) => *self = Attempts::default(),
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.last = Some((Instant::now(), error.clone()));
            }
        }
        attempt
    }

    fn check_pause(&self) -> Result<()> {
        match &self.last {
            Some((_, error)) if !self.pause().is_zero() => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
