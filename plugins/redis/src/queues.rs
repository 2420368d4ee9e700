//! The queues of a cluster that this host knows of, and when something is to be done in each.
//!
//! Which queues there are is in a registry, which a host writes before it first puts something into one,
//! and reads every second. When the next delayed task of a queue comes due, and when its next lease ends, hosts
//! remember from what they did and saw themselves; what others did they learn by asking, some queues every
//! second.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{Instant, Queue, Result, queue_name};

use crate::{
    cluster::Cluster,
    keys::{REGISTRY, Scope, Slot, named},
    pointers::read,
    tasks::read_owner,
};

/// How long a queue is taken for registered.
const REGISTERED: Duration = Duration::from_secs(60);

/// What is to be done in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// To move delayed tasks that came due.
    Due,
    /// To take back tasks whose lease has ended.
    Expiring,
}

impl Chore {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Chore::Due => "due",
            Chore::Expiring => "expiring",
        }
    }
}

/// What this host knows of queues.
#[derive(Default)]
pub(crate) struct Queues(Mutex<HashMap<Queue, Known>>);

struct Known {
    scope: Scope,
    registered: Option<Clock>,
    due: Option<Instant>,
    expiring: Option<Instant>,
    /// Grows with every change from outside a repair, so that a repair does not undo one.
    changes: u64,
}

/// A queue in which something is to be done.
pub(crate) struct Pending {
    pub(crate) scope: Scope,
    pub(crate) at: Instant,
    pub(crate) changes: u64,
}

impl Known {
    fn moment(&mut self, chore: Chore) -> &mut Option<Instant> {
        match chore {
            Chore::Due => &mut self.due,
            Chore::Expiring => &mut self.expiring,
        }
    }
}

impl Queues {
    /// The queue of a command and a tenant.
    pub(crate) fn scope(&self, command: &str, tenant: &str) -> Scope {
        let queue =
            Queue { tenant_id: tenant.into(), command: queue_name(command).as_ref().into() };
        match self.known().get(&queue) {
            Some(known) => known.scope.clone(),
            None => Scope::queue(command, tenant),
        }
    }

    /// The queue of a tag; nothing if that is none.
    pub(crate) fn tagged(&self, tag: &str) -> Option<Scope> {
        let known = self.known().get(&named(tag)?).map(|known| known.scope.clone());
        known.filter(|scope| scope.tag() == tag).or_else(|| Scope::tagged(tag))
    }

    /// The queues of a tenant, or of all, in the order of their tags.
    pub(crate) fn all(&self, tenant: Option<&str>) -> Vec<Scope> {
        let is_asked_for = |scope: &Scope| tenant.is_none_or(|tenant| *tenant == **scope.tenant());
        let known = self.known();
        let scopes = known.values().map(|known| known.scope.clone()).filter(is_asked_for);
        let mut scopes: Vec<_> = scopes.collect();
        scopes.sort_unstable_by(|one, other| one.tag().cmp(other.tag()));
        scopes
    }

    /// Notes that something is to be done in a queue at a moment, or earlier.
    pub(crate) fn note(&self, scope: &Scope, chore: Chore, at: Instant) {
        self.with(scope, |known| {
            known.changes += 1;
            let moment = known.moment(chore);
            *moment = Some(moment.map_or(at, |before| before.min(at)));
        });
    }

    /// Notes when something is to be done, as the queue had it after so many changes.
    pub(crate) fn learn(&self, scope: &Scope, chore: Chore, at: Option<Instant>, changes: u64) {
        self.with(scope, |known| {
            let unchanged = known.changes == changes;
            let moment = known.moment(chore);
            *moment = if unchanged { at } else { at.into_iter().chain(*moment).min() };
        });
    }

    /// Puts off what is to be done in a queue that cannot do it.
    pub(crate) fn put_off(&self, scope: &Scope, chore: Chore, until: Instant) {
        self.with(scope, |known| *known.moment(chore) = Some(until));
    }

    pub(crate) fn changes(&self, scope: &Scope) -> u64 {
        self.known().get(scope.of_queue()).map_or(0, |known| known.changes)
    }

    /// The queues of a tenant, or of all, in which something is to be done by now, the earliest first.
    pub(crate) fn pending(&self, chore: Chore, tenant: Option<&str>, now: Instant) -> Vec<Pending> {
        let mut known = self.known();
        let pending = known.values_mut().filter_map(|known| {
            let at = (*known.moment(chore)).filter(|at| *at <= now)?;
            let is_asked_for = tenant.is_none_or(|tenant| *tenant == **known.scope.tenant());
            is_asked_for.then(|| Pending { scope: known.scope.clone(), at, changes: known.changes })
        });
        let mut pending: Vec<_> = pending.collect();
        pending.sort_unstable_by_key(|pending| pending.at);
        pending
    }

    /// When the next thing is to be done.
    pub(crate) fn next(&self, chore: Chore) -> Option<Instant> {
        self.known().values_mut().filter_map(|known| *known.moment(chore)).min()
    }

    fn is_registered(&self, scope: &Scope) -> bool {
        let known = self.known();
        let registered = known.get(scope.of_queue()).and_then(|known| known.registered);
        registered.is_some_and(|at| at.elapsed() < REGISTERED)
    }

    fn with(&self, scope: &Scope, change: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        let known = known.entry(scope.of_queue().clone()).or_insert_with(|| Known {
            scope: scope.clone(),
            registered: None,
            due: None,
            expiring: None,
            changes: 0,
        });
        change(known);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Queue, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Makes sure that all hosts get to know a queue.
    pub(crate) async fn register_queue(&self, scope: &Scope) -> Result<()> {
        if self.queues.is_registered(scope) {
            return Ok(());
        }
        let queue = scope.of_queue();
        let owner = format!("{}:{}{}", queue.command.len(), queue.command, queue.tenant_id);
        let mut command = redis::cmd("HSET");
        command.arg(REGISTRY).arg(scope.tag()).arg(owner);
        self.core().connection.send("register", Some(Slot::of(REGISTRY)), &command, None).await?;
        self.queues.with(scope, |known| known.registered = Some(Clock::now()));
        Ok(())
    }

    /// The queues of a tenant, or of all, by the registry, in the order of their tags.
    pub(crate) async fn registered(&self, tenant: Option<&str>) -> Result<Vec<Scope>> {
        let mut command = redis::cmd("HVALS");
        command.arg(REGISTRY);
        let slot = Some(Slot::of(REGISTRY));
        let owners = self.core().connection.send("admin_queues", slot, &command, None).await?;
        let owners: Vec<String> = read("admin_queues", owners)?;
        for queue in owners.iter().filter_map(|owner| read_owner(owner)) {
            let scope = self.queues.scope(&queue.command, &queue.tenant_id);
            self.queues.with(&scope, |_| {});
        }
        Ok(self.queues.all(tenant))
    }
}
