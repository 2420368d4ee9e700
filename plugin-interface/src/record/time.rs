//! Instants and durations, in the unit that the whole interface uses: the millisecond.

use std::{
    fmt,
    ops::{Add, Sub},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use abi_stable::StableAbi;
use jiff::{Timestamp, fmt::temporal::Pieces, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, as milliseconds since 1970-01-01T00:00:00Z.
///
/// In JSON it is an RFC 3339 text in UTC.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub i64);

impl Instant {
    /// 1970-01-01T00:00:00Z. As the moment from which a task is visible it means "at once".
    pub const EPOCH: Instant = Instant(0);

    /// The present moment by this machine's clock.
    pub fn now() -> Instant {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Instant(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Instant) -> Millis {
        Millis(self.0.saturating_sub(earlier.0).max(0))
    }

    /// Reads an RFC 3339 text, with any zone offset; fractions finer than a millisecond are cut off.
    pub fn parse_rfc3339(text: &str) -> Option<Instant> {
        let pieces = Pieces::parse(text).ok()?;
        let moment = pieces.date().to_datetime(pieces.time()?);
        let offset = pieces.to_numeric_offset()?;
        // The last hours of the year 9999 are beyond what can be counted.
        let at = offset.to_timestamp(moment).unwrap_or(Timestamp::MAX);
        Some(Instant(at.as_millisecond()))
    }

    /// The RFC 3339 text in UTC, with milliseconds where there are any.
    pub fn to_rfc3339(self) -> String {
        self.timestamp().to_string()
    }

    /// The RFC 3339 text with the offset that `zone` has at this moment.
    pub fn to_rfc3339_in(self, zone: &TimeZone) -> String {
        let timestamp = self.timestamp();
        timestamp.display_with_offset(zone.to_offset(timestamp)).to_string()
    }

    fn timestamp(self) -> Timestamp {
        let limit = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_millisecond(self.0).unwrap_or(limit)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Instant::parse_rfc3339(&text)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not an RFC 3339 time")))
    }
}

/// A span of time in milliseconds.
#[repr(transparent)]
#[derive(
    StableAbi,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// No time at all.
    pub const ZERO: Millis = Millis(0);
    /// One day.
    pub const DAY: Millis = Millis::from_secs(24 * 60 * 60);

    /// A span of whole seconds; the longest there is, if that many do not fit.
    pub const fn from_secs(seconds: i64) -> Millis {
        Millis(seconds.saturating_mul(1000))
    }

    /// The whole seconds in this span, rounded up, so that a wait of that many is long enough.
    pub const fn as_secs_ceil(self) -> i64 {
        self.0.saturating_add(999).div_euclid(1000)
    }
}

impl From<Millis> for Duration {
    fn from(millis: Millis) -> Duration {
        Duration::from_millis(u64::try_from(millis.0).unwrap_or(0))
    }
}

impl Add<Millis> for Instant {
    type Output = Instant;

    fn add(self, span: Millis) -> Instant {
        Instant(self.0.saturating_add(span.0))
    }
}

impl Sub<Millis> for Instant {
    type Output = Instant;

    fn sub(self, span: Millis) -> Instant {
        Instant(self.0.saturating_sub(span.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_survives_its_text_to_the_millisecond() {
        for millis in [0, 1, 999, 1_700_000_000_123, 4_102_444_800_000] {
            let text = Instant(millis).to_rfc3339();
            assert_eq!(Instant::parse_rfc3339(&text), Some(Instant(millis)), "{text}");
        }
    }

    #[test]
    fn an_offset_is_read_and_written() {
        let noon = Instant::parse_rfc3339("2026-01-02T09:00:00.5-03:00").unwrap();
        assert_eq!(noon.to_rfc3339(), "2026-01-02T12:00:00.5Z");
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(noon.to_rfc3339_in(&zone), "2026-01-02T09:00:00.5-03:00");
    }

    #[test]
    fn the_last_moment_of_the_last_year_is_read_and_what_is_no_moment_is_not() {
        let last = Instant::parse_rfc3339("9999-12-31T23:59:59Z").unwrap();
        assert!(last > Instant::parse_rfc3339("9999-12-30T00:00:00Z").unwrap());
        for text in ["", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "now"] {
            assert_eq!(Instant::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn arithmetic_at_the_ends_of_time_stays_there() {
        assert_eq!(Instant(i64::MAX) + Millis::DAY, Instant(i64::MAX));
        assert_eq!(Instant(5).since(Instant(9)), Millis::ZERO);
        assert_eq!(Millis(1001).as_secs_ceil(), 2);
    }
}
