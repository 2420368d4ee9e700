//! The ways to the server that takes the writes.
//!
//! Each ends in a [`Link`] for calls, or in [`Messages`], and says for how long that server is the one
//! to talk to.

use codeq_plugin::{Error, Result};
use redis::Client;

use crate::{
    config::{Config, Place},
    fault::Unreached,
    link::{Link, Messages, Tenure},
    sentinel::Sentinels,
};

/// How the server is found.
pub(crate) enum Route {
    /// It is always in the same place.
    Fixed(Box<Client>),
    /// It is where Sentinels say that the master is.
    Sentinels(Sentinels),
}

impl Route {
    /// The way to a place, with what it needs to have going on.
    pub(crate) fn new(place: Place, config: &Config) -> Result<Route> {
        let access = config.access()?;
        let unusable = |error| config.unusable(&error);
        let fixed = |client: Result<_, _>| Ok(Route::Fixed(Box::new(client.map_err(unusable)?)));
        match place {
            Place::Server(address) => fixed(access.to(&address)),
            Place::Socket(path) => fixed(access.to_socket(&path)),
            Place::Nodes(_) => Err(Error::internal("a cluster has no server that has everything")),
            Place::Sentinels { addresses, master } => {
                let sentinels = config.sentinel_access()?;
                let clients = addresses.into_iter().map(|address| {
                    sentinels.to(&address).map(|client| (address, client)).map_err(unusable)
                });
                // Half of the time is for the master.
                let patience = config.connect_timeout() / 2;
                let clients = clients.collect::<Result<_>>()?;
                Ok(Route::Sentinels(Sentinels::new(master, clients, access, patience)))
            }
        }
    }

    /// Connects, and has a sign of life from the server, which one that hangs does not give.
    pub(crate) async fn connect(&self) -> Result<(Link, Tenure), Unreached> {
        match self {
            Route::Fixed(client) => {
                let mut link = Link::open(client).await?;
                link.send(&redis::cmd("PING")).await?;
                Ok((link, Tenure::Lasting))
            }
            Route::Sentinels(sentinels) => sentinels.connect().await,
        }
    }

    /// Connects for the messages of a channel.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<Messages, Unreached> {
        match self {
            Route::Fixed(client) => {
                Ok(Messages::subscribe(client, channel, Tenure::Lasting).await?)
            }
            Route::Sentinels(sentinels) => sentinels.subscribe(channel).await,
        }
    }
}
