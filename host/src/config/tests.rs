//! What configuration files and environments mean.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// Loads a configuration from the text of a file and an environment.
fn load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("codeq.yml");
    fs::write(&file, text).unwrap();
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::load_with(Some(&file), &environment.collect())
}

fn config(text: &str, environment: &[(&str, &str)]) -> Config {
    load(text, environment).unwrap().config
}

/// The problems of a configuration that has some, in one text.
fn problems(text: &str, environment: &[(&str, &str)]) -> String {
    load(text, environment).unwrap_err().to_string()
}

#[test]
fn without_any_setting_it_is_redis_on_localhost_for_this_machine_only() {
    let config = config("", &[]);
    assert_eq!(config.persistence_provider, "redis");
    assert_eq!(config.persistence_config, json!({ "addr": "localhost:6379" }));
    assert_eq!((config.bind.to_string().as_str(), config.port), ("127.0.0.1", 8080));
    assert_eq!(config.rules, Rules::default());
    assert_eq!(config.default_lease, Millis::from_secs(300));
}

#[test]
fn the_older_redis_keys_reach_the_plugin_where_its_own_do_not_say() {
    let older = config("redisAddr: kv:7000\nredisPassword: old", &[]);
    assert_eq!(older.persistence_config, json!({ "addr": "kv:7000", "password": "old" }));
    let mixed =
        config("redisAddr: kv:7000\npersistenceConfig: {addr: new:1}", &[("REDIS_PASSWORD", "p")]);
    assert_eq!(mixed.persistence_config, json!({ "addr": "new:1", "password": "p" }));
    let kvrocks = config("", &[("KVROCKS_PASSWORD", "k")]);
    assert_eq!(kvrocks.persistence_config["password"], "k");
    let memory = config("persistenceProvider: memory\nredisAddr: kv:7000", &[]);
    assert_eq!(memory.persistence_config, json!({}));
}

#[test]
fn the_environment_comes_on_top_of_the_file() {
    let file = "persistenceProvider: redis\nport: 1\nbackoffPolicy: fixed";
    let environment = [
        ("PERSISTENCE_PROVIDER", "memory"),
        ("PERSISTENCE_CONFIG", r#"{"a": 1}"#),
        ("PORT", "2"),
        ("CODEQ_PLUGIN_PATH", "/a:/b"),
        ("TIMEZONE", "Europe/Berlin"),
        ("BACKOFF_BASE_SECONDS", "7"),
        ("LOG_LEVEL", ""),
    ];
    let config = config(file, &environment);
    assert_eq!(config.persistence_provider, "memory");
    assert_eq!(config.persistence_config, json!({ "a": 1 }));
    assert_eq!(config.port, 2);
    assert_eq!(config.plugin_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(config.timezone, "Europe/Berlin");
    assert_eq!(config.rules.backoff.policy.as_str(), "fixed");
    assert_eq!(config.rules.backoff.base, Millis::from_secs(7));
    assert_eq!(config.log_level, tracing::Level::INFO, "set to nothing is not set");
}

#[test]
fn variables_in_values_are_replaced_wherever_they_stand() {
    let file = "port: ${P}\npersistenceConfig: {addr: \"${H}:${P}\", list: [\"${H}\"]}";
    let config = config(file, &[("P", "7000"), ("H", "kv")]);
    assert_eq!(config.port, 7000);
    assert_eq!(config.persistence_config, json!({ "addr": "kv:7000", "list": ["kv"] }));
}

#[test]
fn a_variable_that_is_not_set_is_named_with_its_place() {
    let problems = problems("persistenceConfig: {password: \"${SECRET_ONE}\"}", &[]);
    assert!(problems.contains("persistenceConfig.password"), "{problems}");
    assert!(problems.contains("SECRET_ONE"), "{problems}");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let problems = problems("persistanceProvider: redis\nfoobarbaz: 1", &[]);
    assert!(
        problems.contains("`persistanceProvider`: is unknown; did you mean `persistenceProvider`?"),
        "{problems}"
    );
    assert!(problems.contains("`foobarbaz`: is unknown"), "{problems}");
}

#[test]
fn features_of_codeq_that_this_host_lacks_are_warnings() {
    let file = "raft: {}\ncluster: {}\nsharding: {}\nidentityServiceUrl: x";
    let loaded = load(file, &[]).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[test]
fn settings_of_the_service_have_codeqs_defaults_and_a_limit_without_a_burst_is_off() {
    let plain = config("", &[]);
    assert_eq!((plain.webhooks.result_max_attempts, plain.webhooks.allow_private), (5, false));
    assert_eq!(plain.rate_limits, RateLimits::default());
    assert_eq!(plain.tracing, None);

    let limited = config(
        "rateLimit: {producer: {requestsPerMinute: 60, burstSize: 5}, worker: {requestsPerMinute: 9}}",
        &[],
    );
    let limit = RateLimit { requests_per_minute: 60, burst: 5 };
    let expected = RateLimits { producer: Some(limit), ..RateLimits::default() };
    assert_eq!(limited.rate_limits, expected);

    let secret = config("webhookHmacSecret: hush", &[]).webhooks;
    assert!(!format!("{secret:?}").contains("hush"));
}

#[test]
fn a_certificate_without_its_key_and_a_url_that_is_none_are_errors() {
    let problems = problems("tlsCertFile: cert.pem\npublicUrl: queue", &[]);
    assert!(problems.contains("`tlsCertFile`: is set without `tlsKeyFile`"), "{problems}");
    assert!(problems.contains("`publicUrl`: is `queue`"), "{problems}");
}

#[test]
fn every_problem_is_reported_with_its_value_and_what_would_be_right() {
    let environment = [("MAX_ATTEMPTS_DEFAULT", "many"), ("PERSISTENCE_CONFIG", "{addr")];
    let file =
        "port: 70000\nlogLevel: inf\ntimezone: Mars/Olympus\nbackoffPolicy: exponental\nbind: here";
    let problems = problems(file, &environment);
    for part in [
        "`port`: is `70000`, which is not a whole number from 0 to 65535",
        "did you mean info?",
        "`Mars/Olympus`, which is not an IANA time zone",
        "did you mean exponential?",
        "`here`, which is not an IP address",
        "environment variable MAX_ATTEMPTS_DEFAULT (`maxAttemptsDefault`): is `\"many\"`",
        "environment variable PERSISTENCE_CONFIG (`persistenceConfig`): is not JSON",
    ] {
        assert!(problems.contains(part), "{part} is not in:\n{problems}");
    }
}

#[test]
fn without_authentication_it_serves_this_machine_only() {
    let refused = problems("bind: 0.0.0.0", &[]);
    assert!(refused.contains("without an auth provider anybody"), "{refused}");
    let open = config("producerAuthProvider: static\nproducerAuthConfig: token", &[]);
    assert_eq!(open.bind.to_string(), "0.0.0.0");
}

#[test]
fn an_auth_provider_that_is_not_there_keeps_the_host_from_starting() {
    let problems = |file: &str| problems(file, &[]);
    assert!(problems("workerAuthProvider: magic").contains("`magic`, which is no auth provider"));
    assert!(problems("workerAuthConfig: {token: t}").contains("set workerAuthProvider"));
    assert!(problems("workerAuthProvider: static\nworkerAuthConfig: 7").contains("or a list"));
}

#[test]
fn the_older_keys_configure_the_provider_jwks() {
    let older = "identityJwksUrl: https://id/keys\nidentityIssuer: id\nidentityAudience: queue\n\
                 workerJwksUrl: https://id/keys\nworkerIssuer: id\nallowedClockSkewSeconds: 5";
    let older = config(older, &[]);
    let expected = |audience: &str| {
        let config = json!({
            "jwksUrl": "https://id/keys", "issuer": "id", "audience": audience, "clockSkew": "5s",
        });
        Some(AuthProvider { name: "jwks".into(), config })
    };
    assert!(older.producer_auth == expected("queue"), "{:?}", older.producer_auth);
    assert!(older.worker_auth == expected("codeq-worker"), "as in codeQ");

    let mixed = "workerAuthProvider: jwks\nworkerAuthConfig: {issuer: new}\n\
                 workerJwksUrl: https://id/keys\nworkerIssuer: old";
    let mixed = config(mixed, &[]).worker_auth.unwrap().config;
    assert_eq!((&mixed["issuer"], &mixed["jwksUrl"]), (&json!("new"), &json!("https://id/keys")));

    let problems = problems("identityJwksUrl: https://id/keys\nidentityIssuer: id", &[]);
    assert!(
        problems.contains("`identityJwksUrl`: is set without `identityAudience`"),
        "{problems}"
    );
}

#[test]
fn secrets_are_masked_wherever_they_are_shown() {
    let file = "redisPassword: s3cret\npersistenceConfig: {addr: \"redis://user:s3cret@kv\", tls: {clientKey: s3cret}}\n\
                workerAuthProvider: static\nworkerAuthConfig: {token: s3cret, subject: me}\n\
                producerAuthProvider: static\nproducerAuthConfig: s3cret";
    let shown = format!("{:?}", load(file, &[]).unwrap().shown);
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("redis://user:******@kv"), "{shown}");
    let config = format!("{:?}", config(file, &[]).worker_auth);
    assert!(!config.contains("s3cret"), "{config}");
}

#[test]
fn tokens_are_masked_in_every_form_in_which_they_may_be_written() {
    for (provider, tokens) in [
        ("static", "[s3cret, {token: s3cret, subject: me, scopes: [seen]}]"),
        ("static", "{tokens: [s3cret, {token: s3cret}]}"),
        ("multi", "{providers: [{type: static, config: s3cret}, {type: seen}]}"),
        ("multi", "{providers: [{type: seen, config: [s3cret, {token: s3cret}]}]}"),
        ("multi", "{providers: [{type: seen, config: {tokens: [s3cret]}}, s3cret]}"),
    ] {
        let file = format!("workerAuthProvider: {provider}\nworkerAuthConfig: {tokens}");
        let shown = load(&file, &[]).unwrap().shown;
        let entry = shown.entries.iter().find(|entry| entry.name == "workerAuthConfig").unwrap();
        let shown = entry.value.to_string();
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("seen") || tokens.contains("tokens:"), "{shown}");
        let from_environment = [("WORKER_AUTH_CONFIG", r#"["s3cret", {"token": "s3cret"}]"#)];
        let shown = load("workerAuthProvider: static", &from_environment).unwrap().shown;
        assert!(!format!("{shown:?}").contains("s3cret"), "{shown:?}");
    }
}

#[test]
fn a_file_that_is_no_mapping_or_no_yaml_says_so() {
    assert!(problems("- a\n- b", &[]).contains("must hold a mapping"));
    assert!(problems("a: [1", &[]).contains("is not valid YAML"));
    let missing = Config::load_with(Some(Path::new("/nonexistent/codeq.yml")), &BTreeMap::new());
    assert!(missing.unwrap_err().to_string().contains("/nonexistent/codeq.yml: cannot be read"));
}

#[test]
fn pinned_digests_are_checked_for_their_form() {
    let digest = "ab".repeat(32);
    let config = config(&format!("pluginDigests: {{redis: \"sha256:{digest}\"}}"), &[]);
    assert_eq!(config.plugin_digests["redis"], digest);
    assert!(problems("pluginDigests: {redis: abc}", &[]).contains("not a SHA-256"));
}
