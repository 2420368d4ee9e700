//! Real servers for tests.
//!
//! A server is started on a free port of this machine, with a directory of its own, and is gone when
//! its handle is dropped, also when the test panics.
//!
//! - [`Redis`]: a redis-server.
//! - [`Cluster`]: three masters that share slots among them, with or without replicas.
//! - [`SentinelGroup`]: a master with two replicas, and three Sentinels that watch over them.
//!
//! ```no_run
//! let redis = codeq_test_servers::Redis::start();
//! println!("tests may use {}", redis.addr());
//! ```

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that has no server fails"
)]

mod cluster;
mod redis_server;
mod sentinel_group;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

pub use cluster::Cluster;
pub use redis_server::Redis;
pub use sentinel_group::SentinelGroup;

/// An address of this machine that nobody listens on.
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}
