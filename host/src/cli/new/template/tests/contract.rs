//! The storage contract: builds this plugin, loads it into the real host, and checks every rule that
//! a plugin with its capabilities has to keep.

/// The configuration is what the store is opened with: give it what yours needs.
fn main() -> std::process::ExitCode {
    codeq_host::verify::this_crate(&serde_json::json!({}))
}
