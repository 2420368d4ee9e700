//! What to measure, from the command line.
//!
//! - `rates`, `growth`, `peers`: only these parts; all of them if none is named
//! - `--quick`, or `CODEQ_BENCH_QUICK=1`: a fifth of the tasks, fewer rounds
//! - `--tasks N`, `--batch N`, `--clients N`, `--rounds N`: instead of the usual ones

use std::{env, process, str::FromStr};

pub(crate) struct Options {
    pub(crate) parts: Vec<Part>,
    /// How many tasks go through a server in a round.
    pub(crate) tasks: usize,
    /// How many of them there are in a batch.
    pub(crate) batch: usize,
    /// How many clients send batches.
    pub(crate) clients: usize,
    pub(crate) rounds: usize,
    /// How many tasks are many.
    pub(crate) many: usize,
}

#[derive(Clone, Copy)]
pub(crate) enum Part {
    Rates,
    Growth,
    Peers,
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
                "rates" => options.parts.push(Part::Rates),
                "growth" => options.parts.push(Part::Growth),
                "peers" => options.parts.push(Part::Peers),
                "--tasks" => options.tasks = value(&arg, args.next()),
                "--batch" => options.batch = value(&arg, args.next()),
                "--clients" => options.clients = value(&arg, args.next()),
                "--rounds" => options.rounds = value(&arg, args.next()),
                // Cargo adds `--bench`.
                "--quick" | "--bench" => {}
                _ => wrong(&format!("`{arg}` is neither a part nor an option")),
            }
        }
        if options.parts.is_empty() {
            options.parts = vec![Part::Rates, Part::Growth, Part::Peers];
        }
        options
    }

    fn usual() -> Options {
        Options {
            parts: Vec::new(),
            tasks: 100_000,
            batch: 50,
            clients: 4,
            rounds: 3,
            many: 1_000_000,
        }
    }

    fn quick() -> Options {
        Options { tasks: 20_000, rounds: 1, many: 100_000, ..Options::usual() }
    }
}

fn value<T: FromStr + Default + PartialEq>(arg: &str, text: Option<String>) -> T {
    let parsed =
        text.and_then(|text| text.trim().parse().ok()).filter(|value| *value != T::default());
    parsed.unwrap_or_else(|| wrong(&format!("`{arg}` wants a number from 1 on")))
}

fn wrong(what: &str) -> ! {
    eprintln!("{what}; benches/redis/options.rs lists what there is");
    process::exit(2)
}
