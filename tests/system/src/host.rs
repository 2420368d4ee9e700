//! A running host.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use codeq_test_servers::free_addr;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Client, Metrics, codeq};

/// Lets this process open that many files, which connections are, too.
pub fn open_files(count: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < count) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum })
            .expect("enough open files: raise the limit with `ulimit -Hn`");
    }
}

/// How long a host may take to start, or to stop.
const LIMIT: Duration = Duration::from_secs(40);

/// A host in a process of its own, killed with the test.
pub struct Host {
    process: Child,
    base: String,
    log: Arc<Mutex<Vec<String>>>,
    // The configuration's directory, which is removed with the host.
    _dir: TempDir,
}

impl Host {
    /// Starts a host with the plugins of a directory, and waits until it is ready.
    pub fn start(plugins: &Path, config: Value) -> Host {
        Host::start_program(codeq(), plugins, config)
    }

    /// Starts a host with more in its environment, and waits until it is ready.
    pub fn start_with_env(plugins: &Path, config: Value, env: &[(&str, OsString)]) -> Host {
        Host::launch_with_env(plugins, config, env).ready()
    }

    /// Starts a host of another program, and waits until it is ready.
    pub fn start_program(program: &Path, plugins: &Path, config: Value) -> Host {
        Host::launch_program(program, plugins, config, &[]).ready()
    }

    /// Starts a host that may not get ready, and waits until it serves.
    pub fn spawn(plugins: &Path, config: Value) -> Host {
        let host = Host::launch(plugins, config);
        host.wait_for(is_serving);
        host
    }

    /// Starts a host that may not even come to serve.
    pub fn launch(plugins: &Path, config: Value) -> Host {
        Host::launch_with_env(plugins, config, &[])
    }

    /// The same with more in its environment.
    pub fn launch_with_env(plugins: &Path, config: Value, env: &[(&str, OsString)]) -> Host {
        Host::launch_program(codeq(), plugins, config, env)
    }

    fn launch_program(
        program: &Path,
        plugins: &Path,
        mut config: Value,
        env: &[(&str, OsString)],
    ) -> Host {
        let dir = TempDir::new().unwrap();
        let addr = free_addr();
        config["port"] = addr.port().into();
        config["pluginDirs"] = json!([plugins]);
        // A file of the host's own, for those who do not say which.
        if config["persistenceProvider"] == "sqlite" && config["persistenceConfig"].is_null() {
            config["persistenceConfig"] = json!({ "path": dir.path().join("codeq.db") });
        }
        let file = dir.path().join("codeq.yml");
        // JSON is YAML.
        fs::write(&file, config.to_string()).unwrap();
        let mut process = command(program)
            .args(["serve", "--config"])
            .arg(&file)
            .env("LOG_FORMAT", "json")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::piped())
            .spawn()
            .expect("codeq runs");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| writer.lock().unwrap().push(line));
        });
        Host { process, base: format!("http://{addr}"), log, _dir: dir }
    }

    /// Waits until the host is ready.
    fn ready(self) -> Host {
        let client = self.client();
        self.wait_for(is_serving);
        self.wait_for(|_| client.get("/readyz").status == 200);
        self
    }

    /// Runs the program to its end, with the plugins of a directory.
    pub fn run(plugins: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
        let dir = TempDir::new().unwrap();
        command(codeq())
            .args(args)
            .current_dir(dir.path())
            .env("CODEQ_PLUGIN_PATH", plugins)
            .envs(env.iter().copied())
            .output()
            .expect("codeq runs")
    }

    /// A client of this host, without a token.
    pub fn client(&self) -> Client {
        Client::new(self.base.clone())
    }

    /// What the host has counted so far.
    pub fn metrics(&self) -> Metrics {
        let answer = ureq::get(format!("{}/metrics", self.base)).call();
        Metrics::parse(answer.unwrap().body_mut().read_to_string().unwrap())
    }

    /// `host:port`
    pub fn addr(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// The lines of the log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// What the host keeps in memory, in bytes.
    pub fn memory(&self) -> u64 {
        let pid = self.process.id().to_string();
        let output = Command::new("ps").args(["-o", "rss=", "-p", &pid]).output().expect("ps runs");
        let kib = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().expect("a number");
        kib << 10
    }

    /// Asks the host to stop, as a service manager does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks the host to stop, as a person at the terminal does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the host's end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the host does not stop: {:#?}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until something is so, which the log may tell.
    pub fn wait_for(&self, mut ready: impl FnMut(&[String]) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !ready(&self.log()) {
            assert!(Instant::now() < deadline, "waited in vain; the log says {:#?}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_serving(log: &[String]) -> bool {
    log.iter().any(|line| line.contains("\"message\":\"serving\""))
}

/// A program, in an environment that sets nothing of its configuration.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
