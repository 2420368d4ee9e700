//! The operations in whichever layout the keys have: codeQ's, where all of them are one script on one
//! server, or that of a cluster, where they are put together from scripts on its nodes.

use std::{ops::Deref, sync::Arc};

use codeq_plugin::{
    AllowNotify, Answers, Boxed, ByCommand, ByWorker, Claim, Claimed, Cleanup, Complete, Completed,
    Context, Enqueue, Enqueued, Extend, Finish, GroupKey, Instant, Lease, ListTasks, Moved, Nack,
    Page, Placed, Queue, QueueStats, Renew, Result, Returned, Subscription, Task, TaskKey,
    TaskResult, Text, Unregister,
};

use crate::{
    backend::{Backend, Core},
    cluster::Cluster,
    config::Config,
    keys::Scope,
};

/// The operations of a store.
pub(crate) enum Operations {
    Codeq(Backend),
    Cluster(Box<Cluster>),
}

impl Operations {
    pub(crate) async fn open(config: &Config, context: Context) -> Result<Operations> {
        let core = Arc::new(Core::open(config, context).await?);
        if core.connection.nodes().is_some() {
            return Ok(Operations::Cluster(Box::new(Cluster::new(core))));
        }
        Ok(Operations::Codeq(Backend::new(&core, &Scope::codeq())))
    }
}

impl Operations {
    /// Whether operations of different callers end together if they are sent together. In a cluster those
    /// about one node would wait for those about another one, which may hang.
    pub(crate) fn end_together(&self) -> bool {
        matches!(self, Operations::Codeq(_))
    }
}

impl Deref for Operations {
    type Target = Core;

    fn deref(&self) -> &Core {
        match self {
            Operations::Codeq(backend) => backend,
            Operations::Cluster(cluster) => cluster.core(),
        }
    }
}

macro_rules! operations {
    ($($name:ident($argument:ty) -> $answer:ty;)* ; unhurried: $($slow:ident($about:ty) -> $out:ty;)*) => {
        impl Operations {
            $(
                pub(crate) async fn $name(&self, argument: $argument) -> $answer {
                    match self {
                        Operations::Codeq(backend) => backend.$name(argument).await,
                        Operations::Cluster(cluster) => {
                            self.connection.in_time(cluster.$name(argument)).await
                        }
                    }
                }
            )*
            $(
                pub(crate) async fn $slow(&self, argument: $about) -> $out {
                    match self {
                        Operations::Codeq(backend) => backend.$slow(argument).await,
                        Operations::Cluster(cluster) => cluster.$slow(argument).await,
                    }
                }
            )*
        }
    };
}

// What goes through all queues takes as long as there are queues; each step of it has its time.
operations! {
    save(Vec<Placed>) -> Answers<()>;
    get(Vec<Text>) -> Answers<Boxed<Task>>;
    delete(Vec<Text>) -> Answers<()>;
    enqueue(Vec<Enqueue>) -> Answers<Enqueued>;
    claim(Vec<Claim>) -> Answers<Claimed>;
    update_lease(Vec<Extend>) -> Answers<Instant>;
    abandon_lease(Vec<Lease>) -> Answers<Returned>;
    nack(Vec<Nack>) -> Answers<Returned>;
    move_due_delayed(u32) -> Result<Moved>;
    requeue_expired(u32) -> Result<Moved>;
    queue_stats(Queue) -> Result<QueueStats>;
    redrive(Vec<TaskKey>) -> Answers<Returned>;
    save_result(Vec<Boxed<TaskResult>>) -> Answers<()>;
    get_result(Vec<Text>) -> Answers<Boxed<TaskResult>>;
    update_task_on_complete(Vec<Finish>) -> Answers<()>;
    remove_from_inprog_and_clear_lease(Vec<Text>) -> Answers<()>;
    complete(Vec<Complete>) -> Answers<Completed>;
    register(Vec<Boxed<Subscription>>) -> Answers<()>;
    renew(Vec<Renew>) -> Answers<Boxed<Subscription>>;
    unregister(Vec<Unregister>) -> Answers<u32>;
    get_by_command(ByCommand) -> Result<Vec<Boxed<Subscription>>>;
    get_by_worker(ByWorker) -> Result<Vec<Boxed<Subscription>>>;
    allow_notify(Vec<AllowNotify>) -> Answers<bool>;
    next_group_index(Vec<GroupKey>) -> Answers<u64>;
    remove_expired(u32) -> Result<u32>;
    ; unhurried:
    admin_queues(Option<Text>) -> Result<Vec<QueueStats>>;
    cleanup_expired(Cleanup) -> Result<u32>;
    list(ListTasks) -> Result<Page>;
}
