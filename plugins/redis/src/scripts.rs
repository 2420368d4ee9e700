//! The Lua scripts. Each begins with the parts that all share (records, queues, the rules, repair),
//! so the rules are said once in Lua, as they are said once in Rust.

use std::sync::LazyLock;

/// A script and the hash by which the server knows it.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) hash: LazyLock<String>,
}

macro_rules! scripts {
    ($shared:literal: $($constant:ident = $name:literal;)*) => {
        $(
            pub(crate) static $constant: Script = {
                const TEXT: &str = concat!(
                    include_str!("scripts/record.lua"),
                    include_str!("scripts/queue.lua"),
                    include_str!(concat!("scripts/", $shared, ".lua")),
                    include_str!(concat!("scripts/", $name, ".lua")),
                );
                Script {
                    name: $name,
                    text: TEXT,
                    hash: LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned()),
                }
            };
        )*
    };
}

scripts! { "rules":
    SAVE = "save";
    GET = "get";
    DELETE = "delete";
    ENQUEUE = "enqueue";
    CLAIM = "claim";
    QUARANTINE = "quarantine";
    UPDATE_LEASE = "update_lease";
    ABANDON_LEASE = "abandon_lease";
    NACK = "nack";
    MOVE_DUE_DELAYED = "move_due_delayed";
    REQUEUE_EXPIRED = "requeue_expired";
    DISCOVER = "discover";
    REFRESH = "refresh";
    HEAL = "heal";
    STATS = "stats";
    CLEANUP_EXPIRED = "cleanup_expired";
    LIST = "list";
    REDRIVE = "redrive";
    SAVE_RESULT = "save_result";
    FINISH = "finish";
    CLEAR_LEASE = "clear_lease";
    COMPLETE = "complete";
}

scripts! { "subscriptions":
    REGISTER = "register";
    RENEW = "renew";
    UNREGISTER = "unregister";
    SUBSCRIBERS = "subscribers";
    ALLOW_NOTIFY = "allow_notify";
    NEXT_GROUP_INDEX = "next_group_index";
    REMOVE_EXPIRED = "remove_expired";
}
