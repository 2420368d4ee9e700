//! Published keys.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The keys that an issuer signs with.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

/// A key, and what it may sign.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// A key as it is published (RFC 7517). What it may be besides those that can be used here is no
/// error.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// At most how many keys are looked at.
const MOST_KEYS: usize = 100;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

impl Keys {
    /// The keys of a document that can be used here.
    pub(super) fn read(document: &[u8]) -> Result<Keys, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| format!("the answer is no set of keys: {error}"))?;
        let jwks =
            document.keys.iter().take(MOST_KEYS).filter_map(|key| Jwk::deserialize(key).ok());
        let keys = jwks.filter_map(Key::new).collect::<Vec<_>>();
        if keys.is_empty() {
            return Err(format!(
                "of its {} keys none is for signatures that this host can check",
                document.keys.len()
            ));
        }
        Ok(Keys(keys))
    }

    /// The keys of an id; all of them for a token that names none.
    pub(super) fn named(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn new(jwk: Jwk) -> Option<Key> {
        let is_for_signatures = jwk.r#use.as_deref().is_none_or(|purpose| purpose == "sig");
        let may_verify = jwk
            .key_ops
            .as_ref()
            .is_none_or(|operations| operations.iter().any(|op| op == "verify"));
        if !is_for_signatures || !may_verify {
            return None;
        }
        let (mut algorithms, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => (RSA.to_vec(), DecodingKey::from_rsa_components(&jwk.n?, &jwk.e?)),
            ("EC", Some("P-256")) => {
                (vec![Algorithm::ES256], DecodingKey::from_ec_components(&jwk.x?, &jwk.y?))
            }
            ("EC", Some("P-384")) => {
                (vec![Algorithm::ES384], DecodingKey::from_ec_components(&jwk.x?, &jwk.y?))
            }
            ("OKP", Some("Ed25519")) => {
                (vec![Algorithm::EdDSA], DecodingKey::from_ed_components(&jwk.x?))
            }
            _ => return None,
        };
        if let Some(only) = &jwk.alg {
            algorithms.retain(|algorithm| only.parse() == Ok(*algorithm));
        }
        let id = jwk.kid.filter(|id| !id.is_empty());
        Some(Key { id, algorithms, decoding: decoding.ok()? })
            .filter(|key| !key.algorithms.is_empty())
    }

    pub(super) fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(keys: Value) -> Result<Keys, String> {
        Keys::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn algorithms(key: Value) -> Vec<Algorithm> {
        keys(json!([key])).map(|keys| keys.0[0].algorithms.clone()).unwrap_or_default()
    }

    #[test]
    fn a_key_takes_the_algorithms_of_its_kind_or_the_one_it_names() {
        let rsa = |more: Value| {
            let mut key = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" });
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            algorithms(key)
        };
        assert_eq!(rsa(json!({})), RSA);
        assert_eq!(rsa(json!({ "alg": "PS384", "use": "sig" })), [Algorithm::PS384]);
        assert_eq!(rsa(json!({ "key_ops": ["verify"] })), RSA);
        for none in [
            json!({ "alg": "RSA-OAEP" }),
            json!({ "alg": "HS256" }),
            json!({ "alg": "ES256" }),
            json!({ "use": "enc" }),
            json!({ "key_ops": ["encrypt"] }),
            json!({ "n": null }),
            json!({ "n": "!" }),
        ] {
            assert_eq!(rsa(none.clone()), [], "{none}");
        }
        let curve = |kty: &str, crv: &str| {
            algorithms(json!({ "kty": kty, "crv": crv, "x": "AQAB", "y": "AQAB" }))
        };
        assert_eq!(curve("EC", "P-256"), [Algorithm::ES256]);
        assert_eq!(curve("EC", "P-384"), [Algorithm::ES384]);
        assert_eq!(curve("OKP", "Ed25519"), [Algorithm::EdDSA]);
        for (kty, crv) in [("EC", "P-521"), ("EC", "secp256k1"), ("OKP", "Ed448"), ("AKP", "x")] {
            assert_eq!(curve(kty, crv), [], "{kty} {crv}");
        }
        assert_eq!(algorithms(json!({ "kty": "oct", "k": "AQAB" })), []);
    }

    #[test]
    fn what_cannot_be_used_does_not_spoil_the_rest() {
        let good = json!({ "kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB" });
        let keys = keys(json!([7, {}, { "kty": "oct", "k": "x" }, good])).unwrap();
        assert_eq!((keys.len(), keys.named(Some("a")).count()), (1, 1));
        assert_eq!((keys.named(None).count(), keys.named(Some("b")).count()), (1, 0));
    }

    #[test]
    fn a_document_without_keys_is_refused() {
        assert!(keys(json!([])).unwrap_err().contains("of its 0 keys none"));
        assert!(Keys::read(b"<html>").unwrap_err().contains("no set of keys"));
    }
}
