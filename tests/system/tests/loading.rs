//! What is loaded stays what it was, and two stores are two stores.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod embedded;

use std::{fs, path::PathBuf};

use codeq_host::plugins::{OpenError, OpenOptions};
use codeq_plugin::{
    Durability, ErrorKind, Millis,
    rules::{Backoff, BackoffPolicy, Rules},
};
use codeq_system_tests::{Host, plugin, plugin_dir};
use embedded::{assert_works, claim, enqueue, nack, open, plugins_in};
use serde_json::json;

/// What may happen to a plugin's file while a host uses it.
fn mishaps() -> [fn(&PathBuf); 3] {
    [
        |file| fs::write(file, b"").unwrap(),
        |file| fs::write(file, fs::read(plugin("hostile")).unwrap()).unwrap(),
        |file| fs::remove_file(file).unwrap(),
    ]
}

fn library_in(dir: &tempfile::TempDir) -> PathBuf {
    fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_running_host_does_not_notice_what_happens_to_the_file_of_its_plugin() {
    for mishap in mishaps() {
        let dir = plugin_dir(&["memory"]);
        let host = Host::start(dir.path(), json!({ "persistenceProvider": "memory" }));
        let client = host.client();
        let id = client.create("render");
        mishap(&library_in(&dir));
        assert_eq!(client.claim("render").unwrap()["id"], id.as_str());
        client.complete(&id).expect(200);
        client.create("another");
        assert_eq!(client.get("/readyz").status, 200);
    }
}

#[tokio::test]
async fn an_open_store_does_not_notice_what_happens_to_the_file_of_its_plugin() {
    for mishap in mishaps() {
        let dir = plugin_dir(&["memory"]);
        let store = open(dir.path(), "memory", json!({})).await.unwrap();
        mishap(&library_in(&dir));
        assert_works(&store).await;
    }
}

#[tokio::test]
async fn a_replaced_library_is_the_new_one_when_it_is_opened_again() {
    let dir = plugin_dir(&["memory"]);
    let old = open(dir.path(), "memory", json!({})).await.unwrap();
    fs::write(library_in(&dir), fs::read(plugin("hostile")).unwrap()).unwrap();
    let new = open(dir.path(), "hostile", json!({ "at": "call" })).await.unwrap();
    assert_works(&old).await;
    let error = enqueue(&new, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
}

#[tokio::test]
async fn two_plugins_loaded_at_once_are_two_plugins() {
    let dir = plugin_dir(&["memory", "hostile"]);
    let memory = open(dir.path(), "memory", json!({})).await.unwrap();
    let hostile = open(dir.path(), "hostile", json!({ "at": "call" })).await.unwrap();
    assert_eq!(memory.manifest().name, "memory");
    assert_eq!(hostile.manifest().name, "hostile");
    assert!(enqueue(&hostile, "a").await.is_err());
    assert_works(&memory).await;
}

#[tokio::test]
async fn a_plugin_opened_twice_is_two_stores() {
    let dir = plugin_dir(&["memory"]);
    let one = open(dir.path(), "memory", json!({})).await.unwrap();
    let other = open(dir.path(), "memory", json!({})).await.unwrap();
    enqueue(&one, "a").await.unwrap();
    assert!(claim(&other).await.unwrap().is_none());
    assert_eq!(claim(&one).await.unwrap().unwrap().id, "a");
}

#[tokio::test]
async fn two_configurations_of_a_plugin_are_each_in_effect() {
    let dir = plugin_dir(&["hostile"]);
    let tame = open(dir.path(), "hostile", json!({ "at": "nowhere" })).await.unwrap();
    let wild = open(dir.path(), "hostile", json!({ "at": "poll" })).await.unwrap();
    assert!(enqueue(&tame, "a").await.is_ok());
    assert!(enqueue(&wild, "a").await.is_err());
}

#[tokio::test]
async fn a_store_has_the_durability_of_its_settings_or_else_of_its_manifest() {
    let dir = plugin_dir(&["memory", "hostile"]);
    let of = async |name, config| open(dir.path(), name, config).await.unwrap().durability();
    let by_setting = json!({ "at": "nowhere", "durability": "disk" });
    assert_eq!(of("hostile", by_setting).await, Durability::Disk);
    assert_eq!(of("hostile", json!({ "at": "nowhere" })).await, Durability::Volatile);
    assert_eq!(of("memory", json!({})).await, Durability::Volatile);
}

#[test]
fn a_host_says_what_its_store_survives_with_its_settings() {
    let dir = plugin_dir(&["hostile"]);
    for (settings, level) in [
        (json!({ "at": "nowhere", "durability": "process" }), "process"),
        (json!({ "at": "nowhere" }), "volatile"),
    ] {
        let config = json!({ "persistenceProvider": "hostile", "persistenceConfig": settings });
        let host = Host::spawn(dir.path(), config);
        host.terminate();
        host.wait_for(|log| log.iter().any(|line| line.contains("\"stopped\"")));
        let has = |part: &str| host.log().iter().any(|line| line.contains(part));
        assert!(has(&format!("\"durability\":\"{level}\"")), "{:#?}", host.log());
        assert_eq!(has("gone when the host stops"), level == "volatile", "{:#?}", host.log());
    }
}

#[tokio::test]
async fn the_rules_of_the_host_reach_the_plugin() {
    let dir = plugin_dir(&["memory"]);
    let wait = Millis(1234);
    let rules = Rules {
        backoff: Backoff { policy: BackoffPolicy::Fixed, base: wait, ..Backoff::default() },
        max_attempts: 7,
        ..Rules::default()
    };
    let options = OpenOptions { rules, ..OpenOptions::default() };
    let store = plugins_in(dir.path()).open("memory", &json!({}), &options).await.unwrap();
    enqueue(&store, "a").await.unwrap();
    assert_eq!(claim(&store).await.unwrap().unwrap().max_attempts, 7);
    assert_eq!(nack(&store, "a").await.delay, wait);
}

#[tokio::test]
async fn an_unknown_provider_lists_what_is_there_where_it_was_looked_for_and_the_nearest_name() {
    let dir = plugin_dir(&["memory", "hostile"]);
    let Err(error) = open(dir.path(), "memroy", json!({})).await else { panic!("it is unknown") };
    assert_eq!(error.code(), "P-UNKNOWN");
    let said = error.to_string();
    for part in ["`memroy`", "did you mean `memory`?", "libcodeq_hostile", "libcodeq_memory"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(said.contains(&format!("searched: {}", dir.path().display())), "{said}");
}

#[tokio::test]
async fn a_configuration_that_does_not_fit_names_the_key_before_the_plugin_sees_it() {
    let dir = plugin_dir(&["memory", "redis"]);
    for (plugin, config, parts) in [
        ("memory", json!({ "size": 1 }), ["persistenceConfig.size", "has no settings"]),
        ("redis", json!({ "adr": "x" }), ["persistenceConfig.adr", "did you mean `addr`?"]),
        ("redis", json!({ "db": "one" }), ["persistenceConfig.db", "integer"]),
        ("redis", json!({ "threads": 0 }), ["persistenceConfig.threads", "minimum"]),
    ] {
        let Err(error) = open(dir.path(), plugin, config).await else { panic!("it does not fit") };
        assert!(matches!(error, OpenError::Configuration { .. }), "{error}");
        assert!(error.is_configuration());
        let said = error.to_string();
        parts.iter().for_each(|part| assert!(said.contains(part), "{part} is not in {said}"));
    }
}

#[tokio::test]
async fn a_secret_that_does_not_fit_is_not_shown() {
    let dir = plugin_dir(&["redis"]);
    let config = json!({ "password": ["s3cret"] });
    let Err(error) = open(dir.path(), "redis", config).await else { panic!("it does not fit") };
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_closed_store_says_so_and_may_be_closed_again() {
    let dir = plugin_dir(&["memory", "hostile"]);
    for (plugin, config) in [("memory", json!({})), ("hostile", json!({ "at": "nowhere" }))] {
        let store = open(dir.path(), plugin, config).await.unwrap();
        store.close().await.unwrap();
        store.close().await.unwrap();
        assert_eq!(enqueue(&store, "a").await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(store.health().await.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn closing_waits_for_what_is_in_flight() {
    let dir = plugin_dir(&["hostile"]);
    let store = open(dir.path(), "hostile", json!({ "at": "nowhere" })).await.unwrap();
    let in_flight = tokio::spawn({
        let store = store.clone();
        async move { claim(&store).await }
    });
    tokio::task::yield_now().await;
    store.close().await.unwrap();
    assert!(in_flight.await.unwrap().is_ok());
}
