//! Writes the memory plugin's source with all faults in it.

use std::path::Path;

use patching::Sources;

#[allow(dead_code, reason = "which rules they break is for the test to know")]
#[path = "src/faults.rs"]
mod faults;
mod patching;

const MODULES: [&str; 6] = ["alarms", "list", "queue", "store", "subscriptions", "tasks"];

fn main() {
    let memory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins/memory/src");
    let mut sources = Sources::read(&memory, &MODULES);
    // The chosen fault is a setting.
    sources.change("store.rs", "pub struct Config {}", "pub struct Config { fault: String }");
    sources.change(
        "store.rs",
        "self.tasks().claim(&claim",
        "let _claiming = crate::Claiming::begin(self);\n        self.tasks().claim(&claim",
    );
    sources.put_faults();
    sources.write("memory.rs");
}
