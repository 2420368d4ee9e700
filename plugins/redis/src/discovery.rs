//! Queues that codeQ's own servers filled.
//!
//! A claim that names its command finds everything in that command's keys. A claim of any command,
//! and the repair of all queues, know only what is in this plugin's index. So the queues that are in it
//! are looked at every second, a part of them each time if there are many; and now and then the keys are
//! scanned for others. A scan goes on for as many repairs as it takes, a few steps each. Records that
//! could not be read are looked at again at the same time, in case they were mended; and every second
//! some of all records are looked at for tasks that codeQ's older servers left in nobody's hands.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use codeq_plugin::{Error, Result};
use redis::FromRedisValue;

use crate::{backend::Backend, scripts};

/// How far the present scan has come.
#[derive(Default)]
pub(crate) struct Discovery(tokio::sync::Mutex<Scan>);

#[derive(Default)]
struct Scan {
    /// Where the scan of the keys goes on, in the server's own words; nothing at its beginning.
    cursor: Option<String>,
    next_at: Option<Instant>,
    /// The same for the queues that are known.
    known: Option<String>,
    /// The same for the records.
    swept: Option<String>,
    refresh_at: Option<Instant>,
}

/// How often known queues are looked at.
const REFRESH: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_secs(30);
const STEPS: u32 = 16;
const KEYS_PER_STEP: u32 = 1000;

impl Backend {
    /// Goes on with the scan, if one is due and nobody else is at it.
    pub(crate) async fn discover(&self) -> Result<()> {
        let Ok(mut scan) = self.discovery.0.try_lock() else { return Ok(()) };
        let is_due = |at: Option<Instant>| at.is_none_or(|at| Instant::now() >= at);
        if is_due(scan.refresh_at) {
            let from = scan.known.take().unwrap_or_else(beginning);
            let call = self.call(&scripts::REFRESH).text(&from);
            scan.known = going_on(self.run(call).await?.text()?);
            let from = scan.swept.take().unwrap_or_else(beginning);
            let call = self.call(&scripts::SWEEP).text(&from);
            scan.swept = going_on(self.run(call).await?.text()?);
            scan.refresh_at = Some(Instant::now() + REFRESH);
        }
        if !is_due(scan.next_at) {
            return Ok(());
        }
        if scan.cursor.is_none() {
            self.run(self.call(&scripts::HEAL)).await?;
        }
        for _ in 0..STEPS {
            let from = scan.cursor.take().unwrap_or_else(beginning);
            scan.cursor = self.discover_from(&from).await?;
            if scan.cursor.is_none() {
                scan.next_at = Some(Instant::now() + PAUSE);
                return Ok(());
            }
        }
        Ok(())
    }

    async fn discover_from(&self, cursor: &str) -> Result<Option<String>> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg("codeq:q:*").arg("COUNT").arg(KEYS_PER_STEP);
        let found = self.connection.send("scan", None, &scan, None).await?;
        let (cursor, keys) = <(String, Vec<String>)>::from_redis_value(found).map_err(|error| {
            Error::internal("the answer to a scan cannot be read").because(&error)
        })?;
        let queues: BTreeSet<&str> = keys.iter().filter_map(|key| queue_of(key)).collect();
        if !queues.is_empty() {
            let mut call = self.call(&scripts::DISCOVER);
            for queue in queues {
                call = call.text(queue);
            }
            self.run(call).await?;
        }
        Ok(going_on(cursor))
    }
}

fn beginning() -> String {
    "0".into()
}

/// Where a scan goes on, if it does. KVRocks has other cursors than numbers.
fn going_on(cursor: String) -> Option<String> {
    (cursor != "0").then_some(cursor)
}

/// The key of a queue, from that of one of its places.
fn queue_of(key: &str) -> Option<&str> {
    let (rest, last) = key.rsplit_once(':')?;
    match last {
        "inprog" | "delayed" | "dlq" => Some(rest),
        _ if last.len() == 1 && last.as_bytes()[0].is_ascii_digit() => {
            rest.strip_suffix(":pending")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::queue_of;

    #[test]
    fn every_place_of_a_queue_names_it() {
        for place in ["pending:0", "pending:9", "inprog", "delayed", "dlq"] {
            assert_eq!(queue_of(&format!("codeq:q:a:b:{place}")), Some("codeq:q:a:b"));
        }
        assert_eq!(queue_of("codeq:q:a:other"), None);
    }
}
