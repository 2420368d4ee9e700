//! Subscriptions: workers hear of tasks that wait for them.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant as Clock},
};

use codeq_plugin::Instant;
use codeq_system_tests::{
    Answer, Client, Host, Reaction, Receiver, Setup, on_every_provider, on_every_provider_with,
    start_on,
};
use codeq_test_servers::Redis;
use serde_json::{Value, json};

/// In which nothing more comes that is not waited for.
const QUIET: Duration = Duration::from_millis(700);

/// Hosts that call receivers of this machine as often as there is a reason to.
fn config() -> Value {
    json!({ "webhookAllowPrivate": true, "subscriptionMinIntervalSeconds": 0 })
}

fn and(mut config: Value, more: &Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn with(test: impl Fn(&Host, &Client)) {
    on_every_provider_with(&config(), test);
}

fn subscribe(client: &Client, receiver: &Receiver, more: &Value) -> String {
    let body = and(json!({ "callbackUrl": receiver.url("/ready") }), more);
    client.post("/workers/subscriptions", body).expect(200)["subscriptionId"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn renew(client: &Client, id: &str, body: Value) -> Answer {
    client.post(&format!("/workers/subscriptions/{id}/heartbeat"), body)
}

fn end(client: &Client, id: &str) -> Answer {
    client.send("DELETE", &format!("/workers/subscriptions/{id}"), None, &[])
}

/// Empties a queue.
fn drain(client: &Client, command: &str) {
    while let Some(task) = client.claim(command) {
        client.complete(task["id"].as_str().unwrap()).expect(200);
    }
}

/// Fills and empties a queue.
fn fill_and_drain(client: &Client, command: &str) {
    client.create(command);
    drain(client, command);
}

fn seconds_from_now(time: &Value) -> f64 {
    let at = Instant::parse_rfc3339(time.as_str().unwrap()).unwrap();
    at.since(Instant::now()).0 as f64 / 1000.0
}

// The routes.

#[test]
fn a_worker_subscribes_renews_and_ends_it() {
    with(|_, client| {
        let body = json!({ "callbackUrl": "http://127.0.0.1:1/" });
        let answer = client.post("/workers/subscriptions", body).expect(200);
        assert!((290.0..=300.0).contains(&seconds_from_now(&answer["expiresAt"])), "{answer}");
        let id = answer["subscriptionId"].as_str().unwrap();
        let renewed = renew(client, id, json!({ "ttlSeconds": 1000 })).expect(200);
        assert_eq!(renewed["subscriptionId"], id);
        assert!((990.0..=1000.0).contains(&seconds_from_now(&renewed["expiresAt"])), "{renewed}");
        renew(client, id, json!({ "ttlSeconds": i64::MAX })).expect(200);
        end(client, id).expect(204);
        renew(client, id, json!({})).expect(404);
        end(client, id).expect(404);
        renew(client, "unknown", json!({})).expect(404);
    });
}

#[test]
fn a_subscription_that_makes_no_sense_is_refused() {
    with(|_, client| {
        let url = "http://127.0.0.1:1/";
        for body in [
            json!({}),
            json!({ "callbackUrl": "" }),
            json!({ "callbackUrl": "nowhere" }),
            json!({ "callbackUrl": "ftp://example.org" }),
            json!({ "callbackUrl": "http://me:secret@example.org" }),
            json!({ "callbackUrl": format!("http://example.org/{}", "a".repeat(3000)) }),
            json!({ "callbackUrl": url, "deliveryMode": "some" }),
            json!({ "callbackUrl": url, "deliveryMode": "group" }),
            json!({ "callbackUrl": url, "groupId": "g".repeat(200) }),
            json!({ "callbackUrl": url, "eventTypes": [""] }),
            json!({ "callbackUrl": url, "eventTypes": vec!["a"; 101] }),
            json!({ "callbackUrl": url, "eventTypes": "a" }),
            json!({ "callbackUrl": url, "ttlSeconds": "long" }),
        ] {
            let answer = client.post("/workers/subscriptions", body.clone());
            assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        }
    });
    on_every_provider(|_, client| {
        let body = json!({ "callbackUrl": "http://10.0.0.1/" });
        let error = client.post("/workers/subscriptions", body).expect(400);
        assert!(error["error"].as_str().unwrap().contains("webhookAllowPrivate"), "{error}");
    });
}

#[test]
fn a_worker_subscribes_to_what_his_token_lets_him_claim() {
    let worker = |subject: &str, more: Value| {
        let config = json!({
            "token": subject,
            "subject": subject,
            "scopes": ["codeq:subscribe"],
            "eventTypes": ["a", "b"],
            "raw": { "tid": "acme" },
        });
        json!({ "workerAuthProvider": "static", "workerAuthConfig": and(config, &more) })
    };
    let redis = Redis::start();
    let start = |auth: &Value| start_on("redis", Some(&redis), &and(config(), auth));
    let ann = start(&worker("ann", json!({})));
    let bob = start(&worker("bob", json!({ "raw": { "tid": "acme", "workerGroup": "blue" } })));
    let eve = start(&worker("eve", json!({ "raw": { "tid": "globex" } })));
    let idle = start(&worker("idle", json!({ "scopes": ["codeq:claim"] })));
    let [ann, bob, eve, idle] =
        [(ann, "ann"), (bob, "bob"), (eve, "eve"), (idle, "idle")].map(|(host, token)| {
            let client = host.client().with_token(token);
            (host, client)
        });
    let body = json!({ "callbackUrl": "http://127.0.0.1:1/", "eventTypes": ["B"] });
    let other = json!({ "callbackUrl": "http://127.0.0.1:1/", "eventTypes": ["b", "c"] });
    idle.1.post("/workers/subscriptions", body.clone()).expect(403);
    idle.0.client().post("/workers/subscriptions", body.clone()).expect(401);
    let refused = ann.1.post("/workers/subscriptions", other).expect(403);
    assert_eq!(refused["error"], "event type not allowed");
    let subscription = ann.1.post("/workers/subscriptions", body).expect(200);
    let id = subscription["subscriptionId"].as_str().unwrap();
    assert_eq!(renew(&bob.1, id, json!({})).expect(403)["error"], "not-owner");
    assert_eq!(end(&bob.1, id).expect(403)["error"], "not-owner");
    renew(&eve.1, id, json!({})).expect(404);
    end(&eve.1, id).expect(404);
    renew(&ann.1, id, json!({})).expect(200);
    // The token's group is the default, and with it the mode.
    let body = json!({ "callbackUrl": "http://127.0.0.1:1/" });
    bob.1.post("/workers/subscriptions", body.clone()).expect(200);
    ann.1
        .post("/workers/subscriptions", and(body, &json!({ "deliveryMode": "group" })))
        .expect(400);
}

// What a subscriber hears.

#[test]
fn a_notice_says_what_there_is_and_where_to_get_it() {
    let config = and(config(), &json!({ "publicUrl": "https://queue.example.org/" }));
    on_every_provider_with(&config, |_, client| {
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({ "eventTypes": ["RENDER"] }));
        client.create("Render");
        let call = receiver.wait_for(1).remove(0);
        receiver.stays_at(1, QUIET);
        let mut notice = call.json();
        assert!(seconds_from_now(&notice["sentAt"].take()).abs() < 60.0);
        assert!(notice["notificationId"].take().as_str().unwrap().starts_with("ntf-"));
        let expected = json!({
            "eventType": "RENDER",
            "available": true,
            "queueDepth": 1,
            "claimUrl": "https://queue.example.org/v1/codeq/tasks/claim",
            "sentAt": null,
            "notificationId": null,
        });
        assert_eq!((call.path.as_str(), notice), ("/ready", expected));
    });
}

#[test]
fn subscribers_hear_of_their_commands_only() {
    with(|_, client| {
        let (some, any) = (Receiver::start(), Receiver::start());
        subscribe(client, &some, &json!({ "eventTypes": ["a", "b"] }));
        subscribe(client, &any, &json!({}));
        for command in ["a", "b", "c"] {
            client.create(command);
        }
        any.wait_for(3);
        some.wait_for(2);
        some.stays_at(2, QUIET);
        let events = |receiver: &Receiver| {
            let mut events: Vec<String> = receiver
                .received()
                .iter()
                .map(|call| call.json()["eventType"].to_string())
                .collect();
            events.sort();
            events
        };
        assert_eq!(events(&some), ["\"a\"", "\"b\""]);
        assert_eq!(events(&any), ["\"a\"", "\"b\"", "\"c\""]);
    });
}

#[test]
fn a_subscriber_to_everything_hears_of_a_command_as_its_task_spells_it() {
    with(|_, client| {
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({}));
        client.create("Render");
        assert_eq!(receiver.wait_for(1)[0].json()["eventType"], "Render");
    });
}

#[test]
fn a_queue_that_has_tasks_already_is_no_news() {
    with(|_, client| {
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({}));
        client.create("a");
        receiver.wait_for(1);
        client.create("a");
        client.claim("a").unwrap();
        client.create("a");
        receiver.stays_at(1, QUIET);
        drain(client, "a");
        client.create("a");
        receiver.wait_for(2);
    });
}

#[test]
fn every_way_in_which_a_queue_comes_to_have_tasks_is_told() {
    with(|_, client| {
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({}));
        let mut told = 0;
        let mut hears = |what: &str| {
            told += 1;
            receiver.wait_until(what, |received| received.len() >= told);
            receiver.stays_at(told, Duration::from_millis(200));
        };
        let id = client.create("a");
        hears("a new task");
        client.claim("a").unwrap();
        client.post(&format!("/tasks/{id}/abandon"), json!({})).expect(200);
        hears("a task that was handed back");
        client.claim("a").unwrap();
        client.post(&format!("/tasks/{id}/nack"), json!({})).expect(200);
        hears("a task that is tried again");
        client.claim("a").unwrap();
        client.post(&format!("/tasks/{id}/nack"), json!({ "delaySeconds": 1 })).expect(200);
        hears("a task that is tried again later");
        client.claim_with(json!({ "leaseSeconds": 1 })).unwrap();
        hears("a task whose lease ran out");
        drain(client, "a");
        client.create_with(json!({ "command": "a", "payload": 1, "delaySeconds": 1 }));
        hears("a task that came due");
        drain(client, "a");
        let tasks = json!([{ "command": "a", "payload": 1 }, { "command": "a", "payload": 2 }]);
        client.post("/tasks/batch", json!({ "tasks": tasks })).expect(200);
        hears("a batch");
    });
}

#[test]
fn a_subscriber_hears_nothing_after_the_end() {
    with(|_, client| {
        let (ended, expired) = (Receiver::start(), Receiver::start());
        let id = subscribe(client, &ended, &json!({}));
        subscribe(client, &expired, &json!({ "ttlSeconds": 5 }));
        let expiry = Clock::now() + Duration::from_millis(5100);
        client.create("a");
        ended.wait_for(1);
        expired.wait_for(1);
        drain(client, "a");
        end(client, &id).expect(204);
        std::thread::sleep(expiry.saturating_duration_since(Clock::now()));
        client.create("a");
        ended.stays_at(1, QUIET);
        expired.stays_at(1, Duration::ZERO);
    });
}

#[test]
fn a_new_subscriber_hears_at_once_of_a_queue_that_nobody_subscribed_to() {
    with(|_, client| {
        // Long enough for the host to know that nobody wants to hear.
        for _ in 0..20 {
            fill_and_drain(client, "a");
        }
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({}));
        client.create("a");
        let begin = Clock::now();
        receiver.wait_for(1);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    });
}

// How often, and who.

#[test]
fn a_subscriber_is_told_at_most_once_an_interval_and_does_not_miss_what_came_meanwhile() {
    with(|_, client| {
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({ "minIntervalSeconds": 2 }));
        client.create("a");
        receiver.wait_for(1);
        drain(client, "a");
        // What is gone by the end of the interval is no news.
        fill_and_drain(client, "a");
        receiver.stays_at(1, Duration::from_millis(2500));
        client.create("a");
        receiver.wait_for(2);
        drain(client, "a");
        client.create("a");
        // Nothing more happens to the queue, and still he hears of it.
        let received = receiver.wait_for(3);
        let wait = received[2].at - received[1].at;
        assert!(wait >= Duration::from_millis(1900), "{wait:?}");
        receiver.stays_at(3, Duration::from_millis(2500));
    });
}

#[test]
fn the_store_is_not_asked_about_a_subscriber_who_was_told_lately() {
    with(|host, client| {
        let calls = |operation: &str| {
            host.metrics().sum("codeq_plugin_calls_total", &[("operation", operation)])
        };
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({ "minIntervalSeconds": 600 }));
        client.create("a");
        receiver.wait_for(1);
        for _ in 0..5 {
            let looks = calls("get_by_command");
            drain(client, "a");
            client.create("a");
            host.wait_for(|_| calls("get_by_command") > looks);
        }
        assert_eq!(calls("allow_notify") as u64, 1);
    });
}

#[test]
fn the_interval_is_the_hosts_if_the_subscriber_names_none() {
    let config = and(config(), &json!({ "subscriptionMinIntervalSeconds": 60 }));
    on_every_provider_with(&config, |_, client| {
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({}));
        client.create("a");
        receiver.wait_for(1);
        drain(client, "a");
        client.create("a");
        receiver.stays_at(1, QUIET);
    });
}

#[test]
fn a_group_takes_turns() {
    with(|_, client| {
        let members = [Receiver::start(), Receiver::start(), Receiver::start()];
        let other = Receiver::start();
        let group = |name: &str| json!({ "deliveryMode": "group", "groupId": name });
        members.iter().for_each(|member| drop(subscribe(client, member, &group("blue"))));
        subscribe(client, &other, &group("red"));
        let told = || members.iter().map(|member| member.received().len()).collect::<Vec<_>>();
        for n in 1..=6 {
            client.create("a");
            other.wait_for(n);
            while told().iter().sum::<usize>() < n {
                std::thread::sleep(Duration::from_millis(5));
            }
            drain(client, "a");
        }
        assert_eq!(told(), [2, 2, 2]);
    });
}

#[test]
fn a_hash_sends_a_command_to_one_member_always() {
    with(|_, client| {
        let members: Vec<Receiver> = (0..3).map(|_| Receiver::start()).collect();
        let mode = json!({ "deliveryMode": "hash", "groupId": "blue" });
        members.iter().for_each(|member| drop(subscribe(client, member, &mode)));
        let commands: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
        let total = || members.iter().map(|member| member.received().len()).sum::<usize>();
        let mut expected = 0;
        for _ in 0..2 {
            for command in &commands {
                client.create(command);
                expected += 1;
                while total() < expected {
                    std::thread::sleep(Duration::from_millis(5));
                }
                drain(client, command);
            }
        }
        let mut told: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (n, member) in members.iter().enumerate() {
            for call in member.received() {
                told.entry(call.json()["eventType"].to_string()).or_default().push(n);
            }
        }
        assert!(told.values().all(|to| to.len() == 2 && to[0] == to[1]), "{told:?}");
    });
}

#[test]
fn a_webhook_is_called_no_more_often_than_its_limit() {
    let limit = json!({ "webhook": { "requestsPerMinute": 1, "burstSize": 2 } });
    let config = and(config(), &json!({ "rateLimit": limit }));
    on_every_provider_with(&config, |_, client| {
        let receiver = Receiver::start();
        subscribe(client, &receiver, &json!({}));
        for n in 0..5 {
            client.create("a");
            receiver.wait_for((n + 1).min(2));
            drain(client, "a");
        }
        receiver.stays_at(2, QUIET);
    });
}

#[test]
fn two_hosts_on_one_store_tell_once_an_interval() {
    let redis = Redis::start();
    let receiver = Receiver::start();
    let hosts = [(); 2].map(|()| start_on("redis", Some(&redis), &config()));
    let [one, other] = [hosts[0].client(), hosts[1].client()];
    subscribe(&one, &receiver, &json!({ "minIntervalSeconds": 60 }));
    for client in [&one, &other, &one, &other] {
        fill_and_drain(client, "a");
        client.create("a");
        drain(client, "a");
    }
    one.create("a");
    receiver.wait_for(1);
    receiver.stays_at(1, QUIET);
}

#[test]
fn a_subscription_at_another_host_is_heard_of_within_a_second() {
    let redis = Redis::start();
    let receiver = Receiver::start();
    let hosts = [(); 2].map(|()| start_on("redis", Some(&redis), &config()));
    let [one, other] = [hosts[0].client(), hosts[1].client()];
    fill_and_drain(&one, "a");
    subscribe(&other, &receiver, &json!({}));
    one.create("a");
    let begin = Clock::now();
    receiver.wait_for(1);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

// Receivers that do not answer as they should.

#[test]
fn a_subscriber_who_could_not_be_told_hears_of_it_when_he_is_back() {
    with(|_, client| {
        let receiver =
            Receiver::reacting(|_, before| Reaction::Status(if before < 3 { 500 } else { 200 }));
        subscribe(client, &receiver, &json!({}));
        client.create("a");
        receiver.wait_for(4);
        receiver.stays_at(4, QUIET);
    });
}

#[test]
fn a_subscriber_who_hangs_holds_up_nobody() {
    with(|_, client| {
        let (hanging, good) = (Receiver::reacting(|_, _| Reaction::Hang), Receiver::start());
        for _ in 0..20 {
            subscribe(client, &hanging, &json!({}));
        }
        subscribe(client, &good, &json!({}));
        let begin = Clock::now();
        for n in 1..=10 {
            client.create("a");
            good.wait_for(n);
            drain(client, "a");
        }
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    });
}

#[test]
fn subscribers_who_are_gone_cost_requests_nothing() {
    for provider in ["memory", "redis"] {
        let setup = Setup::start(provider, &config());
        let client = setup.host.client();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for _ in 0..50 {
            let body = json!({ "callbackUrl": format!("http://{nobody}/"), "eventTypes": ["a"] });
            client.post("/workers/subscriptions", body).expect(200);
        }
        let time = |command: &str| {
            let begin = Clock::now();
            (0..300).for_each(|_| fill_and_drain(&client, command));
            begin.elapsed()
        };
        let (with, without) = (time("a"), time("b"));
        println!("on {provider}: {with:?} against {without:?}");
        assert!(with < 6 * without + Duration::from_secs(3), "{with:?} against {without:?}");
    }
}
