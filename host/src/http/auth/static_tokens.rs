//! The provider `static`: tokens that the configuration lists.
//!
//! They are kept and compared as digests, and each is compared with all of them, so that the time it
//! takes tells nothing.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::{LONGEST_TOKEN, claims::Claims};

/// Tokens and their bearers.
#[derive(Debug, Default)]
pub(super) struct StaticTokens(Vec<StaticToken>);

#[derive(Debug)]
struct StaticToken {
    digest: [u8; 32],
    claims: Arc<Claims>,
}

/// A token and its bearer as they are configured.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Entry {
    token: Value,
    subject: String,
    #[serde(rename = "email")]
    _email: String,
    scopes: Vec<String>,
    event_types: Vec<String>,
    raw: Map<String, Value>,
}

impl StaticTokens {
    /// Adds what a configuration lists: a text, a mapping with its `token`, a list of these, or such
    /// a list called `tokens`. Messages never show a token.
    pub(super) fn add(&mut self, config: &Value) -> Result<(), String> {
        let entries = match config {
            Value::Object(mapping) if mapping.contains_key("tokens") => {
                if mapping.len() > 1 {
                    return Err("has `tokens` beside other keys: put them into its entries".into());
                }
                mapping.get("tokens").and_then(Value::as_array).ok_or("needs a list of `tokens`")?
            }
            Value::Array(entries) => entries,
            entry => return self.add_entry(entry),
        };
        if entries.is_empty() {
            return Err("lists no token: list at least one".into());
        }
        for (index, entry) in entries.iter().enumerate() {
            self.add_entry(entry)
                .map_err(|problem| format!("at token {}: {problem}", index + 1))?;
        }
        Ok(())
    }

    fn add_entry(&mut self, entry: &Value) -> Result<(), String> {
        let (token, claims) = match entry {
            // No token can have these; shown to be one, it would let nobody in, or somebody who
            // knows the configuration.
            Value::String(token) if token.trim_start().starts_with(['{', '[']) => {
                return Err("begins like JSON: write a mapping with a `token` instead".into());
            }
            // Just the token: its bearer may do all that a worker may.
            Value::String(token) => (token.clone(), Claims::default().as_worker()),
            Value::Object(_) => {
                let entry = Entry::deserialize(entry)
                    .map_err(|error| format!("cannot be used: {error}"))?;
                let token = match entry.token {
                    Value::String(token) => token,
                    Value::Null => String::new(),
                    _ => return Err("needs a `token` that is a text: put it in quotes".into()),
                };
                let Entry { subject, scopes, event_types, raw, .. } = entry;
                (token, Claims { subject: subject.trim().to_owned(), scopes, event_types, raw })
            }
            _ => return Err("must be a token as a text, or a mapping with a `token`".into()),
        };
        let token = token.trim();
        if token.is_empty() {
            return Err("needs a `token` that is not empty".into());
        }
        if token.len() > LONGEST_TOKEN {
            return Err(format!("has a `token` of more than {LONGEST_TOKEN} bytes"));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if self.0.iter().any(|known| known.digest == digest) {
            return Err("has a `token` that is there twice: whose is it?".into());
        }
        let subject = if claims.subject.is_empty() { "static".into() } else { claims.subject };
        self.0.push(StaticToken { digest, claims: Arc::new(Claims { subject, ..claims }) });
        Ok(())
    }

    /// The bearer of a token.
    pub(super) fn get(&self, token: &str) -> Option<&Arc<Claims>> {
        if self.0.is_empty() {
            return None;
        }
        let presented: [u8; 32] = Sha256::digest(token).into();
        let mut bearer = None;
        for known in &self.0 {
            if bool::from(presented.ct_eq(&known.digest)) {
                bearer = Some(&known.claims);
            }
        }
        bearer
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{AuthProvider, tokens_of_no_tenant};

    fn tokens(config: &Value) -> Result<StaticTokens, String> {
        let mut tokens = StaticTokens::default();
        tokens.add(config).map(|()| tokens)
    }

    #[test]
    fn a_list_may_mix_texts_and_mappings() {
        let list = json!(["one", { "token": "two", "subject": "ann" }]);
        for config in [list.clone(), json!({ "tokens": list })] {
            let tokens = tokens(&config).unwrap();
            let subject = |token| tokens.get(token).map(|claims| claims.subject.as_str());
            assert_eq!(subject("one"), Some("static"));
            assert_eq!(subject("two"), Some("ann"));
            assert_eq!((subject("three"), subject("")), (None, None));
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_without_the_token() {
        let long = "s3cret".repeat(LONGEST_TOKEN);
        for (config, told) in [
            (json!({}), "needs a `token` that is not empty"),
            (json!([]), "lists no token"),
            (json!({ "tokens": "s3cret" }), "needs a list of `tokens`"),
            (json!({ "tokens": ["s3cret"], "subject": "me" }), "beside other keys"),
            (json!(["s3cret", "s3cret"]), "at token 2: has a `token` that is there twice"),
            (json!(["s3cret", { "token": " s3cret " }]), "there twice"),
            (json!([["s3cret", "me"]]), "at token 1: must be a token"),
            (json!([73]), "must be a token"),
            (json!(r#"{"token":"s3cret"}"#), "begins like JSON"),
            (json!(["[\"s3cret\"]"]), "at token 1: begins like JSON"),
            (json!({ "token": 73, "subject": "s" }), "put it in quotes"),
            (json!({ "token": "s3cret", "scope": "x" }), "unknown field `scope`"),
            (json!(long), "more than 16384 bytes"),
        ] {
            let problem = tokens(&config).unwrap_err();
            assert!(problem.contains(told), "{problem}");
            assert!(!problem.contains("s3cret") && !problem.contains("73"), "{problem}");
        }
    }

    #[test]
    fn a_start_warns_of_just_the_tokens_that_requests_are_refused_with() {
        for subject in ["ann", "", "Ann", "ann@example.org", "a", "7up", "a-1", &"a".repeat(64)] {
            for raw in [
                json!({}),
                json!({ "email": "x" }),
                json!({ "tenantId": "acme" }),
                json!({ "tid": "acme", "organization_id": " acme " }),
                json!({ "tid": "acme", "tenant_id": "globex" }),
                json!({ "organizationId": "Acme" }),
                json!({ "tid": null }),
            ] {
                let config = json!({ "token": "token", "subject": subject, "raw": raw });
                let told = tokens_of_no_tenant(&AuthProvider {
                    name: "static".into(),
                    config: config.clone(),
                });
                let refused = tokens(&config).unwrap().get("token").unwrap().tenant().is_err();
                assert_eq!(!told.is_empty(), refused, "{config}");
            }
        }
    }
}
