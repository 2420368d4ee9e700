//! A plugin for tests that misbehaves on demand, as its configuration says.

use std::{fs::File, future::pending, io::Write, panic::panic_any, path::Path, time::Duration};

use codeq_plugin::{
    Answers, AsyncPersistence, AsyncResultStorage, AsyncSubscriptionStorage, AsyncTaskStorage,
    BackedUp, Boxed, Claim, Claimed, Cleanup, Complete, Completed, Context, Durability, Enqueue,
    Enqueued, Error, Extend, Finish, Instant, Lease, Moved, Nack, Placed, Queue, QueueStats,
    Result, Returned, Task, TaskResult, Text,
};
use serde::Deserialize;

codeq_plugin::export_plugin! {
    name: "hostile",
    description: "misbehaves on demand, for tests",
    durability: Volatile,
    capabilities: [Backup],
    config_schema: r#"{"type": "object", "required": ["at"], "properties": {
        "at": {"type": "string"}, "durability": {"type": "string"}
    }}"#,
    async_store: Hostile,
}

/// A store that panics at the place that its configuration names.
struct Hostile {
    at: String,
    durability: Option<Durability>,
}

/// Where to misbehave, and what to promise.
#[derive(Deserialize)]
struct Config {
    at: String,
    durability: Option<Durability>,
}

const PAYLOAD: &str = "the payload of the panic";

/// Ends the process when the library is loaded, if the environment says so.
#[allow(unsafe_code, reason = "nothing else runs when a library is loaded")]
#[used]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".init_array"))]
static AT_LOADING: extern "C" fn() = {
    extern "C" fn at_loading() {
        if std::env::var_os("CODEQ_FAULT").is_some_and(|fault| fault == "at-loading") {
            std::process::abort();
        }
    }
    at_loading
};

/// Panics when it is dropped.
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "{PAYLOAD}");
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        assert!(self.at != "drop", "{PAYLOAD}");
    }
}

impl AsyncPersistence for Hostile {
    type Config = Config;

    fn runtime_threads(config: &Config) -> usize {
        assert!(config.at != "start", "{PAYLOAD}");
        1
    }

    async fn open(config: Config, _: Context) -> Result<Hostile> {
        tracing::warn!(at = config.at, "opening");
        assert!(config.at != "open", "{PAYLOAD}");
        Ok(Hostile { at: config.at, durability: config.durability })
    }

    fn durability(&self) -> Option<Durability> {
        assert!(self.at != "durability", "{PAYLOAD}");
        self.durability
    }

    async fn health(&self) -> Result<()> {
        if self.at == "health" { pending().await } else { Ok(()) }
    }

    async fn close(&self) -> Result<()> {
        assert!(self.at != "close", "{PAYLOAD}");
        Ok(())
    }

    /// A file that says where this one would have misbehaved.
    async fn backup(config: Config, _: Context, to: &Path) -> Result<BackedUp> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(config.at != "backup", "{PAYLOAD}");
        if config.at == "unavailable" {
            return Err(Error::unavailable("the backend is away"));
        }
        if config.at == "race" {
            File::create(to).map_err(|error| Error::internal("no race").because(&error))?;
        }
        let failed = |error| Error::already_exists("cannot be written").because(&error);
        let mut file = File::create_new(to).map_err(failed)?;
        file.write_all(config.at.as_bytes()).map_err(failed)?;
        Ok(BackedUp { bytes: config.at.len() as u64, tasks: 3, ..BackedUp::default() })
    }
}

impl AsyncTaskStorage for Hostile {
    /// A panic before the first wait, or after it.
    async fn enqueue(&self, batch: Vec<Enqueue>) -> Answers<Enqueued> {
        match self.at.as_str() {
            "never" => return pending().await,
            // Not even the answer that there is none yet.
            "block" => loop {
                std::thread::park();
            },
            "exit" => std::process::exit(0),
            "abort" => std::process::abort(),
            "leak" => std::mem::forget(vec![1_u8; 1 << 20]),
            _ => {}
        }
        assert!(self.at != "call", "{PAYLOAD}");
        if self.at == "value" {
            panic_any(42);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(self.at != "poll", "{PAYLOAD}");
        if self.at == "count" {
            return Ok(Vec::new());
        }
        Ok(batch
            .into_iter()
            .map(|Enqueue { mut task, .. }| {
                if self.at == "ids" {
                    task.id = "another".into();
                }
                Ok(Enqueued { task, created: true, awoke: true })
            })
            .collect())
    }

    /// A future that panics when it is dropped: at its end, or before it.
    async fn claim(&self, _: Claim) -> Result<Claimed> {
        let _bomb = Bomb(self.at == "future");
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Claimed::default())
    }

    async fn save(&self, _: Vec<Placed>) -> Answers<()> {
        unsupported()
    }
    async fn get(&self, _: Vec<Text>) -> Answers<Boxed<Task>> {
        unsupported()
    }
    async fn delete(&self, _: Vec<Text>) -> Answers<()> {
        unsupported()
    }
    async fn update_lease(&self, _: Vec<Extend>) -> Answers<Instant> {
        unsupported()
    }
    async fn abandon_lease(&self, _: Vec<Lease>) -> Answers<Returned> {
        unsupported()
    }
    async fn nack(&self, _: Vec<Nack>) -> Answers<Returned> {
        unsupported()
    }
    async fn move_due_delayed(&self, _: u32) -> Result<Moved> {
        Ok(Moved::default())
    }
    async fn requeue_expired(&self, _: u32) -> Result<Moved> {
        Ok(Moved::default())
    }
    async fn queue_length(&self, _: Queue) -> Result<u64> {
        unsupported()
    }
    async fn queue_stats(&self, _: Queue) -> Result<QueueStats> {
        unsupported()
    }
    async fn admin_queues(&self, _: Option<Text>) -> Result<Vec<QueueStats>> {
        unsupported()
    }
    async fn cleanup_expired(&self, _: Cleanup) -> Result<u32> {
        Ok(0)
    }
}

impl AsyncResultStorage for Hostile {
    async fn save_result(&self, _: Vec<Boxed<TaskResult>>) -> Answers<()> {
        unsupported()
    }
    async fn get_result(&self, _: Vec<Text>) -> Answers<Boxed<TaskResult>> {
        unsupported()
    }
    async fn update_task_on_complete(&self, _: Vec<Finish>) -> Answers<()> {
        unsupported()
    }
    async fn remove_from_inprog_and_clear_lease(&self, _: Vec<Text>) -> Answers<()> {
        unsupported()
    }
    async fn complete(&self, _: Vec<Complete>) -> Answers<Completed> {
        unsupported()
    }
}

impl AsyncSubscriptionStorage for Hostile {}

fn unsupported<T>() -> Result<T> {
    Err(Error::unsupported("this store is for panics"))
}
