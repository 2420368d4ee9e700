//! Callers that wait for something to happen under a key.
//!
//! A waiter joins its lines *before* its caller looks for what it wants, so nothing that happens
//! after the look is missed. Each thing that happens wakes as many waiters as can have a use for it,
//! the longest waiting first. A wake is spent by a look that began after it; one that was not spent
//! when its waiter goes away is passed on to the next in line.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// All waiters, by the keys they wait for.
pub(crate) struct Waiters<K>(Mutex<Waiting<K>>);

struct Waiting<K> {
    by_key: HashMap<K, BTreeMap<u64, Arc<Notify>>>,
    next: u64,
}

impl<K> Default for Waiters<K> {
    fn default() -> Self {
        Waiters(Mutex::new(Waiting { by_key: HashMap::new(), next: 0 }))
    }
}

/// A place in the line of every key that a caller waits for. Dropping it leaves the lines.
pub(crate) struct Waiter<'a, K: Clone + Eq + Hash> {
    waiters: &'a Waiters<K>,
    keys: Vec<K>,
    number: u64,
    woken: Arc<Notify>,
    /// The lines in which it was woken for the look that is under way.
    unspent: Vec<K>,
}

impl<K: Clone + Eq + Hash> Waiters<K> {
    /// Joins the lines of `keys`.
    pub(crate) fn join(&self, keys: Vec<K>) -> Waiter<'_, K> {
        let woken = Arc::new(Notify::new());
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        for key in &keys {
            waiting.by_key.entry(key.clone()).or_default().insert(number, Arc::clone(&woken));
        }
        drop(waiting);
        Waiter { waiters: self, keys, number, woken, unspent: Vec::new() }
    }

    /// Wakes the `count` that have waited longest in the lines of any of `keys`.
    pub(crate) fn wake(&self, keys: &[K], count: usize) {
        let mut waiting = self.lock();
        for _ in 0..count {
            let first = keys
                .iter()
                .filter_map(|key| Some((*waiting.by_key.get(key)?.keys().next()?, key)))
                .min_by_key(|(number, _)| *number);
            let Some((number, key)) = first else { return };
            // It is out of this line until it looks, so the next wake here is another's.
            if let Some(woken) = waiting.leave(key, number) {
                woken.notify_one();
            }
        }
    }

    /// Wakes everybody in the line of `key`.
    pub(crate) fn wake_all(&self, key: &K) {
        let line = self.lock().by_key.remove(key);
        line.iter().flat_map(BTreeMap::values).for_each(|woken| woken.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Waiting<K> {
    fn leave(&mut self, key: &K, number: u64) -> Option<Arc<Notify>> {
        let line = self.by_key.get_mut(key)?;
        let woken = line.remove(&number);
        if line.is_empty() {
            self.by_key.remove(key);
        }
        woken
    }
}

impl<K: Clone + Eq + Hash> Waiter<'_, K> {
    /// Waits to be woken.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Goes back to the lines in which it was woken, at the place it had. Call it before each look.
    pub(crate) fn begin_look(&mut self) {
        let mut waiting = self.waiters.lock();
        for key in &self.keys {
            let line = waiting.by_key.entry(key.clone()).or_default();
            if line.insert(self.number, Arc::clone(&self.woken)).is_none() {
                self.unspent.push(key.clone());
            }
        }
    }

    /// The look told what there is; the wakes before it are spent.
    pub(crate) fn end_look(&mut self) {
        self.unspent.clear();
    }
}

impl<K: Clone + Eq + Hash> Drop for Waiter<'_, K> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        for key in &self.keys {
            if waiting.leave(key, self.number).is_none() {
                self.unspent.push(key.clone());
            }
        }
        drop(waiting);
        for key in &self.unspent {
            self.waiters.wake(std::slice::from_ref(key), 1);
        }
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
        second.end_look();
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
        first.end_look();
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
        first.end_look();
        waiters.wake(&['a'], 1);
        assert!(is_woken(&first).await);
        assert!(!is_woken(&second).await);
    }

    #[tokio::test]
    async fn nothing_is_left_of_waiters_that_are_gone() {
        let waiters = Waiters::default();
        drop(waiters.join(vec!['a', 'b']));
        assert!(waiters.lock().by_key.is_empty());
    }
}
