//! An agent: a process that holds the plugin, and does what the kit asks.
//!
//! A plugin may do anything to the process that it is loaded into, so the kit is another one. Each case
//! has a thread of its own; one that is stuck is left behind.

use std::{
    any::Any,
    cell::RefCell,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{
    Claim, Error, Millis, Queue, QueueStats, Result,
    boundary::{Reply, durability_of},
};
use serde_json::Value;
use tokio::runtime::{Builder, Handle};

use crate::{
    case::{Broken, Case},
    cases,
    history::work,
    protocol::{Order, Part, Tale},
    report::Outcome,
    scope::Scope,
    stage::{Opener, Setup, Stage},
    store::{CALL_LIMIT, NoAnswer, Store},
};

/// The environment variable that names the socket on which the kit waits for its agent.
pub const SOCKET: &str = "CODEQ_CONFORMANCE_SOCKET";

/// Whether this process was started as an agent.
pub fn is_wanted() -> Option<PathBuf> {
    std::env::var_os(SOCKET).map(PathBuf::from)
}

/// Does what the kit asks for, until it has no more wishes.
///
/// # Errors
///
/// Why the kit cannot be reached or understood.
pub fn serve(opener: Arc<dyn Opener>, socket: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let agent = Arc::new(Agent {
        opener,
        runtime: runtime.handle().clone(),
        kit: Mutex::new(stream.try_clone()?),
        enough: AtomicBool::new(false),
        working: Mutex::default(),
    });
    remember_panics();
    let cases: Arc<[Case]> = cases::all().into();
    for line in BufReader::new(stream).lines() {
        let order: Order = serde_json::from_str(&line?)?;
        if matches!(order, Order::Enough) {
            agent.enough.store(true, Ordering::Relaxed);
            continue;
        }
        let (agent, cases) = (Arc::clone(&agent), Arc::clone(&cases));
        thread::Builder::new().spawn(move || agent.follow(order, &cases))?;
    }
    // Threads of the plugin, and of cases that are stuck, end with the process.
    std::process::exit(0)
}

struct Agent {
    opener: Arc<dyn Opener>,
    runtime: Handle,
    kit: Mutex<UnixStream>,
    enough: AtomicBool,
    /// The store on which this host worked; it is the one to finish the work.
    working: Mutex<Option<Store>>,
}

impl Agent {
    fn tell(&self, tale: &Tale) {
        let mut line = serde_json::to_vec(tale).unwrap_or_default();
        line.push(b'\n');
        let mut kit = self.kit.lock().unwrap_or_else(PoisonError::into_inner);
        if kit.write_all(&line).is_err() {
            // Nobody is there any more.
            std::process::exit(0);
        }
    }

    fn follow(&self, order: Order, cases: &[Case]) {
        match order {
            Order::Play(part) => self.play(part, cases),
            Order::Work { config, spell } => {
                let worked = self.with_store(&config, &spell.scope, |store| {
                    work::work(store, &spell, &|word| self.tell(&Tale::Word(word)));
                });
                self.tell(&Tale::Worked { fault: worked.err() });
            }
            Order::Settle { config, spell, ids } => {
                let say = |word| self.tell(&Tale::Word(word));
                let left = self.with_store(&config, &spell.scope, |store| {
                    work::settle(store, &spell, &ids, &say)
                });
                match left {
                    Ok(left) => self.tell(&Tale::Settled(left)),
                    Err(fault) => self.tell(&Tale::Worked { fault: Some(fault) }),
                }
            }
            Order::Look { config } => {
                let manifest = self.opener.manifest();
                let seen = self.with_store(&config, "", |store| {
                    // Some stores learn at a repair what others left in the backend. A repair of nothing
                    // moves nothing.
                    let _ = store.move_due_delayed(0);
                    // A store that cannot count is found out by the cases.
                    let queues = store.admin_queues(None).unwrap_or_default();
                    let all = |queue: &QueueStats| {
                        queue.ready + queue.delayed + queue.in_progress + queue.dlq
                    };
                    (queues.iter().map(all).sum(), durability_of(store.raw(), manifest))
                });
                let (tasks, durability) = seen.ok().unzip();
                self.tell(&Tale::Seen { tasks: tasks.unwrap_or_default(), durability });
            }
            Order::Watch { config, scope } => {
                let watched = self.with_store(&config, &scope, |store| self.watch(store));
                self.tell(&Tale::Worked { fault: watched.err() });
            }
            Order::Enough => {}
        }
    }

    fn play(&self, part: Part, cases: &[Case]) {
        let Some(case) = cases.get(part.case) else {
            return;
        };
        let index = part.case;
        let stage = Stage::new(Arc::clone(&self.opener), self.runtime.clone(), part);
        let played = catch(|| match case.needs.filter(|capability| !stage.has(*capability)) {
            Some(lacking) => {
                stage.skip(format!("the plugin does not declare `{}`", lacking.as_str()));
            }
            None => (case.play)(&stage),
        });
        let (outcome, unanswered) = match played {
            Ok(()) => (stage.outcome(), false),
            Err(Ended::Unanswered(operation)) => {
                let limit = CALL_LIMIT.as_secs();
                (
                    Outcome::Failed {
                        why: format!("`{operation}` did not answer within {limit} s"),
                    },
                    true,
                )
            }
            Err(Ended::Panicked(why)) => (Outcome::Failed { why }, false),
            Err(Ended::Broken(Broken { rule, what })) if rule == case.rule => {
                (Outcome::Failed { why: what }, false)
            }
            Err(Ended::Broken(Broken { rule, what })) => {
                let why = format!("it builds on the rule `{rule}`, which does not hold: {what}");
                (Outcome::NotRun { why }, false)
            }
        };
        if !unanswered {
            let _ = catch(|| stage.strike());
        }
        let figures =
            std::mem::take(&mut *stage.figures.lock().unwrap_or_else(PoisonError::into_inner));
        self.tell(&Tale::Played {
            case: index,
            outcome,
            unanswered,
            figures,
            peak_memory_kib: peak_memory_kib(),
        });
    }

    /// Does something with the store of this host, which is opened for it if it is not open yet.
    /// Answers what went wrong, in words.
    fn with_store<T>(
        &self,
        config: &Value,
        scope: &str,
        act: impl FnOnce(&Store) -> T,
    ) -> std::result::Result<T, String> {
        let done = catch(|| -> Result<T> {
            let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
            let store = match working.take() {
                Some(store) => store,
                None => Store::new(
                    self.opener.open(config, &Setup::default())?,
                    Scope::new(scope),
                    config.clone(),
                    self.runtime.clone(),
                    false,
                    false,
                ),
            };
            let done = act(&store);
            *working = Some(store);
            Ok(done)
        });
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(format!("the store did not open: {error}")),
            Err(Ended::Unanswered(operation)) => Err(format!("`{operation}` did not answer")),
            Err(Ended::Panicked(why) | Ended::Broken(Broken { what: why, .. })) => Err(why),
        }
    }

    /// Asks for this and that, and tells how it went.
    fn watch(&self, store: &Store) {
        let instance = store.raw();
        while !self.enough.load(Ordering::Relaxed) {
            let claim = Claim {
                worker_id: "w".into(),
                tenant_id: "watch".into(),
                commands: ["nothing".into()].into_iter().collect(),
                max: 1,
                lease: Millis(1_000),
                ..Claim::default()
            };
            let queue = Queue { tenant_id: "watch".into(), command: "nothing".into() };
            self.observe("health", || instance.health());
            self.observe("claim", || instance.claim(claim));
            self.observe("queue_stats", || instance.queue_stats(queue));
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn observe<T>(&self, operation: &str, call: impl FnOnce() -> Reply<T>) {
        let began = Clock::now();
        let reply = call();
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout(CALL_LIMIT, reply.settled()).await });
        let error = match answered {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(named(&error)),
            Err(_) => Some(("no answer".to_owned(), String::new())),
        };
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell(&Tale::Watched { operation: operation.into(), error, millis });
    }
}

fn named(error: &Error) -> (String, String) {
    (error.kind().to_string(), error.to_string())
}

/// How a case ended before its end.
enum Ended {
    Unanswered(&'static str),
    Broken(Broken),
    Panicked(String),
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A case that fails panics; where it did belongs into the report rather than onto the terminal.
fn remember_panics() {
    panic::set_hook(Box::new(|info| {
        let text = payload_text(info.payload());
        let place = info.location().map(|at| {
            let file = at.file().rsplit('/').next().unwrap_or_default();
            format!(" ({file}:{})", at.line())
        });
        let told = format!("{text}{}", place.unwrap_or_default());
        LAST_PANIC.with(|last| last.borrow_mut().get_or_insert(told).len());
    }));
}

fn catch<T>(act: impl FnOnce() -> T) -> std::result::Result<T, Ended> {
    LAST_PANIC.with(|last| last.borrow_mut().take());
    panic::catch_unwind(AssertUnwindSafe(act)).map_err(|payload| {
        if let Some(NoAnswer(operation)) = payload.downcast_ref::<NoAnswer>() {
            return Ended::Unanswered(operation);
        }
        let payload = match payload.downcast::<Broken>() {
            Ok(broken) => return Ended::Broken(*broken),
            Err(payload) => payload,
        };
        let told = LAST_PANIC.with(|last| last.borrow_mut().take());
        Ended::Panicked(told.unwrap_or_else(|| payload_text(&*payload)))
    })
}

fn payload_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it ended without a word".into())
}

/// The most memory that this process has used, where the system tells.
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}
