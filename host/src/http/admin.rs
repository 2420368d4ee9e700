//! The routes of operators.

use std::sync::Arc;

use axum::{Json as Answer, extract::State};
use codeq_plugin::{Instant, QueueStats};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{auth::Admin, body::OptionalJson, error::ApiError, params::Path};
use crate::service::Service;

/// At most how many tasks a cleanup removes, when the caller does not say.
const CLEANUP_LIMIT: u32 = 1000;

/// The counts of every queue of the caller's tenant.
pub(crate) async fn queues(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
) -> Result<Answer<Value>, ApiError> {
    let queues = service.queues(&caller.tenant).await?;
    Ok(Answer(json!({ "queues": queues.as_slice() })))
}

/// The counts of one queue of the caller's tenant.
pub(crate) async fn queue(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Path(command): Path,
) -> Result<Answer<QueueStats>, ApiError> {
    if command.trim().is_empty() {
        return Err(ApiError::bad_request("command is required"));
    }
    let mut stats = service.queue(&caller.tenant, &command).await?;
    stats.command = command.into();
    Ok(Answer(stats))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CleanupBody {
    limit: Option<i64>,
    before: Option<String>,
}

/// Removes tasks of the caller's tenant whose retention has ended.
pub(crate) async fn cleanup(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    OptionalJson(body): OptionalJson<CleanupBody>,
) -> Result<Answer<Value>, ApiError> {
    let limit = match body.limit {
        None | Some(0) => CLEANUP_LIMIT,
        Some(limit) => u32::try_from(limit)
            .map_err(|_| ApiError::bad_request("invalid 'limit' (must be a whole number >= 0)"))?,
    };
    let before = match body.before.as_deref().map(str::trim) {
        None | Some("") => Instant::now(),
        Some(text) => Instant::parse_rfc3339(text)
            .ok_or_else(|| ApiError::bad_request("invalid 'before' (use RFC3339)"))?,
    };
    let deleted = service.cleanup(&caller.tenant, before, limit).await?;
    Ok(Answer(json!({ "deleted": deleted, "before": before, "limit": limit })))
}
