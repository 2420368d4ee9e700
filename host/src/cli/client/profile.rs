//! `codeq profile`: hosts under names, with the tokens for them.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    path::{self, PathBuf},
};

use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use super::{
    profiles::{self, Profile, Profiles},
    target::{Connection, Role, Source, Target, parse_url},
};
use crate::cli::{
    Failure, Json,
    style::{self, FAINT, GOOD, HEADING, NAME, in_style},
};

#[derive(Subcommand)]
pub(in crate::cli) enum ProfileCommand {
    /// List the profiles.
    List {
        #[command(flatten)]
        output: Json,
    },
    /// Show a profile; without a name, which host commands ask, with which tokens, and why.
    #[command(after_help = "\
Tokens are never shown, only whether there are any. Flags, then CODEQ_URL, CODEQ_TOKEN, CODEQ_PROFILE and
CODEQ_CA_FILE, go before the profile.

Examples:
  codeq profile show prod
  CODEQ_URL=http://127.0.0.1:9000 codeq profile show")]
    Show(Show),
    /// Make a profile, or change what is named of it.
    #[command(after_help = "\
A token may be - to be read from standard input (asked for, and not shown, on a terminal), and may be
'${VAR}', which is replaced from the environment whenever it is used. An empty one removes it.

Examples:
  codeq profile set prod --url https://queue.example.org --token -
  codeq profile set prod --worker-token '${PROD_WORKER}' --admin-token -
  codeq profile set prod --ca-file /etc/ssl/our-authority.pem")]
    Set(Set),
    /// Make a profile the current one.
    Use {
        /// The profile.
        name: String,
    },
    /// Remove a profile, and its tokens with it.
    Remove {
        /// The profile.
        name: String,
    },
}

#[derive(Args)]
pub(in crate::cli) struct Show {
    /// The profile.
    #[arg(conflicts_with_all = ["url", "token", "profile", "ca_file"])]
    name: Option<String>,
    #[command(flatten)]
    output: Json,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(in crate::cli) struct Set {
    /// The profile: letters, digits, `.`, `_` and `-`.
    #[arg(value_parser = profile_name)]
    name: String,
    /// The host.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The token for all that none of the next is for.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The token to create tasks with.
    #[arg(long, value_name = "TOKEN")]
    producer_token: Option<String>,
    /// The token to claim and finish tasks with.
    #[arg(long, value_name = "TOKEN")]
    worker_token: Option<String>,
    /// The token for `codeq queue` and `codeq dlq`.
    #[arg(long, value_name = "TOKEN")]
    admin_token: Option<String>,
    /// The authorities that may have signed the host's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

pub(in crate::cli) fn run(command: &ProfileCommand) -> Result<(), Failure> {
    match command {
        ProfileCommand::List { output } => list(output.json),
        ProfileCommand::Show(Show { name: Some(name), output, .. }) => show(name, output.json),
        ProfileCommand::Show(Show { connection, output, .. }) => {
            in_effect(&connection.target()?, output.json)
        }
        ProfileCommand::Set(args) => set(args),
        ProfileCommand::Use { name } => edit(|all| {
            all.get(name)?;
            all.current = Some(name.clone());
            Ok(format!("{} {}", in_style(GOOD, "current profile"), in_style(NAME, name)))
        }),
        ProfileCommand::Remove { name } => edit(|all| {
            all.get(name)?;
            all.profiles.remove(name);
            let mut said = format!("{} {}", in_style(GOOD, "removed"), in_style(NAME, name));
            if all.current.take_if(|current| current == name).is_some() {
                said += "; no profile is the current one now";
            }
            Ok(said)
        }),
    }
}

fn profile_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a profile's name has letters, digits, `.`, `_` and `-`".into())
    }
}

/// Changes the file, and says what was changed.
fn edit(change: impl FnOnce(&mut Profiles) -> Result<String, Failure>) -> Result<(), Failure> {
    let path = profiles::path()?;
    let mut all = Profiles::read(&path)?;
    let said = change(&mut all)?;
    all.write(&path)?;
    style::line(said);
    Ok(())
}

fn list(json: bool) -> Result<(), Failure> {
    let path = profiles::path()?;
    let all = Profiles::read(&path)?;
    if json {
        let profiles = all.profiles.iter().map(|(name, profile)| described(name, profile));
        let profiles: Vec<_> = profiles.collect();
        style::line(json!({ "file": path, "current": all.current, "profiles": profiles }));
        return Ok(());
    }
    if all.profiles.is_empty() {
        style::line("no profiles; make one with `codeq profile set NAME --url URL`");
        return Ok(());
    }
    let heading = ["", "NAME", "URL", "TOKENS"].map(|title| in_style(HEADING, title)).join("\t");
    let row = |(name, profile): (&String, &Profile)| {
        let mark =
            if all.current.as_ref() == Some(name) { in_style(GOOD, "*") } else { String::new() };
        let tokens = tokens(profile).into_iter().filter(|(_, token)| token.is_some());
        let tokens: Vec<_> = tokens.map(|(key, _)| key).collect();
        let tokens = if tokens.is_empty() { "none".into() } else { tokens.join(", ") };
        format!("{mark}\t{}\t{}\t{tokens}", in_style(NAME, name), profile.url)
    };
    style::table(&std::iter::once(heading).chain(all.profiles.iter().map(row)).collect::<Vec<_>>());
    Ok(())
}

fn show(name: &str, json: bool) -> Result<(), Failure> {
    let all = Profiles::read(&profiles::path()?)?;
    let profile = all.get(name)?;
    if json {
        style::line(described(name, profile));
        return Ok(());
    }
    let current = if all.current.as_deref() == Some(name) { ", the current one" } else { "" };
    let mut rows = vec![
        format!("profile\t{}{current}", in_style(NAME, name)),
        format!("url\t{}", profile.url),
    ];
    for (key, token) in tokens(profile) {
        rows.push(format!("{key}\t{}", token.map_or("none", masked)));
    }
    if let Some(file) = &profile.ca_file {
        rows.push(format!("caFile\t{}", file.display()));
    }
    style::table(&rows);
    Ok(())
}

/// What commands would use.
fn in_effect(target: &Target, json: bool) -> Result<(), Failure> {
    let token = |role| match target.token(role) {
        Ok(Some(token)) => ("******".to_owned(), token.source.to_string()),
        Ok(None) => ("none".to_owned(), String::new()),
        Err(Failure::Failed(problem) | Failure::Wrong(problem)) => ("none".to_owned(), problem),
    };
    let roles = [
        ("token for producers", "producer", Role::Producer),
        ("token for workers", "worker", Role::Worker),
        ("token for readers", "reader", Role::Reader),
        ("token for admins", "admin", Role::Admin),
    ];
    if json {
        let tokens = roles.map(|(_, name, role)| {
            let (token, from) = token(role);
            (name.to_owned(), json!({ "set": token != "none", "from": from }))
        });
        style::line(json!({
            "url": { "value": target.url.as_str(), "from": target.url_from.to_string() },
            "profile": target.profile,
            "tokens": tokens.into_iter().collect::<serde_json::Map<_, _>>(),
            "caFile": target.ca_file.as_ref().map(|(file, _)| file),
        }));
        return Ok(());
    }
    let row = |name: &str, value: &str, from: &dyn std::fmt::Display| {
        format!("{name}\t{value}\t{}", in_style(FAINT, from))
    };
    let url = in_style(NAME, target.url.as_str().trim_end_matches('/'));
    let mut rows = vec![row("url", &url, &target.url_from)];
    rows.push(match (&target.profile, &target.passed_over) {
        (Some(name), _) => row("profile", name, &""),
        (None, Some(name)) => {
            let why =
                format!("`{name}` is for another host; --profile {name} uses its tokens here");
            row("profile", "none", &why)
        }
        (None, None) => row("profile", "none", &""),
    });
    for (name, _, role) in roles {
        let (token, from) = token(role);
        rows.push(row(name, &token, &from));
    }
    if let Some((file, from)) = &target.ca_file {
        rows.push(row("caFile", &file.display().to_string(), from));
    }
    style::table(&rows);
    Ok(())
}

fn set(args: &Set) -> Result<(), Failure> {
    if let Some(url) = &args.url {
        parse_url(url, &Source::Flag("--url"))?;
    }
    edit(|all| {
        let mut profile = match (all.profiles.get(&args.name), &args.url) {
            (Some(profile), _) => profile.clone(),
            (None, Some(_)) => Profile::default(),
            (None, None) => {
                let name = &args.name;
                return Err(Failure::Wrong(format!(
                    "there is no profile `{name}` yet: a new one needs its --url"
                )));
            }
        };
        if let Some(url) = &args.url {
            profile.url = url.trim().to_owned();
        }
        for (flag, given, token) in [
            ("--token", &args.token, &mut profile.token),
            ("--producer-token", &args.producer_token, &mut profile.producer_token),
            ("--worker-token", &args.worker_token, &mut profile.worker_token),
            ("--admin-token", &args.admin_token, &mut profile.admin_token),
        ] {
            if let Some(given) = given {
                let given = if given == "-" { read_token(flag)? } else { given.clone() };
                *token = checked(flag, given.trim())?;
            }
        }
        if let Some(file) = &args.ca_file {
            // Commands run in other directories.
            let absolute = path::absolute(file).unwrap_or_else(|_| file.clone());
            profile.ca_file = Some(absolute).filter(|_| !file.as_os_str().is_empty());
        }
        let is_new = all.profiles.insert(args.name.clone(), profile).is_none();
        let mut said = format!(
            "{} {}",
            in_style(GOOD, if is_new { "made profile" } else { "changed profile" }),
            in_style(NAME, &args.name)
        );
        if all.current.is_none() && all.profiles.len() == 1 {
            all.current = Some(args.name.clone());
            said += ", and made it the current one";
        }
        Ok(said)
    })
}

fn checked(flag: &str, token: &str) -> Result<Option<String>, Failure> {
    if token.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Failure::Wrong(format!("{flag}: a token is one word without blanks")));
    }
    Ok(Some(token.to_owned()).filter(|token| !token.is_empty()))
}

/// A line of standard input, which a terminal does not show.
fn read_token(flag: &str) -> Result<String, Failure> {
    let unread = |error: io::Error| Failure::Wrong(format!("{flag}: cannot be read: {error}"));
    let mut line = String::new();
    if !io::stdin().is_terminal() {
        let read = io::stdin().lock().read_line(&mut line).map_err(unread)?;
        if read == 0 {
            return Err(Failure::Wrong(format!("{flag}: standard input is at its end")));
        }
        return Ok(line);
    }
    let mut err = io::stderr();
    let _ = write!(err, "{}: ", flag.trim_start_matches("--").replace('-', " "))
        .and_then(|()| err.flush());
    let hidden = Hidden::new().map_err(unread)?;
    let typed: io::Result<Vec<u8>> = io::stdin()
        .lock()
        .bytes()
        .take_while(|byte| !matches!(byte, Ok(b'\n')))
        .map(|byte| match byte {
            Ok(INTERRUPT) => Err(io::ErrorKind::Interrupted.into()),
            byte => byte,
        })
        .collect();
    drop(hidden);
    let _ = writeln!(err);
    match typed {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(Failure::Failed("nothing was changed".into()))
        }
        typed => String::from_utf8(typed.map_err(unread)?)
            .map_err(|_| Failure::Wrong(format!("{flag}: a token is text"))),
    }
}

/// Ctrl-C.
const INTERRUPT: u8 = 3;

/// A terminal that does not show what is typed, until this is dropped. Ctrl-C ends the line instead
/// of the process, which would leave the terminal so.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn new() -> io::Result<Hidden> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn tokens(profile: &Profile) -> [(&'static str, Option<&str>); 4] {
    [
        ("token", profile.token.as_deref()),
        ("producerToken", profile.producer_token.as_deref()),
        ("workerToken", profile.worker_token.as_deref()),
        ("adminToken", profile.admin_token.as_deref()),
    ]
}

/// A token as it may be shown: where it is to be found, if it is not here.
fn masked(token: &str) -> &str {
    let is_reference = token.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    match is_reference {
        Some(name) if !name.contains(['$', '{', '}']) => token,
        _ => "******",
    }
}

fn described(name: &str, profile: &Profile) -> Value {
    let mut described = json!({ "name": name, "url": profile.url });
    for (key, token) in tokens(profile) {
        described[key] = token.map(masked).into();
    }
    described["caFile"] = json!(profile.ca_file);
    described
}
