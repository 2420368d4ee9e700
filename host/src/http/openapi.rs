//! The description of the API, made from the handlers, and the page that shows it.
//!
//! Each handler says what it takes and answers in an attribute above it; the routes are built from
//! the same attributes, so none can be left out. The records of the store belong to the interface of
//! plugins, which knows nothing of HTTP: what they look like as JSON stands here, and a test holds it
//! against what is sent.

use std::{borrow::Cow, sync::Arc};

use axum::{
    body::Bytes,
    extract::Path,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use utoipa::{
    IntoResponses, Modify, OpenApi, ToSchema,
    openapi::{
        RefOr, Schema, Type,
        request_body::RequestBody,
        schema::{Object, SchemaType},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::error::ApiError;

/// The groups of routes, by who calls them.
pub(super) const PRODUCERS: &str = "producers";
pub(super) const WORKERS: &str = "workers";
pub(super) const READERS: &str = "readers";
pub(super) const OPERATORS: &str = "operators";

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "codeQ",
        description = "A task queue: producers enqueue tasks under a command; workers claim them \
            under a lease, and complete them or give them back."
    ),
    tags(
        (name = "producers", description = "Creating tasks."),
        (name = "workers", description = "Claiming tasks, and saying what became of them."),
        (name = "readers", description = "Reading tasks and results."),
        (name = "operators", description = "Looking after queues."),
    ),
    modifiers(&Tokens)
)]
pub(super) struct Description;

/// Callers show a token.
struct Tokens;

const TOKEN: &str = "token";

impl Modify for Tokens {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_with(Default::default);
        components.add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
        let requirement =
            |name: &str| utoipa::openapi::SecurityRequirement::new::<_, [&str; 0], &str>(name, []);
        description.security = Some(vec![requirement(TOKEN)]);
    }
}

/// Where the description is.
pub(super) const DESCRIPTION: &str = "/openapi.json";

/// The description, written once.
#[derive(Clone)]
pub(super) struct Served(Bytes);

impl Served {
    pub(super) fn new(mut description: utoipa::openapi::OpenApi) -> Served {
        for route in description.paths.paths.values_mut() {
            if let Some(RefOr::T(body)) =
                route.post.as_mut().and_then(|post| post.request_body.as_mut())
            {
                say_no_null(body);
            }
        }
        // What is made of texts and lists can be written.
        Served(serde_json::to_vec(&description).unwrap_or_default().into())
    }

    pub(super) fn answer(&self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0.clone()).into_response()
    }
}

/// A body that may be left out is not `null` when it is there.
fn say_no_null(body: &mut RequestBody) {
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(either))) = &content.schema
            && let [something @ RefOr::Ref(_), RefOr::T(Schema::Object(_))] = &either.items[..]
        {
            content.schema = Some(something.clone());
        }
    }
}

/// The page that shows the description: Swagger UI, which needs nothing from elsewhere.
pub(super) async fn front_page() -> Response {
    part("index.html")
}

/// A part of the page.
pub(super) async fn page(Path(file): Path<String>) -> Response {
    part(&file)
}

fn part(file: &str) -> Response {
    let config = utoipa_swagger_ui::Config::from(DESCRIPTION);
    match utoipa_swagger_ui::serve(file, Arc::new(config)) {
        Ok(Some(part)) => {
            let bytes = match part.bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => bytes.into(),
            };
            ([(CONTENT_TYPE, part.content_type)], bytes).into_response()
        }
        Ok(None) => ApiError::no_such_route().into_response(),
        Err(error) => {
            tracing::error!(%error, file, "cannot show the description");
            ApiError::internal().into_response()
        }
    }
}

/// What went wrong.
#[derive(ToSchema)]
#[schema(as = Error)]
#[expect(dead_code, reason = "describes what `ApiError` writes")]
pub(super) struct ErrorRecord {
    /// What went wrong, for people.
    error: String,
    /// More about it.
    detail: Option<String>,
}

/// Too many requests.
#[derive(ToSchema)]
#[schema(as = RateLimited, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `ApiError` writes")]
pub(super) struct RateLimitRecord {
    /// `rate limit exceeded`
    error: String,
    /// Whose limit it is: `producer`, `worker` or `admin`.
    scope: String,
    /// What was asked for.
    operation: String,
    /// In how many seconds another try may succeed.
    retry_after_seconds: u64,
}

/// How any request may fail.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what `ApiError` writes")]
pub(super) enum Refusals {
    /// The request makes no sense; the error says what would.
    #[response(status = 400)]
    Invalid(#[to_schema] ErrorRecord),
    /// No token, or one that is not accepted.
    #[response(status = 401)]
    Unauthorized(#[to_schema] ErrorRecord),
    /// The token does not allow this.
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorRecord),
    /// The request did not arrive in time.
    #[response(status = 408)]
    TooSlow(#[to_schema] ErrorRecord),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorRecord),
    /// The caller calls too often; `Retry-After` says when to come again.
    #[response(status = 429)]
    TooMany(#[to_schema] RateLimitRecord),
    /// The store failed in a way that another try does not mend.
    #[response(status = 500)]
    Failed(#[to_schema] ErrorRecord),
    /// The store cannot do it now; `Retry-After` says when to try again.
    #[response(status = 503)]
    Unavailable(#[to_schema] ErrorRecord),
}

/// There is no such thing in the caller's tenant.
#[derive(IntoResponses)]
#[response(status = 404)]
#[expect(dead_code, reason = "describes what `ApiError` writes")]
pub(super) struct NotFound(#[to_schema] ErrorRecord);

/// The plugin cannot do that.
#[derive(IntoResponses)]
#[response(status = 501)]
#[expect(dead_code, reason = "describes what `ApiError` writes")]
pub(super) struct Unsupported(#[to_schema] ErrorRecord);

/// The task is not in a state in which this can be done.
#[derive(IntoResponses)]
#[response(status = 409)]
#[expect(dead_code, reason = "describes what `ApiError` writes")]
pub(super) struct Conflict(#[to_schema] ErrorRecord);

/// A task.
#[derive(ToSchema)]
#[schema(as = Task, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes `codeq_plugin::Task`")]
pub(super) struct TaskRecord {
    id: String,
    /// The kind of work.
    command: String,
    /// JSON as text.
    #[schema(required)]
    payload: Option<String>,
    /// From 9, first, to 0, which is left out.
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// Where the result is posted to.
    webhook: Option<String>,
    /// The producer's W3C trace context.
    trace_parent: Option<String>,
    trace_state: Option<String>,
    status: Status,
    last_known_location: Place,
    /// Who holds it.
    worker_id: Option<String>,
    /// Until when.
    #[schema(format = DateTime)]
    lease_until: Option<String>,
    /// How often it was delivered.
    attempts: Option<u32>,
    /// How often it may be.
    max_attempts: Option<u32>,
    /// Why it failed, the last time.
    error: Option<String>,
    /// Names the result.
    result_key: Option<String>,
    tenant_id: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "describes `codeq_plugin::TaskStatus`")]
pub(super) enum Status {
    Pending,
    InProgress,
    Completed,
    Failed,
}

#[derive(ToSchema)]
#[schema(as = Location, rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "describes `codeq_plugin::Location`")]
pub(super) enum Place {
    PendingList,
    DelayedZset,
    InprogSet,
    DlqSet,
    None,
}

/// Whatever is JSON, but not nothing.
pub(super) fn payload() -> RefOr<Schema> {
    let kinds = [Type::Object, Type::Array, Type::String, Type::Number, Type::Boolean];
    Object::with_type(SchemaType::from_iter(kinds)).into()
}

/// How a worker says what became of a task.
#[derive(ToSchema)]
#[schema(as = NewResult)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes `tasks::ResultBody`")]
pub(super) enum NewResultRecord {
    Completed(NewCompletedRecord),
    Failed(NewFailedRecord),
}

/// It is done.
#[derive(ToSchema)]
#[schema(as = NewCompleted, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes `tasks::ResultBody`")]
pub(super) struct NewCompletedRecord {
    /// Which task; must be there in a batch.
    #[schema(required = false)]
    task_id: String,
    /// `COMPLETED`
    #[schema(pattern = "^COMPLETED$")]
    status: String,
    /// What the worker found out.
    #[schema(value_type = Object)]
    result: Value,
    artifacts: Option<Vec<super::artifacts::ArtifactBody>>,
}

/// It cannot be done.
#[derive(ToSchema)]
#[schema(as = NewFailed, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes `tasks::ResultBody`")]
pub(super) struct NewFailedRecord {
    /// Which task; must be there in a batch.
    #[schema(required = false)]
    task_id: String,
    /// `FAILED`
    #[schema(pattern = "^FAILED$")]
    status: String,
    /// Why.
    #[schema(min_length = 1, pattern = r"\S")]
    error: String,
    /// What the worker found out all the same.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    artifacts: Option<Vec<super::artifacts::ArtifactBody>>,
}

/// What became of a task.
#[derive(ToSchema)]
#[schema(as = Result, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes `codeq_plugin::TaskResult`")]
pub(super) struct ResultRecord {
    task_id: String,
    status: Status,
    /// What the worker found out.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// Why it failed.
    error: Option<String>,
    artifacts: Option<Vec<ArtifactRecord>>,
    #[schema(format = DateTime)]
    completed_at: String,
}

/// A file that belongs to a result.
#[derive(ToSchema)]
#[schema(as = Artifact)]
#[expect(dead_code, reason = "describes `codeq_plugin::Artifact`")]
pub(super) struct ArtifactRecord {
    name: String,
    /// Where it can be fetched.
    url: String,
}

/// How many tasks a queue has in each place.
#[derive(ToSchema)]
#[schema(as = QueueStats, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes `codeq_plugin::QueueStats`")]
pub(super) struct QueueRecord {
    command: String,
    ready: u64,
    delayed: u64,
    in_progress: u64,
    dlq: u64,
}
