//! What a plugin is asked: how often each operation is called, how long it takes, how it fails.
//!
//! The figures of an operation are looked up once, not with every call: plugins may answer in less
//! than a microsecond.

use std::{sync::Arc, time::Instant as Clock};

use codeq_plugin::Error;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::Register;

/// In seconds: from plugins that work in memory to a backend that is about to be given up.
const BUCKETS: [f64; 15] = [
    0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5,
    1.0, 5.0, 30.0,
];

/// One operation of a plugin.
pub(crate) struct Operation {
    plugin: String,
    name: &'static str,
    begun: IntCounter,
    duration: Histogram,
    errors: IntCounterVec,
}

impl Operation {
    /// A call begins.
    pub(crate) fn begin(&self) -> Clock {
        self.begun.inc();
        Clock::now()
    }

    /// A call that began then was answered.
    pub(crate) fn end(&self, begun: Clock) {
        self.duration.observe(begun.elapsed().as_secs_f64());
    }

    /// A call, or an item of one, failed.
    pub(crate) fn failed(&self, error: &Error) {
        let labels = [&*self.plugin, self.name, error.kind().as_str()];
        self.errors.with_label_values(&labels).inc();
    }
}

macro_rules! operations {
    ($($name:ident)*) => {
        /// The operations of a plugin. Waiting for events is none: it takes as long as nothing
        /// happens.
        pub(crate) struct Calls {
            $(pub(crate) $name: Arc<Operation>,)*
        }

        impl Calls {
            /// The calls of a plugin, none yet.
            pub(super) fn new(
                register: &Register,
                plugin: &str,
            ) -> Result<Calls, prometheus::Error> {
                let begun = register.counters(
                    "codeq_plugin_calls_total",
                    "Calls of the plugin, counted when they begin.",
                    &["plugin", "operation"],
                )?;
                let duration = register.histograms(
                    "codeq_plugin_call_duration_seconds",
                    "How long calls of the plugin took that it answered.",
                    &["plugin", "operation"],
                    &BUCKETS,
                )?;
                let errors = register.counters(
                    "codeq_plugin_errors_total",
                    "Calls of the plugin that failed, and items of batches that did.",
                    &["plugin", "operation", "kind"],
                )?;
                let operation = |name: &'static str| {
                    let labels = [plugin, name];
                    Arc::new(Operation {
                        plugin: plugin.to_owned(),
                        name,
                        begun: begun.with_label_values(&labels),
                        duration: duration.with_label_values(&labels),
                        errors: errors.clone(),
                    })
                };
                Ok(Calls { $($name: operation(stringify!($name)),)* })
            }
        }
    };
}

operations! {
    save get delete enqueue claim update_lease abandon_lease nack move_due_delayed requeue_expired
    redrive save_result get_result update_task_on_complete remove_from_inprog_and_clear_lease complete
    register renew unregister get_by_command get_by_worker remove_expired allow_notify
    next_group_index queue_length queue_stats admin_queues cleanup_expired list health close
}
