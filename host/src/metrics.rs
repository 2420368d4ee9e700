//! What the host counts, for Prometheus.
//!
//! Names and labels are those of codeQ, so that its dashboards and alerts go on working.

use prometheus::{IntCounterVec, Opts, Registry};

/// The figures of one host.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    webhook_deliveries: IntCounterVec,
    rate_limit_hits: IntCounterVec,
}

impl Metrics {
    /// Figures that begin at zero.
    ///
    /// # Errors
    ///
    /// Two figures have one name, which only a mistake in this file could bring about.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Metrics {
            webhook_deliveries: counter(
                "codeq_webhook_deliveries_total",
                "Calls of webhooks, by what became of them.",
                &["kind", "command", "outcome"],
            )?,
            rate_limit_hits: counter(
                "codeq_rate_limit_hits_total",
                "Requests that were refused because their caller called too often.",
                &["scope", "operation"],
            )?,
            registry,
        })
    }

    /// A webhook was called for a command: `kind` is `queue_ready` or `result`, `outcome` is
    /// `success` or `failure`, as in codeQ.
    pub(crate) fn webhook_called(&self, kind: &str, command: &str, outcome: &str) {
        self.webhook_deliveries.with_label_values(&[kind, command, outcome]).inc();
    }

    /// A request was refused because its caller called too often.
    pub(crate) fn rate_limited(&self, scope: &str, operation: &str) {
        self.rate_limit_hits.with_label_values(&[scope, operation]).inc();
    }
}
