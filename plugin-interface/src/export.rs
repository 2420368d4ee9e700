//! The macro that turns a store into a plugin, and what its expansion needs.

// The layout of the root module is erased for the header and restored by the host's check.
#![allow(unsafe_code)]

use abi_stable::{
    library::CheckTypeLayout,
    marker_type::ErasedPrefix,
    prefix_type::{PrefixRefTrait, PrefixTypeTrait},
    std_types::RResult,
};

pub use abi_stable::library::{LibHeader, RootModuleResult};

use crate::boundary::PluginModuleRef;
#[cfg(feature = "async")]
pub use crate::boundary::{backup_waiting, open_waiting};
pub use crate::{
    boundary::{PluginModule, backup_ready, open_ready},
    manifest::Source,
};

/// The header that a plugin exports under [`crate::boundary::ROOT_SYMBOL`].
pub const fn header(root: extern "C" fn() -> RootModuleResult) -> LibHeader {
    // SAFETY: `root` is the expansion's own, which answers with `module`, so with a
    // `PluginModuleRef`, as the header says.
    unsafe { LibHeader::from_constructor::<PluginModuleRef>(root, CheckTypeLayout::Yes) }
}

/// What the header's function answers.
pub fn module(module: PluginModule) -> RootModuleResult {
    let module = module.leak_into_prefix();
    // SAFETY: the header names the module's real type, and whoever uses it checks that first.
    RResult::ROk(unsafe { module.to_prefix_ref().cast::<ErasedPrefix>() })
}

/// Exports a store as a codeQ plugin. Once per library.
///
/// ```
/// # use codeq_plugin::*;
/// # mod hidden {
/// # use codeq_plugin::*;
/// # pub struct Shelf;
/// # impl Persistence for Shelf {
/// #     type Config = ();
/// #     fn open(_: (), _: Context) -> Result<Self> { Ok(Shelf) }
/// # }
/// # impl TaskStorage for Shelf {
/// #     fn save(&self, _: Placed) -> Result<()> { Err(Error::closed()) }
/// #     fn get(&self, _: &str) -> Result<Boxed<Task>> { Err(Error::closed()) }
/// #     fn delete(&self, _: &str) -> Result<()> { Err(Error::closed()) }
/// #     fn enqueue(&self, _: Enqueue) -> Result<Enqueued> { Err(Error::closed()) }
/// #     fn claim(&self, _: Claim) -> Result<Claimed> { Err(Error::closed()) }
/// #     fn update_lease(&self, _: Extend) -> Result<Instant> { Err(Error::closed()) }
/// #     fn abandon_lease(&self, _: Lease) -> Result<Returned> { Err(Error::closed()) }
/// #     fn nack(&self, _: Nack) -> Result<Returned> { Err(Error::closed()) }
/// #     fn move_due_delayed(&self, _: u32) -> Result<Moved> { Err(Error::closed()) }
/// #     fn requeue_expired(&self, _: u32) -> Result<Moved> { Err(Error::closed()) }
/// #     fn queue_length(&self, _: Queue) -> Result<u64> { Err(Error::closed()) }
/// #     fn queue_stats(&self, _: Queue) -> Result<QueueStats> { Err(Error::closed()) }
/// #     fn admin_queues(&self, _: Option<Text>) -> Result<Vec<QueueStats>> { Err(Error::closed()) }
/// #     fn cleanup_expired(&self, _: Cleanup) -> Result<u32> { Err(Error::closed()) }
/// # }
/// # impl ResultStorage for Shelf {
/// #     fn save_result(&self, _: Boxed<TaskResult>) -> Result<()> { Err(Error::closed()) }
/// #     fn get_result(&self, _: &str) -> Result<Boxed<TaskResult>> { Err(Error::closed()) }
/// #     fn update_task_on_complete(&self, _: Finish) -> Result<()> { Err(Error::closed()) }
/// #     fn remove_from_inprog_and_clear_lease(&self, _: &str) -> Result<()> { Err(Error::closed()) }
/// #     fn complete(&self, _: Complete) -> Result<Completed> { Err(Error::closed()) }
/// # }
/// # impl SubscriptionStorage for Shelf {}
/// # }
/// # use hidden::Shelf;
/// codeq_plugin::export_plugin! {
///     name: "shelf",
///     description: "keeps tasks on a shelf",
///     durability: Volatile,
///     capabilities: [],
///     config_schema: r#"{"type": "object", "additionalProperties": false}"#,
///     store: Shelf, // a `Persistence`; `async_store:` for an `AsyncPersistence`
/// }
/// # fn main() {}
/// ```
///
/// The library's version is that of its crate. `config_schema` is the JSON schema of
/// `persistenceConfig`; the host checks a configuration against it before the store sees it. Mark
/// secrets with `"writeOnly": true` and the host masks them wherever it shows a configuration.
#[macro_export]
macro_rules! export_plugin {
    (
        name: $name:expr,
        description: $description:expr,
        durability: $durability:ident,
        capabilities: [$($capability:ident),* $(,)?],
        config_schema: $config_schema:expr,
        $kind:ident: $store:ty $(,)?
    ) => {
        const _: () = {
            use $crate::__private as codeq;

            const SOURCE: codeq::Source = codeq::Source {
                name: $name,
                version: ::core::env!("CARGO_PKG_VERSION"),
                description: $description,
                panic: if ::core::cfg!(panic = "abort") { "abort" } else { "unwind" },
                durability: $crate::Durability::$durability,
                capabilities: &[$($crate::Capability::$capability),*],
                config_schema: $config_schema,
            };

            #[used]
            #[cfg_attr(
                any(target_os = "macos", target_os = "ios"),
                unsafe(link_section = "__DATA,__codeq_plugin")
            )]
            #[cfg_attr(
                not(any(target_os = "macos", target_os = "ios")),
                unsafe(link_section = ".codeq_plugin")
            )]
            static MANIFEST: [u8; SOURCE.size()] = SOURCE.bytes();

            extern "C" fn root() -> codeq::RootModuleResult {
                codeq::module(codeq::PluginModule {
                    open: $crate::export_plugin!(@open $kind, $store),
                    backup: $crate::export_plugin!(@backup $kind, $store),
                })
            }

            #[used]
            #[unsafe(export_name = "codeq_plugin_root_v1")]
            static ROOT: codeq::LibHeader = codeq::header(root);
        };
    };
    (@open store, $store:ty) => { $crate::__private::open_ready::<$store> };
    (@open async_store, $store:ty) => { $crate::__private::open_waiting::<$store> };
    (@backup store, $store:ty) => { $crate::__private::backup_ready::<$store> };
    (@backup async_store, $store:ty) => { $crate::__private::backup_waiting::<$store> };
}
