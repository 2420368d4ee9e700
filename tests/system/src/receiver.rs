//! A receiver of webhooks.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::PATIENCE;

/// An HTTP server of this process that remembers how it was called.
pub struct Receiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

/// A call of a webhook.
#[derive(Clone, Debug)]
pub struct Received {
    /// The path, with its query.
    pub path: String,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it was sent.
    pub body: String,
    /// When it came.
    pub at: Instant,
}

/// How a receiver answers.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// With a status.
    Status(u16),
    /// With a redirect to a URL.
    Redirect(String),
    /// With more than anybody wants to read.
    Endless,
    /// Not at all, and the connection stays open.
    Hang,
    /// Not at all, and the connection is closed.
    Close,
}

/// Chooses the answer to a call, told how many calls came before it.
type React = dyn Fn(&Received, usize) -> Reaction + Send + Sync;

struct Shared {
    react: Box<React>,
    received: Mutex<Vec<Received>>,
    changed: Condvar,
}

impl Received {
    /// The body, which has to be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Receiver {
    /// A receiver that answers 200.
    pub fn start() -> Receiver {
        Receiver::reacting(|_, _| Reaction::Status(200))
    }

    /// A receiver that answers each call as `react` says, which is told how many came before.
    pub fn reacting(
        react: impl Fn(&Received, usize) -> Reaction + Send + Sync + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            react: Box::new(react),
            received: Mutex::default(),
            changed: Condvar::new(),
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&server);
                thread::spawn(move || shared.serve(connection));
            }
        });
        Receiver { addr, shared }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A URL of its own.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The calls so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.lock().clone()
    }

    /// Waits for so many calls in all, and answers those that came.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        self.wait_until(&format!("{count} calls"), |received| received.len() >= count)
    }

    /// Waits until the calls that came are as they should be.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut received = self.shared.lock();
        while !is_so(&received) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}: {received:#?}");
            received = self.shared.changed.wait_timeout(received, left).unwrap().0;
        }
        received.clone()
    }

    /// Makes sure that no more than so many calls come for a while. That nothing happens, nobody tells.
    pub fn stays_at(&self, count: usize, quiet: Duration) {
        thread::sleep(quiet);
        let received = self.received();
        assert_eq!(received.len(), count, "{received:#?}");
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().unwrap()
    }

    fn serve(&self, connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        while let Some(received) = read(&mut reader) {
            let reaction = {
                let mut all = self.lock();
                let reaction = (self.react)(&received, all.len());
                all.push(received);
                self.changed.notify_all();
                reaction
            };
            if !answer(&connection, &reaction) {
                return;
            }
        }
    }
}

/// Answers whether the connection can be used again.
fn answer(mut connection: &TcpStream, reaction: &Reaction) -> bool {
    let head = |status: u16, more: &str| format!("HTTP/1.1 {status} Said\r\n{more}\r\n");
    match reaction {
        Reaction::Status(status) => {
            let head = head(*status, "Content-Length: 2\r\n");
            connection.write_all(format!("{head}ok").as_bytes()).is_ok()
        }
        Reaction::Redirect(to) => {
            let head = head(307, &format!("Location: {to}\r\nContent-Length: 0\r\n"));
            connection.write_all(head.as_bytes()).is_ok()
        }
        Reaction::Endless => {
            let _ = connection.write_all(head(200, "Transfer-Encoding: chunked\r\n").as_bytes());
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while connection.write_all(chunk.as_bytes()).is_ok() {}
            false
        }
        Reaction::Hang => {
            // Until the caller gives up.
            let _ = connection.read(&mut [0]);
            false
        }
        Reaction::Close => false,
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Received { path, headers, body, at: Instant::now() })
}
