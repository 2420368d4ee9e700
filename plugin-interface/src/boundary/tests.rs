//! A store that answers at once, as the host sees it. Of one that waits the host's own tests have a
//! plugin.

use std::{
    future::Future,
    path::Path,
    pin::pin,
    task::{Context as TaskContext, Poll, Waker},
};

use serde::Deserialize;

use super::{Reply, backup_ready, durability_of, open_ready};
use crate::{
    BackedUp, Boxed, Claim, Claimed, Cleanup, Complete, Completed, Context, Durability, Enqueue,
    Enqueued, Error, ErrorKind, Extend, Finish, Instant, Lease, Moved, Nack, Persistence, Placed,
    Queue, QueueStats, Result, ResultStorage, Returned, SubscriptionStorage, Task, TaskResult,
    TaskStorage, Text,
    log::LogSink,
    manifest::{InterfaceVersion, Manifest},
    rules::Rules,
};

/// A store that keeps nothing.
struct Shelf(Config);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    durability: Option<Durability>,
    panics: bool,
}

impl Persistence for Shelf {
    type Config = Config;

    fn open(config: Config, _: Context) -> Result<Shelf> {
        Ok(Shelf(config))
    }

    fn durability(&self) -> Option<Durability> {
        assert!(!self.0.panics, "the payload");
        self.0.durability
    }

    fn backup(config: Config, _: Context, to: &Path) -> Result<BackedUp> {
        assert!(!config.panics, "the payload");
        Ok(BackedUp { bytes: to.as_os_str().len() as u64, ..BackedUp::default() })
    }
}

impl TaskStorage for Shelf {
    fn save(&self, _: Placed) -> Result<()> {
        Err(Error::closed())
    }
    fn get(&self, _: &str) -> Result<Boxed<Task>> {
        Err(Error::closed())
    }
    fn delete(&self, _: &str) -> Result<()> {
        Err(Error::closed())
    }
    fn enqueue(&self, _: Enqueue) -> Result<Enqueued> {
        Err(Error::closed())
    }
    fn claim(&self, _: Claim) -> Result<Claimed> {
        Err(Error::closed())
    }
    fn update_lease(&self, _: Extend) -> Result<Instant> {
        Err(Error::closed())
    }
    fn abandon_lease(&self, _: Lease) -> Result<Returned> {
        Err(Error::closed())
    }
    fn nack(&self, _: Nack) -> Result<Returned> {
        Err(Error::closed())
    }
    fn move_due_delayed(&self, _: u32) -> Result<Moved> {
        Err(Error::closed())
    }
    fn requeue_expired(&self, _: u32) -> Result<Moved> {
        Err(Error::closed())
    }
    fn queue_length(&self, _: Queue) -> Result<u64> {
        Err(Error::closed())
    }
    fn queue_stats(&self, _: Queue) -> Result<QueueStats> {
        Err(Error::closed())
    }
    fn admin_queues(&self, _: Option<Text>) -> Result<Vec<QueueStats>> {
        Err(Error::closed())
    }
    fn cleanup_expired(&self, _: Cleanup) -> Result<u32> {
        Err(Error::closed())
    }
}

impl ResultStorage for Shelf {
    fn save_result(&self, _: Boxed<TaskResult>) -> Result<()> {
        Err(Error::closed())
    }
    fn get_result(&self, _: &str) -> Result<Boxed<TaskResult>> {
        Err(Error::closed())
    }
    fn update_task_on_complete(&self, _: Finish) -> Result<()> {
        Err(Error::closed())
    }
    fn remove_from_inprog_and_clear_lease(&self, _: &str) -> Result<()> {
        Err(Error::closed())
    }
    fn complete(&self, _: Complete) -> Result<Completed> {
        Err(Error::closed())
    }
}

impl SubscriptionStorage for Shelf {}

fn context() -> Context {
    Context {
        provider: "shelf".into(),
        rules: Rules::default(),
        timezone: "UTC".into(),
        repair_limit: 1,
        log: LogSink::none(),
        extensions: Default::default(),
    }
}

/// The answer of a store that answers at once.
fn at_once<T>(reply: Reply<T>) -> Result<T> {
    match pin!(reply.settled()).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn an_open_store_tells_its_durability_if_it_is_another_than_the_manifests() {
    let manifest = Manifest {
        name: "shelf".into(),
        version: "0.1.0".into(),
        description: "keeps nothing".into(),
        interface: InterfaceVersion { major: 1, minor: 1 },
        target: String::new(),
        rustc: String::new(),
        panic: "unwind".into(),
        durability: Durability::Disk,
        capabilities: Vec::new(),
        config_schema: serde_json::Value::Null,
    };
    for (config, level) in
        [("{}", Durability::Disk), (r#"{"durability": "process"}"#, Durability::Process)]
    {
        let store = at_once(open_ready::<Shelf>(config.into(), context())).unwrap();
        assert_eq!(durability_of(&store, &manifest), level, "{config}");
    }
}

#[test]
fn a_store_that_panics_when_it_is_asked_for_its_durability_does_not_open() {
    let opened = at_once(open_ready::<Shelf>(r#"{"panics": true}"#.into(), context()));
    let error = opened.err().expect("it cannot be opened");
    assert_eq!(error.message(), "it panicked: the payload");
}

#[test]
fn a_backup_is_made_with_the_configuration_and_the_path() {
    let made =
        |config: &str| at_once(backup_ready::<Shelf>(config.into(), context(), "copy".into()));
    assert_eq!(made("{}").unwrap().bytes, 4);
    assert_eq!(made("[").unwrap_err().kind(), ErrorKind::InvalidConfig);
    let error = made(r#"{"panics": true}"#).unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Internal, "it panicked: the payload"));
}
