//! The file of profiles: hosts under names, with the tokens for them.
//!
//! It may hold tokens, so it is private to its owner, and is replaced whole, never half written.
//! Messages about it never quote it.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::{config, nearest::nearest};

/// All that the file says.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Profiles {
    /// The profile of those who name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<String>,
    pub(super) profiles: BTreeMap<String, Profile>,
}

/// A host, and the tokens for it. Tokens may be written as `${VAR}`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) url: String,
    /// For all that none of the next is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) producer_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) worker_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) admin_token: Option<String>,
    /// The authorities that the host's certificate may come from, in PEM, instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<PathBuf>,
}

/// What is wrong with the file, or with what was asked of it.
#[derive(Debug, Error)]
pub(super) enum ProfilesError {
    #[error(
        "there is no place for profiles: set XDG_CONFIG_HOME or HOME, or give --url and --token"
    )]
    NoPlace,
    #[error("{path} cannot be read: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{path}: {problem}; mend it, or remove it and begin again with `codeq profile set`")]
    Malformed { path: PathBuf, problem: String },
    #[error("{path} cannot be written: {error}")]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("there is no profile `{name}`; {hint}")]
    Unknown { name: String, hint: String },
    #[error("{place}: {problem}")]
    Unset { place: String, problem: String },
}

/// Where the file is.
pub(super) fn path() -> Result<PathBuf, ProfilesError> {
    let dir = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|d| d.is_absolute());
    dir("XDG_CONFIG_HOME")
        .or_else(|| Some(dir("HOME")?.join(".config")))
        .map(|dir| dir.join("codeq/profiles.yml"))
        .ok_or(ProfilesError::NoPlace)
}

impl Profiles {
    /// Reads the file; without one there are no profiles.
    pub(super) fn read(path: &Path) -> Result<Profiles, ProfilesError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Profiles::default()),
            Err(error) => return Err(ProfilesError::Unreadable { path: path.to_owned(), error }),
        };
        // A message with the line in question might show a token.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        serde_saphyr::from_str_with_options::<Option<Profiles>>(&text, options)
            .map(Option::unwrap_or_default)
            .map_err(|error| ProfilesError::Malformed {
                path: path.to_owned(),
                problem: error.to_string(),
            })
    }

    /// Replaces the file, or begins it.
    pub(super) fn write(&self, path: &Path) -> Result<(), ProfilesError> {
        self.replace(path)
            .map_err(|error| ProfilesError::Unwritable { path: path.to_owned(), error })
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        // A link, which people use to keep such files elsewhere, stays one.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let dir = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let yaml = serde_saphyr::to_string(self).map_err(io::Error::other)?;
        // Nobody else may read it from its first moment on.
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(yaml.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// The profile of a name.
    pub(super) fn get(&self, name: &str) -> Result<&Profile, ProfilesError> {
        self.profiles.get(name).ok_or_else(|| {
            let known = self.profiles.keys().map(String::as_str);
            let hint = match nearest(name, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if self.profiles.is_empty() => {
                    format!("make it with `codeq profile set {name} --url URL`")
                }
                None => format!("there are: {}", known.collect::<Vec<_>>().join(", ")),
            };
            ProfilesError::Unknown { name: name.to_owned(), hint }
        })
    }
}

/// Whether others than the owner may read a file that is there.
pub(super) fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o044 != 0)
}

/// A token as it is sent, with `${VAR}` replaced from the environment.
pub(super) fn expand(text: &str, place: impl FnOnce() -> String) -> Result<String, ProfilesError> {
    if !text.contains("${") {
        return Ok(text.to_owned());
    }
    config::expand_text(text, &config::environment())
        .map_err(|problem| ProfilesError::Unset { place: place(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Profiles {
        let profile = |url: &str, token: &str| Profile {
            url: url.into(),
            token: Some(token.into()),
            ..Profile::default()
        };
        Profiles {
            current: Some("prod".into()),
            profiles: [
                ("prod".to_owned(), profile("https://queue.example.org", "${TOKEN}")),
                ("on".to_owned(), profile("http://127.0.0.1:8080", "12: # no")),
            ]
            .into(),
        }
    }

    #[test]
    fn what_is_written_is_private_and_read_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/codeq/profiles.yml");
        filled().write(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let read = Profiles::read(&path).unwrap();
        assert_eq!(read.current.as_deref(), Some("prod"));
        for name in ["prod", "on"] {
            let (read, wrote) = (read.get(name).unwrap().clone(), filled().profiles[name].clone());
            assert_eq!((read.url, read.token), (wrote.url, wrote.token));
        }
    }

    #[test]
    fn writing_makes_an_open_file_private_and_keeps_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.yml"), dir.path().join("profiles.yml"));
        fs::write(&real, "profiles: {}\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(is_open_to_others(&link));
        filled().write(&link).unwrap();
        assert!(!is_open_to_others(&link));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("prod"));
    }

    #[test]
    fn a_broken_file_is_named_and_its_tokens_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profiles.yml");
        for text in [
            "profiles:\n  a: {url: 'http://x', tokn: hunter2}\n",
            "profiles:\n  a:\n    token: hunter2\n   url: [\n",
            "profiles: hunter2\n",
            "profiles:\n  a: {url: 'http://x', token: [hunter2]}\n",
        ] {
            fs::write(&path, text).unwrap();
            let said = Profiles::read(&path).err().unwrap().to_string();
            assert!(said.contains("profiles.yml"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn no_file_and_an_empty_one_hold_no_profiles() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profiles.yml");
        assert!(Profiles::read(&path).unwrap().profiles.is_empty());
        fs::write(&path, "# nothing yet\n").unwrap();
        assert!(Profiles::read(&path).unwrap().profiles.is_empty());
    }
}
