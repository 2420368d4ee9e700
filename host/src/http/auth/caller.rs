//! Who calls, and what he may do.

use codeq_plugin::queue_name;

use super::{ANY_COMMAND, MISSING_SCOPE, claims::Claims, scope};
use crate::http::error::ApiError;

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Who he is. Leases are in this name.
    pub(crate) subject: String,
    /// Whose tasks he sees.
    pub(crate) tenant: String,
    /// The group of workers that he belongs to.
    pub(crate) worker_group: Option<String>,
    scopes: Vec<String>,
    event_types: Vec<String>,
}

/// The one tenant, and the one subject, of a host without authentication.
const LOCAL_TENANT: &str = "default";
pub(super) const LOCAL_SUBJECT: &str = "local";

impl Caller {
    pub(super) fn new(claims: &Claims) -> Result<Caller, ApiError> {
        Ok(Caller {
            subject: claims.subject.clone(),
            tenant: claims.tenant()?,
            worker_group: claims.worker_group().map(ToOwned::to_owned),
            scopes: claims.scopes.clone(),
            event_types: claims.event_types.clone(),
        })
    }

    pub(super) fn local() -> Caller {
        Caller {
            subject: LOCAL_SUBJECT.into(),
            tenant: LOCAL_TENANT.into(),
            worker_group: None,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn caller(claims: serde_json::Value) -> Caller {
        Caller::new(&Claims::signed(claims.as_object().unwrap().clone())).unwrap()
    }

    #[test]
    fn a_claim_takes_only_from_the_commands_of_the_token() {
        let caller = |types: &[&str]| caller(json!({ "sub": "someone", "eventTypes": types }));
        let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(caller(&["a", "b"]).commands(some(&["B"])).unwrap(), some(&["B"]));
        assert_eq!(caller(&["a", "b"]).commands(vec![]).unwrap(), some(&["a", "b"]));
        assert!(caller(&["a"]).commands(some(&["a", "c"])).is_err());
        assert_eq!(caller(&["*"]).commands(some(&["c"])).unwrap(), some(&["c"]));
        assert_eq!(caller(&["*"]).commands(vec![]).unwrap(), some(&[]));
    }

    #[test]
    fn the_group_of_a_worker_is_a_claim() {
        let group = |group: serde_json::Value| {
            caller(json!({ "sub": "someone", "workerGroup": group })).worker_group
        };
        assert_eq!(group(json!(" printers ")).as_deref(), Some("printers"));
        assert_eq!((group(json!("")), group(json!(7)), group(json!(null))), (None, None, None));
    }
}
