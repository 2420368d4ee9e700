//! The operations in a cluster, where each queue is in a slot of its own.
//!
//! A script works on one queue. So a batch is split by queues, its parts run at the same time, and what they
//! answer is put together in the order in which it was asked for. A part that fails fails its own items only.
//! What is about tasks by their ids has to find out first in which queues they are. New tasks, claims and
//! repairs have modules of their own.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use codeq_plugin::{
    AllowNotify, Answers, Boxed, ByCommand, ByWorker, Complete, Completed, Error, ErrorKind,
    Extend, Finish, GroupKey, Instant, Lease, Nack, Renew, Result, Returned, Subscription, Task,
    TaskKey, TaskResult, Text, Unregister, rules,
};
use futures_util::future::{BoxFuture, join_all};
use redis::Value;

use crate::{
    backend::{Backend, Core},
    keys::{Scope, Slot},
    pointers::Pointers,
    queues::{Chore, Queues},
    repairs::Upkeep,
    scripts::Small,
    sweep::Sweep,
};

/// The store in a cluster.
pub(crate) struct Cluster {
    core: Arc<Core>,
    pub(crate) queues: Queues,
    pub(crate) pointers: Pointers,
    pub(crate) upkeep: Upkeep,
    pub(crate) sweep: Sweep,
    subscriptions: Backend,
}

/// An operation on tasks of one queue.
type Operation<I, A> = fn(Backend, Vec<I>) -> BoxFuture<'static, Answers<A>>;

/// What an item was answered, and the queue that its task is in, if it is in any.
struct Answered<A> {
    scope: Option<Scope>,
    answer: Result<A>,
}

/// An operation of the backend, as one of the kind above.
macro_rules! operation {
    ($name:ident) => {
        |backend: Backend, batch| Box::pin(async move { backend.$name(batch).await })
    };
}

impl Cluster {
    pub(crate) fn new(core: Arc<Core>) -> Cluster {
        Cluster {
            queues: Queues::default(),
            pointers: Pointers::default(),
            upkeep: Upkeep::default(),
            sweep: Sweep::default(),
            subscriptions: Backend::new(&core, &Scope::subscriptions()),
            core,
        }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// What works on one queue.
    pub(crate) fn at(&self, scope: &Scope) -> Backend {
        Backend::new(&self.core, scope)
    }

    /// Runs a script about one key.
    pub(crate) async fn small<A: AsRef<str>>(
        &self,
        script: &'static Small,
        key: &str,
        args: &[A],
    ) -> Result<Value> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.form.hash()).arg(1).arg(key);
        for arg in args {
            command.arg(arg.as_ref());
        }
        let slot = Some(Slot::of(key));
        self.core.connection.send(script.name, slot, &command, Some(&script.form)).await
    }

    pub(crate) async fn get(&self, ids: Vec<Text>) -> Answers<Boxed<Task>> {
        Ok(plain(self.by_id(ids, |id| id, rules::not_found, operation!(get)).await))
    }

    pub(crate) async fn delete(&self, ids: Vec<Text>) -> Answers<()> {
        let answered = self.by_id(ids.clone(), |id| id, rules::not_found, operation!(delete)).await;
        join_all(ids.iter().zip(&answered).map(|(id, answered)| async move {
            if let (Some(scope), Ok(())) = (&answered.scope, &answered.answer) {
                self.unpoint(scope, &[id.to_string()]).await;
            }
        }))
        .await;
        Ok(plain(answered))
    }

    pub(crate) async fn update_lease(&self, batch: Vec<Extend>) -> Answers<Instant> {
        let id: fn(&Extend) -> &str = |extend| &extend.lease.task_id;
        let answered = self.by_id(batch, id, rules::not_found, operation!(update_lease)).await;
        for Answered { scope, answer } in &answered {
            if let (Some(scope), Ok(deadline)) = (scope, answer) {
                self.queues.note(scope, Chore::Expiring, *deadline);
            }
        }
        Ok(plain(answered))
    }

    pub(crate) async fn abandon_lease(&self, batch: Vec<Lease>) -> Answers<Returned> {
        let id: fn(&Lease) -> &str = |lease| &lease.task_id;
        let answered = self.by_id(batch, id, rules::not_found, operation!(abandon_lease)).await;
        self.returned(answered).await
    }

    pub(crate) async fn nack(&self, batch: Vec<Nack>) -> Answers<Returned> {
        let id: fn(&Nack) -> &str = |nack| &nack.lease.task_id;
        let answered = self.by_id(batch, id, rules::not_found, operation!(nack)).await;
        self.returned(answered).await
    }

    pub(crate) async fn redrive(&self, batch: Vec<TaskKey>) -> Answers<Returned> {
        let id: fn(&TaskKey) -> &str = |key| &key.id;
        let answered = self.by_id(batch, id, rules::not_found, operation!(redrive)).await;
        self.returned(answered).await
    }

    pub(crate) async fn complete(&self, batch: Vec<Complete>) -> Answers<Completed> {
        let id: fn(&Complete) -> &str = |complete| &complete.lease.task_id;
        let answered = self.by_id(batch, id, rules::not_found, operation!(complete)).await;
        for completed in answered.iter().flat_map(|answered| &answered.answer) {
            // Hardly anybody asks for it again soon.
            self.pointers.remove(&completed.task.id);
        }
        Ok(plain(answered))
    }

    pub(crate) async fn save_result(&self, batch: Vec<Boxed<TaskResult>>) -> Answers<()> {
        let id: fn(&Boxed<TaskResult>) -> &str = |result| &result.task_id;
        Ok(plain(self.by_id(batch, id, rules::not_found, operation!(save_result)).await))
    }

    pub(crate) async fn get_result(&self, ids: Vec<Text>) -> Answers<Boxed<TaskResult>> {
        let missing = |id: &str| Error::not_found(format!("task {id} has no result"));
        Ok(plain(self.by_id(ids, |id| id, missing, operation!(get_result)).await))
    }

    pub(crate) async fn update_task_on_complete(&self, batch: Vec<Finish>) -> Answers<()> {
        let id: fn(&Finish) -> &str = |finish| &finish.task_id;
        let operation: Operation<Finish, ()> = operation!(update_task_on_complete);
        Ok(plain(self.by_id(batch, id, rules::not_found, operation).await))
    }

    pub(crate) async fn remove_from_inprog_and_clear_lease(&self, ids: Vec<Text>) -> Answers<()> {
        let operation: Operation<Text, ()> = operation!(remove_from_inprog_and_clear_lease);
        let answered = self.by_id(ids, |id| id, rules::not_found, operation).await;
        let done = answered.iter().filter(|answered| answered.answer.is_ok());
        self.hint(done.filter_map(|answered| answered.scope.as_ref())).await;
        Ok(plain(answered))
    }

    pub(crate) async fn register(&self, batch: Vec<Boxed<Subscription>>) -> Answers<()> {
        self.subscriptions.register(batch).await
    }

    pub(crate) async fn renew(&self, batch: Vec<Renew>) -> Answers<Boxed<Subscription>> {
        self.subscriptions.renew(batch).await
    }

    pub(crate) async fn unregister(&self, batch: Vec<Unregister>) -> Answers<u32> {
        self.subscriptions.unregister(batch).await
    }

    pub(crate) async fn get_by_command(&self, by: ByCommand) -> Result<Vec<Boxed<Subscription>>> {
        self.subscriptions.get_by_command(by).await
    }

    pub(crate) async fn get_by_worker(&self, by: ByWorker) -> Result<Vec<Boxed<Subscription>>> {
        self.subscriptions.get_by_worker(by).await
    }

    pub(crate) async fn allow_notify(&self, batch: Vec<AllowNotify>) -> Answers<bool> {
        self.subscriptions.allow_notify(batch).await
    }

    pub(crate) async fn next_group_index(&self, batch: Vec<GroupKey>) -> Answers<u64> {
        self.subscriptions.next_group_index(batch).await
    }

    pub(crate) async fn remove_expired(&self, limit: u32) -> Result<u32> {
        self.subscriptions.remove_expired(limit).await
    }

    /// Tells others and remembers what follows from tasks that went back into their queues.
    async fn returned(&self, answered: Vec<Answered<Returned>>) -> Answers<Returned> {
        let mut awoke = Vec::new();
        for Answered { scope, answer } in &answered {
            let (Some(scope), Ok(returned)) = (scope, answer) else { continue };
            if returned.awoke {
                awoke.push(scope);
            }
            if returned.delay.0 > 0 {
                self.queues.note(scope, Chore::Due, Instant::now() + returned.delay);
            }
        }
        self.hint(awoke).await;
        Ok(plain(answered))
    }

    /// Does something with tasks, each in the queue that it is in.
    async fn by_id<I: Clone, A>(
        &self,
        batch: Vec<I>,
        id: fn(&I) -> &str,
        missing: impl Fn(&str) -> Error,
        operation: Operation<I, A>,
    ) -> Vec<Answered<A>> {
        let ids: Vec<&str> = batch.iter().map(id).collect();
        let located = self.locate(&ids).await;
        let mut answered: Vec<_> = ids
            .iter()
            .zip(located)
            .map(|(id, located)| match located {
                Ok(scope) => Answered { answer: Err(missing(id)), scope },
                Err(error) => Answered { answer: Err(error), scope: None },
            })
            .collect();
        let found = (0..batch.len()).filter(|n| answered[*n].scope.is_some()).collect();
        self.run_parts(&batch, found, &mut answered, operation).await;
        // What was remembered of a task may be over: others may have moved it.
        let moved = self.moved(&ids, &mut answered).await;
        self.run_parts(&batch, moved, &mut answered, operation).await;
        answered
    }

    /// Runs those items of a batch, by queue.
    async fn run_parts<I: Clone, A>(
        &self,
        batch: &[I],
        items: Vec<usize>,
        answered: &mut [Answered<A>],
        operation: Operation<I, A>,
    ) {
        let parts = by_queue(items, |n| answered[*n].scope.clone());
        let parts = parts.into_iter().map(|(scope, items)| {
            let part = items.iter().map(|n| batch[*n].clone()).collect();
            let ran = operation(self.at(&scope), part);
            async { (items, ran.await) }
        });
        for (items, answers) in join_all(parts).await {
            match answers {
                Ok(answers) => {
                    for (n, answer) in items.into_iter().zip(answers) {
                        answered[n].answer = answer;
                    }
                }
                Err(error) => {
                    for n in items {
                        answered[n].answer = Err(error.clone());
                    }
                }
            }
        }
    }

    /// Those items whose task is not where it was thought to be, and is said to be elsewhere.
    async fn moved<A>(&self, ids: &[&str], answered: &mut [Answered<A>]) -> Vec<usize> {
        let is_lost = |answered: &Answered<A>| {
            let is_missing = answered.answer.as_ref().is_err_and(is_not_found);
            is_missing && answered.scope.is_some()
        };
        let lost: Vec<usize> = (0..ids.len()).filter(|n| is_lost(&answered[*n])).collect();
        let found = join_all(lost.iter().map(|n| self.look_up(ids[*n]))).await;
        let mut moved = Vec::new();
        for (n, found) in lost.into_iter().zip(found) {
            let before = answered[n].scope.as_ref().map(Scope::tag);
            if let Ok(Some(scope)) = found
                && before != Some(scope.tag())
            {
                answered[n].scope = Some(scope);
                moved.push(n);
            }
        }
        moved
    }
}

impl Deref for Cluster {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

/// Items by the queues that they are about, in their order; those about none are left out.
pub(crate) fn by_queue<I>(
    items: impl IntoIterator<Item = I>,
    scope: impl Fn(&I) -> Option<Scope>,
) -> Vec<(Scope, Vec<I>)> {
    let mut parts: Vec<(Scope, Vec<I>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for item in items {
        let Some(scope) = scope(&item) else { continue };
        let place = *places.entry(scope.tag().to_owned()).or_insert_with(|| {
            parts.push((scope, Vec::new()));
            parts.len() - 1
        });
        parts[place].1.push(item);
    }
    parts
}

pub(crate) fn is_not_found(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

fn plain<A>(answered: Vec<Answered<A>>) -> Vec<Result<A>> {
    answered.into_iter().map(|answered| answered.answer).collect()
}
