//! Why the service did not do what was asked.

use codeq_plugin::{Error, ErrorKind};
use thiserror::Error as ThisError;

use crate::store::StoreError;

/// Why the service did not do what was asked. `Display` is for the caller.
#[derive(Clone, Debug, ThisError)]
pub enum ServiceError {
    /// The request makes no sense; the message says what would.
    #[error("{0}")]
    Invalid(String),
    /// There is no such task, or it is another tenant's.
    #[error("{0}")]
    NotFound(&'static str),
    /// Somebody else holds the task.
    #[error("not-owner")]
    NotOwner,
    /// Nobody holds the task.
    #[error("not-in-progress")]
    NotInProgress,
    /// There is a task of that id.
    #[error("already-exists")]
    AlreadyExists,
    /// The task's state does not allow it; the message is a code that clients know.
    #[error("{0}")]
    Conflict(&'static str),
    /// The plugin does not have the capability that it takes.
    #[error("the persistence plugin `{plugin}` lacks the capability `{capability}`")]
    Unsupported {
        /// The plugin's name.
        plugin: String,
        /// What it lacks.
        capability: &'static str,
    },
    /// A file of a result cannot be kept, or read, now; the log says why.
    #[error("artifacts cannot be kept or read now")]
    Artifacts,
    /// The backend cannot do it now; the same request may succeed later.
    #[error("the backend is unavailable: {0}")]
    Unavailable(StoreError),
    /// The store failed in a way that another try does not mend.
    #[error("the backend failed: {0}")]
    Failed(StoreError),
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> ServiceError {
        match error.kind() {
            ErrorKind::NotFound => ServiceError::NotFound("not-found"),
            ErrorKind::NotOwner => ServiceError::NotOwner,
            ErrorKind::NotInProgress => ServiceError::NotInProgress,
            ErrorKind::AlreadyExists => ServiceError::AlreadyExists,
            ErrorKind::InvalidArgument => ServiceError::Invalid(error.error.message().to_owned()),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Closed => {
                ServiceError::Unavailable(error)
            }
            _ if error.error.is_retryable() => ServiceError::Unavailable(error),
            _ => ServiceError::Failed(error),
        }
    }
}

impl ServiceError {
    /// The error of one item of a batch.
    pub(crate) fn of_item(plugin: &str, error: Error) -> ServiceError {
        StoreError { plugin: plugin.to_owned(), error }.into()
    }
}
