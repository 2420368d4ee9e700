//! A store of the plugin and its files.

use codeq_host::Store;
use codeq_plugin::manifest;
use tempfile::TempDir;

use crate::{
    disk,
    provider::{Durability, Provider},
};

pub(super) struct Kept<'p> {
    pub(super) store: Store,
    pub(super) provider: &'p Provider,
    pub(super) dir: TempDir,
}

impl<'p> Kept<'p> {
    pub(super) async fn open(provider: &'p Provider, dir: TempDir) -> Kept<'p> {
        let store = provider.open(dir.path(), Durability::Disk).await;
        Kept { store, provider, dir }
    }

    /// Whether there is anything to open again.
    pub(super) fn is_durable(&self) -> bool {
        self.store.manifest().durability != manifest::Durability::Volatile
    }

    /// Closes it and opens it again, unless that would lose what is in it.
    pub(super) async fn reopen(self, durability: Durability) -> Kept<'p> {
        if !self.is_durable() {
            return self;
        }
        let provider = self.provider;
        let dir = self.close().await;
        let store = provider.open(dir.path(), durability).await;
        Kept { store, provider, dir }
    }

    /// Leaves the files.
    pub(super) async fn close(self) -> TempDir {
        self.store.close().await.unwrap();
        self.dir
    }

    pub(super) fn size(&self) -> u64 {
        disk::size(self.dir.path())
    }
}
