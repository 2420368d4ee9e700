//! The host on the disk for tests, which fills up, fails, stalls and loses its power.

#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use codeq_system_tests::{Host, plugin_dir};
use codeq_test_disk::Disk;
use serde_json::json;
use tempfile::TempDir;

#[test]
fn a_store_in_memory_needs_no_disk() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::under(dir.path());
    disk.set_capacity(Some(0));
    disk.fail_writes(true);
    disk.fail_syncs(true);
    let config = json!({ "persistenceProvider": "memory" });
    let host = Host::start_with_env(plugin_dir(&["memory"]).path(), config, &disk.env());
    let client = host.client();
    let id = client.create("kept");
    assert_eq!(client.claim("kept").unwrap()["id"], *id);
    client.complete(&id).expect(200);
    // What the disk held at the beginning, which is nothing, is all that there is to tell.
    assert_eq!(disk.events().len(), 1);
}
