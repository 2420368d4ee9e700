//! Whether the store works. Anybody may ask, and looking may cost the store a write: so there is one
//! look at a time, however many ask, and not the next one at once.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::store::Store;

/// For how long a look tells.
const LOOK_LASTS: Duration = Duration::from_millis(250);

/// What the last look told, and when.
#[derive(Default)]
pub(super) struct Health(Mutex<Option<(Instant, bool)>>);

impl Health {
    pub(super) async fn of(&self, store: &Store) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, is_well)) = *last
            && at.elapsed() < LOOK_LASTS
        {
            return is_well;
        }
        let health = store.health().await;
        if let Err(error) = &health {
            tracing::warn!(%error, "not ready");
        }
        *last = Some((Instant::now(), health.is_ok()));
        health.is_ok()
    }
}
