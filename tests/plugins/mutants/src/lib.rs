//! The memory plugin with one fault at a time.
//!
//! Its source is that of the memory plugin; [the build script](../build.rs) puts the
//! [faults](faults::FAULTS) into it. The configuration chooses one, for the whole process.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
};

#[allow(dead_code, reason = "the build script and a test read them")]
mod faults;

// The source as it was written, with changes that are not all pretty.
#[allow(clippy::all, unreachable_pub, unused)]
mod memory {
    include!(concat!(env!("OUT_DIR"), "/memory.rs"));
}

codeq_plugin::export_plugin! {
    name: "mutants",
    description: "the memory plugin with one fault at a time, for tests",
    durability: Volatile,
    capabilities: [Subscriptions, Listing],
    config_schema: r#"{
        "type": "object",
        "properties": { "fault": { "type": "string" } },
        "required": ["fault"],
        "additionalProperties": false
    }"#,
    store: memory::store::Memory,
}

static CHOSEN: OnceLock<String> = OnceLock::new();

fn choose(fault: &str) {
    CHOSEN.get_or_init(|| fault.to_owned());
}

/// Whether this is the fault of this process.
fn is(fault: &str) -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen == fault)
}

/// How many claims each store has under way, by its address.
static CLAIMS: Mutex<BTreeMap<usize, u32>> = Mutex::new(BTreeMap::new());

/// Counts a claim for as long as it lasts.
struct Claiming {
    store: usize,
}

impl Claiming {
    fn begin<S>(store: &S) -> Claiming {
        let store = std::ptr::from_ref(store) as usize;
        let alone = {
            let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
            let count = claims.entry(store).or_default();
            *count += 1;
            *count == 1
        };
        ANOTHER_CLAIMS.set(!alone);
        if alone && is("a-claim-takes-over-a-lease-while-another-claims") {
            // Long enough for another one to come.
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        Claiming { store }
    }
}

thread_local! {
    /// Whether the claim of this thread is not the only one on its store.
    static ANOTHER_CLAIMS: Cell<bool> = const { Cell::new(false) };
}

fn another_claims() -> bool {
    ANOTHER_CLAIMS.get()
}

impl Drop for Claiming {
    fn drop(&mut self) {
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = claims.get_mut(&self.store) {
            *count -= 1;
        }
    }
}
