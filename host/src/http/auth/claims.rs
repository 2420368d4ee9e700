//! What a token says of its bearer.

use serde_json::{Map, Value};

use super::{ANY_COMMAND, scope};
use crate::http::error::ApiError;

/// What an accepted token says of its bearer.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Who he is; empty if a signed token does not say.
    pub(super) subject: String,
    pub(super) scopes: Vec<String>,
    pub(super) event_types: Vec<String>,
    /// All claims, by name.
    pub(super) raw: Map<String, Value>,
}

impl Claims {
    /// The claims of a signed token.
    pub(super) fn signed(raw: Map<String, Value>) -> Claims {
        let subject = raw.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        let scopes = SCOPE_CLAIMS.iter().filter_map(|name| raw.get(*name)).map(words);
        let scopes = scopes.into_iter().find(|scopes| !scopes.is_empty()).unwrap_or_default();
        let event_types = raw.get("eventTypes").map(list).unwrap_or_default();
        Claims { subject, scopes, event_types, raw }
    }

    /// The same bearer, as a worker who may do everything.
    pub(super) fn as_worker(&self) -> Claims {
        Claims {
            event_types: vec![ANY_COMMAND.into()],
            scopes: scope::OF_WORKERS.map(Into::into).to_vec(),
            ..self.clone()
        }
    }

    /// The group of workers that the bearer belongs to.
    pub(super) fn worker_group(&self) -> Option<&str> {
        self.text("workerGroup")
    }

    /// The bearer's role.
    pub(super) fn role(&self) -> Option<&str> {
        self.text("role")
    }

    fn text(&self, name: &str) -> Option<&str> {
        let text = self.raw.get(name).and_then(Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty())
    }

    /// The tenant that a token names; all of its claims that name one must agree. Without any, the
    /// subject is its own tenant.
    pub(super) fn tenant(&self) -> Result<String, ApiError> {
        let mut tenant: Option<&str> = None;
        for name in TENANT_CLAIMS {
            let Some(value) = self.raw.get(name) else {
                continue;
            };
            let named = value.as_str().map(str::trim).ok_or_else(invalid_tenant)?;
            if tenant.is_some_and(|tenant| tenant != named) {
                return Err(invalid_tenant());
            }
            tenant = Some(named);
        }
        let tenant = tenant.unwrap_or(self.subject.trim());
        if is_label(tenant) { Ok(tenant.to_owned()) } else { Err(invalid_tenant()) }
    }
}

/// The claims that may list the scopes: codeQ's two, and the one of Entra ID and Okta.
const SCOPE_CLAIMS: [&str; 3] = ["scope", "scopes", "scp"];

/// The claims that may name the tenant, in codeQ's order.
const TENANT_CLAIMS: [&str; 5] =
    ["tid", "tenantId", "tenant_id", "organizationId", "organization_id"];

/// The words of a text, or the texts of a list.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_whitespace().map(Into::into).collect(),
        other => list(other),
    }
}

fn list(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::trim);
    texts.filter(|text| !text.is_empty()).map(Into::into).collect()
}

fn invalid_tenant() -> ApiError {
    ApiError::forbidden("invalid tenant claims")
}

/// `^[a-z][a-z0-9-]{1,62}$`
fn is_label(text: &str) -> bool {
    (2..=63).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn signed(claims: Value) -> Claims {
        Claims::signed(claims.as_object().unwrap().clone())
    }

    #[test]
    fn the_tenant_is_what_the_claims_agree_on_else_the_subject() {
        let tenant = |claims: Value| signed(claims).tenant().ok();
        assert_eq!(tenant(json!({ "sub": "someone" })).as_deref(), Some("someone"));
        let both = json!({ "sub": "someone", "tid": "acme", "tenant_id": "acme" });
        assert_eq!(tenant(both).as_deref(), Some("acme"));
        assert_eq!(tenant(json!({ "organizationId": "acme" })).as_deref(), Some("acme"));
        assert_eq!(tenant(json!({ "tid": "acme", "tenantId": "other" })), None);
        assert_eq!(tenant(json!({ "tid": "Not A Label" })), None);
        assert_eq!(tenant(json!({ "tid": 7 })), None);
        assert_eq!(tenant(json!({ "sub": "auth0|123" })), None);
        assert_eq!(tenant(json!({})), None);
    }

    #[test]
    fn scopes_are_words_or_a_list_in_the_first_claim_that_has_some() {
        let scopes = |claims: Value| signed(claims).scopes.join("+");
        assert_eq!(scopes(json!({ "scope": "a  b" })), "a+b");
        assert_eq!(scopes(json!({ "scopes": ["a", " b ", "", 7] })), "a+b");
        assert_eq!(scopes(json!({ "scp": "a b" })), "a+b");
        assert_eq!(scopes(json!({ "scope": " ", "scp": ["a"] })), "a");
        assert_eq!(scopes(json!({ "scope": "a", "scopes": ["b"] })), "a");
        assert_eq!(scopes(json!({ "scope": 7 })), "");
    }

    #[test]
    fn labels_are_those_of_the_api() {
        for label in ["ab", "a1", "a-b", &"a".repeat(63)] {
            assert!(is_label(label), "{label}");
        }
        for other in ["", "a", "1a", "-a", "Ab", "a_b", "a:b", &"a".repeat(64)] {
            assert!(!is_label(other), "{other}");
        }
    }
}
