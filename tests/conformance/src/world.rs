//! The surroundings of a plugin: a directory, a port, and the server that it keeps its tasks in.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long a server may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A directory and a port of its own, and the backend that was started with them, if there is one.
///
/// All of it is gone when it is dropped.
pub(crate) struct World {
    server: Option<Server>,
    port: u16,
    dir: TempDir,
}

struct Server {
    command: String,
    process: Option<Child>,
}

impl World {
    /// A world with the server that `command` starts; `{port}` and `{dir}` in it are replaced.
    pub(crate) fn with(command: Option<&str>) -> Result<World, String> {
        let dir = TempDir::new().map_err(|error| format!("no temporary directory: {error}"))?;
        let port = free_port().map_err(|error| format!("no free port: {error}"))?;
        let mut world = World { server: None, port, dir };
        if let Some(command) = command {
            world.server = Some(Server { command: world.fill(command), process: None });
            world.start()?;
        }
        Ok(world)
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A text with the port and the directory filled in.
    pub(crate) fn fill(&self, text: &str) -> String {
        self.fill_port(text).replace("{dir}", &self.dir.path().display().to_string())
    }

    pub(crate) fn fill_port(&self, text: &str) -> String {
        text.replace("{port}", &self.port.to_string())
    }

    /// A configuration with the port and the directory filled in. A setting that is the port alone is
    /// a number if `schema` wants one.
    pub(crate) fn config(&self, template: &Value, schema: &Value) -> Value {
        map_texts(&self.config_with_port(template, schema), &|text| self.fill(text))
    }

    /// A configuration with only the port filled in.
    pub(crate) fn config_with_port(&self, template: &Value, schema: &Value) -> Value {
        let mut filled = map_texts(template, &|text| self.fill_port(text));
        for (name, value) in filled.as_object_mut().into_iter().flatten() {
            let kind = &schema["properties"][name.as_str()]["type"];
            if template[name.as_str()] == "{port}" && (kind == "integer" || kind == "number") {
                *value = self.port.into();
            }
        }
        filled
    }

    /// Starts the server, again if it was killed, and waits until it listens.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        let mut process = Command::new("sh")
            .args(["-c", &format!("exec {}", server.command)])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("`{}` does not start: {error}", server.command))?;
        let deadline = Instant::now() + START_LIMIT;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        loop {
            if let Ok(Some(status)) = process.try_wait() {
                return Err(format!("`{}` ended: {status}", server.command));
            }
            if TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_ok() {
                server.process = Some(process);
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = process.kill();
                let _ = process.wait();
                return Err(format!("`{}` does not listen on port {}", server.command, self.port));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the server as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.server.as_mut().and_then(|server| server.process.take()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops the server's clock: it keeps its connections, and answers nothing.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a hung server go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.server.as_ref().and_then(|server| server.process.as_ref());
        let pid = process.and_then(|process| i32::try_from(process.id()).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A configuration in which every `{dir}` is `dir`.
pub(crate) fn with_dir(config: &Value, dir: &Path) -> Value {
    let dir = dir.display().to_string();
    map_texts(config, &|text| text.replace("{dir}", &dir))
}

/// Whether a configuration names a directory of its own.
pub(crate) fn names_dir(config: &Value) -> bool {
    config.to_string().contains("{dir}")
}

fn map_texts(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => items.iter().map(|item| map_texts(item, change)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), map_texts(value, change))).collect()
        }
        other => other.clone(),
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A directory below `base`, made if it is not there.
pub(crate) fn subdir(base: &Path, name: &str) -> PathBuf {
    let dir = base.join(name);
    // If that fails, the plugin says so when it opens.
    let _ = std::fs::create_dir_all(&dir);
    dir
}
