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

/// What a configuration that can be used is warned of, in one text.
fn warnings(text: &str, environment: &[(&str, &str)]) -> String {
    let warnings = load(text, environment).unwrap().warnings;
    warnings.iter().map(|warning| format!("{warning}\n")).collect()
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
fn a_variable_that_does_not_end_is_told_without_what_is_around_it() {
    let problems = problems("redisPassword: \"s3cret${X\"", &[]);
    assert!(problems.contains("`redisPassword`: has a `${` without its `}`"), "{problems}");
    assert!(!problems.contains("s3cret"), "{problems}");
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
    let file = "raft: {}\ncluster: {}\nsharding: {}\nidentityServiceApiKey: x\n\
                workerStreamAddr: ':9091'\nproducerStreamAddr: ':9092'";
    let loaded = load(file, &[]).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 6, "{warnings:?}");
}

#[test]
fn variables_of_such_features_are_warnings_too() {
    let environment = [
        ("WORKER_STREAM_ADDR", ":9091"),
        ("PRODUCER_STREAM_ADDR", ""),
        ("RAFT_ENABLED", "true"),
        ("RAFT_PEERS", "a=b:1"),
        ("CLUSTER_NAME", "of somebody else"),
    ];
    let warnings = warnings("", &environment);
    for variable in ["WORKER_STREAM_ADDR", "RAFT_ENABLED", "RAFT_PEERS"] {
        let said = format!("environment variable {variable}: has no effect");
        assert!(warnings.contains(&said), "{warnings}");
    }
    assert_eq!(warnings.lines().count(), 3, "{warnings}");
}

#[test]
fn where_codeq_takes_its_default_for_zero_so_does_this_host_and_says_so() {
    let file = "defaultLeaseSeconds: 0\nrequeueInspectLimit: -1\nmaxAttemptsDefault: 0\n\
                backoffBaseSeconds: -1\nbackoffMaxSeconds: 0\nallowedClockSkewSeconds: -1\n\
                subscriptionMinIntervalSeconds: -1\nsubscriptionCleanupIntervalSeconds: 0\n\
                resultWebhookMaxAttempts: '0'\nresultWebhookBaseBackoffSeconds: -1\n\
                resultWebhookMaxBackoffSeconds: 0\ntracingSampleRatio: 100";
    let (zeros, none) = (config(file, &[]), config("", &[]));
    assert_eq!(zeros, none);
    let warnings = warnings(file, &[]);
    assert_eq!(warnings.lines().count(), 12, "{warnings}");
    assert!(
        warnings.contains("`defaultLeaseSeconds`: is `0`, for which the default 300 is taken"),
        "{warnings}"
    );
}

#[test]
fn only_the_zero_that_is_in_effect_is_told() {
    assert_eq!(warnings("maxAttemptsDefault: 0", &[("MAX_ATTEMPTS_DEFAULT", "7")]), "");
    let loaded = load("maxAttemptsDefault: 7", &[("MAX_ATTEMPTS_DEFAULT", "0")]).unwrap();
    assert_eq!(loaded.config.rules.max_attempts, 5, "as in codeQ, the environment wins");
    assert!(loaded.warnings[0].place.contains("MAX_ATTEMPTS_DEFAULT"), "{:?}", loaded.warnings);
}

#[test]
fn no_pause_at_all_can_be_said() {
    let file = "backoffBaseSeconds: none\nsubscriptionMinIntervalSeconds: none\n\
                resultWebhookBaseBackoffSeconds: none\nallowedClockSkewSeconds: none\n\
                workerJwksUrl: https://id/keys\nworkerIssuer: id";
    let loaded = load(file, &[]).unwrap();
    assert_eq!(loaded.config.rules.backoff.base, Millis::from_secs(0));
    let webhooks = &loaded.config.webhooks;
    assert!(webhooks.subscription_min_interval.is_zero() && webhooks.result_base_backoff.is_zero());
    assert_eq!(loaded.config.worker_auth.as_ref().unwrap().config["clockSkew"], "0s");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let said = problems("backoffBaseSeconds: soon\ndefaultLeaseSeconds: none", &[]);
    assert!(said.contains("not none, or a whole number up to"), "{said}");
    assert!(said.contains("`defaultLeaseSeconds`: is `\"none\"`"), "{said}");
}

#[test]
fn a_level_or_a_format_that_codeq_does_not_know_is_what_it_is_there() {
    let loaded = load("logLevel: inf\nlogFormat: xml", &[]).unwrap();
    assert_eq!(loaded.config.log_level, tracing::Level::INFO);
    assert_eq!(loaded.config.log_format, Some(LogFormat::Json));
    let said = warnings("logLevel: inf\nlogFormat: xml", &[]);
    assert!(said.contains("did you mean info?; info is taken, as in codeQ"), "{said}");
    assert!(said.contains("`logFormat`: is `\"xml\"`, which is not one of text, json"), "{said}");
    for level in ["warning", " Warn "] {
        let loaded = load("", &[("LOG_LEVEL", level)]).unwrap();
        assert_eq!(loaded.config.log_level, tracing::Level::WARN);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}

#[test]
fn dev_is_dev_however_it_is_written() {
    assert_eq!(config("env: ' Dev '", &[]).env, "dev");
    assert_eq!(config("", &[("ENV", "DEV")]).env, "dev");
    assert_eq!(config("env: ' Prod'", &[]).env, "Prod");
    assert_ne!(config("env: ' '", &[]).env, "dev");
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
    let file = "port: 70000\ntimezone: Mars/Olympus\nbackoffPolicy: exponental\nbind: here";
    let problems = problems(file, &environment);
    for part in [
        "`port`: is `70000`, which is not a whole number from 0 to 65535",
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
fn a_mapping_may_be_written_as_json_in_a_text() {
    let file = "producerAuthProvider: static\n\
                producerAuthConfig: '{\"token\": \"${TOKEN}\", \"subject\": \"ann\"}'\n\
                workerAuthProvider: multi\n\
                workerAuthConfig: {providers: [{type: static, config: ' [\"one\", \"two\"]'}]}\n\
                persistenceConfig: '{\"addr\": \"kv:7000\"}'\n\
                rateLimit: '{\"worker\": {\"requestsPerMinute\": 60, \"burstSize\": 5}}'";
    // What a variable holds does not end the text that it stands in.
    let config = config(file, &[("TOKEN", r#"a"b"#)]);
    let producers = config.producer_auth.unwrap().config;
    assert_eq!(producers, json!({ "token": "a\"b", "subject": "ann" }));
    let workers = config.worker_auth.unwrap().config;
    assert_eq!(workers["providers"][0]["config"], json!(["one", "two"]));
    assert_eq!(config.persistence_config, json!({ "addr": "kv:7000" }));
    assert!(config.rate_limits.worker.is_some());
    let whole = "workerAuthProvider: static\nworkerAuthConfig: ${AUTH}";
    let whole = load(whole, &[("AUTH", r#"{"token": "s3cret"}"#)]).unwrap().config;
    assert_eq!(whole.worker_auth.unwrap().config, json!({ "token": "s3cret" }));
}

#[test]
fn a_text_that_begins_like_json_is_no_token() {
    for text in ["{\"token\": \"s3cret\"", "{token: s3cret}", " [s3cret", "{\"s3cret\"}"] {
        let quoted = json!(text);
        let file = format!("producerAuthProvider: static\nproducerAuthConfig: {quoted}");
        let nested = format!(
            "producerAuthProvider: multi\n\
             producerAuthConfig: {{providers: [{{type: static, config: {quoted}}}]}}"
        );
        let environment = [("PRODUCER_AUTH_PROVIDER", "static"), ("PRODUCER_AUTH_CONFIG", text)];
        for said in [problems(&file, &[]), problems(&nested, &[]), problems("", &environment)] {
            assert!(said.contains("`producerAuthConfig`"), "{said}");
            assert!(said.contains("begins like JSON but is none"), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
    let said = problems("persistenceConfig: '{addr'", &[]);
    assert!(said.contains("`persistenceConfig`: is a text that begins like JSON"), "{said}");
}

#[test]
fn a_token_of_no_tenant_is_a_warning_that_names_the_remedy() {
    let entries = "[{token: s3cret, subject: Ann@example.org}, {token: t, subject: bob}, plain, \
                   {token: u, subject: Eve, raw: {tenantId: acme}}, {token: v, raw: {tid: 7}}]";
    let file = format!("workerAuthProvider: static\nworkerAuthConfig: {entries}");
    let nested = format!(
        "workerAuthProvider: multi\n\
         workerAuthConfig: {{providers: [{{type: static, config: {{tokens: {entries}}}}}]}}"
    );
    for file in [file, nested] {
        let warnings = warnings(&file, &[]);
        assert_eq!(warnings.lines().count(), 2, "{warnings}");
        assert!(
            warnings.contains("`workerAuthConfig`: the token of `Ann@example.org`"),
            "{warnings}"
        );
        assert!(warnings.contains("`raw: { tenantId: … }`"), "{warnings}");
        assert!(!warnings.contains("s3cret"), "{warnings}");
    }
}

#[test]
fn a_variable_alone_is_what_the_schema_takes() {
    let schema = json!({ "properties": {
        "db": { "type": "integer" },
        "tls": { "type": ["boolean", "null"] },
        "password": { "type": "string" },
        "any": { "type": ["string", "integer"] },
        "pool": { "properties": { "a/b": { "type": "number" } } },
        "ports": { "type": "array", "items": { "type": "integer" } },
    }});
    let file = "persistenceConfig:\n  db: ${NUMBER}\n  tls: \"${SWITCH}\"\n  password: ${NUMBER}\n  \
                any: ${NUMBER}\n  other: ${NUMBER}\n  pool: {a/b: \"${RATIO}\"}\n  \
                ports: [\"${NUMBER}\", \"1${NUMBER}\", \"2\", \"${TEXT}\"]\n";
    let environment = [("NUMBER", "3"), ("SWITCH", "true"), ("RATIO", "0.5"), ("TEXT", "x")];
    let mut loaded = load(file, &environment).unwrap();
    assert!(loaded.has_references());
    loaded.fit(&schema);
    let expected = json!({
        "addr": "localhost:6379", "db": 3, "tls": true, "password": "3", "any": "3", "other": "3",
        "pool": { "a/b": 0.5 }, "ports": [3, "13", "2", "x"],
    });
    assert_eq!(loaded.config.persistence_config, expected);
    let mut shown = loaded.shown.entries.into_iter();
    let shown = shown.find(|entry| entry.name == "persistenceConfig").unwrap().value;
    assert_eq!((&shown["db"], &shown["password"]), (&json!(3), &json!("******")));
    // What the environment sets as a whole is JSON as it stands.
    let environment = [("NUMBER", "3"), ("PERSISTENCE_CONFIG", r#"{"db": "3"}"#)];
    assert!(
        !load("persistenceConfig: {db: \"${NUMBER}\"}", &environment).unwrap().has_references()
    );
}

#[test]
fn the_identity_service_is_an_issuer_as_in_codeq_and_never_nobody() {
    let service = "identityServiceUrl: https://id.example.org/\nidentityAudience: queue";
    let expected = json!({
        "jwksUrl": "https://id.example.org/v1/.well-known/jwks.json",
        "issuer": "https://id.example.org", "audience": "queue", "clockSkew": "60s",
    });
    let derived = config(service, &[]);
    assert!(derived.producer_auth == Some(AuthProvider { name: "jwks".into(), config: expected }));
    assert_eq!(derived.bind.to_string(), "0.0.0.0");
    let keys = config(&format!("{service}\nidentityJwksUrl: https://keys"), &[]);
    let keys = keys.producer_auth.unwrap().config;
    assert_eq!(
        (&keys["jwksUrl"], &keys["issuer"]),
        (&json!("https://keys"), &json!("https://id.example.org"))
    );

    let open = problems("identityServiceUrl: https://id.example.org", &[]);
    assert!(open.contains("`identityServiceUrl`: is set without `identityAudience`"), "{open}");
    let open = problems("", &[("IDENTITY_SERVICE_URL", "https://id.example.org")]);
    assert!(open.contains("variable IDENTITY_SERVICE_URL"), "{open}");
    let other = "producerAuthProvider: static\nproducerAuthConfig: token\nidentityServiceUrl: x";
    assert_eq!(config(other, &[]).producer_auth.unwrap().name, "static");
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
