//! The provider `jwks`: tokens that somebody else signs, and whose keys he publishes.
//!
//! [`source`] fetches the keys and keeps them, [`key`] tells which of them fit a token, [`signature`]
//! checks signatures, and [`accepted`] saves doing so again at once. A signed token counts if it is
//! for this host (`iss`, `aud`) and for this moment (`exp`, `nbf`, `iat`).

mod accepted;
mod key;
mod settings;
mod signature;
mod source;

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{
    AlgorithmFamily, Header, Validation, decode, decode_header, errors::ErrorKind,
    get_current_timestamp,
};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{claims::Claims, refusal::Refusal};
use accepted::Accepted;
use key::Keys;
use settings::Settings;
use source::Source;

/// The signed tokens of an issuer.
#[derive(Debug)]
pub(super) struct Jwks {
    source: Source,
    validation: Validation,
    accepted: Accepted,
}

/// At most how many keys are tried for one token.
const MOST_TRIED_KEYS: usize = 4;

impl Jwks {
    pub(super) fn new(config: &Value) -> Result<Jwks, String> {
        signature::install();
        let settings = Settings::read(config)?;
        let mut validation = Validation::default();
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&settings.issuers);
        validation.set_audience(&settings.audiences);
        validation.validate_nbf = true;
        validation.leeway = settings.clock_skew.as_secs();
        let source = Source::new(settings.url, settings.http_timeout, source::Pace::default())?;
        Ok(Jwks { source, validation, accepted: Accepted::default() })
    }

    /// Begins to fetch the keys.
    pub(super) fn fetch_keys(&self) {
        self.source.fetch();
    }

    /// The bearer of a token.
    pub(super) async fn validate(&self, token: &str) -> Result<Arc<Claims>, Refusal> {
        // This also refuses `none`, which is no algorithm.
        let header = decode_header(token).map_err(|_| Refusal::Unknown)?;
        if header.crit.is_some() {
            return Err(Refusal::Unknown);
        }
        if header.alg.family() == AlgorithmFamily::Hmac {
            return Err(Refusal::Algorithm);
        }
        let keys = self.source.keys().await?;
        match self.accept(token, &header, &keys) {
            // It may be a new one.
            Err(Refusal::Key) => match self.source.newer_than(&keys).await? {
                Some(newer) => self.accept(token, &header, &newer),
                None => Err(Refusal::Key),
            },
            accepted => accepted,
        }
    }

    fn accept(
        &self,
        token: &str,
        header: &Header,
        keys: &Arc<Keys>,
    ) -> Result<Arc<Claims>, Refusal> {
        let digest = Sha256::digest(token).into();
        if let Some(claims) = self.accepted.get(&digest, keys) {
            return Ok(claims);
        }
        let claims = Arc::new(self.verify(token, header, keys)?);
        let rest = self.rest(&claims);
        self.accepted.put(digest, keys, Arc::clone(&claims), rest);
        Ok(claims)
    }

    fn verify(&self, token: &str, header: &Header, keys: &Keys) -> Result<Claims, Refusal> {
        let kid = header.kid.as_deref().filter(|kid| !kid.is_empty());
        let named = keys.named(kid).collect::<Vec<_>>();
        let mut fitting = named.iter().filter(|key| key.takes(header.alg)).peekable();
        if fitting.peek().is_none() {
            return Err(if named.is_empty() { Refusal::Key } else { Refusal::Algorithm });
        }
        if kid.is_none() && fitting.clone().count() > MOST_TRIED_KEYS {
            return Err(Refusal::MissingKeyId);
        }
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let mut refusal = Refusal::Key;
        for key in fitting.take(MOST_TRIED_KEYS) {
            match decode::<Map<String, Value>>(token, key.decoding(), &validation) {
                Ok(token) => {
                    self.check_issued(&token.claims)?;
                    return Ok(Claims::signed(token.claims));
                }
                Err(error) => refusal = refusal_of(error.kind()),
            }
            if refusal != Refusal::Signature {
                break;
            }
        }
        Err(match (refusal, kid) {
            // Whoever names no key may use one that is not known yet.
            (Refusal::Signature, None) => Refusal::Key,
            (refusal, _) => refusal,
        })
    }

    /// How long a token still counts.
    fn rest(&self, claims: &Claims) -> Duration {
        let ends = claims.raw.get("exp").and_then(Value::as_f64).unwrap_or_default();
        let ends = Duration::try_from_secs_f64(ends).unwrap_or_default();
        let now = Duration::from_secs(get_current_timestamp());
        ends.saturating_add(Duration::from_secs(self.validation.leeway)).saturating_sub(now)
    }

    /// A token cannot come from the future.
    fn check_issued(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        #[expect(clippy::cast_precision_loss, reason = "a few seconds from now is exact")]
        let latest = (get_current_timestamp() + self.validation.leeway) as f64;
        match claims.get("iat").map(Value::as_f64) {
            None => Ok(()),
            Some(Some(issued)) if issued <= latest => Ok(()),
            Some(Some(_)) => Err(Refusal::Claims("token used before issued")),
            Some(None) => Err(Refusal::Claims("invalid iat")),
        }
    }
}

fn refusal_of(error: &ErrorKind) -> Refusal {
    match error {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::InvalidAlgorithm => Refusal::Algorithm,
        ErrorKind::ExpiredSignature => Refusal::Claims("token expired"),
        ErrorKind::ImmatureSignature => Refusal::Claims("token not valid yet"),
        ErrorKind::InvalidIssuer => Refusal::Claims("invalid issuer"),
        ErrorKind::InvalidAudience => Refusal::Claims("invalid audience"),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            Refusal::Claims(match claim.as_str() {
                "exp" => "missing exp",
                "iss" => "invalid issuer",
                "aud" => "invalid audience",
                _ => "invalid claims",
            })
        }
        _ => Refusal::Unknown,
    }
}
