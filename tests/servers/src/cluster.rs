//! A cluster of servers that share slots among them.

use std::{
    collections::BTreeMap,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use redis::{Client, Cmd, Connection, FromRedisValue, Value};

use crate::Redis;

/// Three masters, each with a replica if it was started so.
pub struct Cluster {
    servers: Vec<Redis>,
    masters: usize,
}

/// A node as another one knows it.
struct Node {
    id: String,
    addr: String,
    is_master: bool,
    is_healthy: bool,
    slots: Vec<Range<u16>>,
}

const SLOTS: u16 = 16_384;
/// How long whatever a test waits for may take on a busy machine.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Starts three masters.
    pub fn start() -> Cluster {
        Cluster::launch(3, 0, "")
    }

    /// Starts one master that has everything.
    pub fn start_single() -> Cluster {
        Cluster::launch(1, 0, "")
    }

    /// Starts three masters, each with a replica that takes over when it dies.
    pub fn start_with_replicas() -> Cluster {
        Cluster::launch(3, 3, "")
    }

    /// Starts three masters that ask for a password.
    pub fn start_guarded(password: &str) -> Cluster {
        Cluster::launch(3, 0, password)
    }

    fn launch(masters: usize, replicas: usize, password: &str) -> Cluster {
        // Servers of a cluster start together, as each waits for the others.
        let servers = (0..masters + replicas).map(|_| server()).collect();
        let cluster = Cluster { servers, masters };
        cluster.form();
        if !password.is_empty() {
            for server in &cluster.servers {
                ask::<()>(
                    &server.addr(),
                    redis::cmd("CONFIG").arg(&["SET", "requirepass", password]),
                );
            }
        }
        cluster
    }

    /// Where the servers listen, as `127.0.0.1:port`.
    pub fn nodes(&self) -> Vec<String> {
        self.servers.iter().map(Redis::addr).collect()
    }

    /// A connection to the server at `addr`.
    pub fn connection(&self, addr: &str) -> Connection {
        connection(addr).expect("a connection to a server of the cluster")
    }

    /// Asks whoever has a key, following its word for who that is.
    pub fn query<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> T {
        wait_for("an answer about a key", || {
            ask(&self.owner(slot_of(&self.running().addr(), key)), command)
        })
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        slot_of(&self.running().addr(), key)
    }

    /// Where the master is that has a slot.
    pub fn owner(&self, slot: u16) -> String {
        wait_for("a master with that slot", || {
            let nodes = nodes(&self.running().addr())?.into_iter();
            let mut owners =
                nodes.filter(|node| node.slots.iter().any(|range| range.contains(&slot)));
            owners.find(|node| node.is_master && node.is_healthy).map(|node| node.addr)
        })
    }

    /// Kills a server as a crash would.
    pub fn kill(&mut self, addr: &str) {
        self.server(addr).kill();
    }

    /// Starts a server again that was killed, without what it had.
    pub fn restart(&mut self, addr: &str) {
        self.server(addr).restart();
    }

    /// Stops a server's clock.
    pub fn hang(&mut self, addr: &str) {
        self.server(addr).hang();
    }

    /// Lets a hung server go on.
    pub fn resume(&mut self, addr: &str) {
        self.server(addr).resume();
    }

    /// Waits until somebody else has a slot than the server at `addr`; answers where that is.
    pub fn wait_for_successor(&self, slot: u16, addr: &str) -> String {
        wait_for("another master with that slot", || {
            Some(self.owner(slot)).filter(|owner| owner != addr)
        })
    }

    /// Waits until all servers that run agree that the cluster works.
    pub fn wait_until_ok(&self) {
        for server in self.servers.iter().filter(|server| server.runs()) {
            wait_for("a cluster that works", || is_ok(&server.addr()).then_some(()));
        }
    }

    /// Waits until all replicas have what their masters have written by now.
    pub fn wait_for_replicas(&self) {
        type Role = (String, u64, Vec<(String, String, u64)>);
        for server in &self.servers {
            let role = redis::cmd("ROLE");
            let Some((_, written, _)) = ask::<Role>(&server.addr(), &role) else { continue };
            wait_for("a replica that has caught up", || {
                let (_, _, replicas) = ask::<Role>(&server.addr(), &role)?;
                replicas.iter().any(|(_, _, has)| *has >= written).then_some(())
            });
        }
    }

    /// Moves a slot with all that is in it to the server at `to`.
    pub fn move_slot(&self, slot: u16, to: &str) {
        if self.owner(slot) == to {
            return;
        }
        self.begin_moving(slot, to);
        self.move_keys(slot, to);
        self.end_moving(slot, to);
    }

    /// Has a slot on its way to the server at `to`, with none of its keys.
    pub fn begin_moving(&self, slot: u16, to: &str) {
        let from = self.owner(slot);
        self.set_slot(to, slot, "IMPORTING", &from);
        self.set_slot(&from, slot, "MIGRATING", to);
    }

    /// Moves the keys of a slot that is on its way.
    pub fn move_keys(&self, slot: u16, to: &str) {
        let from = self.owner(slot);
        let (_, port) = to.rsplit_once(':').expect("host:port");
        loop {
            let mut some = redis::cmd("CLUSTER");
            let keys: Vec<Vec<u8>> = ask(&from, some.arg("GETKEYSINSLOT").arg(slot).arg(10))
                .expect("the keys of the slot");
            if keys.is_empty() {
                return;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg(&["127.0.0.1", port, "", "0", "5000", "KEYS"]).arg(keys);
            ask::<()>(&from, &migrate).expect("keys that can be moved");
        }
    }

    /// Makes the server at `to` the master of a slot whose keys it has.
    pub fn end_moving(&self, slot: u16, to: &str) {
        let from = self.owner(slot);
        self.set_slot(to, slot, "NODE", to);
        self.set_slot(&from, slot, "NODE", to);
    }

    fn set_slot(&self, at: &str, slot: u16, state: &str, node: &str) {
        let id: String = ask(node, redis::cmd("CLUSTER").arg("MYID")).expect("the id of a node");
        let mut set = redis::cmd("CLUSTER");
        set.arg("SETSLOT").arg(slot).arg(state).arg(id);
        ask::<()>(at, &set).expect("a slot that can be set");
    }

    fn form(&self) {
        let (masters, replicas) = self.servers.split_at(self.masters);
        let share = usize::from(SLOTS) / masters.len();
        for (n, master) in masters.iter().enumerate() {
            let from = n * share;
            let to = if n + 1 == masters.len() { usize::from(SLOTS) } else { from + share };
            let mut add = redis::cmd("CLUSTER");
            add.arg("ADDSLOTS").arg((from..to).collect::<Vec<_>>());
            ask::<()>(&master.addr(), &add).expect("slots that are free");
            let mut epoch = redis::cmd("CLUSTER");
            ask::<()>(&master.addr(), epoch.arg("SET-CONFIG-EPOCH").arg(n + 1)).expect("an epoch");
        }
        let first = masters[0].addr();
        for server in &self.servers[1..] {
            let addr = server.addr();
            let (host, port) = addr.rsplit_once(':').expect("host:port");
            let mut meet = redis::cmd("CLUSTER");
            ask::<()>(&first, meet.arg(&["MEET", host, port])).expect("a meeting");
        }
        for server in &self.servers {
            wait_for("a node that knows all others", || {
                let known = nodes(&server.addr())?;
                let all = known.len() == self.servers.len();
                (all && known.iter().all(|node| node.is_healthy)).then_some(())
            });
        }
        let ids: BTreeMap<_, _> = nodes(&first)
            .expect("the nodes")
            .into_iter()
            .map(|node| (node.addr, node.id))
            .collect();
        for (replica, master) in replicas.iter().zip(masters) {
            let mut replicate = redis::cmd("CLUSTER");
            replicate.arg("REPLICATE").arg(&ids[&master.addr()]);
            ask::<()>(&replica.addr(), &replicate).expect("a replica");
        }
        for replica in replicas {
            wait_for("a replica with a link to its master", || {
                let info: String = ask(&replica.addr(), redis::cmd("INFO").arg("replication"))?;
                info.contains("master_link_status:up").then_some(())
            });
        }
        self.wait_until_ok();
    }

    fn running(&self) -> &Redis {
        // Whoever hangs or starts anew knows least.
        let mut running = self.servers.iter().filter(|server| server.runs());
        running.find(|server| is_ok(&server.addr())).unwrap_or_else(|| {
            self.servers.iter().find(|server| server.runs()).expect("a server that runs")
        })
    }

    fn server(&mut self, addr: &str) -> &mut Redis {
        let server = self.servers.iter_mut().find(|server| server.addr() == addr);
        server.expect("a server of the cluster")
    }
}

/// Starts a server that is to be a node.
fn server() -> Redis {
    let file = "save \"\"\n\
                repl-diskless-sync-delay 0\n\
                cluster-enabled yes\n\
                cluster-node-timeout 2000\n\
                cluster-replica-validity-factor 0\n";
    Redis::start_configured(file, &[])
}

fn is_ok(addr: &str) -> bool {
    let info: Option<String> = ask(addr, redis::cmd("CLUSTER").arg("INFO"));
    info.is_some_and(|info| info.contains("cluster_state:ok"))
}

fn slot_of(addr: &str, key: &str) -> u16 {
    ask(addr, redis::cmd("CLUSTER").arg("KEYSLOT").arg(key)).expect("the slot of a key")
}

/// The nodes that one of them knows.
fn nodes(addr: &str) -> Option<Vec<Node>> {
    let text: String = ask(addr, redis::cmd("CLUSTER").arg("NODES"))?;
    text.lines().map(node).collect()
}

/// Reads a node: its id, its address and bus, its flags, its master, three numbers, the state of the link to
/// it, its slots.
fn node(line: &str) -> Option<Node> {
    let parts: Vec<&str> = line.split(' ').collect();
    let (addr, _) = parts.get(1)?.split_once('@')?;
    let flags: Vec<&str> = parts.get(2)?.split(',').collect();
    let broken = ["fail", "fail?", "handshake", "noaddr"];
    let slots = parts.get(8..)?.iter().filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..last.parse::<u16>().ok()? + 1)
    });
    Some(Node {
        id: (*parts.first()?).to_owned(),
        addr: addr.to_owned(),
        is_master: flags.contains(&"master"),
        is_healthy: !flags.iter().any(|flag| broken.contains(flag)),
        slots: slots.collect(),
    })
}

fn ask<T: FromRedisValue>(addr: &str, command: &Cmd) -> Option<T> {
    let answer: Value = command.query(&mut connection(addr)?).ok()?;
    redis::from_redis_value(answer).ok()
}

fn connection(addr: &str) -> Option<Connection> {
    let patience = Duration::from_secs(2);
    let client = Client::open(format!("redis://{addr}/")).ok()?;
    let connection = client.get_connection_with_timeout(patience).ok()?;
    connection.set_read_timeout(Some(patience)).ok()?;
    Some(connection)
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {WAIT_LIMIT:?} in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
