//! What an operator wants to know when a host begins to serve, in one place.

use std::{fmt::Write, net::SocketAddr, path::PathBuf};

use codeq_plugin::Durability;

use super::{
    log,
    style::{self, FAINT, NAME, in_style},
};
use crate::{
    config::{Config, LogFormat, OtlpProtocol, RateLimit},
    store::Store,
};

/// Says what is served, where, and how: in a table for people, in one line of the log for programs.
pub(super) fn announce(config: &Config, store: &Store, file: Option<PathBuf>, address: SocketAddr) {
    let facts = Facts::new(config, store, file, address);
    if tracing::enabled!(tracing::Level::INFO) {
        match log::format(config) {
            LogFormat::Text => style::to_people(&facts.table()),
            LogFormat::Json => facts.log(),
        }
    }
    if config.env == "dev" && (config.producer_auth.is_some() || config.worker_auth.is_some()) {
        tracing::warn!(
            "env is `dev`: a token without a role is an operator's if it is sent with `X-Role: ADMIN`; set env to `prod` where others reach this host"
        );
    }
    if store.durability() == Durability::Volatile {
        tracing::warn!("the plugin keeps tasks in memory only: they are gone when the host stops");
    }
}

struct Facts<'a> {
    url: String,
    public_url: Option<&'a str>,
    plugin: &'a str,
    version: &'a str,
    file: String,
    durability: Durability,
    auth: String,
    tls: &'static str,
    webhooks: &'static str,
    rate_limits: String,
    traces: String,
}

impl<'a> Facts<'a> {
    fn new(
        config: &'a Config,
        store: &'a Store,
        file: Option<PathBuf>,
        address: SocketAddr,
    ) -> Facts<'a> {
        let manifest = store.manifest();
        let scheme = if config.listener.tls.is_some() { "https" } else { "http" };
        Facts {
            url: format!("{scheme}://{address}"),
            public_url: config.public_url.as_deref(),
            plugin: &manifest.name,
            version: &manifest.version,
            file: file.map(|file| file.display().to_string()).unwrap_or_default(),
            durability: store.durability(),
            auth: auth(config),
            tls: if config.listener.tls.is_some() { "on" } else { "off" },
            webhooks: match (&config.webhooks.hmac_secret, config.webhooks.allow_private) {
                (Some(_), false) => "signed",
                (Some(_), true) => "signed; private networks, too",
                (None, false) => "not signed",
                (None, true) => "not signed; private networks, too",
            },
            rate_limits: rate_limits(config),
            traces: traces(config),
        }
    }

    fn log(&self) {
        tracing::info!(
            address = self.url,
            public_url = self.public_url,
            plugin = self.plugin,
            version = self.version,
            file = self.file,
            durability = self.durability.as_str(),
            auth = self.auth,
            tls = self.tls,
            webhooks = self.webhooks,
            rate_limits = self.rate_limits,
            traces = self.traces,
            host_version = env!("CARGO_PKG_VERSION"),
            "serving"
        );
    }

    fn table(&self) -> String {
        let survives = match self.durability {
            Durability::Volatile => "nothing",
            Durability::Process => "the host being killed",
            Durability::Disk => "loss of power",
            Durability::Replicated => "loss of a node",
        };
        let version = env!("CARGO_PKG_VERSION");
        let heading = format!("codeq {version} serves {}", in_style(NAME, &self.url));
        let mut table = heading + "\n";
        let mut row = |name: &str, value: &str| {
            // Writing to a text cannot fail.
            let _ = writeln!(table, "  {}  {value}", in_style(FAINT, format_args!("{name:<11}")));
        };
        if let Some(url) = self.public_url {
            row("known as", url);
        }
        row("plugin", &format!("{} {}, {}", self.plugin, self.version, self.file));
        row(
            "durability",
            &format!("{}: what is answered survives {survives}", self.durability.as_str()),
        );
        row("auth", &self.auth);
        row("TLS", self.tls);
        row("webhooks", self.webhooks);
        row("rate limits", &self.rate_limits);
        row("traces", &self.traces);
        row("metrics", &format!("{}/metrics", self.url));
        table
    }
}

fn auth(config: &Config) -> String {
    let sides = [("producers", &config.producer_auth), ("workers", &config.worker_auth)];
    let sides = sides
        .iter()
        .filter_map(|(side, provider)| Some(format!("{side} by {}", provider.as_ref()?.name)));
    match &sides.collect::<Vec<_>>()[..] {
        [] => "none: this machine only, one tenant".into(),
        sides => sides.join(", "),
    }
}

fn rate_limits(config: &Config) -> String {
    let limits = &config.rate_limits;
    let scopes = [
        ("producer", limits.producer),
        ("worker", limits.worker),
        ("admin", limits.admin),
        ("webhook", limits.webhook),
    ];
    let set = scopes.iter().filter_map(|(scope, limit)| {
        let RateLimit { requests_per_minute, burst } = (*limit)?;
        Some(format!("{scope} {requests_per_minute}/min, {burst} at once"))
    });
    match &set.collect::<Vec<_>>()[..] {
        [] => "off".into(),
        set => set.join("; "),
    }
}

fn traces(config: &Config) -> String {
    match &config.tracing {
        None => "off".into(),
        Some(tracing) => {
            let protocol = match tracing.otlp_protocol {
                OtlpProtocol::Grpc => "gRPC",
                OtlpProtocol::Http => "HTTP",
            };
            let percent = tracing.sample_ratio * 100.0;
            format!("{percent} % to {} ({protocol})", tracing.endpoint())
        }
    }
}
