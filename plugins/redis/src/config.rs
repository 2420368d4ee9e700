//! The plugin's settings: `persistenceConfig` of the host's configuration.

use std::{fmt, time::Duration};

use codeq_plugin::{Error, Result};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use serde::Deserialize;

/// How to reach the server, and how long to wait for it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens, as `host:port`.
    pub addr: String,
    /// The user to log in as; empty for the server's default user.
    pub username: String,
    /// The password to log in with; empty if the server asks for none.
    pub password: String,
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
        let (host, port) = self.host_and_port()?;
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
        let info = ConnectionAddr::Tcp(host, port)
            .into_connection_info()
            .map_err(|error| invalid("addr", &self.addr, "write host:port").because(&error))?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        Ok(info.set_redis_settings(login).set_tcp_settings(tcp))
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
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
            username: String::new(),
            password: String::new(),
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
            .field("username", &self.username)
            .field("password", &password)
            .field("db", &self.db)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("command_timeout_ms", &self.command_timeout_ms)
            .field("threads", &self.threads)
            .field("key_layout", &self.key_layout)
            .finish()
    }
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
        let config = Config { key_layout: "cluster".into(), ..Config::default() };
        assert!(refusal(config).contains("persistenceConfig.keyLayout is `cluster`"));
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let config = Config { addr: "[::1]:6379".into(), ..Config::default() };
        assert_eq!(config.connection_info().unwrap().addr().to_string(), "::1:6379");
    }
}
