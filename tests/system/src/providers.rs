//! The same host on one provider after another.

use std::time::Duration;

use codeq_test_servers::Redis;
use serde_json::{Value, json};

use crate::{Client, Host, plugin_dir};

/// The providers that every test of behaviour runs on.
pub const PROVIDERS: [&str; 3] = ["memory", "sqlite", "redis"];

/// A wait that ends early if what it is for comes to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A host on a provider, and the server behind it if it has one.
pub struct Setup {
    /// The host.
    pub host: Host,
    /// The server of the provider `redis`.
    pub redis: Option<Redis>,
}

impl Setup {
    /// Starts a host on a provider that retries tasks at once, unless `config` says otherwise.
    pub fn start(provider: &str, config: &Value) -> Setup {
        let redis = (provider == "redis").then(Redis::start);
        let host = start_on(provider, redis.as_ref(), config);
        Setup { host, redis }
    }
}

/// Starts a host on a provider, with a server that may have other hosts as well.
pub fn start_on(provider: &str, redis: Option<&Redis>, config: &Value) -> Host {
    let mut all = json!({
        "persistenceProvider": provider,
        "backoffPolicy": "fixed",
        "backoffBaseSeconds": 0,
    });
    if let Some(redis) = redis {
        all["redisAddr"] = redis.addr().into();
    }
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    Host::start(plugin_dir(&[provider]).path(), all)
}

/// Runs a test on every provider.
pub fn on_every_provider(test: impl Fn(&Host, &Client)) {
    on_every_provider_with(&json!({}), test);
}

/// Runs a test on every provider, with hosts configured for it.
pub fn on_every_provider_with(config: &Value, test: impl Fn(&Host, &Client)) {
    for provider in PROVIDERS {
        // Shown with the output of a test that fails.
        println!("on {provider}:");
        let setup = Setup::start(provider, config);
        test(&setup.host, &setup.host.client());
    }
}
