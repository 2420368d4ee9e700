//! What a case plays on: it opens stores, and knows what the plugin promises.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codeq_plugin::{
    Capability, Millis, Result,
    boundary::InstanceBox,
    manifest::Manifest,
    rules::{Backoff, BackoffPolicy, Rules},
};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::{
    plan::Plan,
    protocol::Part,
    report::{Figure, Outcome},
    scope::Scope,
    store::Store,
    world::{subdir, with_dir},
};

/// Opens stores of the plugin that is verified. The host implements it with its loader.
pub trait Opener: Send + Sync + 'static {
    /// What the plugin says about itself.
    fn manifest(&self) -> &Manifest;

    /// Opens a store and waits until it is open.
    ///
    /// # Errors
    ///
    /// Why the host or the plugin did not open it.
    fn open(&self, config: &Value, setup: &Setup) -> Result<InstanceBox>;
}

/// What a store is told by its host.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The rules of the queues.
    pub rules: Rules,
    /// At most how many tasks one claim or repair moves on its way.
    pub repair_limit: u32,
}

impl Default for Setup {
    /// Failed tasks are claimable again at once, and nearly everything is moved at a time.
    fn default() -> Setup {
        Setup { rules: no_wait(), repair_limit: 1_000 }
    }
}

/// Rules by which failed tasks are claimable again at once.
pub(crate) fn no_wait() -> Rules {
    waiting(BackoffPolicy::Fixed, 0, 900_000)
}

/// Rules by which failed tasks wait, in milliseconds.
pub(crate) fn waiting(policy: BackoffPolicy, base: i64, max: i64) -> Rules {
    Rules { backoff: Backoff { policy, base: Millis(base), max: Millis(max) }, ..Rules::default() }
}

/// The stage of one case.
pub struct Stage {
    opener: Arc<dyn Opener>,
    runtime: Handle,
    part: Part,
    opened: Mutex<Vec<Store>>,
    skipped: Mutex<Option<Outcome>>,
    /// What the case measured, to be shown beside its outcome.
    pub(crate) figures: Mutex<Vec<Figure>>,
}

impl Stage {
    pub(crate) fn new(opener: Arc<dyn Opener>, runtime: Handle, part: Part) -> Stage {
        Stage {
            opener,
            runtime,
            part,
            opened: Mutex::default(),
            skipped: Mutex::default(),
            figures: Mutex::default(),
        }
    }

    /// Opens a store whose failed tasks are claimable again at once.
    pub fn open(&self) -> Store {
        self.open_in(Setup::default())
    }

    /// Opens a store with rules.
    pub fn open_with(&self, rules: Rules) -> Store {
        self.open_in(Setup { rules, ..Setup::default() })
    }

    /// Opens a store.
    ///
    /// # Panics
    ///
    /// If that fails, and so does the case.
    #[expect(clippy::panic, reason = "a case that has no store fails, and says why")]
    pub fn open_in(&self, setup: Setup) -> Store {
        match self.open_new(&self.part.config, &setup) {
            Ok(store) => store,
            Err(error) => panic!("the store did not open: {error}"),
        }
    }

    /// Opens a store with a configuration of the case's own.
    pub(crate) fn try_open(&self, config: &Value) -> Result<Store> {
        self.open_new(config, &Setup::default())
    }

    /// Every store has names of its own, and a directory if there is one, as if it were new, also on
    /// a backend that is not.
    fn open_new(&self, config: &Value, setup: &Setup) -> Result<Store> {
        let number = self.stores().len().to_string();
        let config = with_dir(config, &subdir(&self.part.dir, &number));
        let instance = self.opener.open(&config, setup)?;
        let scope = Scope::new(format!("{}{number}.", self.part.scope));
        let store = Store::new(
            instance,
            scope,
            config,
            self.runtime.clone(),
            self.has(Capability::Listing),
            self.part.clear,
        );
        self.stores().push(store.clone());
        Ok(store)
    }

    /// Opens another store on the same backend, with the same names as `store`.
    pub(crate) fn open_beside(&self, store: &Store, setup: &Setup) -> Result<Store> {
        let beside = store.beside(self.opener.open(store.config(), setup)?);
        self.stores().push(beside.clone());
        Ok(beside)
    }

    fn stores(&self) -> MutexGuard<'_, Vec<Store>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the plugin declares `capability`.
    pub fn has(&self, capability: Capability) -> bool {
        self.opener.manifest().has(capability)
    }

    pub(crate) fn config(&self) -> &Value {
        &self.part.config
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.part.plan
    }

    /// The command that spoils a record.
    pub(crate) fn corrupt(&self) -> Option<&str> {
        self.part.corrupt.as_deref()
    }

    /// The directory of the case's first store.
    pub(crate) fn dir(&self) -> String {
        self.part.dir.join("0").display().to_string()
    }

    /// Ends the case without a verdict.
    pub(crate) fn skip(&self, why: String) {
        self.end(Outcome::NotApplicable { why });
    }

    /// Ends the case with something that deserves a look.
    pub(crate) fn flag(&self, why: String) {
        self.end(Outcome::Flagged { why });
    }

    fn end(&self, outcome: Outcome) {
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.clone().unwrap_or(Outcome::Passed)
    }

    /// Removes what the case made, if that is wanted, and closes its stores.
    pub(crate) fn strike(&self) {
        let opened = std::mem::take(&mut *self.stores());
        for store in opened {
            store.clear();
            let _ = store.close();
        }
    }
}
