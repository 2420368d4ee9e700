//! How much of everything is tried.

use serde::{Deserialize, Serialize};

/// How long histories are, how often a host is killed, how large the backlogs get.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What random choices come from.
    pub seed: u64,
    /// How long the load of one history lasts, in milliseconds.
    pub history_millis: u64,
    /// How often a host is killed under load.
    pub kills: u32,
    /// The backlogs at which operations are timed.
    pub backlogs: Vec<u64>,
    /// How long filling up to a backlog may take, in seconds; larger ones are left out.
    pub fill_seconds: u64,
}

impl Plan {
    /// Everything, as before a release.
    pub fn whole(seed: u64) -> Plan {
        Plan {
            seed,
            history_millis: 2_000,
            kills: 5,
            backlogs: vec![1_000, 100_000, 1_000_000],
            fill_seconds: 60,
        }
    }

    /// Little of everything, for every day.
    pub fn quick(seed: u64) -> Plan {
        Plan {
            seed,
            history_millis: 400,
            kills: 1,
            backlogs: vec![100, 1_000, 10_000],
            fill_seconds: 10,
        }
    }
}
