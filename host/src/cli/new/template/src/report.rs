//! What a claim or a repair tells the host that it moved, so that it can wake waiting workers.

use std::collections::BTreeMap;

use codeq_plugin::{Arrival, Boxed, Moved, Queue, Tally, Task, queue_name, rules::Placement};

use crate::{index::Place, tasks::Change};

/// What was moved so far, by queue.
#[derive(Default)]
pub(crate) struct Report {
    count: u32,
    arrivals: BTreeMap<Queue, Arrivals>,
    expired: BTreeMap<Queue, u32>,
    dead: Vec<Boxed<Task>>,
}

#[derive(Default)]
struct Arrivals {
    count: u32,
    awoke: bool,
}

impl Report {
    /// Adds a task that came due, or whose lease ran out: `from` tells which.
    pub(crate) fn add(&mut self, from: Place, change: &Change) {
        self.count += 1;
        if from == Place::Leased {
            *self.expired.entry(queue(change.task)).or_default() += 1;
        }
        match change.placement {
            Placement::Ready => {
                let arrivals = self.arrivals.entry(queue(change.task)).or_default();
                arrivals.count += 1;
                arrivals.awoke |= change.awoke;
            }
            Placement::Dead => self.dead.push(change.task.clone()),
            _ => {}
        }
    }
}

impl From<Report> for Moved {
    fn from(report: Report) -> Moved {
        let arrival = |(queue, Arrivals { count, awoke })| Arrival {
            queue,
            count,
            awoke,
        };
        let tally = |(queue, count)| Tally { queue, count };
        Moved {
            count: report.count,
            arrivals: report.arrivals.into_iter().map(arrival).collect(),
            expired: report.expired.into_iter().map(tally).collect(),
            dead: report.dead.into(),
            ..Moved::default()
        }
    }
}

fn queue(task: &Task) -> Queue {
    Queue {
        tenant_id: task.tenant_id.clone(),
        command: (&*queue_name(&task.command)).into(),
    }
}
