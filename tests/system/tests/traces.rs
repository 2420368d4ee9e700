//! Traces, as a collector gets them.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_system_tests::{Client, Host, PATIENCE, Setup, plugin_dir};
use codeq_test_servers::free_addr;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value as Attribute,
    trace::v1::{ResourceSpans, status::StatusCode},
};
use prost::Message;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status, transport::Server};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PRODUCER: &str = "00f067aa0ba902b7";

/// A span, with what the tests look at.
#[derive(Clone, Debug)]
struct Span {
    name: String,
    scope: String,
    service: String,
    trace: String,
    id: String,
    parent: String,
    links: Vec<String>,
    failed: bool,
    attributes: BTreeMap<String, String>,
}

/// What a collector got.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<Span>>>);

impl Collected {
    fn take_in(&self, batches: Vec<ResourceSpans>) {
        let mut spans = self.0.lock().unwrap();
        for batch in batches {
            let resource = batch.resource.unwrap().attributes;
            let service = resource.into_iter().find(|attribute| attribute.key == "service.name");
            let service = text(service.unwrap().value.unwrap().value);
            for scope in batch.scope_spans {
                let name = scope.scope.unwrap().name;
                spans.extend(scope.spans.into_iter().map(|span| {
                    Span {
                        name: span.name,
                        scope: name.clone(),
                        service: service.clone(),
                        trace: hex(&span.trace_id),
                        id: hex(&span.span_id),
                        parent: hex(&span.parent_span_id),
                        links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
                        failed: span
                            .status
                            .is_some_and(|status| status.code() == StatusCode::Error),
                        attributes: span
                            .attributes
                            .into_iter()
                            .map(|pair| (pair.key, text(pair.value.unwrap().value)))
                            .collect(),
                    }
                }));
            }
        }
    }

    fn all(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    /// Waits for a span.
    fn wait_for(&self, is_it: impl Fn(&Span) -> bool) -> Span {
        let begin = Clock::now();
        loop {
            if let Some(span) = self.all().into_iter().find(&is_it) {
                return span;
            }
            assert!(begin.elapsed() < PATIENCE, "waited in vain: {:#?}", self.all());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn named(&self, name: &str) -> Span {
        self.wait_for(|span| span.name == name)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: Option<Attribute>) -> String {
    match value.unwrap() {
        Attribute::StringValue(text) => text,
        Attribute::IntValue(number) => number.to_string(),
        Attribute::BoolValue(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

#[tonic::async_trait]
impl TraceService for Collected {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take_in(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector that speaks gRPC.
struct Collector {
    address: SocketAddr,
    collected: Collected,
    // It ends with the test.
    _runtime: Runtime,
}

impl Collector {
    fn start() -> Collector {
        Collector::start_at(free_addr())
    }

    fn start_at(address: SocketAddr) -> Collector {
        let runtime = Runtime::new().unwrap();
        let collected = Collected::default();
        let service = TraceServiceServer::new(collected.clone());
        runtime.spawn(Server::builder().add_service(service).serve(address));
        Collector { address, collected, _runtime: runtime }
    }

    /// A host that sends its traces here.
    fn host(&self, provider: &str, more: &Value) -> Setup {
        Setup::start(provider, &traced(self.address, more))
    }
}

fn traced(collector: SocketAddr, more: &Value) -> Value {
    let mut config = json!({
        "tracingEnabled": true,
        "tracingOtlpEndpoint": collector.to_string(),
        "tracingOtlpInsecure": true,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn post(client: &Client, path: &str, body: &Value, parent: &str) -> Value {
    let headers = [("traceparent", parent)];
    let answer = client.send("POST", path, Some(body.to_string().as_bytes()), &headers);
    assert!(answer.status < 300, "{answer:?}");
    answer.body
}

fn produce(client: &Client, command: &str) -> Value {
    let body = json!({ "command": command, "payload": "secret", "priority": 3 });
    post(client, "/tasks", &body, &format!("00-{TRACE}-{PRODUCER}-01"))
}

#[test]
fn one_trace_leads_from_the_producer_to_the_result() {
    for provider in codeq_system_tests::PROVIDERS {
        println!("on {provider}:");
        let collector = Collector::start();
        let mut setup = collector.host(provider, &json!({ "tracingServiceName": "shop" }));
        let client = setup.host.client();
        let id = produce(&client, "render")["id"].as_str().unwrap().to_owned();
        let claimed = client.claim("render").expect("a task");
        client.post(&format!("/tasks/{id}/heartbeat"), json!({})).expect(200);
        client.complete(&id).expect(200);
        setup.host.terminate();
        setup.host.wait();

        // The host sends what is left before it ends.
        let spans = collector.collected.all();
        let named = |name: &str| spans.iter().find(|span| span.name == name).expect(name);
        let request = named("HTTP POST /v1/codeq/tasks");
        let create = named("codeq.task.create");
        let claim = named("codeq.task.claim");
        let submit = named("codeq.task.submit_result");
        assert_eq!((&*request.trace, &*request.parent), (TRACE, PRODUCER));
        assert_eq!((&*create.trace, &create.parent), (TRACE, &request.id));
        assert_eq!((&*claim.trace, &claim.parent), (TRACE, &create.id));
        assert_eq!((&*submit.trace, &submit.parent), (TRACE, &create.id));
        assert_eq!(claimed["traceParent"], format!("00-{TRACE}-{}-01", claim.id));
        let worker = named("HTTP POST /v1/codeq/tasks/claim");
        assert_ne!(worker.trace, TRACE, "the worker's request is in a trace of its own");
        assert_eq!(claim.links, [&*worker.trace]);

        for span in [create, claim, submit, named("codeq.task.heartbeat")] {
            assert_eq!(span.attributes["codeq.task_id"], id, "{span:?}");
            assert_eq!(span.attributes["codeq.tenant_id"], "default", "{span:?}");
        }
        for span in [create, claim, submit] {
            assert_eq!(span.attributes["codeq.command"], "render", "{span:?}");
        }
        assert_eq!(create.attributes["codeq.priority"], "3");
        assert_eq!(create.attributes["codeq.has_webhook"], "false");
        assert_eq!(create.attributes["codeq.has_idempotency_key"], "false");
        assert_eq!(claim.attributes["codeq.worker_id"], "local");
        assert_eq!(claim.attributes["codeq.lease_seconds"], "300");
        assert_eq!(submit.attributes["codeq.submit.status"], "COMPLETED");
        assert_eq!(request.attributes["http.route"], "/v1/codeq/tasks");
        assert_eq!(request.attributes["http.status_code"], "202");
        let scopes = [request, create, claim, submit].map(|span| &*span.scope);
        assert_eq!(scopes, ["shop/http", "codeq/scheduler", "codeq/repository", "codeq/results"]);
        assert!(spans.iter().all(|span| span.service == "shop"));
        assert!(!format!("{spans:?}").contains("secret"), "a payload is nobody's business");
    }
}

#[test]
fn a_worker_who_goes_on_with_the_trace_is_where_the_result_belongs() {
    let collector = Collector::start();
    let setup = collector.host("memory", &json!({}));
    let client = setup.host.client();
    let id = produce(&client, "render")["id"].as_str().unwrap().to_owned();
    let claimed = client.claim("render").expect("a task");
    let body = json!({ "status": "COMPLETED", "result": {} });
    let parent = claimed["traceParent"].as_str().unwrap();
    post(&client, &format!("/tasks/{id}/result"), &body, parent);
    let request = collector.collected.named("HTTP POST /v1/codeq/tasks/:id/result");
    let submit = collector.collected.named("codeq.task.submit_result");
    assert_eq!(request.trace, TRACE);
    assert_eq!(submit.parent, request.id);
}

#[test]
fn a_task_of_a_producer_without_a_trace_begins_one() {
    let collector = Collector::start();
    let setup = collector.host("sqlite", &json!({}));
    let client = setup.host.client();
    let task = client.create_with(json!({ "command": "plain", "payload": 1 }));
    client.claim("plain").expect("a task");
    let create = collector.collected.named("codeq.task.create");
    let claim = collector.collected.named("codeq.task.claim");
    assert_eq!(task["traceParent"], format!("00-{}-{}-01", create.trace, create.id));
    assert_eq!((claim.trace, claim.parent), (create.trace, create.id));
}

#[test]
fn each_task_of_a_batch_keeps_its_own_trace() {
    let collector = Collector::start();
    let setup = collector.host("memory", &json!({}));
    let client = setup.host.client();
    produce(&client, "batch");
    client.create("batch");
    let body = json!({ "commands": ["batch"], "count": 2 });
    client.post("/tasks/claim/batch", body).expect(200);
    let created = |trace: bool| {
        collector
            .collected
            .wait_for(|span| span.name == "codeq.task.create" && (span.trace == TRACE) == trace)
    };
    for create in [created(true), created(false)] {
        let claim = collector
            .collected
            .wait_for(|span| span.name == "codeq.task.claim" && span.parent == create.id);
        assert_eq!(claim.trace, create.trace);
    }
}

#[test]
fn what_goes_back_to_its_queue_is_a_step_of_the_trace() {
    let collector = Collector::start();
    let setup = collector.host("memory", &json!({}));
    let client = setup.host.client();
    let id = produce(&client, "back")["id"].as_str().unwrap().to_owned();
    client.claim("back").expect("a task");
    client.post(&format!("/tasks/{id}/abandon"), json!({})).expect(200);
    client.claim("back").expect("a task");
    client.post(&format!("/tasks/{id}/nack"), json!({ "delaySeconds": 7 })).expect(200);
    for name in ["codeq.task.abandon", "codeq.task.nack"] {
        let span = collector.collected.named(name);
        assert_eq!(span.trace, TRACE, "{span:?}");
        assert_eq!(span.attributes["codeq.task_id"], id);
        assert_eq!(span.attributes["codeq.command"], "back");
    }
    let nack = collector.collected.named("codeq.task.nack");
    assert_eq!(nack.attributes["codeq.delay_seconds"], "7");
}

#[test]
fn steps_that_fail_say_so() {
    let collector = Collector::start();
    let setup = collector.host("memory", &json!({}));
    let client = setup.host.client();
    let id = produce(&client, "early")["id"].as_str().unwrap().to_owned();
    client.complete(&id).expect(409);
    client.post(&format!("/tasks/{id}/nack"), json!({})).expect(409);
    for name in ["codeq.task.submit_result", "codeq.task.nack"] {
        let span = collector.collected.named(name);
        assert!(span.failed, "{span:?}");
        assert_eq!(span.attributes["codeq.task_id"], id);
    }
    let request = collector.collected.named("HTTP POST /v1/codeq/tasks/:id/result");
    assert!(!request.failed, "it is the caller's mistake");
    assert_eq!(request.attributes["http.status_code"], "409");
}

#[test]
fn a_producer_decides_for_his_trace_and_the_ratio_for_all_others() {
    let collector = Collector::start();
    let setup = collector.host("memory", &json!({ "tracingSampleRatio": 0 }));
    let client = setup.host.client();
    let dropped = client.create_with(json!({ "command": "dropped", "payload": 1 }));
    assert!(dropped["traceParent"].as_str().unwrap().ends_with("-00"), "{dropped}");
    client.claim("dropped").expect("a task");
    produce(&client, "kept");
    client.claim("kept").expect("a task");
    collector.collected.wait_for(|span| {
        span.name == "codeq.task.claim" && span.attributes["codeq.command"] == "kept"
    });
    let spans = collector.collected.all();
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
}

#[test]
fn without_traces_a_task_keeps_what_its_producer_sent() {
    let setup = Setup::start("memory", &json!({}));
    let client = setup.host.client();
    let task = produce(&client, "kept");
    let sent = format!("00-{TRACE}-{PRODUCER}-01");
    assert_eq!(task["traceParent"], sent);
    assert_eq!(client.claim("kept").unwrap()["traceParent"], sent);
    let plain = client.create_with(json!({ "command": "plain", "payload": 1 }));
    assert_eq!(plain.get("traceParent"), None);
}

#[test]
fn a_collector_that_is_not_there_costs_one_warning_and_no_request() {
    let address = free_addr();
    let env = [("OTEL_BSP_SCHEDULE_DELAY", "100".into())];
    let mut config = traced(address, &json!({}));
    config["persistenceProvider"] = "memory".into();
    let plugins = plugin_dir(&["memory"]);
    let mut host = Host::start_with_env(plugins.path(), config, &env);
    let client = host.client();
    let lost = |log: &[String]| log.iter().filter(|line| line.contains("traces are lost")).count();
    let begin = Clock::now();
    client.create("first");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    host.wait_for(|log| lost(log) == 1);
    for _ in 0..5 {
        client.create("more");
        thread::sleep(Duration::from_millis(150));
    }
    assert_eq!(lost(&host.log()), 1, "{:#?}", host.log());

    let collector = Collector::start_at(address);
    let begin = Clock::now();
    while !host.log().iter().any(|line| line.contains("takes traces again")) {
        assert!(begin.elapsed() < PATIENCE, "{:#?}", host.log());
        client.create("again");
        thread::sleep(Duration::from_millis(50));
    }
    collector.collected.named("codeq.task.create");
    drop(collector);

    client.create("last");
    let begin = Clock::now();
    host.terminate();
    assert!(host.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
}

/// A collector that takes protobuf in HTTP requests.
fn http_collector() -> (SocketAddr, Collected) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let collected = Collected::default();
    let keeper = collected.clone();
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let mut writer = connection.try_clone().unwrap();
            let mut reader = BufReader::new(connection);
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                if head.is_empty() {
                    break;
                }
                assert!(head.starts_with("POST /v1/traces "), "{head}");
                let head = head.to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap();
                let mut body = vec![0; length.split("\r\n").next().unwrap().parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                let request = ExportTraceServiceRequest::decode(&*body).unwrap();
                keeper.take_in(request.resource_spans);
                writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        }
    });
    (address, collected)
}

#[test]
fn traces_also_go_over_http_as_the_usual_variables_say() {
    let (address, collected) = http_collector();
    let env = [
        ("TRACING_ENABLED", "true".into()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".into()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}").into()),
        ("OTEL_SERVICE_NAME", "from-the-environment".into()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".into()),
    ];
    let config = json!({ "persistenceProvider": "memory" });
    let host = Host::start_with_env(plugin_dir(&["memory"]).path(), config, &env);
    produce(&host.client(), "render");
    let create = collected.named("codeq.task.create");
    assert_eq!((&*create.trace, &*create.service), (TRACE, "from-the-environment"));
}

#[test]
fn a_collector_whose_address_makes_no_sense_is_an_error_at_the_start() {
    let config = json!({
        "persistenceProvider": "memory",
        "tracingEnabled": true,
        "tracingOtlpEndpoint": "not an address",
    });
    let plugins = plugin_dir(&["memory"]);
    let mut host = Host::launch(plugins.path(), config);
    assert_eq!(host.wait().code(), Some(2));
    host.wait_for(|log| log.iter().any(|line| line.contains("tracingOtlpEndpoint")));
}
