//! Availability notices: subscribers are told when a queue has tasks that had none.
//!
//! However a queue came to have tasks, the service says so here ([`Availability::awoke`]), which costs
//! its caller next to nothing: a *look* at the queue is planned, once however often it is asked for.
//! A look reads who subscribed, and tells those whose interval is over. Who cannot be told yet, or
//! could not be reached, is looked at again later, and told if there still are tasks.
//!
//! Queues without subscribers are left in peace for a while. Plans are in memory only: notices are
//! hints, and what a host had planned ends with it.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codeq_plugin::{
    AllowNotify, Batch, Boxed, ByCommand, DeliveryMode, GroupKey, Instant, Millis, Queue,
    Subscription, Text, queue_name,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant as Moment, sleep, sleep_until},
};
use uuid::Uuid;

use super::{INTERNAL_TENANT, Service, ServiceError};
use crate::{
    rate_limit::RateLimiter,
    webhook::{Call, CallError, Client, Place, Places, Target},
};

/// The notices of one service.
pub(super) struct Availability {
    /// Whether the store keeps subscriptions at all.
    enabled: bool,
    client: Client,
    places: Places,
    limiter: RateLimiter,
    claim_url: String,
    /// How long a queue without subscribers is left in peace, at least.
    peace: Duration,
    plans: Mutex<Plans>,
    planned: Notify,
    hasher: RandomState,
}

/// A look that is planned: at a queue, for all its subscribers or for one party of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Look {
    /// The command in lower case.
    queue: Queue,
    party: Option<Text>,
}

#[derive(Default)]
struct Plans {
    in_order: BTreeSet<(Moment, Look)>,
    by_look: HashMap<Look, Planned>,
    /// Queues without subscribers, by hash, until when.
    quiet: HashMap<u64, Quiet>,
    /// Counts subscriptions that were made here.
    generation: u64,
    /// When subscribers were told by this host.
    told: HashMap<Text, Moment>,
    overflowed: bool,
}

/// When a look happens.
struct Planned {
    at: Moment,
    /// The command, as the task spells it that the look is for.
    spelled: Text,
}

struct Quiet {
    until: Moment,
    /// Whether a look is planned for then.
    planned: bool,
}

/// Subscribers of whom one is told, the best first.
struct Party {
    name: Text,
    mode: DeliveryMode,
    members: Vec<Boxed<Subscription>>,
}

/// What a receiver gets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    event_type: &'a str,
    available: bool,
    queue_depth: u64,
    claim_url: &'a str,
    sent_at: Instant,
    notification_id: String,
}

/// How many looks happen at once, and at most how many are planned.
const LOOKS: usize = 16;
const MOST_PLANNED: usize = 10_000;
/// At most how many subscribers and quiet queues are remembered.
const MOST_REMEMBERED: usize = 50_000;
/// How many calls are under way at once, in all and to one receiver.
const CALLS: usize = 64;
const CALLS_TO_ONE: u32 = 8;
/// How long a queue without subscribers is left in peace: where another host may take subscriptions,
/// and where all of them come through this one.
const SHARED_PEACE: Duration = Duration::from_secs(1);
const OWN_PEACE: Duration = Duration::from_secs(60);
/// Quiet queues are looked at no more often than this in all.
const LOOKS_PER_SECOND: usize = 500;
/// When to look again after the store failed, or while the receiver is busy.
const SOON: Duration = Duration::from_secs(1);
/// How long after a failure a notice is sent once more, and when the queue is looked at again if that
/// fails, too; later if the subscriber's interval is longer.
const AT_ONCE_AGAIN: Duration = Duration::from_millis(500);
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The store's clock and this one's do not tick together.
const SLACK: Duration = Duration::from_millis(20);

impl Availability {
    pub(super) fn new(
        client: Client,
        limiter: RateLimiter,
        public_url: Option<&str>,
        enabled: bool,
        shared: bool,
    ) -> Availability {
        Availability {
            enabled,
            client,
            places: Places::new(CALLS, CALLS_TO_ONE),
            limiter,
            claim_url: format!("{}/v1/codeq/tasks/claim", public_url.unwrap_or_default()),
            peace: if shared { SHARED_PEACE } else { OWN_PEACE },
            plans: Mutex::default(),
            planned: Notify::new(),
            hasher: RandomState::new(),
        }
    }

    /// A queue has tasks that had none.
    pub(super) fn awoke(&self, tenant: &str, command: &str) {
        if !self.enabled || tenant == INTERNAL_TENANT {
            return;
        }
        let name = queue_name(command);
        let now = Moment::now();
        let mut plans = self.lock();
        let mut at = now;
        if !plans.quiet.is_empty() {
            let hash = self.hasher.hash_one((tenant, &*name));
            match plans.quiet.get_mut(&hash) {
                Some(quiet) if quiet.until > now => {
                    if quiet.planned {
                        return;
                    }
                    // Somebody may have subscribed at another host by then.
                    quiet.planned = true;
                    at = quiet.until;
                }
                Some(_) => {
                    plans.quiet.remove(&hash);
                }
                None => {}
            }
        }
        let queue = Queue { tenant_id: tenant.into(), command: Text::from(&*name) };
        plans.plan(Look { queue, party: None }, at, &command.into());
        drop(plans);
        self.planned.notify_one();
    }

    /// Somebody subscribed here.
    pub(super) fn subscribed(&self) {
        let now = Moment::now();
        let mut plans = self.lock();
        plans.generation += 1;
        plans.quiet.clear();
        let waiting: Vec<(Look, Text)> = plans
            .by_look
            .iter()
            .filter(|(look, _)| look.party.is_none())
            .map(|(look, planned)| (look.clone(), planned.spelled.clone()))
            .collect();
        waiting.into_iter().for_each(|(look, spelled)| plans.plan(look, now, &spelled));
        drop(plans);
        self.planned.notify_one();
    }

    fn plan(&self, look: Look, at: Moment, spelled: &Text) {
        self.lock().plan(look, at, spelled);
        self.planned.notify_one();
    }

    /// Nobody subscribed to a queue, as long as nobody did so here since `generation`.
    fn nobody_subscribed(&self, queue: &Queue, generation: u64) {
        let now = Moment::now();
        let mut plans = self.lock();
        if plans.generation != generation {
            return;
        }
        if plans.quiet.len() >= MOST_REMEMBERED {
            plans.quiet.retain(|_, quiet| quiet.until > now);
        }
        if plans.quiet.len() >= MOST_REMEMBERED {
            plans.quiet.clear();
        }
        let fair = Duration::from_secs((plans.quiet.len() / LOOKS_PER_SECOND) as u64);
        let until = now + self.peace.max(fair);
        let hash = self.hasher.hash_one((queue.tenant_id.as_str(), queue.command.as_str()));
        plans.quiet.insert(hash, Quiet { until, planned: false });
    }

    fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// The next look whose time has come and how its command is spelled, else when the next one comes.
    fn next(&self) -> Result<(Look, Text), Option<Moment>> {
        let mut plans = self.lock();
        match plans.in_order.first() {
            Some((at, _)) if *at > Moment::now() => Err(Some(*at)),
            Some(_) => {
                let (_, look) = plans.in_order.pop_first().ok_or(None)?;
                let planned = plans.by_look.remove(&look).ok_or(None)?;
                Ok((look, planned.spelled))
            }
            None => Err(None),
        }
    }

    fn told(&self, subscription: &Subscription) {
        let mut plans = self.lock();
        if plans.told.len() >= MOST_REMEMBERED {
            plans.told.clear();
        }
        plans.told.insert(subscription.id.clone(), Moment::now());
    }

    /// How long until a subscriber may be told whom this host told too short a while ago.
    fn too_early(&self, subscription: &Subscription) -> Option<Duration> {
        let told = self.lock().told.get(&subscription.id).copied()?;
        let left = (told + interval_of(subscription)).saturating_duration_since(Moment::now());
        (!left.is_zero()).then_some(left + SLACK)
    }

    fn lock(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plans {
    /// Plans a look, no later than it is planned already.
    fn plan(&mut self, look: Look, at: Moment, spelled: &Text) {
        let room = MOST_PLANNED.saturating_sub(self.by_look.len());
        match self.by_look.get_mut(&look) {
            Some(planned) if planned.at <= at => {}
            Some(planned) => {
                let mut entry = (std::mem::replace(&mut planned.at, at), look);
                self.in_order.remove(&entry);
                entry.0 = at;
                self.in_order.insert(entry);
            }
            None if room > 0 => {
                self.overflowed = false;
                self.by_look.insert(look.clone(), Planned { at, spelled: spelled.clone() });
                self.in_order.insert((at, look));
            }
            None => {
                if !std::mem::replace(&mut self.overflowed, true) {
                    tracing::warn!(
                        planned = MOST_PLANNED,
                        "too many queues have subscribers who wait to be told: some are not"
                    );
                }
            }
        }
    }
}

/// Tells subscribers, for as long as the service runs.
pub(super) fn spawn(service: &Arc<Service>) {
    if !service.availability.enabled {
        return;
    }
    let service = Arc::clone(service);
    tokio::spawn(async move {
        tokio::select! {
            () = run(&service) => {}
            () = service.stopped() => {}
        }
    });
}

async fn run(service: &Arc<Service>) {
    let looks = Arc::new(Semaphore::new(LOOKS));
    loop {
        let Ok(permit) = Arc::clone(&looks).acquire_owned().await else { return };
        match service.availability.next() {
            Ok((look, spelled)) => {
                let service = Arc::clone(service);
                tokio::spawn(async move {
                    service.look(look, spelled).await;
                    drop(permit);
                });
            }
            Err(next) => {
                drop(permit);
                let planned = service.availability.planned.notified();
                match next {
                    Some(at) => tokio::select! {
                        () = planned => {}
                        () = sleep_until(at) => {}
                    },
                    None => planned.await,
                }
            }
        }
    }
}

impl Service {
    async fn look(self: &Arc<Self>, look: Look, spelled: Text) {
        if let Err(error) = self.try_look(&look, &spelled).await {
            tracing::debug!(%error, command = look.queue.command.as_str(), "cannot look who wants to be told");
            self.availability.plan(look, Moment::now() + SOON, &spelled);
        }
    }

    async fn try_look(self: &Arc<Self>, look: &Look, spelled: &Text) -> Result<(), ServiceError> {
        let Queue { tenant_id, command } = &look.queue;
        let generation = self.availability.generation();
        let by = ByCommand { tenant_id: tenant_id.clone(), command: command.clone() };
        let subscribers = self.store.get_by_command(by).await?;
        if subscribers.is_empty() {
            self.availability.nobody_subscribed(&look.queue, generation);
            return Ok(());
        }
        let depth = self.store.queue_length(look.queue.clone()).await?;
        if depth == 0 {
            return Ok(());
        }
        let wanted = |party: &Party| look.party.as_ref().is_none_or(|wanted| *wanted == party.name);
        for party in parties(subscribers, command).into_iter().filter(wanted) {
            let name = party.name.clone();
            let wait = match self.tell_one_of(party, &look.queue, spelled, depth).await {
                Ok(None) => continue,
                Ok(Some(wait)) => wait,
                Err(error) => {
                    tracing::debug!(%error, "cannot tell a subscriber yet");
                    SOON
                }
            };
            let again = Look { queue: look.queue.clone(), party: Some(name) };
            self.availability.plan(again, Moment::now() + wait, spelled);
        }
        Ok(())
    }

    /// Tells one of a party, or answers when to try again.
    async fn tell_one_of(
        self: &Arc<Self>,
        mut party: Party,
        queue: &Queue,
        spelled: &Text,
        depth: u64,
    ) -> Result<Option<Duration>, ServiceError> {
        if party.mode == DeliveryMode::Group && party.members.len() > 1 {
            let key = GroupKey {
                tenant_id: queue.tenant_id.clone(),
                command: queue.command.clone(),
                group_id: party.members[0].group_id.clone(),
            };
            let turn = self.one(self.store.next_group_index(Batch::One(key)).await?)?;
            let turn = turn % party.members.len() as u64;
            party.members.rotate_left(usize::try_from(turn).unwrap_or(0));
        }
        let mut wait: Option<Duration> = None;
        for member in party.members {
            match self.tell(member, &party.name, queue, spelled, depth).await? {
                None => return Ok(None),
                Some(until) => wait = Some(wait.map_or(until, |wait| wait.min(until))),
            }
        }
        Ok(wait)
    }

    /// Tells a subscriber, or answers when he may be told.
    async fn tell(
        self: &Arc<Self>,
        subscription: Boxed<Subscription>,
        party: &Text,
        queue: &Queue,
        spelled: &Text,
        depth: u64,
    ) -> Result<Option<Duration>, ServiceError> {
        let availability = &self.availability;
        // The store knows it, too, but would be asked by every look.
        if let Some(wait) = availability.too_early(&subscription) {
            return Ok(Some(wait));
        }
        let target = match availability.client.target(&subscription.callback_url) {
            Ok(target) => target,
            Err(error) => {
                tracing::debug!(subscription = subscription.id.as_str(), %error, "cannot be called");
                self.metrics.webhook_called(KIND, &queue.command, "failure");
                return Ok(Some(AFTER_FAILURE.max(interval_of(&subscription))));
            }
        };
        let Some(place) = availability.places.try_take(target.authority()) else {
            return Ok(Some(SOON));
        };
        let ask = AllowNotify {
            subscription_id: subscription.id.clone(),
            min_interval: Millis::from_secs(subscription.min_interval_seconds.into()),
        };
        if !self.one(self.store.allow_notify(Batch::One(ask)).await?)? {
            // Another host told him, at most an interval ago.
            return Ok(Some(interval_of(&subscription) + SLACK));
        }
        availability.told(&subscription);
        if let Err(wait) = availability.limiter.check(&subscription.callback_url) {
            self.metrics.rate_limited("webhook", KIND);
            return Ok(Some(wait.0.max(interval_of(&subscription)) + SLACK));
        }
        let look = Look { queue: queue.clone(), party: Some(party.clone()) };
        let (service, spelled) = (Arc::clone(self), spelled.clone());
        let notify =
            async move { service.notify(subscription, target, place, look, spelled, depth).await };
        tokio::spawn(notify);
        Ok(None)
    }

    async fn notify(
        &self,
        subscription: Boxed<Subscription>,
        target: Target,
        place: Place,
        look: Look,
        spelled: Text,
        depth: u64,
    ) {
        let availability = &self.availability;
        // As the subscriber spells it, if he named it.
        let named = |event: &&Text| queue_name(event) == *look.queue.command;
        let command = subscription.event_types.iter().find(named).unwrap_or(&spelled).clone();
        let notification_id = format!("ntf-{}", Uuid::new_v4());
        let mut called = Ok(());
        for (attempt, wait) in [(1, Duration::ZERO), (2, AT_ONCE_AGAIN)] {
            sleep(wait).await;
            let notice = Notice {
                event_type: &command,
                available: true,
                queue_depth: depth,
                claim_url: &availability.claim_url,
                sent_at: Instant::now(),
                notification_id: notification_id.clone(),
            };
            called = match serde_json::to_vec(&notice) {
                Ok(body) => {
                    let call = Call {
                        kind: KIND,
                        command: &look.queue.command,
                        attempt,
                        target: &target,
                        body,
                        trace_parent: "",
                        trace_state: "",
                    };
                    availability.client.call(call).await
                }
                Err(error) => Err(CallError::Failed(error.to_string())),
            };
            let outcome = if called.is_ok() { "success" } else { "failure" };
            self.metrics.webhook_called(KIND, &look.queue.command, outcome);
            place.in_time(!matches!(called, Err(CallError::TimedOut)));
            if matches!(called, Ok(()) | Err(CallError::TimedOut)) {
                break;
            }
        }
        drop(place);
        if let Err(error) = called {
            tracing::info!(
                tenant = look.queue.tenant_id.as_str(),
                command = command.as_str(),
                subscription = subscription.id.as_str(),
                receiver = %target,
                %error,
                "a subscriber could not be told"
            );
            let wait = AFTER_FAILURE.max(interval_of(&subscription) + SLACK);
            availability.plan(look, Moment::now() + wait, &spelled);
        }
    }
}

/// What metrics call notices.
const KIND: &str = "queue_ready";

/// Of whom one each is told: every subscriber for himself, and the groups.
fn parties(
    subscribers: impl IntoIterator<Item = Boxed<Subscription>>,
    command: &str,
) -> Vec<Party> {
    let mut parties: HashMap<Text, Party> = HashMap::new();
    for subscription in subscribers {
        let mode = subscription.delivery_mode;
        let name = match mode {
            DeliveryMode::Fanout => subscription.id.clone(),
            DeliveryMode::Group => format!("group {}", subscription.group_id).into(),
            DeliveryMode::Hash => format!("hash {}", subscription.group_id).into(),
        };
        let party = Party { name: name.clone(), mode, members: Vec::new() };
        parties.entry(name).or_insert(party).members.push(subscription);
    }
    let mut parties: Vec<Party> = parties.into_values().collect();
    for party in &mut parties {
        // The same order at every host.
        party.members.sort_by(|one, other| one.id.cmp(&other.id));
        if party.mode == DeliveryMode::Hash {
            party.members.sort_by_cached_key(|member| weight(command, member));
            party.members.truncate(1);
        }
    }
    parties
}

/// The member with the least weight is told of a command. When members come or go, only the commands
/// of those move.
fn weight(command: &str, member: &Subscription) -> [u8; 32] {
    Sha256::new()
        .chain_update(command)
        .chain_update([0])
        .chain_update(&*member.id)
        .finalize()
        .into()
}

fn interval_of(subscription: &Subscription) -> Duration {
    Duration::from_secs(subscription.min_interval_seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(id: &str, mode: DeliveryMode, group: &str) -> Boxed<Subscription> {
        Boxed::new(Subscription {
            id: id.into(),
            delivery_mode: mode,
            group_id: group.into(),
            ..Subscription::default()
        })
    }

    fn look(command: &str) -> Look {
        let queue = Queue { tenant_id: "acme".into(), command: command.into() };
        Look { queue, party: None }
    }

    #[tokio::test]
    async fn a_look_is_planned_once_and_at_the_earliest_time_asked_for() {
        let mut plans = Plans::default();
        let now = Moment::now();
        let second = Duration::from_secs(1);
        let spelled = Text::from("A");
        plans.plan(look("a"), now + 2 * second, &spelled);
        plans.plan(look("a"), now + second, &spelled);
        plans.plan(look("a"), now + 3 * second, &spelled);
        assert_eq!(plans.in_order.iter().collect::<Vec<_>>(), [&(now + second, look("a"))]);
    }

    #[tokio::test]
    async fn no_more_looks_are_planned_than_there_is_room_for() {
        let mut plans = Plans::default();
        let spelled = Text::from("A");
        (0..2 * MOST_PLANNED)
            .for_each(|n| plans.plan(look(&n.to_string()), Moment::now(), &spelled));
        assert_eq!((plans.in_order.len(), plans.by_look.len()), (MOST_PLANNED, MOST_PLANNED));
    }

    #[test]
    fn everyone_for_himself_and_one_of_each_group() {
        use DeliveryMode::{Fanout, Group, Hash};
        let subscribers = [
            subscription("1", Fanout, ""),
            subscription("2", Fanout, "blue"),
            subscription("3", Group, "blue"),
            subscription("4", Group, "blue"),
            subscription("5", Group, "red"),
            subscription("6", Hash, "blue"),
            subscription("7", Hash, "blue"),
        ];
        let mut sizes: Vec<(String, usize)> = parties(subscribers, "render")
            .iter()
            .map(|party| (party.name.to_string(), party.members.len()))
            .collect();
        sizes.sort();
        let expected = [("1", 1), ("2", 1), ("group blue", 2), ("group red", 1), ("hash blue", 1)];
        assert_eq!(sizes, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn a_hash_stays_with_its_member_when_others_go() {
        let members = |ids: &[&str]| {
            ids.iter().map(|id| subscription(id, DeliveryMode::Hash, "")).collect::<Vec<_>>()
        };
        let chosen = |ids: &[&str], command: &str| {
            parties(members(ids), command)[0].members[0].id.to_string()
        };
        let commands: Vec<String> = (0..100).map(|n| format!("command-{n}")).collect();
        let before: Vec<String> =
            commands.iter().map(|command| chosen(&["a", "b", "c"], command)).collect();
        for id in ["a", "b", "c"] {
            assert!(before.iter().filter(|chosen| *chosen == id).count() > 15, "{id}: {before:?}");
        }
        for (command, before) in commands.iter().zip(before).filter(|(_, before)| before != "c") {
            assert_eq!(chosen(&["b", "a"], command), before);
        }
    }
}
