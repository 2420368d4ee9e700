//! Hosts and plugins of different versions: within a major version of the interface they work
//! together, and what does not go together is told from it before it is used.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod altered;
mod doctored;
mod embedded;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use altered::Workspace;
use codeq_host::plugins::inspect;
use codeq_plugin::manifest::{INTERFACE_MAJOR, INTERFACE_MINOR, Manifest, TARGET};
use codeq_system_tests::{Host, codeq, library_dir, plugin, plugin_dir};
use doctored::{install, manifest_of, replaced};
use embedded::open;
use serde_json::{Value, json};

/// What the plugin's module has had since interface 1.1.
const BACKUP: &str = r#"
    /// Since 1.1. Copies all that a store of this configuration keeps to a path where nothing is.
    pub backup: extern "C" fn(config: RString, context: Context, to: RString) -> Reply<BackedUp>,
"#;

/// What the export macro has for it.
const EXPORTED_BACKUP: &str = "backup: $crate::export_plugin!(@backup $kind, $store),";

/// What an open store has had since interface 1.1.
const DURABILITY: &str = r#"
    /// Since 1.1. The name of what the store's writes survive, if that is not what the manifest declares.
    fn durability(&self) -> Optional<Text> {
        Optional::RNone
    }
"#;

/// An interface of the next minor version: one more operation, with a default, and one more field in
/// the plugin's module. Its host uses both.
fn grown() -> &'static Workspace {
    static GROWN: OnceLock<Workspace> = OnceLock::new();
    GROWN.get_or_init(|| {
        let next = INTERFACE_MINOR + 1;
        let boundary = "plugin-interface/src/boundary/mod.rs";
        let export = "plugin-interface/src/export.rs";
        let manifest = "plugin-interface/src/manifest.rs";
        Workspace::new("grown")
            .replace(
                manifest,
                &format!("INTERFACE_MINOR: u32 = {INTERFACE_MINOR};"),
                &format!("INTERFACE_MINOR: u32 = {next};"),
            )
            .replace(
                boundary,
                DURABILITY,
                &(DURABILITY.to_owned()
                    + r#"
                    fn revise(&self, by: u32) -> Reply<u32> {
                        Reply::Err(Error::unsupported(format!("no revision by {by}")))
                    }
                    "#),
            )
            .replace(
                boundary,
                BACKUP,
                &format!(
                    "{BACKUP}
                    /// The revision that stores begin with.
                    pub revision: extern \"C\" fn() -> u32,
                    "
                ),
            )
            .replace(
                boundary,
                "/// Runs plugin code;",
                "pub extern \"C\" fn revision() -> u32 { 40 }\n\n/// Runs plugin code;",
            )
            .replace(export, "backup_ready, open_ready}", "backup_ready, open_ready, revision}")
            .replace(
                export,
                EXPORTED_BACKUP,
                &format!("{EXPORTED_BACKUP} revision: codeq::revision,"),
            )
            .replace(
                "plugin-interface/src/boundary/ready.rs",
                "    fn health(&self) -> Reply<()> {",
                "    fn revise(&self, by: u32) -> Reply<u32> {
                    self.run(|_| Ok(40 + by))
                }
                fn health(&self) -> Reply<()> {",
            )
            .replace(
                "host/src/plugins/open.rs",
                "        Ok(instance) => Ok(instance),\n",
                r#"        Ok(instance) => {
                    let begun = module.revision().map(|revision| revision());
                    let revised = bounded(instance.revise(2)).await.map_err(|error| error.to_string());
                    tracing::info!("revision {begun:?}, then {revised:?}");
                    Ok(instance)
                }
                "#,
            )
    })
}

/// An interface without what came after 1.0. Its host asks for none of it.
fn first() -> &'static Workspace {
    static FIRST: OnceLock<Workspace> = OnceLock::new();
    FIRST.get_or_init(|| {
        let boundary = "plugin-interface/src/boundary/mod.rs";
        Workspace::new("first")
            .replace(
                "plugin-interface/src/manifest.rs",
                &format!("INTERFACE_MINOR: u32 = {INTERFACE_MINOR};"),
                "INTERFACE_MINOR: u32 = 0;",
            )
            .replace(boundary, BACKUP, "\n")
            .replace(boundary, DURABILITY, "\n")
            .replace(
                boundary,
                "instance.durability().into_option()",
                "{ let _ = instance; None::<Text> }",
            )
            .replace(
                "plugin-interface/src/boundary/ready.rs",
                r#"
    fn durability(&self) -> Optional<Text> {
        self.durability.map(|level| level.as_str().into()).into()
    }
"#,
                "",
            )
            .replace(
                "plugin-interface/src/boundary/waiting.rs",
                r#"
    fn durability(&self) -> Optional<Text> {
        self.0.durability.map(|level| level.as_str().into()).into()
    }
"#,
                "",
            )
            .replace("plugin-interface/src/export.rs", EXPORTED_BACKUP, "")
            .replace(
                "host/src/plugins/backup.rs",
                "module.backup()",
                r#"{
                    use codeq_plugin::{Context, Text, boundary::Reply};
                    let _ = module;
                    None::<extern "C" fn(Text, Context, Text) -> Reply<BackedUp>>
                }"#,
            )
    })
}

/// A host with a plugin, through which a task has come to its end.
fn serves(program: &Path, library: &Path) -> Host {
    let plugins = library_dir([library]);
    let host =
        Host::start_program(program, plugins.path(), json!({ "persistenceProvider": "memory" }));
    let client = host.client();
    let id = client.create("render");
    assert_eq!(client.claim("render").expect("a task")["id"], id.as_str());
    client.complete(&id).expect(200);
    let task = client.get(&format!("/tasks/{id}")).expect(200);
    assert_eq!(task["status"], "COMPLETED", "{task}");
    assert_eq!(client.claim("render"), None);
    host
}

fn manifest(library: &Path) -> Manifest {
    let copies = library_dir([library]);
    inspect(&copies.path().join(library.file_name().unwrap())).unwrap().manifest
}

/// What a host of the next version finds of what is new.
fn revision(host: &Host) -> String {
    let messages = host.log().into_iter().filter_map(|line| {
        Some(serde_json::from_str::<Value>(&line).ok()?["message"].as_str()?.to_owned())
    });
    messages.filter(|message| message.starts_with("revision")).collect()
}

#[test]
fn an_old_plugin_serves_in_a_new_host_which_has_defaults_for_what_it_lacks() {
    let host = serves(&grown().host(), plugin("memory"));
    let found = revision(&host);
    assert_eq!(found, r#"revision None, then Err("no revision by 2")"#);
}

#[test]
fn a_new_plugin_serves_in_a_new_host_with_all_it_has() {
    let host = serves(&grown().host(), &grown().memory());
    assert_eq!(revision(&host), "revision Some(40), then Ok(42)");
}

#[test]
fn a_plugin_of_this_version_serves_in_a_host_of_interface_1_0() {
    let host = first().host();
    serves(&host, plugin("memory"));
    // One that has what such a host does not ask for.
    let settings = json!({ "at": "nowhere", "durability": "process" });
    let config = json!({ "persistenceProvider": "hostile", "persistenceConfig": settings });
    let host = Host::start_program(&host, plugin_dir(&["hostile"]).path(), config);
    let of_manifest = "\"durability\":\"volatile\"";
    assert!(host.log().iter().any(|line| line.contains(of_manifest)), "{:#?}", host.log());
}

#[test]
fn a_new_plugin_serves_in_an_old_host() {
    let library = grown().memory();
    let interface = manifest(&library).interface;
    assert_eq!((interface.major, interface.minor), (INTERFACE_MAJOR, INTERFACE_MINOR + 1));
    serves(codeq(), &library);
}

#[tokio::test]
async fn a_plugin_with_a_changed_record_is_refused_with_the_path_of_the_change() {
    let record = "plugin-interface/src/record/task.rs";
    let library = Workspace::new("changed")
        .replace(record, "pub priority: u8,", "pub priority: i32,")
        .replace(record, "MAX_PRIORITY: u8", "MAX_PRIORITY: i32")
        .replace("host/src/service/tasks.rs", "u8::try_from(priority)", "i32::try_from(priority)")
        .replace("tests/conformance/src/cases/stats.rs", "random.u8(0..12)", "random.i32(0..12)")
        .replace("tests/conformance/src/history/work.rs", "random.u8(0..3)", "random.i32(0..3)")
        .memory();
    let error = open(library_dir([library.as_path()]).path(), "memory", json!({})).await.err();
    let error = error.expect("a refusal");
    let said = error.to_string();
    assert_eq!(error.code(), "P-LAYOUT", "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let difference = "save(_).task.priority: this plugin has i32, this host has u8; ";
    assert!(said.contains(difference), "{said}");
}

/// The kept plugins of this target, each with the interface version that it is kept for.
fn kept() -> Vec<(String, PathBuf)> {
    let versions = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../kept")).unwrap();
    let libraries = versions.flat_map(|version| {
        let version = version.unwrap();
        let libraries = fs::read_dir(version.path().join(TARGET)).into_iter().flatten();
        let name = version.file_name().into_string().unwrap();
        libraries.map(move |library| (name.clone(), library.unwrap().path()))
    });
    libraries.collect()
}

#[tokio::test]
async fn a_plugin_of_interface_1_0_has_the_durability_of_its_manifest() {
    for (_, library) in kept().into_iter().filter(|(version, _)| version == "1.0") {
        let store =
            open(library_dir([library.as_path()]).path(), "memory", json!({})).await.unwrap();
        assert_eq!(store.durability(), store.manifest().durability);
    }
}

#[test]
fn a_plugin_of_interface_1_0_makes_no_backups_whatever_its_manifest_says() {
    for (_, library) in kept().into_iter().filter(|(version, _)| version == "1.0") {
        let dir = library_dir([library.as_path()]);
        let copy = dir.path().join(library.file_name().unwrap());
        let bytes = fs::read(&library).unwrap();
        let place = manifest_of(&bytes);
        let (said, says) = (r#""subscriptions","listing""#, r#""backup"                 "#);
        let boastful = replaced(bytes.clone(), place, said.as_bytes(), says.as_bytes());
        for bytes in [bytes, boastful] {
            install(&copy, &bytes);
            let to = dir.path().join("copy");
            let args = ["backup", to.to_str().unwrap()];
            let output = Host::run(dir.path(), &args, &[("PERSISTENCE_PROVIDER", "memory")]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("plugin `memory` makes no backups"), "{said}");
            assert!(!to.exists());
        }
    }
}

#[test]
fn every_kept_plugin_serves_in_this_host() {
    let kept = kept();
    let current = format!("{INTERFACE_MAJOR}.{INTERFACE_MINOR}");
    assert!(
        kept.iter().any(|(version, _)| *version == current),
        "no plugin of interface {current} is kept for {TARGET}; `scripts/keep-plugin` makes one, \
         tests/kept/README.md tells when to"
    );
    for (version, library) in kept {
        let interface = manifest(&library).interface;
        let interface = format!("{}.{}", interface.major, interface.minor);
        assert_eq!(interface, version, "{}", library.display());
        serves(codeq(), &library);
    }
}
