//! Queues that codeQ's own servers filled.
//!
//! A claim that names its command finds everything in that command's keys. A claim of any command,
//! and the repair of all queues, know only the queues in this plugin's index; so now and then the
//! keys are scanned for others. A scan goes on for as many repairs as it takes, a few steps each.
//! Records that could not be read are looked at again at the same time, in case they were mended.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use codeq_plugin::{Error, Result};
use redis::FromRedisValue;

use crate::{Redis, scripts};

/// How far the present scan has come.
#[derive(Default)]
pub(crate) struct Discovery(tokio::sync::Mutex<Scan>);

#[derive(Default)]
struct Scan {
    cursor: u64,
    next_at: Option<Instant>,
}

const PAUSE: Duration = Duration::from_secs(30);
const STEPS: u32 = 16;
const KEYS_PER_STEP: u32 = 1000;

impl Redis {
    /// Goes on with the scan, if one is due and nobody else is at it.
    pub(crate) async fn discover(&self) -> Result<()> {
        let Ok(mut scan) = self.discovery.0.try_lock() else { return Ok(()) };
        if scan.next_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        if scan.cursor == 0 {
            self.run(self.call(&scripts::HEAL)).await?;
        }
        for _ in 0..STEPS {
            scan.cursor = self.discover_from(scan.cursor).await?;
            if scan.cursor == 0 {
                scan.next_at = Some(Instant::now() + PAUSE);
                return Ok(());
            }
        }
        Ok(())
    }

    async fn discover_from(&self, cursor: u64) -> Result<u64> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg("codeq:q:*").arg("COUNT").arg(KEYS_PER_STEP);
        let found = self.connection.send("scan", &scan, None).await?;
        let (cursor, keys) = <(u64, Vec<String>)>::from_redis_value(found).map_err(|error| {
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
        Ok(cursor)
    }
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
