//! The nodes of a cluster: which of them has a slot, and how to find that out.
//!
//! A call goes to the node that has its slot as far as is known here. A node that has it no longer says
//! who has (`MOVED`), or who is about to get it (`ASK`); while a slot is on its way with only some of a
//! queue's keys, nobody can do anything (`TRYAGAIN`), and the call is tried again until its time is over. All
//! that is safe, because such an answer means that nothing was done. A call that was sent and lost is not
//! sent again: nobody knows what became of it, and its caller is told so.
//!
//! When a node cannot be reached, the others are asked who has its slots by now.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use codeq_plugin::{Error, Result};
use futures_util::future::{join_all, select_ok};
use redis::{Client, Cmd, RedisError, ServerErrorKind, Value};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    access::Access,
    address::Address,
    config::Config,
    fault,
    keys::Slot,
    link::{Link, Messages},
    route::Route,
    server::{Failure, Request, Server},
};

/// How long to wait before a call is sent again that nobody could do.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// How often a call follows one node's word about another without a pause.
const MOST_REDIRECTS: u32 = 4;
/// How long what the nodes said about slots is good enough to answer a caller with.
const FRESH: Duration = Duration::from_millis(100);

/// The nodes of a cluster.
pub(crate) struct Nodes {
    seeds: Vec<Address>,
    access: Access,
    /// What the cluster is called in messages.
    name: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    map: Mutex<Map>,
    servers: Mutex<HashMap<Address, Arc<Server>>>,
    learning: tokio::sync::Mutex<Option<Instant>>,
    /// Whether somebody met a node that was not what it should be.
    suspected: AtomicBool,
    closed: AtomicBool,
}

/// Which master has which slot.
#[derive(Default)]
struct Map {
    /// By slot; nothing before the first answer.
    owners: Vec<Option<Arc<Address>>>,
    masters: Vec<Arc<Address>>,
}

/// What a node that did not do something says.
enum Verdict {
    /// Another node has the slot.
    Moved(Address),
    /// Another node is about to get the slot, and has the keys already.
    Ask(Address),
    /// Nobody can do it just now.
    NotYet,
    /// It will not be done.
    Never,
}

impl Nodes {
    /// Asks the nodes that are configured for all others.
    pub(crate) async fn open(seeds: Vec<Address>, config: &Config) -> Result<Nodes> {
        let nodes = Nodes {
            access: config.access()?,
            name: config.server(),
            connect_timeout: config.connect_timeout(),
            command_timeout: config.command_timeout(),
            map: Mutex::default(),
            servers: Mutex::default(),
            learning: tokio::sync::Mutex::default(),
            suspected: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            seeds,
        };
        let clients = nodes.seeds.iter().map(|seed| {
            let client = nodes.access.to(seed).map_err(|error| config.unusable(&error))?;
            Ok((seed.clone(), client))
        });
        let clients = clients.collect::<Result<Vec<_>>>()?;
        let asked = clients.iter().map(|(seed, client)| nodes.ask_first(seed, client));
        let mut worst: Option<Error> = None;
        for answer in join_all(asked).await {
            match answer {
                Ok(map) => {
                    *nodes.map() = map;
                    return Ok(nodes);
                }
                // What a setting causes says more than what a node does.
                Err(error) if !error.is_retryable() || worst.is_none() => worst = Some(error),
                Err(_) => {}
            }
        }
        Err(worst.unwrap_or_else(|| nodes.no_owner(Slot(0))))
    }

    /// Sends a request to whoever has the slot, until somebody has done it, or its time is over.
    pub(crate) async fn send(
        &self,
        what: &str,
        slot: Option<Slot>,
        request: Request<'_>,
        deadline: Instant,
    ) -> Result<Value> {
        let slot = slot.unwrap_or(Slot(0));
        let (mut redirects, mut redirect) = (0, None);
        loop {
            self.check_open()?;
            let (address, asking) = match redirect.take() {
                Some(redirect) => redirect,
                None => (self.owner(slot).await?, false),
            };
            let server = self.server(&address)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(fault::too_late(server.addr(), what, self.command_timeout));
            }
            let error = match server.exchange(Request { asking, ..request }, left).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Failed(error)) => error,
                Err(Failure::Unreached(_)) if self.has_successor(slot, &address).await => continue,
                Err(failure) => return Err(self.failed(what, &server, failure)),
            };
            redirects += 1;
            match verdict(&error, &address) {
                Verdict::Moved(to) => self.follow(slot, &to),
                Verdict::Ask(to) => redirect = Some((to, true)),
                Verdict::NotYet => redirects = u32::MAX,
                Verdict::Never => return Err(self.failed(what, &server, Failure::Failed(error))),
            }
            if redirects > MOST_REDIRECTS {
                // What is sent just before its time is over may happen unseen.
                if Instant::now() + self.command_timeout / 4 >= deadline {
                    return Err(fault::of_moving(&error, server.addr(), what));
                }
                sleep(TRY_AGAIN_AFTER).await;
                redirects = 0;
            }
        }
    }

    /// Sends a command to one of the masters.
    pub(crate) async fn send_to(
        &self,
        master: &Address,
        what: &str,
        command: &Cmd,
    ) -> Result<Value> {
        let server = self.server(master)?;
        let request = Request { command, script: None, asking: false };
        let answer = server.exchange(request, self.command_timeout).await;
        answer.map_err(|failure| self.failed(what, &server, failure))
    }

    /// Those that have slots.
    pub(crate) fn masters(&self) -> Vec<Arc<Address>> {
        self.map().masters.clone()
    }

    /// A connection for messages, which come to every node of a cluster.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<Messages> {
        self.check_open()?;
        if self.suspected.load(Ordering::Relaxed) {
            self.refresh().await?;
        }
        let masters = self.masters();
        let Some(master) = fastrand::choice(masters) else { return Err(self.no_owner(Slot(0))) };
        self.server(&master)?.subscribe(channel).await
    }

    /// Has the next call ask who has which slot.
    pub(crate) fn suspect(&self) {
        self.suspected.store(true, Ordering::Relaxed);
    }

    /// Lets go of all nodes. Every later call is `Closed`.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for server in self.servers().values() {
            server.close();
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(Error::closed()) } else { Ok(()) }
    }

    async fn owner(&self, slot: Slot) -> Result<Address> {
        if self.suspected.load(Ordering::Relaxed) {
            // Those who cannot say leave what is known.
            let _ = self.refresh().await;
        }
        if let Some(owner) = self.known_owner(slot) {
            return Ok(owner);
        }
        self.refresh().await?;
        self.known_owner(slot).ok_or_else(|| self.no_owner(slot))
    }

    /// Why a request came to nothing. The node may not be what it was.
    fn failed(&self, what: &str, server: &Server, failure: Failure) -> Error {
        match failure {
            Failure::Unreached(error) => error,
            Failure::Silence => {
                self.suspect();
                fault::too_late(server.addr(), what, self.command_timeout)
            }
            Failure::Failed(error) => {
                if fault::is_loss(&error) || fault::is_other_role(&error) {
                    self.suspect();
                }
                fault::of_operation(&error, server.addr(), what)
            }
        }
    }

    /// Whether somebody else has the slot by now, as the owner cannot be reached.
    async fn has_successor(&self, slot: Slot, unreached: &Address) -> bool {
        self.refresh().await.is_ok()
            && self.known_owner(slot).is_some_and(|owner| owner != *unreached)
    }

    fn known_owner(&self, slot: Slot) -> Option<Address> {
        let map = self.map();
        let owner = map.owners.get(usize::from(slot.0))?.as_ref()?;
        Some((**owner).clone())
    }

    /// Takes a node's word for who has a slot, which may be one of many that moved.
    fn follow(&self, slot: Slot, owner: &Address) {
        self.suspect();
        if let Some(known) = self.map().owners.get_mut(usize::from(slot.0)) {
            *known = Some(Arc::new(owner.clone()));
        }
    }

    /// Asks all nodes at once who has which slot, and believes the first that answers.
    async fn refresh(&self) -> Result<()> {
        let mut learned = self.learning.lock().await;
        if learned.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(());
        }
        let known: Vec<Address> = {
            let map = self.map();
            map.masters.iter().map(|master| (**master).clone()).collect()
        };
        let strangers = self.seeds.iter().filter(|seed| !known.contains(seed));
        let mut asked = Vec::new();
        for address in known.iter().chain(strangers) {
            asked.push(Box::pin(self.ask(address.clone())));
        }
        let Ok((map, _)) = select_ok(asked).await else { return Err(self.nobody_knows()) };
        self.keep_only(&map);
        *self.map() = map;
        *learned = Some(Instant::now());
        self.suspected.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn ask(&self, address: Address) -> Result<Map, ()> {
        let server = self.server(&address).map_err(drop)?;
        let command = slots();
        let request = Request { command: &command, script: None, asking: false };
        let answer = server.exchange(request, self.connect_timeout).await.map_err(drop)?;
        Map::read(&answer, &address).ok_or(())
    }

    /// Asks a node that nobody knows yet; tells what is wrong with the settings.
    async fn ask_first(&self, seed: &Address, client: &Client) -> Result<Map> {
        let asked = async {
            let mut link = Link::open(client).await?;
            link.send(&slots()).await
        };
        let addr = seed.to_string();
        let answer = match timeout(self.connect_timeout, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_no_cluster(&error) => return Err(fault::is_no_node(&addr)),
            Ok(Err(error)) if fault::is_loss(&error) && !fault::is_refused_login(&error) => {
                return Err(self.unreached(&addr).because(&error));
            }
            Ok(Err(error)) => return Err(fault::of_opening(&error, &addr)),
            Err(_) => return Err(self.unreached(&addr)),
        };
        Map::read(&answer, seed).ok_or_else(|| {
            Error::unavailable(format!(
                "redis at {addr} knows no node that has slots: form the cluster \
                 (`redis-cli --cluster create`)"
            ))
        })
    }

    fn server(&self, address: &Address) -> Result<Arc<Server>> {
        let mut servers = self.servers();
        if let Some(server) = servers.get(address) {
            return Ok(Arc::clone(server));
        }
        let addr = address.to_string();
        let client = self.access.to(address).map_err(|error| {
            Error::unavailable(format!("redis at {addr} cannot be connected to")).because(&error)
        })?;
        let route = Route::Fixed(Box::new(client));
        let server = Arc::new(Server::new(route, addr, self.connect_timeout));
        servers.insert(address.clone(), Arc::clone(&server));
        Ok(server)
    }

    /// Lets go of nodes that have no slots any more.
    fn keep_only(&self, map: &Map) {
        self.servers().retain(|address, _| {
            self.seeds.contains(address) || map.masters.iter().any(|master| **master == *address)
        });
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<Address, Arc<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreached(&self, addr: &str) -> Error {
        Error::unavailable(format!(
            "cannot reach redis at {addr}: start it there, or set persistenceConfig.nodes to where the \
             cluster runs"
        ))
    }

    fn no_owner(&self, Slot(slot): Slot) -> Error {
        Error::unavailable(format!(
            "no node of the cluster of {} has slot {slot}: see `CLUSTER INFO` there",
            self.name
        ))
    }

    fn nobody_knows(&self) -> Error {
        Error::unavailable(format!(
            "no node of the cluster of {} says who has which slot: look whether they run, or set \
             persistenceConfig.nodes to where they do",
            self.name
        ))
    }
}

fn slots() -> Cmd {
    redis::cmd("CLUSTER").arg("SLOTS").clone()
}

fn is_no_cluster(error: &RedisError) -> bool {
    let said = fault::said(error).to_ascii_lowercase();
    said.contains("cluster support disabled") || said.contains("cluster mode is not enabled")
}

/// What an error of `node` means for a call.
fn verdict(error: &RedisError, node: &Address) -> Verdict {
    let redirect = || Address::redirected(error.redirect_node()?.0, node);
    let server = match error.kind() {
        redis::ErrorKind::Server(server) => server,
        _ => return Verdict::Never,
    };
    match server {
        ServerErrorKind::Moved => redirect().map_or(Verdict::NotYet, Verdict::Moved),
        ServerErrorKind::Ask => redirect().map_or(Verdict::NotYet, Verdict::Ask),
        ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown => Verdict::NotYet,
        _ => Verdict::Never,
    }
}

impl Map {
    /// Reads what `CLUSTER SLOTS` answers: ranges of slots, each with its master and that one's replicas.
    /// None if no node has any.
    fn read(answer: &Value, asked: &Address) -> Option<Map> {
        let Value::Array(ranges) = answer else { return None };
        let mut map = Map { owners: vec![None; usize::from(Slot::COUNT)], masters: Vec::new() };
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else {
                return None;
            };
            let [host, Value::Int(port), ..] = &master[..] else { return None };
            let host = match host {
                Value::BulkString(host) => str::from_utf8(host).ok()?,
                Value::SimpleString(host) => host,
                _ => "",
            };
            let host = if matches!(host, "" | "?") { &asked.host } else { host };
            let address = Address { host: host.to_owned(), port: u16::try_from(*port).ok()? };
            let owner = map.master(address);
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            map.owners.get_mut(first..=last)?.fill(Some(owner));
        }
        (!map.masters.is_empty()).then_some(map)
    }

    fn master(&mut self, address: Address) -> Arc<Address> {
        if let Some(known) = self.masters.iter().find(|master| ***master == address) {
            return Arc::clone(known);
        }
        let master = Arc::new(address);
        self.masters.push(Arc::clone(&master));
        master
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)])
    }

    fn range(first: i64, last: i64, node: Value) -> Value {
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    #[test]
    fn slots_without_an_owner_and_nodes_without_a_host_are_understood() {
        let asked = Address { host: "h".into(), port: 1 };
        let answer = Value::Array(vec![
            range(0, 9, node("", 1)),
            range(11, 16_383, node("::1", 2)),
            range(10, 10, node("", 1)),
        ]);
        let map = Map::read(&answer, &asked).unwrap();
        assert_eq!(map.masters.len(), 2);
        assert_eq!(map.owners[10].as_deref(), Some(&asked));
        assert_eq!(map.owners[16_383].as_ref().unwrap().to_string(), "[::1]:2");
        let answer = Value::Array(vec![range(1, 1, node("h", 1))]);
        assert_eq!(Map::read(&answer, &asked).unwrap().owners[0], None);
    }

    #[test]
    fn an_answer_that_is_none_is_not_believed() {
        let asked = Address { host: "h".into(), port: 1 };
        for answer in [
            Value::Okay,
            Value::Array(Vec::new()),
            Value::Array(vec![range(0, 16_384, node("h", 1))]),
            Value::Array(vec![range(0, 1, node("h", 1_000_000))]),
        ] {
            assert!(Map::read(&answer, &asked).is_none(), "{answer:?}");
        }
    }
}
