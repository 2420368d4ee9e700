//! Connections to the server that takes the writes: a link for calls, another for messages.

use std::{future, pin::pin, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{Either, select},
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, Msg, Pipeline, RedisError, Value,
    aio::{MultiplexedConnection, PubSubSink, PubSubStream},
};
use tokio::{sync::watch, time::timeout};

use crate::sentinel::Master;

/// A connection that many calls share.
#[derive(Clone)]
pub(crate) struct Link(MultiplexedConnection);

impl Link {
    /// Connects. Whoever calls sets the time-outs.
    pub(crate) async fn open(client: &Client) -> Result<Link, RedisError> {
        let patient =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&patient).await.map(Link)
    }

    pub(crate) async fn send(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        // Errors may hide inside a value.
        self.0.send_packed_command(command).await.and_then(Value::extract_error)
    }

    /// Sends a command; with `asking` to a node that is about to get the keys, which wants to be told
    /// just before it that it was asked for.
    pub(crate) async fn send_as(
        &mut self,
        command: &Cmd,
        asking: bool,
    ) -> Result<Value, RedisError> {
        if !asking {
            return self.send(command).await;
        }
        let mut both = Pipeline::with_capacity(2);
        both.cmd("ASKING").add_command(command.clone());
        let mut answers = self.0.send_packed_commands(&both, 0, 2).await?;
        answers.pop().unwrap_or(Value::Nil).extract_error()
    }
}

/// For how long the server that was reached is the one to talk to.
pub(crate) enum Tenure {
    /// For as long as the connection lasts.
    Lasting,
    /// Until Sentinels name a successor of this master.
    Master { own: Master, named: watch::Receiver<Option<Master>> },
}

impl Tenure {
    /// Whether another server is the one to talk to by now.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Tenure::Lasting => false,
            Tenure::Master { own, named } => own.has_successor(named.borrow().as_ref()),
        }
    }

    /// Waits until another server is the one to talk to.
    async fn ended(&mut self) {
        match self {
            Tenure::Lasting => future::pending().await,
            Tenure::Master { own, named } => {
                let successor = named.wait_for(|named| own.has_successor(named.as_ref()));
                // If nobody can be named any more, the store is gone, and its tenure with it.
                drop(successor.await);
            }
        }
    }
}

/// A connection that messages of a channel come over.
pub(crate) struct Messages {
    sink: PubSubSink,
    stream: PubSubStream,
    tenure: Tenure,
}

/// How often a silent server is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(10);

impl Messages {
    pub(crate) async fn subscribe(
        client: &Client,
        channel: &str,
        tenure: Tenure,
    ) -> Result<Messages, RedisError> {
        let mut messages = client.get_async_pubsub().await?;
        messages.subscribe(channel).await?;
        let (sink, stream) = messages.split();
        Ok(Messages { sink, stream, tenure })
    }

    /// Waits for the next message. None if none can come any more: the connection is lost, its server
    /// does not answer within `patience`, or is not the one to talk to any more.
    pub(crate) async fn next(&mut self, patience: Duration) -> Option<Msg> {
        loop {
            match timeout(PING_EVERY, self.message()).await {
                Ok(message) => return message,
                Err(_) if self.is_alive(patience).await => {}
                Err(_) => return None,
            }
        }
    }

    async fn message(&mut self) -> Option<Msg> {
        match select(self.stream.next(), pin!(self.tenure.ended())).await {
            Either::Left((message, _)) => message,
            Either::Right(_) => None,
        }
    }

    /// The next message, if it is here already.
    pub(crate) fn ready(&mut self) -> Option<Msg> {
        self.stream.next().now_or_never().flatten()
    }

    async fn is_alive(&mut self, patience: Duration) -> bool {
        matches!(timeout(patience, self.sink.ping::<Value>()).await, Ok(Ok(_)))
    }
}
