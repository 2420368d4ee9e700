//! Copying what a plugin keeps.

use std::path::{Path, PathBuf};

use codeq_plugin::{BackedUp, Capability, Error, ErrorKind};
use serde_json::Value;
use thiserror::Error as ThisError;

use super::{
    OpenError, OpenOptions, Plugins,
    open::{context, load_checked},
};

/// Why there is no backup.
#[non_exhaustive]
#[derive(Debug, ThisError)]
pub enum BackupError {
    /// The plugin cannot be used at all, as configured.
    #[error("{}: {error}", error.code())]
    Unusable {
        /// Why.
        #[source]
        error: OpenError,
    },
    /// The plugin makes none.
    #[error(
        "plugin `{name}` makes no backups: it has no capability `backup`; if it keeps its tasks in a \
         server, back up its server by that server's own means"
    )]
    Unsupported {
        /// The plugin.
        name: String,
    },
    /// The path cannot be told to a plugin.
    #[error("{} is no UTF-8 text; name a path that is", .0.display())]
    NotText(PathBuf),
    /// Something is there already.
    #[error("{} is there already; name a path where nothing is", .0.display())]
    Taken(PathBuf),
    /// The plugin could not do it.
    #[error("plugin `{name}` could not make the backup: {error}")]
    Plugin {
        /// The plugin.
        name: String,
        /// What it says.
        #[source]
        error: Error,
    },
}

impl BackupError {
    /// Whether the configuration or the path is to blame, rather than the plugin or its backend.
    pub fn is_usage(&self) -> bool {
        match self {
            BackupError::Unusable { error } => error.is_configuration(),
            BackupError::Unsupported { .. } => false,
            BackupError::NotText(_) | BackupError::Taken(_) => true,
            BackupError::Plugin { error, .. } => matches!(
                error.kind(),
                ErrorKind::InvalidConfig | ErrorKind::InvalidArgument | ErrorKind::AlreadyExists
            ),
        }
    }
}

impl Plugins {
    /// Has the plugin called `name` copy all that it keeps, as configured, to a path where nothing is.
    /// Hosts may use it meanwhile.
    ///
    /// It may take as long as it takes, and a plugin that answers at once does it on this thread: this
    /// is for a process of its own.
    ///
    /// # Errors
    ///
    /// See [`BackupError`].
    pub async fn backup(
        self,
        name: &str,
        config: &Value,
        options: &OpenOptions,
        to: &Path,
    ) -> Result<BackedUp, BackupError> {
        let unusable = |error| BackupError::Unusable { error };
        let unsupported = || BackupError::Unsupported { name: name.into() };
        let (found, contents) = self.checked(name, config, options).map_err(unusable)?;
        if !contents.manifest.has(Capability::Backup) {
            return Err(unsupported());
        }
        let text = to.to_str().ok_or_else(|| BackupError::NotText(to.into()))?;
        // The plugin refuses it, too; here it is known before any of the plugin runs.
        if to.symlink_metadata().is_ok() {
            return Err(BackupError::Taken(to.into()));
        }
        let module = load_checked(&found, &contents).map_err(unusable)?;
        // A library from before there were backups has no such function, whatever its manifest says.
        let backup = module.backup().ok_or_else(unsupported)?;
        let made = backup(config.to_string().into(), context(name, options), text.into());
        // Without the limit of a call: this is as long as there is much to copy.
        made.settled().await.map_err(|error| BackupError::Plugin { name: name.into(), error })
    }
}
