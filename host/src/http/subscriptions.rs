//! The routes of workers who want to be told of waiting tasks.

use std::sync::Arc;

use axum::{Json as Answer, extract::State, http::StatusCode};
use codeq_plugin::{Boxed, DeliveryMode, Instant, Millis, Subscription};
use serde::{Deserialize, Serialize};

use super::{
    auth::{Caller, Worker, scope},
    body::{Json, OptionalJson},
    error::ApiError,
    params::Path,
};
use crate::service::{NewSubscription, Service};

/// A subscription as its worker sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubscriptionBody {
    #[serde(default)]
    callback_url: String,
    event_types: Option<Vec<String>>,
    ttl_seconds: Option<i64>,
    delivery_mode: Option<String>,
    group_id: Option<String>,
    min_interval_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RenewalBody {
    ttl_seconds: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subscribed {
    subscription_id: String,
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
