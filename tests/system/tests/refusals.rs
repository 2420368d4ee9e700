//! Libraries that are refused: each with its own code, in one or two lines that say what to do, and
//! without harm to the host and to the plugins beside it.

#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails"
)]

mod doctored;
mod embedded;

use std::{
    fs::{self, File},
    io::Write,
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use codeq_host::plugins::{OpenOptions, Plugins, Refusal, inspect};
use codeq_plugin::manifest::{MAGIC, TARGET};
use codeq_system_tests::{Host, codeq, plugin, plugin_dir};
use doctored::{bytes_of, install, manifest_of, replaced, with_manifest};
use embedded::{assert_works, open, plugins_in};
use object::{Object, ObjectSection, ObjectSegment};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::geteuid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A user and a group that this machine does not have.
const STRANGER: u32 = 54321;

/// A plugin directory with the memory plugin, and beside it something that is to be refused.
struct Room {
    dir: TempDir,
    suspect: PathBuf,
}

impl Room {
    fn new() -> Room {
        let dir = plugin_dir(&["memory"]);
        let suspect = dir.path().join("suspect.so");
        Room { dir, suspect }
    }

    fn with(contents: &[u8]) -> Room {
        let room = Room::new();
        install(&room.suspect, contents);
        room
    }

    /// The suspect is refused, whoever looks at it, and its neighbour works.
    async fn refuses(&self, code: &str, remedy: &str) {
        let refusal = inspect(&self.suspect).unwrap_err();
        assert_tells(&refusal, &self.suspect, code, remedy);

        let plugins = plugins_in(self.dir.path());
        let refused: Vec<String> = plugins.refused.iter().map(ToString::to_string).collect();
        assert_eq!(refused, [refusal.to_string()]);
        let found: Vec<_> = plugins.found.iter().map(|found| &found.manifest.name).collect();
        assert_eq!(found, ["memory"]);

        assert_works(&open(self.dir.path(), "memory", json!({})).await.unwrap()).await;
    }
}

/// The code is the stable one; the message is short, names the file and says what to do.
fn assert_tells(refusal: &Refusal, path: &Path, code: &str, remedy: &str) {
    let message = refusal.to_string();
    assert_eq!(refusal.code(), code, "{message}");
    assert!((1..=2).contains(&message.lines().count()), "{message}");
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(message.contains(remedy), "{message}");
}

#[tokio::test]
async fn an_empty_file_is_refused() {
    Room::with(b"").refuses("P-EMPTY", "copy the plugin again").await;
}

#[tokio::test]
async fn a_text_is_refused() {
    Room::with(b"version https://git-lfs.github.com/spec/v1\n")
        .refuses("P-NOT-LIBRARY", "only compiled plugins belong in a plugin directory")
        .await;
}

#[tokio::test]
async fn a_script_is_refused() {
    Room::with(b"#!/bin/sh\n").refuses("P-NOT-LIBRARY", "only compiled plugins belong").await;
}

#[tokio::test]
async fn an_archive_is_refused() {
    Room::with(b"!<arch>\n").refuses("P-NOT-LIBRARY", "only compiled plugins belong").await;
}

/// The host sees the whole library when it looks around, and less of it when it opens the plugin.
#[tokio::test]
async fn a_library_cut_off_anywhere_is_refused_before_and_after_it_was_found() {
    let whole = bytes_of("hostile");
    let room = Room::with(&whole);
    let found = inspect(&room.suspect).unwrap();
    let file = File::options().write(true).open(&room.suspect).unwrap();
    let lengths = lengths_to_cut_at(&whole);
    assert!(lengths.len() > 4096 + 300, "{}", lengths.len());

    // From the longest to the shortest the file need not be written again.
    for len in lengths.into_iter().rev() {
        file.set_len(len).unwrap();
        let code = if len == 0 { "P-EMPTY" } else { "P-TRUNCATED" };
        let remedy = "copy the plugin again";
        let refusal = inspect(&room.suspect).expect_err(&format!("{len} bytes are accepted"));
        assert_tells(&refusal, &room.suspect, code, remedy);

        let plugins = Plugins { found: vec![found.clone()], ..Plugins::default() };
        let opened =
            plugins.open("hostile", &json!({ "at": "nothing" }), &OpenOptions::default()).await;
        let error = opened.err().unwrap_or_else(|| panic!("{len} bytes are loaded"));
        assert_eq!(error.code(), code, "{error}");
    }
    assert_works(&open(room.dir.path(), "memory", json!({})).await.unwrap()).await;
}

/// Every length of the first pages, lengths all over the file, and those just before, at and behind
/// each border that the library's headers name.
fn lengths_to_cut_at(whole: &[u8]) -> Vec<u64> {
    let library = object::File::parse(whole).unwrap();
    let segments = library.segments().map(|segment| segment.file_range());
    let sections = library.sections().filter_map(|section| section.file_range());
    let borders = segments.chain(sections).flat_map(|(from, len)| [from, from + len]);
    let size = whole.len() as u64;
    let mut lengths: Vec<u64> = (0..=4096)
        .chain((0..256).map(|part| size / 256 * part))
        .chain(borders.flat_map(|border| [border.saturating_sub(1), border, border + 1]))
        .chain([size - 1])
        .filter(|len| *len < size)
        .collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

#[tokio::test]
async fn a_library_of_another_machine_is_refused() {
    const E_MACHINE: usize = 18;
    const OTHER: u16 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    let mut library = bytes_of("hostile");
    library[E_MACHINE..E_MACHINE + 2].copy_from_slice(&OTHER.to_le_bytes());
    Room::with(&library).refuses("P-TARGET", "build the plugin for").await;
}

#[tokio::test]
async fn a_library_of_32_bits_is_refused() {
    const ARM: u16 = 40;
    let mut header = vec![0; 52];
    header[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    header[16..18].copy_from_slice(&3_u16.to_le_bytes());
    header[18..20].copy_from_slice(&ARM.to_le_bytes());
    header[20] = 1;
    header[40] = 52;
    Room::with(&header).refuses("P-TARGET", "build the plugin for").await;
}

#[tokio::test]
async fn a_library_of_the_other_endianness_is_refused() {
    const S390: u16 = 22;
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
    header[16..18].copy_from_slice(&3_u16.to_be_bytes());
    header[18..20].copy_from_slice(&S390.to_be_bytes());
    header[23] = 1;
    header[53] = 64;
    Room::with(&header).refuses("P-TARGET", "build the plugin for").await;
}

#[tokio::test]
async fn a_library_whose_class_or_endianness_was_changed_is_refused() {
    for (place, value) in [(4, 1), (5, 2)] {
        let mut library = bytes_of("hostile");
        library[place] = value;
        let room = Room::with(&library);
        let refusal = inspect(&room.suspect).unwrap_err();
        assert!(["P-TARGET", "P-TRUNCATED"].contains(&refusal.code()), "{refusal}");
        room.refuses(refusal.code(), "the plugin").await;
    }
}

#[tokio::test]
async fn a_plugin_that_says_it_is_for_another_target_is_refused() {
    let library = of_another_target();
    Room::with(&library).refuses("P-TARGET", "build the plugin for").await;
}

fn of_another_target() -> Vec<u8> {
    let ours = format!("\"target\":\"{TARGET}\"");
    with_manifest("hostile", &ours, "\"target\":\"z80-unknown-none\"")
}

#[tokio::test]
async fn an_ordinary_library_is_refused() {
    let library = fs::read(ordinary_library()).unwrap();
    Room::with(&library).refuses("P-NO-MANIFEST", "codeq_plugin::export_plugin!").await;
}

/// One that this program itself has loaded, so that it is there on every system.
fn ordinary_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let mut libraries = paths.filter(|path| path.contains(".so") && path.starts_with("/"));
    libraries.find(|path| path.contains("libc")).expect("the C library is loaded").into()
}

#[tokio::test]
async fn a_program_is_refused() {
    let room = Room::with(&fs::read(codeq()).unwrap());
    let refusal = inspect(&room.suspect).unwrap_err();
    assert!(["P-NOT-LIBRARY", "P-NO-MANIFEST"].contains(&refusal.code()), "{refusal}");
    room.refuses(refusal.code(), "plugin").await;
}

#[tokio::test]
async fn a_library_whose_manifest_has_another_name_is_refused() {
    let library = bytes_of("hostile");
    let all = 0..library.len();
    let library = replaced(library, all, b"\0.codeq_plugin\0", b"\0.codeq_plugon\0");
    Room::with(&library).refuses("P-NO-MANIFEST", "codeq_plugin::export_plugin!").await;
}

#[tokio::test]
async fn a_plugin_of_another_interface_is_refused() {
    let library = with_manifest("hostile", "\"major\":1", "\"major\":2");
    Room::with(&library).refuses("P-INTERFACE", "build it against `codeq-plugin`").await;
}

#[tokio::test]
async fn a_plugin_that_aborts_on_panics_is_refused() {
    let room = Room::new();
    let build = build_aborting(&room.suspect);
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    room.refuses("P-PANIC", "build it with panic=\"unwind\"").await;
}

/// Compiles a plugin of a few lines, on top of the interface that cargo has built already: with
/// cargo, another panic strategy would mean to build everything again.
fn build_aborting(library: &Path) -> std::process::Output {
    const SOURCE: &str = r#"
        use codeq_plugin::*;
        struct Shelf;
        export_plugin! {
            name: "shelf",
            description: "aborts on panics",
            durability: Volatile,
            capabilities: [],
            config_schema: "true",
            store: Shelf,
        }
        impl Persistence for Shelf {
            type Config = ();
            fn open(_: (), _: Context) -> Result<Self> { Ok(Shelf) }
        }
        impl TaskStorage for Shelf {
            fn save(&self, _: Placed) -> Result<()> { todo!() }
            fn get(&self, _: &str) -> Result<Boxed<Task>> { todo!() }
            fn delete(&self, _: &str) -> Result<()> { todo!() }
            fn enqueue(&self, _: Enqueue) -> Result<Enqueued> { todo!() }
            fn claim(&self, _: Claim) -> Result<Claimed> { todo!() }
            fn update_lease(&self, _: Extend) -> Result<Instant> { todo!() }
            fn abandon_lease(&self, _: Lease) -> Result<Returned> { todo!() }
            fn nack(&self, _: Nack) -> Result<Returned> { todo!() }
            fn move_due_delayed(&self, _: u32) -> Result<Moved> { todo!() }
            fn requeue_expired(&self, _: u32) -> Result<Moved> { todo!() }
            fn queue_length(&self, _: Queue) -> Result<u64> { todo!() }
            fn queue_stats(&self, _: Queue) -> Result<QueueStats> { todo!() }
            fn admin_queues(&self, _: Option<Text>) -> Result<Vec<QueueStats>> { todo!() }
            fn cleanup_expired(&self, _: Cleanup) -> Result<u32> { todo!() }
        }
        impl ResultStorage for Shelf {
            fn save_result(&self, _: Boxed<TaskResult>) -> Result<()> { todo!() }
            fn get_result(&self, _: &str) -> Result<Boxed<TaskResult>> { todo!() }
            fn update_task_on_complete(&self, _: Finish) -> Result<()> { todo!() }
            fn remove_from_inprog_and_clear_lease(&self, _: &str) -> Result<()> { todo!() }
            fn complete(&self, _: Complete) -> Result<Completed> { todo!() }
        }
        impl SubscriptionStorage for Shelf {}
    "#;
    let built = codeq().parent().unwrap();
    let sources = TempDir::new().unwrap();
    let source = sources.path().join("shelf.rs");
    fs::write(&source, SOURCE).unwrap();
    Command::new(Path::new(env!("CARGO")).with_file_name("rustc"))
        .args(["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-L"])
        .arg(format!("dependency={}", built.join("deps").display()))
        .arg("--extern")
        .arg(format!("codeq_plugin={}", built.join("libcodeq_plugin.rlib").display()))
        .arg("-o")
        .args([library, &source])
        .env("CARGO_PKG_VERSION", "0.1.0")
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_manifest_without_its_first_bytes_is_refused() {
    let library = bytes_of("hostile");
    let manifest = manifest_of(&library);
    let library = replaced(library, manifest, &MAGIC, b"codeq-manifest\0\x02");
    Room::with(&library).refuses("P-MANIFEST", "build the plugin again").await;
}

#[tokio::test]
async fn a_manifest_that_is_no_json_is_refused() {
    let library = with_manifest("hostile", "{\"name\":", "{\"name\";");
    Room::with(&library).refuses("P-MANIFEST", "build the plugin again").await;
}

#[tokio::test]
async fn a_manifest_that_claims_to_be_longer_than_it_is_is_refused() {
    let mut library = bytes_of("hostile");
    let length = manifest_of(&library).start + MAGIC.len();
    library[length..length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    Room::with(&library).refuses("P-MANIFEST", "build the plugin again").await;
}

#[tokio::test]
async fn a_name_that_could_be_mistaken_for_something_else_is_refused() {
    for name in ["Hostile", "h stile", "../tile", "-ostile", "hos\\n\\n", ""] {
        let library =
            with_manifest("hostile", "\"name\":\"hostile\"", &format!("\"name\":\"{name}\""));
        Room::with(&library).refuses("P-MANIFEST", "is not made of a-z, 0-9 and `-`").await;
    }
}

#[tokio::test]
async fn a_schema_that_is_none_is_refused_when_the_plugin_is_opened() {
    let library = with_manifest("hostile", "{\"type\": \"object\"", "{\"type\": \"abject\"");
    let room = Room::with(&library);
    let error = open(room.dir.path(), "hostile", json!({ "at": "nothing" })).await.err().unwrap();
    assert_eq!(error.code(), "P-MANIFEST", "{error}");
    assert!(error.to_string().contains("suspect.so"), "{error}");
    assert_works(&open(room.dir.path(), "memory", json!({})).await.unwrap()).await;
}

#[tokio::test]
async fn the_first_directory_with_a_name_wins_and_the_second_is_reported_with_both_files() {
    let (first, second) = (plugin_dir(&["memory"]), plugin_dir(&["memory", "hostile"]));
    let plugins = Plugins::discover(&[first.path().to_owned(), second.path().to_owned()]);
    let winner = plugins.get("memory").unwrap().path.clone();
    assert!(winner.starts_with(first.path()));
    assert!(plugins.refused.is_empty(), "{:?}", plugins.refused);
    let [hidden] = &plugins.hidden[..] else { panic!("{:?}", plugins.hidden) };
    assert_eq!(hidden.manifest.name, "memory");
    let loser = second.path().join(winner.file_name().unwrap());
    assert_tells(&hidden.refusal, &loser, "P-DUPLICATE", "remove one of the two");
    assert!(hidden.refusal.to_string().contains(&winner.display().to_string()));

    let store = plugins.open("memory", &json!({}), &OpenOptions::default()).await.unwrap();
    assert_works(&store).await;
}

#[tokio::test]
async fn in_one_directory_the_first_file_name_wins() {
    let room = Room::with(&bytes_of("memory"));
    let plugins = plugins_in(room.dir.path());
    assert_ne!(plugins.get("memory").unwrap().path, room.suspect);
    assert_tells(&plugins.hidden[0].refusal, &room.suspect, "P-DUPLICATE", "remove one");
}

#[tokio::test]
async fn a_file_that_everybody_may_write_is_refused() {
    let room = Room::with(&bytes_of("hostile"));
    fs::set_permissions(&room.suspect, fs::Permissions::from_mode(0o666)).unwrap();
    room.refuses("P-PERMISSIONS", &format!("run `chmod o-w {}`", room.suspect.display())).await;
}

#[tokio::test]
async fn a_file_of_another_user_or_group_is_refused() {
    let room = Room::with(&bytes_of("hostile"));
    if geteuid().is_root() {
        chown(&room.suspect, Some(STRANGER), None).unwrap();
        room.refuses("P-PERMISSIONS", &format!("chown 0 {}", room.suspect.display())).await;
        chown(&room.suspect, Some(0), Some(STRANGER)).unwrap();
        fs::set_permissions(&room.suspect, fs::Permissions::from_mode(0o664)).unwrap();
        room.refuses("P-PERMISSIONS", &format!("chmod g-w {}", room.suspect.display())).await;
    } else {
        // Only root can give files away; what others may do to one's own files is left to test.
        fs::set_permissions(&room.suspect, fs::Permissions::from_mode(0o646)).unwrap();
        room.refuses("P-PERMISSIONS", "chmod o-w").await;
    }
}

#[tokio::test]
async fn a_file_of_ones_own_group_is_accepted() {
    let room = Room::with(&bytes_of("hostile"));
    fs::set_permissions(&room.suspect, fs::Permissions::from_mode(0o664)).unwrap();
    assert_eq!(inspect(&room.suspect).unwrap().manifest.name, "hostile");
}

#[tokio::test]
async fn a_directory_that_everybody_may_write_is_refused_with_all_that_is_in_it() {
    let (open_to_all, safe) = (plugin_dir(&["hostile"]), plugin_dir(&["memory"]));
    fs::set_permissions(open_to_all.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let dirs = [open_to_all.path().to_owned(), safe.path().to_owned()];
    let plugins = Plugins::discover(&dirs);
    assert!(plugins.get("hostile").is_none());
    let remedy = format!("run `chmod o-w {}`", dirs[0].display());
    assert_tells(&plugins.refused[0], &dirs[0], "P-PERMISSIONS", &remedy);
    let error = Plugins::discover(&dirs)
        .open("hostile", &json!({ "at": "nothing" }), &OpenOptions::default())
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains(&remedy), "{error}");

    let store = plugins.open("memory", &json!({}), &OpenOptions::default()).await.unwrap();
    assert_works(&store).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused() {
    let room = Room::new();
    let remedy = "check that the file is there and readable";
    symlink(room.dir.path().join("nowhere"), &room.suspect).unwrap();
    room.refuses("P-READ", remedy).await;
    fs::remove_file(&room.suspect).unwrap();
    symlink(&room.suspect, &room.suspect).unwrap();
    room.refuses("P-READ", remedy).await;
    fs::remove_file(&room.suspect).unwrap();
    install(&room.suspect, &bytes_of("hostile"));
    fs::set_permissions(&room.suspect, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything.
    if !geteuid().is_root() {
        room.refuses("P-READ", remedy).await;
    }
}

#[tokio::test]
async fn a_named_pipe_is_refused_without_waiting_for_a_writer() {
    let room = Room::new();
    make_pipe(&room.suspect);
    room.refuses("P-NOT-LIBRARY", "only compiled plugins belong").await;
}

fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

#[tokio::test]
async fn a_socket_is_refused() {
    let room = Room::new();
    let _socket = UnixListener::bind(&room.suspect).unwrap();
    room.refuses("P-NOT-LIBRARY", "only compiled plugins belong").await;
}

#[tokio::test]
async fn a_directory_that_is_called_like_a_library_is_refused() {
    let room = Room::new();
    fs::create_dir(&room.suspect).unwrap();
    room.refuses("P-NOT-LIBRARY", "only compiled plugins belong").await;
}

#[tokio::test]
async fn a_library_that_is_not_the_pinned_one_is_refused() {
    let room = Room::with(&bytes_of("hostile"));
    let (config, none) = (json!({ "at": "nothing" }), "0".repeat(64));
    let options = |digest: &str| {
        let digests = [("hostile".to_owned(), digest.to_owned())].into_iter().collect();
        OpenOptions { digests, ..OpenOptions::default() }
    };
    let plugins = || plugins_in(room.dir.path());
    let error = plugins().open("hostile", &config, &options(&none)).await.err().unwrap();
    let message = error.to_string();
    assert_eq!(error.code(), "P-DIGEST", "{message}");
    assert!(message.contains(&none) && message.contains("suspect.so"), "{message}");
    assert!(message.contains("install the pinned version or change `pluginDigests`"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");

    // The message tells what would be right.
    let is_digest = |word: &&str| word.len() == 64 && *word != none;
    let found = message.split([' ', ',']).find(is_digest).unwrap();
    for digest in [found.to_owned(), found.to_uppercase(), format!("sha256:{found}")] {
        plugins().open("hostile", &config, &options(&digest)).await.unwrap();
    }
    // Others are not pinned by it.
    let memory = plugins().open("memory", &json!({}), &options(&none)).await.unwrap();
    assert_works(&memory).await;
}

#[tokio::test]
async fn a_library_that_the_loader_cannot_link_is_refused_when_it_is_opened() {
    let library = bytes_of("hostile");
    let all = 0..library.len();
    let library = replaced(library, all, b"\0libc.so.6\0", b"\0libd.so.6\0");
    let room = Room::with(&library);
    let error = open(room.dir.path(), "hostile", json!({ "at": "nothing" })).await.err().unwrap();
    let message = error.to_string();
    assert_eq!(error.code(), "P-LOAD", "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("libd.so.6") && message.contains("suspect.so"), "{message}");
    assert_works(&open(room.dir.path(), "memory", json!({})).await.unwrap()).await;
}

#[tokio::test]
async fn a_library_that_does_not_export_its_module_is_refused_when_it_is_opened() {
    let library = bytes_of("hostile");
    let all = 0..library.len();
    let library = replaced(library, all, b"\0codeq_plugin_root_v1\0", b"\0codeq_plugin_root_v0\0");
    let room = Room::with(&library);
    let error = open(room.dir.path(), "hostile", json!({ "at": "nothing" })).await.err().unwrap();
    assert_eq!(error.code(), "P-LOAD", "{error}");
    assert!(error.to_string().contains("codeq_plugin_root_v1"), "{error}");
    assert_works(&open(room.dir.path(), "memory", json!({})).await.unwrap()).await;
}

#[tokio::test]
async fn what_was_exchanged_after_it_was_found_is_refused_when_it_is_opened() {
    let room = Room::with(&bytes_of("hostile"));
    let found = inspect(&room.suspect).unwrap();
    type Exchange<'a> = (&'a str, &'a dyn Fn(&Path));
    let exchanges: [Exchange<'_>; 5] = [
        ("P-READ", &|_| ()),
        ("P-EMPTY", &|path| install(path, b"")),
        ("P-NOT-LIBRARY", &make_pipe),
        ("P-PANIC", &|path| {
            install(path, &with_manifest("hostile", "\"panic\":\"unwind\"", "\"panic\":\"abort\""));
        }),
        ("P-PERMISSIONS", &|path| {
            install(path, &bytes_of("hostile"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }),
    ];
    for (code, exchange) in exchanges {
        fs::remove_file(&room.suspect).unwrap_or_default();
        exchange(&room.suspect);
        let plugins = Plugins { found: vec![found.clone()], ..Plugins::default() };
        let opened =
            plugins.open("hostile", &json!({ "at": "nothing" }), &OpenOptions::default()).await;
        assert_eq!(opened.err().map(|error| error.code()), Some(code));
    }
}

/// The codes that scripts and the documentation rely on, and a file for each.
fn one_of_each(dir: &Path) -> Vec<(PathBuf, &'static str)> {
    static CUT: OnceLock<Vec<u8>> = OnceLock::new();
    let cut = CUT.get_or_init(|| bytes_of("hostile")[..100_000].to_vec());
    let abort = with_manifest("hostile", "\"panic\":\"unwind\"", "\"panic\":\"abort\"");
    let major = with_manifest("hostile", "\"major\":1", "\"major\":7");
    let target = of_another_target();
    let unnamed = with_manifest("hostile", "\"name\":\"hostile\"", "\"name\":\"\"");
    let libc = fs::read(ordinary_library()).unwrap();
    let contents: [(&str, &[u8]); 8] = [
        ("P-EMPTY", b""),
        ("P-NOT-LIBRARY", b"a text"),
        ("P-TRUNCATED", cut),
        ("P-TARGET", &target),
        ("P-NO-MANIFEST", &libc),
        ("P-MANIFEST", &unnamed),
        ("P-INTERFACE", &major),
        ("P-PANIC", &abort),
    ];
    let mut files: Vec<(PathBuf, &str)> = contents
        .into_iter()
        .map(|(code, bytes)| {
            let path = dir.join(format!("x{code}.so"));
            install(&path, bytes);
            (path, code)
        })
        .collect();
    let dangling = dir.join("xP-READ.so");
    symlink("nowhere", &dangling).unwrap();
    let loose = dir.join("xP-PERMISSIONS.so");
    install(&loose, &bytes_of("hostile"));
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o666)).unwrap();
    let twin = dir.join("xP-DUPLICATE.so");
    install(&twin, &bytes_of("memory"));
    files.extend([(dangling, "P-READ"), (loose, "P-PERMISSIONS"), (twin, "P-DUPLICATE")]);
    files
}

#[test]
fn a_host_serves_beside_one_of_each_and_says_what_it_refused() {
    let dir = plugin_dir(&["memory"]);
    let files = one_of_each(dir.path());
    let host = Host::start(dir.path(), json!({ "persistenceProvider": "memory" }));
    host.client().create("render");
    assert!(host.client().claim("render").is_some());

    let log: Vec<Value> =
        host.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (path, code) in files.iter().filter(|(_, code)| *code != "P-DUPLICATE") {
        let about = |line: &&Value| {
            line["message"].as_str().unwrap_or_default().contains(&path.display().to_string())
        };
        let lines: Vec<&Value> = log.iter().filter(about).collect();
        assert_eq!(lines.len(), 1, "{code}: {log:#?}");
        assert_eq!((&lines[0]["level"], &lines[0]["code"]), (&json!("WARN"), &json!(code)));
    }
}

#[test]
fn the_list_of_plugins_has_one_of_each() {
    let dir = plugin_dir(&["memory"]);
    let files = one_of_each(dir.path());
    let output = Host::run(dir.path(), &["plugins", "list", "--json"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listing["plugins"].as_array().unwrap().len(), 1, "{listing:#}");
    let mut listed: Vec<_> = listing["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| {
            (PathBuf::from(refused["path"].as_str().unwrap()), refused["code"].as_str().unwrap())
        })
        .collect();
    let mut files = files;
    listed.sort();
    files.sort();
    assert_eq!(listed, files);
}

#[test]
fn a_plugin_with_another_file_name_is_no_other_plugin() {
    let dir = plugin_dir(&[]);
    let mut file = File::create(dir.path().join("zzz.so")).unwrap();
    file.write_all(&fs::read(plugin("memory")).unwrap()).unwrap();
    assert!(plugins_in(dir.path()).get("memory").is_some());
}
