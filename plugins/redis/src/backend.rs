//! What every operation works with: the connection to the server, and what scripts are told.

use codeq_plugin::{Context, Result, rules::Rules};

use crate::{
    call::{Call, Caller},
    config::Config,
    connection::Connection,
    discovery::Discovery,
    events::Events,
    reply::Reply,
    scripts::Script,
};

/// The operations, as they are sent to the server: a batch of any size is one script.
pub(crate) struct Backend {
    pub(crate) connection: Connection,
    pub(crate) caller: Caller,
    pub(crate) events: Events,
    pub(crate) discovery: Discovery,
}

impl Backend {
    pub(crate) async fn open(config: &Config, context: Context) -> Result<Backend> {
        let caller = Caller::new(context)?;
        let connection = Connection::open(config).await?;
        let (events, discovery) = (Events::default(), Discovery::default());
        Ok(Backend { connection, caller, events, discovery })
    }

    pub(crate) fn call(&self, script: &'static Script) -> Call {
        self.caller.call(script)
    }

    pub(crate) fn rules(&self) -> &Rules {
        self.caller.rules()
    }

    /// Runs a script: one round trip, but for the first time on a server, which has to learn it.
    pub(crate) async fn run(&self, call: Call) -> Result<Reply> {
        let mut teach = redis::cmd("SCRIPT");
        teach.arg("LOAD").arg(call.script.text);
        let name = call.script.name;
        let value = self.connection.send(name, &call.command, Some(&teach)).await?;
        Reply::new(name, value)
    }

    /// Asks the server for a sign of life.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.connection.send("ping", &redis::cmd("PING"), None).await?;
        Ok(())
    }
}
