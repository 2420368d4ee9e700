//! How often callers may call.
//!
//! A token that was accepted has a bucket for each thing that it is limited in; tokens that were not
//! accepted have none, so that strangers cannot fill the memory. A batch counts as one call.

use super::error::{ApiError, Exceeded};
use crate::{config::RateLimits, metrics::Metrics, rate_limit::RateLimiter};

/// The limits of the routes.
pub(super) struct Limits {
    producer: RateLimiter,
    worker: RateLimiter,
    admin: RateLimiter,
    metrics: Metrics,
}

/// What is limited.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limited {
    /// Creating tasks.
    Producer,
    /// Claiming tasks.
    Worker,
    /// Whatever an operator does.
    Admin,
}

impl Limits {
    pub(super) fn new(limits: &RateLimits, metrics: Metrics) -> Limits {
        Limits {
            producer: RateLimiter::new(limits.producer),
            worker: RateLimiter::new(limits.worker),
            admin: RateLimiter::new(limits.admin),
            metrics,
        }
    }

    /// Counts a call of `path`, and refuses it if `spender` calls too often.
    pub(super) fn admit(
        &self,
        limited: Limited,
        path: &str,
        spender: &str,
    ) -> Result<(), ApiError> {
        let (limiter, scope, operation) = match limited {
            Limited::Producer => (&self.producer, "producer", "create_task"),
            Limited::Worker => (&self.worker, "worker", "claim"),
            Limited::Admin if path.ends_with("/cleanup") => (&self.admin, "admin", "cleanup"),
            Limited::Admin => (&self.admin, "admin", "admin"),
        };
        limiter.check(spender).map_err(|wait| {
            self.metrics.rate_limited(scope, operation);
            ApiError::too_many_requests(Exceeded { scope, operation }, wait.seconds())
        })
    }
}
