//! What is answered about a backup.

use abi_stable::StableAbi;

use super::Extensions;

/// What a backup has.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct BackedUp {
    /// How many bytes were written.
    pub bytes: u64,
    /// How many tasks are in it, finished ones included.
    pub tasks: u64,
    /// Later fields.
    pub extensions: Extensions,
}
