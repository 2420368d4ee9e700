//! What the host counts, for Prometheus.
//!
//! Names and labels are those of codeQ, so that its dashboards and alerts go on working; what codeQ
//! does not have follows its manner. [`calls`] is what a plugin is asked, [`backlog`] what lies in the
//! queues, [`requests`] what comes in over HTTP.
//!
//! No series has a tenant, and commands come from callers: the first [`MOST_COMMANDS`] have a label
//! of their own, all others together are `other`.

mod backlog;
mod calls;
mod requests;

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use codeq_plugin::{Instant, Task, TaskStatus, queue_name};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector, proto::MetricFamily,
};

use crate::{service::INTERNAL_TENANT, store::Store};
use backlog::Backlog;
pub(crate) use calls::{Calls, Operation};
pub use requests::Gauged;
pub(crate) use requests::RequestInFlight;
use requests::Requests;

/// How many commands have a label of their own.
const MOST_COMMANDS: usize = 1000;

/// The label of all other commands.
const OTHER: &str = "other";

/// As in codeQ, in seconds.
const PROCESSING_LATENCY: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// The figures of one host. Clones are the same figures.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    register: Register,
    commands: Commands,
    tasks_created: IntCounterVec,
    tasks_claimed: IntCounterVec,
    tasks_completed: IntCounterVec,
    processing_latency: HistogramVec,
    leases_expired: IntCounterVec,
    webhook_deliveries: IntCounterVec,
    rate_limit_hits: IntCounterVec,
    long_polls: IntGaugeVec,
    requests: Requests,
    backlog: Backlog,
}

impl Metrics {
    /// Figures that begin at zero.
    ///
    /// # Errors
    ///
    /// Two figures have one name, which only a mistake in this module could bring about.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let register = Register::default();
        register
            .gauges("codeq_build_info", "The host's version.", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        #[cfg(target_os = "linux")]
        register
            .registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Metrics(Arc::new(Figures {
            tasks_created: register.counters(
                "codeq_task_created_total",
                "Tasks that were created.",
                &["command"],
            )?,
            tasks_claimed: register.counters(
                "codeq_task_claimed_total",
                "Tasks that were claimed.",
                &["command"],
            )?,
            tasks_completed: register.counters(
                "codeq_task_completed_total",
                "Tasks that came to their end, dead letters among the failed ones.",
                &["command", "status"],
            )?,
            processing_latency: register.histograms(
                "codeq_task_processing_latency_seconds",
                "From a task's creation to its end.",
                &["command", "status"],
                &PROCESSING_LATENCY,
            )?,
            leases_expired: register.counters(
                "codeq_lease_expired_total",
                "Leases that ran out.",
                &["command"],
            )?,
            webhook_deliveries: register.counters(
                "codeq_webhook_deliveries_total",
                "Calls of webhooks, by what became of them.",
                &["kind", "command", "outcome"],
            )?,
            rate_limit_hits: register.counters(
                "codeq_rate_limit_hits_total",
                "Requests that were refused because their caller called too often.",
                &["scope", "operation"],
            )?,
            long_polls: register.gauges(
                "codeq_long_polls_waiting",
                "Callers who wait for a task (claim) or for a result (result).",
                &["kind"],
            )?,
            requests: Requests::new(&register)?,
            commands: Commands::default(),
            backlog: Backlog::default(),
            register,
        })))
    }

    /// Counts what is asked of a store from now on.
    ///
    /// # Errors
    ///
    /// The calls of a store are counted already.
    pub fn count_calls(&self, store: &Store) -> Result<(), prometheus::Error> {
        let manifest = store.manifest();
        let register = &self.0.register;
        let labels = ["plugin", "version", "durability"];
        register
            .gauges("codeq_plugin_info", "The plugin that keeps the tasks.", &labels)?
            .with_label_values(&[&manifest.name, &manifest.version, store.durability().as_str()])
            .set(1);
        store.count_calls(Calls::new(register, &manifest.name)?);
        Ok(())
    }

    /// All figures, in Prometheus's text format. Those that the store has to be asked for are left
    /// out if it does not answer soon.
    ///
    /// # Errors
    ///
    /// The figures cannot be written, which only a mistake in this module could bring about.
    pub async fn render(&self, store: &Store) -> Result<String, prometheus::Error> {
        let backlog = self.0.backlog.render(store, &self.0.commands).await?;
        Ok(self.0.register.render()? + &backlog)
    }

    /// A task was created.
    pub(crate) fn task_created(&self, task: &Task) {
        self.by_command(&self.0.tasks_created, task);
    }

    /// A worker got a task.
    pub(crate) fn task_claimed(&self, task: &Task) {
        self.by_command(&self.0.tasks_claimed, task);
    }

    fn by_command(&self, counters: &IntCounterVec, task: &Task) {
        if task.tenant_id != INTERNAL_TENANT {
            counters.with_label_values(&[&*self.0.commands.label(&task.command)]).inc();
        }
    }

    /// A task came to its end, then.
    pub(crate) fn task_ended(&self, task: &Task, status: TaskStatus, at: Instant) {
        if task.tenant_id == INTERNAL_TENANT {
            return;
        }
        let command = self.0.commands.label(&task.command);
        let labels = [&*command, status.as_str()];
        self.0.tasks_completed.with_label_values(&labels).inc();
        // A backend's clock may be ahead of this one's.
        if at >= task.created_at {
            let latency = Duration::from(at.since(task.created_at)).as_secs_f64();
            self.0.processing_latency.with_label_values(&labels).observe(latency);
        }
    }

    /// Leases of a queue ran out.
    pub(crate) fn leases_expired(&self, tenant: &str, command: &str, count: u32) {
        if tenant != INTERNAL_TENANT {
            let command = self.0.commands.label(command);
            self.0.leases_expired.with_label_values(&[&*command]).inc_by(count.into());
        }
    }

    /// A webhook was called for a command: `kind` is `queue_ready` or `task_result`, `outcome` is
    /// `success` or `failure`, as in codeQ.
    pub fn webhook_called(&self, kind: &str, command: &str, outcome: &str) {
        let command = self.0.commands.label(command);
        self.0.webhook_deliveries.with_label_values(&[kind, &*command, outcome]).inc();
    }

    /// A request was refused because its caller called too often.
    pub fn rate_limited(&self, scope: &str, operation: &str) {
        self.0.rate_limit_hits.with_label_values(&[scope, operation]).inc();
    }

    /// Somebody subscribed to a command, or renewed it: how many do is told from now on.
    pub fn subscribed(&self, tenant: &str, command: &str) {
        self.0.backlog.subscribed(tenant, command);
    }

    /// Somebody waits, for as long as the answer is kept: `claim` for a task, `result` for a result.
    pub(crate) fn long_poll(&self, kind: &'static str) -> Gauged {
        Gauged::one(self.0.long_polls.with_label_values(&[kind]))
    }

    /// A connection is open, for as long as the answer is kept.
    pub fn connection(&self) -> Gauged {
        self.0.requests.connection()
    }

    /// A request came in.
    pub(crate) fn request<'a>(
        &'a self,
        method: &'static str,
        route: &'a str,
    ) -> RequestInFlight<'a> {
        self.0.requests.begin(method, route)
    }
}

/// The commands that have labels of their own.
#[derive(Debug, Default)]
struct Commands(RwLock<HashSet<Box<str>>>);

impl Commands {
    /// A command's label: the name of its queue, or `other`.
    fn label<'a>(&self, command: &'a str) -> Cow<'a, str> {
        let name = queue_name(command);
        if self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&*name) {
            return name;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_COMMANDS {
            known.insert((&*name).into());
        }
        if known.contains(&*name) { name } else { Cow::Borrowed(OTHER) }
    }
}

/// Takes in figures as they are made.
#[derive(Debug, Default)]
struct Register {
    registry: Registry,
    declared: Mutex<Vec<Declared>>,
}

/// What the text format says of a figure.
#[derive(Debug)]
struct Declared {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
}

impl Register {
    fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?, name, help, "counter")
    }

    fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, labels)?, name, help, "histogram")
    }

    fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?, name, help, "gauge")
    }

    fn gauge(&self, name: &'static str, help: &'static str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?, name, help, "gauge")
    }

    fn add<C: Collector + Clone + 'static>(
        &self,
        collector: C,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
    ) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(collector.clone()))?;
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        declared.push(Declared { name, help, kind });
        Ok(collector)
    }

    /// The text format. It names a figure even if there is nothing to tell of it yet.
    fn render(&self) -> Result<String, prometheus::Error> {
        let families = self.registry.gather();
        let told: HashSet<&str> = families.iter().map(MetricFamily::name).collect();
        let mut text = TextEncoder::new().encode_to_string(&families)?;
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        for Declared { name, help, kind } in
            declared.iter().filter(|declared| !told.contains(declared.name))
        {
            text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_one_label_however_it_is_spelled() {
        let commands = Commands::default();
        assert_eq!(commands.label("Render"), "render");
        assert_eq!(commands.label("RENDER"), "render");
    }

    #[test]
    fn commands_beyond_the_first_thousand_share_a_label() {
        let commands = Commands::default();
        for n in 0..MOST_COMMANDS {
            assert_eq!(commands.label(&format!("c{n}")), format!("c{n}"));
        }
        assert_eq!(commands.label("one-more"), OTHER);
        assert_eq!(commands.label("c7"), "c7", "those that had a label keep it");
    }

    #[test]
    fn the_hosts_own_tasks_are_not_counted() {
        let metrics = Metrics::new().unwrap();
        let task = Task { tenant_id: INTERNAL_TENANT.into(), ..Task::default() };
        metrics.task_created(&task);
        metrics.task_ended(&task, TaskStatus::Completed, Instant::now());
        metrics.leases_expired(INTERNAL_TENANT, "callback", 1);
        let names: Vec<String> = metrics
            .0
            .register
            .registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        assert!(!names.iter().any(|name| name.contains("_task_")), "{names:?}");
    }
}
