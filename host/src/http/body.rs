//! Reading the bodies of requests.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderValue, StatusCode, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Api, error::ApiError};

/// Bodies up to this many bytes are read before anything else looks at the request.
const GATHERED: usize = 64 * 1024;

/// Reads a small body whole, even if the request is refused without a look at it. A connection whose
/// request was not read to its end has to be closed, and its caller would learn of that only by
/// losing the next request; if the body is too large to be read for nothing, he is told with the answer.
pub(crate) async fn gather(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (parts, mut body) = request.into_parts();
    let is_large = body.size_hint().exact().is_some_and(|length| length > GATHERED as u64);
    let mut gathered = BytesMut::new();
    if !is_large && !body.is_end_stream() {
        match timeout(api.body_timeout, first_part(&mut body, &mut gathered)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return ApiError::invalid_body("it ended too early").into_response(),
            Err(_) => return too_slow(&api).into_response(),
        }
    }
    if !is_large && gathered.len() <= GATHERED {
        let body = Body::from(gathered.freeze());
        return next.run(Request::from_parts(parts, body)).await;
    }
    let is_read = Arc::new(AtomicBool::new(false));
    let first = Some(gathered.freeze()).filter(|first| !first.is_empty());
    let body = Body::new(Rest { first, body, is_read: Arc::clone(&is_read) });
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if !is_read.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads as much as is gathered, or all if that is less.
async fn first_part(body: &mut Body, gathered: &mut BytesMut) -> Result<(), axum::Error> {
    while gathered.len() <= GATHERED
        && let Some(frame) = body.frame().await
    {
        gathered.extend(frame?.into_data().unwrap_or_default());
    }
    Ok(())
}

/// A body of which a part was read already, and whether it was read to its end.
struct Rest {
    first: Option<Bytes>,
    body: Body,
    is_read: Arc<AtomicBool>,
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let next = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(next, Poll::Ready(None)) || self.body.is_end_stream() {
            self.is_read.store(true, Ordering::Relaxed);
        }
        next
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(first + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(first + upper);
        }
        hint
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
