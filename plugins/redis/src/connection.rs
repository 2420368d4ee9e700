//! One connection for all calls, and what happens when it is lost.
//!
//! Calls share a multiplexed connection. A call that finds none connects, and so does a call after a
//! loss; callers that come meanwhile wait for that one attempt. After a failed attempt there is a
//! short pause in which every caller is told at once, and the first one behind it tries again. No
//! call takes longer than its time-out, whatever the server does.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use codeq_plugin::{Error, Result};
use redis::{
    AsyncConnectionConfig, Client, Cmd, RedisError, Value,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::time::{Instant, timeout};

use crate::{config::Config, fault};

/// The way to the server.
pub(crate) struct Connection {
    client: Client,
    addr: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    live: Mutex<Live>,
    attempts: tokio::sync::Mutex<Attempts>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Live {
    connection: Option<MultiplexedConnection>,
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
        let addr = config.server().to_owned();
        let client = config.client()?;
        let connection = Connection {
            client,
            addr,
            connect_timeout: config.connect_timeout(),
            command_timeout: config.command_timeout(),
            live: Mutex::default(),
            attempts: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        };
        let first = timeout(connection.connect_timeout, connection.connect()).await;
        let first = first.map_err(|_| connection.silent())?;
        connection.install(first.map_err(|error| fault::of_opening(&error, &connection.addr))?);
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
            let (mut connection, generation) = self.connected().await?;
            sent_on.store(generation, Ordering::Relaxed);
            let mut answer = connection.send_packed_command(command).await.and_then(into_answer);
            if let (Err(error), Some(prepare)) = (&answer, prepare)
                && fault::is_unknown_script(error)
            {
                answer = match connection.send_packed_command(prepare).await.and_then(into_answer) {
                    Ok(_) => connection.send_packed_command(command).await.and_then(into_answer),
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
        Err(Error::timeout(format!(
            "redis at {} did not answer {what} within {} ms: look whether it hangs, or raise \
             persistenceConfig.commandTimeoutMs",
            self.addr,
            self.command_timeout.as_millis()
        )))
    }

    /// A connection of its own for messages.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub> {
        self.check_open()?;
        let subscribing = async {
            let mut messages = self.client.get_async_pubsub().await?;
            messages.subscribe(channel).await?;
            Ok(messages)
        };
        let what = "subscribing";
        match timeout(self.connect_timeout, subscribing).await {
            Ok(messages) => {
                messages.map_err(|error: RedisError| fault::of_operation(&error, &self.addr, what))
            }
            Err(_) => Err(self.silent()),
        }
    }

    /// Forgets the connection, because another one to the same server was lost.
    pub(crate) fn suspect(&self) {
        self.live().connection = None;
    }

    /// Lets go of the server. Every later call is `Closed`.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.suspect();
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(Error::closed()) } else { Ok(()) }
    }

    async fn connected(&self) -> Result<(MultiplexedConnection, u64)> {
        self.check_open()?;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        attempts.check_pause()?;
        let attempt = match timeout(self.connect_timeout, self.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(fault::of_operation(&error, &self.addr, "connecting")),
            Err(_) => Err(self.silent()),
        };
        let connection = attempts.record(attempt)?;
        self.check_open()?;
        tracing::info!(addr = %self.addr, "connected again");
        Ok(self.install(connection))
    }

    /// Connects and asks for a sign of life, which a server that hangs does not give.
    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let patient =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&patient).await?;
        connection.send_packed_command(&redis::cmd("PING")).await.and_then(into_answer)?;
        Ok(connection)
    }

    fn install(&self, connection: MultiplexedConnection) -> (MultiplexedConnection, u64) {
        let mut live = self.live();
        live.generation += 1;
        live.connection = Some(connection.clone());
        (connection, live.generation)
    }

    fn current(&self) -> Option<(MultiplexedConnection, u64)> {
        let live = self.live();
        live.connection.clone().map(|connection| (connection, live.generation))
    }

    fn drop_connection(&self, generation: u64) {
        let mut live = self.live();
        if live.generation == generation && live.connection.take().is_some() {
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

/// Errors may hide inside a value.
fn into_answer(value: Value) -> Result<Value, RedisError> {
    value.extract_error()
}
