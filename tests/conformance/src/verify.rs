//! Running the kit: starts agents, hands out the cases, and puts the report together.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use codeq_plugin::{Capability, Durability, manifest::Manifest};
use fastrand::Rng;
use serde_json::Value;
use tempfile::TempDir;
use thiserror::Error;

use crate::{
    agent,
    case::{Case, Rule},
    cases,
    plan::Plan,
    protocol::{Order, Part, Tale},
    report::{Outcome, Report, Verdict},
    scenarios,
    world::{World, names_dir},
};

/// How long an agent may take to start and load the plugin.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a case may take. Its operations have limits of their own, so a case that takes longer is
/// stuck in one that does not even answer that it is not ready.
const CASE_LIMIT: Duration = Duration::from_secs(20);
/// How long a case may take that fills a queue.
const SLOW_LIMIT: Duration = Duration::from_secs(600);
/// After so many unanswered operations, and after so many dead agents, no more cases are tried.
const MOST_UNANSWERED: u32 = 8;
const MOST_DEATHS: u32 = 25;

/// The plugin that is verified, and what it takes to do so.
pub struct Subject {
    /// What the plugin says about itself.
    pub manifest: Manifest,
    /// Its configuration. `{dir}` in it becomes a directory that every store has for itself, `{port}`
    /// the port of the backend.
    pub config: Value,
    /// What its writes survive with this configuration, if not what a store that is opened with it
    /// says.
    pub durability: Option<Durability>,
    /// The command that starts the plugin's backend in the foreground on `127.0.0.1:{port}`, keeping
    /// what it keeps in `{dir}`.
    pub backend: Option<String>,
    /// The command that spoils the stored record of the task `{id}`.
    pub corrupt: Option<String>,
    /// Starts a process that becomes an [`agent`].
    pub agent: Box<dyn Fn() -> Command>,
}

/// What is going on.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// A case has ended; so many of so many have.
    Ended {
        /// How it ended.
        verdict: &'a Verdict,
        /// How many have ended.
        done: usize,
        /// How many there are.
        of: usize,
    },
    /// Something longer begins.
    Begins(&'a str),
}

/// Why a plugin could not be verified at all.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The kit could not make its socket or directory.
    #[error("the kit cannot work here")]
    Io(#[from] io::Error),
    /// The backend did not start.
    #[error("the backend: {0}")]
    Backend(String),
    /// The backend is somebody's.
    #[error(
        "the backend has {0} tasks already, which the kit would claim and remove: give it a backend \
         of its own, which --backend starts and --config reaches"
    )]
    NotEmpty(u64),
    /// A process that should have become an agent did not.
    #[error("no process could hold the plugin: {0}")]
    Agent(String),
}

/// Verifies a plugin. Only the named rules, if any are named.
///
/// # Errors
///
/// Why that could not be done. A plugin that breaks the contract is no error but a [`Report`].
pub fn verify(
    subject: &Subject,
    rules: &[Rule],
    plan: &Plan,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, VerifyError> {
    let began = Instant::now();
    let mut run = Run::new(subject, rules, plan, progress)?;
    if run.can_be_loaded()? {
        run.look_before()?;
        run.play_cases()?;
        scenarios::play(&mut run)?;
        run.play_slow_cases()?;
    }
    let mut cases = run.verdicts;
    cases.sort_by(|one, other| (one.rule, &one.case).cmp(&(other.rule, &other.case)));
    Ok(Report {
        plugin: subject.manifest.name.clone(),
        version: subject.manifest.version.clone(),
        durability: run.durability,
        capabilities: subject.manifest.capabilities.clone(),
        seed: plan.seed,
        cases,
        millis: millis_since(began),
        peak_memory_kib: run.peak_memory_kib,
    })
}

/// One run of the kit.
pub(crate) struct Run<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) plan: &'a Plan,
    pub(crate) durability: Durability,
    pub(crate) rng: Rng,
    rules: &'a [Rule],
    progress: &'a mut dyn FnMut(Progress<'_>),
    verdicts: Vec<Verdict>,
    total: usize,
    scopes: u32,
    prefix: String,
    unanswered: u32,
    deaths: u32,
    lost_an_agent: bool,
    peak_memory_kib: Option<u64>,
    dir: TempDir,
    agents: u32,
    news: (Sender<News>, Receiver<News>),
}

/// What an agent said, or that it is gone.
struct News {
    agent: u32,
    tale: Option<Tale>,
}

/// A process that holds the plugin.
pub(crate) struct Agent {
    number: u32,
    process: Child,
    orders: UnixStream,
    output: PathBuf,
}

impl Agent {
    /// Asks for something. An agent that is gone is noticed by its silence.
    pub(crate) fn order(&mut self, order: &Order) {
        let mut line = serde_json::to_vec(order).unwrap_or_default();
        line.push(b'\n');
        let _ = self.orders.write_all(&line);
    }

    /// Kills the process as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// How the process ended, with the last of what it wrote.
    pub(crate) fn epitaph(&mut self) -> String {
        let ended = match self.process.wait() {
            Ok(status) => how_it_ended(status),
            Err(error) => error.to_string(),
        };
        let output = std::fs::read(&self.output).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let last = output.lines().rev().find(|line| !line.trim().is_empty());
        last.map_or_else(|| ended.clone(), |line| format!("{ended}; its last words: {line}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal} ended it"),
        (None, Some(code)) => format!("it exited with {code}"),
        (None, None) => "it ended".into(),
    }
}

impl<'a> Run<'a> {
    fn new(
        subject: &'a Subject,
        rules: &'a [Rule],
        plan: &'a Plan,
        progress: &'a mut dyn FnMut(Progress<'_>),
    ) -> Result<Run<'a>, VerifyError> {
        let rng = Rng::with_seed(plan.seed);
        // Two runs with one seed on one backend must not meet.
        let prefix = format!("v{:x}-", Rng::new().u32(..));
        let durability = subject.durability.unwrap_or(subject.manifest.durability);
        let mut run = Run {
            subject,
            plan,
            durability,
            rng,
            rules,
            progress,
            verdicts: Vec::new(),
            total: 0,
            scopes: 0,
            prefix,
            unanswered: 0,
            deaths: 0,
            lost_an_agent: false,
            peak_memory_kib: None,
            dir: TempDir::new()?,
            agents: 0,
            news: channel(),
        };
        run.total = run.wanted_names().len();
        Ok(run)
    }

    pub(crate) fn wants(&self, rule: Rule) -> bool {
        self.rules.is_empty() || self.rules.contains(&rule)
    }

    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.subject.manifest.has(capability)
    }

    /// Whether stores of this configuration have one backend in common.
    fn is_shared(&self) -> bool {
        let own = names_dir(&self.subject.config) && self.subject.backend.is_none();
        // In a directory of its own every store is alone; without one, who shares may meet others.
        !own && (self.subject.backend.is_some() || self.has(Capability::Shared))
    }

    /// A prefix for names that nobody else has.
    pub(crate) fn scope(&mut self) -> String {
        self.scopes += 1;
        format!("{}{}.", self.prefix, self.scopes)
    }

    pub(crate) fn world(&self) -> Result<World, VerifyError> {
        World::with(self.subject.backend.as_deref()).map_err(VerifyError::Backend)
    }

    pub(crate) fn begins(&mut self, what: &str) {
        (self.progress)(Progress::Begins(what));
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        if !self.wants(verdict.rule) {
            return;
        }
        let done = self.verdicts.len() + 1;
        let of = self.total.max(done);
        (self.progress)(Progress::Ended { verdict: &verdict, done, of });
        self.verdicts.push(verdict);
    }

    /// Starts a process that holds the plugin.
    pub(crate) fn agent(&mut self) -> Result<Agent, VerifyError> {
        self.agents += 1;
        let number = self.agents;
        let socket = self.dir.path().join(format!("agent-{number}"));
        let output = self.dir.path().join(format!("output-{number}"));
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let file = std::fs::File::create(&output)?;
        let mut process = (self.subject.agent)()
            .env(agent::SOCKET, &socket)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| VerifyError::Agent(error.to_string()))?;
        let deadline = Instant::now() + START_LIMIT;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            let ended = process.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = process.kill();
                let said = std::fs::read_to_string(&output).unwrap_or_default();
                let ended = ended.map_or_else(|| "it did not start in time".into(), how_it_ended);
                return Err(VerifyError::Agent(format!("{ended}\n{}", said.trim())));
            }
            thread::sleep(Duration::from_millis(2));
        };
        stream.set_nonblocking(false)?;
        let news = self.news.0.clone();
        let lines = BufReader::new(stream.try_clone()?);
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                // What cannot be read is a line that was cut off by the end of the process.
                if let Ok(tale) = serde_json::from_str(&line)
                    && news.send(News { agent: number, tale: Some(tale) }).is_err()
                {
                    return;
                }
            }
            let _ = news.send(News { agent: number, tale: None });
        });
        Ok(Agent { number, process, orders: stream, output })
    }

    /// What one of these agents says next: its place among them, and nothing if it is gone. Nothing
    /// at all if `deadline` passes first.
    pub(crate) fn hear(
        &mut self,
        agents: &[Agent],
        deadline: Instant,
    ) -> Option<(usize, Option<Tale>)> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.news.1.recv_timeout(left) {
                Ok(News { agent, tale }) => {
                    let place = agents.iter().position(|known| known.number == agent);
                    if let Some(place) = place {
                        return Some((place, tale));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Whether a process can hold the plugin at all. If not, no case is played.
    fn can_be_loaded(&mut self) -> Result<bool, VerifyError> {
        let began = Instant::now();
        let outcome = match self.agent() {
            Ok(_) => Outcome::Passed,
            Err(VerifyError::Agent(why)) => Outcome::Failed { why },
            Err(other) => return Err(other),
        };
        let loaded = outcome == Outcome::Passed;
        if loaded && !self.wants(Rule::Life) {
            return Ok(true);
        }
        let names = if loaded { Vec::new() } else { self.wanted_names() };
        self.verdicts.push(Verdict {
            rule: Rule::Life,
            case: "the plugin can be loaded".into(),
            outcome,
            millis: millis_since(began),
            figures: Vec::new(),
        });
        for (rule, name) in names {
            let outcome = Outcome::NotRun { why: "the plugin cannot be loaded".into() };
            let case = sentence(&name);
            self.verdict(Verdict { rule, case, outcome, millis: 0, figures: Vec::new() });
        }
        Ok(loaded)
    }

    /// The cases and scenarios of the rules that are wanted.
    fn wanted_names(&self) -> Vec<(Rule, String)> {
        let cases = cases::all().into_iter().filter(|case| self.wants(case.rule));
        let cases = cases.map(|case| (case.rule, case.name.to_owned()));
        cases.chain(scenarios::names(self)).collect()
    }

    /// Refuses a backend that the kit did not start and that has tasks, and asks a store what its
    /// writes survive unless that was said.
    fn look_before(&mut self) -> Result<(), VerifyError> {
        let strange = self.subject.backend.is_none() && self.is_shared();
        if !strange && self.subject.durability.is_some() {
            return Ok(());
        }
        let config =
            self.world()?.config(&self.subject.config, &self.subject.manifest.config_schema);
        let mut agents = [self.agent()?];
        agents[0].order(&Order::Look { config });
        // Whatever is wrong with the store is found out by the cases.
        if let Some((_, Some(Tale::Seen { tasks, durability }))) =
            self.hear(&agents, Instant::now() + CASE_LIMIT)
        {
            if strange && tasks > 0 {
                return Err(VerifyError::NotEmpty(tasks));
            }
            self.durability = self.subject.durability.or(durability).unwrap_or(self.durability);
            self.total = self.wanted_names().len();
        }
        Ok(())
    }

    fn play_cases(&mut self) -> Result<(), VerifyError> {
        let cases = cases::all();
        let shared = self.is_shared();
        let wanted = |alone: bool| {
            let chosen = cases
                .iter()
                .enumerate()
                .filter(move |(_, case)| !case.slow && (case.alone && shared) == alone);
            chosen.map(|(index, _)| index).collect::<Vec<_>>()
        };
        let (together, alone) = (wanted(false), wanted(true));
        self.begins("cases");
        self.play_all(&cases, together, lanes())?;
        self.play_all(&cases, alone, 1)
    }

    fn play_slow_cases(&mut self) -> Result<(), VerifyError> {
        let cases = cases::all();
        let slow: Vec<_> = (0..cases.len()).filter(|index| cases[*index].slow).collect();
        if slow.iter().any(|index| self.wants(cases[*index].rule)) {
            self.begins("operations at growing backlogs");
            self.play_all(&cases, slow, 1)?;
        }
        Ok(())
    }

    /// Plays cases in one agent after another, several at a time.
    fn play_all(
        &mut self,
        cases: &[Case],
        indices: Vec<usize>,
        lanes: usize,
    ) -> Result<(), VerifyError> {
        let mut world = self.world()?;
        let mut waiting: VecDeque<usize> =
            indices.into_iter().filter(|index| self.wants(cases[*index].rule)).collect();
        // Those that were being played when an agent died. Each is played again by itself.
        let mut suspects: VecDeque<usize> = VecDeque::new();
        loop {
            if let Some(why) = self.given_up() {
                for index in suspects.drain(..).chain(waiting.drain(..)) {
                    self.judge(&cases[index], Outcome::NotRun { why: why.clone() }, Instant::now());
                }
            }
            let (mut queue, lanes) = match suspects.pop_front() {
                Some(suspect) => (VecDeque::from([suspect]), 1),
                None if waiting.is_empty() => return Ok(()),
                None => (std::mem::take(&mut waiting), lanes),
            };
            let (taken, why) = self.play_in_one_agent(cases, &mut queue, &world, lanes)?;
            // What a lost agent left behind would be in the way of the others.
            if std::mem::take(&mut self.lost_an_agent) {
                world = self.world()?;
            }
            waiting.extend(queue);
            match taken.as_slice() {
                [index] => self.judge(&cases[*index], Outcome::Failed { why }, Instant::now()),
                several => suspects.extend(several),
            }
        }
    }

    /// Why no more cases are tried.
    pub(crate) fn given_up(&self) -> Option<String> {
        if self.unanswered >= MOST_UNANSWERED {
            let times = self.unanswered;
            return Some(format!("the plugin left {times} operations without an answer before"));
        }
        (self.deaths >= MOST_DEATHS)
            .then(|| format!("the plugin ended its process {} times before", self.deaths))
    }

    /// Plays cases until all are played or the agent is gone. Answers those that it took with it, and
    /// how it went.
    fn play_in_one_agent(
        &mut self,
        cases: &[Case],
        queue: &mut VecDeque<usize>,
        world: &World,
        lanes: usize,
    ) -> Result<(Vec<usize>, String), VerifyError> {
        let mut agents = [self.agent()?];
        let mut playing: BTreeMap<usize, Instant> = BTreeMap::new();
        loop {
            while playing.len() < lanes
                && self.given_up().is_none()
                && let Some(index) = queue.pop_front()
            {
                let part = self.part(index, world);
                agents[0].order(&Order::Play(part));
                playing.insert(index, Instant::now());
            }
            if playing.is_empty() {
                return Ok(Default::default());
            }
            let limit = |index: usize| if cases[index].slow { SLOW_LIMIT } else { CASE_LIMIT };
            let deadline = playing.iter().map(|(index, began)| *began + limit(*index)).min();
            let deadline = deadline.unwrap_or_else(Instant::now);
            match self.hear(&agents, deadline) {
                Some((
                    _,
                    Some(Tale::Played { case, outcome, unanswered, figures, peak_memory_kib }),
                )) => {
                    self.unanswered += u32::from(unanswered);
                    self.peak_memory_kib = self.peak_memory_kib.max(peak_memory_kib);
                    if let Some(began) = playing.remove(&case) {
                        let verdict = verdict(&cases[case], outcome, began);
                        self.verdict(Verdict { figures, ..verdict });
                    }
                }
                Some((_, Some(_))) => {}
                Some((_, None)) => {
                    self.deaths += 1;
                    self.lost_an_agent = true;
                    let why = format!("the process with the plugin died: {}", agents[0].epitaph());
                    return Ok((playing.into_keys().collect(), why));
                }
                None => {
                    // The stuck ones are known; the others are played again.
                    agents[0].kill();
                    self.lost_an_agent = true;
                    let now = Instant::now();
                    let mut again = Vec::new();
                    for (index, began) in playing {
                        if now >= began + limit(index) {
                            self.unanswered += 1;
                            let seconds = limit(index).as_secs();
                            let why = format!("it did not end within {seconds} s");
                            self.judge(&cases[index], Outcome::Failed { why }, began);
                        } else {
                            again.push(index);
                        }
                    }
                    queue.extend(again);
                    return Ok(Default::default());
                }
            }
        }
    }

    fn part(&mut self, case: usize, world: &World) -> Part {
        let scope = self.scope();
        Part {
            case,
            config: world
                .config_with_port(&self.subject.config, &self.subject.manifest.config_schema),
            dir: crate::world::subdir(world.dir(), scope.trim_end_matches('.')),
            corrupt: self.subject.corrupt.as_deref().map(|command| world.fill_port(command)),
            scope,
            clear: self.is_shared(),
            plan: self.plan.clone(),
        }
    }

    fn judge(&mut self, case: &Case, outcome: Outcome, began: Instant) {
        self.verdict(verdict(case, outcome, began));
    }
}

fn verdict(case: &Case, outcome: Outcome, began: Instant) -> Verdict {
    Verdict {
        rule: case.rule,
        case: sentence(case.name),
        outcome,
        millis: millis_since(began),
        figures: Vec::new(),
    }
}

/// A name in the words that it is made of.
pub(crate) fn sentence(name: &str) -> String {
    name.replace('_', " ")
}

pub(crate) fn millis_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// How many cases are played at a time. Most of them wait most of the time.
fn lanes() -> usize {
    thread::available_parallelism().map_or(8, |cores| cores.get() * 4)
}
