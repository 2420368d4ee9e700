//! What lies in the queues, and who waits to be told of it: the store is asked when somebody wants to
//! know.
//!
//! The answer is kept for a moment, so that many who ask cost no more than one, and a store that does
//! not answer keeps nobody waiting for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{ByCommand, Capability, List, Optional, QueueStats};
use tokio::sync::Mutex as AsyncMutex;

use super::{Commands, Register};
use crate::{
    service::INTERNAL_TENANT,
    store::{Store, StoreError},
};

/// How long the counts of the queues are kept, and those of the subscriptions, which cost a call for
/// each queue.
const QUEUES_KEPT: Duration = Duration::from_secs(1);
const SUBSCRIPTIONS_KEPT: Duration = Duration::from_secs(15);
/// How long the store may take to answer, as in codeQ.
const LIMIT: Duration = Duration::from_secs(2);
/// For at most how many queues subscriptions are counted.
const MOST_SUBSCRIBED: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    last: AsyncMutex<Last>,
    /// Queues that somebody subscribed to through this host.
    subscribed: Mutex<BTreeSet<QueueName>>,
}

type QueueName = (String, String);

#[derive(Debug, Default)]
struct Last {
    rendered: Option<(Clock, String)>,
    subscriptions: Option<(Clock, BTreeMap<String, i64>)>,
    was_down: bool,
}

impl Backlog {
    pub(super) fn subscribed(&self, tenant: &str, command: &str) {
        let mut subscribed = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
        if subscribed.len() < MOST_SUBSCRIBED {
            subscribed.insert((tenant.to_owned(), codeq_plugin::queue_name(command).into_owned()));
        }
    }

    /// The gauges in Prometheus's text format.
    pub(super) async fn render(
        &self,
        store: &Store,
        commands: &Commands,
    ) -> Result<String, prometheus::Error> {
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &last.rendered
            && at.elapsed() < QUEUES_KEPT
        {
            return Ok(text.clone());
        }
        // Made anew each time, so that nothing is told of queues that are gone.
        let gauges = Register::default();
        let up = gauges.gauge("codeq_backend_up", "Whether the backend answers: 1, or 0.")?;
        let asked = tokio::time::timeout(LIMIT, async {
            store.health().await?;
            store.admin_queues(Optional::RNone).await
        });
        match asked.await {
            Ok(Ok(queues)) => {
                last.was_down = false;
                up.set(1);
                queue_gauges(&gauges, &queues, commands)?;
                if store.has(Capability::Subscriptions) {
                    let counted = self.subscriptions(&mut last, store, &queues, commands).await;
                    subscription_gauges(&gauges, counted)?;
                }
            }
            Ok(Err(error)) => last.is_down(&error),
            Err(_) => last.is_down(&format_args!("no answer within {LIMIT:?}")),
        }
        let text = gauges.render()?;
        last.rendered = Some((Clock::now(), text.clone()));
        Ok(text)
    }

    async fn subscriptions(
        &self,
        last: &mut Last,
        store: &Store,
        queues: &List<QueueStats>,
        commands: &Commands,
    ) -> BTreeMap<String, i64> {
        match &last.subscriptions {
            Some((at, counted)) if at.elapsed() < SUBSCRIPTIONS_KEPT => return counted.clone(),
            _ => {}
        }
        let known = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = |queue: &QueueStats| (queue.tenant_id.to_string(), queue.command.to_string());
        let others = queues.iter().filter(|queue| is_counted(queue)).map(name);
        let names: BTreeSet<QueueName> =
            known.into_iter().chain(others).take(MOST_SUBSCRIBED).collect();
        let counted = tokio::time::timeout(LIMIT, async {
            let mut counted = BTreeMap::new();
            for (tenant, command) in names {
                let label = commands.label(&command).into_owned();
                let by = ByCommand { tenant_id: tenant.into(), command: command.into() };
                let active = store.get_by_command(by).await?.len();
                *counted.entry(label).or_default() += gauged(active as u64);
            }
            Ok::<_, StoreError>(counted)
        });
        match counted.await {
            Ok(Ok(counted)) => {
                last.subscriptions = Some((Clock::now(), counted.clone()));
                counted
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the subscriptions cannot be counted");
                BTreeMap::new()
            }
            Err(_) => BTreeMap::new(),
        }
    }
}

impl Last {
    /// Says so once, however often somebody asks.
    fn is_down(&mut self, error: &dyn Display) {
        if !self.was_down {
            tracing::warn!(%error, "the metrics lack the queues: the backend does not tell");
        }
        self.was_down = true;
    }
}

fn queue_gauges(
    gauges: &Register,
    queues: &[QueueStats],
    commands: &Commands,
) -> Result<(), prometheus::Error> {
    let depth = gauges.gauges(
        "codeq_queue_depth",
        "Tasks in the queues: ready, delayed, in_progress, dlq.",
        &["command", "queue"],
    )?;
    let dead = gauges.gauges("codeq_dlq_depth", "Dead letters.", &["command"])?;
    for queue in queues.iter().filter(|queue| is_counted(queue)) {
        let command = commands.label(&queue.command);
        let places = [
            ("ready", queue.ready),
            ("delayed", queue.delayed),
            ("in_progress", queue.in_progress),
            ("dlq", queue.dlq),
        ];
        for (place, count) in places {
            depth.with_label_values(&[&*command, place]).add(gauged(count));
        }
        dead.with_label_values(&[&*command]).add(gauged(queue.dlq));
    }
    Ok(())
}

fn subscription_gauges(
    gauges: &Register,
    counted: BTreeMap<String, i64>,
) -> Result<(), prometheus::Error> {
    let name = "codeq_subscriptions_active";
    let active = gauges.gauges(name, "Subscriptions that have not expired.", &["command"])?;
    for (command, count) in counted {
        active.with_label_values(&[&command]).set(count);
    }
    Ok(())
}

fn gauged(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn is_counted(queue: &QueueStats) -> bool {
    queue.tenant_id != INTERNAL_TENANT
}
