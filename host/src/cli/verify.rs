//! `codeq plugins verify`.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::{ArgAction, Args, Parser};
use codeq_conformance::{
    Figure, Outcome, Plan, Progress, Report, Rule, Verdict, agent, verify as kit,
};
use codeq_plugin::{Capability, Durability};
use serde_json::Value;

use super::{Failure, style};
use crate::{causes::with_causes, verify};

/// Arguments of `codeq plugins verify`.
#[derive(Args)]
pub(super) struct Verify {
    /// The library.
    path: PathBuf,
    #[command(flatten)]
    how: How,
}

/// How a plugin is verified.
#[derive(Args)]
struct How {
    /// The plugin's configuration; {dir} in it is a directory of its own for every store, {port} the
    /// port of the backend.
    #[arg(long, value_name = "JSON", value_parser = parse_config)]
    config: Option<Value>,
    /// Only the cases of this rule: its number in the storage contract, or records, reports,
    /// retention, listing, life. May be given several times.
    #[arg(long = "rule", value_name = "N", value_parser = parse_rule)]
    rules: Vec<Rule>,
    /// Write the report as JSON, for programs.
    #[arg(long)]
    json: bool,
    /// Less of everything that takes long: shorter histories, smaller backlogs, fewer kills.
    #[arg(long)]
    quick: bool,
    /// The command that starts the plugin's backend in the foreground, on 127.0.0.1:{port} and with
    /// its files in {dir}. The kit stops it, hangs it and brings it back.
    #[arg(long, value_name = "COMMAND")]
    backend: Option<String>,
    /// The command that spoils the stored record of task {id}.
    #[arg(long, value_name = "COMMAND")]
    corrupt: Option<String>,
    /// What answered writes survive with this configuration, if not what the store says.
    #[arg(long, value_name = "LEVEL", value_parser = parse_durability)]
    durability: Option<Durability>,
    /// Where random choices begin, to make the same ones again.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The backlogs at which operations are timed.
    #[arg(long, value_name = "TASKS", value_delimiter = ',')]
    backlogs: Option<Vec<u64>>,
}

/// The arguments of a test that verifies its own crate.
#[derive(Parser)]
#[command(name = "contract", about = "Proves that this crate's plugin keeps the storage contract")]
struct OfTest {
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    harness: Harness,
}

/// What `cargo test` and other runners pass to all tests of a crate, of which this is one.
#[derive(Args)]
struct Harness {
    /// Do nothing unless the name of this test has one of these in it.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    list: bool,
    /// What makes no difference here.
    #[arg(long, hide = true, aliases = ["no-capture", "show-output", "include-ignored"])]
    #[arg(short_alias = 'q', alias = "quiet", action = ArgAction::Count)]
    nocapture: u8,
    #[arg(long, hide = true, aliases = ["color", "format"])]
    test_threads: Vec<String>,
}

impl Harness {
    /// Whether a test of this name is meant.
    fn selects(&self, test: &str) -> bool {
        let is = |name: &String| if self.exact { test == name } else { test.contains(name) };
        let named = self.names.is_empty() || self.names.iter().any(is);
        named && !self.skip.iter().any(is) && !self.ignored
    }
}

fn parse_config(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    Rule::parse(text).ok_or_else(|| {
        let labels: Vec<String> = Rule::ALL.iter().map(|rule| rule.label()).collect();
        format!("there is no such rule; there are {}", labels.join(", "))
    })
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    Durability::parse(text)
        .ok_or_else(|| "it is none of volatile, process, disk, replicated".into())
}

/// Verifies a plugin.
pub(super) fn run(args: &Verify) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::Failed(error.to_string()))?;
    let agent = move || {
        let mut command = Command::new(&program);
        command.args(["plugins", "agent"]);
        command
    };
    verify_with(&args.path, &args.how, Value::Object(Default::default()), agent)
}

/// Becomes a process that holds a plugin.
pub(super) fn agent(library: &Path) -> Result<(), Failure> {
    let Some(socket) = agent::is_wanted() else {
        let message = "this is for `codeq plugins verify`, which starts it when it needs it";
        return Err(Failure::Wrong(message.into()));
    };
    let opener = verify::opener(library).map_err(Failure::Failed)?;
    agent::serve(opener, &socket).map_err(|error| Failure::Failed(error.to_string()))
}

/// Verifies the plugin of a crate from its test.
pub(super) fn of_test(
    library: impl FnOnce() -> Result<PathBuf, String>,
    config: &Value,
    args: &[&str],
) -> ExitCode {
    let test = match std::env::current_exe() {
        Ok(test) => test,
        Err(error) => return super::exit(Err(Failure::Failed(error.to_string()))),
    };
    let ours = std::env::args().skip(1);
    let all = ["contract".to_owned()].into_iter().chain(args.iter().map(|arg| (*arg).to_owned()));
    let OfTest { how, harness } = match OfTest::try_parse_from(all.chain(ours)) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    let name = name_of(&test);
    match (harness.selects(&name), harness.list) {
        (true, true) => style::line(format_args!("{name}: test")),
        (false, true) => {}
        (false, false) => style::line(format_args!("{name}: not run, other tests were asked for")),
        (true, false) => {
            let agent = move || Command::new(&test);
            let verified = library()
                .map_err(Failure::Failed)
                .and_then(|library| verify_with(&library, &how, config.clone(), agent));
            return super::exit(verified);
        }
    }
    ExitCode::SUCCESS
}

/// The name of a test, whose program cargo calls `<name>-<hash>`.
fn name_of(program: &Path) -> String {
    let stem = program.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit_once('-').map_or(&*stem, |(name, _)| name).to_owned()
}

fn verify_with(
    library: &Path,
    how: &How,
    config: Value,
    agent: impl Fn() -> Command + 'static,
) -> Result<(), Failure> {
    let config = how.config.clone().unwrap_or(config);
    let mut subject = verify::subject(library, config, agent)
        .map_err(|refusal| Failure::Failed(format!("{} {refusal}", refusal.code())))?;
    subject.durability = how.durability;
    subject.backend.clone_from(&how.backend);
    subject.corrupt.clone_from(&how.corrupt);
    let seed = how.seed.unwrap_or_else(|| u64::from(std::process::id()));
    let mut plan: Plan = verify::plan(how.quick, seed);
    if let Some(backlogs) = &how.backlogs {
        plan.backlogs.clone_from(backlogs);
        plan.backlogs.sort_unstable();
    }
    let shown = Shown { live: !how.json && std::io::stderr().is_terminal(), quiet: how.json };
    let report = kit::verify(&subject, &how.rules, &plan, &mut |progress| shown.progress(progress));
    shown.clear();
    let report = report.map_err(|error| Failure::Failed(with_causes(&error)))?;
    if how.json {
        style::line(serde_json::to_string(&report).unwrap_or_default());
    } else {
        show(&report);
    }
    if report.passed() {
        Ok(())
    } else {
        let bad = report.cases.iter().filter(|verdict| is_bad(&verdict.outcome)).count();
        let plugin = &report.plugin;
        Err(Failure::Failed(format!(
            "plugin `{plugin}` does not keep the contract: {bad} failed or not run"
        )))
    }
}

/// What is seen while it goes on, on standard error: one line that changes, or on no terminal a line
/// for every stage and failure.
struct Shown {
    live: bool,
    quiet: bool,
}

impl Shown {
    fn progress(&self, progress: Progress<'_>) {
        match progress {
            _ if self.quiet => {}
            Progress::Begins(what) if !self.live => eprintln!("{what} …"),
            Progress::Begins(what) => eprint!("\r\x1b[K{what} …"),
            Progress::Ended { verdict, done, of } => {
                if is_bad(&verdict.outcome) {
                    self.clear();
                    let not_run = matches!(verdict.outcome, Outcome::NotRun { .. });
                    let ended = if not_run { "not run" } else { "failed" };
                    eprintln!("{ended}: {}: {}", verdict.rule, verdict.case);
                }
                if self.live {
                    eprint!("\r\x1b[K{done}/{of} {}", verdict.case);
                }
            }
        }
        let _ = std::io::stderr().flush();
    }

    fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}

fn is_bad(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { .. } | Outcome::NotRun { .. })
}

fn show(report: &Report) {
    let Report { plugin, version, durability, capabilities, seed, cases, millis, .. } = report;
    let capabilities: Vec<_> = capabilities.iter().copied().map(Capability::as_str).collect();
    style::line(format_args!(
        "{} {version}, durability {}, capabilities: {}, seed {seed}\n",
        style::in_style(style::NAME, plugin),
        durability.as_str(),
        if capabilities.is_empty() { "none".into() } else { capabilities.join(", ") },
    ));
    let rows = Rule::ALL.iter().filter_map(|rule| row(report, *rule));
    style::table(&rows.collect::<Vec<_>>());
    for (title, style, pick) in SECTIONS {
        let mut chosen: Vec<_> =
            cases.iter().filter_map(|verdict| Some((verdict, pick(verdict)?))).collect();
        if chosen.is_empty() {
            continue;
        }
        style::line(format_args!("\n{}", style::in_style(style::HEADING, title)));
        // What many cases have in common is told once.
        while let Some(&(first, why)) = chosen.first() {
            let (same, others): (Vec<_>, Vec<_>) = chosen
                .into_iter()
                .partition(|(verdict, other)| verdict.rule == first.rule && *other == why);
            chosen = others;
            let place = style::in_style(style, format_args!("{:>9}", first.rule.label()));
            match same.len() {
                1 => style::line(format_args!("{place}  {}", first.case)),
                count => style::line(format_args!("{place}  {count} cases")),
            }
            why.trim_end().lines().for_each(|line| {
                style::line(style::in_style(style::FAINT, format_args!("           {line}")));
            });
        }
    }
    growth(report);
    let count =
        |is: fn(&Outcome) -> bool| cases.iter().filter(|verdict| is(&verdict.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed | Outcome::Flagged { .. }));
    let bad = count(is_bad);
    #[expect(clippy::cast_precision_loss, reason = "it took less than a few thousand years")]
    let seconds = *millis as f64 / 1_000.0;
    let memory = report.peak_memory_kib.map_or_else(String::new, |kib| {
        format!(", at most {} MiB of memory in one process", kib.div_ceil(1024))
    });
    let verdict = if bad == 0 {
        style::in_style(style::GOOD, "keeps the contract")
    } else {
        style::in_style(style::BAD, "does not keep the contract")
    };
    style::line(format_args!(
        "\n{plugin} {verdict}: {passed} passed, {bad} failed, in {seconds:.1} s{memory}"
    ));
}

type Pick = fn(&Verdict) -> Option<&str>;

/// What is told case by case, the worst last, where it is seen.
const SECTIONS: [(&str, anstyle::Style, Pick); 4] = [
    ("not applicable", style::FAINT, |verdict| match &verdict.outcome {
        Outcome::NotApplicable { why } => Some(why),
        _ => None,
    }),
    ("worth a look", style::NAME, |verdict| match &verdict.outcome {
        Outcome::Flagged { why } => Some(why),
        _ => None,
    }),
    ("not run", style::BAD, |verdict| match &verdict.outcome {
        Outcome::NotRun { why } => Some(why),
        _ => None,
    }),
    ("failed", style::BAD, |verdict| match &verdict.outcome {
        Outcome::Failed { why } => Some(why),
        _ => None,
    }),
];

fn row(report: &Report, rule: Rule) -> Option<String> {
    let verdicts: Vec<_> = report.of(rule).collect();
    if verdicts.is_empty() {
        return None;
    }
    let count = |is: fn(&Outcome) -> bool| verdicts.iter().filter(|it| is(&it.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed | Outcome::Flagged { .. }));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
    let not_run = count(|outcome| matches!(outcome, Outcome::NotRun { .. }));
    let skipped = count(|outcome| matches!(outcome, Outcome::NotApplicable { .. }));
    let mut told = Vec::new();
    if failed > 0 {
        told.push(style::in_style(style::BAD, format_args!("{failed} failed")));
    }
    if not_run > 0 {
        told.push(style::in_style(style::BAD, format_args!("{not_run} not run")));
    }
    if passed > 0 {
        told.push(style::in_style(style::GOOD, format_args!("{passed} passed")));
    }
    if skipped > 0 {
        told.push(style::in_style(style::FAINT, format_args!("{skipped} not applicable")));
    }
    let number = rule.number().map_or_else(String::new, |number| format!("{number:>2}"));
    Some(format!("{number}\t{}\t{}", rule.title(), told.join(", ")))
}

/// The figures, a row for each operation.
fn growth(report: &Report) {
    let figures: Vec<&Figure> = report.cases.iter().flat_map(|verdict| &verdict.figures).collect();
    let mut backlogs: Vec<u64> = figures.iter().map(|figure| figure.tasks).collect();
    backlogs.dedup();
    backlogs.sort_unstable();
    backlogs.dedup();
    if backlogs.is_empty() {
        return;
    }
    style::line(format_args!(
        "\n{}",
        style::in_style(style::HEADING, "median time of one operation, by tasks in the queue")
    ));
    let heads = backlogs.iter().map(|tasks| format!("{tasks}"));
    let mut rows = vec![format!("\t{}\tgrowth", heads.collect::<Vec<_>>().join("\t"))];
    for what in ["enqueue", "claim", "complete", "stats"] {
        let mine: Vec<_> = figures.iter().filter(|figure| figure.what == what).collect();
        let times = mine.iter().map(|figure| duration(figure.nanos)).collect::<Vec<_>>();
        if let (Some(first), Some(last)) = (mine.first(), mine.last()) {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds")]
            let factor = last.nanos as f64 / first.nanos.max(1) as f64;
            rows.push(format!("{what}\t{}\t×{factor:.1}", times.join("\t")));
        }
    }
    style::table(&rows);
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds")]
fn duration(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.0} µs", nanos as f64 / 1e3),
        _ => format!("{:.0} ms", nanos as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harness(args: &[&str]) -> Harness {
        OfTest::try_parse_from([&["contract"], args].concat()).unwrap().harness
    }

    #[test]
    fn a_contract_test_runs_unless_others_are_asked_for() {
        for args in [&[][..], &["tract"], &["other", "contract"], &["contract", "--exact"]] {
            assert!(harness(args).selects("contract"), "{args:?}");
        }
        for args in [&["other"][..], &["tract", "--exact"], &["--skip", "con"], &["--ignored"]] {
            assert!(!harness(args).selects("contract"), "{args:?}");
        }
    }

    #[test]
    fn a_contract_test_takes_what_all_tests_are_given() {
        let args = ["--nocapture", "--show-output", "--quiet", "-q", "--test-threads=1"];
        let more = ["--color", "always", "--format", "terse", "--include-ignored", "--rule", "3"];
        assert!(harness(&[&args[..], &more].concat()).selects("contract"));
    }

    #[test]
    fn a_test_is_called_as_its_file_is() {
        assert_eq!(name_of(Path::new("target/debug/deps/my-contract-0a1b2c")), "my-contract");
    }
}
