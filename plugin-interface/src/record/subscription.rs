//! Subscriptions: webhooks of workers that want to hear of waiting tasks.

use abi_stable::StableAbi;
use serde::{Deserialize, Serialize};

use super::{Extensions, Instant, List, Millis, Text};

/// A worker's wish to be told when a queue has tasks.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscription {
    /// A UUID v4.
    pub id: Text,
    /// Who asked.
    pub worker_id: Text,
    /// Whose queues it is about.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub tenant_id: Text,
    /// Where the notice is posted to.
    pub callback_url: Text,
    /// The commands it is about; `*` is all of them.
    pub event_types: List<Text>,
    /// Who among several subscribers is told.
    pub delivery_mode: DeliveryMode,
    /// The group, for the modes that have one.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub group_id: Text,
    /// The least time between two notices, in seconds.
    pub min_interval_seconds: u32,
    /// When the subscription ends unless it is renewed.
    pub expires_at: Instant,
    /// When it was made.
    pub created_at: Instant,
    /// Later fields.
    #[serde(skip)]
    pub extensions: Extensions,
}

/// Who among several subscribers of a command is told.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// Everyone.
    #[default]
    Fanout,
    /// One of each group, in turn.
    Group,
    /// One of each group, chosen by a hash of the task.
    Hash,
}

/// Moves the end of a subscription.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Renew {
    /// Which subscription.
    pub id: Text,
    /// Its owner; another worker's subscription is `NotOwner`.
    pub worker_id: Text,
    /// The owner's tenant; another tenant's subscription is `NotFound`.
    pub tenant_id: Text,
    /// The new end.
    pub expires_at: Instant,
    /// Later fields.
    pub extensions: Extensions,
}

/// Ends subscriptions, by id or by worker and commands.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Unregister {
    /// Which subscription; empty if they are named by worker and commands.
    pub id: Text,
    /// Whose subscriptions.
    pub worker_id: Text,
    /// The worker's tenant.
    pub tenant_id: Text,
    /// Which of the worker's: those about any of these commands; empty means all of them.
    pub commands: List<Text>,
    /// Later fields.
    pub extensions: Extensions,
}

/// Asks for the active subscriptions about one command, those to `*` included.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ByCommand {
    /// Whose subscriptions.
    pub tenant_id: Text,
    /// About which command.
    pub command: Text,
}

/// Asks for the active subscriptions of one worker.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ByWorker {
    /// Whose worker.
    pub tenant_id: Text,
    /// Which worker.
    pub worker_id: Text,
}

/// Asks whether a subscriber may be told now, and marks that he was.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowNotify {
    /// Which subscription.
    pub subscription_id: Text,
    /// The least time between two notices.
    pub min_interval: Millis,
}

/// A group of subscribers that takes turns.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupKey {
    /// Whose group.
    pub tenant_id: Text,
    /// The command the group subscribed to.
    pub command: Text,
    /// The group.
    pub group_id: Text,
}
