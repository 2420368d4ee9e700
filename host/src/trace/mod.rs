//! Traces: what became of a task, from its producer to its webhook, in one picture.
//!
//! A producer's `traceparent` comes in with the request and is kept with the task. Each later step of
//! the task is a span of that trace, whoever takes it and whenever. Names and attributes of the spans
//! are those of codeQ. [`Step`] is a step of a task, [`RequestSpan`] a request, [`WebhookCall`] a call
//! of a webhook; all of them do nothing while no traces are made.
//!
//! Spans go to an OTLP [`collector`] in the background. A collector that cannot be reached costs
//! spans, never a request.

mod collector;
mod step;

use std::{sync::OnceLock, time::Duration};

use axum::http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};
use thiserror::Error;

use crate::config::Tracing;
use collector::Collector;
pub use step::WebhookCall;
pub(crate) use step::{Step, TaskSpan};

/// How long the last spans may take to get to the collector, as in codeQ.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// There is one place where a process's traces go, as there is one log.
static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    provider: SdkTracerProvider,
    tracers: Tracers,
}

/// One for each part of codeQ that makes spans.
struct Tracers {
    http: SdkTracer,
    scheduler: SdkTracer,
    repository: SdkTracer,
    results: SdkTracer,
    notifier: SdkTracer,
    callback: SdkTracer,
}

/// Traces cannot be made: the collector's address, or what belongs to it, cannot be used.
#[derive(Debug, Error)]
#[error("traces cannot go to `{endpoint}`: {problem}; see tracingOtlpEndpoint")]
pub struct TraceError {
    /// Where they were to go.
    pub endpoint: String,
    /// Why they cannot.
    pub problem: String,
}

/// Makes traces from now on. Call it inside a tokio runtime, which has to outlive [`stop`].
///
/// # Errors
///
/// The configuration cannot be used. A collector that cannot be reached is no error.
pub fn start(config: &Tracing) -> Result<(), TraceError> {
    let collector = Collector::new(config)?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(collector).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            config.sample_ratio,
        ))))
        .with_resource(
            Resource::builder()
                .with_service_name(config.service_name.clone())
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                .build(),
        )
        .build();
    let tracers = Tracers {
        http: provider.tracer(format!("{}/http", config.service_name)),
        scheduler: provider.tracer("codeq/scheduler"),
        repository: provider.tracer("codeq/repository"),
        results: provider.tracer("codeq/results"),
        notifier: provider.tracer("codeq/notifier"),
        callback: provider.tracer("codeq/result_callback"),
    };
    // Whoever starts twice goes on with the first.
    let _ = TRACES.set(Traces { provider, tracers });
    Ok(())
}

/// Sends what is left, for as long as that may take.
pub async fn stop() {
    let Some(traces) = TRACES.get() else { return };
    let flushed =
        tokio::task::spawn_blocking(|| traces.provider.shutdown_with_timeout(FLUSH_LIMIT));
    if let Ok(Err(error)) = flushed.await {
        tracing::warn!(%error, "the last spans did not get to the collector");
    }
}

fn tracers() -> Option<&'static Tracers> {
    TRACES.get().map(|traces| &traces.tracers)
}

/// A request, as a span in the trace of its caller, or of one of its own.
pub(crate) struct RequestSpan(Context);

impl RequestSpan {
    /// A request begins; nothing if no traces are made.
    pub(crate) fn begin(
        method: &'static str,
        route: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<RequestSpan> {
        let tracers = tracers()?;
        let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        let attributes = vec![
            KeyValue::new("http.method", method),
            KeyValue::new("http.path", path.to_owned()),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("http.host", host.to_owned()),
        ];
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let span = tracers
            .http
            .span_builder(format!("HTTP {method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .start_with_context(&tracers.http, &parent);
        Some(RequestSpan(parent.with_span(span)))
    }

    /// What the steps of the request belong to.
    pub(crate) fn context(&self) -> Context {
        self.0.clone()
    }

    /// The trace's id, for the log.
    pub(crate) fn trace_id(&self) -> String {
        self.0.span().span_context().trace_id().to_string()
    }

    /// The request is answered.
    pub(crate) fn end(self, status: u16) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("http.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// A position in a trace, as it is written in a task and in headers: W3C Trace Context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) parent: String,
    pub(crate) state: String,
}

impl Position {
    fn new(parent: &str, state: &str) -> Position {
        Position { parent: parent.to_owned(), state: state.to_owned() }
    }

    fn of(span: &SpanContext) -> Position {
        let mut position = Position::default();
        let context = Context::new().with_remote_span_context(span.clone());
        TraceContextPropagator::new().inject_context(&context, &mut position);
        position
    }

    /// Whoever is there goes on from it. It is invalid if the text is.
    fn context(&self) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), self)
    }
}

impl Extractor for Position {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(&self.parent),
            "tracestate" => Some(&self.state),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

impl Injector for Position {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "traceparent" => self.parent = value,
            "tracestate" => self.state = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_position_is_written_as_it_was_read() {
        let read = Position::new(PARENT, "vendor=1").context();
        let written = Position::of(read.span().span_context());
        assert_eq!(written, Position::new(PARENT, "vendor=1"));
    }

    #[test]
    fn what_is_no_position_leads_nowhere() {
        for text in ["", "nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert!(!Position::new(text, "").context().span().span_context().is_valid(), "{text}");
        }
    }

    #[test]
    fn without_traces_a_webhook_is_sent_what_the_producer_sent() {
        let call = WebhookCall::begin("task_result", "render", "example.org", 1, PARENT, "");
        assert_eq!(call.headers().collect::<Vec<_>>(), [("traceparent", PARENT)]);
        let call = WebhookCall::begin("task_result", "render", "example.org", 1, "nonsense", "");
        assert_eq!(call.headers().count(), 0);
    }
}
