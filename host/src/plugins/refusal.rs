//! Why a library is not fit to be loaded.

use std::path::{Path, PathBuf};

use codeq_plugin::manifest::{INTERFACE_MAJOR, INTERFACE_MINOR, InterfaceVersion};
use thiserror::Error;

/// A library that was not loaded, and why.
#[derive(Debug, Error)]
#[error("{}: {kind}", path.display())]
pub struct Refusal {
    /// The library or directory.
    pub path: PathBuf,
    /// Why it was refused.
    #[source]
    pub kind: RefusalKind,
}

impl Refusal {
    pub(crate) fn new(path: &Path, kind: RefusalKind) -> Refusal {
        Refusal { path: path.to_owned(), kind }
    }

    /// A code that stays the same from version to version, for scripts and for looking it up.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

/// Why a library was refused. Each message says what was found and what to do.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum RefusalKind {
    /// `P-READ`
    #[error("it cannot be read: {0}; check that the file is there and readable")]
    Unreadable(#[source] std::io::Error),
    /// `P-EMPTY`
    #[error("the file is empty; copy the plugin again")]
    Empty,
    /// `P-NOT-LIBRARY`
    #[error("it is not a shared library ({0}); only compiled plugins belong in a plugin directory")]
    NotALibrary(&'static str),
    /// `P-TRUNCATED`
    #[error("the library is cut off or damaged ({0}); copy the plugin again")]
    Truncated(String),
    /// `P-TARGET`
    #[error("it was built for {found}, this host runs on {needed}; build the plugin for {needed}")]
    OtherTarget {
        /// What the library says.
        found: String,
        /// What would be right.
        needed: String,
    },
    /// `P-NO-MANIFEST`
    #[error(
        "it is a library but no codeQ plugin: it has no manifest; export it with `codeq_plugin::export_plugin!`"
    )]
    NoManifest,
    /// `P-MANIFEST`
    #[error(
        "its manifest cannot be used: {0}; build the plugin again with a released `codeq-plugin`"
    )]
    BadManifest(String),
    /// `P-INTERFACE`
    #[error(
        "it was built for plugin interface {}.{}, this host has {INTERFACE_MAJOR}.{INTERFACE_MINOR}; \
         build it against `codeq-plugin` of interface {INTERFACE_MAJOR}.x", found.major, found.minor
    )]
    OtherInterface {
        /// What the plugin was built against.
        found: InterfaceVersion,
    },
    /// `P-PANIC`
    #[error(
        "it was built with panic=\"{0}\", so its first panic would end the host; build it with panic=\"unwind\""
    )]
    PanicAborts(String),
    /// `P-DUPLICATE`
    #[error("its name `{name}` is taken by {}, which comes first; remove one of the two", first.display())]
    DuplicateName {
        /// The plugin's name.
        name: String,
        /// The library that has the name.
        first: PathBuf,
    },
    /// `P-PERMISSIONS`
    #[error(
        "{what} may be changed by others ({why}), who could make the host run their code; {remedy}"
    )]
    WritableByOthers {
        /// The file or its directory.
        what: &'static str,
        /// Mode or owner.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// `P-DIGEST`
    #[error(
        "its SHA-256 is {found}, the configuration pins {pinned}; install the pinned version or change `pluginDigests`"
    )]
    OtherDigest {
        /// Of the file.
        found: String,
        /// In the configuration.
        pinned: String,
    },
    /// `P-LOAD`
    #[error("the system's loader refused it: {0}")]
    LoaderRefused(String),
    /// `P-LAYOUT`
    #[error("its manifest says interface {}.{}, but its records are laid out differently: {reason}; build it against the released `codeq-plugin`", found.major, found.minor)]
    OtherLayout {
        /// What the plugin says.
        found: InterfaceVersion,
        /// Where the first difference is.
        reason: String,
    },
}

impl RefusalKind {
    /// See [`Refusal::code`].
    pub fn code(&self) -> &'static str {
        match self {
            RefusalKind::Unreadable(_) => "P-READ",
            RefusalKind::Empty => "P-EMPTY",
            RefusalKind::NotALibrary(_) => "P-NOT-LIBRARY",
            RefusalKind::Truncated(_) => "P-TRUNCATED",
            RefusalKind::OtherTarget { .. } => "P-TARGET",
            RefusalKind::NoManifest => "P-NO-MANIFEST",
            RefusalKind::BadManifest(_) => "P-MANIFEST",
            RefusalKind::OtherInterface { .. } => "P-INTERFACE",
            RefusalKind::PanicAborts(_) => "P-PANIC",
            RefusalKind::DuplicateName { .. } => "P-DUPLICATE",
            RefusalKind::WritableByOthers { .. } => "P-PERMISSIONS",
            RefusalKind::OtherDigest { .. } => "P-DIGEST",
            RefusalKind::LoaderRefused(_) => "P-LOAD",
            RefusalKind::OtherLayout { .. } => "P-LAYOUT",
        }
    }
}
