//! The plugin's settings: `persistenceConfig` of the host's configuration.

use std::{fmt, fs, path::PathBuf, time::Duration};

use codeq_plugin::{Error, Result};
use redis::{ClientTlsConfig, RedisConnectionInfo, RedisError, TlsCertificates};
use serde::Deserialize;

use crate::{access::Access, address::Address};

/// How to reach the server, and how long to wait for it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens, as `host:port`.
    pub addr: String,
    /// The path of the Unix socket that the server listens on; if there is one, `addr` is not used.
    pub socket: String,
    /// Where Sentinels listen, each as `host:port`, which know where the server is; if there are any,
    /// `addr` is not used.
    pub sentinels: Vec<String>,
    /// Where nodes of a cluster listen, each as `host:port`, which know the others; with the key layout
    /// `cluster`.
    pub nodes: Vec<String>,
    /// The name of the master, as the Sentinels know it.
    pub sentinel_master: String,
    /// The user to log in as with the Sentinels; empty for their default user.
    pub sentinel_username: String,
    /// The password for the Sentinels; empty if they ask for none.
    pub sentinel_password: String,
    /// The user to log in as; empty for the server's default user.
    pub username: String,
    /// The password to log in with; empty if the server asks for none.
    pub password: String,
    /// Whether to speak TLS with the server, and with the Sentinels.
    pub tls: bool,
    /// A PEM file of the authorities that may vouch for the server; empty for those of the system.
    pub ca_file: String,
    /// A PEM file with the certificate to show to the server; empty if it asks for none.
    pub cert_file: String,
    /// A PEM file with that certificate's key.
    pub key_file: String,
    /// The number of the database.
    pub db: i64,
    /// How long connecting may take.
    pub connect_timeout_ms: u64,
    /// How long an operation may take, connecting included.
    pub command_timeout_ms: u64,
    /// How many threads drive the connections.
    pub threads: usize,
    /// How keys are named.
    pub key_layout: String,
}

const LONGEST_TIMEOUT_MS: u64 = 600_000;
const MOST_THREADS: usize = 64;

/// Where to look for the server.
#[derive(Debug)]
pub(crate) enum Place {
    Server(Address),
    Socket(PathBuf),
    /// Wherever these Sentinels say that the master of that name is.
    Sentinels {
        addresses: Vec<Address>,
        master: String,
    },
    /// The nodes of a cluster, some of which are these.
    Nodes(Vec<Address>),
}

impl Config {
    /// Checks every setting but the files, and answers where to look for the server.
    pub(crate) fn place(&self) -> Result<Place> {
        let place = self.configured_place()?;
        self.check_tls()?;
        in_range("connectTimeoutMs", self.connect_timeout_ms, 1, LONGEST_TIMEOUT_MS)?;
        in_range("commandTimeoutMs", self.command_timeout_ms, 1, LONGEST_TIMEOUT_MS)?;
        in_range("threads", self.threads, 1, MOST_THREADS)?;
        if self.db < 0 {
            return Err(invalid("db", self.db, "write a number from 0 on"));
        }
        if self.password.is_empty() && !self.username.is_empty() {
            return Err(invalid("username", &self.username, "it needs a `password` beside it"));
        }
        Ok(place)
    }

    /// What the server wants from its clients.
    pub(crate) fn access(&self) -> Result<Access> {
        let login = login(&self.username, &self.password).set_db(self.db);
        Ok(Access { login, tls: self.certificates()? })
    }

    /// What Sentinels want from their clients.
    pub(crate) fn sentinel_access(&self) -> Result<Access> {
        let login = login(&self.sentinel_username, &self.sentinel_password);
        Ok(Access { login, tls: self.certificates()? })
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>> {
        if !self.tls {
            return Ok(None);
        }
        let client_tls = if self.cert_file.is_empty() {
            None
        } else {
            Some(ClientTlsConfig {
                client_cert: read("certFile", &self.cert_file)?,
                client_key: read("keyFile", &self.key_file)?,
            })
        };
        let root_cert = match self.ca_file.as_str() {
            "" => None,
            path => Some(read("caFile", path)?),
        };
        Ok(Some(TlsCertificates { client_tls, root_cert }))
    }

    /// Why no client can be made with these settings.
    pub(crate) fn unusable(&self, error: &RedisError) -> Error {
        let failure = if self.tls {
            "the files of persistenceConfig.caFile, certFile and keyFile cannot be used together: \
             each has to be PEM, and the key the certificate's"
        } else {
            "persistenceConfig leads to no server: see its addr, socket and sentinels"
        };
        Error::invalid_config(failure).because(error)
    }

    /// Checks that the settings of a cluster fit together; answers its nodes if there is one.
    fn cluster(&self) -> Result<Option<Place>> {
        match self.key_layout.as_str() {
            "cluster" => {}
            "codeq" => {
                return match self.nodes.first() {
                    Some(node) => {
                        Err(invalid("nodes", node, "it needs `keyLayout: cluster` beside it"))
                    }
                    None => Ok(None),
                };
            }
            other => return Err(invalid("keyLayout", other, "write `codeq` or `cluster`")),
        }
        let defaults = Config::default();
        let addr = if self.addr == defaults.addr { "" } else { &self.addr };
        let db = if self.db == 0 { String::new() } else { self.db.to_string() };
        let sentinel = self.sentinels.first().map_or("", String::as_str);
        for (key, value) in
            [("addr", addr), ("socket", &self.socket), ("sentinels", sentinel), ("db", &db)]
        {
            if !value.is_empty() {
                let remedy = "leave it out; with `keyLayout: cluster` there are only `nodes`, and \
                              their database 0";
                return Err(invalid(key, value, remedy));
            }
        }
        if self.nodes.is_empty() {
            let remedy = "it needs `nodes` beside it, a list of host:port";
            return Err(invalid("keyLayout", "cluster", remedy));
        }
        Ok(Some(Place::Nodes(addresses("nodes", &self.nodes, "redis-1:6379")?)))
    }

    /// Checks that the settings of Sentinels fit together.
    fn check_sentinels(&self) -> Result<()> {
        let (master, user) = (&self.sentinel_master, &self.sentinel_username);
        let secret = masked(&self.sentinel_password);
        let others = [
            ("sentinelMaster", &**master),
            ("sentinelUsername", user),
            ("sentinelPassword", secret),
        ];
        if self.sentinels.is_empty() {
            return match others.iter().find(|(_, value)| !value.is_empty()) {
                Some((key, value)) => Err(invalid(key, value, "it needs `sentinels` beside it")),
                None => Ok(()),
            };
        }
        if !self.socket.is_empty() {
            let remedy = "Sentinels lead to a host and a port; leave out `socket` or `sentinels`";
            return Err(invalid("socket", &self.socket, remedy));
        }
        if master.is_empty() {
            let remedy = "write the name of the master as in the Sentinels' `sentinel monitor`";
            return Err(invalid("sentinelMaster", master, remedy));
        }
        if secret.is_empty() && !user.is_empty() {
            let remedy = "it needs a `sentinelPassword` beside it";
            return Err(invalid("sentinelUsername", user, remedy));
        }
        Ok(())
    }

    /// Checks that the settings of TLS fit together.
    fn check_tls(&self) -> Result<()> {
        let files =
            [("caFile", &self.ca_file), ("certFile", &self.cert_file), ("keyFile", &self.key_file)];
        if let Some((key, path)) = files.iter().find(|(_, path)| !path.is_empty())
            && !self.tls
        {
            return Err(invalid(key, path, "it needs `tls: true` beside it"));
        }
        if self.tls && !self.socket.is_empty() {
            return Err(invalid(
                "tls",
                self.tls,
                "a Unix socket has none; leave out `socket` or `tls`",
            ));
        }
        match (self.cert_file.is_empty(), self.key_file.is_empty()) {
            (false, true) => {
                Err(invalid("certFile", &self.cert_file, "it needs a `keyFile` beside it"))
            }
            (true, false) => {
                Err(invalid("keyFile", &self.key_file, "it needs a `certFile` beside it"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }

    /// What the server is called in messages.
    pub(crate) fn server(&self) -> String {
        if !self.nodes.is_empty() {
            return self.nodes.join(", ");
        }
        if !self.sentinels.is_empty() {
            let (name, sentinels) = (&self.sentinel_master, self.sentinels.join(", "));
            return format!("master `{name}` of the Sentinels {sentinels}");
        }
        if self.socket.is_empty() { self.addr.clone() } else { self.socket.clone() }
    }

    fn configured_place(&self) -> Result<Place> {
        if let Some(cluster) = self.cluster()? {
            self.check_sentinels()?;
            return Ok(cluster);
        }
        self.check_sentinels()?;
        if !self.sentinels.is_empty() {
            let addresses = addresses("sentinels", &self.sentinels, "sentinel.example.org:26379")?;
            return Ok(Place::Sentinels { addresses, master: self.sentinel_master.clone() });
        }
        if self.socket.is_empty() {
            return Ok(Place::Server(address("addr", &self.addr, "localhost:6379")?));
        }
        if !self.socket.starts_with('/') {
            return Err(invalid("socket", &self.socket, "write the whole path, from `/` on"));
        }
        Ok(Place::Socket(self.socket.clone().into()))
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            addr: "localhost:6379".into(),
            socket: String::new(),
            sentinels: Vec::new(),
            nodes: Vec::new(),
            sentinel_master: String::new(),
            sentinel_username: String::new(),
            sentinel_password: String::new(),
            username: String::new(),
            password: String::new(),
            tls: false,
            ca_file: String::new(),
            cert_file: String::new(),
            key_file: String::new(),
            db: 0,
            connect_timeout_ms: 2_000,
            command_timeout_ms: 3_000,
            threads: 1,
            key_layout: "codeq".into(),
        }
    }
}

/// Written by hand so that no password leaks into a log.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("addr", &self.addr)
            .field("socket", &self.socket)
            .field("sentinels", &self.sentinels)
            .field("nodes", &self.nodes)
            .field("sentinel_master", &self.sentinel_master)
            .field("sentinel_username", &self.sentinel_username)
            .field("sentinel_password", &masked(&self.sentinel_password))
            .field("username", &self.username)
            .field("password", &masked(&self.password))
            .field("tls", &self.tls)
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .field("db", &self.db)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("command_timeout_ms", &self.command_timeout_ms)
            .field("threads", &self.threads)
            .field("key_layout", &self.key_layout)
            .finish()
    }
}

fn masked(secret: &str) -> &'static str {
    if secret.is_empty() { "" } else { "***" }
}

fn login(username: &str, password: &str) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    if !username.is_empty() {
        login = login.set_username(username);
    }
    if !password.is_empty() {
        login = login.set_password(password);
    }
    login
}

fn address(key: &str, text: &str, such_as: &str) -> Result<Address> {
    let remedy = || format!("write host:port, such as `{such_as}`");
    Address::parse(text).ok_or_else(|| invalid(key, text, &remedy()))
}

fn addresses(key: &str, texts: &[String], such_as: &str) -> Result<Vec<Address>> {
    let addresses = texts.iter().enumerate();
    addresses.map(|(n, text)| address(&format!("{key}[{n}]"), text, such_as)).collect()
}

fn read(key: &str, path: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        invalid(key, path, "name a PEM file that the host may read").because(&error)
    })
}

fn in_range<T: PartialOrd + fmt::Display>(key: &str, value: T, least: T, most: T) -> Result<()> {
    if value < least || value > most {
        return Err(invalid(key, value, &format!("write a number from {least} to {most}")));
    }
    Ok(())
}

fn invalid(key: &str, value: impl fmt::Display, remedy: &str) -> Error {
    Error::invalid_config(format!("persistenceConfig.{key} is `{value}`: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(config: Config) -> String {
        config.place().unwrap_err().to_string()
    }

    #[test]
    fn an_empty_configuration_is_the_default_one() {
        let config: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        assert!(config.place().is_ok());
    }

    #[test]
    fn the_defaults_are_those_of_the_schema() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("config.schema.json")).unwrap();
        let defaults = schema["properties"].as_object().unwrap().iter();
        let defaults = defaults.map(|(key, property)| (key.clone(), property["default"].clone()));
        let written = serde_json::Value::Object(defaults.collect());
        let config: Config = serde_json::from_value(written).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        let described = |property: &serde_json::Value| property["description"].is_string();
        assert!(schema["properties"].as_object().unwrap().values().all(described));
    }

    #[test]
    fn passwords_are_not_shown() {
        let config = Config {
            password: "hunter2".into(),
            sentinel_password: "hunter2".into(),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!refusal(config).contains("hunter2"));
    }

    #[test]
    fn a_bad_value_is_refused_by_its_key() {
        for addr in
            ["localhost", "localhost:", ":6379", "h:99999", "redis://h:1", "::1:6379", "h:0"]
        {
            let message = refusal(Config { addr: addr.into(), ..Config::default() });
            assert!(
                message.starts_with(&format!("persistenceConfig.addr is `{addr}`")),
                "{message}"
            );
        }
        assert!(refusal(Config { db: -1, ..Config::default() }).contains("persistenceConfig.db"));
        let config = Config { command_timeout_ms: 0, ..Config::default() };
        assert!(refusal(config).contains("persistenceConfig.commandTimeoutMs is `0`"));
        let config = Config { socket: "redis.sock".into(), ..Config::default() };
        assert!(refusal(config).contains("persistenceConfig.socket is `redis.sock`"));
        let config = Config { ca_file: "ca.pem".into(), ..Config::default() };
        assert!(
            refusal(config).contains("persistenceConfig.caFile is `ca.pem`: it needs `tls: true`")
        );
        let config = Config { tls: true, cert_file: "c.pem".into(), ..Config::default() };
        assert!(
            refusal(config).contains("persistenceConfig.certFile is `c.pem`: it needs a `keyFile`")
        );
        let config = Config { tls: true, key_file: "k.pem".into(), ..Config::default() };
        assert!(
            refusal(config).contains("persistenceConfig.keyFile is `k.pem`: it needs a `certFile`")
        );
        let config = Config { tls: true, socket: "/s".into(), ..Config::default() };
        assert!(refusal(config).contains("persistenceConfig.tls is `true`"));
        let config = Config { key_layout: "other".into(), ..Config::default() };
        assert!(refusal(config).contains("persistenceConfig.keyLayout is `other`"));
    }

    #[test]
    fn sentinels_go_with_the_name_of_a_master_and_without_a_socket() {
        let watched = || Config {
            sentinels: vec!["s1:26379".into(), "[::1]:26379".into()],
            sentinel_master: "tasks".into(),
            ..Config::default()
        };
        let Place::Sentinels { addresses, master } = watched().place().unwrap() else { panic!() };
        assert_eq!((addresses.len(), addresses[1].port, master.as_str()), (2, 26379, "tasks"));
        assert_eq!(watched().server(), "master `tasks` of the Sentinels s1:26379, [::1]:26379");

        let config = Config { sentinels: vec!["s1:1".into(), "s2".into()], ..watched() };
        assert!(refusal(config).starts_with("persistenceConfig.sentinels[1] is `s2`: write host:"));
        let config = Config { sentinel_master: String::new(), ..watched() };
        assert!(
            refusal(config).starts_with("persistenceConfig.sentinelMaster is ``: write the na")
        );
        let config = Config { socket: "/redis.sock".into(), ..watched() };
        assert!(
            refusal(config).starts_with("persistenceConfig.socket is `/redis.sock`: Sentinels")
        );
        let config = Config { sentinel_username: "u".into(), ..watched() };
        assert!(refusal(config).contains("sentinelUsername is `u`: it needs a `sentinelPassword`"));
        for (key, config) in [
            ("Master", Config { sentinel_master: "x".into(), ..Config::default() }),
            ("Username", Config { sentinel_username: "x".into(), ..Config::default() }),
            ("Password", Config { sentinel_password: "x".into(), ..Config::default() }),
        ] {
            let said = refusal(config);
            assert!(said.starts_with(&format!("persistenceConfig.sentinel{key} is ")), "{said}");
            assert!(said.ends_with("it needs `sentinels` beside it"), "{said}");
        }
    }

    #[test]
    fn a_cluster_goes_with_its_nodes_and_nothing_else() {
        let cluster = || Config {
            key_layout: "cluster".into(),
            nodes: vec!["n1:6379".into(), "[::1]:6379".into()],
            ..Config::default()
        };
        let Place::Nodes(addresses) = cluster().place().unwrap() else { panic!() };
        assert_eq!((addresses.len(), addresses[1].port), (2, 6379));
        assert_eq!(cluster().server(), "n1:6379, [::1]:6379");

        let config = Config { nodes: vec!["n1:1".into(), "n2".into()], ..cluster() };
        assert!(refusal(config).starts_with("persistenceConfig.nodes[1] is `n2`: write host:port"));
        let config = Config { nodes: Vec::new(), ..cluster() };
        assert!(
            refusal(config).starts_with("persistenceConfig.keyLayout is `cluster`: it needs `no")
        );
        let config = Config { key_layout: "codeq".into(), ..cluster() };
        assert!(
            refusal(config).starts_with("persistenceConfig.nodes is `n1:6379`: it needs `keyLa")
        );
        for (key, config) in [
            ("addr", Config { addr: "h:1".into(), ..cluster() }),
            ("socket", Config { socket: "/s".into(), ..cluster() }),
            ("sentinels", Config { sentinels: vec!["s:1".into()], ..cluster() }),
            ("db", Config { db: 1, ..cluster() }),
            ("sentinelMaster", Config { sentinel_master: "m".into(), ..cluster() }),
        ] {
            let said = refusal(config);
            assert!(said.starts_with(&format!("persistenceConfig.{key} is ")), "{said}");
        }
    }
}
