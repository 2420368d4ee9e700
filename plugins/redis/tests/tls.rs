//! TLS: a server with an authority of its own, which may want to see a certificate, too.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::{fs, path::Path};

use codeq_plugin::{AsyncPersistence, Error, ErrorKind};
use codeq_redis::{Config, Redis};
use codeq_test_servers::free_addr;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::*;
use tempfile::TempDir;

/// A server that listens with TLS, and the files that it and its clients need.
struct Secured {
    _server: Server,
    addr: String,
    files: TempDir,
}

impl Secured {
    /// `clients`: whether it wants to see certificates (`yes`, `no`).
    fn start(clients: &str) -> Secured {
        let files = TempDir::new().unwrap();
        authority(files.path(), "ca", &["server", "client"]);
        authority(files.path(), "stranger", &["intruder"]);
        let at = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
        let addr = free_addr();
        let port = addr.port().to_string();
        let options = [
            ["--tls-port", &port],
            ["--tls-cert-file", &at("server.pem")],
            ["--tls-key-file", &at("server.key")],
            ["--tls-ca-cert-file", &at("ca.pem")],
            ["--tls-auth-clients", clients],
        ];
        let server = Server::with(&options.concat());
        Secured { _server: server, addr: format!("localhost:{port}"), files }
    }

    fn at(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    fn config(&self) -> Config {
        Config {
            addr: self.addr.clone(),
            tls: true,
            ca_file: self.at("ca.pem"),
            ..Config::default()
        }
    }
}

/// Writes an authority's certificate, and those that it signs with their keys, all for this machine.
fn authority(dir: &Path, name: &str, signed: &[&str]) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    fs::write(dir.join(name).with_extension("pem"), params.self_signed(&key).unwrap().pem())
        .unwrap();
    let issuer = Issuer::new(params, key);
    for name in signed {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".into(), "127.0.0.1".into()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, *name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(dir.join(name).with_extension("pem"), certificate.pem()).unwrap();
        fs::write(dir.join(name).with_extension("key"), key.serialize_pem()).unwrap();
    }
}

async fn refusal(config: Config) -> Error {
    Redis::open(config, context(rules())).await.err().unwrap()
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority() {
    let server = Secured::start("no");
    let store = Redis::open(server.config(), context(rules())).await.unwrap();
    store.put(task("t")).await;
    assert_eq!(store.take_ids(1).await, ["t"]);
    let error = refusal(Config { ca_file: server.at("stranger.pem"), ..server.config() }).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    let error = refusal(Config { ca_file: String::new(), ..server.config() }).await;
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_server_may_want_a_certificate() {
    let server = Secured::start("yes");
    let known = Config {
        cert_file: server.at("client.pem"),
        key_file: server.at("client.key"),
        ..server.config()
    };
    let store = Redis::open(known.clone(), context(rules())).await.unwrap();
    store.put(task("t")).await;
    assert_eq!(refusal(server.config()).await.kind(), ErrorKind::Unavailable);
    let strange = Config {
        cert_file: server.at("intruder.pem"),
        key_file: server.at("intruder.key"),
        ..server.config()
    };
    assert_eq!(refusal(strange).await.kind(), ErrorKind::Unavailable);
    let mixed = Config { key_file: server.at("ca.pem"), ..known };
    let error = refusal(mixed).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

#[tokio::test]
async fn sentinels_are_spoken_with_as_the_server_is() {
    let server = Secured::start("no");
    let port = |addr: &str| addr.rsplit_once(':').unwrap().1.to_owned();
    let monitor = format!("sentinel monitor tasks 127.0.0.1 {} 1\n", port(&server.addr));
    let addr = free_addr().to_string();
    let options = [
        ["--tls-port", &port(&addr)],
        ["--tls-cert-file", &server.at("server.pem")],
        ["--tls-key-file", &server.at("server.key")],
        ["--tls-ca-cert-file", &server.at("ca.pem")],
        ["--tls-auth-clients", "no"],
    ];
    let options = [&["--sentinel"], options.as_flattened()].concat();
    let _sentinel = codeq_test_servers::Redis::start_configured(&monitor, &options);
    let config =
        Config { sentinels: vec![addr], sentinel_master: "tasks".into(), ..server.config() };
    let store = Redis::open(config.clone(), context(rules())).await.unwrap();
    store.put(task("t")).await;
    assert_eq!(store.take_ids(1).await, ["t"]);
    let error = refusal(Config { ca_file: server.at("stranger.pem"), ..config }).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let config = Config { tls: true, ca_file: "/nowhere/ca.pem".into(), ..Config::default() };
    let error = refusal(config).await.to_string();
    assert!(error.contains("persistenceConfig.caFile is `/nowhere/ca.pem`"), "{error}");
}
