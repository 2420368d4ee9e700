//! Whether the store works. Anybody may ask, and looking may cost the store a write: so there is one
//! look at a time, and all who asked before it began share the next one.

use std::time::Instant;

use tokio::sync::Mutex;

use crate::store::Store;

/// When the last look began, and what it told.
#[derive(Default)]
pub(super) struct Health(Mutex<Option<(Instant, bool)>>);

impl Health {
    pub(super) async fn of(&self, store: &Store) -> bool {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((began, is_well)) = *last
            && began >= asked
        {
            return is_well;
        }
        let began = Instant::now();
        let health = store.health().await;
        if let Err(error) = &health {
            tracing::warn!(%error, "not ready");
        }
        *last = Some((began, health.is_ok()));
        health.is_ok()
    }
}
