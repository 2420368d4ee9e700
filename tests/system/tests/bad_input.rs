//! What makes no sense is refused in JSON, with a status that blames the caller, and harms nobody.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{thread, time::Duration};

use codeq_plugin::Instant;
use codeq_system_tests::{
    Client, Host, Raw, on_every_provider, on_every_provider_with, plugin_dir,
};
use serde_json::{Value, json};

/// Runs a test on every provider, and sees that the host is well and blames itself for nothing.
fn unharmed(config: &Value, test: impl Fn(&Host, &Client)) {
    on_every_provider_with(config, |host, client| {
        test(host, client);
        client.get("/readyz").expect(200);
        let id = client.create("still-well");
        client.claim("still-well").unwrap();
        client.complete(&id).expect(200);
        for line in host.log() {
            assert!(!line.contains("\"level\":\"ERROR\"") && !line.contains("panicked"), "{line}");
        }
    });
}

/// A refusal with this status, in JSON.
fn refused(client: &Client, method: &str, path: &str, body: Option<&[u8]>, status: u16) -> Value {
    let answer = client.send(method, path, body, &[]);
    let shown = body.map(|body| String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned());
    let what = format!("{method} {path:.100} {shown:?}: {} {}", answer.status, answer.body);
    assert_eq!(answer.status, status, "{what}");
    assert!(answer.body["error"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
    answer.body
}

/// The routes that need a body, and those that can do without.
const WITH_BODY: [&str; 5] =
    ["/tasks", "/tasks/batch", "/tasks/claim/batch", "/tasks/x/result", "/tasks/batch/results"];
const BODY_OPTIONAL: [&str; 4] =
    ["/tasks/claim", "/tasks/x/heartbeat", "/tasks/x/nack", "/admin/tasks/cleanup"];

#[test]
fn a_body_that_is_no_json_object_is_refused() {
    unharmed(&json!({}), |_, client| {
        let bodies: [&[u8]; 16] = [
            b"{",
            b"}",
            b"{]",
            b"nul",
            b"null",
            b"true",
            b"7",
            b"\"text\"",
            b"{}{}",
            b"{} trailing",
            b"{\"command\":}",
            b"{'command':'a'}",
            b"{\"command\":\"a\",}",
            b"\xef\xbb\xbf{}",
            b"\0",
            b"<xml/>",
        ];
        for path in WITH_BODY.iter().chain(&BODY_OPTIONAL) {
            for body in bodies {
                let answer = refused(client, "POST", path, Some(body), 400);
                assert_eq!(answer["error"], "invalid body", "{path}");
            }
        }
        for path in WITH_BODY {
            refused(client, "POST", path, None, 400);
            refused(client, "POST", path, Some(b" \r\n"), 400);
        }
    });
}

#[test]
fn text_that_is_no_utf8_is_refused() {
    unharmed(&json!({}), |_, client| {
        for broken in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"] {
            let with = |before: &[u8], after: &[u8]| [before, broken, after].concat();
            let command = with(b"{\"payload\":1,\"command\":\"", b"\"}");
            refused(client, "POST", "/tasks", Some(&command), 400);
            let payload = with(b"{\"command\":\"a\",\"payload\":\"", b"\"}");
            refused(client, "POST", "/tasks", Some(&payload), 400);
            let key = with(b"{\"", b"\":1,\"command\":\"a\",\"payload\":1}");
            refused(client, "POST", "/tasks", Some(&key), 400);
            let reason = with(b"{\"reason\":\"", b"\"}");
            refused(client, "POST", "/tasks/x/nack", Some(&reason), 400);
        }
        let lone: &[u8] = br#"{"command":"\ud800","payload":1}"#;
        refused(client, "POST", "/tasks", Some(lone), 400);
    });
}

#[test]
fn a_field_of_the_wrong_type_is_refused() {
    unharmed(&json!({}), |_, client| {
        for (path, field, wrong) in [
            ("/tasks", "command", "7 null [\"a\"] {}"),
            ("/tasks", "priority", "\"9\" 1.5 true [] 1e2"),
            ("/tasks", "maxAttempts", "\"3\" 2.5 {}"),
            ("/tasks", "webhook", "7 [] \"nowhere\" \"ftp://a/b\" \"http://\""),
            ("/tasks", "idempotencyKey", "7 [] \"\\u0000\""),
            ("/tasks", "runAt", "7 [] \"soon\""),
            ("/tasks", "delaySeconds", "\"1\" [] -1 -0.001 -1e300"),
            ("/tasks/claim", "commands", "\"a\" [7] [null] {}"),
            ("/tasks/claim", "leaseSeconds", "\"1\" 1.5 [] 1e3"),
            ("/tasks/claim", "waitSeconds", "\"1\" [] {} 0.5"),
            ("/tasks/claim/batch", "count", "\"1\" 0 -1 11 1.5 null 4294967297"),
            ("/tasks/x/heartbeat", "extendSeconds", "\"1\" [] 1.5"),
            ("/tasks/x/nack", "delaySeconds", "\"1\" [] -1"),
            ("/tasks/x/nack", "reason", "7 []"),
            ("/tasks/x/result", "status", "7 null \"\" \"PENDING\" \"IN_PROGRESS\""),
            ("/tasks/x/result", "result", "7 [] \"{}\" null"),
            ("/tasks/x/result", "artifacts", "7 {} [7] [{}] [{\"name\":\"a\"}]"),
            ("/tasks/batch", "tasks", "7 {} \"a\" null []"),
            ("/tasks/batch/results", "results", "7 {} \"a\" null []"),
            ("/admin/tasks/cleanup", "limit", "\"1\" -1 1.5 4294967296"),
            ("/admin/tasks/cleanup", "before", "7 \"now\""),
        ] {
            for wrong in wrong.split(' ') {
                // What else the route needs.
                let rest = match path {
                    "/tasks" => r#""command":"a","payload":1,"#,
                    "/tasks/claim/batch" => r#""commands":["a"],"#,
                    "/tasks/x/result" => r#""status":"COMPLETED","result":{},"#,
                    _ => "",
                };
                let rest: String = rest
                    .split_inclusive(',')
                    .filter(|given| !given.starts_with(&format!("\"{field}\"")))
                    .collect();
                let body = format!("{{{rest}\"{field}\":{wrong}}}");
                refused(client, "POST", path, Some(body.as_bytes()), 400);
            }
        }
    });
}

#[test]
fn a_number_that_is_none_is_refused() {
    unharmed(&json!({}), |_, client| {
        for number in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0x10", "01", "+1", "1."]
        {
            for field in ["priority", "maxAttempts", "delaySeconds"] {
                let body = format!(r#"{{"command":"a","payload":1,"{field}":{number}}}"#);
                refused(client, "POST", "/tasks", Some(body.as_bytes()), 400);
            }
            for field in ["leaseSeconds", "waitSeconds"] {
                let body = format!(r#"{{"{field}":{number}}}"#);
                refused(client, "POST", "/tasks/claim", Some(body.as_bytes()), 400);
            }
        }
        for field in ["priority", "maxAttempts"] {
            let body = format!(r#"{{"command":"a","payload":1,"{field}":9223372036854775808}}"#);
            refused(client, "POST", "/tasks", Some(body.as_bytes()), 400);
        }
    });
}

#[test]
fn numbers_beyond_all_measure_are_brought_within_it() {
    unharmed(&json!({}), |_, client| {
        for extreme in [i64::MAX, i64::MIN, -1, 0, i64::from(u32::MAX) + 1] {
            let body = json!({
                "command": "extreme",
                "payload": 1,
                "priority": extreme,
                "maxAttempts": extreme,
            });
            let created = client.create_with(body);
            let priority = if extreme > 0 { json!(9) } else { Value::Null };
            assert_eq!(created["priority"], priority, "{extreme}");
            let id = created["id"].as_str().unwrap();
            let claim = json!({ "commands": ["extreme"], "leaseSeconds": extreme });
            let claimed = client.claim_with(claim).unwrap();
            assert_eq!(claimed["id"], created["id"]);
            let until = claimed["leaseUntil"].as_str().unwrap();
            assert!(Instant::parse_rfc3339(until).unwrap() > Instant::now(), "{extreme} {until}");
            let beat = json!({ "extendSeconds": extreme });
            client.post(&format!("/tasks/{id}/heartbeat"), beat).expect(200);
            client.get(&format!("/tasks/{id}")).expect(200);
            client.complete(id).expect(200);
        }
        for delay in [json!(1e308), json!(1e18), json!(i64::MAX)] {
            let body = json!({ "command": "far", "payload": 1, "delaySeconds": delay });
            let id = client.create_with(body)["id"].as_str().unwrap().to_owned();
            client.get(&format!("/tasks/{id}")).expect(200);
        }
        for at in ["9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z"] {
            client.create_with(json!({ "command": "at", "payload": 1, "runAt": at }));
        }
        assert_eq!((client.counts("far"), client.counts("at")), ([0, 3, 0, 0], [1, 1, 0, 0]));
    });
}

#[test]
fn a_command_that_is_no_name_is_refused() {
    unharmed(&json!({}), |_, client| {
        let long = "a".repeat(257);
        for command in ["", " ", "\t\r\n", "\u{2003}", "a\nb", "a\0", "\u{7f}", &long] {
            let body = json!({ "command": command, "payload": 1 }).to_string();
            refused(client, "POST", "/tasks", Some(body.as_bytes()), 400);
        }
    });
}

#[test]
fn a_command_may_have_any_other_name() {
    unharmed(&json!({}), |_, client| {
        let long = "a".repeat(256);
        for command in
            ["a:b", "{a}", "*", "a b", "汉字", "ÄÖÜ", "🚀", "%s", "../..", "a\"b", "a\\b", &long]
        {
            let id = client.create(command);
            let claimed = client.claim(command).unwrap();
            assert_eq!((&claimed["id"], &claimed["command"]), (&json!(id), &json!(command)));
            client.complete(&id).expect(200);
        }
    });
}

/// Something nested this deeply.
fn deep(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[test]
fn a_payload_may_be_nested_deeply() {
    unharmed(&json!({}), |_, client| {
        for levels in [100, 1_000, 10_000] {
            let payload = deep(levels);
            let body = format!(r#"{{"command":"deep","payload":{payload}}}"#);
            let answer = client.send("POST", "/tasks", Some(body.as_bytes()), &[]);
            if answer.status == 400 {
                continue;
            }
            assert_eq!(answer.expect(202)["payload"], payload);
            assert_eq!(client.claim("deep").unwrap()["payload"], payload);
        }
    });
}

#[test]
fn deep_nesting_where_none_belongs_is_refused() {
    unharmed(&json!({}), |_, client| {
        let deep = deep(10_000);
        for path in WITH_BODY.iter().chain(&BODY_OPTIONAL) {
            refused(client, "POST", path, Some(deep.as_bytes()), 400);
        }
        for body in [
            format!(r#"{{"command":{deep},"payload":1}}"#),
            format!(r#"{{"command":"a","payload":1,"priority":{deep}}}"#),
        ] {
            refused(client, "POST", "/tasks", Some(body.as_bytes()), 400);
        }
        let body = format!(r#"{{"tasks":[{deep}]}}"#);
        let answer = client.send("POST", "/tasks/batch", Some(body.as_bytes()), &[]);
        assert!([200, 400].contains(&answer.status), "{}", answer.status);
    });
}

/// Hands in a result; answers whether it was taken, in which case it can be read.
fn hand_in(client: &Client, result: &str) -> bool {
    let id = client.create("odd");
    client.claim("odd").unwrap();
    let body = format!(r#"{{"status":"COMPLETED","result":{result}}}"#);
    let path = format!("/tasks/{id}/result");
    let answer = client.send("POST", &path, Some(body.as_bytes()), &[]);
    assert!([200, 400].contains(&answer.status), "{} {}", answer.status, answer.body);
    if answer.status == 400 {
        client.post(&format!("/tasks/{id}/abandon"), json!({})).expect(200);
        client.claim("odd").unwrap();
        client.complete(&id).expect(200);
        return false;
    }
    client.get(&path).expect(200);
    true
}

#[test]
fn a_result_may_be_nested_deeply() {
    unharmed(&json!({}), |_, client| {
        assert!(hand_in(client, &format!(r#"{{"deep":{}}}"#, deep(100))));
        for levels in [126, 127, 128, 129, 200, 999, 1_000, 1_001, 10_000] {
            hand_in(client, &format!(r#"{{"deep":{}}}"#, deep(levels)));
        }
    });
}

#[test]
fn a_result_may_have_odd_numbers_and_texts() {
    unharmed(&json!({}), |_, client| {
        for result in [
            r#"{"n":1e400}"#,
            r#"{"n":-1e400}"#,
            r#"{"n":123456789012345678901234567890.5}"#,
            r#"{"n":-0.0}"#,
            r#"{"":{"":""}}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"t":"\u0000\ud83d\ude80"}"#,
            r#"{"t":"\ud800"}"#,
        ] {
            println!("{result}");
            hand_in(client, result);
        }
    });
}

#[test]
fn a_batch_of_odd_results_is_answered_item_by_item() {
    unharmed(&json!({}), |_, client| {
        for odd in [r#"{"n":1e400}"#.to_owned(), format!(r#"{{"deep":{}}}"#, deep(500))] {
            let id = client.create("odd");
            client.claim("odd").unwrap();
            let item = format!(r#"{{"taskId":"{id}","status":"COMPLETED","result":{odd}}}"#);
            let body = format!(r#"{{"results":[{item}]}}"#);
            let path = "/tasks/batch/results";
            let answer = client.send("POST", path, Some(body.as_bytes()), &[]).status;
            assert!([200, 400].contains(&answer), "{answer}");
        }
    });
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let limit = 64 << 10;
    unharmed(&json!({ "maxBodyBytes": limit }), |host, client| {
        let body = |length: usize| {
            let frame = r#"{"command":"big","payload":""}"#.len();
            let payload = "x".repeat(length - frame);
            format!(r#"{{"command":"big","payload":"{payload}"}}"#).into_bytes()
        };
        client.send("POST", "/tasks", Some(&body(limit)), &[]).expect(202);
        refused(client, "POST", "/tasks", Some(&body(limit + 1)), 413);
        for path in WITH_BODY.iter().chain(&BODY_OPTIONAL) {
            refused(client, "POST", path, Some(&body(2 * limit)), 413);
        }
        // Much more, which the host does not read to its end.
        let huge = body(64 << 20);
        let mut raw = Raw::connect(host);
        raw.post("/v1/codeq/tasks", huge.len(), &huge);
        assert_eq!(raw.read().0, 413);
        // Without saying how long it is.
        let mut raw = Raw::connect(host);
        raw.send(b"POST /v1/codeq/tasks HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..10 {
            raw.send(b"4000\r\n");
            raw.send(&[b' '; 0x4000]);
            raw.send(b"\r\n");
        }
        raw.send(b"0\r\n\r\n");
        raw.end();
        assert_eq!(raw.read().0, 413);
        assert_eq!(client.counts("big"), [1, 0, 0, 0]);
    });
}

#[test]
fn a_connection_goes_on_after_a_refusal_or_its_end_is_announced() {
    let producers = json!({
        "persistenceProvider": "memory",
        "producerAuthProvider": "static",
        "producerAuthConfig": "secret",
    });
    let host = Host::start(plugin_dir(&["memory"]).path(), producers);
    // The end of the body comes late, and nobody has to look at it to refuse the request.
    let mut raw = Raw::connect(&host);
    for connection in ["keep-alive", "keep-alive", "close"] {
        let head = format!(
            "POST /v1/codeq/tasks HTTP/1.1\r\nHost: t\r\nConnection: {connection}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        raw.send(head.as_bytes());
        thread::sleep(Duration::from_millis(50));
        raw.send(b"0\r\n\r\n");
    }
    let (_, text) = raw.read();
    assert_eq!(text.matches("HTTP/1.1 401").count(), 3, "{text}");
    // Too much to be read for nothing.
    let mut raw = Raw::connect(&host);
    raw.send(b"POST /v1/codeq/tasks HTTP/1.1\r\nHost: t\r\nContent-Length: 9000000\r\n\r\n");
    let (status, text) = raw.read();
    assert!(status == 401 && text.contains("connection: close"), "{text}");
}

#[test]
fn any_content_type_is_taken() {
    unharmed(&json!({}), |_, client| {
        let body: &[u8] = br#"{"command":"typed","payload":1}"#;
        for content_type in ["application/json; charset=utf-8", "text/plain", "nonsense", ""] {
            let headers = [("Content-Type", content_type)];
            client.send("POST", "/tasks", Some(body), &headers).expect(202);
        }
        client.send("POST", "/tasks", Some(body), &[]).expect(202);
        assert_eq!(client.counts("typed"), [5, 0, 0, 0]);
    });
}

#[test]
fn an_odd_id_is_not_found() {
    unharmed(&json!({}), |_, client| {
        let long = "x".repeat(8_000);
        for id in [
            "%20",
            "a%2Fb",
            "%2e%2e",
            "%00",
            "%0a%0d",
            "%22'%5c",
            "%E6%B1%89",
            "%F0%9F%9A%80",
            "a:b",
            "*",
            "%7Ba%7D",
            "-1",
            &long,
        ] {
            refused(client, "GET", &format!("/tasks/{id}"), None, 404);
            refused(client, "GET", &format!("/tasks/{id}/result"), None, 404);
            let body: &[u8] = br#"{"status":"COMPLETED","result":{}}"#;
            for action in ["heartbeat", "abandon", "nack", "result"] {
                refused(client, "POST", &format!("/tasks/{id}/{action}"), Some(body), 404);
            }
        }
    });
}

#[test]
fn a_path_that_is_no_utf8_is_refused() {
    unharmed(&json!({}), |_, client| {
        for broken in ["%FF", "%C3", "a%ED%A0%80"] {
            refused(client, "GET", &format!("/tasks/{broken}"), None, 400);
            refused(client, "GET", &format!("/tasks/{broken}/result"), None, 400);
            refused(client, "GET", &format!("/admin/queues/{broken}"), None, 400);
            let body: &[u8] = br#"{"status":"COMPLETED","result":{}}"#;
            for action in ["heartbeat", "abandon", "nack", "result"] {
                refused(client, "POST", &format!("/tasks/{broken}/{action}"), Some(body), 400);
            }
        }
    });
}

#[test]
fn the_counts_of_an_odd_queue_are_zero() {
    unharmed(&json!({}), |_, client| {
        let long = "x".repeat(8_000);
        for name in ["%00", "a%2Fb", "%F0%9F%9A%80", "a:b:c", "*", "%7Ba%7D", "%0a", &long] {
            let answer = client.get(&format!("/admin/queues/{name}"));
            if answer.status != 400 {
                assert_eq!(answer.expect(200)["ready"], 0, "{name:.20}");
            }
        }
        refused(client, "GET", "/admin/queues/%20", None, 400);
    });
}

#[test]
fn a_query_that_makes_no_sense_is_refused() {
    unharmed(&json!({}), |_, client| {
        let id = client.create("query");
        let path = |query: &str| format!("/tasks/{id}/result?{query}");
        for query in [
            "waitSeconds=soon",
            "waitSeconds=1.5",
            "waitSeconds=99999999999999999999",
            "waitSeconds=1&waitSeconds=2",
        ] {
            refused(client, "GET", &path(query), None, 400);
        }
        for query in ["", "waitSeconds=", "waitSeconds=-5", "other=1", "%FF=%FF", "&&&=", "a=%zz"] {
            let answer = client.get(&path(query));
            assert!([400, 404].contains(&answer.status), "{query}: {}", answer.status);
            assert!(answer.body["error"].is_string(), "{query}: {}", answer.body);
        }
    });
}

#[test]
fn texts_of_any_length_and_kind_are_kept() {
    unharmed(&json!({}), |_, client| {
        let text = "\u{0}\u{1}\"\\/\u{7f}\u{2028}汉字🚀".repeat(2_000);
        let headers = [("traceparent", "no trace"), ("tracestate", "%%%")];
        let body = json!({
            "command": "text",
            "payload": text,
            "idempotencyKey": text.replace('\0', ""),
            "maxAttempts": 1,
        });
        let bytes = body.to_string();
        let created = client.send("POST", "/tasks", Some(bytes.as_bytes()), &headers).expect(202);
        let id = created["id"].as_str().unwrap();
        let claimed = client.claim("text").unwrap();
        let payload: Value = serde_json::from_str(claimed["payload"].as_str().unwrap()).unwrap();
        assert_eq!(payload, text);
        client.post(&format!("/tasks/{id}/nack"), json!({ "reason": text })).expect(200);
        assert_eq!(client.get(&format!("/tasks/{id}")).expect(200)["error"], *text.trim());
        assert_eq!(client.create_with(body)["id"], created["id"]);
    });
}

#[test]
fn what_is_no_http_harms_nobody() {
    unharmed(&json!({}), |host, client| {
        let long_header =
            format!("GET /healthz HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
        let long_path = format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(1 << 20));
        let many_headers = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5_000));
        let garbage: [&[u8]; 12] = [
            b"",
            b"\r\n\r\n",
            b"GARBAGE\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/codeq/tasks HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
            b"POST /v1/codeq/tasks HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /v1/codeq/tasks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            long_header.as_bytes(),
            long_path.as_bytes(),
            many_headers.as_bytes(),
        ];
        for bytes in garbage {
            let mut raw = Raw::connect(host);
            raw.send(bytes);
            raw.end();
            let (status, text) = raw.read();
            assert!(status < 500, "{text}");
            client.get("/healthz").expect(200);
        }
    });
}

#[test]
fn a_request_that_ends_too_early_creates_nothing() {
    unharmed(&json!({}), |host, client| {
        let body = br#"{"command":"half","payload":1}"#;
        thread::scope(|scope| {
            for length in 0..body.len() {
                scope.spawn(move || {
                    let mut raw = Raw::connect(host);
                    raw.post("/v1/codeq/tasks", body.len(), &body[..length]);
                    raw.end();
                    let (status, text) = raw.read();
                    assert!(status < 500 && status != 202, "{text}");
                });
            }
        });
        assert_eq!(client.counts("half"), [0; 4]);
    });
}

#[test]
fn a_claim_of_too_many_commands_is_refused() {
    on_every_provider(|_, client| {
        client.create("c99");
        let claim = |count: usize| {
            let commands: Vec<_> = (0..count).map(|number| format!("c{number}")).collect();
            client.post("/tasks/claim", json!({ "commands": commands }))
        };
        let error = claim(101).expect(400);
        assert_eq!(error["error"], "a claim names at most 100 commands");
        assert_eq!(claim(100).expect(200)["command"], "c99");
    });
}

#[test]
fn a_host_that_met_nothing_odd_is_well() {
    // The yardstick of the tests above.
    on_every_provider(|host, client| {
        client.get("/readyz").expect(200);
        assert!(!host.log().iter().any(|line| line.contains("\"level\":\"ERROR\"")));
    });
}
