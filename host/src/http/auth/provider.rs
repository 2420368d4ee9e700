//! The providers: `static`, `jwks`, and `multi`, which is several of these.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{AuthError, claims::Claims, jwks::Jwks, refusal::Refusal, static_tokens::StaticTokens};
use crate::config::AuthProvider;

/// Who may be a producer, or a worker.
#[derive(Debug, Default)]
pub(super) struct Provider {
    tokens: StaticTokens,
    signed: Vec<Jwks>,
}

/// As codeQ has them below `multi`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    r#type: String,
    #[serde(default)]
    config: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Multi {
    providers: Vec<Nested>,
}

/// At most how many providers a `multi` has: each may be asked for every token.
const MOST_PROVIDERS: usize = 16;

impl Provider {
    pub(super) fn new(configured: &AuthProvider, key: &str) -> Result<Provider, AuthError> {
        let mut provider = Provider::default();
        if configured.name != "multi" {
            provider.add(&configured.name, &configured.config, key)?;
            return Ok(provider);
        }
        let fail =
            |problem: String| AuthError { key: key.into(), provider: "multi".into(), problem };
        let multi = Multi::deserialize(&configured.config)
            .map_err(|error| fail(format!("cannot be used: {error}")))?;
        if !(1..=MOST_PROVIDERS).contains(&multi.providers.len()) {
            return Err(fail(format!("needs 1 to {MOST_PROVIDERS} `providers`")));
        }
        for (index, nested) in multi.providers.iter().enumerate() {
            let key = format!("{key}.providers[{index}].config");
            provider.add(nested.r#type.trim(), &nested.config, &key)?;
        }
        Ok(provider)
    }

    fn add(&mut self, name: &str, config: &Value, key: &str) -> Result<(), AuthError> {
        let added = match name {
            "static" => self.tokens.add(config),
            "jwks" => Jwks::new(config).map(|jwks| self.signed.push(jwks)),
            _ => Err("is not known: there are `static` and `jwks`".into()),
        };
        added.map_err(|problem| AuthError { key: key.into(), provider: name.into(), problem })
    }

    /// Begins to fetch the keys of signatures.
    pub(super) fn fetch_keys(&self) {
        self.signed.iter().for_each(Jwks::fetch_keys);
    }

    /// The bearer of a token.
    pub(super) async fn validate(&self, token: &str) -> Result<Arc<Claims>, Refusal> {
        if let Some(claims) = self.tokens.get(token) {
            return Ok(Arc::clone(claims));
        }
        let mut refusal = Refusal::Unknown;
        for jwks in &self.signed {
            match jwks.validate(token).await {
                Ok(claims) => return Ok(claims),
                Err(other) => refusal = refusal.max(other),
            }
        }
        Err(refusal)
    }
}
