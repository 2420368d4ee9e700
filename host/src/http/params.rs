//! Reading the variable parts of a request's path, and its query.

use axum::{
    extract::{self, FromRequestParts},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::{Api, connection::Peer, error::ApiError};

/// The variable part of the path, or its parts.
pub(crate) struct Path<T = String>(pub(crate) T);

/// The query.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path = extract::Path::<T>::from_request_parts(parts, api).await;
        path.map(|extract::Path(parts)| Path(parts))
            .map_err(|error| ApiError::bad_request(format!("invalid path: {}", error.body_text())))
    }
}

impl<T: DeserializeOwned> FromRequestParts<Api> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let query = extract::Query::<T>::from_request_parts(parts, api).await;
        query
            .map(|extract::Query(query)| Query(query))
            .map_err(|error| ApiError::bad_request(format!("invalid query: {}", error.body_text())))
    }
}

impl FromRequestParts<Api> for Peer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(Peer::unknown))
    }
}
