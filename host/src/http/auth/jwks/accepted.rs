//! Tokens that were accepted a moment ago.
//!
//! To check a signature takes tens of microseconds, for some algorithms a millisecond, and callers
//! show the same token again and again. What was accepted counts for a moment, never beyond its end,
//! and only as long as the keys are the ones that it was checked with.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::key::Keys;
use crate::http::auth::claims::Claims;

/// The tokens, by their digests.
#[derive(Debug, Default)]
pub(super) struct Accepted(Mutex<Checked>);

#[derive(Debug, Default)]
struct Checked {
    /// What the tokens were checked with.
    keys: Option<Arc<Keys>>,
    tokens: HashMap<Digest, (Arc<Claims>, Instant)>,
}

pub(super) type Digest = [u8; 32];

/// At most how long a token is not checked again.
const LIFETIME: Duration = Duration::from_secs(60);

/// At most how many tokens are kept.
const MOST_TOKENS: usize = 1024;

impl Accepted {
    /// The bearer of a token that these keys were found to have signed.
    pub(super) fn get(&self, token: &Digest, keys: &Arc<Keys>) -> Option<Arc<Claims>> {
        let checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (claims, until) = checked.tokens.get(token)?;
        let counts = checked.is_by(keys) && Instant::now() < *until;
        counts.then(|| Arc::clone(claims))
    }

    /// Keeps a token that these keys have signed, and that ends after `rest`.
    pub(super) fn put(&self, token: Digest, keys: &Arc<Keys>, claims: Arc<Claims>, rest: Duration) {
        let now = Instant::now();
        let mut checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !checked.is_by(keys) {
            *checked = Checked { keys: Some(Arc::clone(keys)), tokens: HashMap::new() };
        }
        if checked.tokens.len() >= MOST_TOKENS {
            checked.tokens.retain(|_, (_, until)| now < *until);
        }
        if checked.tokens.len() >= MOST_TOKENS {
            checked.tokens.clear();
        }
        checked.tokens.insert(token, (claims, now + rest.min(LIFETIME)));
    }
}

impl Checked {
    fn is_by(&self, keys: &Arc<Keys>) -> bool {
        self.keys.as_ref().is_some_and(|own| Arc::ptr_eq(own, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Arc<Keys> {
        let document = br#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
        Arc::new(Keys::read(document).unwrap())
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_counts_until_it_ends_and_only_with_the_same_keys() {
        let (accepted, old, new) = (Accepted::default(), keys(), keys());
        accepted.put([1; 32], &old, Arc::default(), LONG);
        accepted.put([2; 32], &old, Arc::default(), Duration::ZERO);
        assert!(accepted.get(&[1; 32], &old).is_some());
        assert!(accepted.get(&[2; 32], &old).is_none(), "it has ended");
        assert!(accepted.get(&[3; 32], &old).is_none(), "nobody has seen it");
        assert!(accepted.get(&[1; 32], &new).is_none(), "its key may have been withdrawn");
        accepted.put([3; 32], &new, Arc::default(), LONG);
        assert!(accepted.get(&[1; 32], &old).is_none());
    }

    #[test]
    fn not_more_than_so_many_tokens_are_kept() {
        let (accepted, keys) = (Accepted::default(), keys());
        for n in 0..=MOST_TOKENS {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            accepted.put(digest, &keys, Arc::default(), LONG);
            assert!(accepted.get(&digest, &keys).is_some());
        }
        assert!(accepted.0.lock().unwrap().tokens.len() <= MOST_TOKENS);
    }
}
