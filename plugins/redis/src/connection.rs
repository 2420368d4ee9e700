//! The way to the data: one server that has all of it, or the nodes of a cluster.

use std::time::Duration;

use codeq_plugin::{Error, Result};
use redis::{Cmd, Value};
use tokio::time::Instant;

use crate::{
    config::{Config, Place},
    fault,
    keys::Slot,
    link::Messages,
    nodes::Nodes,
    route::Route,
    scripts::Form,
    server::{Failure, Request, Server},
};

/// The way to the data.
pub(crate) struct Connection {
    way: Way,
    /// What the server is called in messages.
    addr: String,
    command_timeout: Duration,
}

enum Way {
    Server(Server),
    Cluster(Nodes),
}

tokio::task_local! {
    /// When whatever this task does for a caller has to be over.
    static DEADLINE: Instant;
}

impl Connection {
    /// Connects for the first time.
    pub(crate) async fn open(config: &Config) -> Result<Connection> {
        let addr = config.server();
        let way = match config.place()? {
            Place::Nodes(seeds) => Way::Cluster(Nodes::open(seeds, config).await?),
            place => {
                let route = Route::new(place, config)?;
                let server = Server::new(route, addr.clone(), config.connect_timeout());
                server.open().await?;
                Way::Server(server)
            }
        };
        let connection = Connection { way, addr, command_timeout: config.command_timeout() };
        connection.check_layout().await?;
        connection.check_rights().await?;
        Ok(connection)
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// The nodes, if the data is in a cluster.
    pub(crate) fn nodes(&self) -> Option<&Nodes> {
        match &self.way {
            Way::Server(_) => None,
            Way::Cluster(nodes) => Some(nodes),
        }
    }

    /// Sends a command about keys of a slot, and waits for its answer. If a server does not know the
    /// script that the command names, it is taught.
    pub(crate) async fn send(
        &self,
        what: &str,
        slot: Option<Slot>,
        command: &Cmd,
        script: Option<&Form>,
    ) -> Result<Value> {
        let request = Request { command, script, asking: false };
        let server = match &self.way {
            Way::Server(server) => server,
            Way::Cluster(nodes) => {
                return nodes.send(what, slot, request, self.deadline()).await;
            }
        };
        server.exchange(request, self.command_timeout).await.map_err(|failure| match failure {
            Failure::Unreached(error) => error,
            Failure::Failed(error) => fault::of_operation(&error, &self.addr, what),
            Failure::Silence => self.too_late(what),
        })
    }

    /// Does something for a caller in several steps, which together may take as long as one.
    pub(crate) async fn in_time<T>(&self, steps: impl Future<Output = T>) -> T {
        DEADLINE.scope(self.deadline(), steps).await
    }

    /// When what is being done has to be over.
    pub(crate) fn deadline(&self) -> Instant {
        DEADLINE.try_with(|at| *at).unwrap_or_else(|_| Instant::now() + self.command_timeout)
    }

    /// The error of an operation whose time is over.
    pub(crate) fn too_late(&self, what: &str) -> Error {
        fault::too_late(&self.addr, what, self.command_timeout)
    }

    /// A connection of its own for messages.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<Messages> {
        match &self.way {
            Way::Server(server) => server.subscribe(channel).await,
            Way::Cluster(nodes) => nodes.subscribe(channel).await,
        }
    }

    /// Doubts the connection, because another one to the same place was lost.
    pub(crate) fn suspect(&self) {
        match &self.way {
            Way::Server(server) => server.suspect(),
            Way::Cluster(nodes) => nodes.suspect(),
        }
    }

    /// Lets go of the server. Every later call is `Closed`.
    pub(crate) fn close(&self) {
        match &self.way {
            Way::Server(server) => server.close(),
            Way::Cluster(nodes) => nodes.close(),
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        match &self.way {
            Way::Server(server) => server.check_open(),
            Way::Cluster(nodes) => nodes.check_open(),
        }
    }

    /// codeQ's keys are not in one slot, so a node of a cluster would refuse every script.
    async fn check_layout(&self) -> Result<()> {
        if self.nodes().is_some() {
            return Ok(());
        }
        // Whoever may not ask has to know.
        let Ok(info) =
            self.send("the first question", None, redis::cmd("INFO").arg("cluster"), None).await
        else {
            return Ok(());
        };
        match redis::from_redis_value::<String>(info) {
            Ok(info) if info.contains("cluster_enabled:1") => Err(fault::is_a_node(&self.addr)),
            _ => Ok(()),
        }
    }

    /// A user who may not use codeQ's keys, or no scripts, is of no use. Whatever else may be wrong shows
    /// when it is met.
    async fn check_rights(&self) -> Result<()> {
        let Way::Server(server) = &self.way else { return Ok(()) };
        let look = redis::cmd("HEXISTS").arg("codeq:tasks").arg("").clone();
        let script = redis::cmd("EVAL").arg("return 1").arg(0).clone();
        for command in [look, script] {
            let request = Request { command: &command, script: None, asking: false };
            if let Err(Failure::Failed(error)) =
                server.exchange(request, self.command_timeout).await
                && fault::lacks_rights(&error)
            {
                return Err(fault::of_opening(&error, &self.addr));
            }
        }
        Ok(())
    }
}
