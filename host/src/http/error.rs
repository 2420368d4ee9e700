//! What goes wrong with a request, as its caller sees it.

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::service::ServiceError;

/// An answer that is an error: `{"error": "<message>"}`, sometimes with a `detail`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    detail: Option<String>,
    limit: Option<Exceeded>,
    /// In how many seconds it is worth trying again.
    retry_after: Option<u64>,
}

/// Which limit somebody exceeded, in the words of codeQ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exceeded {
    pub(crate) scope: &'static str,
    pub(crate) operation: &'static str,
}

/// When a caller may try again whom the backend failed: it may be back by then.
const BACKEND_RETRY_SECONDS: u64 = 1;

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        let message = message.into();
        ApiError { status, message, detail: None, limit: None, retry_after: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn unauthorized(message: &str) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, message)
    }

    pub(crate) fn forbidden(message: &str) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    pub(crate) fn unavailable(message: &str, retry_after: u64) -> ApiError {
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
        ApiError { retry_after: Some(retry_after), ..error }
    }

    pub(crate) fn too_many_requests(limit: Exceeded, retry_after: u64) -> ApiError {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded");
        ApiError { limit: Some(limit), retry_after: Some(retry_after), ..error }
    }

    pub(crate) fn invalid_body(detail: impl Into<String>) -> ApiError {
        ApiError { detail: Some(detail.into()), ..ApiError::bad_request("invalid body") }
    }

    /// A fault of ours; the log says which.
    pub(crate) fn internal() -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    }

    pub(crate) fn no_such_route() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "no such route")
    }

    pub(crate) fn method_not_allowed() -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
    }

    /// The message, for an item of a batch.
    pub(crate) fn into_message(self) -> String {
        match self.detail {
            Some(detail) => format!("{}: {detail}", self.message),
            None => self.message,
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> ApiError {
        let status = match &error {
            ServiceError::Invalid(_) => StatusCode::BAD_REQUEST,
            ServiceError::NotFound(_) => StatusCode::NOT_FOUND,
            ServiceError::NotOwner => StatusCode::FORBIDDEN,
            ServiceError::NotInProgress
            | ServiceError::AlreadyExists
            | ServiceError::Conflict(_) => StatusCode::CONFLICT,
            ServiceError::Artifacts => {
                return ApiError::unavailable(&error.to_string(), BACKEND_RETRY_SECONDS);
            }
            ServiceError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
            // What a backend says of itself is for the operator's eyes.
            ServiceError::Unavailable(cause) => {
                tracing::debug!(error = %cause, "a request failed: the backend is unavailable");
                return ApiError::unavailable("backend unavailable", BACKEND_RETRY_SECONDS);
            }
            ServiceError::Failed(cause) => {
                tracing::error!(error = %cause, kind = %cause.kind(), "a request failed in the store");
                return ApiError::internal();
            }
        };
        ApiError::new(status, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.message });
        if let Some(detail) = self.detail {
            body["detail"] = detail.into();
        }
        if let Some(Exceeded { scope, operation }) = self.limit {
            body["scope"] = scope.into();
            body["operation"] = operation.into();
            body["retryAfterSeconds"] = self.retry_after.into();
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        // The rest of the request may still come, and is not waited for.
        if self.status == StatusCode::REQUEST_TIMEOUT {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
