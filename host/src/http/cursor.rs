//! Cursors of listings, as clients see them: safe in a URL, and good for the listing that made them.
//!
//! In front of the store's own cursor stands a digest of both. It tells what was mangled on its way,
//! or comes from another listing, from what the store made; it keeps no secret, and the store lists
//! nothing but the caller's tenant whatever its cursor says.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// How many bytes of the digest a cursor carries.
const DIGEST: usize = 8;

/// The listing that cursors belong to.
pub(crate) struct Listing(Sha256);

impl Listing {
    /// The listing that is told apart from others by these.
    pub(crate) fn of(parts: &[&str]) -> Listing {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Listing(digest)
    }

    /// What stands for a cursor of the store's; nothing for that of the last page.
    pub(crate) fn write(&self, cursor: &str) -> Option<String> {
        let bytes = [&self.digest(cursor)[..], cursor.as_bytes()].concat();
        (!cursor.is_empty()).then(|| URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The store's cursor for what stands for it; that of the first page if nothing does.
    pub(crate) fn read(&self, text: &str) -> Result<String, ApiError> {
        if text.is_empty() {
            return Ok(String::new());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes
            .as_deref()
            .and_then(|bytes| bytes.split_first_chunk::<DIGEST>())
            .and_then(|(digest, cursor)| Some((digest, std::str::from_utf8(cursor).ok()?)))
            .filter(|(digest, cursor)| **digest == self.digest(cursor))
            .map(|(_, cursor)| cursor.to_owned())
            .ok_or_else(invalid_cursor)
    }

    fn digest(&self, cursor: &str) -> [u8; DIGEST] {
        let mut digest = [0; DIGEST];
        digest.copy_from_slice(&self.0.clone().chain_update(cursor).finalize()[..DIGEST]);
        digest
    }
}

pub(crate) fn invalid_cursor() -> ApiError {
    ApiError::bad_request("invalid 'cursor'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_by_the_listing_that_wrote_it_and_by_no_other() {
        let listing = Listing::of(&["acme", "render", "dlq"]);
        let cursor = r#"["acme","ré\u0000nder",3,-1,7]"#;
        let written = listing.write(cursor).unwrap();
        assert!(written.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_eq!(listing.read(&written).unwrap(), cursor);
        for other in [["acme", "render", "ready"], ["acm", "erender", "dlq"]] {
            assert!(Listing::of(&other).read(&written).is_err(), "{other:?}");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let listing = Listing::of(&[]);
        let written = listing.write("cursor").unwrap();
        for text in ["x", "[]", "%%%", "AAAAAAAAAAA", &written[1..], &format!("{written}A")] {
            assert!(listing.read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_page_and_the_last_have_none() {
        let listing = Listing::of(&[]);
        assert_eq!(listing.read("").unwrap(), "");
        assert_eq!(listing.write(""), None);
    }
}
