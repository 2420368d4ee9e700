//! What went wrong between this plugin and the server, as the interface's errors.

use std::{io, time::Duration};

use codeq_plugin::Error;
use redis::{ErrorKind, RedisError};

/// Answers of a server that works but cannot do what was asked just now.
const NOT_NOW: [&str; 12] = [
    "LOADING",
    "BUSY",
    "OOM",
    "READONLY",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "UNKILLABLE",
    "NOREPLICA",
    "NOPERM",
];
/// Answers of a server that wants to know who asks.
const NOT_YOU: [&str; 3] = ["NOAUTH", "WRONGPASS", "ERR AUTH"];

/// Why there is no connection.
pub(crate) enum Unreached {
    /// The server failed, or the way to it.
    Server(RedisError),
    /// Whoever was to say where the server is did not lead to it.
    Elsewhere(Error),
}

impl Unreached {
    /// What that means for a store that is to be opened.
    pub(crate) fn at_opening(self, addr: &str) -> Error {
        match self {
            Unreached::Server(error) => of_opening(&error, addr),
            Unreached::Elsewhere(error) => error,
        }
    }

    /// What that means for an operation on an open store, whose settings were right once.
    pub(crate) fn later(self, addr: &str, what: &str) -> Error {
        match self {
            Unreached::Server(error) => of_operation(&error, addr, what),
            Unreached::Elsewhere(error) if error.is_retryable() => error,
            Unreached::Elsewhere(error) => {
                Error::unavailable(format!("cannot find redis at {addr} any more")).because(&error)
            }
        }
    }
}

impl From<RedisError> for Unreached {
    fn from(error: RedisError) -> Unreached {
        Unreached::Server(error)
    }
}

/// Why an operation on an open store failed.
pub(crate) fn of_operation(error: &RedisError, addr: &str, what: &str) -> Error {
    let text = said(error);
    let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    let failure = if is_refused_login(error) {
        Error::unavailable(format!("redis at {addr} no longer accepts the login: see its users"))
    } else if is_loss(error) {
        Error::unavailable(format!("redis at {addr} was lost during {what}: look whether it runs"))
    } else if says(&["WRONGTYPE"]) {
        Error::corrupt(format!(
            "{what} met a key in redis at {addr} that holds another type than codeQ's: see which \
             of the keys that begin with `codeq:` somebody else wrote"
        ))
    } else if says(&["MOVED", "CROSSSLOT"]) {
        Error::unsupported(format!(
            "redis at {addr} is a node of a cluster, which the key layout `codeq` cannot use"
        ))
    } else if says(&NOT_NOW) {
        Error::unavailable(format!("redis at {addr} refused {what}"))
    } else {
        Error::internal(format!("redis at {addr} failed at {what}"))
    };
    failure.because(&io::Error::other(text))
}

/// Why a cluster could not do something for as long as it was asked to.
pub(crate) fn of_moving(error: &RedisError, addr: &str, what: &str) -> Error {
    Error::unavailable(format!(
        "redis at {addr} could not do {what}: its keys are on their way to another node, or the cluster \
         is down; see `CLUSTER INFO` there"
    ))
    .because(&io::Error::other(said(error)))
}

/// The error of an operation that was not answered in its time.
pub(crate) fn too_late(addr: &str, what: &str, time: Duration) -> Error {
    Error::timeout(format!(
        "redis at {addr} did not answer {what} within {} ms: look whether it hangs, or raise \
         persistenceConfig.commandTimeoutMs",
        time.as_millis()
    ))
}

/// The error for the key layout `codeq` with a cluster.
pub(crate) fn is_a_node(addr: &str) -> Error {
    Error::invalid_config(format!(
        "persistenceConfig.keyLayout is `codeq`, and redis at {addr} is a node of a cluster, which cannot \
         run scripts over codeQ's keys: write `cluster`, and the nodes into persistenceConfig.nodes"
    ))
}

/// The error for the key layout `cluster` without a cluster.
pub(crate) fn is_no_node(addr: &str) -> Error {
    Error::invalid_config(format!(
        "persistenceConfig.keyLayout is `cluster`, and redis at {addr} is not a node of a cluster: write \
         `codeq`, and the server into persistenceConfig.addr, or start it with `cluster-enabled yes`"
    ))
}

/// Why the store could not be opened.
pub(crate) fn of_opening(error: &RedisError, addr: &str) -> Error {
    let text = said(error);
    let failure = if is_refused_login(error) {
        Error::invalid_config(format!(
            "redis at {addr} refused the login: set persistenceConfig.password (and username) to \
             what the server wants"
        ))
    } else if lacks_rights(error) {
        Error::invalid_config(format!(
            "the user of redis at {addr} lacks rights: set persistenceConfig.username to one who may \
             run scripts and use keys `codeq:*`"
        ))
    } else if text.to_ascii_lowercase().contains("db index") {
        Error::invalid_config(format!(
            "redis at {addr} has no such database: set persistenceConfig.db"
        ))
    } else if is_loss(error) {
        Error::unavailable(format!(
            "cannot reach redis at {addr}: start it there, or set persistenceConfig.addr (or \
             socket) to where it runs"
        ))
    } else {
        return of_operation(error, addr, "the first ping");
    };
    failure.because(&io::Error::other(text))
}

/// Whether the user may not do what was asked.
pub(crate) fn lacks_rights(error: &RedisError) -> bool {
    error.code() == Some("NOPERM")
}

/// Whether the connection is of no more use.
pub(crate) fn is_loss(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

/// Whether the server is not the one that takes writes any more; its name may lead to that one by now.
pub(crate) fn is_other_role(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

/// Whether the server does not know a script. KVRocks says so in the text only.
pub(crate) fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
        || error.detail().is_some_and(|text| text.starts_with("NOSCRIPT"))
}

/// Whether the server wants to know who asks, or does not know that one.
pub(crate) fn is_refused_login(error: &RedisError) -> bool {
    let text = said(error);
    error.kind() == ErrorKind::AuthenticationFailed
        || NOT_YOU.iter().any(|code| text.contains(code))
}

/// The server's own words, code first, or what befell the connection.
pub(crate) fn said(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}
