//! How often somebody may do something.
//!
//! Each key has a bucket of its own, as in codeQ: it holds [`RateLimit::burst`] and is filled evenly
//! with [`RateLimit::requests_per_minute`]. Keys are kept as digests, since most are tokens, and only
//! until their buckets are full again. Hosts do not share their buckets.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use governor::{
    Quota,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use sha2::{Digest as _, Sha256};

use crate::config::RateLimit;

/// A limit for each of many keys.
pub(crate) struct RateLimiter {
    buckets: Option<Buckets>,
    /// With how many keys full buckets are looked for.
    sweep_at: AtomicUsize,
}

type Buckets = governor::RateLimiter<Digest, HashMapStateStore<Digest>, DefaultClock>;
type Digest = [u8; 32];

/// So many keys are kept without looking whether their buckets are full.
const FEW_KEYS: usize = 1024;

/// How long to wait for the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) Duration);

impl Wait {
    /// Whole seconds after which it is certainly over, at least one.
    pub(crate) fn seconds(self) -> u64 {
        let rest = u64::from(self.0.subsec_nanos() > 0);
        (self.0.as_secs() + rest).max(1)
    }
}

impl RateLimiter {
    /// A limiter that lets everything through if there is no limit.
    pub(crate) fn new(limit: Option<RateLimit>) -> RateLimiter {
        let quota = |limit: RateLimit| {
            let per_minute = NonZeroU32::new(limit.requests_per_minute)?;
            Some(Quota::per_minute(per_minute).allow_burst(NonZeroU32::new(limit.burst)?))
        };
        let buckets = limit.and_then(quota).map(|quota| {
            Buckets::new(quota, HashMapStateStore::default(), DefaultClock::default())
        });
        RateLimiter { buckets, sweep_at: AtomicUsize::new(FEW_KEYS) }
    }

    /// Takes one from the bucket of `key`.
    ///
    /// # Errors
    ///
    /// If it is empty: how long until there is one.
    pub(crate) fn check(&self, key: &str) -> Result<(), Wait> {
        let Some(buckets) = &self.buckets else {
            return Ok(());
        };
        let checked = buckets.check_key(&Sha256::digest(key).into());
        if buckets.len() >= self.sweep_at.load(Ordering::Relaxed) {
            buckets.retain_recent();
            buckets.shrink_to_fit();
            // Twice as many as were needed: each key pays for looking at a few.
            self.sweep_at.store((2 * buckets.len()).max(FEW_KEYS), Ordering::Relaxed);
        }
        checked.map_err(|until| Wait(until.wait_time_from(DefaultClock::default().now())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(requests_per_minute: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(Some(RateLimit { requests_per_minute, burst }))
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let limiter = RateLimiter::new(None);
        assert!((0..10_000).all(|_| limiter.check("same").is_ok()));
    }

    #[test]
    fn a_key_has_its_burst_and_then_waits_for_its_turn() {
        let limiter = limiter(2, 3);
        assert!((0..3).all(|_| limiter.check("ann").is_ok()));
        let wait = limiter.check("ann").unwrap_err();
        assert!((1..=30).contains(&wait.seconds()), "{wait:?}");
        assert!(limiter.check("bob").is_ok(), "others are not held up");
    }

    #[test]
    fn a_bucket_fills_as_time_passes() {
        let limiter = limiter(60_000, 1);
        limiter.check("ann").unwrap();
        let Wait(wait) = limiter.check("ann").unwrap_err();
        assert!(wait <= Duration::from_millis(1), "{wait:?}");
        std::thread::sleep(wait);
        limiter.check("ann").unwrap();
    }

    #[test]
    fn keys_with_full_buckets_are_forgotten() {
        let limiter = limiter(u32::MAX, 1);
        for n in 0..10 * FEW_KEYS {
            limiter.check(&n.to_string()).unwrap();
        }
        assert!(limiter.buckets.unwrap().len() <= 2 * FEW_KEYS);
    }

    #[test]
    fn a_wait_is_rounded_up_to_a_second_at_least() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(Wait(Duration::from_millis(millis)).seconds(), seconds, "{millis}");
        }
    }
}
