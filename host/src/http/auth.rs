//! Who calls, and what he may do.
//!
//! A route asks for one of [`Producer`], [`Worker`], [`Reader`] or [`Admin`]; each is a [`Caller`]
//! whose token was accepted for that. Tokens are kept and compared as digests, in constant time, and
//! never logged.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use codeq_plugin::queue_name;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::{Api, error::ApiError};
use crate::config::{AuthProvider, Config};

/// The scopes of workers.
pub(crate) mod scope {
    pub(crate) const CLAIM: &str = "codeq:claim";
    pub(crate) const HEARTBEAT: &str = "codeq:heartbeat";
    pub(crate) const ABANDON: &str = "codeq:abandon";
    pub(crate) const NACK: &str = "codeq:nack";
    pub(crate) const RESULT: &str = "codeq:result";
    pub(crate) const SUBSCRIBE: &str = "codeq:subscribe";
    pub(crate) const ADMIN: &str = "codeq:admin";
    pub(crate) const OF_WORKERS: [&str; 6] = [CLAIM, HEARTBEAT, ABANDON, NACK, RESULT, SUBSCRIBE];
}

/// The event type that stands for all commands.
const ANY_COMMAND: &str = "*";

/// Who is let in.
pub struct Auth {
    producers: Option<StaticTokens>,
    workers: Option<StaticTokens>,
    producers_work: bool,
    /// Whether callers may call themselves admins.
    dev: bool,
}

/// An authentication provider that cannot be used as it is configured.
#[derive(Debug, Error)]
#[error("{key} of the auth provider `{provider}` {problem}")]
pub struct AuthError {
    /// The key of the configuration.
    pub key: &'static str,
    /// The provider.
    pub provider: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Auth {
    /// The authentication that the configuration asks for.
    ///
    /// # Errors
    ///
    /// If a provider cannot be used as it is configured.
    pub fn new(config: &Config) -> Result<Auth, AuthError> {
        let provider = |provider: &Option<AuthProvider>, key| {
            provider.as_ref().map(|provider| StaticTokens::new(provider, key)).transpose()
        };
        Ok(Auth {
            producers: provider(&config.producer_auth, "producerAuthConfig")?,
            workers: provider(&config.worker_auth, "workerAuthConfig")?,
            producers_work: config.allow_producer_as_worker,
            dev: config.env == "dev",
        })
    }

    /// Whether anybody is let in, which is for callers of the same machine only.
    fn is_open(&self) -> bool {
        self.producers.is_none() && self.workers.is_none()
    }

    fn producer(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return Ok(Caller::local());
        }
        let producers = self
            .producers
            .as_ref()
            .ok_or_else(|| ApiError::unauthorized("no producer auth provider is configured"))?;
        Caller::new(producers.validate(bearer(headers)?)?)
    }

    fn worker(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return Ok(Caller::local());
        }
        let token = bearer(headers)?;
        let refusal = match &self.workers {
            None => ApiError::unauthorized("no worker auth provider is configured"),
            Some(workers) => match workers.validate(token).and_then(check_worker) {
                Ok(claims) => return Caller::new(claims),
                Err(refusal) => refusal,
            },
        };
        // The worker's own refusal is the one that helps, unless the token is a producer's.
        match self.producers.as_ref().filter(|_| self.producers_work) {
            Some(producers) => match producers.validate(token) {
                Ok(claims) => Caller::new(&claims.as_worker()),
                Err(_) => Err(refusal),
            },
            None => Err(refusal),
        }
    }

    fn reader(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return Ok(Caller::local());
        }
        let token = bearer(headers)?;
        let worker = self.workers.as_ref().and_then(|workers| workers.validate(token).ok());
        match worker.filter(|claims| !claims.event_types.is_empty()) {
            Some(claims) => Caller::new(claims),
            None => match &self.producers {
                Some(producers) => Caller::new(producers.validate(token)?),
                None => Err(ApiError::unauthorized(INVALID_TOKEN)),
            },
        }
    }

    fn admin(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return Ok(Caller::local());
        }
        let token = bearer(headers)?;
        let known = [&self.producers, &self.workers]
            .into_iter()
            .flatten()
            .filter_map(|provider| provider.validate(token).ok())
            .collect::<Vec<_>>();
        let Some(first) = known.first() else {
            return Err(ApiError::unauthorized(INVALID_TOKEN));
        };
        match known.iter().find(|claims| self.is_admin(claims, headers)) {
            Some(claims) => Caller::new(claims),
            None => {
                tracing::debug!(subject = first.subject, "not an admin");
                Err(ApiError::forbidden("admin only"))
            }
        }
    }

    fn is_admin(&self, claims: &Claims, headers: &HeaderMap) -> bool {
        if claims.scopes.iter().any(|scope| scope == scope::ADMIN) {
            return true;
        }
        let claimed = claims.raw.get("role").and_then(Value::as_str).map(str::trim);
        let asked =
            || headers.get("x-role").and_then(|role| role.to_str().ok()).filter(|_| self.dev);
        let role = claimed.filter(|role| !role.is_empty()).or_else(asked);
        role.is_some_and(|role| role.eq_ignore_ascii_case("ADMIN"))
    }
}

const INVALID_TOKEN: &str = "invalid token";

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let header = headers
        .get(AUTHORIZATION)
        .ok_or_else(|| ApiError::unauthorized("missing Authorization header"))?;
    let malformed = || ApiError::unauthorized("invalid Authorization format");
    let (scheme, token) =
        header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(malformed()) }
}

fn check_worker(claims: &Claims) -> Result<&Claims, ApiError> {
    if claims.event_types.is_empty() {
        Err(ApiError::unauthorized("missing eventTypes"))
    } else if claims.scopes.is_empty() {
        Err(ApiError::unauthorized(MISSING_SCOPE))
    } else {
        Ok(claims)
    }
}

const MISSING_SCOPE: &str = "missing scope";

/// The provider `static`: a token of the configuration.
struct StaticTokens {
    digest: [u8; 32],
    claims: Claims,
}

/// What a token says of its bearer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Claims {
    token: String,
    subject: String,
    #[serde(rename = "email")]
    _email: String,
    scopes: Vec<String>,
    event_types: Vec<String>,
    raw: Map<String, Value>,
}

impl Claims {
    /// The same bearer, as a worker who may do everything.
    fn as_worker(&self) -> Claims {
        Claims {
            event_types: vec![ANY_COMMAND.into()],
            scopes: scope::OF_WORKERS.map(Into::into).to_vec(),
            ..self.clone()
        }
    }
}

impl StaticTokens {
    fn new(provider: &AuthProvider, key: &'static str) -> Result<StaticTokens, AuthError> {
        let fail = |problem: String| AuthError { key, provider: provider.name.clone(), problem };
        let mut claims = match &provider.config {
            // Just the token: its bearer may do all that a worker may.
            Value::String(token) => {
                Claims { token: token.clone(), ..Claims::default() }.as_worker()
            }
            mapping => Claims::deserialize(mapping)
                .map_err(|error| fail(format!("cannot be used: {error}")))?,
        };
        let token = std::mem::take(&mut claims.token);
        if token.trim().is_empty() {
            return Err(fail("needs a `token` that is not empty".into()));
        }
        claims.subject = match claims.subject.trim() {
            "" => "static".into(),
            subject => subject.to_owned(),
        };
        Ok(StaticTokens { digest: Sha256::digest(token.trim()).into(), claims })
    }

    fn validate(&self, token: &str) -> Result<&Claims, ApiError> {
        let presented: [u8; 32] = Sha256::digest(token).into();
        if bool::from(presented.ct_eq(&self.digest)) {
            Ok(&self.claims)
        } else {
            Err(ApiError::unauthorized(INVALID_TOKEN))
        }
    }
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Who he is. Leases are in this name.
    pub(crate) subject: String,
    /// Whose tasks he sees.
    pub(crate) tenant: String,
    scopes: Vec<String>,
    event_types: Vec<String>,
}

/// The one tenant, and the one subject, of a host without authentication.
const LOCAL_TENANT: &str = "default";
const LOCAL_SUBJECT: &str = "local";

impl Caller {
    fn new(claims: &Claims) -> Result<Caller, ApiError> {
        Ok(Caller {
            subject: claims.subject.clone(),
            tenant: tenant_of(claims)?,
            scopes: claims.scopes.clone(),
            event_types: claims.event_types.clone(),
        })
    }

    fn local() -> Caller {
        Caller {
            subject: LOCAL_SUBJECT.into(),
            tenant: LOCAL_TENANT.into(),
            scopes: scope::OF_WORKERS.map(Into::into).to_vec(),
            event_types: vec![ANY_COMMAND.into()],
        }
    }

    /// Refuses a caller without `scope`.
    pub(crate) fn require(&self, scope: &str) -> Result<(), ApiError> {
        if self.scopes.iter().any(|own| own == scope) {
            Ok(())
        } else {
            Err(ApiError::forbidden(MISSING_SCOPE))
        }
    }

    /// The commands that a claim takes from: those asked for, if the token has them; all of the
    /// token's if none are asked for. None at all means any.
    pub(crate) fn commands(&self, asked: Vec<String>) -> Result<Vec<String>, ApiError> {
        if self.event_types.iter().any(|own| own == ANY_COMMAND) {
            return Ok(asked);
        }
        if asked.is_empty() {
            return Ok(self.event_types.clone());
        }
        let own = |asked: &String| {
            self.event_types.iter().any(|own| queue_name(own) == queue_name(asked))
        };
        if asked.iter().all(own) {
            Ok(asked)
        } else {
            Err(ApiError::forbidden("event type not allowed"))
        }
    }
}

/// The claims that may name the tenant, in codeQ's order.
const TENANT_CLAIMS: [&str; 5] =
    ["tid", "tenantId", "tenant_id", "organizationId", "organization_id"];

/// The tenant that a token names; all of its claims that name one must agree. Without any, the
/// subject is its own tenant.
fn tenant_of(claims: &Claims) -> Result<String, ApiError> {
    let mut tenant: Option<&str> = None;
    for name in TENANT_CLAIMS {
        let Some(value) = claims.raw.get(name) else {
            continue;
        };
        let named = value.as_str().map(str::trim).ok_or_else(invalid_tenant)?;
        if tenant.is_some_and(|tenant| tenant != named) {
            return Err(invalid_tenant());
        }
        tenant = Some(named);
    }
    let tenant = tenant.unwrap_or(&claims.subject);
    if is_label(tenant) { Ok(tenant.to_owned()) } else { Err(invalid_tenant()) }
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

macro_rules! callers {
    ($($(#[$doc:meta])* $name:ident: $check:ident;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name(pub(crate) Caller);

            impl FromRequestParts<Api> for $name {
                type Rejection = ApiError;

                async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
                    api.auth.$check(&parts.headers).map($name)
                }
            }
        )*
    };
}

callers! {
    /// Somebody who creates tasks.
    Producer: producer;
    /// Somebody who claims tasks.
    Worker: worker;
    /// Somebody who reads tasks and results: a producer or a worker.
    Reader: reader;
    /// An operator.
    Admin: admin;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_tenant_is_what_the_claims_agree_on_else_the_subject() {
        let tenant =
            |raw: Value| tenant_of(&claims(json!({ "subject": "someone", "raw": raw }))).ok();
        assert_eq!(tenant(json!({})).as_deref(), Some("someone"));
        assert_eq!(tenant(json!({ "tid": "acme", "tenant_id": "acme" })).as_deref(), Some("acme"));
        assert_eq!(tenant(json!({ "organizationId": "acme" })).as_deref(), Some("acme"));
        assert_eq!(tenant(json!({ "tid": "acme", "tenantId": "other" })), None);
        assert_eq!(tenant(json!({ "tid": "Not A Label" })), None);
        assert_eq!(tenant(json!({ "tid": 7 })), None);
    }

    #[test]
    fn a_claim_takes_only_from_the_commands_of_the_token() {
        let caller = |event_types: &[&str]| {
            let claims = claims(json!({ "subject": "someone", "eventTypes": event_types }));
            Caller::new(&claims).unwrap()
        };
        let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(caller(&["a", "b"]).commands(some(&["B"])).unwrap(), some(&["B"]));
        assert_eq!(caller(&["a", "b"]).commands(vec![]).unwrap(), some(&["a", "b"]));
        assert!(caller(&["a"]).commands(some(&["a", "c"])).is_err());
        assert_eq!(caller(&["*"]).commands(some(&["c"])).unwrap(), some(&["c"]));
        assert_eq!(caller(&["*"]).commands(vec![]).unwrap(), some(&[]));
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
