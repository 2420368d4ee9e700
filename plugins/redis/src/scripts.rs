//! The Lua scripts. Each begins with the parts that it needs (records, queues, the rules, repair), so
//! the rules are said once in Lua, as they are said once in Rust.

use std::sync::LazyLock;

/// A script and the hash by which the server knows it.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) hash: LazyLock<String>,
}

macro_rules! text {
    ($name:literal, [$($part:literal)*]) => {
        concat!(
            include_str!("scripts/prelude.lua"),
            include_str!("scripts/json.lua"),
            // A closure finds the local variables that it uses by walking along all that closures of
            // the same function use; those of a function around it are at hand. So there are two.
            "return (function()\n",
            include_str!("scripts/codeq.lua"),
            include_str!("scripts/record.lua"),
            include_str!("scripts/queue.lua"),
            $(include_str!(concat!("scripts/", $part, ".lua")),)*
            include_str!(concat!("scripts/", $name, ".lua")),
            "\nend)()",
        )
    };
}

macro_rules! scripts {
    ($parts:tt $($constant:ident = $name:literal;)*) => {
        $(
            pub(crate) static $constant: Script = {
                const TEXT: &str = text!($name, $parts);
                Script {
                    name: $name,
                    text: TEXT,
                    hash: LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned()),
                }
            };
        )*
    };
}

scripts! { ["rules"]
    SAVE = "save";
    GET = "get";
    DELETE = "delete";
    ENQUEUE = "enqueue";
    QUARANTINE = "quarantine";
    UPDATE_LEASE = "update_lease";
    ABANDON_LEASE = "abandon_lease";
    NACK = "nack";
    STATS = "stats";
    CLEANUP_EXPIRED = "cleanup_expired";
    LIST = "list";
    REDRIVE = "redrive";
    SAVE_RESULT = "save_result";
    FINISH = "finish";
    CLEAR_LEASE = "clear_lease";
    COMPLETE = "complete";
    HEAL = "heal";
}

scripts! { ["rules" "repair"]
    CLAIM = "claim";
    MOVE_DUE_DELAYED = "move_due_delayed";
    REQUEUE_EXPIRED = "requeue_expired";
    DISCOVER = "discover";
    REFRESH = "refresh";
    SWEEP = "sweep";
}

scripts! { ["subscriptions"]
    REGISTER = "register";
    RENEW = "renew";
    UNREGISTER = "unregister";
    SUBSCRIBERS = "subscribers";
    ALLOW_NOTIFY = "allow_notify";
    NEXT_GROUP_INDEX = "next_group_index";
    REMOVE_EXPIRED = "remove_expired";
}
