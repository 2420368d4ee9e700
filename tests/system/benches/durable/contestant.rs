//! What is measured: anything that takes tasks, gives them out, and takes results.

use codeq_host::Store;
use codeq_plugin::{Batch, Boxed, Claim, Complete, Completed, Enqueue, Enqueued, Task};

/// A queue under test. Each answer comes when what it tells is on disk; what goes wrong ends the run.
pub(crate) trait Contestant: Clone + Send + Sync + 'static {
    fn enqueue(&self, enqueue: Enqueue) -> impl Future<Output = Enqueued> + Send;

    /// At most one task.
    fn claim(&self, claim: Claim) -> impl Future<Output = Option<Boxed<Task>>> + Send;

    fn complete(&self, complete: Complete) -> impl Future<Output = Completed> + Send;
}

/// A loaded plugin, as the host uses it.
impl Contestant for Store {
    async fn enqueue(&self, enqueue: Enqueue) -> Enqueued {
        let batch = Batch::One(enqueue);
        Store::enqueue(self, batch).await.unwrap().into_only().unwrap().unwrap()
    }

    async fn claim(&self, claim: Claim) -> Option<Boxed<Task>> {
        Store::claim(self, claim).await.unwrap().tasks.into_only()
    }

    async fn complete(&self, complete: Complete) -> Completed {
        let batch = Batch::One(complete);
        Store::complete(self, batch).await.unwrap().into_only().unwrap().unwrap()
    }
}
