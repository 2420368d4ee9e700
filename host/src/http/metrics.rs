//! The host's figures, for Prometheus.
//!
//! Nobody is asked who he is, as with codeQ: the answer has names of commands and counts, nothing of
//! tenants or tasks.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};

use super::error::ApiError;
use crate::service::Service;

/// All figures, in the text format.
pub(crate) async fn render(State(service): State<Arc<Service>>) -> Result<Response, ApiError> {
    let text = service.metrics().render(service.store()).await.map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        ApiError::internal()
    })?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
