//! Where tasks are in a cluster: in which queue, by their ids.
//!
//! A key of its own says so for each task. It is written before the task is, and goes after it. A host that
//! dies between leaves one behind that leads nowhere, which does no harm, and is found by the
//! sweep.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codeq_plugin::{Error, Result};
use futures_util::future::join_all;
use redis::{FromRedisValue, Value};

use crate::{
    cluster::Cluster,
    keys::{Scope, Slot, pointer},
    scripts,
};

/// How many ids are remembered at least.
const REMEMBERED: usize = 50_000;

/// How long ago something must have been said, at least, before it is taken for left behind. Nobody takes as
/// long between saying where a task is and putting it there.
pub(crate) const SETTLED: Duration = Duration::from_secs(60);

/// The queues of ids that were met lately.
#[derive(Default)]
pub(crate) struct Pointers(Mutex<Generations>);

/// The older ids go all at once when there are enough of younger ones.
#[derive(Default)]
struct Generations {
    younger: HashMap<String, Scope>,
    older: HashMap<String, Scope>,
}

impl Pointers {
    pub(crate) fn get(&self, id: &str) -> Option<Scope> {
        let known = self.known();
        known.younger.get(id).or_else(|| known.older.get(id)).cloned()
    }

    pub(crate) fn insert(&self, id: &str, scope: &Scope) {
        let mut known = self.known();
        if known.younger.len() >= REMEMBERED {
            known.older = std::mem::take(&mut known.younger);
        }
        known.younger.insert(id.to_owned(), scope.clone());
    }

    pub(crate) fn remove(&self, id: &str) {
        let mut known = self.known();
        known.younger.remove(id);
        known.older.remove(id);
    }

    fn known(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said about where a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// All of it, to tell whether something else is said by now.
    pub(crate) said: String,
    pub(crate) tag: String,
    /// Which attempt to enqueue the task said so.
    pub(crate) attempt: String,
}

impl Pointer {
    pub(crate) fn read(said: String) -> Pointer {
        let mut parts = said.split(' ');
        let tag = parts.next().unwrap_or_default().to_owned();
        let attempt = parts.nth(1).unwrap_or_default().to_owned();
        Pointer { said, tag, attempt }
    }

    /// When it was said, in milliseconds of Unix time by that node's clock.
    pub(crate) fn since(&self) -> i64 {
        self.said.split(' ').nth(1).and_then(|since| since.parse().ok()).unwrap_or_default()
    }
}

/// What became of saying where a new task is.
pub(crate) enum Pointed {
    /// Nobody had said anything about that id.
    Newly,
    /// That was said before.
    Again,
    /// It is said to be elsewhere.
    Elsewhere(Pointer),
}

impl Cluster {
    /// The queues that tasks are in, looked up for those that are not known here.
    pub(crate) async fn locate(&self, ids: &[&str]) -> Vec<Result<Option<Scope>>> {
        join_all(ids.iter().map(|id| async {
            match self.pointers.get(id) {
                Some(scope) => Ok(Some(scope)),
                None => self.look_up(id).await,
            }
        }))
        .await
    }

    /// The queue that a task is said to be in.
    pub(crate) async fn look_up(&self, id: &str) -> Result<Option<Scope>> {
        let scope = self.pointer_of(id).await?.and_then(|pointer| self.queues.tagged(&pointer.tag));
        match &scope {
            Some(scope) => self.pointers.insert(id, scope),
            None => self.pointers.remove(id),
        }
        Ok(scope)
    }

    pub(crate) async fn pointer_of(&self, id: &str) -> Result<Option<Pointer>> {
        let key = pointer(id);
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let slot = Some(Slot::of(&key));
        let said = self.core().connection.send("locate", slot, &get, None).await?;
        Ok(read::<Option<String>>("locate", said)?.map(Pointer::read))
    }

    /// Says that a task is in a queue, unless it is said to be in another one, and that in other words
    /// than were expected.
    pub(crate) async fn point(
        &self,
        id: &str,
        scope: &Scope,
        attempt: &str,
        expected: &str,
    ) -> Result<Pointed> {
        let args = [scope.tag(), attempt, expected];
        let answer = self.small(&scripts::POINT, &pointer(id), &args).await?;
        match read::<(String, u8)>("point", answer)? {
            (said, _) if !said.is_empty() => Ok(Pointed::Elsewhere(Pointer::read(said))),
            (_, 0) => Ok(Pointed::Newly),
            _ => Ok(Pointed::Again),
        }
    }

    /// Forgets where tasks are that are gone, as far as that was said long enough ago that nobody can be
    /// about to enqueue them anew. The sweep sees to the others, and to those for which this fails.
    pub(crate) async fn unpoint(&self, scope: &Scope, ids: &[String]) {
        join_all(ids.iter().map(|id| async move {
            self.pointers.remove(id);
            if let Err(error) = self.unpoint_one(id, scope.tag(), "").await {
                tracing::debug!(%error, id, "where a task was is forgotten later");
            }
        }))
        .await;
    }

    /// The same for one task, in the words that were expected if there are any. Answers whether it was
    /// forgotten.
    pub(crate) async fn unpoint_one(&self, id: &str, tag: &str, expected: &str) -> Result<bool> {
        let age = self.settled().as_millis().to_string();
        let args = [age.as_str(), tag, expected];
        let answer = self.small(&scripts::UNPOINT, &pointer(id), &args).await?;
        Ok(read::<u8>("unpoint", answer)? == 1)
    }

    /// How long it takes until what was said about a task is settled.
    pub(crate) fn settled(&self) -> Duration {
        SETTLED.max(self.core().connection.command_timeout() * 2)
    }
}

/// Reads the answer to a command or to a small script.
pub(crate) fn read<T: FromRedisValue>(what: &str, answer: Value) -> Result<T> {
    redis::from_redis_value(answer).map_err(|error| {
        Error::internal(format!("the answer to `{what}` cannot be read")).because(&error)
    })
}
