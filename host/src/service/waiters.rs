//! Callers that wait for something to happen under a key.
//!
//! A waiter joins its lines *before* its caller looks for what it wants, so nothing that happens
//! after the look is missed. Each thing that happens wakes as many waiters as can have a use for it,
//! the longest waiting first. Whoever is woken leaves all its lines until it looks, so what happens
//! meanwhile wakes others. A wake is spent by a look that began after it; one that was not spent when
//! its waiter goes away is passed on to the next in line.
//!
//! Things may also happen of which nobody tells. For these the first in each line is nudged now and
//! then: it looks, and if it finds something, the next in line does, until one finds nothing.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// All waiters, by the keys they wait for.
pub(crate) struct Waiters<K>(Mutex<Waiting<K>>);

struct Waiting<K> {
    by_key: HashMap<K, BTreeMap<u64, Arc<Place<K>>>>,
    /// The wakes of those who have not looked since.
    wakes: HashMap<u64, Wake<K>>,
    next: u64,
}

/// A waiter's place in its lines.
struct Place<K> {
    keys: Vec<K>,
    woken: Notify,
}

/// Why a waiter was woken, for the next in line should it not look.
#[derive(Clone)]
struct Wake<K> {
    keys: Vec<K>,
    is_nudge: bool,
}

impl<K> Default for Waiters<K> {
    fn default() -> Self {
        let (by_key, wakes) = (HashMap::new(), HashMap::new());
        Waiters(Mutex::new(Waiting { by_key, wakes, next: 0 }))
    }
}

/// A place in the line of every key that a caller waits for. Dropping it leaves the lines.
pub(crate) struct Waiter<'a, K: Clone + Eq + Hash> {
    waiters: &'a Waiters<K>,
    number: u64,
    place: Arc<Place<K>>,
    /// The wakes for the look that is under way.
    unspent: Vec<Wake<K>>,
}

impl<K: Clone + Eq + Hash> Waiters<K> {
    /// Joins the lines of `keys`.
    pub(crate) fn join(&self, keys: Vec<K>) -> Waiter<'_, K> {
        let place = Arc::new(Place { keys, woken: Notify::new() });
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.join(number, &place);
        drop(waiting);
        Waiter { waiters: self, number, place, unspent: Vec::new() }
    }

    /// Wakes the `count` that have waited longest in the lines of any of `keys`.
    pub(crate) fn wake(&self, keys: &[K], count: usize) {
        let mut waiting = self.lock();
        for _ in 0..count {
            if !waiting.wake(keys, false) {
                return;
            }
        }
    }

    /// Nudges the first in each line.
    pub(crate) fn nudge(&self) {
        let mut waiting = self.lock();
        let keys: Vec<K> = waiting.by_key.keys().cloned().collect();
        for key in keys {
            waiting.wake(&[key], true);
        }
    }

    /// Wakes everybody in the line of `key`.
    pub(crate) fn wake_all(&self, key: &K) {
        let mut waiting = self.lock();
        let line = waiting.by_key.remove(key).unwrap_or_default();
        for (number, place) in line {
            waiting.leave(number, &place.keys);
            place.woken.notify_one();
        }
    }

    fn pass_on(&self, wakes: impl IntoIterator<Item = Wake<K>>) {
        let mut waiting = self.lock();
        for wake in wakes {
            waiting.wake(&wake.keys, wake.is_nudge);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Waiting<K> {
    fn join(&mut self, number: u64, place: &Arc<Place<K>>) {
        for key in &place.keys {
            self.by_key.entry(key.clone()).or_default().insert(number, Arc::clone(place));
        }
    }

    fn leave(&mut self, number: u64, keys: &[K]) {
        for key in keys {
            let Some(line) = self.by_key.get_mut(key) else { continue };
            line.remove(&number);
            if line.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// Wakes who has waited longest in the lines of any of `keys`. Answers whether there is one.
    fn wake(&mut self, keys: &[K], is_nudge: bool) -> bool {
        let first = keys.iter().filter_map(|key| self.by_key.get(key)?.first_key_value());
        let Some((&number, place)) = first.min_by_key(|(number, _)| **number) else { return false };
        let place = Arc::clone(place);
        self.leave(number, &place.keys);
        self.wakes.insert(number, Wake { keys: keys.to_vec(), is_nudge });
        place.woken.notify_one();
        true
    }
}

impl<K: Clone + Eq + Hash> Waiter<'_, K> {
    /// Waits to be woken.
    pub(crate) async fn woken(&self) {
        self.place.woken.notified().await;
    }

    /// Goes back to its lines, at the place that it had. Call it before each look.
    pub(crate) fn begin_look(&mut self) {
        let mut waiting = self.waiters.lock();
        self.unspent.extend(waiting.wakes.remove(&self.number));
        waiting.join(self.number, &self.place);
    }

    /// The look told what there is, and the wakes before it are spent. Where a nudge led to something
    /// there may be more.
    pub(crate) fn end_look(&mut self, has_found: bool) {
        let mut spent = std::mem::take(&mut self.unspent);
        spent.retain(|wake| wake.is_nudge && has_found);
        if !spent.is_empty() {
            // The finder is not the next in line.
            self.waiters.lock().leave(self.number, &self.place.keys);
            self.waiters.pass_on(spent);
        }
    }
}

impl<K: Clone + Eq + Hash> Drop for Waiter<'_, K> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        waiting.leave(self.number, &self.place.keys);
        let last = waiting.wakes.remove(&self.number);
        drop(waiting);
        self.waiters.pass_on(std::mem::take(&mut self.unspent).into_iter().chain(last));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_woken(waiter: &Waiter<'_, char>) -> bool {
        tokio::time::timeout(Duration::from_millis(1), waiter.woken()).await.is_ok()
    }

    #[tokio::test]
    async fn the_longest_waiting_is_woken_first_and_only_as_many_as_can_be_served() {
        let waiters = Waiters::default();
        let first = waiters.join(vec!['a', 'b']);
        let second = waiters.join(vec!['b']);
        waiters.wake(&['b'], 1);
        assert!(is_woken(&first).await);
        assert!(!is_woken(&second).await);
        waiters.wake(&['b'], 5);
        assert!(is_woken(&second).await);
    }

    #[tokio::test]
    async fn a_wake_before_the_wait_is_not_lost() {
        let waiters = Waiters::default();
        let waiter = waiters.join(vec!['a']);
        waiters.wake(&['a'], 1);
        assert!(is_woken(&waiter).await);
    }

    #[tokio::test]
    async fn a_wake_that_led_to_no_look_is_passed_on() {
        let waiters = Waiters::default();
        let first = waiters.join(vec!['a']);
        let mut second = waiters.join(vec!['a']);
        let third = waiters.join(vec!['a']);
        waiters.wake(&['a'], 1);
        drop(first);
        assert!(is_woken(&second).await);
        second.begin_look();
        second.end_look(true);
        drop(second);
        assert!(!is_woken(&third).await, "the look has spent the wake");
    }

    #[tokio::test]
    async fn a_wake_during_a_look_is_not_spent_by_it() {
        let waiters = Waiters::default();
        let mut first = waiters.join(vec!['a']);
        let second = waiters.join(vec!['a']);
        first.begin_look();
        waiters.wake(&['a'], 1);
        first.end_look(false);
        drop(first);
        assert!(is_woken(&second).await);
    }

    #[tokio::test]
    async fn a_look_that_failed_spends_nothing() {
        let waiters = Waiters::default();
        let mut first = waiters.join(vec!['a']);
        let second = waiters.join(vec!['a']);
        waiters.wake(&['a'], 1);
        first.begin_look();
        drop(first);
        assert!(is_woken(&second).await);
    }

    #[tokio::test]
    async fn a_waiter_keeps_its_place_in_line() {
        let waiters = Waiters::default();
        let mut first = waiters.join(vec!['a']);
        let second = waiters.join(vec!['a']);
        waiters.wake(&['a'], 1);
        assert!(is_woken(&first).await);
        first.begin_look();
        first.end_look(false);
        waiters.wake(&['a'], 1);
        assert!(is_woken(&first).await);
        assert!(!is_woken(&second).await);
    }

    #[tokio::test]
    async fn a_waiter_in_two_lines_takes_one_wake_and_leaves_the_other_to_the_next() {
        let waiters = Waiters::default();
        let mut first = waiters.join(vec!['a', 'b']);
        let second = waiters.join(vec!['a', 'b']);
        waiters.wake(&['a'], 1);
        waiters.wake(&['b'], 1);
        assert!(is_woken(&second).await);
        first.begin_look();
        first.end_look(true);
        waiters.wake(&['b'], 1);
        assert!(is_woken(&first).await, "it is back in both lines");
    }

    #[tokio::test]
    async fn what_is_passed_on_reaches_all_lines_that_it_was_for() {
        let waiters = Waiters::default();
        let first = waiters.join(vec!['*']);
        let second = waiters.join(vec!['a']);
        waiters.wake(&['a', '*'], 1);
        drop(first);
        assert!(is_woken(&second).await);
    }

    #[tokio::test]
    async fn a_nudge_goes_on_for_as_long_as_something_is_found() {
        let waiters = Waiters::default();
        let mut first = waiters.join(vec!['a']);
        let mut second = waiters.join(vec!['a']);
        let third = waiters.join(vec!['a']);
        waiters.nudge();
        assert!(is_woken(&first).await);
        assert!(!is_woken(&second).await);
        first.begin_look();
        first.end_look(true);
        assert!(is_woken(&second).await);
        second.begin_look();
        second.end_look(false);
        drop(first);
        drop(second);
        assert!(!is_woken(&third).await);
    }

    #[tokio::test]
    async fn nothing_is_left_of_waiters_that_are_gone() {
        let waiters = Waiters::default();
        let waiter = waiters.join(vec!['a', 'b']);
        waiters.wake(&['a'], 1);
        drop(waiter);
        let waiting = waiters.lock();
        assert!(waiting.by_key.is_empty() && waiting.wakes.is_empty());
    }
}
