//! `codeq serve`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use super::{ConfigFile, Failure, announce::announce, config, log, plugins};
use crate::{
    artifacts::Artifacts,
    config::Config,
    http::{self, Api, Auth, Listener, Secured},
    metrics::Metrics,
    plugins::OpenError,
    service::{Service, Settings},
    store::Store,
    trace,
    webhook::Client,
};

/// How long the store may take to flush and close.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Serves until it is told to stop.
pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let config = config::load(file)?.config;
    let auth = Auth::new(&config).map_err(|error| Failure::Wrong(error.to_string()))?;
    let secured =
        Secured::new(&config.listener).map_err(|error| Failure::Wrong(error.to_string()))?;
    log::start(&config);
    let runtime =
        Runtime::new().map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let served = runtime.block_on(serve(&config, auth, secured));
    // A plugin that holds on to a thread does not hold on to the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: &Config, auth: Auth, secured: Secured) -> Result<(), Failure> {
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let (store, file) = tokio::select! {
        store = open(config) => store?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let address = SocketAddr::new(config.bind, config.port);
    let listener = Listener::bind(address, secured).await.map_err(|error| {
        let remedy = "choose another with `port` or PORT";
        Failure::Failed(format!("cannot listen on {address}: {error}; {remedy}"))
    })?;
    let address = listener.address().unwrap_or(address);
    if let Some(tracing) = &config.tracing {
        trace::start(tracing).map_err(|error| Failure::Wrong(error.to_string()))?;
    }
    announce(config, &store, file, address);
    let settings = Settings {
        default_lease: config.default_lease,
        repair_limit: config.requeue_inspect_limit,
        webhooks: config.webhooks.clone(),
        webhook_limit: config.rate_limits.webhook,
        public_url: config.public_url.clone(),
    };
    let metrics = count(&store)?;
    let artifacts = Artifacts::new(&config.artifacts, &http::base_url(config));
    if let Some(problem) = artifacts.problem() {
        tracing::warn!("{problem}; results that bring files are refused until it is mended");
    }
    let client =
        Client::new(&config.webhooks).map_err(|error| Failure::Failed(error.to_string()))?;
    let service = Service::start(store.clone(), settings, metrics, artifacts, client);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: finishing what is in flight");
    };
    http::serve(listener, Api::new(Arc::clone(&service), auth, config), stop).await;
    service.stop();
    service.settle().await;
    close(&store).await;
    trace::stop().await;
    Ok(())
}

fn count(store: &Store) -> Result<Metrics, Failure> {
    let metrics = Metrics::new();
    metrics
        .and_then(|metrics| metrics.count_calls(store).map(|()| metrics))
        .map_err(|error| Failure::Failed(format!("cannot count: {error}")))
}

/// Opens the store; answers also which file its plugin is in.
async fn open(config: &Config) -> Result<(Store, Option<PathBuf>), Failure> {
    let plugins = plugins::discover(config);
    let file = plugins.get(&config.persistence_provider).map(|found| found.path.clone());
    let opened = plugins
        .open(&config.persistence_provider, &config.persistence_config, &config.open_options())
        .await;
    opened.map(|store| (store, file)).map_err(|error: OpenError| {
        let message = format!("{}: {error}", error.code());
        if error.is_configuration() { Failure::Wrong(message) } else { Failure::Failed(message) }
    })
}

async fn close(store: &Store) {
    match tokio::time::timeout(CLOSE_LIMIT, store.close()).await {
        Ok(Ok(())) => tracing::info!("stopped"),
        Ok(Err(error)) => tracing::error!(%error, "the store did not close cleanly"),
        Err(_) => tracing::error!(limit = ?CLOSE_LIMIT, "the store did not close in time"),
    }
}

fn signals(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))
}
