//! What to measure and for how long, from the command line.
//!
//! - `cycles`, `growth`: only these parts; both if none is named
//! - `--quick`, or `CODEQ_BENCH_QUICK=1`: fewer and shorter rounds, and a tenth of the tasks
//! - `--provider NAME`: another plugin than `sqlite`
//! - `--clients 1,64`, `--rounds N`, `--seconds S`, `--tasks N`: instead of the usual ones
//! - `CODEQ_BENCH_DIR`: where files are written, see [`crate::disk`]

use std::{env, process, str::FromStr, time::Duration};

pub(crate) struct Options {
    pub(crate) parts: Vec<Part>,
    pub(crate) provider: String,
    /// Numbers of waiting clients.
    pub(crate) clients: Vec<usize>,
    /// How often the contestants take turns.
    pub(crate) rounds: usize,
    /// The part of a round that is measured.
    pub(crate) window: Duration,
    /// The part before it, in which caches fill and groups form.
    pub(crate) warm_up: Duration,
    /// How many tasks are many.
    pub(crate) tasks: usize,
}

#[derive(Clone, Copy)]
pub(crate) enum Part {
    Cycles,
    Growth,
}

impl Options {
    pub(crate) fn from_args() -> Options {
        let args: Vec<String> = env::args().skip(1).collect();
        let quick = args.iter().any(|arg| arg == "--quick")
            || env::var("CODEQ_BENCH_QUICK").is_ok_and(|value| value != "0");
        let mut options = if quick { Options::quick() } else { Options::usual() };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "cycles" => options.parts.push(Part::Cycles),
                "growth" => options.parts.push(Part::Growth),
                "--provider" => options.provider = value(&arg, args.next()),
                "--clients" => {
                    let list: String = value(&arg, args.next());
                    options.clients =
                        list.split(',').map(|number| value(&arg, Some(number.into()))).collect();
                }
                "--rounds" => options.rounds = value::<usize>(&arg, args.next()).max(1),
                "--seconds" => {
                    options.window = Duration::from_secs_f64(value(&arg, args.next()));
                }
                "--tasks" => options.tasks = value(&arg, args.next()),
                // Cargo adds `--bench`.
                "--quick" | "--bench" => {}
                _ => wrong(&format!("`{arg}` is neither a part nor an option")),
            }
        }
        if options.parts.is_empty() {
            options.parts = vec![Part::Cycles, Part::Growth];
        }
        options
    }

    fn usual() -> Options {
        Options {
            parts: Vec::new(),
            provider: "sqlite".into(),
            clients: vec![1, 16, 64, 256],
            rounds: 7,
            window: Duration::from_millis(1500),
            warm_up: Duration::from_millis(300),
            tasks: 1_000_000,
        }
    }

    fn quick() -> Options {
        Options { rounds: 3, window: Duration::from_secs(1), tasks: 100_000, ..Options::usual() }
    }
}

fn value<T: FromStr>(arg: &str, text: Option<String>) -> T {
    let parsed = text.and_then(|text| text.trim().parse().ok());
    parsed.unwrap_or_else(|| wrong(&format!("`{arg}` wants a value that makes sense")))
}

fn wrong(what: &str) -> ! {
    eprintln!("{what}; benches/durable/options.rs lists what there is");
    process::exit(2)
}
