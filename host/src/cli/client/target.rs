//! Which host is asked, and with which tokens: flags, then the environment, then a profile.
//!
//! The tokens of a profile are for its host. If the URL comes from elsewhere, they stay at home unless
//! the profile was named as well; a token that was meant for production is not sent to whatever
//! `--url` says just because its profile is the current one.

use std::{fmt, path::PathBuf};

use clap::Args;
use reqwest::Url;

use super::profiles::{self, Profile, Profiles, ProfilesError};
use crate::{
    cli::{Failure, style},
    config::Secret,
};

/// The host of those who name none.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Options of every command that asks a host.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// The host [default: CODEQ_URL, else the profile's, else http://127.0.0.1:8080].
    #[arg(long, value_name = "URL", global = true)]
    pub(super) url: Option<String>,
    /// The token [default: CODEQ_TOKEN, else the profile's]. Others may see it in the list of
    /// processes: prefer the environment or a profile.
    #[arg(long, value_name = "TOKEN", global = true)]
    token: Option<String>,
    /// The profile [default: CODEQ_PROFILE, else the one of `codeq profile use`].
    #[arg(long, value_name = "NAME", global = true)]
    profile: Option<String>,
    /// The authorities that may have signed the host's certificate, in PEM, instead of the
    /// system's [default: CODEQ_CA_FILE, else the profile's].
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
}

/// A host, and what is needed to be let in.
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) url_from: Source,
    pub(super) ca_file: Option<(PathBuf, Source)>,
    /// The profile in use.
    pub(super) profile: Option<String>,
    /// The current profile, if it is not in use because the URL comes from elsewhere.
    pub(super) passed_over: Option<String>,
    tokens: Tokens,
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Flag(&'static str),
    Environment(&'static str),
    Profile { name: String, key: &'static str },
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) => write!(f, "from {name}"),
            Source::Environment(name) => write!(f, "from the environment: {name}"),
            Source::Profile { name, key } => write!(f, "from the profile `{name}`: {key}"),
            Source::Default => f.write_str("the default"),
        }
    }
}

/// As what a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Creates tasks.
    Producer,
    /// Claims and finishes tasks.
    Worker,
    /// Looks at tasks and results, as a producer or a worker may.
    Reader,
    /// Looks after queues.
    Admin,
}

enum Tokens {
    /// One for everything.
    Given(String, Source),
    /// As the profile has them.
    Profile(String, Profile),
    None,
}

/// A token that is sent, and where it came from.
pub(super) struct Token {
    pub(super) secret: Secret,
    pub(super) source: Source,
}

impl Connection {
    /// Finds out which host is meant.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        let named = given(self.profile.clone(), "--profile", "CODEQ_PROFILE");
        let (selected, named) = match named {
            Some((name, _)) => (Some(read()?.select(&name)?), true),
            None => (read().and_then(current)?, false),
        };
        let url = given(self.url.clone(), "--url", "CODEQ_URL");
        let elsewhere = match (&url, &selected) {
            (Some((url, source)), Some((name, profile))) => {
                let own = Source::Profile { name: name.clone(), key: "url" };
                parse_url(url, source)? != parse_url(&profile.url, &own)?
            }
            _ => false,
        };
        let (selected, passed_over) = match selected {
            Some((name, _)) if elsewhere && !named => (None, Some(name)),
            selected => (selected, None),
        };
        let of_profile = |key: &'static str| {
            let name = selected.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
            Source::Profile { name, key }
        };
        let (url, url_from) = url
            .or_else(|| Some((selected.as_ref()?.1.url.clone(), of_profile("url"))))
            .unwrap_or_else(|| (DEFAULT_URL.to_owned(), Source::Default));
        let ca_file = self.ca_file.clone().map(|file| (file, Source::Flag("--ca-file")));
        let ca_file = ca_file
            .or_else(|| {
                let file = std::env::var_os("CODEQ_CA_FILE").filter(|file| !file.is_empty())?;
                Some((file.into(), Source::Environment("CODEQ_CA_FILE")))
            })
            .or_else(|| Some((selected.as_ref()?.1.ca_file.clone()?, of_profile("caFile"))));
        Ok(Target {
            url: parse_url(&url, &url_from)?,
            url_from,
            ca_file,
            profile: selected.as_ref().map(|(name, _)| name.clone()),
            passed_over,
            tokens: match (given(self.token.clone(), "--token", "CODEQ_TOKEN"), selected) {
                (Some((token, source)), _) => Tokens::Given(token, source),
                (None, Some((name, profile))) => Tokens::Profile(name, profile),
                (None, None) => Tokens::None,
            },
        })
    }
}

impl Target {
    /// The token for a role.
    pub(super) fn token(&self, role: Role) -> Result<Option<Token>, Failure> {
        let (name, profile) = match &self.tokens {
            Tokens::Given(token, source) => {
                let secret = Secret::from(token.trim());
                return Ok(Some(Token { secret, source: source.clone() }));
            }
            Tokens::Profile(name, profile) => (name, profile),
            Tokens::None => return Ok(None),
        };
        let general = ("token", &profile.token);
        let producer = ("producerToken", &profile.producer_token);
        let worker = ("workerToken", &profile.worker_token);
        let admin = ("adminToken", &profile.admin_token);
        let in_order = match role {
            Role::Producer => vec![producer, general],
            Role::Worker => vec![worker, general],
            Role::Reader => vec![general, producer, worker, admin],
            Role::Admin => vec![admin, general],
        };
        let found = in_order.into_iter().find_map(|(key, text)| Some((key, text.as_ref()?)));
        let Some((key, text)) = found else {
            return Ok(None);
        };
        let text = profiles::expand(text, || format!("{key} of the profile `{name}`"))?;
        let source = Source::Profile { name: name.clone(), key };
        Ok(Some(Token { secret: text.trim().into(), source }))
    }
}

/// What a flag or a variable says. A variable that is set to nothing is not set.
fn given(
    flag: Option<String>,
    flag_name: &'static str,
    variable: &'static str,
) -> Option<(String, Source)> {
    flag.map(|value| (value, Source::Flag(flag_name))).or_else(|| {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
        Some((value, Source::Environment(variable)))
    })
}

fn read() -> Result<Profiles, Failure> {
    let path = match profiles::path() {
        // Who has no home has no profiles either.
        Err(ProfilesError::NoPlace) => return Ok(Profiles::default()),
        path => path?,
    };
    if profiles::is_open_to_others(&path) {
        let path = path.display();
        style::warning(format_args!(
            "{path} may be read by others, and may hold tokens; close it with `chmod 600 {path}`"
        ));
    }
    Ok(Profiles::read(&path)?)
}

fn current(all: Profiles) -> Result<Option<(String, Profile)>, Failure> {
    all.current.clone().map(|name| all.select(&name)).transpose()
}

impl Profiles {
    fn select(&self, name: &str) -> Result<(String, Profile), Failure> {
        Ok((name.to_owned(), self.get(name)?.clone()))
    }
}

/// The URL of a host, without a slash at its end.
pub(super) fn parse_url(text: &str, source: &Source) -> Result<Url, Failure> {
    let wrong = |problem: &str| {
        Err(Failure::Wrong(format!(
            "the URL ({source}) {problem}; write it like {DEFAULT_URL} or https://queue.example.org"
        )))
    };
    let text = text.trim();
    // What follows is not repeated as it stands: somebody may have put a password into it.
    let Ok(mut url) = Url::parse(text) else {
        return wrong("cannot be read");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong("does not begin with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("holds a name or a password, which a host does not ask for: give a token");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("goes on behind its path");
    }
    let path = url.path().trim_end_matches('/');
    // The path of the API itself, as clients of codeQ are often given it.
    let path = path.strip_suffix("/v1/codeq").unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url)
}

impl From<ProfilesError> for Failure {
    fn from(error: ProfilesError) -> Failure {
        match error {
            ProfilesError::Unwritable { .. } => Failure::Failed(error.to_string()),
            _ => Failure::Wrong(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<String, String> {
        match parse_url(text, &Source::Flag("--url")) {
            Ok(url) => Ok(url.to_string()),
            Err(Failure::Wrong(message) | Failure::Failed(message)) => Err(message),
        }
    }

    #[test]
    fn a_url_is_taken_with_and_without_the_path_of_the_api() {
        for text in ["http://h:1", "http://h:1/", "http://h:1/v1/codeq", " http://h:1/v1/codeq/ "] {
            assert_eq!(url(text).unwrap(), "http://h:1/", "{text}");
        }
        assert_eq!(url("https://h/queue/v1/codeq").unwrap(), "https://h/queue");
    }

    #[test]
    fn what_is_no_url_of_a_host_is_refused_with_its_source_and_without_its_password() {
        for text in ["localhost:8080", "nonsense", "ftp://h", "http://", "http://h?a=1", ""] {
            let said = url(text).unwrap_err();
            assert!(said.contains("--url") && said.contains("write it like"), "{text}: {said}");
        }
        let said = url("http://ann:hunter2@h").unwrap_err();
        assert!(said.contains("password") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn each_role_has_its_token_and_else_the_general_one() {
        let target = |profile: Profile| Target {
            url: Url::parse(DEFAULT_URL).unwrap(),
            url_from: Source::Default,
            ca_file: None,
            profile: None,
            passed_over: None,
            tokens: Tokens::Profile("p".into(), profile),
        };
        let token = |target: &Target, role| {
            let Ok(token) = target.token(role) else { panic!("a token cannot be had") };
            token.map(|token| token.secret.reveal().to_owned())
        };
        let all = target(Profile {
            token: Some("general".into()),
            worker_token: Some("worker".into()),
            admin_token: Some("admin".into()),
            ..Profile::default()
        });
        for (role, expected) in [
            (Role::Producer, "general"),
            (Role::Worker, "worker"),
            (Role::Reader, "general"),
            (Role::Admin, "admin"),
        ] {
            assert_eq!(token(&all, role).as_deref(), Some(expected), "{role:?}");
        }
        let worker = Profile { worker_token: Some("worker".into()), ..Profile::default() };
        let worker = target(worker);
        assert_eq!(token(&worker, Role::Reader).as_deref(), Some("worker"));
        assert_eq!(token(&worker, Role::Admin), None);
    }
}
