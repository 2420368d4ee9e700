//! Whether the host is alive, and whether it can serve.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::service::Service;

/// Who asks for readiness does not wait longer for it.
const READY_LIMIT: Duration = Duration::from_secs(5);

/// The process is alive.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The store works, and the host is not about to stop.
pub(crate) async fn readyz(State(service): State<Arc<Service>>) -> Response {
    let manifest = service.store().manifest();
    let problem = if service.is_stopping() {
        "stopping"
    } else {
        match tokio::time::timeout(READY_LIMIT, service.is_healthy()).await {
            Ok(true) => {
                let body = json!({ "status": "ready", "provider": manifest.name });
                return Json(body).into_response();
            }
            Ok(false) => "backend unavailable",
            Err(_) => "backend does not answer",
        }
    };
    let body = json!({ "status": "unavailable", "provider": manifest.name, "error": problem });
    let retry = [(RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, retry, Json(body)).into_response()
}
