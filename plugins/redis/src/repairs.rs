//! Repair in a cluster: what came due or ran out of time, in all queues.
//!
//! Hosts remember when something is to be done in which queue, and ask that queue then. What other hosts
//! brought they learn by looking at queues once a second, some each time if there are many.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{Error, Instant, Millis, Moved, Result};
use futures_util::future::join_all;

use crate::{
    claims::add_moved,
    cluster::Cluster,
    keys::Scope,
    queues::{Chore, Pending},
    scripts,
};

/// How often queues are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many queues are looked at each time.
const LOOKED_AT: usize = 200;
/// How many queues are repaired at the same time.
const AT_ONCE: usize = 32;
/// For how long a queue is left alone whose node cannot repair it.
const PUT_OFF: Millis = Millis(1_000);
/// How often records are looked at that could not be read, in case they were mended.
const HEAL_EVERY: Duration = Duration::from_secs(30);

/// When things were done that are done now and then.
#[derive(Default)]
pub(crate) struct Upkeep(Mutex<Times>);

#[derive(Default)]
struct Times {
    looked: Option<Clock>,
    healed: Option<Clock>,
    swept: Option<Clock>,
    /// The queue that was looked at last.
    last: String,
}

/// How a queue is.
struct Tended {
    moved: Moved,
    due: Option<Instant>,
    expiring: Option<Instant>,
    is_ready: bool,
    has_unreadable: bool,
}

impl Upkeep {
    /// Whether the next sweep is due; then it is taken for done.
    pub(crate) fn is_sweep_due(&self) -> bool {
        self.is_over(LOOK_EVERY, |times| &mut times.swept)
    }

    fn is_look_due(&self) -> bool {
        self.is_over(LOOK_EVERY, |times| &mut times.looked)
    }

    /// Has the next repair look, although one just did.
    fn look_again(&self) {
        self.times().looked = None;
    }

    fn is_healing_due(&self) -> bool {
        self.is_over(HEAL_EVERY, |times| &mut times.healed)
    }

    fn is_over(&self, pause: Duration, time: impl Fn(&mut Times) -> &mut Option<Clock>) -> bool {
        let mut times = self.times();
        let time = time(&mut times);
        let is_over = time.is_none_or(|at| at.elapsed() >= pause);
        if is_over {
            *time = Some(Clock::now());
        }
        is_over
    }

    /// Those queues whose turn it is to be looked at.
    fn next(&self, mut all: Vec<Scope>) -> Vec<Scope> {
        let mut times = self.times();
        let from = all.partition_point(|scope| *scope.tag() <= *times.last);
        all.rotate_left(from);
        all.truncate(LOOKED_AT);
        if let Some(last) = all.last() {
            times.last = last.tag().to_owned();
        }
        all
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    pub(crate) async fn move_due_delayed(&self, limit: u32) -> Result<Moved> {
        self.look_around().await?;
        self.repair(Chore::Due, limit, None).await
    }

    pub(crate) async fn requeue_expired(&self, limit: u32) -> Result<Moved> {
        self.look_around().await?;
        if self.upkeep.is_sweep_due()
            && let Err(error) = self.sweep().await
        {
            tracing::debug!(%error, "the sweep stopped; it goes on later");
        }
        self.repair(Chore::Expiring, limit, None).await
    }

    /// Looks at what others did. A node that is down is a reason to fail only if no queue is known yet: what
    /// is known elsewhere has its chores done.
    async fn look_around(&self) -> Result<()> {
        match self.look().await {
            Err(error) if self.queues.all(None).is_empty() => Err(error),
            Err(error) => {
                tracing::debug!(%error, "what others did in the cluster is looked at later");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Does what is to be done by now in the queues of a tenant, or in all, as far as this host knows;
    /// the earliest first, and no more than so many tasks.
    pub(crate) async fn repair(
        &self,
        chore: Chore,
        limit: u32,
        tenant: Option<&str>,
    ) -> Result<Moved> {
        let mut moved = Moved::default();
        let (mut failure, mut anything_done) = (None, false);
        let mut in_vain = HashSet::new();
        while moved.count < limit {
            let mut pending = self.queues.pending(chore, tenant, Instant::now());
            pending.retain(|pending| !in_vain.contains(pending.scope.tag()));
            let left = limit - moved.count;
            let chunk = pending.len().min(AT_ONCE).min(left as usize);
            if chunk == 0 {
                break;
            }
            // As far as the first queue that has to wait, so that the earliest of all come first.
            let til = pending.get(chunk).map_or(Instant::EPOCH, |next| next.at);
            pending.truncate(chunk);
            let share = (left / u32::try_from(chunk).unwrap_or(u32::MAX)).max(1);
            for (pending, tended) in self.tend_all(chore, share, til, pending).await {
                match tended {
                    Ok(tended) => {
                        anything_done = true;
                        if tended.moved.count == 0 {
                            in_vain.insert(pending.scope.tag().to_owned());
                        }
                        add_moved(&mut moved, tended.moved);
                    }
                    Err(error) => {
                        in_vain.insert(pending.scope.tag().to_owned());
                        self.queues.put_off(&pending.scope, chore, Instant::now() + PUT_OFF);
                        failure = Some(error);
                    }
                }
            }
        }
        moved.next = self.queues.next(chore).into();
        match failure {
            Some(error) if !anything_done => Err(error),
            _ => Ok(moved),
        }
    }

    async fn tend_all(
        &self,
        chore: Chore,
        share: u32,
        til: Instant,
        pending: Vec<Pending>,
    ) -> Vec<(Pending, Result<Tended>)> {
        let tended = pending.iter().map(|pending| async {
            let tended = self.tend(&pending.scope, chore.as_str(), share, til).await?;
            self.learn(&pending.scope, &tended, pending.changes);
            if tended.moved.arrivals.iter().any(|arrival| arrival.awoke) {
                self.hint([&pending.scope]).await;
            }
            Ok::<_, Error>(tended)
        });
        let tended = join_all(tended).await;
        pending.into_iter().zip(tended).collect()
    }

    async fn tend(&self, scope: &Scope, chore: &str, limit: u32, til: Instant) -> Result<Tended> {
        let queue = self.at(scope);
        let call = queue.call(&scripts::TEND).text(chore).number(limit).instant(til);
        let mut reply = queue.run(call).await?;
        Ok(Tended {
            moved: reply.moved()?,
            due: reply.instant_if_any()?,
            expiring: reply.instant_if_any()?,
            is_ready: reply.flag()?,
            has_unreadable: reply.flag()?,
        })
    }

    fn learn(&self, scope: &Scope, tended: &Tended, changes: u64) {
        self.queues.learn(scope, Chore::Due, tended.due, changes);
        self.queues.learn(scope, Chore::Expiring, tended.expiring, changes);
    }

    /// Looks at some queues, once a second: what others brought there, and whether it is known which have
    /// claimable tasks.
    async fn look(&self) -> Result<()> {
        if !self.upkeep.is_look_due() {
            return Ok(());
        }
        let registered = self.registered(None).await.inspect_err(|_| self.upkeep.look_again())?;
        let scopes = self.upkeep.next(registered);
        let is_healing_due = self.upkeep.is_healing_due();
        let mut ready = Vec::new();
        for scopes in scopes.chunks(AT_ONCE) {
            let looks = scopes.iter().map(|scope| self.look_at(scope, is_healing_due));
            let looks = join_all(looks).await;
            ready
                .extend(scopes.iter().zip(looks).filter_map(|(scope, look)| look.then_some(scope)));
        }
        self.hint_new(ready).await;
        Ok(())
    }

    /// Looks at a queue. Answers whether it has claimable tasks.
    async fn look_at(&self, scope: &Scope, is_healing_due: bool) -> bool {
        let changes = self.queues.changes(scope);
        let tended = match self.tend(scope, "", 0, Instant::EPOCH).await {
            Ok(tended) => tended,
            Err(error) => {
                tracing::debug!(%error, queue = scope.tag(), "a queue is looked at later");
                return false;
            }
        };
        self.learn(scope, &tended, changes);
        let healed = tended.has_unreadable && is_healing_due && self.heal(scope).await;
        tended.is_ready || healed
    }

    /// Brings tasks back whose record was mended. Answers whether there may be some.
    async fn heal(&self, scope: &Scope) -> bool {
        let queue = self.at(scope);
        queue.run(queue.call(&scripts::HEAL)).await.is_ok()
    }
}
