//! A master, its replicas, and the Sentinels that watch over them.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use redis::{Client, Cmd, Connection, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo};

use crate::Redis;

/// A master with two replicas, and three Sentinels, two of which have to agree on a failover.
pub struct SentinelGroup {
    servers: Vec<Redis>,
    sentinels: Vec<Redis>,
    passwords: Passwords,
}

#[derive(Default)]
struct Passwords {
    servers: String,
    sentinels: String,
}

/// How long whatever a test waits for may take on a busy machine.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

impl SentinelGroup {
    /// What the Sentinels call the master.
    pub const MASTER: &str = "tasks";

    /// Starts a group that asks nobody for a password.
    pub fn start() -> SentinelGroup {
        SentinelGroup::launch(Passwords::default())
    }

    /// Starts a group whose servers and Sentinels each have a password.
    pub fn start_guarded(servers: &str, sentinels: &str) -> SentinelGroup {
        SentinelGroup::launch(Passwords { servers: servers.into(), sentinels: sentinels.into() })
    }

    fn launch(passwords: Passwords) -> SentinelGroup {
        let master = server(&passwords, None);
        let replicas = [server(&passwords, Some(&master)), server(&passwords, Some(&master))];
        let sentinels = (0..3).map(|_| sentinel(&passwords, &master)).collect();
        let servers = [master].into_iter().chain(replicas).collect();
        let group = SentinelGroup { servers, sentinels, passwords };
        group.wait_until_whole();
        group
    }

    /// Where the Sentinels listen, as `127.0.0.1:port`.
    pub fn sentinels(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::addr).collect()
    }

    /// One of the Sentinels.
    pub fn sentinel(&mut self, index: usize) -> &mut Redis {
        &mut self.sentinels[index]
    }

    /// Where the master is on which all Sentinels agree that run.
    pub fn master(&self) -> String {
        wait_for("the Sentinels' agreement on a master", || self.agreed_master())
    }

    /// A connection to the server at `addr`.
    pub fn connection(&self, addr: &str) -> Connection {
        connection(addr, &self.passwords.servers).expect("a connection to a server of the group")
    }

    /// Kills the master as a crash would; answers where it was.
    pub fn kill_master(&mut self) -> String {
        let addr = self.master();
        self.server(&addr).kill();
        addr
    }

    /// Starts a server again that was killed, as what it was when it ended.
    pub fn restart(&mut self, addr: &str) {
        self.server(addr).restart();
    }

    /// Has the Sentinels make another server the master, although this one works.
    pub fn fail_over(&self) {
        let begin = redis::cmd("SENTINEL").arg("FAILOVER").arg(Self::MASTER).clone();
        wait_for("a Sentinel that begins a failover", || {
            self.sentinels.iter().find_map(|sentinel| self.ask::<()>(sentinel, &begin))
        });
    }

    /// Waits until all Sentinels agree on a master other than that at `addr`; answers where it is.
    pub fn wait_for_successor(&self, addr: &str) -> String {
        wait_for("another master", || self.agreed_master().filter(|master| master != addr))
    }

    /// Waits until the server at `addr` is a replica with a link to its master.
    pub fn wait_until_replica(&self, addr: &str) {
        wait_for("a replica with a link to its master", || {
            let mut server = connection(addr, &self.passwords.servers)?;
            let info: String = redis::cmd("INFO").arg("replication").query(&mut server).ok()?;
            info.contains("master_link_status:up").then_some(())
        });
    }

    /// Waits until both replicas have all that the master has written by now.
    pub fn wait_for_replicas(&self) {
        let mut master = self.connection(&self.master());
        let mut role = || -> (String, u64, Vec<(String, String, u64)>) {
            redis::cmd("ROLE").query(&mut master).expect("the role of the master")
        };
        let (_, written, _) = role();
        wait_for("replicas that have caught up", || {
            let (_, _, replicas) = role();
            let caught_up = replicas.iter().filter(|(_, _, has)| *has >= written).count();
            (caught_up + 1 == self.servers.len()).then_some(())
        });
    }

    /// Has the Sentinels look and talk more often than every few seconds, and so set a former master
    /// right sooner. Those before Redis 7 cannot, and take their time.
    pub fn hurry(&self) {
        let often = ["DEBUG", "publish-period", "250", "info-period", "250"];
        let hurry = redis::cmd("SENTINEL").arg(&often).clone();
        for sentinel in &self.sentinels {
            let _ = self.ask::<()>(sentinel, &hurry);
        }
    }

    /// Waits until every Sentinel knows the others and the replicas, without which none is elected.
    fn wait_until_whole(&self) {
        for replica in &self.servers[1..] {
            self.wait_until_replica(&replica.addr());
        }
        let about = redis::cmd("SENTINEL").arg("MASTER").arg(Self::MASTER).clone();
        for sentinel in &self.sentinels {
            wait_for("a Sentinel that knows all others", || {
                let known: HashMap<String, String> = self.ask(sentinel, &about)?;
                let all = known["num-slaves"] == "2" && known["num-other-sentinels"] == "2";
                all.then_some(())
            });
        }
    }

    /// The one master of all Sentinels that run, if it says that it is one.
    fn agreed_master(&self) -> Option<String> {
        let named = redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(Self::MASTER).clone();
        let mut running = self.sentinels.iter().filter(|sentinel| sentinel.runs());
        let named = |sentinel| self.ask::<(String, u16)>(sentinel, &named);
        let first = named(running.next()?)?;
        if !running.all(|sentinel| named(sentinel).as_ref() == Some(&first)) {
            return None;
        }
        let addr = format!("{}:{}", first.0, first.1);
        let mut server = connection(&addr, &self.passwords.servers)?;
        let role: Vec<redis::Value> = redis::cmd("ROLE").query(&mut server).ok()?;
        let is_master = role.first() == Some(&redis::Value::BulkString(b"master".into()));
        is_master.then_some(addr)
    }

    fn ask<T: FromRedisValue>(&self, sentinel: &Redis, command: &Cmd) -> Option<T> {
        command.query(&mut connection(&sentinel.addr(), &self.passwords.sentinels)?).ok()
    }

    fn server(&mut self, addr: &str) -> &mut Redis {
        let server = self.servers.iter_mut().find(|server| server.addr() == addr);
        server.expect("a server of the group")
    }
}

/// Starts a server of the group. What Sentinels change later is in its file, which they have rewritten.
fn server(passwords: &Passwords, master: Option<&Redis>) -> Redis {
    let mut file = String::from("save \"\"\nrepl-diskless-sync-delay 0\n");
    if let Some((host, port)) = master.map(place) {
        file += &format!("replicaof {host} {port}\n");
    }
    if !passwords.servers.is_empty() {
        let password = &passwords.servers;
        file += &format!("requirepass \"{password}\"\nmasterauth \"{password}\"\n");
    }
    Redis::start_configured(&file, &[])
}

/// Starts a Sentinel that watches over `master`, and is quick to give it up.
fn sentinel(passwords: &Passwords, master: &Redis) -> Redis {
    let (name, (host, port)) = (SentinelGroup::MASTER, place(master));
    let mut file = format!(
        "sentinel monitor {name} {host} {port} 2\n\
         sentinel down-after-milliseconds {name} 700\n\
         sentinel failover-timeout {name} 3000\n\
         sentinel parallel-syncs {name} 2\n"
    );
    if !passwords.servers.is_empty() {
        file += &format!("sentinel auth-pass {name} \"{}\"\n", passwords.servers);
    }
    if !passwords.sentinels.is_empty() {
        file += &format!("requirepass \"{}\"\n", passwords.sentinels);
    }
    Redis::start_configured(&file, &["--sentinel"])
}

fn place(server: &Redis) -> (String, String) {
    let addr = server.addr();
    let (host, port) = addr.rsplit_once(':').expect("host:port");
    (host.to_owned(), port.to_owned())
}

fn connection(addr: &str, password: &str) -> Option<Connection> {
    let mut login = RedisConnectionInfo::default();
    if !password.is_empty() {
        login = login.set_password(password);
    }
    let info = format!("redis://{addr}/").into_connection_info().ok()?.set_redis_settings(login);
    let patience = Duration::from_secs(2);
    let connection = Client::open(info).ok()?.get_connection_with_timeout(patience).ok()?;
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
