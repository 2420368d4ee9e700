//! One connection for all calls, and what happens when it is lost.
//!
//! Calls share a multiplexed connection. A call that finds none connects, and so does a call after a
//! loss, or when another server is the one to talk to; callers that come meanwhile wait for that one
//! attempt. After a failed attempt there is a short pause in which every caller is told at once, and
//! the first one behind it tries again. No call takes longer than its time-out, whatever the server
//! does.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use codeq_plugin::{Error, Result};
use redis::{Cmd, Value};
use tokio::time::{Instant, timeout};

use crate::{
    config::Config,
    fault,
    link::{Link, Messages, Tenure},
    route::Route,
};

/// The way to the server.
pub(crate) struct Connection {
    route: Route,
    /// What the server is called in messages.
    addr: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    live: Mutex<Live>,
    attempts: tokio::sync::Mutex<Attempts>,
    closed: AtomicBool,
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

impl Connection {
    /// Connects for the first time.
    pub(crate) async fn open(config: &Config) -> Result<Connection> {
        let connection = Connection {
            route: Route::new(config)?,
            addr: config.server(),
            connect_timeout: config.connect_timeout(),
            command_timeout: config.command_timeout(),
            live: Mutex::default(),
            attempts: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        };
        let first = timeout(connection.connect_timeout, connection.route.connect()).await;
        let first = first.map_err(|_| connection.silent())?;
        connection.install(first.map_err(|unreached| unreached.at_opening(&connection.addr))?);
        Ok(connection)
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// Sends a command and waits for its answer. `prepare` is sent once, before a second try, if the
    /// server does not know the script that the command names.
    pub(crate) async fn send(
        &self,
        what: &str,
        command: &Cmd,
        prepare: Option<&Cmd>,
    ) -> Result<Value> {
        // The generation of the connection that the command went out on; 0 before that.
        let sent_on = AtomicU64::new(0);
        let call = async {
            let (mut link, generation) = self.connected().await?;
            sent_on.store(generation, Ordering::Relaxed);
            let mut answer = link.send(command).await;
            if let (Err(error), Some(prepare)) = (&answer, prepare)
                && fault::is_unknown_script(error)
            {
                answer = match link.send(prepare).await {
                    Ok(_) => link.send(command).await,
                    Err(error) => Err(error),
                };
            }
            answer.map_err(|error| {
                if fault::is_loss(&error) || fault::is_other_role(&error) {
                    self.drop_connection(generation);
                }
                fault::of_operation(&error, &self.addr, what)
            })
        };
        if let Ok(answer) = timeout(self.command_timeout, call).await {
            return answer;
        }
        let generation = sent_on.load(Ordering::Relaxed);
        if generation == 0 {
            return Err(self.silent());
        }
        self.drop_connection(generation);
        Err(self.too_late(what))
    }

    /// The error of an operation whose time is over.
    pub(crate) fn too_late(&self, what: &str) -> Error {
        Error::timeout(format!(
            "redis at {} did not answer {what} within {} ms: look whether it hangs, or raise \
             persistenceConfig.commandTimeoutMs",
            self.addr,
            self.command_timeout.as_millis()
        ))
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
