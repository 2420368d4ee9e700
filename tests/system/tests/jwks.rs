//! Tokens that somebody else signs, and whose keys he publishes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod issuer;

use std::{
    ffi::OsString,
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use codeq_system_tests::{Answer, Client, Host, PATIENCE, plugin_dir};
use codeq_test_servers::free_addr;
use issuer::{Issuer, Signer, claims, encode, message, now, openssl};
use serde_json::{Value, json};
use tempfile::TempDir;

fn and(mut config: Value, more: Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// Both producers and workers are those of an issuer.
fn config(issuer: &Issuer) -> Value {
    json!({
        "persistenceProvider": "memory",
        "producerAuthProvider": "jwks",
        "producerAuthConfig": issuer.settings(),
        "workerAuthProvider": "jwks",
        "workerAuthConfig": issuer.settings(),
        "env": "prod",
    })
}

fn start(config: Value) -> Host {
    Host::start(plugin_dir(&["memory"]).path(), config)
}

fn create(client: &Client) -> Answer {
    client.post("/tasks", json!({ "command": "a", "payload": 1 }))
}

fn claim(client: &Client) -> Answer {
    client.post("/tasks/claim", json!({ "commands": ["a"] }))
}

/// Tries again until the answer has this status.
fn until(status: u16, mut attempt: impl FnMut() -> Answer) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = attempt();
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain; last: {answer:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn refused(client: &Client, token: &str) -> String {
    let body = create(&client.with_token(token)).expect(401);
    body["error"].as_str().unwrap().to_owned()
}

fn has(log: &[String], text: &str) -> bool {
    log.iter().any(|line| line.contains(text))
}

#[test]
fn tokens_of_every_algorithm_are_accepted() {
    let algorithms =
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    let signers = algorithms.map(|algorithm| Signer::new(algorithm, algorithm));
    let issuer = Issuer::start(&signers.each_ref());
    let host = start(config(&issuer));
    for signer in &signers {
        println!("{}:", signer.kid);
        let client = host.client().with_token(&signer.token(&claims(json!({}))));
        let id = client.create("a");
        let claimed = client.claim("a").unwrap();
        assert_eq!((&claimed["id"], &claimed["workerId"]), (&json!(id), &json!("ann")));
        client.complete(&id).expect(200);
        client.get(&format!("/tasks/{id}/result")).expect(200);
    }
}

#[test]
fn a_token_that_is_not_for_this_host_and_moment_is_refused() {
    let signer = Signer::new("ES256", "one");
    let issuer = Issuer::start(&[&signer]);
    let host = start(config(&issuer));
    let client = host.client();
    for (more, told) in [
        (json!({ "exp": now() - 3600 }), "token expired"),
        (json!({ "exp": null }), "missing exp"),
        (json!({ "exp": "tomorrow" }), "missing exp"),
        (json!({ "exp": -1 }), "missing exp"),
        (json!({ "nbf": now() + 3600 }), "token not valid yet"),
        (json!({ "nbf": "soon" }), "invalid claims"),
        (json!({ "iat": now() + 3600 }), "token used before issued"),
        (json!({ "iat": "then" }), "invalid iat"),
        (json!({ "iss": "https://evil.example.org" }), "invalid issuer"),
        (json!({ "iss": null }), "invalid issuer"),
        (json!({ "aud": "others" }), "invalid audience"),
        (json!({ "aud": ["others"] }), "invalid audience"),
        (json!({ "aud": [] }), "invalid audience"),
        (json!({ "aud": null }), "invalid audience"),
    ] {
        assert_eq!(refused(&client, &signer.token(&claims(more.clone()))), told, "{more}");
    }
    for good in [
        json!({ "aud": ["others", "queue"] }),
        // Clocks may differ by a minute.
        json!({ "exp": now() - 30 }),
        json!({ "nbf": now() + 30, "iat": now() + 30 }),
        json!({ "iat": null }),
    ] {
        let mut all = claims(good.clone());
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        create(&client.with_token(&signer.token(&all))).expect(202);
    }
}

#[test]
fn a_token_that_the_key_did_not_sign_so_is_refused() {
    let (rsa, curve) = (Signer::new("RS256", "rsa"), Signer::new("ES256", "curve"));
    let issuer = Issuer::start(&[&rsa, &curve]);
    let host = start(config(&issuer));
    let client = host.client();
    let plain = claims(json!({}));
    let good = rsa.token(&plain);
    create(&client.with_token(&good)).expect(202);

    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let [head, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let forged = encode(claims(json!({ "sub": "eve" })).to_string().as_bytes());
    let other = Signer::new("RS256", "rsa");
    for (token, told) in [
        (format!("{head}.{forged}.{signature}"), "invalid signature"),
        (format!("{head}.{payload}.{}", &signature[4..]), "invalid signature"),
        (format!("{head}.{payload}."), "invalid signature"),
        (other.token(&plain), "invalid signature"),
        (rsa.token_with(&header("RS384", "rsa"), &plain), "invalid signature"),
        (rsa.token_with(&header("PS256", "rsa"), &plain), "invalid signature"),
        (rsa.token_with(&header("RS256", "curve"), &plain), "unsupported alg"),
        (rsa.token_with(&header("ES256", "rsa"), &plain), "unsupported alg"),
        (curve.token_with(&header("EdDSA", "curve"), &plain), "unsupported alg"),
        (rsa.token_with(&header("RS256", "nobodys"), &plain), "unknown kid"),
        (
            rsa.token_with(&json!({ "alg": "RS256", "kid": "rsa", "crit": ["x"] }), &plain),
            "invalid token",
        ),
        (format!("{}.", message(&header("none", "rsa"), &plain)), "invalid token"),
        (format!("{}.{signature}", message(&header("none", "rsa"), &plain)), "invalid token"),
    ] {
        assert_eq!(refused(&client, &token), told, "{token}");
    }
    // The public key is no secret that one could sign with.
    let key = rsa.public_pem().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let message = message(&header("HS256", "rsa"), &plain);
    let mac = ["dgst", "-sha256", "-binary", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}")];
    let signature = encode(&openssl(&mac, message.as_bytes()));
    assert_eq!(refused(&client, &format!("{message}.{signature}")), "unsupported alg");
}

#[test]
fn garbage_is_refused() {
    let signer = Signer::new("ES256", "one");
    let issuer = Issuer::start(&[&signer]);
    let host = start(config(&issuer));
    let client = host.client();
    let good = signer.token(&claims(json!({})));
    let huge = signer.token(&claims(json!({ "padding": "x".repeat(20_000) })));
    let texts = encode(b"texts");
    let nested = encode(format!("{{\"alg\":{}", "[".repeat(5000)).as_bytes());
    for token in [
        "x",
        "..",
        "a.b.c",
        &format!("{good}.x"),
        &format!("{good}="),
        &good.replace('.', ""),
        &format!("{texts}.{texts}.{texts}"),
        &format!("{nested}.{texts}.{texts}"),
        &"a".repeat(20_000),
        &huge,
    ] {
        let told = refused(&client, token);
        assert!(told == "invalid token" || told == "invalid signature", "{told} for {token}");
    }
    create(&client.with_token(&good)).expect(202);
}

#[test]
fn a_token_that_names_no_key_is_tried_with_those_that_fit() {
    let signers = ["a", "b"].map(|kid| Signer::new("ES256", kid));
    let issuer = Issuer::start(&signers.each_ref());
    let host = start(config(&issuer));
    for signer in &signers {
        let token = signer.token_with(&json!({ "alg": "ES256" }), &claims(json!({})));
        create(&host.client().with_token(&token)).expect(202);
    }
    let stranger = Signer::new("ES256", "c");
    let token = stranger.token_with(&json!({ "alg": "ES256" }), &claims(json!({})));
    create(&host.client().with_token(&token)).expect(401);
}

#[test]
fn what_a_token_says_of_its_bearer_counts_as_with_other_tokens() {
    let signer = Signer::new("ES256", "one");
    let issuer = Issuer::start(&[&signer]);
    let host = start(config(&issuer));
    let with = |more: Value| host.client().with_token(&signer.token(&claims(more)));

    let told = |answer: Answer, status: u16| answer.expect(status)["error"].clone();
    assert_eq!(told(claim(&with(json!({ "scope": "codeq:result" }))), 403), "missing scope");
    assert_eq!(told(claim(&with(json!({ "scope": "" }))), 401), "missing scope");
    assert_eq!(told(claim(&with(json!({ "eventTypes": [] }))), 401), "missing eventTypes");
    assert_eq!(told(claim(&with(json!({ "eventTypes": "*" }))), 401), "missing eventTypes");
    assert_eq!(told(claim(&with(json!({ "eventTypes": ["b"] }))), 403), "event type not allowed");
    assert_eq!(told(claim(&with(json!({ "sub": null }))), 401), "missing sub");
    for scopes in
        [json!({ "scope": ["codeq:claim"] }), json!({ "scope": "", "scp": "codeq:claim" })]
    {
        claim(&with(scopes)).expect(204);
    }

    for tenants in [json!({ "tenantId": "globex" }), json!({ "tid": 7 }), json!({ "tid": "A b" })] {
        assert_eq!(told(create(&with(tenants.clone())), 403), "invalid tenant claims", "{tenants}");
    }
    let mut own = claims(json!({ "sub": "auth0|123" }));
    own.as_object_mut().unwrap().remove("tid");
    let client = host.client().with_token(&signer.token(&own));
    assert_eq!(told(create(&client), 403), "invalid tenant claims");

    let admin = |more: Value| with(more).get("/admin/queues").status;
    assert_eq!(admin(json!({})), 403);
    assert_eq!(admin(json!({ "role": "admin" })), 200);
    assert_eq!(admin(json!({ "scopes": ["codeq:admin"], "scope": "" })), 200);
    let role = [("X-Role", "ADMIN")];
    assert_eq!(with(json!({})).send("GET", "/admin/queues", None, &role).status, 403);
}

#[test]
fn a_producer_may_work_where_that_is_allowed() {
    let signer = Signer::new("ES256", "one");
    let issuer = Issuer::start(&[&signer]);
    let workers = json!({
        "workerAuthConfig": { "jwksUrl": issuer.url, "issuer": issuer::ISSUER, "audience": "work" },
    });
    let token = signer.token(&claims(json!({ "scope": "", "eventTypes": [] })));
    let host = start(and(config(&issuer), workers.clone()));
    let body = claim(&host.client().with_token(&token)).expect(401);
    assert_eq!(body["error"], "invalid audience");
    let allowed = and(and(config(&issuer), workers), json!({ "allowProducerAsWorker": true }));
    let host = start(allowed);
    let client = host.client().with_token(&token);
    let id = client.create("a");
    assert_eq!(client.claim("a").unwrap()["workerId"], "ann");
    client.complete(&id).expect(200);
}

#[test]
fn the_older_keys_configure_the_same() {
    let signer = Signer::new("RS256", "one");
    let issuer = Issuer::start(&[&signer]);
    let host = start(json!({
        "persistenceProvider": "memory",
        "identityJwksUrl": issuer.url,
        "identityIssuer": issuer::ISSUER,
        "identityAudience": "queue",
        "workerJwksUrl": issuer.url,
        "workerIssuer": issuer::ISSUER,
        "allowedClockSkewSeconds": 0,
    }));
    let with = |more: Value| host.client().with_token(&signer.token(&claims(more)));
    create(&with(json!({}))).expect(202);
    create(&with(json!({ "exp": now() - 5 }))).expect(401);
    // The workers' audience when nothing sets it.
    claim(&with(json!({ "aud": "codeq-worker" }))).expect(200);
    claim(&with(json!({}))).expect(401);
}

#[test]
fn several_providers_may_be_asked() {
    let (one, other) = (Signer::new("ES256", "one"), Signer::new("EdDSA", "other"));
    let issuers = [Issuer::start(&[&one]), Issuer::start(&[&other])];
    let host = start(json!({
        "persistenceProvider": "memory",
        "producerAuthProvider": "multi",
        "producerAuthConfig": { "providers": [
            { "type": "jwks", "config": issuers[0].settings() },
            { "type": "static", "config": ["plain", { "token": "named", "subject": "ann" }] },
            { "type": "jwks", "config": issuers[1].settings() },
        ]},
    }));
    let status = |token: &str| create(&host.client().with_token(token)).status;
    let signed = [&one, &other].map(|signer| signer.token(&claims(json!({}))));
    for token in ["plain", "named", &signed[0], &signed[1]] {
        assert_eq!(status(token), 202, "{token}");
    }
    assert_eq!(status("neither"), 401);
    let expired = other.token(&claims(json!({ "exp": 1 })));
    assert_eq!(refused(&host.client(), &expired), "token expired");
}

// Keys come and go.

#[test]
fn a_new_key_is_taken_when_somebody_signs_with_it() {
    let (old, new) = (Signer::new("ES256", "old"), Signer::new("ES256", "new"));
    let issuer = Issuer::start(&[&old]);
    let host = start(config(&issuer));
    let client = |signer: &Signer| host.client().with_token(&signer.token(&claims(json!({}))));
    let (by_old, by_new) = (client(&old), client(&new));
    create(&by_old).expect(202);
    create(&by_new).expect(401);
    issuer.publish(&[&old, &new]);
    until(202, || create(&by_new));
    create(&by_old).expect(202);
}

#[test]
fn a_withdrawn_key_is_refused_once_the_keys_are_not_fresh_any_more() {
    let (old, new) = (Signer::new("ES256", "old"), Signer::new("ES256", "new"));
    let issuer = Issuer::start(&[&old]);
    issuer.add_header("Cache-Control: public, max-age=0");
    let host = start(config(&issuer));
    let client = |signer: &Signer| host.client().with_token(&signer.token(&claims(json!({}))));
    let (by_old, by_new) = (client(&old), client(&new));
    create(&by_old).expect(202);
    issuer.publish(&[&new]);
    until(401, || create(&by_old));
    create(&by_new).expect(202);
}

#[test]
fn strangers_with_made_up_keys_cause_few_fetches() {
    let signer = Signer::new("ES256", "one");
    let issuer = Issuer::start(&[&signer]);
    let host =
        start(and(config(&issuer), json!({ "workerAuthProvider": "", "workerAuthConfig": {} })));
    let good = signer.token(&claims(json!({})));
    let client = host.client();
    create(&client.with_token(&good)).expect(202);
    issuer.hesitate(Duration::from_millis(300));
    let began = Instant::now();
    thread::scope(|scope| {
        for thread in 0..20 {
            let (client, good) = (client.clone(), &good);
            scope.spawn(move || {
                for n in 0..20 {
                    // Who has no key need not sign, either.
                    let header = json!({ "alg": "ES256", "kid": format!("{thread}-{n}") });
                    let message = message(&header, &claims(json!({})));
                    let token = format!("{message}.{}", good.rsplit('.').next().unwrap());
                    assert_eq!(refused(&client, &token), "unknown kid");
                    if n == 10 {
                        create(&client.with_token(good)).expect(202);
                    }
                }
            });
        }
    });
    let most = 2 + usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    assert!(issuer.count() <= most, "{} fetches in {:?}", issuer.count(), began.elapsed());
}

#[test]
fn while_the_keys_cannot_be_had_callers_are_told_to_come_back() {
    let signer = Signer::new("ES256", "one");
    let issuer = Issuer::start(&[&signer]);
    issuer.set_down(true);
    let host = start(config(&issuer));
    host.wait_for(|log| has(log, "the keys to check tokens with cannot be fetched"));
    let client = host.client().with_token(&signer.token(&claims(json!({}))));
    for answer in
        [create(&client), claim(&client), client.get("/tasks/x"), client.get("/admin/queues")]
    {
        let after: u64 = answer.headers["Retry-After"].to_str().unwrap().parse().unwrap();
        assert!((1..=6).contains(&after), "{after}");
        assert_eq!(answer.expect(503)["error"], "the keys to check tokens with are unavailable");
    }
    // What cannot be a token of the issuer is refused all the same.
    create(&host.client().with_token("x")).expect(401);
    create(&host.client()).expect(401);
    issuer.set_down(false);
    until(202, || create(&client));
    host.wait_for(|log| has(log, "the keys to check tokens with are there"));
}

#[test]
fn known_keys_go_on_counting_while_the_server_is_down() {
    let (known, new) = (Signer::new("ES256", "known"), Signer::new("ES256", "new"));
    let issuer = Issuer::start(&[&known]);
    issuer.add_header("Cache-Control: max-age=0");
    let host = start(config(&issuer));
    let client = |signer: &Signer| host.client().with_token(&signer.token(&claims(json!({}))));
    let (by_known, by_new) = (client(&known), client(&new));
    create(&by_known).expect(202);
    issuer.set_down(true);
    // A key that nobody can ask for may be good.
    until(503, || create(&by_new));
    create(&by_known).expect(202);
}

#[test]
fn a_server_that_does_not_publish_keys_is_told_of_in_the_log() {
    let signer = Signer::new("ES256", "one");
    let elsewhere = Issuer::start(&[&signer]);
    let keys = json!({ "keys": [signer.jwk()] }).to_string();
    let large = format!("{keys}{}", " ".repeat(600_000));
    let location = format!("Location: {}\r\n", elsewhere.url);
    for (status, headers, body, told) in [
        ("404 Not Found", "", "", "the server answers 404"),
        ("302 Found", location.as_str(), "", "the server answers 302"),
        ("200 OK", "", "<html>", "no set of keys"),
        ("200 OK", "", r#"{"keys":[]}"#, "of its 0 keys none"),
        ("200 OK", "", large.as_str(), "more than 524288 bytes"),
    ] {
        let issuer = Issuer::start(&[&signer]);
        issuer.answer(status, headers, body);
        let host = start(config(&issuer));
        host.wait_for(|log| has(log, told));
        create(&host.client().with_token(&signer.token(&claims(json!({}))))).expect(503);
    }
    assert_eq!(elsewhere.count(), 0, "a redirect is not followed");
}

#[test]
fn a_server_that_hangs_is_given_up() {
    let signer = Signer::new("ES256", "one");
    let issuer = Issuer::start(&[&signer]);
    issuer.hesitate(Duration::from_secs(60));
    let settings = and(issuer.settings(), json!({ "httpTimeout": "200ms" }));
    let host = start(and(config(&issuer), json!({ "producerAuthConfig": settings })));
    create(&host.client().with_token(&signer.token(&claims(json!({}))))).expect(503);
}

/// `openssl s_server`, which sends the files of a directory, and ends with the test.
struct TlsServer(Child);

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn keys_are_fetched_by_tls_from_whom_the_machine_trusts() {
    let signer = Signer::new("ES256", "one");
    let dir = TempDir::new().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &cert,
        ],
        b"",
    );
    fs::write(file("keys"), json!({ "keys": [signer.jwk()] }).to_string()).unwrap();
    let port = free_addr().port().to_string();
    let server = Command::new("openssl")
        .args(["s_server", "-WWW", "-quiet", "-accept", &port, "-cert", &cert, "-key", &key])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = TlsServer(server);
    let settings = json!({
        "jwksUrl": format!("https://localhost:{port}/keys"),
        "issuer": issuer::ISSUER,
        "audience": issuer::AUDIENCE,
    });
    let config = json!({
        "persistenceProvider": "memory",
        "producerAuthProvider": "jwks",
        "producerAuthConfig": settings,
    });
    let token = signer.token(&claims(json!({})));
    let plugins = plugin_dir(&["memory"]);
    let trusting = [("SSL_CERT_FILE", OsString::from(&cert))];
    let host = Host::start_with_env(plugins.path(), config.clone(), &trusting);
    until(202, || create(&host.client().with_token(&token)));

    let host = start(config);
    host.wait_for(|log| has(log, "cannot be fetched") && has(log, "certificate"));
    create(&host.client().with_token(&token)).expect(503);
}

// Operators.

#[test]
fn a_provider_that_cannot_be_used_keeps_the_host_from_starting() {
    let settings = json!({ "jwksUrl": "https://id/keys", "issuer": "id", "audience": "queue" });
    let with = |more: Value| and(settings.clone(), more);
    let multi = |providers: Value| json!({ "providers": providers });
    for (provider, config, told) in [
        ("jwks", json!({}), "producerAuthConfig of the auth provider `jwks` needs `jwksUrl`"),
        ("jwks", with(json!({ "jwksUrl": "keys" })), "that is no URL"),
        ("jwks", with(json!({ "audience": "" })), "needs `audience`"),
        ("jwks", with(json!({ "clockSkew": 60 })), "which is no duration"),
        ("jwks", with(json!({ "jwksUri": "x" })), "unknown field `jwksUri`"),
        ("static", json!(["one", "one"]), "at token 2: has a `token` that is there twice"),
        ("multi", multi(json!([])), "needs 1 to 16 `providers`"),
        ("multi", multi(json!([{ "type": "multi" }])), "producerAuthConfig.providers[0].config"),
        ("multi", multi(json!([{ "type": "jwks", "config": {} }])), "needs `jwksUrl`"),
        ("jwts", json!({}), "there are `static`, `jwks`, `multi`"),
    ] {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("codeq.yml");
        let config = json!({
            "persistenceProvider": "memory",
            "producerAuthProvider": provider,
            "producerAuthConfig": config,
        });
        fs::write(&file, config.to_string()).unwrap();
        let file = file.to_str().unwrap();
        for command in [&["config", "check", "--config", file][..], &["serve", "--config", file]] {
            let output = Host::run(plugin_dir(&["memory"]).path(), command, &[]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{errors}");
            assert!(errors.contains(told), "{told} is not in: {errors}");
        }
    }
}

#[test]
fn no_signed_token_is_ever_in_the_log() {
    let signer = Signer::new("ES256", "one");
    let issuer = Issuer::start(&[&signer]);
    let host = start(and(config(&issuer), json!({ "logLevel": "trace" })));
    let good = signer.token(&claims(json!({})));
    let expired = signer.token(&claims(json!({ "exp": 1 })));
    for token in [&good, &expired] {
        let client = host.client().with_token(token);
        create(&client);
        claim(&client);
        client.get("/admin/queues");
    }
    let marker = [("X-Request-Id", "the-last-request")];
    host.client().send("GET", "/tasks/x", None, &marker);
    host.wait_for(|log| has(log, "the-last-request"));
    for token in [&good, &expired] {
        for part in token.split('.').skip(1) {
            assert!(!has(&host.log(), part), "{part}");
        }
    }
}
