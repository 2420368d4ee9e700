//! What every operation works with: the connection to the server, what scripts are told, and which keys
//! they are about.

use std::{ops::Deref, sync::Arc};

use codeq_plugin::{Context, Result, rules::Rules};

use crate::{
    call::{Call, Caller},
    config::Config,
    connection::Connection,
    discovery::Discovery,
    events::Events,
    keys::{REGISTRY, Scope, Slot},
    reply::Reply,
    scripts::Script,
};

/// What all operations of a store share.
pub(crate) struct Core {
    pub(crate) connection: Connection,
    pub(crate) caller: Caller,
    pub(crate) events: Events,
    pub(crate) discovery: Discovery,
}

impl Core {
    pub(crate) async fn open(config: &Config, context: Context) -> Result<Core> {
        let caller = Caller::new(context)?;
        let connection = Connection::open(config).await?;
        let (events, discovery) = (Events::default(), Discovery::default());
        Ok(Core { connection, caller, events, discovery })
    }

    pub(crate) fn rules(&self) -> &Rules {
        self.caller.rules()
    }

    /// Asks the server for a sign of life; in a cluster, one node that would know if others were dead.
    pub(crate) async fn ping(&self) -> Result<()> {
        let (command, slot) = if self.connection.nodes().is_some() {
            (redis::cmd("EXISTS").arg(REGISTRY).clone(), Some(Slot::of(REGISTRY)))
        } else {
            (redis::cmd("PING"), None)
        };
        self.connection.send("ping", slot, &command, None).await?;
        Ok(())
    }
}

/// The operations, as they are sent to the server: a batch of any size is one script, about all of codeQ's
/// keys or about one queue of a cluster.
pub(crate) struct Backend {
    core: Arc<Core>,
    pub(crate) scope: Scope,
}

impl Backend {
    pub(crate) fn new(core: &Arc<Core>, scope: &Scope) -> Backend {
        Backend { core: Arc::clone(core), scope: scope.clone() }
    }

    pub(crate) fn call(&self, script: &'static Script) -> Call {
        self.caller.call(script, &self.scope)
    }

    /// Runs a script: one round trip, but for the first time on a server, which has to learn it.
    pub(crate) async fn run(&self, call: Call) -> Result<Reply> {
        let (name, form) = (call.script.name, call.script.form(self.scope.layout()));
        let slot = self.scope.slot();
        let value = self.connection.send(name, slot, &call.command, Some(form)).await?;
        Reply::new(name, self.scope.tasks(), value)
    }
}

impl Deref for Backend {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}
