//! What two separately compiled programs agree on: the host and a plugin.
//!
//! A plugin's library exports one symbol, [`ROOT_SYMBOL`], which leads to its [`PluginModule`]; the
//! module opens [`Instance`]s and copies what they keep; an instance has the operations of the storage contract. Every
//! operation answers with a [`Reply`]: at once if the store can, else with a future.
//!
//! Nothing unwinds across the boundary. Every call and every poll catches panics on the plugin's
//! side and answers [`Internal`](crate::ErrorKind::Internal) with the panic's payload.
//!
//! Within a major version the records and `Reply` stay as they are, methods are only added, at the
//! end and with a default, and the order of the fields is that of their introduction. So a library
//! built against any minor version works with any other.

// The macros of abi_stable expand to unsafe code; none is written here by hand.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, non_local_definitions)]
#![allow(missing_docs, reason = "the macros of abi_stable generate items without documentation")]

mod ready;
#[cfg(test)]
mod tests;
#[cfg(feature = "async")]
mod waiting;

use std::{any::Any, panic::AssertUnwindSafe};

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    package_version_strings, sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RBox, RResult, RString},
};
use async_ffi::FfiFuture;

use crate::{
    Durability, Error,
    manifest::Manifest,
    persistence::Context,
    record::{
        AllowNotify, BackedUp, Batch, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup,
        Complete, Completed, Enqueue, Enqueued, Event, Extend, Finish, GroupKey, Lease, List,
        ListTasks, Moved, Nack, Optional, Outcome, Page, Placed, Queue, QueueStats, Renew,
        Returned, Subscription, Task, TaskKey, TaskResult, Text, Unregister,
    },
};

pub use ready::{backup_ready, open_ready};
#[cfg(feature = "async")]
pub use waiting::{backup_waiting, open_waiting};

/// The name of the symbol that leads to a plugin's module. It changes with the major version.
pub const ROOT_SYMBOL: &str = "codeq_plugin_root_v1";

/// The answer of an operation.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Reply<T> {
    /// It is done.
    Ok(T),
    /// It failed.
    Err(Error),
    /// It is under way; the future tells how it ends.
    Pending(FfiFuture<RResult<T, Error>>),
}

impl<T> Reply<T> {
    /// Waits for the answer. Hot paths match the reply themselves instead: handing it to another
    /// future costs a good third of a call.
    ///
    /// # Errors
    ///
    /// The one of the operation.
    pub async fn settled(self) -> Result<T, Error> {
        match self {
            Reply::Ok(value) => Ok(value),
            Reply::Err(error) => Err(error),
            Reply::Pending(future) => future.await.into_result(),
        }
    }
}

impl<T> From<Result<T, Error>> for Reply<T> {
    fn from(result: Result<T, Error>) -> Reply<T> {
        match result {
            Ok(value) => Reply::Ok(value),
            Err(error) => Reply::Err(error),
        }
    }
}

/// The answers to a batch, item by item.
pub type Replies<T> = Reply<Batch<Outcome<T>>>;

/// An open store on the host's side.
pub type InstanceBox = Instance_TO<RBox<()>>;

/// The root of a plugin's library. Later fields come at the end, and an older library has `None` for
/// them.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModuleRef)))]
#[sabi(missing_field(option))]
pub struct PluginModule {
    /// Opens a store with a configuration in JSON.
    // The end of what every library of this major version has: it stays here.
    #[sabi(last_prefix_field)]
    pub open: extern "C" fn(config: RString, context: Context) -> Reply<InstanceBox>,
    /// Since 1.1. Copies all that a store of this configuration keeps to a path where nothing is.
    pub backup: extern "C" fn(config: RString, context: Context, to: RString) -> Reply<BackedUp>,
}

impl RootModule for PluginModuleRef {
    declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "codeq_plugin";
    const NAME: &'static str = "codeq_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// An open store. The operations are those of the traits in [`crate::persistence`].
#[sabi_trait]
pub trait Instance: Send + Sync + 'static {
    fn save(&self, batch: Batch<Placed>) -> Replies<()>;
    fn get(&self, ids: Batch<Text>) -> Replies<Boxed<Task>>;
    fn delete(&self, ids: Batch<Text>) -> Replies<()>;
    fn enqueue(&self, batch: Batch<Enqueue>) -> Replies<Enqueued>;
    fn claim(&self, claim: Claim) -> Reply<Claimed>;
    fn update_lease(&self, batch: Batch<Extend>) -> Replies<crate::record::Instant>;
    fn abandon_lease(&self, batch: Batch<Lease>) -> Replies<Returned>;
    fn nack(&self, batch: Batch<Nack>) -> Replies<Returned>;
    fn move_due_delayed(&self, limit: u32) -> Reply<Moved>;
    fn requeue_expired(&self, limit: u32) -> Reply<Moved>;
    fn queue_length(&self, queue: Queue) -> Reply<u64>;
    fn queue_stats(&self, queue: Queue) -> Reply<QueueStats>;
    fn admin_queues(&self, tenant: Optional<Text>) -> Reply<List<QueueStats>>;
    fn cleanup_expired(&self, cleanup: Cleanup) -> Reply<u32>;
    fn list(&self, list: ListTasks) -> Reply<Page>;
    fn redrive(&self, batch: Batch<TaskKey>) -> Replies<Returned>;

    fn save_result(&self, batch: Batch<Boxed<TaskResult>>) -> Replies<()>;
    fn get_result(&self, ids: Batch<Text>) -> Replies<Boxed<TaskResult>>;
    fn update_task_on_complete(&self, batch: Batch<Finish>) -> Replies<()>;
    fn remove_from_inprog_and_clear_lease(&self, ids: Batch<Text>) -> Replies<()>;
    fn complete(&self, batch: Batch<Complete>) -> Replies<Completed>;

    fn register(&self, batch: Batch<Boxed<Subscription>>) -> Replies<()>;
    fn renew(&self, batch: Batch<Renew>) -> Replies<Boxed<Subscription>>;
    fn unregister(&self, batch: Batch<Unregister>) -> Replies<u32>;
    fn get_by_command(&self, by: ByCommand) -> Reply<List<Boxed<Subscription>>>;
    fn get_by_worker(&self, by: ByWorker) -> Reply<List<Boxed<Subscription>>>;
    fn allow_notify(&self, batch: Batch<AllowNotify>) -> Replies<bool>;
    fn next_group_index(&self, batch: Batch<GroupKey>) -> Replies<u64>;
    fn remove_expired(&self, limit: u32) -> Reply<u32>;

    fn next_events(&self) -> Reply<List<Event>>;
    fn health(&self) -> Reply<()>;
    // The end of what every library of this major version has: it stays here. Whatever comes behind it
    // needs a body, which is what a library answers that does not have it.
    #[sabi(last_prefix_field)]
    fn close(&self) -> Reply<()>;
    /// Since 1.1. The name of what the store's writes survive, if that is not what the manifest declares.
    fn durability(&self) -> Optional<Text> {
        Optional::RNone
    }
}

/// What the writes of an open store survive. A level that only a newer interface knows counts as the
/// one that the manifest declares.
pub fn durability_of(instance: &InstanceBox, manifest: &Manifest) -> Durability {
    let told = instance.durability().into_option();
    told.and_then(|name| Durability::parse(&name)).unwrap_or(manifest.durability)
}

/// Runs plugin code; a panic in it becomes an error.
fn guarded<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(panicked(payload)))
}

fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned());
    // Dropping somebody's payload may panic again, and this one is no longer needed.
    if let Err(again) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    Error::internal(format!("it panicked: {text}"))
}

/// Reads a store's configuration; the error names the key at fault.
fn parse_config<C: serde::de::DeserializeOwned>(config: &str) -> Result<C, Error> {
    serde_json::from_str(config).map_err(|error| {
        Error::invalid_config(format!("persistenceConfig cannot be read: {error}"))
    })
}
