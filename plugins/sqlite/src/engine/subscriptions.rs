//! The webhooks of workers.

use codeq_plugin::{
    AllowNotify, Boxed, Error, GroupKey, Instant, Renew, Subscription, Text, Unregister, queue_name,
};
use rusqlite::params;

use super::Engine;
use crate::{
    fault::{Failure, Outcome},
    rows::{self, read_subscription},
};

impl Engine<'_> {
    pub(crate) fn register(&mut self, subscription: &Subscription) -> Outcome<()> {
        let mut notified_at = None;
        if let Some((earlier, notified)) = self.subscription(&subscription.id)? {
            if earlier.tenant_id != subscription.tenant_id {
                let message = format!("there is a subscription {} already", subscription.id);
                return Err(Error::already_exists(message).into());
            }
            // Registering again is no way around the interval between notices.
            notified_at = notified;
            self.forget_subscription(&earlier)?;
        }
        let Subscription { id, tenant_id: tenant, worker_id: worker, .. } = subscription;
        self.sql.keep_subscription.execute(params![
            id.as_str(),
            tenant.as_str(),
            worker.as_str(),
            subscription.callback_url.as_str(),
            rows::json(&subscription.event_types),
            rows::delivery_mode(subscription.delivery_mode),
            subscription.group_id.as_str(),
            subscription.min_interval_seconds,
            subscription.expires_at.0,
            subscription.created_at.0,
            notified_at.map(|at: Instant| at.0),
            rows::extensions(&subscription.extensions),
        ])?;
        for command in &subscription.event_types {
            let name = queue_name(command);
            self.sql.subscribe.execute([tenant.as_str(), &name, id.as_str()])?;
        }
        Ok(())
    }

    pub(crate) fn renew(&mut self, renew: &Renew) -> Outcome<Boxed<Subscription>> {
        let missing = || Error::not_found(format!("there is no subscription {}", renew.id));
        let (mut subscription, _) = self.subscription(&renew.id)?.ok_or_else(missing)?;
        if subscription.tenant_id != renew.tenant_id || subscription.expires_at <= self.now {
            return Err(missing().into());
        }
        if subscription.worker_id != renew.worker_id {
            let message =
                format!("subscription {} is not one of worker {}", renew.id, renew.worker_id);
            return Err(Error::not_owner(message).into());
        }
        self.sql.renew_subscription.execute(params![renew.id.as_str(), renew.expires_at.0])?;
        subscription.expires_at = renew.expires_at;
        Ok(subscription)
    }

    pub(crate) fn unregister(&mut self, unregister: &Unregister) -> Outcome<u32> {
        let Unregister { id, tenant_id: tenant, worker_id: worker, commands, .. } = unregister;
        let about = |subscription: &Subscription| {
            commands.is_empty()
                || subscription.event_types.iter().any(|event| {
                    commands.iter().any(|asked| queue_name(asked) == queue_name(event))
                })
        };
        let candidates = if id.is_empty() {
            let mut rows = self.sql.subscriptions_of.query([tenant.as_str(), worker.as_str()])?;
            let mut ids = Vec::new();
            while let Some(row) = rows.next()? {
                ids.push(row.get::<_, String>(0)?);
            }
            ids
        } else {
            vec![id.to_string()]
        };
        let mut ended = 0;
        for candidate in candidates {
            let subscription = match self.subscription(&candidate) {
                Ok(Some((subscription, _))) => subscription,
                Ok(None) => continue,
                // One of many that cannot be read does not keep the others.
                Err(Failure::Refused(error)) if id.is_empty() => {
                    tracing::error!("{error}; it stays");
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if subscription.tenant_id == *tenant && (!id.is_empty() || about(&subscription)) {
                self.forget_subscription(&subscription)?;
                ended += u32::from(subscription.expires_at > self.now);
            }
        }
        Ok(ended)
    }

    pub(crate) fn allow_notify(&mut self, ask: &AllowNotify) -> Outcome<bool> {
        let Some((subscription, notified_at)) = self.subscription(&ask.subscription_id)? else {
            return Ok(false);
        };
        let ready = notified_at.is_none_or(|last| self.now >= last + ask.min_interval);
        let allowed = ready && subscription.expires_at > self.now;
        if allowed {
            self.sql.notified.execute(params![ask.subscription_id.as_str(), self.now.0])?;
        }
        Ok(allowed)
    }

    pub(crate) fn next_group_index(&mut self, group: &GroupKey) -> Outcome<u64> {
        let command = queue_name(&group.command);
        let key = [group.tenant_id.as_str(), &command, group.group_id.as_str()];
        let index: i64 = self.sql.next_turn.query_row(key, |row| row.get(0))?;
        Ok(index.cast_unsigned())
    }

    pub(crate) fn remove_expired(&mut self, limit: u32) -> Outcome<u32> {
        let mut ended = Vec::new();
        let mut rows = self.sql.ended_subscriptions.query(params![self.now.0, limit])?;
        while let Some(row) = rows.next()? {
            ended.push(row.get::<_, String>(0)?);
        }
        drop(rows);
        for id in &ended {
            match self.subscription(id) {
                Ok(Some((subscription, _))) => self.forget_subscription(&subscription)?,
                // One that cannot be read ends all the same.
                Ok(None) | Err(Failure::Refused(_)) => {
                    self.sql.drop_subscription.execute([id])?;
                }
                Err(broken) => return Err(broken),
            }
        }
        Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX))
    }

    fn subscription(
        &mut self,
        id: &str,
    ) -> Outcome<Option<(Boxed<Subscription>, Option<Instant>)>> {
        let mut rows = self.sql.subscription.query([id])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let notified_at: Option<i64> = row.get(11)?;
        Ok(Some((read_subscription(row)?, notified_at.map(Instant))))
    }

    fn forget_subscription(&mut self, subscription: &Subscription) -> Outcome<()> {
        let Subscription { id, tenant_id: tenant, event_types, .. } = subscription;
        for command in event_types {
            let name = queue_name(command);
            self.sql.unsubscribe.execute([tenant.as_str(), &name, id.as_str()])?;
        }
        self.sql.drop_subscription.execute([Text::as_str(id)])?;
        Ok(())
    }
}
