//! The Lua scripts. Each begins with the parts that it needs (keys, records, queues, the rules, repair), so
//! the rules are said once in Lua, as they are said once in Rust. What differs between the layouts of keys is
//! in parts of its own, so each script has a form for codeQ's layout and one for a cluster.

use std::sync::OnceLock;

/// How keys are named, and with it which form of a script is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As codeQ's own servers name them.
    Codeq,
    /// Those of a queue share a slot of a cluster.
    Cluster,
}

/// A script in its forms.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    codeq: Form,
    cluster: Form,
}

impl Script {
    pub(crate) fn form(&self, layout: Layout) -> &Form {
        match layout {
            Layout::Codeq => &self.codeq,
            Layout::Cluster => &self.cluster,
        }
    }
}

/// A script as it is sent.
pub(crate) struct Form {
    parts: &'static [&'static str],
    whole: OnceLock<Whole>,
}

struct Whole {
    text: String,
    hash: String,
}

impl Form {
    const fn of(parts: &'static [&'static str]) -> Form {
        Form { parts, whole: OnceLock::new() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.whole().text
    }

    /// What the server knows the script by.
    pub(crate) fn hash(&self) -> &str {
        &self.whole().hash
    }

    fn whole(&self) -> &Whole {
        self.whole.get_or_init(|| {
            let text = self.parts.concat();
            let hash = redis::Script::new(&text).get_hash().to_owned();
            Whole { text, hash }
        })
    }
}

macro_rules! part {
    ($name:literal) => {
        include_str!(concat!("scripts/", $name, ".lua"))
    };
}

macro_rules! form {
    ($name:literal, $keys:literal, [$($part:literal)*]) => {
        Form::of(&[
            part!("prelude"),
            part!("json"),
            // A closure finds the local variables that it uses by walking along all that closures of
            // the same function use; those of a function around it are at hand. So there are two.
            "return (function()\n",
            part!($keys),
            part!("record"),
            part!("queue"),
            $(part!($part),)*
            part!($name),
            "\nend)()",
        ])
    };
}

macro_rules! scripts {
    ($codeq:literal $codeq_parts:tt $cluster:literal $cluster_parts:tt
        $($constant:ident = $name:literal;)*
    ) => {
        $(
            pub(crate) static $constant: Script = Script {
                name: $name,
                codeq: form!($name, $codeq, $codeq_parts),
                cluster: form!($name, $cluster, $cluster_parts),
            };
        )*
    };
}

scripts! { "codeq" ["rules"] "cluster" ["rules"]
    SAVE = "save";
    GET = "get";
    DELETE = "delete";
    ENQUEUE = "enqueue";
    FORBID = "forbid";
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

scripts! { "codeq" ["rules" "repair" "codeq_repair"] "cluster" ["rules" "repair" "cluster_repair"]
    CLAIM = "claim";
    MOVE_DUE_DELAYED = "move_due_delayed";
    REQUEUE_EXPIRED = "requeue_expired";
    TEND = "tend";
    DISCOVER = "discover";
    REFRESH = "refresh";
    SWEEP = "sweep";
}

scripts! {
    "codeq" ["codeq_subscriptions" "subscriptions"] "cluster_subscriptions" ["subscriptions"]
    REGISTER = "register";
    RENEW = "renew";
    UNREGISTER = "unregister";
    SUBSCRIBERS = "subscribers";
    ALLOW_NOTIFY = "allow_notify";
    NEXT_GROUP_INDEX = "next_group_index";
    REMOVE_EXPIRED = "remove_expired";
}

/// A script about one key of a cluster, which needs no other part.
pub(crate) struct Small {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
}

macro_rules! small_scripts {
    ($($constant:ident = $name:literal;)*) => {
        $(
            pub(crate) static $constant: Small =
                Small { name: $name, form: Form::of(&[part!($name)]) };
        )*
    };
}

small_scripts! {
    POINT = "point";
    UNPOINT = "unpoint";
    RESERVE = "reserve";
    RELEASE = "release";
    HINT = "hint";
    NEXT_TURNS = "next_turns";
    DRAINED = "drained";
}
