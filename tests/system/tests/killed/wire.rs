//! A connection that is kept alive, and tells an answer from the beginning of one.

use std::{
    io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

/// A host that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
    token: &'static str,
}

impl Wire {
    /// Connects, for a caller with this token.
    pub(crate) fn connect(addr: &str, token: &'static str) -> Result<Wire> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Wire { stream: BufReader::new(stream), token })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<(u16, Value)> {
        self.send("GET", path, "")
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<(u16, Value)> {
        self.send("POST", path, &body.to_string())
    }

    /// Only an answer that has come to its end is one.
    fn send(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        let (token, length) = (self.token, body.len());
        let request = format!(
            "{method} /v1/codeq{path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| broken("no status"))?;
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().map_err(|_| broken("no length"))?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if body.is_empty() {
            return Ok((status, Value::Null));
        }
        let body = serde_json::from_slice(&body).map_err(|_| broken("no JSON"))?;
        Ok((status, body))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
