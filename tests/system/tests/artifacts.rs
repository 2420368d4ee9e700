//! Files of results: kept before a result is taken, served to those who may read the task, and gone
//! with it.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{fs, path::Path};

use codeq_system_tests::{Answer, Client, Host, PROVIDERS, Setup, start_on};
use codeq_test_servers::Redis;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::{
    Agent,
    http::{HeaderMap, Request},
};

/// "hello"
const HELLO: &str = "aGVsbG8=";
/// "other"
const OTHER: &str = "b3RoZXI=";

/// Runs a test on every provider, with a directory for files that is not there yet.
fn with_files(config: &Value, test: impl Fn(&Path, &Host, &Client)) {
    for provider in PROVIDERS {
        println!("on {provider}:");
        let dir = TempDir::new().unwrap();
        let files = dir.path().join("files");
        let setup = Setup::start(provider, &and(config, &json!({ "localArtifactsDir": files })));
        test(&files, &setup.host, &setup.host.client());
    }
}

fn and(config: &Value, more: &Value) -> Value {
    let mut config = config.clone();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// Creates a task and claims it; answers its id.
fn claimed(client: &Client) -> String {
    let id = client.create("a");
    assert_eq!(client.claim("a").unwrap()["id"], *id);
    id
}

fn with(artifacts: Value) -> Value {
    json!({ "status": "COMPLETED", "result": {}, "artifacts": artifacts })
}

fn submit(client: &Client, id: &str, artifacts: Value) -> Answer {
    client.post(&format!("/tasks/{id}/result"), with(artifacts))
}

fn content(name: &str, base64: &str) -> Value {
    json!({ "name": name, "contentBase64": base64 })
}

fn refusal(client: &Client, id: &str, artifacts: Value, status: u16) -> String {
    submit(client, id, artifacts).expect(status)["error"].as_str().unwrap().to_owned()
}

/// The URLs of a task's artifacts, as its result has them.
fn urls(client: &Client, id: &str) -> Vec<String> {
    let result = client.get(&format!("/tasks/{id}/result")).expect(200);
    let artifacts = result["result"]["artifacts"].as_array().unwrap();
    artifacts.iter().map(|artifact| artifact["url"].as_str().unwrap().to_owned()).collect()
}

struct Download {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Download {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

fn request(method: &str, host: &Host, url: &str, token: Option<&str>) -> Download {
    let agent = Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut request = Request::builder().method(method).uri(format!("http://{}{url}", host.addr()));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut response = agent.run(request.body(()).unwrap()).unwrap();
    Download {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().read_to_vec().unwrap(),
    }
}

fn download(host: &Host, url: &str) -> Download {
    request("GET", host, url, None)
}

/// What each kept bundle has in it, by name.
fn bundles(dir: &Path) -> Vec<Vec<String>> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let hours = names(dir).into_iter().map(|hour| dir.join(hour));
    hours
        .flat_map(|hour| names(&hour).into_iter().map(move |name| names(&hour.join(name))))
        .collect()
}

// Keeping and serving.

#[test]
fn a_file_is_kept_and_served_as_it_was_sent() {
    with_files(&json!({}), |_, host, client| {
        let id = claimed(client);
        let artifacts = json!([
            { "name": "report.txt", "contentBase64": HELLO, "contentType": "text/plain; charset=utf-8" },
            { "name": "there.bin", "url": "https://files.example.org/there.bin" },
            { "name": "raw", "contentBase64": "AAH/" },
            { "name": "empty", "contentBase64": "" },
        ]);
        let answered = submit(client, &id, artifacts).expect(200);
        let result = client.get(&format!("/tasks/{id}/result")).expect(200)["result"].clone();
        assert_eq!(answered, result);
        let urls = urls(client, &id);
        assert!(urls[0].starts_with(&format!("/v1/codeq/tasks/{id}/artifacts/report.txt?bundle=")));
        assert_eq!(urls[1], "https://files.example.org/there.bin");

        let report = download(host, &urls[0]);
        assert_eq!((report.status, report.body.as_slice()), (200, b"hello".as_slice()));
        assert_eq!(report.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(report.header("content-length"), "5");
        assert_eq!(report.header("x-content-type-options"), "nosniff");
        assert_eq!(
            report.header("content-disposition"),
            "attachment; filename*=UTF-8''report%2Etxt"
        );
        let raw = download(host, &urls[2]);
        assert_eq!((raw.status, raw.body.as_slice()), (200, [0, 1, 255].as_slice()));
        assert_eq!(raw.header("content-type"), "application/octet-stream");
        assert_eq!(download(host, &urls[3]).body, b"");

        let head = request("HEAD", host, &urls[0], None);
        assert_eq!((head.status, head.header("content-length")), (200, "5"));
        assert!(head.body.is_empty());
        // Who knows the name needs no more.
        let by_name = format!("/v1/codeq/tasks/{id}/artifacts/report.txt");
        assert_eq!(download(host, &by_name).body, b"hello");
    });
}

#[test]
fn a_large_file_is_served_whole() {
    with_files(&json!({}), |_, host, client| {
        let id = claimed(client);
        // Three bytes each, all zero.
        let base64 = "AAAA".repeat(1 << 20);
        submit(client, &id, json!([content("zeros", &base64)])).expect(200);
        let zeros = download(host, &urls(client, &id)[0]);
        assert_eq!(zeros.body.len(), 3 << 20);
        assert!(zeros.body.iter().all(|byte| *byte == 0));
    });
}

#[test]
fn links_begin_with_the_address_that_the_host_is_reached_at() {
    let config = json!({ "publicUrl": "https://queue.example.org/inner/" });
    with_files(&config, |_, host, client| {
        let id = claimed(client);
        submit(client, &id, json!([content("a", HELLO)])).expect(200);
        let url = urls(client, &id).remove(0);
        let path = url.strip_prefix("https://queue.example.org/inner").unwrap();
        assert_eq!(download(host, path).body, b"hello");
    });
}

#[test]
fn a_failed_task_has_files_too() {
    with_files(&json!({}), |_, host, client| {
        let id = claimed(client);
        let result =
            json!({ "status": "FAILED", "error": "no", "artifacts": [content("log", HELLO)] });
        client.post(&format!("/tasks/{id}/result"), result).expect(200);
        assert_eq!(download(host, &urls(client, &id)[0]).body, b"hello");
    });
}

#[test]
fn whatever_a_file_is_called_it_is_kept_inside_and_found_by_its_link() {
    with_files(&json!({}), |dir, host, client| {
        let names = [
            "../../../escaped",
            "/etc/passwd",
            "..\\..\\escaped",
            "C:\\x",
            "a/../b",
            ".hidden",
            "NUL",
            "con.txt",
            "about.json",
            "0",
            "%2e%2e%2fescaped",
            "%00",
            "ä ö",
            "a\u{308}",
            "😀",
            "a?b#c",
            "\"quoted\"",
            "a;b=c",
            "...",
            "A",
            "a",
        ];
        let id = claimed(client);
        let artifacts: Vec<_> = names.iter().map(|name| content(name, HELLO)).collect();
        submit(client, &id, json!(artifacts)).expect(200);
        for (name, url) in names.iter().zip(urls(client, &id)) {
            let file = download(host, &url);
            assert_eq!((file.status, file.body.as_slice()), (200, b"hello".as_slice()), "{name}");
        }
        let [bundle] = bundles(dir).try_into().unwrap();
        assert_eq!(bundle.len(), names.len() + 1);
        for name in bundle {
            assert!(name == "about.json" || name.parse::<usize>().is_ok(), "{name}");
        }
        let beside: Vec<_> = fs::read_dir(dir.parent().unwrap()).unwrap().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
    });
}

#[test]
fn each_result_of_a_batch_has_its_own_files() {
    with_files(&json!({ "maxArtifactBytes": 5 }), |dir, host, client| {
        let ids = [(); 3].map(|()| claimed(client));
        let item = |id: &str, artifacts| and(&with(artifacts), &json!({ "taskId": id }));
        let batch = json!({ "results": [
            item(&ids[0], json!([content("a", HELLO)])),
            item(&ids[1], json!([content("a", "AAAAAAAA")])),
            item("nobody", json!([content("a", HELLO)])),
            item(&ids[2], json!([content("a", OTHER)])),
        ] });
        let answers = client.post("/tasks/batch/results", batch).expect(200);
        let error = |n: usize| &answers["results"][n]["error"];
        assert_eq!(error(1), "artifact a: content is larger than 5 bytes");
        assert_eq!(error(2), "task not found");
        assert_eq!(download(host, &urls(client, &ids[0])[0]).body, b"hello");
        assert_eq!(download(host, &urls(client, &ids[2])[0]).body, b"other");
        assert_eq!(bundles(dir).len(), 2);
    });
}

// Refusals.

#[test]
fn files_that_make_no_sense_are_refused_and_leave_nothing() {
    with_files(&json!({ "maxArtifactBytes": 5 }), |dir, _, client| {
        let id = claimed(client);
        let refused = |artifacts: Value, expected: &str| {
            assert_eq!(refusal(client, &id, artifacts, 400), expected);
        };
        let one = |name: &str| json!([content(name, HELLO)]);
        refused(one(" "), "artifact without a name");
        for name in [".", ".."] {
            refused(one(name), &format!("artifact {name}: a URL cannot end with such a name"));
        }
        refused(one("a\0b"), "artifact a\\0b: the name contains control characters");
        refused(one("a\nb"), "artifact a\\nb: the name contains control characters");
        let long = format!("artifact {}…: the name is longer than 255 bytes", "a".repeat(40));
        refused(one(&"a".repeat(256)), &long);
        refused(json!([{ "name": "a" }]), "artifact a: url or contentBase64 is required");
        let message = "artifact a: another artifact has the same name";
        refused(json!([content("a", HELLO), content("a", HELLO)]), message);
        let message = "artifact a: invalid contentType (use a media type such as text/plain)";
        for wrong in ["text", "/", "text/", "a/b\r\nX: y", "ä/b"] {
            let artifact = and(&content("a", HELLO), &json!({ "contentType": wrong }));
            refused(json!([artifact]), message);
        }
        let message = refusal(client, &id, json!([content("a", "%%%")]), 400);
        assert!(message.starts_with("artifact a: contentBase64 is not base64: "), "{message}");
        let many: Vec<_> = (0..101).map(|n| content(&n.to_string(), "")).collect();
        refused(json!(many), "a result has at most 100 artifacts");
        let message = "artifact a: content is larger than 5 bytes";
        assert_eq!(refusal(client, &id, json!([content("a", "aGVsbG8h")]), 413), message);
        // The outcome is looked at before anything is written.
        let result = json!({ "status": "COMPLETED", "artifacts": one("a") });
        client.post(&format!("/tasks/{id}/result"), result).expect(400);
        assert!(!dir.exists());
        submit(client, &id, one("a")).expect(200);
    });
}

const PRODUCER: &str = "the-producers-secret";
const WORKER: &str = "the-workers-secret";

/// Two workers, the first of whom creates tasks as well.
fn two_workers(tenants: [&str; 2]) -> Value {
    let claims = |token: &str, subject: &str, tenant: &str| {
        json!({
            "token": token, "subject": subject, "eventTypes": ["*"], "raw": { "tid": tenant },
            "scopes": ["codeq:claim", "codeq:result", "codeq:nack"],
        })
    };
    json!({
        "producerAuthProvider": "static",
        "producerAuthConfig": claims(PRODUCER, "ann", tenants[0]),
        "workerAuthProvider": "static",
        "workerAuthConfig": claims(WORKER, "bob", tenants[1]),
        "allowProducerAsWorker": true,
    })
}

#[test]
fn whoever_does_not_hold_the_task_changes_no_file_and_leaves_none() {
    with_files(&two_workers(["acme", "acme"]), |dir, host, client| {
        let (ann, bob) = (client.with_token(PRODUCER), client.with_token(WORKER));
        let id = claimed(&ann);
        let other = || json!([content("a", OTHER)]);
        assert_eq!(refusal(&bob, &id, other(), 403), "not-owner");
        assert_eq!(refusal(&bob, "nobody", other(), 404), "task not found");
        assert!(bundles(dir).is_empty());
        submit(&ann, &id, json!([content("a", HELLO)])).expect(200);
        let url = urls(&ann, &id).remove(0);
        for late in [&ann, &bob] {
            assert_eq!(refusal(late, &id, other(), 409), "not-in-progress");
        }
        assert_eq!(urls(&ann, &id), [url.as_str()]);
        assert_eq!(request("GET", host, &url, Some(WORKER)).body, b"hello");
        assert_eq!(bundles(dir).len(), 1);
    });
}

#[test]
fn a_worker_whose_task_went_to_another_leaves_no_file() {
    with_files(&two_workers(["acme", "acme"]), |dir, host, client| {
        let (ann, bob) = (client.with_token(PRODUCER), client.with_token(WORKER));
        let id = claimed(&ann);
        ann.post(&format!("/tasks/{id}/nack"), json!({ "delaySeconds": 0 })).expect(200);
        assert_eq!(bob.claim("a").unwrap()["id"], *id);
        refusal(&ann, &id, json!([content("a", OTHER)]), 403);
        submit(&bob, &id, json!([content("a", HELLO)])).expect(200);
        let url = urls(&ann, &id).remove(0);
        assert_eq!(request("GET", host, &url, Some(PRODUCER)).body, b"hello");
        assert_eq!(bundles(dir).len(), 1);
    });
}

#[test]
fn files_are_for_those_who_may_read_the_task() {
    with_files(&two_workers(["acme", "rival"]), |_, host, client| {
        let ann = client.with_token(PRODUCER);
        let id = claimed(&ann);
        submit(&ann, &id, json!([content("a", HELLO)])).expect(200);
        let url = urls(&ann, &id).remove(0);
        assert_eq!(request("GET", host, &url, Some(PRODUCER)).body, b"hello");
        assert_eq!(request("GET", host, &url, Some(WORKER)).status, 404);
        assert_eq!(request("GET", host, &url, Some("another")).status, 401);
        assert_eq!(request("GET", host, &url, None).status, 401);
    });
}

#[test]
fn only_what_the_result_speaks_of_is_served() {
    with_files(&json!({}), |dir, host, client| {
        let [first, second] = [HELLO, OTHER].map(|base64| {
            let id = claimed(client);
            submit(client, &id, json!([content("a", base64)])).expect(200);
            id
        });
        let url = urls(client, &first).remove(0);
        let bundle = url.rsplit_once('=').unwrap().1;
        // A result that speaks of somebody else's bundle.
        let third = claimed(client);
        let path = format!("/v1/codeq/tasks/{third}/artifacts/a?bundle={bundle}");
        submit(client, &third, json!([{ "name": "a", "url": path }])).expect(200);
        let fourth = client.create("b");
        for (id, name) in [
            (&second, format!("a?bundle={bundle}")),
            (&first, "a?bundle=".into()),
            (&first, "a?bundle=..%2F..".into()),
            (&first, "b".into()),
            (&first, "0".into()),
            (&first, "about.json".into()),
            (&first, "..%2F..%2Fa".into()),
            (&first, "a%00".into()),
            (&third, "a".into()),
            (&fourth, "a".into()),
            (&"nobody".to_owned(), "a".into()),
        ] {
            let url = format!("/v1/codeq/tasks/{id}/artifacts/{name}");
            assert_eq!(download(host, &url).status, 404, "{url}");
        }
        fs::remove_dir_all(dir).unwrap();
        let gone = download(host, &url);
        assert_eq!(gone.status, 404);
        assert!(String::from_utf8(gone.body).unwrap().contains("its content is not on this host"));
    });
}

#[test]
fn a_directory_that_cannot_be_used_keeps_nothing_but_files_from_working() {
    with_files(&json!({}), |dir, host, client| {
        fs::write(dir, "no directory").unwrap();
        let id = claimed(client);
        let answer = submit(client, &id, json!([content("a", HELLO)]));
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(answer.expect(503)["error"], "artifacts cannot be kept or read now");
        host.wait_for(|log| log.iter().any(|line| line.contains("cannot keep the artifacts in")));
        assert_eq!(client.counts("a"), [0, 0, 1, 0]);
        fs::remove_file(dir).unwrap();
        submit(client, &id, json!([content("a", HELLO)])).expect(200);
        assert_eq!(download(host, &urls(client, &id)[0]).body, b"hello");
    });
}

#[test]
fn a_host_says_at_its_start_if_its_directory_cannot_be_used() {
    let dir = TempDir::new().unwrap();
    let files = dir.path().join("files");
    fs::write(&files, "no directory").unwrap();
    let host = start_on("memory", None, &json!({ "localArtifactsDir": files }));
    host.wait_for(|log| {
        log.iter().any(|line| line.contains("results that bring files are refused"))
    });
}

// The end.

#[test]
fn the_files_of_a_deleted_task_are_gone() {
    with_files(&json!({}), |dir, host, client| {
        let id = claimed(client);
        submit(client, &id, json!([content("a", HELLO)])).expect(200);
        let url = urls(client, &id).remove(0);
        client.send("DELETE", &format!("/admin/tasks/{id}"), None, &[]).expect(204);
        assert_eq!(download(host, &url).status, 404);
        assert!(bundles(dir).is_empty());
    });
}

#[test]
fn old_files_of_which_no_result_speaks_are_removed() {
    // Each begins with the moment at which it was made: 2020-01-01T00:00:00Z.
    let [spoken_of, of_nobody, cut_off] =
        ["a", "b", "c"].map(|end| format!("016f5e66e8007000800000000000000{end}"));
    for provider in ["sqlite", "redis"] {
        println!("on {provider}:");
        let dir = TempDir::new().unwrap();
        let redis = (provider == "redis").then(Redis::start);
        let config = match provider {
            "sqlite" => json!({ "persistenceConfig": { "path": dir.path().join("codeq.db") } }),
            _ => json!({}),
        };
        let config = and(&config, &json!({ "localArtifactsDir": dir.path() }));
        let host = start_on(provider, redis.as_ref(), &config);
        let client = host.client();
        let id = claimed(&client);
        let path = format!("/v1/codeq/tasks/{id}/artifacts/a?bundle={spoken_of}");
        submit(&client, &id, json!([{ "name": "a", "url": path }])).expect(200);
        drop(host);

        let hour = dir.path().join("2020-01-01T00");
        let about = |task: &str| json!({ "tenant": "default", "task": task, "files": [] });
        for (bundle, about) in [
            (&spoken_of, about(&id).to_string()),
            (&of_nobody, about("nobody").to_string()),
            (&cut_off, "{".to_owned()),
        ] {
            fs::create_dir_all(hour.join(bundle)).unwrap();
            fs::write(hour.join(bundle).join("about.json"), about).unwrap();
        }
        fs::write(hour.join("somebody-elses"), "").unwrap();
        fs::create_dir(dir.path().join("2020-01-01T01")).unwrap();

        let host = start_on(provider, redis.as_ref(), &config);
        let unneeded =
            [hour.join(&of_nobody), hour.join(&cut_off), dir.path().join("2020-01-01T01")];
        host.wait_for(|_| !unneeded.iter().any(|path| path.exists()));
        assert!(hour.join(&spoken_of).exists() && hour.join("somebody-elses").exists());
    }
}
