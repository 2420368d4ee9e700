//! A task's life over HTTP, on every provider alike.

use codeq_system_tests::{Host, plugin_dir};
use codeq_test_servers::Redis;
use serde_json::{Value, json};

/// A host on a provider, and the server behind it if it has one.
struct Setup {
    host: Host,
    _redis: Option<Redis>,
}

/// Runs a test on every provider.
fn on_every_provider(test: impl Fn(&Host)) {
    for provider in ["memory"] {
        let setup = start(provider, json!({}));
        test(&setup.host);
    }
}

fn start(provider: &str, more: Value) -> Setup {
    let plugins = plugin_dir(&[provider]);
    let redis = (provider == "redis").then(Redis::start);
    let mut config = json!({
        "persistenceProvider": provider,
        "backoffPolicy": "fixed",
        "backoffBaseSeconds": 0,
    });
    if let Some(redis) = &redis {
        config["redisAddr"] = redis.addr().into();
    }
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Setup { host: Host::start(plugins.path(), config), _redis: redis }
}

#[test]
fn a_task_is_created_claimed_and_completed() {
    on_every_provider(|host| {
        let client = host.client();
        let created =
            client.create_with(json!({ "command": "RENDER", "payload": { "a": [1, 2] } }));
        assert_eq!(created["status"], "PENDING");
        assert_eq!(created["payload"], r#"{"a":[1,2]}"#);
        let claimed = client.claim("render").unwrap();
        assert_eq!(claimed["id"], created["id"]);
        assert_eq!((&claimed["status"], &claimed["attempts"]), (&json!("IN_PROGRESS"), &json!(1)));
        let id = created["id"].as_str().unwrap();
        client.complete(id).expect(200);
        let done = client.get(&format!("/tasks/{id}/result")).expect(200);
        assert_eq!(done["task"]["status"], "COMPLETED");
        assert_eq!(done["result"]["result"], json!({ "ok": true }));
        assert!(client.claim("render").is_none());
    });
}
