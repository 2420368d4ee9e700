//! The routes of operators.

use std::sync::Arc;

use axum::{Json as Answer, extract::State, http::StatusCode};
use codeq_plugin::{Boxed, Instant, Location, Placed, QueueStats, Task, TaskStatus, queue_name};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{
    auth::{Admin, Caller},
    body::OptionalJson,
    cursor::{Listing, invalid_cursor},
    error::ApiError,
    openapi::{Conflict, NotFound, OPERATORS, QueueRecord, Refusals, TaskRecord, Unsupported},
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

/// Every queue of a tenant.
#[derive(ToSchema)]
#[schema(as = Queues)]
#[expect(dead_code, reason = "describes what is written below")]
struct QueuesRecord {
    queues: Vec<QueueRecord>,
}

/// The counts of every queue of the caller's tenant.
#[utoipa::path(
    get, operation_id = "list_queues", path = "/admin/queues", tag = OPERATORS,
    responses((status = 200, description = "The queues.", body = QueuesRecord), Refusals),
)]
pub(crate) async fn queues(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
) -> Result<Answer<Value>, ApiError> {
    let queues = service.queues(&caller.tenant).await?;
    Ok(Answer(json!({ "queues": queues.as_slice() })))
}

/// The counts of one queue of the caller's tenant.
#[utoipa::path(
    get, operation_id = "get_queue", path = "/admin/queues/{command}", tag = OPERATORS, params(("command" = String, Path, description = "The command, in any case.")),
    responses((status = 200, description = "The counts.", body = QueueRecord), Refusals),
)]
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

#[derive(Deserialize, ToSchema)]
#[schema(as = Cleanup)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CleanupBody {
    /// At most how many tasks; 1000 if it is 0.
    #[schema(minimum = 0, maximum = 4_294_967_295_i64)]
    limit: Option<i64>,
    /// Those whose retention had ended by then, in RFC 3339.
    before: Option<String>,
}

/// What a cleanup did.
#[derive(ToSchema)]
#[schema(as = CleanedUp)]
#[expect(dead_code, reason = "describes what is written below")]
struct CleanedUpRecord {
    deleted: u32,
    #[schema(format = DateTime)]
    before: String,
    limit: u32,
}

/// Removes tasks of the caller's tenant whose retention has ended.
#[utoipa::path(
    post, operation_id = "clean_up", path = "/admin/tasks/cleanup", tag = OPERATORS, request_body = Option<CleanupBody>,
    responses((status = 200, description = "What was done.", body = CleanedUpRecord), Refusals),
)]
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
#[derive(Deserialize, Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct ListQuery {
    /// Of which command; not looked at where the path names one.
    command: String,
    /// Not looked at where a queue is named.
    #[param(pattern = "^(|PENDING|IN_PROGRESS|COMPLETED|FAILED)$")]
    status: String,
    /// Must be there where a queue is named.
    #[param(pattern = "^(|ready|delayed|inProgress|dlq)$")]
    state: String,
    /// At most how many tasks, from 1 to 500; 100 if it is 0.
    #[param(value_type = u32, minimum = 0, maximum = 500)]
    limit: String,
    /// The `nextCursor` of the page before.
    cursor: String,
}

/// The query of a listing of one queue.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `ListQuery` reads")]
struct QueueQuery {
    #[param(pattern = "^(ready|delayed|inProgress|dlq)$")]
    state: String,
    /// At most how many tasks, from 1 to 500; 100 if it is 0.
    #[param(minimum = 0, maximum = 500)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A page of tasks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskPage {
    tasks: Vec<ListedTask>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Names the next page; left out if this is the last.
    next_cursor: Option<String>,
}

/// A task of a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListedTask {
    #[serde(flatten)]
    #[schema(value_type = TaskRecord)]
    task: Boxed<Task>,
    /// From when on a delayed task may be claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    visible_at: Option<Instant>,
}

impl From<Placed> for ListedTask {
    fn from(placed: Placed) -> ListedTask {
        let is_delayed = placed.task.last_known_location == Location::DelayedZset;
        ListedTask { visible_at: Some(placed.visible_at).filter(|_| is_delayed), task: placed.task }
    }
}

/// The tasks in one state of a queue of the caller's tenant.
#[utoipa::path(
    get, operation_id = "list_queue_tasks", path = "/admin/queues/{command}/tasks", tag = OPERATORS, params(("command" = String, Path, description = "The command, in any case."), QueueQuery),
    responses((status = 200, description = "A page.", body = TaskPage), Unsupported, Refusals),
)]
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
#[utoipa::path(
    get, operation_id = "list_tasks", path = "/admin/tasks", tag = OPERATORS, params(ListQuery),
    responses((status = 200, description = "A page.", body = TaskPage), Unsupported, Refusals),
)]
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
#[utoipa::path(
    post, operation_id = "requeue_task", path = "/admin/tasks/{id}/requeue", tag = OPERATORS, params(("id" = String, Path, description = "The task.")),
    responses(
        (status = 200, description = "The task, in its queue.", body = TaskRecord),
        NotFound, Conflict, Unsupported, Refusals,
    ),
)]
pub(crate) async fn requeue(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Path(id): Path,
) -> Result<Answer<Boxed<Task>>, ApiError> {
    Ok(Answer(service.requeue(&caller.tenant, &id).await?))
}

/// Removes a task that no worker holds.
#[utoipa::path(
    delete, operation_id = "delete_task", path = "/admin/tasks/{id}", tag = OPERATORS, params(("id" = String, Path, description = "The task.")),
    responses((status = 204, description = "It is gone."), NotFound, Conflict, Refusals),
)]
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    Admin(caller): Admin,
    Path(id): Path,
) -> Result<StatusCode, ApiError> {
    service.delete(&caller.tenant, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The query of what is done to many dead letters.
#[derive(Deserialize, Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct DisposalQuery {
    /// At most how many dead letters, from 1 to 1000; 100 if it is 0.
    #[param(value_type = u32, maximum = 1000)]
    limit: String,
}

/// Dead letters that were given a fresh start.
#[derive(ToSchema)]
#[schema(as = Requeued)]
#[expect(dead_code, reason = "describes what is written below")]
struct RequeuedRecord {
    requeued: u32,
    /// Whether there are more.
    remaining: bool,
}

/// Gives dead letters of a queue a fresh start.
#[utoipa::path(
    post, operation_id = "requeue_dead_letters", path = "/admin/queues/{command}/dlq/requeue", tag = OPERATORS,
    params(("command" = String, Path, description = "The command, in any case."), DisposalQuery),
    responses(
        (status = 200, description = "What was done.", body = RequeuedRecord),
        Unsupported, Refusals,
    ),
)]
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

/// Dead letters that were removed.
#[derive(ToSchema)]
#[schema(as = Purged)]
#[expect(dead_code, reason = "describes what is written below")]
struct PurgedRecord {
    purged: u32,
    /// Whether there are more.
    remaining: bool,
}

/// Removes dead letters of a queue.
#[utoipa::path(
    post, operation_id = "purge_dead_letters", path = "/admin/queues/{command}/dlq/purge", tag = OPERATORS,
    params(("command" = String, Path, description = "The command, in any case."), DisposalQuery),
    responses(
        (status = 200, description = "What was done.", body = PurgedRecord),
        Unsupported, Refusals,
    ),
)]
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
