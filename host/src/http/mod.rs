//! The HTTP API: codeQ's routes over the queue service.
//!
//! A request meets, in this order: its connection ([`listener`], [`connection`]), [`observe`], the
//! route ([`tasks`], [`artifacts`], [`subscriptions`], [`admin`], [`health`]), the authentication and
//! the limit that the route asks for ([`auth`], [`limits`]), and the body's reading ([`body`]). What
//! goes wrong anywhere becomes one [`error::ApiError`].

mod admin;
mod artifacts;
mod auth;
mod body;
mod connection;
mod cursor;
mod error;
mod health;
mod limits;
mod listener;
mod metrics;
mod observe;
mod openapi;
mod params;
mod subscriptions;
mod tasks;
mod tls;

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::FromRef, middleware, response::Redirect, routing::get};

use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{config::Config, service::Service};
use error::ApiError;
use limits::Limits;

pub(crate) use auth::scope;
pub use auth::{Auth, AuthError};
pub use listener::{Listener, Secured};
pub use tls::TlsError;

/// What the paths of the API begin with.
const PREFIX: &str = "/v1/codeq";

/// What links to the API begin with: only the path's beginning, if nobody said where the host is
/// reached.
pub fn base_url(config: &Config) -> String {
    format!("{}{PREFIX}", config.public_url.as_deref().unwrap_or_default())
}

/// What the routes share.
#[derive(Clone)]
pub struct Api {
    service: Arc<Service>,
    auth: Arc<Auth>,
    limits: Arc<Limits>,
    max_body: usize,
    /// How long a caller may take to send a body.
    body_timeout: Duration,
}

impl FromRef<Api> for Arc<Service> {
    fn from_ref(api: &Api) -> Arc<Service> {
        Arc::clone(&api.service)
    }
}

impl Api {
    /// The API over `service`, for whom `auth` lets in.
    pub fn new(service: Arc<Service>, auth: Auth, config: &Config) -> Api {
        let limits = Limits::new(&config.rate_limits, service.metrics().clone());
        Api {
            service,
            auth: Arc::new(auth),
            limits: Arc::new(limits),
            max_body: config.max_body_bytes,
            body_timeout: config.listener.request_timeout,
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        let v1 = OpenApiRouter::new()
            .routes(routes!(tasks::create))
            .routes(routes!(tasks::create_batch))
            .routes(routes!(tasks::submit_batch))
            .routes(routes!(tasks::claim))
            .routes(routes!(tasks::claim_batch))
            .routes(routes!(tasks::get))
            .routes(routes!(tasks::heartbeat))
            .routes(routes!(tasks::abandon))
            .routes(routes!(tasks::nack))
            .routes(routes!(tasks::submit, tasks::get_result))
            .routes(routes!(artifacts::get))
            .routes(routes!(subscriptions::create))
            .routes(routes!(subscriptions::delete))
            .routes(routes!(subscriptions::heartbeat))
            .routes(routes!(admin::queues))
            .routes(routes!(admin::queue))
            .routes(routes!(admin::queue_tasks))
            .routes(routes!(admin::requeue_dead_letters))
            .routes(routes!(admin::purge_dead_letters))
            .routes(routes!(admin::tasks))
            .routes(routes!(admin::cleanup))
            .routes(routes!(admin::delete))
            .routes(routes!(admin::requeue));
        let (routes, description) = OpenApiRouter::with_openapi(openapi::Description::openapi())
            .nest(PREFIX, v1)
            .split_for_parts();
        let description = openapi::Served::new(description);
        let metrics = self.service.metrics().clone();
        routes
            .route(openapi::DESCRIPTION, get(async move || description.answer()))
            .route("/docs", get(async || Redirect::permanent("/docs/")))
            .route("/docs/", get(openapi::front_page))
            .route("/docs/{file}", get(openapi::page))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(metrics::render))
            .fallback(async || ApiError::no_such_route())
            .method_not_allowed_fallback(async || ApiError::method_not_allowed())
            .layer(middleware::from_fn(body::finish))
            .layer(middleware::from_fn_with_state(metrics, observe::observe))
            .with_state(self)
    }
}

/// How long requests in flight may take once the server is told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Serves until `stop` resolves; then takes no more connections, finishes what is in flight, and
/// returns.
pub async fn serve(listener: Listener, api: Api, stop: impl Future<Output = ()> + Send) {
    let service = Arc::clone(&api.service);
    let metrics = service.metrics().clone();
    api.auth.fetch_keys();
    let (draining, mut drained) = tokio::sync::oneshot::channel::<()>();
    let begin_stop = move || {
        service.stop();
        drop(draining);
    };
    tokio::select! {
        () = listener.serve(api.router(), &metrics, stop, begin_stop) => {}
        () = async {
            // The sender is dropped when the draining begins.
            let _ = (&mut drained).await;
            tokio::time::sleep(DRAIN_LIMIT).await;
        } => {
            tracing::warn!(limit = ?DRAIN_LIMIT, "some requests did not end in time");
        }
    }
}
