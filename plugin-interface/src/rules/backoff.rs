//! How long a failed task waits before it is tried again.

use std::{fmt, str::FromStr};

use abi_stable::StableAbi;

use crate::record::Millis;

/// How the wait grows with the number of deliveries.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BackoffPolicy {
    /// Always the base.
    Fixed,
    /// The base times the attempts.
    Linear,
    /// The base times two to the power of the attempts.
    Exponential,
    /// Half of the exponential wait, and a random part of the other half.
    ExpEqualJitter,
    /// A random part of the exponential wait.
    #[default]
    ExpFullJitter,
}

impl BackoffPolicy {
    /// Every policy, in the order of the documentation.
    pub const ALL: [BackoffPolicy; 5] = [
        BackoffPolicy::Fixed,
        BackoffPolicy::Linear,
        BackoffPolicy::Exponential,
        BackoffPolicy::ExpEqualJitter,
        BackoffPolicy::ExpFullJitter,
    ];

    /// The name that configuration files use.
    pub const fn as_str(self) -> &'static str {
        match self {
            BackoffPolicy::Fixed => "fixed",
            BackoffPolicy::Linear => "linear",
            BackoffPolicy::Exponential => "exponential",
            BackoffPolicy::ExpEqualJitter => "exp_equal_jitter",
            BackoffPolicy::ExpFullJitter => "exp_full_jitter",
        }
    }
}

impl fmt::Display for BackoffPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BackoffPolicy {
    type Err = ();

    fn from_str(name: &str) -> Result<BackoffPolicy, ()> {
        BackoffPolicy::ALL.into_iter().find(|policy| policy.as_str() == name).ok_or(())
    }
}

/// A backoff policy with its bounds.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How the wait grows.
    pub policy: BackoffPolicy,
    /// The unit of growth.
    pub base: Millis,
    /// No wait is longer.
    pub max: Millis,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            policy: BackoffPolicy::default(),
            base: Millis::from_secs(5),
            max: Millis::from_secs(900),
        }
    }
}

impl Backoff {
    /// How long a task waits that was delivered `attempts` times.
    pub fn delay(&self, attempts: u32, jitter: Jitter) -> Millis {
        match self.policy {
            BackoffPolicy::Fixed => self.clamp(self.base),
            BackoffPolicy::Linear => {
                self.clamp(Millis(self.base.0.saturating_mul(i64::from(attempts.max(1)))))
            }
            BackoffPolicy::Exponential => self.exponential(attempts),
            BackoffPolicy::ExpEqualJitter => {
                let whole = self.exponential(attempts).0;
                let half = whole / 2;
                Millis(half + jitter.of(whole - half))
            }
            BackoffPolicy::ExpFullJitter => Millis(jitter.of(self.exponential(attempts).0)),
        }
    }

    /// Brings a wait that somebody asked for into the bounds.
    pub fn clamp(&self, wait: Millis) -> Millis {
        Millis(wait.0.min(self.max.0).max(0))
    }

    fn exponential(&self, attempts: u32) -> Millis {
        let factor = 1_i64.checked_shl(attempts).filter(|factor| *factor > 0).unwrap_or(i64::MAX);
        self.clamp(Millis(self.base.0.saturating_mul(factor)))
    }
}

/// A random number from 0 to 1, both included. A rule is pure; its caller rolls the dice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// A fresh random number.
    pub fn random() -> Jitter {
        Jitter(fastrand::f64())
    }

    /// A number of one's own choice, for tests; what is not from 0 to 1 is brought there.
    pub fn exactly(part: f64) -> Jitter {
        Jitter(if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) })
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a wait of days is far below 2^52 ms"
    )]
    fn of(self, whole: i64) -> i64 {
        (whole as f64 * self.0).round() as i64
    }
}
