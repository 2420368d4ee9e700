//! How many calls are under way at once.
//!
//! Each receiver has few places, so that one that is slow does not take all there are. A receiver
//! that let a call time out is left a single one until it answers in time again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places for calls, shared by all receivers.
#[derive(Clone)]
pub(crate) struct Places(Arc<Inner>);

struct Inner {
    all: Arc<Semaphore>,
    per_receiver: u32,
    receivers: Mutex<HashMap<String, Arc<Receiver>>>,
}

struct Receiver {
    places: Arc<Semaphore>,
    is_slow: AtomicBool,
}

/// A place for one call. Dropping it leaves it to another.
pub(crate) struct Place {
    receiver: Seat,
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

/// A receiver that somebody has a use for.
struct Seat {
    places: Arc<Inner>,
    authority: String,
    receiver: Arc<Receiver>,
}

impl Places {
    /// So many places, of which each receiver gets a part at most.
    pub(crate) fn new(all: usize, per_receiver: u32) -> Places {
        Places(Arc::new(Inner {
            all: Arc::new(Semaphore::new(all)),
            per_receiver,
            receivers: Mutex::default(),
        }))
    }

    /// Waits for a place. Who came first gets it first.
    pub(crate) async fn take(&self, authority: &str) -> Option<Place> {
        let receiver = self.seat(authority);
        let own = Arc::clone(&receiver.receiver.places)
            .acquire_many_owned(self.0.weight(&receiver.receiver))
            .await
            .ok()?;
        let shared = Arc::clone(&self.0.all).acquire_owned().await.ok()?;
        Some(Place { receiver, _own: own, _shared: shared })
    }

    /// A place, if there is one now.
    pub(crate) fn try_take(&self, authority: &str) -> Option<Place> {
        let receiver = self.seat(authority);
        let own = Arc::clone(&receiver.receiver.places)
            .try_acquire_many_owned(self.0.weight(&receiver.receiver))
            .ok()?;
        let shared = Arc::clone(&self.0.all).try_acquire_owned().ok()?;
        Some(Place { receiver, _own: own, _shared: shared })
    }

    fn seat(&self, authority: &str) -> Seat {
        let mut receivers = self.0.lock();
        let receiver = receivers.entry(authority.to_owned()).or_insert_with(|| {
            Arc::new(Receiver {
                places: Arc::new(Semaphore::new(self.0.per_receiver as usize)),
                is_slow: AtomicBool::new(false),
            })
        });
        Seat {
            places: Arc::clone(&self.0),
            authority: authority.to_owned(),
            receiver: Arc::clone(receiver),
        }
    }
}

impl Inner {
    /// A slow receiver's call takes all of its places.
    fn weight(&self, receiver: &Receiver) -> u32 {
        if receiver.is_slow.load(Ordering::Relaxed) { self.per_receiver } else { 1 }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Receiver>>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The receiver answered in time, or did not.
    pub(crate) fn in_time(&self, in_time: bool) {
        self.receiver.receiver.is_slow.store(!in_time, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut receivers = self.places.lock();
        // The map's and this one: nobody else has a use for it.
        if Arc::strong_count(&self.receiver) <= 2 {
            receivers.remove(&self.authority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_gets_its_part_and_leaves_the_rest_to_others() {
        let places = Places::new(5, 2);
        let slow = [places.try_take("slow"), places.try_take("slow")];
        assert!(slow.iter().all(Option::is_some));
        assert!(places.try_take("slow").is_none());
        assert!(places.try_take("other").is_some());
    }

    #[test]
    fn there_are_no_more_places_than_there_are() {
        let places = Places::new(2, 2);
        let taken = [places.try_take("one"), places.try_take("two")];
        assert!(taken.iter().all(Option::is_some));
        assert!(places.try_take("three").is_none());
        drop(taken);
        assert!(places.try_take("three").is_some());
    }

    #[test]
    fn a_receiver_that_let_a_call_time_out_gets_one_at_a_time() {
        let places = Places::new(10, 4);
        let first = places.try_take("slow").unwrap();
        let _waiting = places.seat("slow");
        first.in_time(false);
        drop(first);
        let second = places.try_take("slow").unwrap();
        assert!(places.try_take("slow").is_none());
        second.in_time(true);
        drop(second);
        let both = (places.try_take("slow"), places.try_take("slow"));
        assert!(both.0.is_some() && both.1.is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_place_gets_the_one_that_is_left() {
        let places = Places::new(1, 1);
        let first = places.take("one").await;
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take("two").await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap());
    }

    #[test]
    fn nothing_is_left_of_receivers_that_nobody_calls() {
        let places = Places::new(2, 2);
        drop((places.try_take("one"), places.try_take("two"), places.try_take("three")));
        assert!(places.0.lock().is_empty());
    }
}
