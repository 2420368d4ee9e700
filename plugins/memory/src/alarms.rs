//! Who has to be looked at, and when.

use std::{collections::BTreeSet, hash::Hash};

use codeq_plugin::Instant;
use hashbrown::HashMap;

/// One alarm for each of many clocks' owners.
///
/// An alarm may ring early, never late: it is set when something gets due sooner than all before
/// it, and left alone when that something goes away. Whoever answers a ring looks at what is really
/// due and sets the alarm again. So the usual life of a lease, which ends long before its deadline,
/// costs one look-up.
pub(crate) struct Alarms<K> {
    set: HashMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord + Hash> Alarms<K> {
    /// Makes the alarm of `owner` ring at `at`, unless it rings before that anyway. Answers whether
    /// it was moved.
    pub(crate) fn set(&mut self, owner: K, at: Instant) -> bool {
        let before = self.set.get(&owner).copied();
        if before.is_some_and(|before| before <= at) {
            return false;
        }
        if let Some(before) = before {
            self.order.remove(&(before, owner));
        }
        self.set.insert(owner, at);
        self.order.insert((at, owner));
        true
    }

    /// Takes out the earliest alarm that rings at `now` or before.
    pub(crate) fn ring(&mut self, now: Instant) -> Option<K> {
        let &(at, owner) = self.order.first().filter(|(at, _)| *at <= now)?;
        self.order.remove(&(at, owner));
        self.set.remove(&owner);
        Some(owner)
    }

    /// When the next alarm rings.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }
}

impl<K> Default for Alarms<K> {
    fn default() -> Self {
        Alarms { set: HashMap::default(), order: BTreeSet::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_alarm_rings_first_and_each_once() {
        let mut alarms = Alarms::default();
        assert!(alarms.set('a', Instant(30)));
        assert!(alarms.set('b', Instant(20)));
        assert!(!alarms.set('a', Instant(40)), "a later alarm does not replace an earlier one");
        assert!(alarms.set('a', Instant(10)));
        assert_eq!(alarms.next(), Some(Instant(10)));
        assert_eq!(alarms.ring(Instant(9)), None);
        assert_eq!(alarms.ring(Instant(25)), Some('a'));
        assert_eq!(alarms.ring(Instant(25)), Some('b'));
        assert_eq!(alarms.ring(Instant(99)), None);
    }
}
