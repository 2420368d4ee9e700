//! The plugin's settings: `persistenceConfig` of the host's configuration.

use std::{fmt, fs, time::Duration};

use codeq_plugin::{Error, Result};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, TlsCertificates,
};
use serde::Deserialize;

use crate::fault;

/// How to reach the server, and how long to wait for it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens, as `host:port`.
    pub addr: String,
    /// The path of the Unix socket that the server listens on; if there is one, `addr` is not used.
    pub socket: String,
    /// The user to log in as; empty for the server's default user.
    pub username: String,
    /// The password to log in with; empty if the server asks for none.
    pub password: String,
    /// Whether to speak TLS with the server.
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

impl Config {
    /// Checks every setting, and answers how to reach the server.
    pub(crate) fn connection_info(&self) -> Result<ConnectionInfo> {
        let place = self.place()?;
        self.check_tls()?;
        in_range("connectTimeoutMs", self.connect_timeout_ms, 1, LONGEST_TIMEOUT_MS)?;
        in_range("commandTimeoutMs", self.command_timeout_ms, 1, LONGEST_TIMEOUT_MS)?;
        in_range("threads", self.threads, 1, MOST_THREADS)?;
        if self.db < 0 {
            return Err(invalid("db", self.db, "write a number from 0 on"));
        }
        if self.key_layout != "codeq" {
            return Err(invalid("keyLayout", &self.key_layout, "write `codeq`"));
        }
        if self.password.is_empty() && !self.username.is_empty() {
            return Err(invalid("username", &self.username, "it needs a `password` beside it"));
        }
        let mut login = RedisConnectionInfo::default().set_db(self.db).set_skip_set_lib_name();
        if !self.username.is_empty() {
            login = login.set_username(&self.username);
        }
        if !self.password.is_empty() {
            login = login.set_password(&self.password);
        }
        let info = place
            .into_connection_info()
            .map_err(|error| invalid("addr", self.server(), "write host:port").because(&error))?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        Ok(info.set_redis_settings(login).set_tcp_settings(tcp))
    }

    /// The way to the server.
    pub(crate) fn client(&self) -> Result<Client> {
        let info = self.connection_info()?;
        if !self.tls {
            return Client::open(info).map_err(|error| fault::of_opening(&error, self.server()));
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
        let files = TlsCertificates { client_tls, root_cert };
        Client::build_with_tls(info, files).map_err(|error| {
            Error::invalid_config(
                "the files of persistenceConfig.caFile, certFile and keyFile cannot be used together: \
                 each has to be PEM, and the key the certificate's",
            )
            .because(&error)
        })
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
    pub(crate) fn server(&self) -> &str {
        if self.socket.is_empty() { &self.addr } else { &self.socket }
    }

    fn place(&self) -> Result<ConnectionAddr> {
        if self.socket.is_empty() {
            let (host, port) = self.host_and_port()?;
            return Ok(match self.tls {
                true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
                false => ConnectionAddr::Tcp(host, port),
            });
        }
        if !self.socket.starts_with('/') {
            return Err(invalid("socket", &self.socket, "write the whole path, from `/` on"));
        }
        Ok(ConnectionAddr::Unix(self.socket.clone().into()))
    }

    fn host_and_port(&self) -> Result<(String, u16)> {
        let wrong = || invalid("addr", &self.addr, "write host:port, such as `localhost:6379`");
        let (host, port) = self.addr.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let plain = !host.is_empty() && !host.contains(['/', '@', ' ']);
        let unbracketed_ipv6 = bracketed.is_none() && host.contains(':');
        if !plain || unbracketed_ipv6 {
            return Err(wrong());
        }
        Ok((host.to_owned(), port))
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            addr: "localhost:6379".into(),
            socket: String::new(),
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

/// Written by hand so that the password does not leak into a log.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = if self.password.is_empty() { "" } else { "***" };
        f.debug_struct("Config")
            .field("addr", &self.addr)
            .field("socket", &self.socket)
            .field("username", &self.username)
            .field("password", &password)
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
        config.connection_info().unwrap_err().to_string()
    }

    #[test]
    fn an_empty_configuration_is_the_default_one() {
        let config: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        assert!(config.connection_info().is_ok());
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
    fn the_password_is_not_shown() {
        let config = Config { password: "hunter2".into(), ..Config::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
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
        let config = Config { key_layout: "cluster".into(), ..Config::default() };
        assert!(refusal(config).contains("persistenceConfig.keyLayout is `cluster`"));
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let config = Config { addr: "[::1]:6379".into(), ..Config::default() };
        assert_eq!(config.connection_info().unwrap().addr().to_string(), "::1:6379");
    }
}
