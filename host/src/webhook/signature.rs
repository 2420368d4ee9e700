//! Signatures, by which a receiver knows that a call comes from here.

use std::{fmt::Write, sync::Arc};

use codeq_plugin::Instant;
use hmac::{Hmac, KeyInit, Mac, digest::InvalidLength};
use sha2::Sha256;

/// Signs with one secret.
#[derive(Clone)]
pub(super) struct Signer(Arc<Hmac<Sha256>>);

/// What a receiver needs to check a body.
pub(super) struct Signed {
    /// Unix seconds.
    pub(super) timestamp: String,
    /// HMAC-SHA256 of the timestamp, a dot and the body, in hexadecimal.
    pub(super) signature: String,
}

impl Signer {
    pub(super) fn new(secret: &str) -> Result<Signer, InvalidLength> {
        Ok(Signer(Arc::new(Hmac::new_from_slice(secret.as_bytes())?)))
    }

    /// Signs a body, now.
    pub(super) fn sign(&self, body: &[u8]) -> Signed {
        let timestamp = Instant::now().0.div_euclid(1000).to_string();
        let signature = self.signature(&timestamp, body);
        Signed { timestamp, signature }
    }

    fn signature(&self, timestamp: &str, body: &[u8]) -> String {
        let mut mac = Hmac::clone(&self.0);
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.finalize().into_bytes().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a text cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_hmac_of_timestamp_dot_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            Signer::new("secret").unwrap().signature("1700000000", br#"{"a":1}"#),
            "49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
        );
    }
}
