//! What is half in a cluster, looked for a little all the time: keys that say where a task is that is not
//! there, as a host leaves them that died at the wrong moment; and tasks of which nothing says where they
//! are, as Redis may leave them when a node fails.

use std::collections::HashMap;

use codeq_plugin::Result;
use futures_util::future::join_all;
use redis::Value;
use tokio::sync::Mutex;

use crate::{
    address::Address,
    cluster::Cluster,
    keys::{POINTERS, Scope, pointed},
    pointers::read,
};

/// How many keys of each node are looked at each time.
const KEYS_PER_STEP: u32 = 300;
/// How many tasks of a queue are looked at each time.
const TASKS_PER_STEP: u32 = 100;

/// Who says where a task is, if no attempt to enqueue it did.
const RESTORED: &str = "-";

/// How far the search has come.
#[derive(Default)]
pub(crate) struct Sweep(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    /// How far that of each node's keys has come, in its own words.
    keys: HashMap<Address, String>,
    /// How far that of the tasks has come: the tag of a queue, and the node's own words.
    tasks: (String, String),
}

impl Cluster {
    /// Goes on with the search.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let Ok(mut progress) = self.sweep.0.try_lock() else { return Ok(()) };
        // A node that is down keeps nobody from looking at the others.
        let keys = self.sweep_keys(&mut progress.keys).await;
        self.sweep_tasks(&mut progress.tasks).await.and(keys)
    }

    /// Looks through some keys of each node.
    async fn sweep_keys(&self, cursors: &mut HashMap<Address, String>) -> Result<()> {
        let Some(nodes) = self.connection.nodes() else { return Ok(()) };
        let mut failed = Ok(());
        for master in nodes.masters() {
            let from = cursors.remove(&*master).unwrap_or_else(beginning);
            let mut scan = redis::cmd("SCAN");
            scan.arg(from).arg("MATCH").arg(format!("{POINTERS}*")).arg("COUNT").arg(KEYS_PER_STEP);
            let found = match nodes.send_to(&master, "scan", &scan).await {
                Ok(found) => found,
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            let (next, keys) = read::<(String, Vec<String>)>("scan", found)?;
            cursors.insert((*master).clone(), next);
            join_all(keys.iter().map(|key| self.sweep_one(key))).await;
        }
        failed
    }

    /// Looks through some tasks of one queue; then it is the next one's turn.
    async fn sweep_tasks(&self, (tag, cursor): &mut (String, String)) -> Result<()> {
        let mut all = self.queues.all(None).into_iter();
        let is_next = |scope: &Scope| match cursor.as_str() {
            "" | "0" => *scope.tag() > **tag,
            _ => *scope.tag() >= **tag,
        };
        let Some(scope) = all.find(is_next) else {
            (*tag, *cursor) = <_>::default();
            return Ok(());
        };
        let from = if *scope.tag() == **tag { std::mem::take(cursor) } else { beginning() };
        let mut scan = redis::cmd("ZSCAN");
        scan.arg(scope.retention()).arg(from).arg("COUNT").arg(TASKS_PER_STEP);
        // If that fails, it is the next queue's turn.
        (*tag, *cursor) = (scope.tag().to_owned(), beginning());
        let found = self.connection.send("scan", scope.slot(), &scan, None).await?;
        let (next, ids) = read::<(String, Vec<(String, String)>)>("scan", found)?;
        (*tag, *cursor) = (scope.tag().to_owned(), next);
        join_all(ids.iter().map(|(id, _)| self.restore(id, &scope))).await;
        Ok(())
    }

    /// Says where a task is if nothing does.
    async fn restore(&self, id: &str, scope: &Scope) {
        let restored = async {
            if self.pointer_of(id).await?.is_some() {
                return Ok(());
            }
            tracing::info!(id, queue = scope.tag(), "it was forgotten where a task is");
            self.point(id, scope, RESTORED, "").await.map(drop)
        };
        let restored: Result<()> = restored.await;
        if let Err(error) = restored {
            tracing::debug!(%error, id, "where a task is is said later");
        }
    }

    /// Removes what is said about a task if that is old, and the task is not there.
    async fn sweep_one(&self, key: &str) {
        let Some(id) = pointed(key) else { return };
        let swept = async {
            let Some(said) = self.pointer_of(&id).await? else { return Ok(false) };
            let settled = i64::try_from(self.settled().as_millis()).unwrap_or(i64::MAX);
            // Clocks differ; the node whose clock it was has the last word.
            if said.since() + settled > codeq_plugin::Instant::now().0 {
                return Ok(false);
            }
            if let Some(scope) = self.queues.tagged(&said.tag) {
                let mut is_there = redis::cmd("HEXISTS");
                is_there.arg(scope.tasks()).arg(&id);
                let slot = scope.slot();
                let is_there = self.connection.send("sweep", slot, &is_there, None).await?;
                if is_there != Value::Int(0) {
                    return Ok(false);
                }
            }
            self.unpoint_one(&id, &said.tag, &said.said).await
        };
        match swept.await {
            Ok(true) => {
                self.pointers.remove(&id);
                tracing::info!(
                    id,
                    "a host died before it enqueued a task; what it left is removed"
                );
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, id, "what may be left of a task is looked at later")
            }
        }
    }
}

fn beginning() -> String {
    "0".into()
}
