//! The routes of producers and workers.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use codeq_plugin::{
    Boxed, Extensions, Instant, Lease, Location, Millis, Task, TaskResult, TaskStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use utoipa::{IntoParams, ToSchema};

use super::{
    artifacts::{self, ArtifactBody},
    auth::{Caller, Claimer, Producer, Reader, Worker, scope},
    body::{Json, OptionalJson, parse},
    connection::Peer,
    error::ApiError,
    openapi::{
        Conflict, NewResultRecord, NotFound, PRODUCERS, READERS, Refusals, ResultRecord,
        TaskRecord, WORKERS,
    },
    params::{Path, Query},
};
use crate::service::{Claimant, NewTask, Outcome, Service, Submission};

/// At most how many items a batch has.
const LARGEST_BATCH: usize = 100;
/// At most how many tasks one claim takes.
const LARGEST_CLAIM: u32 = 10;
/// At most how many commands a claim names: the store looks into the queue of each.
const MOST_COMMANDS: usize = 100;
/// The longest waits, in seconds.
const LONGEST_CLAIM_WAIT: i64 = 30;
const LONGEST_RESULT_WAIT: i64 = 60;

/// A task as its producer sends it.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewTask)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskBody {
    /// The kind of work; not blank, and without control characters.
    #[serde(default)]
    #[schema(required, min_length = 1, max_length = 256)]
    command: String,
    /// Whatever the worker needs.
    #[schema(required, schema_with = super::openapi::payload)]
    payload: Option<Box<RawValue>>,
    /// From 9, first, to 0; what is out of range is brought into it.
    priority: Option<i64>,
    /// How often it may be delivered; the host's default if it is not above 0.
    max_attempts: Option<i64>,
    /// Where the result is posted to.
    webhook: Option<String>,
    /// Two tasks with the same key within a day are one.
    #[schema(pattern = r"^[^\x00]*$")]
    idempotency_key: Option<String>,
    /// When it may be claimed, in RFC 3339; wins over `delaySeconds`.
    run_at: Option<String>,
    /// In how many seconds it may be claimed.
    #[schema(minimum = 0)]
    delay_seconds: Option<f64>,
}

/// Creates a task.
#[utoipa::path(
    post, operation_id = "create_task", path = "/tasks", tag = PRODUCERS, request_body = TaskBody,
    responses((status = 202, description = "The task, in its queue.", body = TaskRecord), Refusals),
)]
pub(crate) async fn create(
    State(service): State<Arc<Service>>,
    Producer(caller): Producer,
    headers: HeaderMap,
    Json(body): Json<TaskBody>,
) -> Result<(StatusCode, Answer<Boxed<Task>>), ApiError> {
    let task = service.create(&caller.tenant, new_task(body, &headers)?).await?;
    Ok((StatusCode::ACCEPTED, Answer(task)))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewTasks)]
pub(crate) struct BatchBody {
    #[schema(value_type = Vec<TaskBody>, min_items = 1, max_items = 100)]
    tasks: Vec<Box<RawValue>>,
}

/// Creates up to 100 tasks, each on its own.
#[utoipa::path(
    post, operation_id = "create_tasks", path = "/tasks/batch", tag = PRODUCERS, request_body = BatchBody,
    responses(
        (status = 200, description = "An answer to each, in order.", body = Results<CreatedItem>),
        Refusals,
    ),
)]
pub(crate) async fn create_batch(
    State(service): State<Arc<Service>>,
    Producer(caller): Producer,
    headers: HeaderMap,
    Json(body): Json<BatchBody>,
) -> Result<Answer<Results<CreatedItem>>, ApiError> {
    check_batch(&body.tasks)?;
    let read = |raw: &RawValue| new_task(parse(raw.get().as_bytes())?, &headers);
    let (tasks, refused) = sort_out(body.tasks.iter().map(AsRef::as_ref).map(read));
    let created = service.create_all(&caller.tenant, tasks).await;
    let mut created = created.into_iter().map(|task| task.map_err(ApiError::from));
    let results =
        refused.into_iter().map(|refusal| match refusal.map_or_else(|| next(&mut created), Err) {
            Ok(task) => CreatedItem { task: Some(task), error: None },
            Err(error) => CreatedItem { task: None, error: Some(error.into_message()) },
        });
    Ok(Answer(Results { results: results.collect() }))
}

/// The answers to a batch.
///
/// Answers that contain results are written as they stand rather than by way of a JSON value, which
/// could not hold every number and nesting that a worker may send.
#[derive(Serialize, ToSchema)]
pub(crate) struct Results<T: ToSchema> {
    results: Vec<T>,
}

/// What became of one task of a batch: it is in its queue, or why it is not.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TaskRecord>)]
    task: Option<Boxed<Task>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn new_task(body: TaskBody, headers: &HeaderMap) -> Result<NewTask, ApiError> {
    if body.command.trim().is_empty() {
        return Err(ApiError::invalid_body("`command` is required"));
    }
    let payload = body.payload.ok_or_else(|| ApiError::invalid_body("`payload` is required"))?;
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    Ok(NewTask {
        visible_at: visible_at(body.run_at.as_deref(), body.delay_seconds)?,
        command: body.command,
        payload: payload.get().to_owned(),
        priority: body.priority.unwrap_or(0),
        max_attempts: body.max_attempts.unwrap_or(0),
        webhook: body.webhook.unwrap_or_default(),
        idempotency_key: body.idempotency_key.unwrap_or_default(),
        trace_parent: header("traceparent"),
        trace_state: header("tracestate"),
    })
}

fn visible_at(run_at: Option<&str>, delay: Option<f64>) -> Result<Option<Instant>, ApiError> {
    if let Some(text) = run_at.map(str::trim).filter(|text| !text.is_empty()) {
        let at = Instant::parse_rfc3339(text);
        return at.map(Some).ok_or_else(|| ApiError::bad_request("invalid 'runAt' (use RFC3339)"));
    }
    Ok(delay_of(delay)?.map(|delay| Instant::now() + delay))
}

/// Seconds, with fractions down to the millisecond.
fn delay_of(seconds: Option<f64>) -> Result<Option<Millis>, ApiError> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds >= 0.0 => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a float saturates when it is cast"
            )]
            let millis = (seconds * 1000.0).round() as i64;
            Ok(Some(Millis(millis)))
        }
        Some(_) => Err(ApiError::bad_request("invalid 'delaySeconds' (must be >= 0)")),
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = Claim)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimBody {
    /// From which commands, in this order; those of the token if none are named.
    #[serde(default)]
    #[schema(max_items = 100)]
    commands: Option<Vec<String>>,
    /// For how long; the host's default if it is not above 0.
    lease_seconds: Option<i64>,
    /// How long to wait for a task if there is none, from 0 to 30.
    wait_seconds: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = BatchClaim)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchClaimBody {
    /// From which commands, in this order; those of the token if none are named.
    #[serde(default)]
    #[schema(max_items = 100)]
    commands: Option<Vec<String>>,
    /// For how long; the host's default if it is not above 0.
    lease_seconds: Option<i64>,
    /// How long to wait for a task if there is none, from 0 to 30.
    wait_seconds: Option<i64>,
    /// At most how many tasks.
    #[schema(required, value_type = i64, minimum = 1, maximum = 10)]
    count: Option<i64>,
}

/// Claims one task, and waits for it if asked to.
#[utoipa::path(
    post, operation_id = "claim_task", path = "/tasks/claim", tag = WORKERS, request_body = Option<ClaimBody>,
    responses(
        (status = 200, description = "The task, which is the worker's until its lease ends.", body = TaskRecord),
        (status = 204, description = "There is none."),
        Refusals,
    ),
)]
pub(crate) async fn claim(
    State(service): State<Arc<Service>>,
    Claimer(caller): Claimer,
    peer: Peer,
    OptionalJson(body): OptionalJson<ClaimBody>,
) -> Result<Response, ApiError> {
    let handover = service.claim(claimant(&caller, body, 1)?, peer.left()).await?;
    Ok(match handover.deliver().into_only() {
        Some(task) => Answer(task).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Tasks that a worker holds now.
#[derive(ToSchema)]
#[schema(as = Tasks)]
#[expect(dead_code, reason = "describes what is written below")]
struct TasksRecord {
    tasks: Vec<TaskRecord>,
}

/// Claims up to ten tasks.
#[utoipa::path(
    post, operation_id = "claim_tasks", path = "/tasks/claim/batch", tag = WORKERS, request_body = BatchClaimBody,
    responses(
        (status = 200, description = "The tasks, best first.", body = TasksRecord),
        (status = 204, description = "There are none."),
        Refusals,
    ),
)]
pub(crate) async fn claim_batch(
    State(service): State<Arc<Service>>,
    Claimer(caller): Claimer,
    peer: Peer,
    Json(body): Json<BatchClaimBody>,
) -> Result<Response, ApiError> {
    let BatchClaimBody { commands, lease_seconds, wait_seconds, count } = body;
    let body = ClaimBody { commands, lease_seconds, wait_seconds };
    let count = match count.map(u32::try_from) {
        Some(Ok(count @ 1..=LARGEST_CLAIM)) => count,
        Some(Ok(0) | Err(_)) | None => {
            return Err(ApiError::invalid_body(format!("`count` must be 1 to {LARGEST_CLAIM}")));
        }
        Some(Ok(_)) => {
            return Err(ApiError::bad_request(format!("count exceeds maximum of {LARGEST_CLAIM}")));
        }
    };
    let tasks = service.claim(claimant(&caller, body, count)?, peer.left()).await?.deliver();
    Ok(if tasks.is_empty() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        Answer(json!({ "tasks": tasks.as_slice() })).into_response()
    })
}

fn claimant(caller: &Caller, body: ClaimBody, max: u32) -> Result<Claimant, ApiError> {
    let asked = body.commands.unwrap_or_default();
    if asked.len() > MOST_COMMANDS {
        return Err(ApiError::bad_request(format!(
            "a claim names at most {MOST_COMMANDS} commands"
        )));
    }
    let wait = body.wait_seconds.unwrap_or(0).clamp(0, LONGEST_CLAIM_WAIT);
    Ok(Claimant {
        worker_id: caller.subject.clone(),
        tenant_id: caller.tenant.clone(),
        commands: caller.commands(asked)?,
        max,
        lease: positive_seconds(body.lease_seconds),
        wait: Millis::from_secs(wait).into(),
    })
}

#[derive(Deserialize, ToSchema)]
#[schema(as = Heartbeat)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeartbeatBody {
    /// How far from now the new deadline is; the host's default if it is not above 0.
    extend_seconds: Option<i64>,
}

/// It is done.
#[derive(ToSchema)]
#[schema(as = Ok)]
#[expect(dead_code, reason = "describes what is written below")]
struct OkRecord {
    ok: bool,
}

/// Moves the deadline of a lease.
#[utoipa::path(
    post, operation_id = "heartbeat", path = "/tasks/{id}/heartbeat", tag = WORKERS, request_body = Option<HeartbeatBody>,
    params(("id" = String, Path, description = "The task.")),
    responses(
        (status = 200, description = "The lease has its new deadline.", body = OkRecord),
        NotFound, Conflict, Refusals,
    ),
)]
pub(crate) async fn heartbeat(
    State(service): State<Arc<Service>>,
    Worker(caller): Worker,
    Path(id): Path,
    OptionalJson(body): OptionalJson<HeartbeatBody>,
) -> Result<Answer<Value>, ApiError> {
    caller.require(scope::HEARTBEAT)?;
    service.heartbeat(lease(&caller, &id), positive_seconds(body.extend_seconds)).await?;
    Ok(Answer(json!({ "ok": true })))
}

/// What became of a task that was given back.
#[derive(ToSchema)]
#[schema(as = Returned, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what is written below")]
struct ReturnedRecord {
    /// `requeued`, or `dlq` if it will not be tried again.
    status: String,
    /// When it may be claimed again.
    delay_seconds: Option<i64>,
}

/// Gives a task back unharmed.
#[utoipa::path(
    post, operation_id = "abandon_task", path = "/tasks/{id}/abandon", tag = WORKERS,
    params(("id" = String, Path, description = "The task.")),
    responses(
        (status = 200, description = "It is in its queue.", body = ReturnedRecord),
        NotFound, Conflict, Refusals,
    ),
)]
pub(crate) async fn abandon(
    State(service): State<Arc<Service>>,
    Worker(caller): Worker,
    Path(id): Path,
) -> Result<Answer<Value>, ApiError> {
    caller.require(scope::ABANDON)?;
    service.abandon(lease(&caller, &id)).await?;
    Ok(Answer(json!({ "status": "requeued" })))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = Nack)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NackBody {
    /// When to try again; the host's policy decides if it is not named.
    #[schema(minimum = 0)]
    delay_seconds: Option<f64>,
    /// Why it failed.
    reason: Option<String>,
}

/// Gives a task back as failed: it is tried again, or dead-lettered.
#[utoipa::path(
    post, operation_id = "nack_task", path = "/tasks/{id}/nack", tag = WORKERS, request_body = Option<NackBody>,
    params(("id" = String, Path, description = "The task.")),
    responses(
        (status = 200, description = "What became of it.", body = ReturnedRecord),
        NotFound, Conflict, Refusals,
    ),
)]
pub(crate) async fn nack(
    State(service): State<Arc<Service>>,
    Worker(caller): Worker,
    Path(id): Path,
    OptionalJson(body): OptionalJson<NackBody>,
) -> Result<Answer<Value>, ApiError> {
    caller.require(scope::NACK)?;
    let delay = delay_of(body.delay_seconds)?;
    let reason = body.reason.unwrap_or_default();
    let returned = service.nack(lease(&caller, &id), delay, reason.trim()).await?;
    let buried = returned.task.last_known_location == Location::DlqSet;
    let status = if buried { "dlq" } else { "requeued" };
    Ok(Answer(json!({ "status": status, "delaySeconds": returned.delay.as_secs_ceil() })))
}

/// A result as its worker sends it.
/// A result as its worker sends it, see [`NewResultRecord`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResultBody {
    #[serde(default)]
    task_id: String,
    #[serde(default)]
    status: String,
    result: Option<Box<RawValue>>,
    error: Option<String>,
    artifacts: Option<Vec<ArtifactBody>>,
}

/// Takes in the result of a task.
#[utoipa::path(
    post, operation_id = "submit_result", path = "/tasks/{id}/result", tag = WORKERS, request_body = NewResultRecord,
    params(("id" = String, Path, description = "The task.")),
    responses(
        (status = 200, description = "The result as it is kept.", body = ResultRecord),
        NotFound, Conflict, Refusals,
    ),
)]
pub(crate) async fn submit(
    State(service): State<Arc<Service>>,
    Worker(caller): Worker,
    Path(id): Path,
    Json(body): Json<ResultBody>,
) -> Result<Answer<Boxed<TaskResult>>, ApiError> {
    caller.require(scope::RESULT)?;
    let submission = submission(&caller, &id, body, service.artifacts().max_bytes())?;
    let mut results = service.submit(vec![submission]).await.into_iter();
    Ok(Answer(next(&mut results)?))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewResults)]
pub(crate) struct ResultsBody {
    #[schema(value_type = Vec<NewResultRecord>, min_items = 1, max_items = 100)]
    results: Vec<Box<RawValue>>,
}

/// Only the id, which an answer carries even if the rest of the item makes no sense.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NamedItem {
    task_id: String,
}

/// Takes in up to 100 results, each on its own.
#[utoipa::path(
    post, operation_id = "submit_results", path = "/tasks/batch/results", tag = WORKERS, request_body = ResultsBody,
    responses(
        (status = 200, description = "An answer to each, in order.", body = Results<SubmittedItem>),
        Refusals,
    ),
)]
pub(crate) async fn submit_batch(
    State(service): State<Arc<Service>>,
    Worker(caller): Worker,
    Json(body): Json<ResultsBody>,
) -> Result<Answer<Results<SubmittedItem>>, ApiError> {
    caller.require(scope::RESULT)?;
    check_batch(&body.results)?;
    let ids: Vec<String> = body
        .results
        .iter()
        .map(|raw| serde_json::from_str::<NamedItem>(raw.get()).unwrap_or_default().task_id)
        .collect();
    let max_bytes = service.artifacts().max_bytes();
    let read = |raw: &RawValue| {
        let body: ResultBody = parse(raw.get().as_bytes())?;
        let id = body.task_id.clone();
        if id.is_empty() {
            return Err(ApiError::invalid_body("`taskId` is required"));
        }
        submission(&caller, &id, body, max_bytes)
    };
    let (submissions, refused) = sort_out(body.results.iter().map(AsRef::as_ref).map(read));
    let results = service.submit(submissions).await;
    let mut results = results.into_iter().map(|result| result.map_err(ApiError::from));
    let results = refused.into_iter().zip(ids).map(|(refusal, task_id)| {
        match refusal.map_or_else(|| next(&mut results), Err) {
            Ok(result) => SubmittedItem { task_id, result: Some(result), error: None },
            Err(error) => {
                SubmittedItem { task_id, result: None, error: Some(error.into_message()) }
            }
        }
    });
    Ok(Answer(Results { results: results.collect() }))
}

/// What became of one result of a batch.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubmittedItem {
    task_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ResultRecord>)]
    result: Option<Boxed<TaskResult>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn submission(
    caller: &Caller,
    id: &str,
    body: ResultBody,
    max_bytes: usize,
) -> Result<Submission, ApiError> {
    let status = match body.status.as_str() {
        "COMPLETED" => TaskStatus::Completed,
        "FAILED" => TaskStatus::Failed,
        _ => {
            return Err(ApiError::bad_request("invalid status (use COMPLETED or FAILED)"));
        }
    };
    let result = body.result.map(|raw| raw.get().to_owned()).unwrap_or_default();
    if !result.is_empty() && !result.starts_with('{') {
        return Err(ApiError::bad_request("result must be a JSON object"));
    }
    Ok(Submission {
        lease: lease(caller, id),
        outcome: Outcome { status, result, error: body.error.unwrap_or_default() },
        artifacts: artifacts::read(body.artifacts.unwrap_or_default(), max_bytes)?,
    })
}

/// A task of the caller's tenant.
#[utoipa::path(
    get, operation_id = "get_task", path = "/tasks/{id}", tag = READERS,
    params(("id" = String, Path, description = "The task.")),
    responses((status = 200, description = "The task.", body = TaskRecord), NotFound, Refusals),
)]
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    Reader(caller): Reader,
    Path(id): Path,
) -> Result<Answer<Boxed<Task>>, ApiError> {
    Ok(Answer(service.task(&caller.tenant, &id).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitQuery {
    /// How long to wait for the result if there is none, from 0 to 60.
    #[param(value_type = Option<i64>)]
    wait_seconds: Option<String>,
}

/// A task and its result; waits for the result if asked to.
#[utoipa::path(
    get, operation_id = "get_result", path = "/tasks/{id}/result", tag = READERS,
    params(("id" = String, Path, description = "The task."), WaitQuery),
    responses((status = 200, description = "Both.", body = TaskAndResult), NotFound, Refusals),
)]
pub(crate) async fn get_result(
    State(service): State<Arc<Service>>,
    Reader(caller): Reader,
    Path(id): Path,
    Query(query): Query<WaitQuery>,
    peer: Peer,
) -> Result<Answer<TaskAndResult>, ApiError> {
    let wait = match query.wait_seconds.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse::<i64>().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid 'waitSeconds' (must be 0 to {LONGEST_RESULT_WAIT})"
            ))
        })?,
    };
    let wait = Millis::from_secs(wait.clamp(0, LONGEST_RESULT_WAIT));
    let (task, result) =
        service.result(&caller.tenant, &id, Duration::from(wait), peer.left()).await?;
    Ok(Answer(TaskAndResult { task, result }))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct TaskAndResult {
    #[schema(value_type = TaskRecord)]
    task: Boxed<Task>,
    #[schema(value_type = ResultRecord)]
    result: Boxed<TaskResult>,
}

/// The lease of a worker's token on a task. The API does not carry the attempt.
fn lease(caller: &Caller, id: &str) -> Lease {
    Lease {
        task_id: id.into(),
        worker_id: caller.subject.as_str().into(),
        tenant_id: caller.tenant.as_str().into(),
        attempt: 0,
        extensions: Extensions::new(),
    }
}

/// A span that somebody named; nothing and what is not above zero leave it to the host.
fn positive_seconds(seconds: Option<i64>) -> Option<Millis> {
    seconds.filter(|seconds| *seconds > 0).map(Millis::from_secs)
}

fn check_batch<T>(items: &[T]) -> Result<(), ApiError> {
    if items.is_empty() {
        return Err(ApiError::invalid_body("the batch is empty"));
    }
    if items.len() > LARGEST_BATCH {
        return Err(ApiError::bad_request(format!(
            "batch size exceeds maximum of {LARGEST_BATCH}"
        )));
    }
    Ok(())
}

/// Sets the items that make no sense apart: the good ones, and for each item its refusal if it was
/// refused.
fn sort_out<T>(
    items: impl Iterator<Item = Result<T, ApiError>>,
) -> (Vec<T>, Vec<Option<ApiError>>) {
    let mut good = Vec::new();
    let refused = items.map(|item| item.map(|item| good.push(item)).err()).collect();
    (good, refused)
}

fn next<T, E: Into<ApiError>>(
    answers: &mut impl Iterator<Item = Result<T, E>>,
) -> Result<T, ApiError> {
    let missing = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
    answers.next().ok_or_else(missing)?.map_err(Into::into)
}
