//! The queue service: what the host adds to a store.
//!
//! It fills in defaults, validates what callers send, lets claims and readers of results wait until
//! there is something for them ([`waiters`]), lets operators look into the queues and mend them
//! ([`admin`]), keeps the files of results ([`artifacts`]), and keeps the queues moving while nobody
//! calls ([`upkeep`]). Producers hear of the ends of their tasks ([`callbacks`]), subscribers of tasks
//! for them ([`availability`]). It knows nothing of HTTP, and of the store only its capabilities.

mod account;
mod admin;
mod artifacts;
mod availability;
mod callbacks;
mod error;
mod handover;
mod health;
mod subscriptions;
mod tasks;
mod upkeep;
mod waiters;

use std::sync::Arc;

use codeq_plugin::{
    Arrival, Capability, Instant, Location, Millis, Moved, Queue, Returned, Task, Text, queue_name,
};
use tokio::sync::{Mutex, watch};

use crate::{
    artifacts::Artifacts,
    config::{RateLimit, Webhooks},
    metrics::Metrics,
    rate_limit::RateLimiter,
    store::Store,
    webhook::Client,
};
use availability::Availability;
use callbacks::Callbacks;
use health::Health;
use upkeep::Upkeep;
use waiters::Waiters;

pub use admin::{Disposal, Disposed, QueueState, TaskFilter};
pub use artifacts::NewArtifact;
pub use callbacks::INTERNAL_TENANT;
pub use error::ServiceError;
pub use handover::Handover;
pub use subscriptions::NewSubscription;
pub use tasks::{Claimant, NewTask, Outcome, Submission};

/// What the service decides where a caller does not.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a lease is.
    pub default_lease: Millis,
    /// At most how many tasks one repair step touches.
    pub repair_limit: u32,
    /// How webhooks are called.
    pub webhooks: Webhooks,
    /// How often the webhook of a subscription is called.
    pub webhook_limit: Option<RateLimit>,
    /// Under which URL workers reach the host.
    pub public_url: Option<String>,
}

/// The queue service over one store.
pub struct Service {
    store: Store,
    settings: Settings,
    metrics: Metrics,
    artifacts: Artifacts,
    /// Claims that wait for a task, by queue.
    claims: Waiters<QueueName>,
    /// Readers that wait for a result, by task.
    readers: Waiters<Text>,
    upkeep: Upkeep,
    callbacks: Callbacks,
    availability: Availability,
    health: Health,
    /// Held by whoever moves or removes single tasks for an operator.
    operator: Mutex<()>,
    stopping: watch::Sender<bool>,
}

/// A queue for which a claim waits: the tenant, and the command in lower case or any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct QueueName {
    tenant: Text,
    command: Option<Text>,
}

impl QueueName {
    fn of(tenant: &str, command: &str) -> QueueName {
        QueueName { tenant: tenant.into(), command: Some(Text::from(&*queue_name(command))) }
    }

    fn any(tenant: &str) -> QueueName {
        QueueName { tenant: tenant.into(), command: None }
    }
}

impl Service {
    /// A service over `store`, which calls webhooks by `client`. Its upkeep runs until
    /// [`Service::stop`].
    ///
    /// Call it inside a tokio runtime.
    pub fn start(
        store: Store,
        settings: Settings,
        metrics: Metrics,
        artifacts: Artifacts,
        client: Client,
    ) -> Arc<Service> {
        let availability = Availability::new(
            client.clone(),
            RateLimiter::new(settings.webhook_limit),
            settings.public_url.as_deref(),
            store.has(Capability::Subscriptions),
            store.has(Capability::Shared),
        );
        let service = Arc::new(Service {
            store,
            metrics,
            artifacts,
            claims: Waiters::default(),
            readers: Waiters::default(),
            upkeep: Upkeep::default(),
            callbacks: Callbacks::new(client, &settings.webhooks),
            availability,
            health: Health::default(),
            operator: Mutex::default(),
            stopping: watch::Sender::new(false),
            settings,
        });
        upkeep::spawn(&service);
        callbacks::spawn(&service);
        availability::spawn(&service);
        service
    }

    /// The store underneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the store works.
    pub async fn is_healthy(&self) -> bool {
        self.health.of(&self.store).await
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where the files of results are.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// Takes no more: waiting callers are answered with what there is, and the upkeep ends. Calls in
    /// flight go on.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Resolves when the service is told to stop.
    async fn stopped(&self) {
        // An error would mean that the sender is gone, and with it this service.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Whether the service was told to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Tells those who wait that tasks came into a queue.
    fn announce(&self, queue: &Queue, count: u32) {
        if queue.tenant_id == *INTERNAL_TENANT {
            return self.callbacks.arrived(&queue.command);
        }
        let names =
            [QueueName::of(&queue.tenant_id, &queue.command), QueueName::any(&queue.tenant_id)];
        self.claims.wake(&names, count as usize);
    }

    /// Tells those who wait what became of a task.
    fn notice(&self, task: &Task, visible_at: Option<Instant>) {
        match task.last_known_location {
            Location::PendingList => {
                let queue =
                    Queue { tenant_id: task.tenant_id.clone(), command: task.command.clone() };
                self.announce(&queue, 1);
            }
            Location::DelayedZset => {
                if let Some(at) = visible_at {
                    self.upkeep.due_at(at);
                }
            }
            Location::InprogSet => {
                if let Some(until) = task.lease_until.into_option() {
                    self.upkeep.due_at(until);
                }
            }
            Location::None => self.readers.wake_all(&task.id),
            Location::DlqSet => {}
        }
    }

    /// Tells those who wait, and subscribers, of a task that its worker no longer holds.
    fn notice_returned(&self, returned: &Returned) {
        self.notice(&returned.task, Some(Instant::now() + returned.delay));
        if returned.awoke {
            self.availability.awoke(&returned.task.tenant_id, &returned.task.command);
        }
        if returned.task.last_known_location == Location::DlqSet {
            self.buried(&returned.task);
        }
    }

    /// Tells those who wait, subscribers and producers what a repair moved.
    async fn notice_moved(&self, moved: &Moved) {
        for Arrival { queue, count, awoke, .. } in &moved.arrivals {
            self.announce(queue, *count);
            if *awoke {
                self.availability.awoke(&queue.tenant_id, &queue.command);
            }
        }
        let others = |tenant: &Text| *tenant != *INTERNAL_TENANT;
        let expired = moved.expired.iter().filter(|tally| others(&tally.queue.tenant_id));
        expired.for_each(|tally| self.expired(tally));
        let dead = moved.dead.iter().filter(|task| others(&task.tenant_id));
        dead.for_each(|task| self.buried(task));
        self.note_deaths(moved.dead.iter().map(|task| &**task)).await;
    }
}
