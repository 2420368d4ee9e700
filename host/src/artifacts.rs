//! Where the files of results are kept: below one directory, for as long as somebody may ask for them.
//!
//! What a worker hands in with one result is a *bundle*. It lies in a directory of its own,
//! `<hour>/<bundle>`, its files by number, and `about.json` says whose they are and what they are
//! called. So no text of a client's becomes the name of a file, and nobody writes where somebody else
//! did. A bundle is whole and on the disk before anybody learns its id; what is written here and never
//! told of is found by a [`Walk`].
//!
//! Neither names nor symbolic links lead out of the directory. Nothing here blocks its caller's
//! thread.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions, ReadDir},
};
use codeq_plugin::Instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::config;

/// The files of results. Clones are the same files.
#[derive(Clone, Debug)]
pub struct Artifacts {
    dir: Arc<Path>,
    max_bytes: usize,
    base: Arc<str>,
}

/// A file to keep.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// What the worker calls it.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// A file that is kept.
#[derive(Debug)]
pub struct KeptFile {
    /// Its media type.
    pub content_type: String,
    /// How long it is.
    pub bytes: u64,
    /// The file, at its beginning.
    pub content: std::fs::File,
}

/// Whose files they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The tenant.
    pub tenant: String,
    /// The task.
    pub task: String,
}

/// Names a bundle, and tells the hour in which it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleId(Uuid);

/// A directory, or a file in it, that cannot be used.
#[derive(Debug, Error)]
#[error("cannot {action} the artifacts in {}: {cause}", dir.display())]
pub struct ArtifactError {
    action: &'static str,
    dir: PathBuf,
    #[source]
    cause: io::Error,
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl BundleId {
    /// The bundle of a name.
    pub fn parse(text: &str) -> Option<BundleId> {
        let id = BundleId(Uuid::try_parse(text).ok()?);
        // A UUID can be written in more ways than one, a directory cannot.
        Some(id).filter(|id| id.to_string() == text)
    }

    fn hour(self) -> Option<String> {
        let (seconds, _) = self.0.get_timestamp()?.to_unix();
        Timestamp::from_second(i64::try_from(seconds).ok()?).ok().map(hour_of)
    }
}

/// The names of hours are as long as this.
const HOUR: usize = "2026-01-31T23".len();

fn hour_of(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H").to_string()
}

/// When an hour ends; nothing if no hour is called so.
fn end_of(hour: &str) -> Option<Instant> {
    let begin = Instant::parse_rfc3339(&format!("{hour}:00:00Z")).filter(|_| hour.len() == HOUR)?;
    Some(Instant(begin.0 + 60 * 60 * 1000))
}

/// What a bundle says of itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    #[serde(flatten)]
    owner: Owner,
    files: Vec<AboutFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AboutFile {
    name: String,
    content_type: String,
}

const ABOUT: &str = "about.json";

impl Artifacts {
    /// The files below the directory of these settings, which is made when the first of them comes.
    /// Links to them begin with `base`.
    pub fn new(settings: &config::Artifacts, base: &str) -> Artifacts {
        Artifacts {
            dir: settings.dir.as_path().into(),
            max_bytes: settings.max_bytes,
            base: base.into(),
        }
    }

    /// What links to files begin with.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// How long a file may be.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// What keeps the directory from being used, if it is there.
    pub fn problem(&self) -> Option<ArtifactError> {
        use rustix::fs::{Access, access};
        match access(&*self.dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) if self.dir.is_dir() => None,
            Ok(()) => Some(self.fault("keep", io::ErrorKind::NotADirectory.into())),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => Some(self.fault("keep", error.into())),
        }
    }

    /// Keeps files, all of them or none.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub async fn keep(&self, owner: Owner, files: Vec<NewFile>) -> Result<BundleId, ArtifactError> {
        self.off_thread("keep", move |artifacts| artifacts.write(owner, &files)).await
    }

    fn write(&self, owner: Owner, files: &[NewFile]) -> io::Result<BundleId> {
        std::fs::create_dir_all(&*self.dir)?;
        let id = BundleId(Uuid::now_v7());
        let hour = id.hour().ok_or(io::ErrorKind::InvalidData)?;
        let (root, name) = (self.root()?, id.to_string());
        make_dir(&root, &hour)?;
        let hour = root.open_dir(hour)?;
        make_dir(&hour, &name)?;
        let bundle = hour.open_dir(&name)?;
        let written = write_files(&bundle, owner, files);
        if written.is_err() {
            // A disk that is full has room for what comes next, at least.
            let _ = hour.remove_dir_all(&name);
        }
        written.map(|()| id)
    }

    /// Opens a file of a bundle; nothing if there is none, or if it is somebody else's.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub async fn open(
        &self,
        id: BundleId,
        owner: Owner,
        name: String,
    ) -> Result<Option<KeptFile>, ArtifactError> {
        let read = move |artifacts: &Artifacts| artifacts.read(id, &owner, &name);
        match self.off_thread("read", read).await {
            Err(error) if error.cause.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other,
        }
    }

    fn read(&self, id: BundleId, owner: &Owner, name: &str) -> io::Result<Option<KeptFile>> {
        let hour = id.hour().ok_or(io::ErrorKind::NotFound)?;
        let bundle = self.root()?.open_dir(hour)?.open_dir(id.to_string())?;
        let about = read_about(&bundle)?;
        let named = about.files.into_iter().enumerate().find(|(_, file)| file.name == *name);
        let Some((number, file)) = named.filter(|_| about.owner == *owner) else {
            return Ok(None);
        };
        let content = bundle.open(number.to_string())?.into_std();
        let bytes = content.metadata()?.len();
        Ok(Some(KeptFile { content_type: file.content_type, bytes, content }))
    }

    /// Whether a bundle is there, and is somebody's.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub async fn is_of(&self, id: BundleId, owner: Owner) -> Result<bool, ArtifactError> {
        let read = move |artifacts: &Artifacts| {
            let hour = id.hour().ok_or(io::ErrorKind::NotFound)?;
            let bundle = artifacts.root()?.open_dir(hour)?.open_dir(id.to_string())?;
            Ok(read_about(&bundle)?.owner == owner)
        };
        match self.off_thread("read", read).await {
            Err(error) if error.cause.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other,
        }
    }

    /// Removes a bundle, if it is there.
    ///
    /// # Errors
    ///
    /// If it is there still.
    pub async fn remove(&self, id: BundleId) -> Result<(), ArtifactError> {
        let remove = move |artifacts: &Artifacts| {
            let hour = id.hour().ok_or(io::ErrorKind::NotFound)?;
            artifacts.root()?.open_dir(hour)?.remove_dir_all(id.to_string())
        };
        match self.off_thread("remove", remove).await {
            Err(error) if error.cause.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Begins a walk through the bundles of the hours that had ended by then.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub async fn walk(&self, before: Instant) -> Result<Walk, ArtifactError> {
        let hours = move |artifacts: &Artifacts| {
            let is_over = |hour: &String| end_of(hour).is_some_and(|end| end <= before);
            let mut hours: Vec<String> = match artifacts.root() {
                Ok(root) => names_in(root.entries()?).filter(is_over).collect(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            hours.sort_unstable_by(|one, other| other.cmp(one));
            Ok(hours)
        };
        let hours = self.off_thread("look through", hours).await?;
        Ok(Walk { artifacts: self.clone(), hours, entries: None })
    }

    fn root(&self) -> io::Result<Dir> {
        Dir::open_ambient_dir(&*self.dir, ambient_authority())
    }

    fn fault(&self, action: &'static str, cause: io::Error) -> ArtifactError {
        ArtifactError { action, dir: self.dir.to_path_buf(), cause }
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Artifacts) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ArtifactError> {
        let artifacts = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&artifacts)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| self.fault(action, error))
    }
}

/// A bundle that a walk came by; one that does not say whose it is was never finished.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub id: BundleId,
    /// Whose it is.
    pub owner: Option<Owner>,
}

/// A walk through old bundles, the oldest hour first. Hours of which nothing is left are removed on
/// the way; what is not of this host's making is left alone.
pub struct Walk {
    artifacts: Artifacts,
    /// The hours to come, the next one last.
    hours: Vec<String>,
    entries: Option<(Dir, ReadDir)>,
}

impl Walk {
    /// The next bundles, at most `limit`; none at the end.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read.
    pub async fn next(self, limit: usize) -> Result<(Walk, Vec<Found>), ArtifactError> {
        let artifacts = self.artifacts.clone();
        let step = move |_: &Artifacts| {
            let mut walk = self;
            let mut found = Vec::new();
            while found.len() < limit {
                match walk.step()? {
                    Some(bundle) => found.extend(bundle),
                    None => break,
                }
            }
            Ok((walk, found))
        };
        artifacts.off_thread("look through", step).await
    }

    /// Goes on by one entry or one hour; nothing at the end.
    fn step(&mut self) -> io::Result<Option<Option<Found>>> {
        if let Some((hour, entries)) = &mut self.entries {
            if let Some(entry) = entries.next() {
                let name = entry?.file_name().into_string().unwrap_or_default();
                return Ok(Some(BundleId::parse(&name).map(|id| {
                    let about = hour.open_dir(name).and_then(|bundle| read_about(&bundle));
                    Found { id, owner: about.ok().map(|about| about.owner) }
                })));
            }
            self.entries = None;
        }
        let Some(name) = self.hours.pop() else { return Ok(None) };
        let root = self.artifacts.root()?;
        // Only if it is empty; another host may have been here.
        if root.remove_dir(&name).is_err()
            && let Ok(hour) = root.open_dir(&name)
        {
            let entries = hour.entries()?;
            self.entries = Some((hour, entries));
        }
        Ok(Some(None))
    }
}

fn names_in(entries: ReadDir) -> impl Iterator<Item = String> {
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

fn read_about(bundle: &Dir) -> io::Result<About> {
    Ok(serde_json::from_slice(&bundle.read(ABOUT)?)?)
}

fn write_files(bundle: &Dir, owner: Owner, files: &[NewFile]) -> io::Result<()> {
    for (number, file) in files.iter().enumerate() {
        write_file(bundle, &number.to_string(), &file.content)?;
    }
    let of_file = |file: &NewFile| AboutFile {
        name: file.name.clone(),
        content_type: file.content_type.clone(),
    };
    let about = About { owner, files: files.iter().map(of_file).collect() };
    write_file(bundle, ABOUT, &serde_json::to_vec(&about)?)?;
    sync(bundle)
}

fn write_file(bundle: &Dir, name: &str, content: &[u8]) -> io::Result<()> {
    let mut file = bundle.open_with(name, OpenOptions::new().write(true).create_new(true))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a directory for good, if it is not there.
fn make_dir(parent: &Dir, name: &str) -> io::Result<()> {
    match parent.create_dir(name) {
        Ok(()) => sync(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// A name is on the disk when its directory is. The handle of a directory is not open for reading,
/// which it takes, so it is opened again.
fn sync(dir: &Dir) -> io::Result<()> {
    dir.open(".")?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, os::unix::fs::symlink};

    use tempfile::TempDir;

    use super::*;

    fn artifacts(dir: &Path) -> Artifacts {
        Artifacts::new(&config::Artifacts { dir: dir.to_owned(), max_bytes: 100 }, "")
    }

    fn owner(task: &str) -> Owner {
        Owner { tenant: "acme".into(), task: task.into() }
    }

    fn file(name: &str) -> NewFile {
        NewFile {
            name: name.into(),
            content_type: "text/plain".into(),
            content: format!("in {name}").into(),
        }
    }

    async fn read(artifacts: &Artifacts, id: BundleId, task: &str, name: &str) -> Option<String> {
        let kept = artifacts.open(id, owner(task), name.into()).await.unwrap();
        kept.map(|mut kept| {
            let mut text = String::new();
            kept.content.read_to_string(&mut text).unwrap();
            text
        })
    }

    /// A bundle of an hour that is long over.
    fn old(dir: &Path, hour: &str, about: &str) -> BundleId {
        let begin: Timestamp = format!("{hour}:00:00Z").parse().unwrap();
        let seconds = u64::try_from(begin.as_second()).unwrap();
        let moment = uuid::Timestamp::from_unix(uuid::NoContext, seconds + 7, 0);
        let id = BundleId(Uuid::new_v7(moment));
        let bundle = dir.join(hour).join(id.to_string());
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join(ABOUT), about).unwrap();
        id
    }

    #[tokio::test]
    async fn what_is_kept_is_read_by_its_name_whatever_that_is() {
        let dir = TempDir::new().unwrap();
        let artifacts = artifacts(&dir.path().join("made/when/needed"));
        let names = ["a", "A", "", "..", "../../a", "/etc/passwd", "a/b", "NUL", "ä", "a\u{308}"];
        let files = names.map(file).to_vec();
        let id = artifacts.keep(owner("1"), files).await.unwrap();
        for name in names {
            assert_eq!(read(&artifacts, id, "1", name).await, Some(format!("in {name}")));
        }
        for other in ["0", ABOUT, "b"] {
            assert_eq!(read(&artifacts, id, "1", other).await, None, "{other}");
        }
    }

    #[tokio::test]
    async fn files_are_their_owners_and_go_with_their_bundle() {
        let dir = TempDir::new().unwrap();
        let artifacts = artifacts(dir.path());
        let id = artifacts.keep(owner("1"), vec![file("a")]).await.unwrap();
        let other = artifacts.keep(owner("1"), vec![file("b")]).await.unwrap();
        assert_eq!(read(&artifacts, id, "2", "a").await, None);
        for _ in 0..2 {
            artifacts.remove(id).await.unwrap();
            assert_eq!(read(&artifacts, id, "1", "a").await, None);
        }
        assert!(read(&artifacts, other, "1", "b").await.is_some());
    }

    #[tokio::test]
    async fn a_symbolic_link_does_not_lead_out_of_the_directory() {
        let (dir, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let artifacts = artifacts(dir.path());
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let id = artifacts.keep(owner("1"), vec![file("a")]).await.unwrap();
        let bundle = dir.path().join(id.hour().unwrap()).join(id.to_string());
        fs::remove_file(bundle.join("0")).unwrap();
        symlink(outside.path().join("secret"), bundle.join("0")).unwrap();
        assert!(artifacts.open(id, owner("1"), "a".into()).await.is_err());
        // Nor does a directory that is one.
        fs::rename(&bundle, outside.path().join("bundle")).unwrap();
        symlink(outside.path().join("bundle"), &bundle).unwrap();
        assert!(artifacts.open(id, owner("1"), "a".into()).await.is_err());
        let _ = artifacts.remove(id).await;
        assert!(outside.path().join("bundle").join(ABOUT).exists());
    }

    #[tokio::test]
    async fn a_walk_comes_by_old_bundles_and_removes_empty_hours() {
        let dir = TempDir::new().unwrap();
        let artifacts = artifacts(dir.path());
        let young = artifacts.keep(owner("young"), vec![file("a")]).await.unwrap();
        let whole = r#"{"tenant":"acme","task":"1","files":[]}"#;
        let first = old(dir.path(), "2020-01-01T23", whole);
        let broken = old(dir.path(), "2020-01-02T00", r#"{"tenant":"#);
        fs::create_dir_all(dir.path().join("2020-01-01T22")).unwrap();
        fs::create_dir_all(dir.path().join("2020-01-02T00/somebody-elses")).unwrap();
        fs::create_dir_all(dir.path().join("somebody-elses/2020-01-02T00")).unwrap();

        let walk = artifacts.walk(Instant::now()).await.unwrap();
        let (walk, found) = walk.next(1).await.unwrap();
        assert_eq!(found, [Found { id: first, owner: Some(owner("1")) }]);
        let (walk, found) = walk.next(100).await.unwrap();
        assert_eq!(found, [Found { id: broken, owner: None }]);
        assert!(walk.next(100).await.unwrap().1.is_empty());
        assert!(!dir.path().join("2020-01-01T22").exists());

        for id in [first, broken] {
            artifacts.remove(id).await.unwrap();
        }
        let walk = artifacts.walk(Instant::now()).await.unwrap();
        assert!(walk.next(100).await.unwrap().1.is_empty());
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let hour = young.hour().unwrap();
        assert_eq!(left, ["2020-01-02T00", &hour, "somebody-elses"]);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_used_is_told_by_its_name() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        assert!(artifacts(&path).problem().is_none(), "it is made when it is needed");
        assert!(artifacts(&path).walk(Instant::now()).await.unwrap().next(1).await.is_ok());
        fs::write(&path, "").unwrap();
        let error = artifacts(&path).keep(owner("1"), vec![file("a")]).await.unwrap_err();
        for error in [error, artifacts(&path).problem().unwrap()] {
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}
