//! A call of a script: what is sent.

use codeq_plugin::{Context, Error, Instant, Millis, Result};
use jiff::{Timestamp, tz::TimeZone};
use redis::Cmd;

use crate::{keys::Scope, scripts::Script};

/// What every script is told about this host and its rules.
pub(crate) struct Caller {
    /// Tells this store's own events from those of others.
    pub(crate) instance: String,
    pub(crate) zone: TimeZone,
    context: Context,
}

impl Caller {
    pub(crate) fn new(context: Context) -> Result<Caller> {
        let name = context.timezone.as_str();
        let zone = if name.is_empty() { Ok(TimeZone::UTC) } else { TimeZone::get(name) };
        let zone = zone.map_err(|error| {
            Error::invalid_config(format!(
                "timezone is `{name}`: write the IANA name of a zone, such as `Europe/Berlin`"
            ))
            .because(&error)
        })?;
        Ok(Caller { instance: format!("{:016x}", fastrand::u64(..)), zone, context })
    }

    pub(crate) fn rules(&self) -> &codeq_plugin::rules::Rules {
        &self.context.rules
    }

    /// At most how many tasks are repaired in one go.
    pub(crate) fn repair_limit(&self) -> u32 {
        self.context.repair_limit.max(1)
    }

    /// Begins a call of `script`.
    pub(crate) fn call(&self, script: &'static Script, scope: &Scope) -> Call {
        let mut command = redis::cmd("EVALSHA");
        let keys = scope.keys();
        command.arg(script.form(scope.layout()).hash()).arg(keys.len()).arg(keys);
        let rules = self.rules();
        let call = Call { script, command }
            .text(&self.instance)
            .number(self.zone.to_offset(Timestamp::now()).seconds())
            .number(rules.max_attempts)
            .text(rules.backoff.policy.as_str())
            .millis(rules.backoff.base)
            .millis(rules.backoff.max)
            .millis(rules.retention)
            .millis(rules.idempotency_window)
            .number(fastrand::i32(0..))
            .number(self.repair_limit());
        scope.about().iter().fold(call, |call, about| call.text(about))
    }
}

/// A script and its arguments.
pub(crate) struct Call {
    pub(crate) script: &'static Script,
    pub(crate) command: Cmd,
}

/// No instant or span of a script is longer: Lua counts in doubles, and years have four digits.
const LONGEST_MILLIS: i64 = 253_402_128_000_000;

impl Call {
    pub(crate) fn text(mut self, text: &str) -> Call {
        self.command.arg(text);
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Call {
        self.command.arg(bytes);
        self
    }

    pub(crate) fn number(mut self, number: impl Into<i64>) -> Call {
        self.command.arg(number.into());
        self
    }

    pub(crate) fn count(self, count: usize) -> Call {
        self.number(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(crate) fn instant(self, instant: Instant) -> Call {
        self.number(instant.0.clamp(0, LONGEST_MILLIS))
    }

    pub(crate) fn millis(self, span: Millis) -> Call {
        self.number(span.0.clamp(0, LONGEST_MILLIS))
    }
}
