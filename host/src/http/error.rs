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
}

/// When a caller may try again whom the backend failed: it may be back by then.
const RETRY_AFTER_SECONDS: &str = "1";

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), detail: None }
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

    pub(crate) fn invalid_body(detail: impl Into<String>) -> ApiError {
        ApiError { detail: Some(detail.into()), ..ApiError::bad_request("invalid body") }
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
            ServiceError::Artifacts => StatusCode::SERVICE_UNAVAILABLE,
            ServiceError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
            // What a backend says of itself is for the operator's eyes.
            ServiceError::Unavailable(cause) => {
                tracing::debug!(error = %cause, "a request failed: the backend is unavailable");
                return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "backend unavailable");
            }
            ServiceError::Failed(cause) => {
                tracing::error!(error = %cause, kind = %cause.kind(), "a request failed in the store");
                return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
            }
        };
        ApiError::new(status, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = match self.detail {
            Some(detail) => json!({ "error": self.message, "detail": detail }),
            None => json!({ "error": self.message }),
        };
        let mut response = (self.status, Json(body)).into_response();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                let seconds = HeaderValue::from_static(RETRY_AFTER_SECONDS);
                response.headers_mut().insert(RETRY_AFTER, seconds);
            }
            // The rest of the request may still come, and is not waited for.
            StatusCode::REQUEST_TIMEOUT => {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
