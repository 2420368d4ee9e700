//! The library that is preloaded, built when it is needed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The compiled layer. Cargo builds no library for a test that does not link it, so we ask it to.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--package", "codeq-disk-shim", "--message-format=json"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let output = command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "the layer cannot be built");
        let messages = String::from_utf8_lossy(&output.stdout);
        // A path in JSON, which ends where the text does.
        let file = "libcodeq_disk_shim.so\"";
        let end = messages.find(file).expect("a library, as there is on Linux") + file.len() - 1;
        let begin = messages[..end].rfind('"').expect("a text in JSON") + 1;
        messages[begin..end].into()
    })
}
