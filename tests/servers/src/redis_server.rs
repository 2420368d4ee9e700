//! One redis-server: its start, its end, and what may befall it between them.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::free_addr;

/// How long a server may take to start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A redis-server of the test's own.
pub struct Redis {
    process: Option<Child>,
    addr: SocketAddr,
    args: Vec<String>,
    // Removed with the server.
    dir: TempDir,
}

impl Redis {
    /// Starts a server that keeps nothing on disk.
    pub fn start() -> Redis {
        Redis::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a server with options of one's own.
    pub fn start_with(args: &[&str]) -> Redis {
        Redis::start_configured("", args)
    }

    /// Starts a server with a configuration file, which it may rewrite, and options that it may not.
    /// With the option `--sentinel` it is a Sentinel.
    pub fn start_configured(file: &str, args: &[&str]) -> Redis {
        let mut redis = Redis {
            process: None,
            addr: free_addr(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            dir: TempDir::new().expect("a temporary directory"),
        };
        fs::write(redis.config_file(), file).expect("a configuration file");
        // Between finding a port free and listening on it, somebody else may take it.
        for _ in 0..10 {
            if redis.launch() {
                return redis;
            }
            redis.addr = free_addr();
        }
        panic!("redis-server does not start with {args:?}");
    }

    /// `127.0.0.1:port`
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// Whether it was started, and not killed since.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Kills the server as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A stopped process does not die of a signal that it could handle.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts the server again on the same port, with what it kept on disk.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "redis-server did not start again on {}", self.addr);
    }

    /// Stops the server's clock: it keeps its connections, and answers nothing.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a hung server go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts the server and waits until it answers. False if it ended instead.
    fn launch(&mut self) -> bool {
        let spawned = Command::new("redis-server")
            .arg(self.config_file())
            .args(["--port", &self.addr.port().to_string(), "--bind", "127.0.0.1"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut process = spawned.unwrap_or_else(|error| {
            panic!(
                "redis-server cannot be started ({error}); install it: apt-get install redis-server"
            )
        });
        let deadline = Instant::now() + START_LIMIT;
        loop {
            // Whoever answers is this server only if this server is still there.
            let answers = self.answers();
            if process.try_wait().expect("the state of the server").is_some() {
                return false;
            }
            if answers {
                self.process = Some(process);
                return true;
            }
            if Instant::now() > deadline {
                let _ = process.kill();
                let _ = process.wait();
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn config_file(&self) -> PathBuf {
        self.dir.path().join("redis.conf")
    }

    /// Whether the server answers anything at all, be it that it wants a password.
    fn answers(&self) -> bool {
        let Ok(mut connection) = TcpStream::connect_timeout(&self.addr, Duration::from_millis(200))
        else {
            return false;
        };
        let mut answer = [0; 1];
        connection.set_read_timeout(Some(Duration::from_millis(500))).is_ok()
            && connection.write_all(b"PING\r\n").is_ok()
            && connection.read_exact(&mut answer).is_ok()
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the server takes signals");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
