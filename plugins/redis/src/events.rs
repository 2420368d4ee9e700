//! What other hosts do in the same database, so that workers who wait here hear of it.
//!
//! Scripts that make tasks claimable or finish one publish it; this store's own messages are passed
//! over. The connection is made by whoever first asks for events, and again after a loss.

use codeq_plugin::{Arrival, Error, Event, List, Queue, Result, TaskKey};
use redis::Msg;
use tokio::time::sleep;

use crate::{backend::Core, link::Messages, server::Attempts};

/// The connection for messages.
#[derive(Default)]
pub(crate) struct Events(tokio::sync::Mutex<Channel>);

#[derive(Default)]
struct Channel {
    messages: Option<Messages>,
    attempts: Attempts,
}

const CHANNEL: &str = "codeq:x:events";
/// How many messages are answered at once.
const MOST_MESSAGES: usize = 1000;

impl Core {
    /// Waits for events of others. `Unavailable` once after each loss: what happened meanwhile is not
    /// known, so whoever waits for something should look for it.
    pub(crate) async fn await_events(&self) -> Result<List<Event>> {
        let mut channel = self.events.0.lock().await;
        let mut events = List::new();
        loop {
            self.connection.check_open()?;
            let first = self.next_message(&mut channel).await?;
            self.read(&first, &mut events);
            let Some(messages) = &mut channel.messages else { continue };
            for _ in 1..MOST_MESSAGES {
                let Some(message) = messages.ready() else { break };
                self.read(&message, &mut events);
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    async fn next_message(&self, channel: &mut Channel) -> Result<Msg> {
        if channel.messages.is_none() {
            sleep(channel.attempts.pause()).await;
            let subscribed = self.connection.subscribe(CHANNEL).await;
            channel.messages = Some(channel.attempts.record(subscribed)?);
        }
        let Some(messages) = &mut channel.messages else { return Err(self.deaf()) };
        if let Some(message) = messages.next(self.connection.command_timeout()).await {
            return Ok(message);
        }
        channel.messages = None;
        // The other connection goes to the same server, and would find out only by losing a call.
        self.connection.suspect();
        Err(self.deaf())
    }

    fn read(&self, message: &Msg, events: &mut List<Event>) {
        match serde_json::from_slice::<Vec<String>>(message.get_payload_bytes()) {
            Ok(parts) => {
                if let Some((instance, parts)) = parts.split_first()
                    && *instance != self.caller.instance
                {
                    read_events(parts, events);
                }
            }
            Err(error) => tracing::warn!(%error, channel = CHANNEL, "a message cannot be read"),
        }
    }

    fn deaf(&self) -> Error {
        let addr = self.connection.addr();
        Error::unavailable(format!("redis at {addr} no longer sends events: look whether it runs"))
    }
}

/// Reads events from the texts of a message; stops at what it does not know.
fn read_events(mut parts: &[String], events: &mut List<Event>) {
    loop {
        parts = match parts {
            [kind, command, tenant, count, awoke, rest @ ..] if kind == "A" => {
                let queue =
                    Queue { command: command.as_str().into(), tenant_id: tenant.as_str().into() };
                let count = count.parse().unwrap_or(1);
                events.push(Event::Arrived(Arrival { queue, count, awoke: awoke == "1" }));
                rest
            }
            [kind, tenant, count, rest @ ..] if kind == "F" => {
                let Ok(count) = count.parse() else { return };
                let Some((ids, rest)) = rest.split_at_checked(count) else { return };
                for id in ids {
                    let tenant_id = tenant.as_str().into();
                    events.push(Event::Finished(TaskKey { id: id.as_str().into(), tenant_id }));
                }
                rest
            }
            _ => return,
        };
    }
}
