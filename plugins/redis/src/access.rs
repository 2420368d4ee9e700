//! How to speak with servers, wherever they are: the login, and TLS.

use std::path::Path;

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates,
};

use crate::address::Address;

/// What servers of one kind want from their clients.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) login: RedisConnectionInfo,
    /// None without TLS.
    pub(crate) tls: Option<TlsCertificates>,
}

impl Access {
    /// A client of the server at `address`.
    pub(crate) fn to(&self, address: &Address) -> Result<Client, RedisError> {
        let Address { host, port } = address.clone();
        let Some(files) = &self.tls else {
            return Client::open(self.info(ConnectionAddr::Tcp(host, port))?);
        };
        let place = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        Client::build_with_tls(self.info(place)?, files.clone())
    }

    /// A client of the server at a Unix socket, which has no TLS.
    pub(crate) fn to_socket(&self, path: &Path) -> Result<Client, RedisError> {
        Client::open(self.info(ConnectionAddr::Unix(path.into()))?)
    }

    fn info(&self, place: ConnectionAddr) -> Result<ConnectionInfo, RedisError> {
        let info = place.into_connection_info()?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        Ok(info.set_redis_settings(self.login.clone()).set_tcp_settings(tcp))
    }
}
