//! The webhooks of workers.

use std::collections::BTreeSet;

use codeq_plugin::{
    AllowNotify, Boxed, ByCommand, ByWorker, Error, GroupKey, Instant, Renew, Result, Subscription,
    Text, Unregister, queue_name,
};
use hashbrown::HashMap;

/// All subscriptions, by what they are looked up by.
#[derive(Default)]
pub(crate) struct Subscriptions {
    by_id: HashMap<Text, Kept>,
    /// Tenant, command in lower case, id.
    by_command: BTreeSet<(Text, Text, Text)>,
    /// Tenant, worker, id.
    by_worker: BTreeSet<(Text, Text, Text)>,
    by_end: BTreeSet<(Instant, Text)>,
    turns: HashMap<(Text, Text, Text), u64>,
}

struct Kept {
    subscription: Boxed<Subscription>,
    notified_at: Option<Instant>,
}

/// The command that stands for all of them.
const ANY_COMMAND: &str = "*";

impl Subscriptions {
    pub(crate) fn register(&mut self, subscription: Boxed<Subscription>) -> Result<()> {
        let earlier = self.by_id.get(subscription.id.as_str());
        if earlier.is_some_and(|kept| kept.subscription.tenant_id != subscription.tenant_id) {
            return Err(Error::already_exists(format!(
                "there is a subscription {} already",
                subscription.id
            )));
        }
        // Registering again is no way around the interval between notices.
        let notified_at = earlier.and_then(|kept| kept.notified_at);
        self.remove(&subscription.id);
        let id = || subscription.id.clone();
        for command in &subscription.event_types {
            let command = Text::from(&*queue_name(command));
            self.by_command.insert((subscription.tenant_id.clone(), command, id()));
        }
        self.by_worker.insert((
            subscription.tenant_id.clone(),
            subscription.worker_id.clone(),
            id(),
        ));
        self.by_end.insert((subscription.expires_at, id()));
        self.by_id.insert(id(), Kept { subscription, notified_at });
        Ok(())
    }

    pub(crate) fn renew(&mut self, renew: &Renew, now: Instant) -> Result<Boxed<Subscription>> {
        let missing = || Error::not_found(format!("there is no subscription {}", renew.id));
        let kept = self.by_id.get_mut(renew.id.as_str()).ok_or_else(missing)?;
        let subscription = &mut kept.subscription;
        if subscription.tenant_id != renew.tenant_id || subscription.expires_at <= now {
            return Err(missing());
        }
        if subscription.worker_id != renew.worker_id {
            return Err(Error::not_owner(format!(
                "subscription {} is not one of worker {}",
                renew.id, renew.worker_id
            )));
        }
        self.by_end.remove(&(subscription.expires_at, renew.id.clone()));
        subscription.expires_at = renew.expires_at;
        self.by_end.insert((renew.expires_at, renew.id.clone()));
        Ok(subscription.clone())
    }

    pub(crate) fn unregister(&mut self, unregister: &Unregister, now: Instant) -> u32 {
        let named: Vec<Text> = if unregister.id.is_empty() {
            let about = |subscription: &Subscription| {
                unregister.commands.is_empty()
                    || subscription.event_types.iter().any(|event| {
                        unregister
                            .commands
                            .iter()
                            .any(|asked| queue_name(asked) == queue_name(event))
                    })
            };
            self.ids(&self.by_worker, &unregister.tenant_id, &unregister.worker_id)
                .filter(|id| {
                    self.by_id.get(id.as_str()).is_some_and(|kept| about(&kept.subscription))
                })
                .cloned()
                .collect()
        } else {
            let of_tenant = |kept: &&Kept| kept.subscription.tenant_id == unregister.tenant_id;
            let found = self.by_id.get(unregister.id.as_str()).filter(of_tenant);
            found.map(|kept| kept.subscription.id.clone()).into_iter().collect()
        };
        let removed = named.iter().filter_map(|id| self.remove(id));
        removed.map(|subscription| u32::from(subscription.expires_at > now)).sum()
    }

    pub(crate) fn by_command(&self, by: &ByCommand, now: Instant) -> Vec<Boxed<Subscription>> {
        let name = queue_name(&by.command);
        let mut ids: BTreeSet<&Text> = self.ids(&self.by_command, &by.tenant_id, &name).collect();
        ids.extend(self.ids(&self.by_command, &by.tenant_id, ANY_COMMAND));
        self.active(ids, now)
    }

    pub(crate) fn by_worker(&self, by: &ByWorker, now: Instant) -> Vec<Boxed<Subscription>> {
        self.active(self.ids(&self.by_worker, &by.tenant_id, &by.worker_id), now)
    }

    pub(crate) fn allow_notify(&mut self, ask: &AllowNotify, now: Instant) -> bool {
        let Some(kept) = self.by_id.get_mut(ask.subscription_id.as_str()) else {
            return false;
        };
        let ready = kept.notified_at.is_none_or(|last| now >= last + ask.min_interval);
        let allowed = ready && kept.subscription.expires_at > now;
        if allowed {
            kept.notified_at = Some(now);
        }
        allowed
    }

    pub(crate) fn next_group_index(&mut self, group: GroupKey) -> u64 {
        let command = Text::from(&*queue_name(&group.command));
        let turn = self.turns.entry((group.tenant_id, command, group.group_id)).or_default();
        let index = *turn;
        *turn = turn.wrapping_add(1);
        index
    }

    pub(crate) fn remove_expired(&mut self, limit: u32, now: Instant) -> u32 {
        let mut removed = 0;
        while removed < limit
            && let Some((_, id)) = self.by_end.first().filter(|(end, _)| *end <= now)
        {
            let id = id.clone();
            self.remove(&id);
            removed += 1;
        }
        removed
    }

    fn ids<'a>(
        &self,
        index: &'a BTreeSet<(Text, Text, Text)>,
        tenant: &str,
        key: &str,
    ) -> impl Iterator<Item = &'a Text> + use<'a> {
        let (tenant, key) = (Text::from(tenant), Text::from(key));
        index
            .range((tenant.clone(), key.clone(), Text::new())..)
            .take_while(move |(of_tenant, of_key, _)| *of_tenant == tenant && *of_key == key)
            .map(|(_, _, id)| id)
    }

    fn active<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a Text>,
        now: Instant,
    ) -> Vec<Boxed<Subscription>> {
        ids.into_iter()
            .filter_map(|id| self.by_id.get(id.as_str()))
            .filter(|kept| kept.subscription.expires_at > now)
            .map(|kept| kept.subscription.clone())
            .collect()
    }

    fn remove(&mut self, id: &Text) -> Option<Boxed<Subscription>> {
        let Kept { subscription, .. } = self.by_id.remove(id.as_str())?;
        for command in &subscription.event_types {
            let command = Text::from(&*queue_name(command));
            self.by_command.remove(&(subscription.tenant_id.clone(), command, id.clone()));
        }
        self.by_worker.remove(&(
            subscription.tenant_id.clone(),
            subscription.worker_id.clone(),
            id.clone(),
        ));
        self.by_end.remove(&(subscription.expires_at, id.clone()));
        Some(subscription)
    }
}
