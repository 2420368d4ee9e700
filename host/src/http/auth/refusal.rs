//! Why a token was not accepted.

use crate::http::error::ApiError;

/// Why a token was not accepted, in the order of how far it came: where several providers were
/// asked, the greatest tells most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// Nobody knows it.
    Unknown,
    /// It is signed by an algorithm that is not taken, or that does not fit its key.
    Algorithm,
    /// It names no key, and there are too many to try.
    MissingKeyId,
    /// It is signed with a key that nobody published.
    Key,
    /// Its signature is not that of its key.
    Signature,
    /// It is genuine, but says something of its bearer that does not do.
    Claims(&'static str),
    /// It may be good: the keys to tell cannot be had for so many seconds.
    Unavailable(u64),
}

impl Refusal {
    /// Whether nobody can tell yet.
    pub(super) fn is_unavailable(self) -> bool {
        matches!(self, Refusal::Unavailable(_))
    }
}

/// The texts are those of codeQ where it has one.
impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::Unknown => ApiError::unauthorized("invalid token"),
            Refusal::Algorithm => ApiError::unauthorized("unsupported alg"),
            Refusal::MissingKeyId => ApiError::unauthorized("missing kid"),
            Refusal::Key => ApiError::unauthorized("unknown kid"),
            Refusal::Signature => ApiError::unauthorized("invalid signature"),
            Refusal::Claims(text) => ApiError::unauthorized(text),
            Refusal::Unavailable(seconds) => {
                ApiError::unavailable("the keys to check tokens with are unavailable", seconds)
            }
        }
    }
}
