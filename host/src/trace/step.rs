//! The steps of a task, as spans in the task's trace.

use std::time::SystemTime;

use codeq_plugin::Task;
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Link, Span, SpanContext, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};

use super::{Position, Tracers, tracers};

/// A step of a task that is under way. Which task it is, and with it the trace, is often known only
/// when the step is over.
#[derive(Clone)]
pub(crate) struct Step {
    tracer: &'static SdkTracer,
    name: &'static str,
    begun: SystemTime,
    /// The request that the step is part of.
    request: Context,
    attributes: Vec<KeyValue>,
}

impl Step {
    /// A task is created.
    pub(crate) fn create() -> Option<Step> {
        Step::begin(|tracers| &tracers.scheduler, "codeq.task.create")
    }

    /// Tasks are claimed.
    pub(crate) fn claim() -> Option<Step> {
        Step::begin(|tracers| &tracers.repository, "codeq.task.claim")
    }

    /// A lease is moved.
    pub(crate) fn heartbeat() -> Option<Step> {
        Step::begin(|tracers| &tracers.repository, "codeq.task.heartbeat")
    }

    /// A task is given back unharmed.
    pub(crate) fn abandon() -> Option<Step> {
        Step::begin(|tracers| &tracers.repository, "codeq.task.abandon")
    }

    /// A task is given back as failed.
    pub(crate) fn nack() -> Option<Step> {
        Step::begin(|tracers| &tracers.repository, "codeq.task.nack")
    }

    /// Results are handed in.
    pub(crate) fn submit_result() -> Option<Step> {
        Step::begin(|tracers| &tracers.results, "codeq.task.submit_result")
    }

    /// Nothing if no traces are made.
    fn begin(tracer: fn(&Tracers) -> &SdkTracer, name: &'static str) -> Option<Step> {
        let tracer = tracer(tracers()?);
        let request = Context::current();
        Some(Step { tracer, name, begun: SystemTime::now(), request, attributes: Vec::new() })
    }

    /// The step begins only now.
    pub(crate) fn beginning_now(self) -> Step {
        Step { begun: SystemTime::now(), ..self }
    }

    /// Says something of the step.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Step {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// The step is about a task.
    pub(crate) fn about(self, task: &Task) -> Step {
        self.with("codeq.task_id", task.id.to_string())
            .with("codeq.command", task.command.to_string())
            .with("codeq.tenant_id", task.tenant_id.to_string())
    }

    /// Goes on with the request, whose task is new or not known.
    pub(crate) fn in_request(self) -> TaskSpan {
        let parent = self.request.clone();
        self.start(&parent, Vec::new())
    }

    /// Goes on from where the task is in its trace.
    ///
    /// A worker who goes on with the task's trace himself says more exactly where it is. One who has a
    /// trace of his own is linked to.
    pub(crate) fn in_trace_of(self, task: &Task) -> TaskSpan {
        let context = Position::new(&task.trace_parent, &task.trace_state).context();
        let (trace, request) = (span_of(&context), span_of(&self.request));
        if !trace.is_valid() || trace.trace_id() == request.trace_id() {
            return self.in_request();
        }
        let links = Some(Link::with_context(request)).filter(|link| link.span_context.is_valid());
        self.start(&context, links.into_iter().collect())
    }

    fn start(self, parent: &Context, links: Vec<Link>) -> TaskSpan {
        let span = self
            .tracer
            .span_builder(self.name)
            .with_start_time(self.begun)
            .with_attributes(self.attributes)
            .with_links(links)
            .start_with_context(self.tracer, parent);
        TaskSpan(span)
    }
}

fn span_of(context: &Context) -> SpanContext {
    context.span().span_context().clone()
}

/// A step whose place in the trace is known. It ends when it is dropped.
pub(crate) struct TaskSpan(SdkSpan);

impl TaskSpan {
    /// Where later steps go on from.
    pub(crate) fn position(&self) -> Position {
        Position::of(self.0.span_context())
    }

    /// Says something of the step.
    pub(crate) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// The step failed.
    pub(crate) fn fail(&mut self, error: &impl ToString) {
        self.0.set_status(Status::error(error.to_string()));
    }
}

/// A call of a webhook: a span in the task's trace, and the headers with which its receiver goes on.
/// Each attempt is a call of its own.
///
/// Without traces it forwards the producer's.
pub struct WebhookCall {
    span: Option<SdkSpan>,
    position: Position,
}

impl WebhookCall {
    /// Begins a call of the webhook at `host` about a command. `kind` is `task_result`, or
    /// `queue_ready` for a notice to subscribers; `trace_parent` and `trace_state` are the task's, and
    /// empty if it is about none.
    pub fn begin(
        kind: &'static str,
        command: &str,
        host: &str,
        attempt: u32,
        trace_parent: &str,
        trace_state: &str,
    ) -> WebhookCall {
        let position = Position::new(trace_parent, trace_state);
        let context = position.context();
        let Some(tracers) = tracers() else {
            let valid = span_of(&context).is_valid();
            return WebhookCall {
                span: None,
                position: if valid { position } else { <_>::default() },
            };
        };
        let (tracer, name) = match kind {
            "queue_ready" => (&tracers.notifier, "codeq.webhook.queue_ready"),
            _ => (&tracers.callback, "codeq.webhook.task_result"),
        };
        let span = tracer
            .span_builder(name)
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("codeq.command", command.to_owned()),
                KeyValue::new("codeq.webhook.kind", kind),
                KeyValue::new("codeq.webhook.host", host.to_owned()),
                KeyValue::new("codeq.webhook.attempt", i64::from(attempt)),
            ])
            .start_with_context(tracer, &context);
        let position = Position::of(span.span_context());
        WebhookCall { span: Some(span), position }
    }

    /// The headers to send: `traceparent`, and `tracestate` if there is any.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("traceparent", &*self.position.parent), ("tracestate", &*self.position.state)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
    }

    /// The call is over: it failed for that reason, or went well.
    pub fn end(self, failure: Option<&str>) {
        if let (Some(mut span), Some(failure)) = (self.span, failure) {
            span.set_status(Status::error(failure.to_owned()));
        }
    }
}
