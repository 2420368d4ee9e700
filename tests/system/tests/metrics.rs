//! What a host counts, as Prometheus reads it.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_system_tests::{
    Client, Host, Metrics, PATIENCE, Raw, Setup, on_every_provider, on_every_provider_with,
    plugin_dir, start_on,
};
use codeq_test_servers::Redis;
use serde_json::{Value, json};

/// For how long a host keeps what its backend told.
const KEPT: Duration = Duration::from_millis(1100);

/// Waits until a host has counted something.
fn wait_for(host: &Host, mut counted: impl FnMut(&Metrics) -> bool) -> Metrics {
    let begin = Clock::now();
    loop {
        let metrics = host.metrics();
        if counted(&metrics) {
            return metrics;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {}", metrics.text);
        thread::sleep(Duration::from_millis(50));
    }
}

fn fail(client: &Client, id: &str) {
    let body = json!({ "status": "FAILED", "error": "it broke" });
    client.post(&format!("/tasks/{id}/result"), body).expect(200);
}

fn claim(client: &Client, command: &str) -> String {
    client.claim(command).expect("a task")["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_task_counts_at_each_of_its_steps() {
    on_every_provider(|host, client| {
        for _ in 0..3 {
            client.create("Render");
        }
        let keyed = json!({ "command": "render", "payload": 1, "idempotencyKey": "k" });
        client.create_with(keyed.clone());
        client.create_with(keyed);
        client.complete(&claim(client, "RENDER")).expect(200);
        fail(client, &claim(client, "render"));
        claim(client, "render");

        let metrics = host.metrics();
        let render = ("command", "render");
        let ended = |status| [render, ("status", status)];
        assert_eq!(metrics.get("codeq_task_created_total", &[render]), Some(4.0), "no duplicate");
        assert_eq!(metrics.get("codeq_task_claimed_total", &[render]), Some(3.0));
        assert_eq!(metrics.get("codeq_task_completed_total", &ended("COMPLETED")), Some(1.0));
        assert_eq!(metrics.get("codeq_task_completed_total", &ended("FAILED")), Some(1.0));
        let latency = "codeq_task_processing_latency_seconds";
        assert_eq!(metrics.get(&format!("{latency}_count"), &ended("COMPLETED")), Some(1.0));
        let sum = metrics.get(&format!("{latency}_sum"), &ended("COMPLETED")).unwrap();
        assert!((0.0..20.0).contains(&sum), "{sum} seconds");
        let codeqs = "0.1 0.25 0.5 1 2.5 5 10 30 60 120 300 600 1800 3600 +Inf";
        let buckets = metrics.labels(&format!("{latency}_bucket"), "le");
        assert_eq!(buckets, codeqs.split(' ').collect::<BTreeSet<_>>());
    });
}

#[test]
fn dead_letters_count_as_failed() {
    on_every_provider(|host, client| {
        client.create_with(json!({ "command": "doomed", "payload": 1, "maxAttempts": 1 }));
        let id = claim(client, "doomed");
        client.post(&format!("/tasks/{id}/nack"), json!({})).expect(200);
        let metrics = host.metrics();
        let labels = [("command", "doomed"), ("status", "FAILED")];
        assert_eq!(metrics.get("codeq_task_completed_total", &labels), Some(1.0));
        assert_eq!(metrics.get("codeq_dlq_depth", &labels[..1]), Some(1.0));
    });
}

#[test]
fn leases_that_run_out_are_counted() {
    on_every_provider(|host, client| {
        client.create_with(json!({ "command": "slow", "payload": 1, "maxAttempts": 1 }));
        client.claim_with(json!({ "commands": ["slow"], "leaseSeconds": 1 })).expect("a task");
        let slow = ("command", "slow");
        let metrics =
            wait_for(host, |metrics| metrics.get("codeq_lease_expired_total", &[slow]).is_some());
        assert_eq!(metrics.get("codeq_lease_expired_total", &[slow]), Some(1.0));
        let failed = [slow, ("status", "FAILED")];
        assert_eq!(metrics.get("codeq_task_completed_total", &failed), Some(1.0), "dead-lettered");
    });
}

#[test]
fn the_depth_of_a_queue_is_told_by_place() {
    on_every_provider(|host, client| {
        for _ in 0..4 {
            client.create("deep");
        }
        client.create_with(json!({ "command": "deep", "payload": 1, "delaySeconds": 600 }));
        claim(client, "deep");
        let depth = |metrics: &Metrics, queue| {
            metrics.get("codeq_queue_depth", &[("command", "deep"), ("queue", queue)])
        };
        let metrics = host.metrics();
        assert_eq!(depth(&metrics, "ready"), Some(3.0));
        assert_eq!(depth(&metrics, "delayed"), Some(1.0));
        assert_eq!(depth(&metrics, "in_progress"), Some(1.0));
        assert_eq!(depth(&metrics, "dlq"), Some(0.0));
        assert_eq!(metrics.get("codeq_backend_up", &[]), Some(1.0));
        // The same is told for a moment, however often somebody asks.
        let asked = |metrics: &Metrics| {
            metrics.sum("codeq_plugin_calls_total", &[("operation", "admin_queues")])
        };
        let (first, second) = (host.metrics(), host.metrics());
        assert!(asked(&second) - asked(&first) < 2.0);
        claim(client, "deep");
        wait_for(host, |metrics| depth(metrics, "in_progress") == Some(2.0));
    });
}

#[test]
fn tenants_are_told_apart_by_nobody() {
    let of = |tenant: &str| json!({ "token": format!("secret-of-{tenant}"), "subject": tenant, "eventTypes": ["*"] });
    let config = json!({
        "producerAuthProvider": "static",
        "producerAuthConfig": of("acme"),
        "workerAuthProvider": "static",
        "workerAuthConfig": of("globex"),
    });
    on_every_provider_with(&config, |host, client| {
        client.with_token("secret-of-acme").create("shared");
        let metrics = host.metrics();
        let ready = [("command", "shared"), ("queue", "ready")];
        assert_eq!(metrics.get("codeq_queue_depth", &ready), Some(1.0));
        for word in ["acme", "globex", "secret"] {
            assert!(!metrics.text.contains(word), "{}", metrics.text);
        }
    });
}

#[test]
fn the_plugins_calls_and_errors_are_counted_by_operation() {
    on_every_provider(|host, client| {
        let before = host.metrics();
        let id = client.create("counted");
        client.complete(&id).expect(409);
        client.get("/tasks/nonesuch").expect(404);
        let metrics = host.metrics();
        let count = |metrics: &Metrics, name: &str, operation| {
            metrics.sum(name, &[("operation", operation)])
        };
        // A result that comes too late has the task read, as its callback may be missing.
        for (operation, calls) in [("enqueue", 1.0), ("complete", 1.0), ("get", 2.0)] {
            let more = |name| count(&metrics, name, operation) - count(&before, name, operation);
            assert_eq!(more("codeq_plugin_calls_total"), calls, "{operation}");
            assert_eq!(more("codeq_plugin_call_duration_seconds_count"), calls, "{operation}");
        }
        let errors = |operation, kind| {
            metrics.sum("codeq_plugin_errors_total", &[("operation", operation), ("kind", kind)])
        };
        assert_eq!(errors("complete", "not-in-progress"), 1.0);
        assert_eq!(errors("get", "not-found"), 1.0);
        assert_eq!(errors("enqueue", "not-found"), 0.0);
        let info = metrics.labels("codeq_plugin_info", "plugin");
        assert_eq!(info, metrics.labels("codeq_plugin_calls_total", "plugin"));
    });
}

#[test]
fn requests_are_counted_by_route_and_status() {
    on_every_provider(|host, client| {
        client.get("/tasks/one").expect(404);
        client.get("/tasks/another").expect(404);
        client.get("/nowhere").expect(404);
        let mut raw = Raw::connect(host);
        raw.send(b"BREW /v1/codeq/tasks/one HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        assert_eq!(raw.read().0, 405);
        let metrics = host.metrics();
        let requests = |route, status| {
            let labels = [("route", route), ("status", status)];
            metrics.sum("codeq_http_requests_total", &labels)
        };
        assert_eq!(requests("/v1/codeq/tasks/:id", "404"), 2.0);
        assert_eq!(requests("none", "404"), 1.0);
        assert_eq!(requests("/v1/codeq/tasks/:id", "405"), 1.0);
        let methods = metrics.labels("codeq_http_requests_total", "method");
        assert!(methods.contains("other") && !methods.contains("BREW"), "{methods:?}");
        let timed = metrics.sum(
            "codeq_http_request_duration_seconds_count",
            &[("route", "/v1/codeq/tasks/:id"), ("method", "GET")],
        );
        assert_eq!(timed, 2.0);
        assert_eq!(metrics.get("codeq_http_requests_in_flight", &[]), Some(1.0), "this one");
    });
}

#[test]
fn long_polls_and_connections_count_while_they_last() {
    on_every_provider(|host, client| {
        let id = client.create("other");
        let waiting = |metrics: &Metrics| {
            ["claim", "result"]
                .map(|kind| metrics.sum("codeq_long_polls_waiting", &[("kind", kind)]))
        };
        let idle = Raw::connect(host);
        thread::scope(|scope| {
            let body = json!({ "commands": ["awaited"], "waitSeconds": 30 });
            let claim = scope.spawn(move || client.claim_with(body));
            let path = format!("/tasks/{id}/result?waitSeconds=60");
            let reader = scope.spawn(move || client.get(&path).expect(200));
            let metrics = wait_for(host, |metrics| waiting(metrics) == [1.0, 1.0]);
            assert!(metrics.sum("codeq_http_connections_open", &[]) >= 3.0);
            client.create("awaited");
            assert!(claim.join().unwrap().is_some());
            let other = client.claim("other").expect("a task");
            client.complete(other["id"].as_str().unwrap()).expect(200);
            reader.join().unwrap();
        });
        assert_eq!(waiting(&host.metrics()), [0.0, 0.0]);
        let open = host.metrics().sum("codeq_http_connections_open", &[]);
        drop(idle);
        wait_for(host, |metrics| metrics.sum("codeq_http_connections_open", &[]) < open);
    });
}

#[test]
fn the_process_and_the_build_are_told() {
    on_every_provider(|host, _| {
        let metrics = host.metrics();
        assert!(metrics.get("process_resident_memory_bytes", &[]).unwrap() > 1e6);
        assert!(metrics.get("process_threads", &[]).unwrap() >= 2.0);
        assert!(metrics.get("process_start_time_seconds", &[]).unwrap() > 1.7e9);
        let version = ("version", env!("CARGO_PKG_VERSION"));
        assert_eq!(metrics.get("codeq_build_info", &[version]), Some(1.0));
    });
}

#[test]
fn what_never_happened_has_a_name_all_the_same() {
    on_every_provider(|host, _| {
        let metrics = host.metrics();
        for name in ["codeq_webhook_deliveries_total", "codeq_rate_limit_hits_total"] {
            assert_eq!(metrics.kinds[name], "counter");
            assert_eq!(metrics.get(name, &[]), None);
        }
    });
}

#[test]
fn too_many_commands_share_one_label() {
    on_every_provider(|host, client| {
        for batch in 0..11 {
            let task = |n| json!({ "command": format!("c{}", batch * 100 + n), "payload": 1 });
            let tasks: Vec<Value> = (0..100).map(task).collect();
            client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
        }
        let metrics = host.metrics();
        let created = "codeq_task_created_total";
        assert_eq!(metrics.labels(created, "command").len(), 1001);
        assert_eq!(metrics.get(created, &[("command", "other")]), Some(100.0));
        assert_eq!(metrics.get(created, &[]), Some(1100.0));
    });
}

/// A host whose plugin waits long for its server.
fn patient(redis: &Redis) -> Host {
    let config = json!({ "persistenceConfig": { "commandTimeoutMs": 20_000 } });
    start_on("redis", Some(redis), &config)
}

#[test]
fn a_backend_that_hangs_does_not_hold_up_the_metrics() {
    let redis = Redis::start();
    let host = patient(&redis);
    host.client().create("lost");
    assert_eq!(host.metrics().get("codeq_backend_up", &[]), Some(1.0));
    redis.hang();
    thread::sleep(KEPT);
    let begin = Clock::now();
    let metrics = host.metrics();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(metrics.get("codeq_backend_up", &[]), Some(0.0));
    assert_eq!(metrics.get("codeq_queue_depth", &[]), None, "nobody knows");
    assert_eq!(metrics.get("codeq_task_created_total", &[]), Some(1.0), "what the host knows");
    redis.resume();
    wait_for(&host, |metrics| metrics.get("codeq_backend_up", &[]) == Some(1.0));
}

#[test]
fn a_backend_that_is_gone_is_said_to_be_down_and_the_log_says_it_once() {
    let mut redis = Redis::start();
    let host = start_on("redis", Some(&redis), &json!({}));
    redis.kill();
    for _ in 0..3 {
        thread::sleep(KEPT);
        assert_eq!(host.metrics().get("codeq_backend_up", &[]), Some(0.0));
    }
    let told = host.log().iter().filter(|line| line.contains("metrics lack the queues")).count();
    assert_eq!(told, 1, "{:#?}", host.log());
    let unavailable = [("kind", "unavailable"), ("operation", "health")];
    assert!(host.metrics().sum("codeq_plugin_errors_total", &unavailable) >= 1.0);
    redis.restart();
    wait_for(&host, |metrics| metrics.get("codeq_backend_up", &[]) == Some(1.0));
}

#[test]
fn nobody_needs_a_token_for_the_metrics() {
    let config = json!({
        "persistenceProvider": "memory",
        "producerAuthProvider": "static",
        "producerAuthConfig": "a-secret",
        "workerAuthProvider": "static",
        "workerAuthConfig": "another",
    });
    let host = Host::start(plugin_dir(&["memory"]).path(), config);
    assert_eq!(host.metrics().get("codeq_backend_up", &[]), Some(1.0));
}

// The dashboard.

fn dashboard() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/grafana/codeq.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// The panels, also those in rows that are folded.
fn panels(of: &Value) -> Vec<&Value> {
    let direct = of["panels"].as_array().into_iter().flatten();
    direct.flat_map(|panel| [vec![panel], panels(panel)].concat()).collect()
}

/// The names of figures in a query.
fn names(query: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(|c: char| !is_part(c));
    let words = words.filter(|word| word.starts_with("codeq_") || word.starts_with("process_"));
    words.map(ToOwned::to_owned).collect()
}

#[test]
fn the_dashboard_asks_for_nothing_that_a_host_does_not_tell() {
    let setup = Setup::start("redis", &json!({}));
    let client = setup.host.client();
    let id = client.create("shown");
    claim(&client, "shown");
    client.complete(&id).expect(200);
    let metrics = setup.host.metrics();
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let queries: Vec<&str> = panels(&dashboard)
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .chain(variables.iter().filter_map(|variable| variable["query"].as_str()))
        .collect();
    let asked: BTreeSet<String> = queries.iter().flat_map(|query| names(query)).collect();
    assert!(asked.len() > 15, "{asked:?}");
    for name in &asked {
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|family| metrics.kinds.get(*family).is_some_and(|kind| kind == "histogram"))
            .unwrap_or(name);
        assert!(metrics.kinds.contains_key(family), "no host tells {name}: {}", metrics.text);
    }
    // And all that codeQ tells is shown.
    for name in metrics.kinds.keys().filter(|name| !name.ends_with("_info")) {
        let is_asked = asked.iter().any(|asked| asked.starts_with(&**name));
        assert!(is_asked || name.starts_with("process_"), "the dashboard does not show {name}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    assert!(dashboard["id"].is_null(), "an id is given by the Grafana that imports it");
    assert!(!dashboard["title"].as_str().unwrap().is_empty());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let source = &variables[0];
    assert_eq!((&source["type"], &source["query"]), (&json!("datasource"), &json!("prometheus")));
    let source = format!("${{{}}}", source["name"].as_str().unwrap());
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have an id: {panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24 && at("h") > 0, "{panel}");
        assert!(places.insert((at("x"), at("y"))), "two panels in one place: {panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(["stat", "timeseries"].contains(&panel["type"].as_str().unwrap()), "{panel}");
        assert!(!panel["description"].as_str().unwrap().is_empty());
        assert_eq!(panel["datasource"]["uid"], source, "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty());
        let refs: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str()).collect();
        assert!(refs.len() == targets.len() && !refs.contains(&None), "{panel}");
        assert!(targets.iter().all(|target| target["datasource"]["uid"] == source), "{panel}");
    }
}
