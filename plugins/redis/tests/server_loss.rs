//! A server that is not there, hangs, goes away, comes back, or does not want to.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{AsyncPersistence, AsyncTaskStorage, Error, ErrorKind, Result};
use codeq_redis::{Config, Redis};
use redis::Commands;
use support::*;

/// The time that the scheduler of a busy machine may add.
const SLACK: Duration = Duration::from_millis(700);

fn impatient(server: &Server) -> Config {
    Config { connect_timeout_ms: 200, command_timeout_ms: 300, ..server.config() }
}

async fn open(config: Config) -> Result<Redis> {
    Redis::open(config, context(rules())).await
}

async fn refusal(config: Config) -> Error {
    match open(config).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn opening_says_that_nothing_listens_there() {
    let mut server = Server::start();
    server.kill();
    let error = refusal(impatient(&server)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with(&format!("cannot reach redis at {}", server.addr())));
    assert!(error.to_string().contains("persistenceConfig.addr"), "{error}");
}

#[tokio::test]
async fn opening_does_not_wait_for_a_server_that_hangs() {
    let server = Server::start();
    server.hang();
    let begun = Clock::now();
    let error = refusal(impatient(&server)).await;
    assert!(begun.elapsed() < Duration::from_millis(200) + SLACK);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_named_when_the_store_opens() {
    let server = Server::with(&["--requirepass", "right"]);
    for password in ["", "wrong"] {
        let error = refusal(Config { password: password.into(), ..server.config() }).await;
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("persistenceConfig.password"), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    open(Config { password: "right".into(), ..server.config() }).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_when_the_store_opens() {
    let server = Server::start();
    let error = refusal(Config { db: 99, ..server.config() }).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("persistenceConfig.db"), "{error}");
    let store = open(Config { db: 3, ..server.config() }).await.unwrap();
    store.put(task("t")).await;
}

#[tokio::test]
async fn an_unknown_zone_is_named_when_the_store_opens() {
    let server = Server::start();
    let context = codeq_plugin::Context { timezone: "Mars/Base".into(), ..context(rules()) };
    let Err(error) = Redis::open(server.config(), context).await else { panic!("it opened") };
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("Mars/Base"));
}

#[tokio::test]
async fn a_server_that_died_is_unavailable_and_used_again_once_it_is_back() {
    let mut server = Server::start();
    let store = open(impatient(&server)).await.unwrap();
    store.put(task("t")).await;
    server.kill();
    for _ in 0..5 {
        let begun = Clock::now();
        let error = store.one("t").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.is_retryable());
        assert!(begun.elapsed() < Duration::from_millis(300) + SLACK);
        assert_eq!(store.health().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    server.restart();
    recovered(&store).await;
    assert_eq!(store.one("t").await.unwrap_err().kind(), ErrorKind::NotFound, "it came back empty");
    store.put(task("u")).await;
    assert_eq!(store.take_ids(9).await, ["u"]);
}

#[tokio::test]
async fn a_server_that_hangs_costs_no_more_than_the_time_out() {
    let server = Server::start();
    let store = open(impatient(&server)).await.unwrap();
    store.put(task("t")).await;
    server.hang();
    let begun = Clock::now();
    let error = store.one("t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.is_retryable());
    assert!(begun.elapsed() < Duration::from_millis(300) + SLACK);
    for _ in 0..3 {
        let begun = Clock::now();
        let error = store.health().await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert!(begun.elapsed() < Duration::from_millis(300) + SLACK);
    }
    server.go_on();
    recovered(&store).await;
    assert_eq!(store.take_ids(9).await, ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_are_refused_in_time_and_come_back_over_one_connection() {
    let mut server = Server::start();
    let store = Arc::new(open(impatient(&server)).await.unwrap());
    server.kill();
    let begun = Clock::now();
    let callers = (0..1000).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.one("t").await.unwrap_err().kind() })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap(), ErrorKind::Unavailable);
    }
    assert!(begun.elapsed() < Duration::from_millis(300) + SLACK);

    server.restart();
    recovered(&store).await;
    let callers = (0..1000).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.one("t").await.unwrap_err().kind() })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap(), ErrorKind::NotFound);
    }
    let clients: String = redis::cmd("INFO").arg("stats").query(&mut server.redis()).unwrap();
    let connections = clients
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"))
        .and_then(|count| count.trim().parse::<u32>().ok());
    // The probes of the test and this look are among them.
    assert!(connections.unwrap() < 8, "{connections:?}");
}

#[tokio::test]
async fn scripts_are_taught_again_to_a_server_that_forgot_them() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut server.redis()).unwrap();
    store.put(task("u")).await;
    assert_eq!(store.take_ids(9).await, ["t", "u"]);
}

#[tokio::test]
async fn kvrocks_says_otherwise_that_it_does_not_know_a_script() {
    let server = Server::start();
    let addr = saying(&server, "-NOSCRIPT", "-ERR NOSCRIPT");
    let store = open(Config { addr, ..server.config() }).await.unwrap();
    store.put(task("t")).await;
    assert_eq!(store.take_ids(9).await, ["t"]);
}

#[tokio::test]
async fn a_full_server_is_unavailable_and_nothing_is_half_done() {
    let server = Server::start();
    let store = server.store().await;
    store.put(task("t")).await;
    let mut redis = server.redis();
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).query(&mut redis).unwrap();
    let error = store.put_as(codeq_plugin::Enqueue::now(task("u"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).query(&mut redis).unwrap();
    assert_eq!(store.one("u").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.stats().await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn a_replica_that_takes_no_writes_is_unavailable() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let replicate = ["127.0.0.1", "1"];
    let () = redis::cmd("REPLICAOF").arg(&replicate).query(&mut redis).unwrap();
    let error = store.put_as(codeq_plugin::Enqueue::now(task("t"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_master_without_the_replicas_that_it_wants_is_unavailable_and_nothing_is_done() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let replicas =
        |count| redis::cmd("CONFIG").arg(&["SET", "min-replicas-to-write", count]).clone();
    let () = replicas("1").query(&mut redis).unwrap();
    let error = store.put_as(codeq_plugin::Enqueue::now(task("t"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("NOREPLICAS"), "{error}");
    let () = replicas("0").query(&mut redis).unwrap();
    assert_eq!(store.one("t").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.stats().await, [0; 4]);
}

#[tokio::test]
async fn listening_for_events_survives_the_loss_of_the_server() {
    let mut server = Server::start();
    let store = open(impatient(&server)).await.unwrap();
    let other = async |server: &Server| {
        let other = server.store().await;
        loop {
            let (_, count): (String, u64) = redis::cmd("PUBSUB")
                .arg(&["NUMSUB", "codeq:x:events"])
                .query(&mut server.redis())
                .unwrap();
            if count > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        other.put(task(&fastrand::u64(..).to_string())).await;
    };
    let (heard, ()) = tokio::join!(store.next_events(), other(&server));
    assert_eq!(heard.unwrap().len(), 1);
    server.kill();
    assert_eq!(store.next_events().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.next_events().await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.restart();
    let heard = async {
        loop {
            if let Ok(events) = store.next_events().await {
                return events;
            }
        }
    };
    let (heard, ()) = tokio::join!(heard, other(&server));
    assert_eq!(heard.len(), 1);
}

#[tokio::test]
async fn a_closed_store_stays_closed() {
    let server = Server::start();
    let store = server.store().await;
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(store.one("t").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.health().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.next_events().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.requeue_expired(1).await.unwrap_err().kind(), ErrorKind::Closed);
}

/// A way to the server on which one of its words is replaced by another.
fn saying(server: &Server, word: &'static str, other: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let upstream = server.addr();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) =
                (client.unwrap(), TcpStream::connect(&upstream).unwrap());
            let (mut requests, mut sink) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || drop(std::io::copy(&mut requests, &mut sink)));
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(count @ 1..) = server.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..count]).replace(word, other);
                    if client.write_all(text.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// Waits until the store works again, which it does by itself within the pause between attempts.
async fn recovered(store: &Redis) {
    let begun = Clock::now();
    while store.health().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(2), "it does not recover");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_login_that_is_no_longer_accepted_is_said_to_be_that() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let () = redis::cmd("CONFIG").arg(&["SET", "requirepass", "new"]).query(&mut redis).unwrap();
    let () = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
        .query::<i64>(&mut redis)
        .map(drop)
        .unwrap();
    let mut said = String::new();
    for _ in 0..20 {
        let error = store.one("t").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        said = error.to_string();
        if said.contains("no longer accepts the login") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(said.contains("no longer accepts the login"), "{said}");
}

#[tokio::test]
async fn a_user_who_may_not_publish_has_his_work_done() {
    let server = Server::start();
    let mut redis = server.redis();
    let user = ["SETUSER", "worker", "on", ">pw", "~codeq:*", "+@all", "resetchannels"];
    let () = redis::cmd("ACL").arg(&user).query(&mut redis).unwrap();
    let config = Config { username: "worker".into(), password: "pw".into(), ..server.config() };
    let store = open(config).await.unwrap();
    assert!(store.put(task("t")).await.created);
    assert_eq!(store.take_ids(1).await, ["t"]);
    store.finish(lease("t", 1)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_busy_with_somebody_s_script_is_unavailable_until_that_ends() {
    let server = Server::start();
    let store = server.store().await;
    let mut redis = server.redis();
    let patience = ["SET", "busy-reply-threshold", "20"];
    let () = redis::cmd("CONFIG").arg(&patience).query(&mut redis).unwrap();
    let mut other = server.redis();
    let busy = std::thread::spawn(move || {
        redis::cmd("EVAL").arg(&["while true do end", "0"]).query::<()>(&mut other).unwrap_err()
    });
    let mut seen = false;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Err(error) = store.one("t").await
            && error.kind() == ErrorKind::Unavailable
        {
            seen = true;
            break;
        }
    }
    let () = redis::cmd("SCRIPT").arg("KILL").query(&mut redis).unwrap();
    busy.join().unwrap();
    assert!(seen, "nobody was told that the server is busy");
    store.put(task("t")).await;
}

#[tokio::test]
async fn a_server_that_still_loads_its_data_is_unavailable_until_it_has() {
    // A millisecond for each key, and an ear for clients meanwhile.
    let slowly = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    let mut server = Server::with(&slowly);
    let store = server.store().await;
    let mut redis = server.redis();
    for n in 0..800 {
        let () = redis.set(format!("k{n}"), "x".repeat(100)).unwrap();
    }
    store.put(task("t")).await;
    let () = redis::cmd("SAVE").query(&mut redis).unwrap();
    server.restart();
    let error = store.one("t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    recovered(&store).await;
    assert_eq!(store.one("t").await.unwrap().id, "t");
}

#[tokio::test]
async fn a_server_may_listen_on_a_unix_socket_only() {
    let dir = std::env::temp_dir().join(format!("codeq-redis-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let socket = dir.join("redis.sock");
    let server = Server::with(&["--unixsocket", socket.to_str().unwrap()]);
    let config = Config {
        // Nobody is there.
        addr: "127.0.0.1:1".into(),
        socket: socket.to_str().unwrap().into(),
        ..server.config()
    };
    let store = open(config.clone()).await.unwrap();
    store.put(task("t")).await;
    assert_eq!(store.take_ids(1).await, ["t"]);
    drop(server);
    let _ = std::fs::remove_file(&socket);
    let error = refusal(config).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}
