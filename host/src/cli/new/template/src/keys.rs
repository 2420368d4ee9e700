//! The idempotency keys: which task a key was first used for, and until when that is remembered.

use std::collections::{HashMap, VecDeque};

use codeq_plugin::{Instant, Text};

use crate::index::Name;

/// The keys of all tenants.
#[derive(Default)]
pub(crate) struct Keys {
    first_uses: HashMap<Key, FirstUse>,
    /// The keys in the order in which they are forgotten.
    forgetting: VecDeque<(Instant, Key)>,
}

/// A tenant and his key: keys of different tenants never meet.
type Key = (Text, Text);

struct FirstUse {
    task: Name,
    until: Instant,
}

impl Keys {
    /// The id of the task that was enqueued with this key first.
    pub(crate) fn find(&self, tenant: &Text, key: &Text, now: Instant) -> Option<&str> {
        if key.is_empty() {
            return None;
        }
        let first = self.first_uses.get(&(tenant.clone(), key.clone()))?;
        (now < first.until).then_some(&*first.task)
    }

    /// Remembers the task of a key, and forgets what was remembered for long enough.
    pub(crate) fn remember(
        &mut self,
        (tenant, key): Key,
        task: &str,
        until: Instant,
        now: Instant,
    ) {
        self.forget(now);
        if !key.is_empty() {
            let task = task.into();
            self.forgetting
                .push_back((until, (tenant.clone(), key.clone())));
            self.first_uses
                .insert((tenant, key), FirstUse { task, until });
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((until, key)) = self.forgetting.pop_front_if(|(until, _)| *until <= now) {
            // The key of a task that was deleted may have been used again since.
            if self
                .first_uses
                .get(&key)
                .is_some_and(|first| first.until == until)
            {
                self.first_uses.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_forgotten_at_the_end_of_its_window() {
        let mut keys = Keys::default();
        let key = || (Text::from("acme"), Text::from("k"));
        keys.remember(key(), "first", Instant(10), Instant(0));
        assert_eq!(keys.find(&key().0, &key().1, Instant(9)), Some("first"));
        assert_eq!(keys.find(&key().0, &key().1, Instant(10)), None);
        keys.remember(key(), "second", Instant(20), Instant(10));
        assert_eq!(keys.forgetting.len(), 1);
        assert_eq!(keys.find(&key().0, &key().1, Instant(19)), Some("second"));
    }
}
