//! The store itself: opening it, asking after it, closing it.

use codeq_plugin::{AsyncPersistence, Context, Result, rules::Rules};

use crate::{
    call::{Call, Caller},
    config::Config,
    connection::Connection,
    discovery::Discovery,
    events::Events,
    reply::Reply,
    scripts::Script,
};

/// A store in Redis or KVRocks.
pub struct Redis {
    pub(crate) connection: Connection,
    pub(crate) caller: Caller,
    pub(crate) events: Events,
    pub(crate) discovery: Discovery,
}

impl Redis {
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
}

impl AsyncPersistence for Redis {
    type Config = Config;

    fn runtime_threads(config: &Config) -> usize {
        config.threads
    }

    async fn open(config: Config, context: Context) -> Result<Redis> {
        let caller = Caller::new(context)?;
        let connection = Connection::open(&config).await?;
        Ok(Redis { connection, caller, events: Events::default(), discovery: Discovery::default() })
    }

    async fn health(&self) -> Result<()> {
        self.connection.send("ping", &redis::cmd("PING"), None).await?;
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        // Everything that was answered is with the server already.
        self.connection.close();
        Ok(())
    }
}
