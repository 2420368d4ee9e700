//! The routes of operators.

use std::sync::Arc;

use axum::{Json as Answer, extract::State, http::StatusCode};
use codeq_plugin::{Boxed, Instant, Location, Placed, QueueStats, Task, TaskStatus, queue_name};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    auth::{Admin, Caller},
    body::OptionalJson,
    cursor::{Listing, invalid_cursor},
    error::ApiError,
    params::{Path, Query},
};
use crate::service::{Disposal, Disposed, QueueState, Service, ServiceError, TaskFilter};

/// At most how many tasks a cleanup removes, when the caller does not say.
const CLEANUP_LIMIT: u32 = 1000;
/// How many tasks a page has, and how many dead letters a call handles, when the caller does not say.
const USUAL_LIMIT: u32 = 100;
/// At most how many tasks a page has; each carries its payload.
const LARGEST_PAGE: u32 = 500;
/// At most how many dead letters a call handles.
const LARGEST_DISPOSAL: u32 = 1000;

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
    check_command(&command)?;
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

/// The query of a listing.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct ListQuery {
    command: String,
    status: String,
    state: String,
    limit: String,
    cursor: String,
}

/// A page of tasks.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskPage {
    tasks: Vec<ListedTask>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedTask {
    #[serde(flatten)]
    task: Boxed<Task>,
    /// From when on a delayed task may be claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    visible_at: Option<Instant>,
}

impl From<Placed> for ListedTask {
    fn from(placed: Placed) -> ListedTask {
        let is_delayed = placed.task.last_known_location == Location::DelayedZset;
        ListedTask { visible_at: Some(placed.visible_at).filter(|_| is_delayed), task: placed.task }
    }
}

/// The tasks in one state of a queue of the caller's tenant.
pub(crate) async fn queue_tasks(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Path(command): Path,
    Query(query): Query<ListQuery>,
) -> Result<Answer<TaskPage>, ApiError> {
    check_command(&command)?;
    let filter = TaskFilter {
        command: Some(command),
        status: None,
        state: Some(QueueState::named(&query.state).ok_or_else(invalid_state)?),
    };
    list(&service, &caller, &filter, &query).await
}

/// The tasks of the caller's tenant, those of all queues unless one is named, finished ones too.
pub(crate) async fn tasks(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Query(query): Query<ListQuery>,
) -> Result<Answer<TaskPage>, ApiError> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let filter = TaskFilter {
        command: some(&query.command),
        status: some(&query.status).map(|name| status_named(&name)).transpose()?,
        state: some(&query.state)
            .map(|name| QueueState::named(&name).ok_or_else(invalid_state))
            .transpose()?,
    };
    list(&service, &caller, &filter, &query).await
}

async fn list(
    service: &Service,
    caller: &Caller,
    filter: &TaskFilter,
    query: &ListQuery,
) -> Result<Answer<TaskPage>, ApiError> {
    let limit = limit_of(&query.limit, LARGEST_PAGE)?;
    let command = filter.command.as_deref().map(queue_name).unwrap_or_default();
    let listing = Listing::of(&[&caller.tenant, &command, &query.status, &query.state]);
    let cursor = listing.read(&query.cursor)?;
    let page = service.list(&caller.tenant, filter, &cursor, limit).await;
    let page = page.map_err(|error| match error {
        // Whatever makes no sense to the store in a list is its cursor.
        ServiceError::Invalid(_) if !cursor.is_empty() => invalid_cursor(),
        other => other.into(),
    })?;
    Ok(Answer(TaskPage {
        tasks: page.tasks.into_iter().map(ListedTask::from).collect(),
        next_cursor: listing.write(&page.cursor),
    }))
}

/// Gives a dead letter a fresh start.
pub(crate) async fn requeue(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Path(id): Path,
) -> Result<Answer<Boxed<Task>>, ApiError> {
    Ok(Answer(service.requeue(&caller.tenant, &id).await?))
}

/// Removes a task that no worker holds.
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Path(id): Path,
) -> Result<StatusCode, ApiError> {
    service.delete(&caller.tenant, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The query of what is done to many dead letters.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct DisposalQuery {
    limit: String,
}

/// Gives dead letters of a queue a fresh start.
pub(crate) async fn requeue_dead_letters(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Path(command): Path,
    Query(query): Query<DisposalQuery>,
) -> Result<Answer<Value>, ApiError> {
    let Disposed { count, remaining } =
        dispose(&service, &caller, &command, Disposal::Requeue, &query).await?;
    Ok(Answer(json!({ "requeued": count, "remaining": remaining })))
}

/// Removes dead letters of a queue.
pub(crate) async fn purge_dead_letters(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Path(command): Path,
    Query(query): Query<DisposalQuery>,
) -> Result<Answer<Value>, ApiError> {
    let Disposed { count, remaining } =
        dispose(&service, &caller, &command, Disposal::Purge, &query).await?;
    Ok(Answer(json!({ "purged": count, "remaining": remaining })))
}

async fn dispose(
    service: &Arc<Service>,
    caller: &Caller,
    command: &str,
    disposal: Disposal,
    query: &DisposalQuery,
) -> Result<Disposed, ApiError> {
    check_command(command)?;
    let limit = limit_of(&query.limit, LARGEST_DISPOSAL)?;
    Ok(service.dispose(&caller.tenant, command, disposal, limit).await?)
}

fn check_command(command: &str) -> Result<(), ApiError> {
    if command.trim().is_empty() {
        return Err(ApiError::bad_request("command is required"));
    }
    Ok(())
}

/// A number from 1 to `most`; 0 and nothing leave it to the host, as in codeQ.
fn limit_of(text: &str, most: u32) -> Result<u32, ApiError> {
    match if text.is_empty() { Ok(0) } else { text.parse() } {
        Ok(0) => Ok(USUAL_LIMIT),
        Ok(limit) if limit <= most => Ok(limit),
        _ => Err(ApiError::bad_request(format!("invalid 'limit' (use 1 to {most})"))),
    }
}

fn invalid_state() -> ApiError {
    ApiError::bad_request("invalid 'state' (use ready, delayed, inProgress or dlq)")
}

fn status_named(name: &str) -> Result<TaskStatus, ApiError> {
    let all =
        [TaskStatus::Pending, TaskStatus::InProgress, TaskStatus::Completed, TaskStatus::Failed];
    all.into_iter().find(|status| status.as_str() == name).ok_or_else(|| {
        ApiError::bad_request("invalid 'status' (use PENDING, IN_PROGRESS, COMPLETED or FAILED)")
    })
}
