//! What the host notes of every request: a name to find it again in the log, figures, and a span if
//! traces are made.

use std::{borrow::Cow, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use opentelemetry::context::FutureExt;
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use super::auth::Caller;
use crate::{metrics::Metrics, trace::RequestSpan};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones would only fill the log.
const LONGEST: usize = 128;

/// The route of requests for which there is none.
const NO_ROUTE: &str = "none";

/// Notes a request and its answer.
pub(crate) async fn observe(
    State(metrics): State<Metrics>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = request_id(&request);
    let method = method_name(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or(Cow::Borrowed(NO_ROUTE), |path| route_name(path.as_str()));
    let path = request.uri().path();
    // It is there at every level: an error without the request that it happened in helps nobody.
    let span = tracing::error_span!(
        "request",
        request_id = id.as_ref().and_then(|id| id.to_str().ok()),
        method,
        route = &*route,
        tenant = Empty,
        subject = Empty,
        trace_id = Empty,
    );
    let in_flight = metrics.request(method, &route);
    let traced = RequestSpan::begin(method, &route, path, request.headers());
    let path = tracing::enabled!(tracing::Level::DEBUG).then(|| path.to_owned());
    let mut response = match &traced {
        None => next.run(request).instrument(span.clone()).await,
        Some(traced) => {
            span.record("trace_id", traced.trace_id());
            let answered = next.run(request).instrument(span.clone());
            answered.with_context(traced.context()).await
        }
    };
    let status = response.status().as_u16();
    in_flight.answered(status);
    if let Some(traced) = traced {
        traced.end(status);
    }
    if let Some(path) = path {
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        span.in_scope(|| tracing::debug!(path, status, ms, "answered"));
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Notes who it is that calls.
pub(super) fn note_caller(caller: &Caller) {
    Span::current().record("tenant", &*caller.tenant).record("subject", &*caller.subject);
}

/// The caller's request id, or one of our own.
fn request_id(request: &Request) -> Option<HeaderValue> {
    request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= LONGEST && id.to_str().is_ok())
        .cloned()
        .or_else(|| HeaderValue::from_str(&Uuid::new_v4().simple().to_string()).ok())
}

/// A method's name. Callers may make up their own, which are all one.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A route as codeQ writes it: `/tasks/:id` for `/tasks/{id}`.
fn route_name(path: &str) -> Cow<'_, str> {
    if path.contains('{') {
        Cow::Owned(path.replace('{', ":").replace('}', ""))
    } else {
        Cow::Borrowed(path)
    }
}
