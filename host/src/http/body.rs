//! Reading the bodies of requests.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::{FromRequest, Request},
    http::{HeaderValue, StatusCode, Version, header::CONNECTION},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Api, error::ApiError};

/// How much of a body is read that nobody wants, in bytes, and for how long.
const UNWANTED: usize = 64 * 1024;
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// Reads what a handler left of a body. A connection whose request was not read to its end has to be
/// closed, and its caller would learn of that only by losing the next request; if there is too much to
/// be read for nothing, he is told with the answer.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    // In HTTP/2 a body belongs to its request alone.
    if body.is_end_stream() || parts.version == Version::HTTP_2 {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let left = Arc::default();
    let body = Body::new(Lent { body: Some(body), left: Arc::clone(&left) });
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let left = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(left) = left
        && !timeout(UNWANTED_TIME, read_to_end(left)).await.unwrap_or(false)
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the end came before too much did.
async fn read_to_end(mut body: Body) -> bool {
    if body.size_hint().lower() > UNWANTED as u64 {
        return false;
    }
    let mut count = 0;
    while count <= UNWANTED {
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => count += frame.data_ref().map_or(0, Bytes::len),
        }
    }
    false
}

/// A body that comes back if it was not read to its end.
struct Lent {
    body: Option<Body>,
    left: Arc<Mutex<Option<Body>>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = Pin::new(&mut *body).poll_frame(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) || body.is_end_stream() {
            self.body = None;
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

/// A JSON body that must be there.
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON body that may be left out, which is the same as `{}`.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        parse(&read(request.into_body(), api).await?).map(Json)
    }
}

impl<T: DeserializeOwned> FromRequest<Api> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), api).await?;
        let blank = bytes.iter().all(u8::is_ascii_whitespace);
        parse(if blank { b"{}" } else { &bytes }).map(OptionalJson)
    }
}

/// Reads an object. A list would do for serde, which takes its items for the fields in order.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ApiError::invalid_body("it is not a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| ApiError::invalid_body(error.to_string()))
}

async fn read(body: Body, api: &Api) -> Result<Bytes, ApiError> {
    // A large body may take longer, but not for ever: a second for each that a slow line carries.
    let length = body.size_hint().lower();
    if length > api.max_body as u64 {
        return Err(too_large(api));
    }
    let limit = api.body_timeout + Duration::from_secs(length / SLOWEST_RATE);
    let read = timeout(limit, to_bytes(body, api.max_body)).await.map_err(|_| too_slow(api))?;
    read.map_err(|error| match is_too_long(&error) {
        true => too_large(api),
        false => ApiError::invalid_body("it ended too early"),
    })
}

fn too_large(api: &Api) -> ApiError {
    let message = format!("body is larger than {} bytes", api.max_body);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// The slowest line on which a large body arrives in time, in bytes per second.
const SLOWEST_RATE: u64 = 64 * 1024;

fn too_slow(api: &Api) -> ApiError {
    let limit = api.body_timeout.as_secs();
    let message = format!("the body did not arrive in time ({limit} s)");
    ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        next = error.source();
    }
    false
}
