//! Subscriptions: workers who want to be told when a queue has tasks for them.

use codeq_plugin::{
    Batch, Boxed, ByWorker, Capability, DeliveryMode, Extensions, Instant, Millis, Renew,
    Subscription, Text, Unregister,
};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Service, ServiceError, tasks::check_command, upkeep::Failures};

/// Who subscribes, and to what.
#[derive(Clone, Debug, Default)]
pub struct NewSubscription {
    /// The worker.
    pub worker_id: String,
    /// The worker's tenant.
    pub tenant_id: String,
    /// Where notices are posted to.
    pub callback_url: String,
    /// About which commands; none means any.
    pub commands: Vec<String>,
    /// Who among several subscribers is told.
    pub mode: DeliveryMode,
    /// The group, which the mode `group` needs.
    pub group: String,
    /// How long it lasts unless it is renewed; five minutes if nothing is said.
    pub ttl: Option<Millis>,
    /// The least time between two notices; the host's default if nothing is said.
    pub min_interval: Option<Millis>,
}

const DEFAULT_TTL: Millis = Millis::from_secs(5 * 60);
/// Whoever wants more gets this much.
const LONGEST_TTL: Millis = Millis::DAY;
const LONGEST_INTERVAL: Millis = Millis::DAY;
const LONGEST_GROUP: usize = 128;
const MOST_COMMANDS: usize = 100;
const MOST_OF_A_WORKER: usize = 1000;
/// The event type that stands for all commands.
const ANY_COMMAND: &str = "*";
/// How many expired subscriptions are removed at a time.
const EXPIRY_STEP: u32 = 1000;

impl Service {
    /// Keeps a subscription until it expires.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or why the store did not take it.
    pub async fn subscribe(
        &self,
        new: NewSubscription,
    ) -> Result<Boxed<Subscription>, ServiceError> {
        self.require(Capability::Subscriptions)?;
        let subscription = self.subscription_of(new)?;
        let by = ByWorker {
            tenant_id: subscription.tenant_id.clone(),
            worker_id: subscription.worker_id.clone(),
        };
        if self.store.get_by_worker(by).await?.len() >= MOST_OF_A_WORKER {
            return Err(ServiceError::Invalid(format!(
                "a worker has at most {MOST_OF_A_WORKER} subscriptions: renew those, or end some"
            )));
        }
        let subscription = Boxed::new(subscription);
        self.one(self.store.register(Batch::One(subscription.clone())).await?)?;
        self.availability.subscribed();
        self.count_subscribed(&subscription);
        Ok(subscription)
    }

    /// Moves the end of a worker's own subscription.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotOwner`, or why the store did not answer.
    pub async fn renew_subscription(
        &self,
        tenant: &str,
        worker: &str,
        id: &str,
        ttl: Option<Millis>,
    ) -> Result<Boxed<Subscription>, ServiceError> {
        self.require(Capability::Subscriptions)?;
        let expires_at = Instant::now() + ttl.unwrap_or(DEFAULT_TTL).min(LONGEST_TTL);
        self.renew_until(tenant, worker, id, expires_at).await
    }

    /// Ends a worker's own subscription.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotOwner`, or why the store did not answer.
    pub async fn unsubscribe(
        &self,
        tenant: &str,
        worker: &str,
        id: &str,
    ) -> Result<(), ServiceError> {
        self.require(Capability::Subscriptions)?;
        // Only a renewal asks whose it is.
        self.renew_until(tenant, worker, id, Instant::now()).await?;
        let unregister =
            Unregister { id: id.into(), tenant_id: tenant.into(), ..Unregister::default() };
        self.one(self.store.unregister(Batch::One(unregister)).await?)?;
        Ok(())
    }

    async fn renew_until(
        &self,
        tenant: &str,
        worker: &str,
        id: &str,
        expires_at: Instant,
    ) -> Result<Boxed<Subscription>, ServiceError> {
        let renew = Renew {
            id: id.into(),
            worker_id: worker.into(),
            tenant_id: tenant.into(),
            expires_at,
            extensions: Extensions::new(),
        };
        let subscription = self.one(self.store.renew(Batch::One(renew)).await?)?;
        self.count_subscribed(&subscription);
        Ok(subscription)
    }

    fn count_subscribed(&self, subscription: &Subscription) {
        for command in &subscription.event_types {
            self.metrics.subscribed(&subscription.tenant_id, command);
        }
    }

    fn min_interval(&self) -> Millis {
        let interval = self.settings.webhooks.subscription_min_interval;
        Millis(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX))
    }

    fn subscription_of(&self, new: NewSubscription) -> Result<Subscription, ServiceError> {
        let invalid = |message: String| Err(ServiceError::Invalid(message));
        let callback_url = new.callback_url.trim();
        if let Err(problem) = self.callbacks.target(callback_url) {
            return invalid(format!("invalid callback url: {problem}"));
        }
        if new.commands.len() > MOST_COMMANDS {
            return invalid(format!("a subscription is about at most {MOST_COMMANDS} eventTypes"));
        }
        new.commands.iter().try_for_each(|command| check_command(command))?;
        let group = new.group.trim();
        if group.len() > LONGEST_GROUP || group.contains(char::is_control) {
            return invalid(format!(
                "invalid groupId: at most {LONGEST_GROUP} bytes, and no control characters"
            ));
        }
        if new.mode == DeliveryMode::Group && group.is_empty() {
            return invalid("groupId is required".into());
        }
        let min_interval = new.min_interval.unwrap_or(self.min_interval());
        let mut event_types = new.commands;
        if event_types.is_empty() {
            event_types.push(ANY_COMMAND.into());
        }
        let now = Instant::now();
        Ok(Subscription {
            id: Uuid::new_v4().to_string().into(),
            worker_id: new.worker_id.into(),
            tenant_id: new.tenant_id.into(),
            callback_url: callback_url.into(),
            event_types: event_types.into_iter().map(Text::from).collect(),
            delivery_mode: new.mode,
            group_id: group.into(),
            min_interval_seconds: u32::try_from(
                min_interval.min(LONGEST_INTERVAL).as_secs_ceil().max(0),
            )
            .unwrap_or(0),
            expires_at: now + new.ttl.unwrap_or(DEFAULT_TTL).min(LONGEST_TTL),
            created_at: now,
            extensions: Extensions::new(),
        })
    }

    /// Removes subscriptions that have expired, for as long as the service runs.
    pub(super) async fn expire_subscriptions(&self) {
        let mut failures = Failures::new("removing expired subscriptions");
        loop {
            match self.store.remove_expired(EXPIRY_STEP).await {
                Ok(removed) => {
                    failures.over();
                    // A full step may have left some; small steps let others in between.
                    if removed < EXPIRY_STEP {
                        sleep(self.settings.webhooks.subscription_cleanup_interval).await;
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => sleep(failures.next(&error)).await,
            }
        }
    }
}
