//! Tasks on their way from the store to the caller who claimed them.

use std::{mem, sync::Arc};

use codeq_plugin::{Batch, Boxed, Extensions, Lease, Task};

use super::Service;

/// Claimed tasks that their worker does not have yet.
///
/// If the worker goes away meanwhile, the tasks are handed back unharmed: nobody waits for a lease
/// of which nobody knows.
pub struct Handover {
    service: Arc<Service>,
    tasks: Batch<Boxed<Task>>,
}

impl Handover {
    pub(super) fn new(service: Arc<Service>, tasks: Batch<Boxed<Task>>) -> Handover {
        Handover { service, tasks }
    }

    pub(super) fn nothing(service: &Arc<Service>) -> Handover {
        Handover::new(Arc::clone(service), Batch::default())
    }

    /// The tasks, for their worker.
    pub fn deliver(mut self) -> Batch<Boxed<Task>> {
        mem::take(&mut self.tasks)
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.tasks.is_empty() {
            return;
        }
        let leases: Batch<Lease> = mem::take(&mut self.tasks).into_iter().map(lease_of).collect();
        let service = Arc::clone(&self.service);
        // Outside a runtime the process is ending, and the leases run out by themselves.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { service.hand_back(leases).await });
        }
    }
}

fn lease_of(task: Boxed<Task>) -> Lease {
    let task = Boxed::into_inner(task);
    Lease {
        task_id: task.id,
        worker_id: task.worker_id,
        tenant_id: task.tenant_id,
        attempt: task.attempts,
        extensions: Extensions::new(),
    }
}

impl Service {
    async fn hand_back(&self, leases: Batch<Lease>) {
        let count = leases.len();
        match self.store.abandon_lease(leases).await {
            Ok(returned) => {
                tracing::debug!(count, "handed tasks back whose worker went away");
                for returned in
                    returned.into_iter().filter_map(|returned| returned.into_result().ok())
                {
                    self.notice_returned(&returned);
                }
            }
            Err(error) => {
                tracing::warn!(count, %error, "tasks whose worker went away stay leased until the leases end");
            }
        }
    }
}
