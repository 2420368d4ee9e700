//! Reading the bodies of requests.

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::{FromRequest, Request},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use super::{Api, error::ApiError};

/// Bodies up to this many bytes are read before anything else looks at the request.
const GATHERED: u64 = 64 * 1024;

/// Reads a small body whole, even if the request is refused without a look at it. A connection whose
/// request was not read to its end has to be closed, and its caller would learn of that only by
/// losing the next request.
pub(crate) async fn gather(request: Request, next: Next) -> Response {
    let length = request.body().size_hint().exact();
    if !length.is_some_and(|length| (1..=GATHERED).contains(&length)) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(_) => ApiError::invalid_body("it ended too early").into_response(),
    }
}

/// A JSON body that must be there.
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON body that may be left out, which is the same as `{}`.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        parse(&read(request.into_body(), api.max_body).await?).map(Json)
    }
}

impl<T: DeserializeOwned> FromRequest<Api> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), api.max_body).await?;
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

async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    to_bytes(body, limit).await.map_err(|error| {
        if is_too_long(&error) {
            let message = format!("body is larger than {limit} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        } else {
            ApiError::invalid_body("it ended too early")
        }
    })
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
