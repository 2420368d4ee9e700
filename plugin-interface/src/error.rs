//! What a store answers when it cannot do what was asked.

use std::fmt;

use abi_stable::{
    StableAbi,
    std_types::{RBox, RString, RVec},
};

/// What a store's operations return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed: its kind, a message for people, and the chain of its causes.
///
/// Whether trying again can help follows from the kind, unless [`Error::retryable`] says otherwise.
/// `Display` is one line; `Debug` adds the causes, one a line.
#[repr(transparent)]
#[derive(StableAbi, Clone, PartialEq, Eq)]
pub struct Error(RBox<Detail>);

#[repr(C)]
#[doc(hidden)]
#[derive(StableAbi, Clone, PartialEq, Eq)]
pub struct Detail {
    // A number rather than the enum: a newer library may know kinds that this one does not.
    kind: u8,
    retryable: bool,
    message: RString,
    causes: RVec<RString>,
}

/// The kinds of failure.
#[non_exhaustive]
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such record. Answer 404; a retry cannot help.
    NotFound = 1,
    /// A record of that id is there already. Choose another id.
    AlreadyExists = 2,
    /// Somebody else holds the task, or it was delivered again since. Drop the work.
    NotOwner = 3,
    /// The task is not leased to anybody. Drop the work.
    NotInProgress = 4,
    /// The request makes no sense to the store. Mend the request.
    InvalidArgument = 5,
    /// The configuration makes no sense to the store; the message names the key. Mend it.
    InvalidConfig = 6,
    /// The backend cannot be reached or refuses to work. Try again later.
    Unavailable = 7,
    /// The backend did not answer in time; what was asked may have been done. Try again.
    Timeout = 8,
    /// A stored record cannot be read; the message names its key. An operator has to look.
    Corrupt = 9,
    /// The store does not have this operation; see its capabilities.
    Unsupported = 10,
    /// The store was closed.
    Closed = 11,
    /// A fault in the plugin itself. Report it to the plugin's author.
    Internal = 12,
}

impl ErrorKind {
    const ALL: [ErrorKind; 12] = [
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::NotOwner,
        ErrorKind::NotInProgress,
        ErrorKind::InvalidArgument,
        ErrorKind::InvalidConfig,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::Corrupt,
        ErrorKind::Unsupported,
        ErrorKind::Closed,
        ErrorKind::Internal,
    ];

    /// The kind's name as clients see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not-found",
            ErrorKind::AlreadyExists => "already-exists",
            ErrorKind::NotOwner => "not-owner",
            ErrorKind::NotInProgress => "not-in-progress",
            ErrorKind::InvalidArgument => "invalid-argument",
            ErrorKind::InvalidConfig => "invalid-config",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Closed => "closed",
            ErrorKind::Internal => "internal",
        }
    }

    /// Whether an operation that failed so may succeed when it is tried again unchanged.
    pub const fn is_retryable(self) -> bool {
        matches!(self, ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident: $kind:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(message: impl Into<RString>) -> Error {
                Error::new(ErrorKind::$kind, message)
            }
        )*
    };
}

impl Error {
    /// An error of `kind` with a message for people: lower case, naming the value at fault.
    pub fn new(kind: ErrorKind, message: impl Into<RString>) -> Error {
        Error(RBox::new(Detail {
            kind: kind as u8,
            retryable: kind.is_retryable(),
            message: message.into(),
            causes: RVec::new(),
        }))
    }

    constructors! {
        /// There is no such record.
        not_found: NotFound;
        /// A record of that id is there already.
        already_exists: AlreadyExists;
        /// Somebody else holds the task, or it was delivered again since.
        not_owner: NotOwner;
        /// The task is not leased to anybody.
        not_in_progress: NotInProgress;
        /// The request makes no sense to the store.
        invalid_argument: InvalidArgument;
        /// The configuration makes no sense to the store; name the key.
        invalid_config: InvalidConfig;
        /// The backend cannot be reached or refuses to work.
        unavailable: Unavailable;
        /// The backend did not answer in time.
        timeout: Timeout;
        /// A stored record cannot be read; name its key.
        corrupt: Corrupt;
        /// The store does not have this operation; name it.
        unsupported: Unsupported;
        /// A fault in the plugin itself.
        internal: Internal;
    }

    /// The store was closed.
    pub fn closed() -> Error {
        Error::new(ErrorKind::Closed, "the store is closed")
    }

    /// Adds `cause` and the chain of its sources.
    #[must_use]
    pub fn because(mut self, cause: &dyn std::error::Error) -> Error {
        let mut next = Some(cause);
        while let Some(cause) = next {
            self.0.causes.push(cause.to_string().into());
            next = cause.source();
        }
        self
    }

    /// Says whether trying again can help, where the kind alone does not tell.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Error {
        self.0.retryable = retryable;
        self
    }

    /// The kind of failure. A kind that only a newer interface knows is [`ErrorKind::Internal`].
    pub fn kind(&self) -> ErrorKind {
        let known = ErrorKind::ALL.into_iter().find(|kind| *kind as u8 == self.0.kind);
        known.unwrap_or(ErrorKind::Internal)
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The causes, nearest first.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.0.causes.iter().map(RString::as_str)
    }

    /// Whether the operation may succeed when it is tried again unchanged.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        self.causes().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retry = if self.is_retryable() { ", a retry can help" } else { "" };
        write!(f, "{} ({}{retry})", self.0.message, self.kind())?;
        self.causes().try_for_each(|cause| write!(f, "\n  caused by: {cause}"))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_number() {
        for kind in ErrorKind::ALL {
            assert_eq!(Error::new(kind, "x").kind(), kind);
        }
    }

    #[test]
    fn display_is_one_line_and_debug_tells_the_causes() {
        let io = std::io::Error::other("connection refused");
        let error = Error::unavailable("cannot reach localhost:1").because(&io);
        assert_eq!(error.to_string(), "cannot reach localhost:1: connection refused");
        assert!(format!("{error:?}").ends_with("\n  caused by: connection refused"));
        assert!(error.is_retryable());
    }
}
