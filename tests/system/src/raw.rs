//! HTTP as it goes over the wire, for requests that no well-behaved client sends.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::Host;

/// A connection to a host.
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    pub fn connect(host: &Host) -> Raw {
        Raw::try_connect(host).expect("the host takes connections")
    }

    /// Connects, if the host takes connections.
    pub fn try_connect(host: &Host) -> Option<Raw> {
        let connection = TcpStream::connect(host.addr()).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        connection.set_nodelay(true).unwrap();
        Some(Raw(connection))
    }

    /// Sends bytes as far as the host takes them.
    pub fn send(&mut self, bytes: &[u8]) {
        // A host that has heard enough closes the connection; its answer is there all the same.
        let _ = self.0.write_all(bytes);
    }

    /// Sends a POST, of which the body is this long.
    pub fn post(&mut self, path: &str, length: usize, body: &[u8]) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat());
    }

    /// Tells the host that nothing more comes.
    pub fn end(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    /// Reads until the host closes the connection. Answers the status, 0 if there is none, and the
    /// text with its headers.
    pub fn read(mut self) -> (u16, String) {
        let mut bytes = Vec::new();
        // A reset ends it as well.
        let _ = self.0.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, text)
    }
}
