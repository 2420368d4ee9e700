//! A name for every request, to find it again in the log.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones would only fill the log.
const LONGEST: usize = 128;

/// Echoes the caller's request id, or makes one.
pub(crate) async fn assign(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= LONGEST && id.to_str().is_ok())
        .cloned()
        .or_else(|| HeaderValue::from_str(&Uuid::new_v4().simple().to_string()).ok());
    let span = tracing::debug_span!(
        "request",
        id = id.as_ref().and_then(|id| id.to_str().ok()),
        method = %request.method(),
        path = request.uri().path(),
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
