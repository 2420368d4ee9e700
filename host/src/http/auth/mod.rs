//! Who calls, and what he may do.
//!
//! A route asks for one of [`Producer`], [`Claimer`], [`Worker`], [`Reader`] or [`Admin`]; each is a
//! [`Caller`] whose token a [`provider`] accepted for that, and who does not call too often. Tokens
//! are never logged.

mod caller;
mod claims;
mod jwks;
mod local;
mod provider;
mod refusal;
mod static_tokens;

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use thiserror::Error;

use super::{Api, error::ApiError, limits::Limited, observe};
use crate::config::{AuthProvider, Config};
use claims::Claims;
use provider::Provider;
use refusal::Refusal;

pub(crate) use caller::Caller;
use caller::LOCAL_SUBJECT;

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

/// Longer tokens are refused unseen, in bytes.
const LONGEST_TOKEN: usize = 16 << 10;

/// Who is let in.
#[derive(Debug)]
pub struct Auth {
    producers: Option<Provider>,
    workers: Option<Provider>,
    producers_work: bool,
    /// Whether callers may call themselves admins.
    dev: bool,
}

/// An authentication provider that cannot be used as it is configured.
#[derive(Debug, Error)]
#[error("{key} of the auth provider `{provider}` {problem}")]
pub struct AuthError {
    /// The key of the configuration.
    pub key: String,
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
            provider.as_ref().map(|provider| Provider::new(provider, key)).transpose()
        };
        Ok(Auth {
            producers: provider(&config.producer_auth, "producerAuthConfig")?,
            workers: provider(&config.worker_auth, "workerAuthConfig")?,
            producers_work: config.allow_producer_as_worker,
            dev: config.env == "dev",
        })
    }

    /// Begins to fetch the keys of signatures, so that the first caller need not wait for them.
    ///
    /// Call it inside a tokio runtime.
    pub(super) fn fetch_keys(&self) {
        self.providers().for_each(Provider::fetch_keys);
    }

    /// Whether anybody is let in, which is for callers of the same machine only.
    fn is_open(&self) -> bool {
        self.producers.is_none() && self.workers.is_none()
    }

    fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.producers.iter().chain(&self.workers)
    }

    /// Whose calls are counted: a token, or the one caller without.
    fn spender<'h>(&self, headers: &'h HeaderMap) -> &'h str {
        if self.is_open() { LOCAL_SUBJECT } else { bearer(headers).unwrap_or_default() }
    }

    async fn producer(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return local::caller(headers);
        }
        let producers = self
            .producers
            .as_ref()
            .ok_or_else(|| ApiError::unauthorized("no producer auth provider is configured"))?;
        Caller::new(&*producers.validate(bearer(headers)?).await?)
    }

    async fn worker(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return local::caller(headers);
        }
        let token = bearer(headers)?;
        let refusal = match &self.workers {
            None => Refusal::Claims("no worker auth provider is configured"),
            Some(workers) => match workers.validate(token).await.and_then(check_worker) {
                Ok(claims) => return Caller::new(&claims),
                Err(refusal) => refusal,
            },
        };
        let Some(producers) = self.producers.as_ref().filter(|_| self.producers_work) else {
            return Err(refusal.into());
        };
        match producers.validate(token).await.map(|claims| Arc::new(claims.as_worker())) {
            Ok(claims) => Caller::new(&*check_worker(claims)?),
            Err(unavailable) if unavailable.is_unavailable() => Err(unavailable.into()),
            // The worker's own refusal is the one that helps, unless the token is a producer's.
            Err(_) => Err(refusal.into()),
        }
    }

    async fn claimer(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let caller = self.worker(headers).await?;
        caller.require(scope::CLAIM)?;
        Ok(caller)
    }

    async fn reader(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return local::caller(headers);
        }
        let token = bearer(headers)?;
        let mut refusal = Refusal::Unknown;
        if let Some(workers) = &self.workers {
            match workers.validate(token).await {
                Ok(claims) if !claims.event_types.is_empty() => return Caller::new(&claims),
                Ok(_) => {}
                Err(other) => refusal = other,
            }
        }
        if let Some(producers) = &self.producers {
            match producers.validate(token).await {
                Ok(claims) => return Caller::new(&claims),
                Err(other) => refusal = refusal.max(other),
            }
        }
        Err(refusal.into())
    }

    async fn admin(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return local::caller(headers);
        }
        let token = bearer(headers)?;
        let mut is_known = false;
        let mut refusal = Refusal::Unknown;
        for provider in self.providers() {
            match provider.validate(token).await {
                Ok(claims) if self.is_admin(&claims, headers) => return Caller::new(&claims),
                Ok(claims) => {
                    tracing::debug!(subject = claims.subject, "not an admin");
                    is_known = true;
                }
                Err(other) => refusal = refusal.max(other),
            }
        }
        // The token may be an admin's with the provider that could not tell.
        if is_known && !refusal.is_unavailable() {
            return Err(ApiError::forbidden("admin only"));
        }
        Err(refusal.into())
    }

    fn is_admin(&self, claims: &Claims, headers: &HeaderMap) -> bool {
        if claims.scopes.iter().any(|scope| scope == scope::ADMIN) {
            return true;
        }
        let asked =
            || headers.get("x-role").and_then(|role| role.to_str().ok()).filter(|_| self.dev);
        let role = claims.role().or_else(asked);
        role.is_some_and(|role| role.eq_ignore_ascii_case("ADMIN"))
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let header = headers
        .get(AUTHORIZATION)
        .ok_or_else(|| ApiError::unauthorized("missing Authorization header"))?;
    let malformed = || ApiError::unauthorized("invalid Authorization format");
    let (scheme, token) =
        header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    let token = token.trim();
    if token.len() > LONGEST_TOKEN { Err(Refusal::Unknown.into()) } else { Ok(token) }
}

fn check_worker(claims: Arc<Claims>) -> Result<Arc<Claims>, Refusal> {
    if claims.subject.is_empty() {
        // Leases are in the subject's name.
        Err(Refusal::Claims("missing sub"))
    } else if claims.event_types.is_empty() {
        Err(Refusal::Claims("missing eventTypes"))
    } else if claims.scopes.is_empty() {
        Err(Refusal::Claims(MISSING_SCOPE))
    } else {
        Ok(claims)
    }
}

const MISSING_SCOPE: &str = "missing scope";

macro_rules! callers {
    ($($(#[$doc:meta])* $name:ident: $check:ident $(, limited as $limit:ident)?;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name(pub(crate) Caller);

            impl FromRequestParts<Api> for $name {
                type Rejection = ApiError;

                async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
                    let caller = api.auth.$check(&parts.headers).await?;
                    observe::note_caller(&caller);
                    $(
                        let spender = api.auth.spender(&parts.headers);
                        api.limits.admit(Limited::$limit, parts.uri.path(), spender)?;
                    )?
                    Ok($name(caller))
                }
            }
        )*
    };
}

callers! {
    /// Somebody who creates tasks, and does not do so too often.
    Producer: producer, limited as Producer;
    /// Somebody who claims tasks, and does not do so too often.
    Claimer: claimer, limited as Worker;
    /// Somebody who holds tasks.
    Worker: worker;
    /// Somebody who reads tasks and results: a producer or a worker.
    Reader: reader;
    /// An operator, who does not call too often.
    Admin: admin, limited as Admin;
}
