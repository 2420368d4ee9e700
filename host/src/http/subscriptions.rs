//! The routes of workers who want to be told of waiting tasks.

use std::sync::Arc;

use axum::{Json as Answer, extract::State, http::StatusCode};
use codeq_plugin::{Boxed, DeliveryMode, Instant, Millis, Subscription};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    auth::{Caller, Worker, scope},
    body::{Json, OptionalJson},
    error::ApiError,
    openapi::{NotFound, Refusals, Unsupported, WORKERS},
    params::Path,
};
use crate::service::{NewSubscription, Service};

/// A subscription as its worker sends it.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewSubscription)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubscriptionBody {
    /// Where the notices are posted to.
    #[serde(default)]
    #[schema(required, min_length = 1, max_length = 2048)]
    callback_url: String,
    /// About which commands; all of the token's if none are named.
    #[schema(max_items = 100)]
    event_types: Option<Vec<String>>,
    /// For how long.
    ttl_seconds: Option<i64>,
    /// `fanout`: every subscriber is told; `group`: one of each group, in turn; `hash`: one of each
    /// group, the same for a command.
    #[schema(pattern = "^(|fanout|group|hash)$")]
    delivery_mode: Option<String>,
    /// The group; that of the token if none is named.
    group_id: Option<String>,
    /// The least time between two notices.
    min_interval_seconds: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = Renewal)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RenewalBody {
    /// For how long from now.
    ttl_seconds: Option<i64>,
}

/// A subscription, and until when it is one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subscribed {
    subscription_id: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Instant,
}

impl From<Boxed<Subscription>> for Subscribed {
    fn from(subscription: Boxed<Subscription>) -> Subscribed {
        Subscribed {
            subscription_id: subscription.id.as_str().to_owned(),
            expires_at: subscription.expires_at,
        }
    }
}

/// Subscribes a worker.
#[utoipa::path(
    post, operation_id = "subscribe", path = "/workers/subscriptions", tag = WORKERS, request_body = SubscriptionBody,
    responses(
        (status = 200, description = "The subscription.", body = Subscribed),
        Unsupported, Refusals,
    ),
)]
pub(crate) async fn create(
    State(service): State<Arc<Service>>,
    Worker(caller): Worker,
    Json(body): Json<SubscriptionBody>,
) -> Result<Answer<Subscribed>, ApiError> {
    caller.require(scope::SUBSCRIBE)?;
    let subscription = service.subscribe(new_subscription(caller, body)?).await?;
    Ok(Answer(subscription.into()))
}

/// Moves the end of a subscription.
#[utoipa::path(
    post, operation_id = "renew_subscription", path = "/workers/subscriptions/{id}/heartbeat", tag = WORKERS,
    request_body = Option<RenewalBody>, params(("id" = String, Path, description = "The subscription.")),
    responses(
        (status = 200, description = "The subscription.", body = Subscribed),
        NotFound, Unsupported, Refusals,
    ),
)]
pub(crate) async fn heartbeat(
    State(service): State<Arc<Service>>,
    Worker(caller): Worker,
    Path(id): Path,
    OptionalJson(body): OptionalJson<RenewalBody>,
) -> Result<Answer<Subscribed>, ApiError> {
    caller.require(scope::SUBSCRIBE)?;
    let ttl = positive_seconds(body.ttl_seconds);
    let renewed = service.renew_subscription(&caller.tenant, &caller.subject, &id, ttl).await?;
    Ok(Answer(renewed.into()))
}

/// Ends a subscription.
#[utoipa::path(
    delete, operation_id = "unsubscribe", path = "/workers/subscriptions/{id}", tag = WORKERS, params(("id" = String, Path, description = "The subscription.")),
    responses((status = 204, description = "It is over."), NotFound, Unsupported, Refusals),
)]
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    Worker(caller): Worker,
    Path(id): Path,
) -> Result<StatusCode, ApiError> {
    caller.require(scope::SUBSCRIBE)?;
    service.unsubscribe(&caller.tenant, &caller.subject, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn new_subscription(caller: Caller, body: SubscriptionBody) -> Result<NewSubscription, ApiError> {
    if body.callback_url.trim().is_empty() {
        return Err(ApiError::invalid_body("`callbackUrl` is required"));
    }
    let group_of_token = caller.worker_group.clone().unwrap_or_default();
    let mode = match body.delivery_mode.as_deref().map(str::trim) {
        None | Some("") if group_of_token.is_empty() => DeliveryMode::Fanout,
        None | Some("") => DeliveryMode::Group,
        Some("fanout") => DeliveryMode::Fanout,
        Some("group") => DeliveryMode::Group,
        Some("hash") => DeliveryMode::Hash,
        Some(_) => {
            return Err(ApiError::bad_request("invalid deliveryMode (use fanout, group or hash)"));
        }
    };
    let group = body.group_id.filter(|group| !group.trim().is_empty()).unwrap_or(group_of_token);
    Ok(NewSubscription {
        callback_url: body.callback_url,
        commands: caller.commands(body.event_types.unwrap_or_default())?,
        mode,
        group,
        ttl: positive_seconds(body.ttl_seconds),
        min_interval: positive_seconds(body.min_interval_seconds),
        worker_id: caller.subject,
        tenant_id: caller.tenant,
    })
}

/// A span that somebody named; nothing and what is not above zero leave it to the host.
fn positive_seconds(seconds: Option<i64>) -> Option<Millis> {
    seconds.filter(|seconds| *seconds > 0).map(Millis::from_secs)
}
