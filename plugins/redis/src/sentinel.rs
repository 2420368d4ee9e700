//! Redis Sentinel: which server is the master, for now.
//!
//! Before each connection all Sentinels are asked, and the one that knows of the latest failover is
//! believed; the server that it names has to call itself a master. While there are connections, the
//! Sentinels are asked again and again: after a planned failover the former master takes writes for
//! some seconds yet, which it loses when it becomes a replica, and behind a broken network it may do
//! so for longer.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use codeq_plugin::Error;
use futures_util::future::join_all;
use redis::{Client, FromRedisValue, RedisError, Value};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    access::Access,
    address::Address,
    fault::{self, Unreached},
    link::{Link, Messages, Tenure},
};

/// How often the Sentinels are asked while there are connections.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A server that a Sentinel calls the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Master {
    address: Address,
    /// Grows with every failover.
    epoch: u64,
}

impl Master {
    /// Whether the one that was named became master after this one.
    pub(crate) fn has_successor(&self, named: Option<&Master>) -> bool {
        named.is_some_and(|named| named.epoch > self.epoch && named.address != self.address)
    }
}

/// The Sentinels of a master.
pub(crate) struct Sentinels {
    group: Arc<Group>,
    // Ends with this.
    _watch: JoinSet<()>,
}

impl Sentinels {
    /// The Sentinels that `clients` lead to; servers that they name are spoken with as `access` says.
    /// A Sentinel may take as long as `patience` to answer.
    pub(crate) fn new(
        master: String,
        clients: Vec<(Address, Client)>,
        access: Access,
        patience: Duration,
    ) -> Sentinels {
        let sentinels = clients.into_iter().map(|(address, client)| Sentinel {
            address,
            client,
            link: Mutex::default(),
        });
        let sentinels = sentinels.collect();
        let group = Arc::new(Group {
            master,
            sentinels,
            access,
            patience,
            named: watch::Sender::default(),
        });
        let mut watch = JoinSet::new();
        watch.spawn(Arc::clone(&group).watch());
        Sentinels { group, _watch: watch }
    }

    /// Connects to the present master.
    pub(crate) async fn connect(&self) -> Result<(Link, Tenure), Unreached> {
        let (_, link, tenure) = self.group.reach().await?;
        Ok((link, tenure))
    }

    /// Connects to the present master for the messages of a channel.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<Messages, Unreached> {
        let (client, _, tenure) = self.group.reach().await?;
        Ok(Messages::subscribe(&client, channel, tenure).await?)
    }
}

struct Group {
    /// What the Sentinels call the master.
    master: String,
    sentinels: Vec<Sentinel>,
    access: Access,
    patience: Duration,
    /// The master that was named last.
    named: watch::Sender<Option<Master>>,
}

/// What kept a Sentinel from naming a master; whichever says most about the settings is the greatest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Silence(String),
    UnknownMaster,
    RefusedLogin(String),
}

impl Group {
    /// Asks the Sentinels for as long as anybody wants to know.
    async fn watch(self: Arc<Group>) {
        loop {
            sleep(ASK_EVERY).await;
            if self.named.receiver_count() > 0 {
                // Connections work without an answer. Whoever needs another one hears what is wrong.
                let _ = self.present_master().await;
            }
        }
    }

    /// Connects to the present master, and makes sure that it is one.
    async fn reach(&self) -> Result<(Client, Link, Tenure), Unreached> {
        let master = self.present_master().await?;
        let client = self.access.to(&master.address)?;
        let asked = async {
            let mut link = Link::open(&client).await?;
            let role = link.send(&redis::cmd("ROLE")).await?;
            Ok((link, role))
        };
        let (link, role) = asked.await.map_err(|error| self.unreached(&master, error))?;
        if !is_master(&role) {
            return Err(self.not_yet(&master));
        }
        let tenure = Tenure::Master { own: master, named: self.named.subscribe() };
        Ok((client, link, tenure))
    }

    /// The master of whichever Sentinel knows of the latest failover.
    async fn present_master(&self) -> Result<Master, Unreached> {
        let answers = join_all(self.sentinels.iter().map(|sentinel| self.ask(sentinel))).await;
        let mut worst = None;
        let named = answers.into_iter().filter_map(|answer| {
            answer.map_err(|trouble| worst = worst.take().max(Some(trouble))).ok()
        });
        let Some(master) = named.max_by_key(|master| master.epoch) else {
            let worst = worst.unwrap_or_else(|| Trouble::Silence("there are none".into()));
            return Err(Unreached::Elsewhere(self.no_master(worst)));
        };
        self.announce(&master);
        Ok(master)
    }

    async fn ask(&self, sentinel: &Sentinel) -> Result<Master, Trouble> {
        let at = &sentinel.address;
        match timeout(self.patience, sentinel.name_master(&self.master)).await {
            Ok(Ok(Some(master))) => Ok(master),
            Ok(Ok(None)) => Err(Trouble::UnknownMaster),
            Ok(Err(error)) if fault::is_refused_login(&error) => {
                Err(Trouble::RefusedLogin(format!("{at}: {}", fault::said(&error))))
            }
            Ok(Err(error)) => Err(Trouble::Silence(format!("{at}: {}", fault::said(&error)))),
            Err(_) => Err(Trouble::Silence(format!(
                "{at}: no answer within {} ms",
                self.patience.as_millis()
            ))),
        }
    }

    /// Tells those who are connected where the master is.
    fn announce(&self, master: &Master) {
        let news = self.named.send_if_modified(|named| {
            let news = named.as_ref() != Some(master);
            *named = Some(master.clone());
            news
        });
        if news {
            tracing::info!(master = %self.master, addr = %master.address, "Sentinels name the master");
        }
    }

    fn no_master(&self, worst: Trouble) -> Error {
        let (name, all) = (&self.master, self.all());
        match worst {
            Trouble::RefusedLogin(said) => Error::invalid_config(
                "a Sentinel refused the login: set persistenceConfig.sentinelPassword (and \
                 sentinelUsername) to what it wants",
            )
            .because(&io::Error::other(said)),
            Trouble::UnknownMaster => Error::invalid_config(format!(
                "persistenceConfig.sentinelMaster is `{name}`: the Sentinels at {all} know no master \
                 of that name; write the one of their `sentinel monitor`"
            )),
            Trouble::Silence(said) => Error::unavailable(format!(
                "no Sentinel says where master `{name}` is: start those at {all}, or set \
                 persistenceConfig.sentinels to where they run"
            ))
            .because(&io::Error::other(said)),
        }
    }

    fn unreached(&self, master: &Master, error: RedisError) -> Unreached {
        if fault::is_refused_login(&error) || !fault::is_loss(&error) {
            return Unreached::Server(error);
        }
        let (name, all, addr) = (&self.master, self.all(), &master.address);
        let failure = Error::unavailable(format!(
            "cannot reach redis at {addr}, where the Sentinels at {all} say that master `{name}` is: \
             look whether it runs, and whether that address leads there from here; if it is down, \
             they will name another one"
        ));
        Unreached::Elsewhere(failure.because(&io::Error::other(fault::said(&error))))
    }

    fn not_yet(&self, master: &Master) -> Unreached {
        let (name, all, addr) = (&self.master, self.all(), &master.address);
        Unreached::Elsewhere(Error::unavailable(format!(
            "redis at {addr} is not a master, although the Sentinels at {all} call it master \
             `{name}`: wait until their failover is over"
        )))
    }

    fn all(&self) -> String {
        let addresses = self.sentinels.iter().map(|sentinel| sentinel.address.to_string());
        addresses.collect::<Vec<_>>().join(", ")
    }
}

struct Sentinel {
    address: Address,
    client: Client,
    /// Kept for the next question; whoever asks takes it, and puts it back after an answer.
    link: Mutex<Option<Link>>,
}

impl Sentinel {
    /// The master of that name, if the Sentinel knows it.
    async fn name_master(&self, name: &str) -> Result<Option<Master>, RedisError> {
        let kept = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut link = match kept {
            Some(link) => link,
            None => Link::open(&self.client).await?,
        };
        let master = name_master(&mut link, name).await?;
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        Ok(master)
    }
}

/// Asks for the epoch first: in a failover an address may be later than its epoch, which does no harm,
/// but never earlier.
async fn name_master(link: &mut Link, name: &str) -> Result<Option<Master>, RedisError> {
    let about = match link.send(redis::cmd("SENTINEL").arg("MASTER").arg(name)).await {
        Err(error) if fault::said(&error).contains("No such master") => return Ok(None),
        about => HashMap::<String, String>::from_redis_value(about?)?,
    };
    let epoch = about.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    // `MASTER` has the former one's address until a failover is over.
    let address =
        link.send(redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name)).await?;
    let address = Option::<(String, u16)>::from_redis_value(address)?;
    Ok(address.map(|(host, port)| Master { address: Address { host, port }, epoch }))
}

/// Whether a server that answered `ROLE` so is a master.
fn is_master(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(port: u16, epoch: u64) -> Master {
        Master { address: Address { host: "h".into(), port }, epoch }
    }

    #[test]
    fn a_successor_is_another_server_of_a_later_failover() {
        let own = master(1, 5);
        assert!(own.has_successor(Some(&master(2, 6))));
        assert!(!own.has_successor(Some(&master(1, 6))));
        // A Sentinel that was cut off, or one that calls the server by another name.
        assert!(!own.has_successor(Some(&master(2, 4))));
        assert!(!own.has_successor(Some(&master(2, 5))));
        assert!(!own.has_successor(None));
    }
}
