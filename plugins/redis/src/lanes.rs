//! Operations of many callers, sent together.
//!
//! A script that does one thing for fifty tasks costs the server little more than for one. So calls of
//! a kind that come while others of that kind are on their way wait for those to come back, and then go
//! out together. A call that comes alone waits for nobody. In a cluster no calls are sent together: one
//! about a node that hangs would keep those about others.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codeq_plugin::{
    Answers, Boxed, Claim, Claimed, Complete, Completed, Enqueue, Enqueued, Error, ErrorKind,
    Extend, Instant, Lease, Nack, Result, Returned, Task, Text,
};
use futures_util::future::BoxFuture;
use tokio::{sync::oneshot, time::timeout};

use crate::operations::Operations;

/// How many scripts of a kind are on their way at most: while the server runs one, the next is made.
const ON_THEIR_WAY: usize = 2;
/// How many tasks are worth a script of their own while another one is on its way.
const ENOUGH: usize = 32;
/// How many tasks go out together. More would gain little, and keep the server from everybody else.
const MOST_TOGETHER: usize = 200;

/// A lane for each operation that workers and producers call all the time.
pub(crate) struct Lanes {
    pub(crate) get: Lane<Text, Boxed<Task>>,
    pub(crate) enqueue: Lane<Enqueue, Enqueued>,
    pub(crate) claim: Lane<Claim, Claimed>,
    pub(crate) update_lease: Lane<Extend, Instant>,
    pub(crate) abandon_lease: Lane<Lease, Returned>,
    pub(crate) nack: Lane<Nack, Returned>,
    pub(crate) complete: Lane<Complete, Completed>,
}

impl Lanes {
    pub(crate) fn new(backend: &Arc<Operations>) -> Lanes {
        Lanes {
            get: Lane::new("get", backend, |backend, ids| {
                Box::pin(async move { backend.get(ids).await })
            }),
            enqueue: Lane::new("enqueue", backend, |backend, batch| {
                Box::pin(async move { backend.enqueue(batch).await })
            }),
            claim: Lane::new("claim", backend, |backend, claims| {
                Box::pin(async move { backend.claim(claims).await })
            }),
            update_lease: Lane::new("update_lease", backend, |backend, batch| {
                Box::pin(async move { backend.update_lease(batch).await })
            }),
            abandon_lease: Lane::new("abandon_lease", backend, |backend, batch| {
                Box::pin(async move { backend.abandon_lease(batch).await })
            }),
            nack: Lane::new("nack", backend, |backend, batch| {
                Box::pin(async move { backend.nack(batch).await })
            }),
            complete: Lane::new("complete", backend, |backend, batch| {
                Box::pin(async move { backend.complete(batch).await })
            }),
        }
    }
}

/// What a call is about.
pub(crate) trait Item: Clone + Send + 'static {
    /// How many tasks that are, or as good as.
    fn tasks(&self) -> usize {
        1
    }
}

impl Item for Text {}
impl Item for Enqueue {}
impl Item for Extend {}
impl Item for Lease {}
impl Item for Nack {}
impl Item for Complete {}

impl Item for Claim {
    fn tasks(&self) -> usize {
        usize::try_from(self.max).map_or(MOST_TOGETHER, |max| max.clamp(1, MOST_TOGETHER))
    }
}

/// What an item is answered.
pub(crate) trait Answer: Sized + Send + 'static {
    /// Undoes what nobody is there any more to hear of, if that would be in others' way.
    fn give_back(
        answers: Vec<Result<Self>>,
        backend: Arc<Operations>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (answers, backend);
        async {}
    }
}

impl Answer for Boxed<Task> {}
impl Answer for Enqueued {}
impl Answer for Instant {}
impl Answer for Returned {}
impl Answer for Completed {}

impl Answer for Claimed {
    async fn give_back(answers: Vec<Result<Claimed>>, backend: Arc<Operations>) {
        let tasks = answers.into_iter().flatten().flat_map(|claimed| claimed.tasks);
        let leases: Vec<Lease> = tasks
            .map(|task| Lease {
                task_id: task.id.clone(),
                worker_id: task.worker_id.clone(),
                tenant_id: task.tenant_id.clone(),
                attempt: task.attempts,
                ..Lease::default()
            })
            .collect();
        if !leases.is_empty()
            && let Err(error) = backend.abandon_lease(leases).await
        {
            tracing::warn!(%error, "tasks that nobody waits for come back when their leases end");
        }
    }
}

type Operation<I, A> = fn(Arc<Operations>, Vec<I>) -> BoxFuture<'static, Answers<A>>;

/// The calls of one kind.
pub(crate) struct Lane<I, A>(Arc<Inner<I, A>>);

struct Inner<I, A> {
    name: &'static str,
    backend: Arc<Operations>,
    operation: Operation<I, A>,
    waiting: Mutex<Waiting<I, A>>,
}

struct Waiting<I, A> {
    calls: VecDeque<Call<I, A>>,
    /// How many tasks the calls are about.
    tasks: usize,
    on_their_way: usize,
}

/// Somebody's items, and where their answers are waited for.
struct Call<I, A> {
    items: Vec<I>,
    caller: oneshot::Sender<Answers<A>>,
}

impl<I: Item, A: Answer> Lane<I, A> {
    fn new(
        name: &'static str,
        backend: &Arc<Operations>,
        operation: Operation<I, A>,
    ) -> Lane<I, A> {
        let waiting = Mutex::new(Waiting { calls: VecDeque::new(), tasks: 0, on_their_way: 0 });
        Lane(Arc::new(Inner { name, backend: Arc::clone(backend), operation, waiting }))
    }

    /// Sends items as soon as their turn comes, perhaps with those of others. What nobody waits for any
    /// more by then is not sent.
    pub(crate) async fn send(&self, items: Vec<I>) -> Answers<A> {
        if tasks_of(&items) >= MOST_TOGETHER {
            return self.0.operate(items).await;
        }
        let (caller, answers) = oneshot::channel();
        let (call, inner) = (Call { items, caller }, Arc::clone(&self.0));
        if !inner.backend.end_together() {
            tokio::spawn(async move { inner.send(vec![call]).await });
        } else if inner.join(call) {
            tokio::spawn(inner.work_off());
        }
        match timeout(self.0.patience(), answers).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => Err(Error::internal(format!("{} ended without an answer", self.0.name))),
            Err(_) => Err(self.0.backend.connection.too_late(self.0.name)),
        }
    }
}

impl<I: Item, A: Answer> Inner<I, A> {
    /// Adds a call to those that wait. Answers whether somebody has to be sent to see to them.
    fn join(&self, call: Call<I, A>) -> bool {
        let mut waiting = self.waiting();
        waiting.tasks += tasks_of(&call.items);
        waiting.calls.push_back(call);
        let goes_out = waiting.is_worth_a_script();
        if goes_out {
            waiting.on_their_way += 1;
        }
        goes_out
    }

    /// Sends what waits, until nothing does.
    async fn work_off(self: Arc<Self>) {
        let mut turn = Turn { inner: &self, is_over: false };
        while let Some(calls) = turn.next() {
            self.send(calls).await;
        }
    }

    async fn send(&self, mut calls: Vec<Call<I, A>>) {
        if let [_] = calls.as_slice()
            && let Some(Call { items, caller }) = calls.pop()
        {
            let answers = self.operate(items).await;
            return self.answer(caller, answers).await;
        }
        let items = calls.iter().flat_map(|call| call.items.iter().cloned()).collect();
        match self.operate(items).await {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for Call { items, caller } in calls {
                    let own = answers.by_ref().take(items.len()).collect();
                    self.answer(caller, Ok(own)).await;
                }
            }
            // Somebody else's keys are of a type that they should not be: nothing was done for anybody.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                for Call { items, caller } in calls {
                    if !caller.is_closed() {
                        let answers = self.operate(items).await;
                        self.answer(caller, answers).await;
                    }
                }
            }
            Err(error) => {
                for call in calls {
                    self.answer(call.caller, Err(error.clone())).await;
                }
            }
        }
    }

    /// Answers a caller, who may have left by now.
    async fn answer(&self, caller: oneshot::Sender<Answers<A>>, answers: Answers<A>) {
        if let Err(Ok(unheard)) = caller.send(answers) {
            A::give_back(unheard, Arc::clone(&self.backend)).await;
        }
    }

    async fn operate(&self, items: Vec<I>) -> Answers<A> {
        (self.operation)(Arc::clone(&self.backend), items).await
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<I, A>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call is over when its time is, whether it was sent or not. The operation knows more about what
    /// happened, so it has the first word.
    fn patience(&self) -> Duration {
        self.backend.connection.command_timeout() + Duration::from_millis(20)
    }
}

impl<I: Item, A> Waiting<I, A> {
    /// Whether what waits is worth a script beside those that are on their way.
    fn is_worth_a_script(&self) -> bool {
        self.on_their_way == 0 || (self.tasks >= ENOUGH && self.on_their_way < ON_THEIR_WAY)
    }

    /// Takes out what goes together, and what nobody waits for any more.
    fn take(&mut self) -> Vec<Call<I, A>> {
        let (mut calls, mut together) = (Vec::new(), 0);
        while let Some(call) = self.calls.front() {
            let tasks = tasks_of(&call.items);
            if together > 0 && together + tasks > MOST_TOGETHER {
                break;
            }
            self.tasks -= tasks;
            if let Some(call) = self.calls.pop_front().filter(|call| !call.caller.is_closed()) {
                together += tasks;
                calls.push(call);
            }
        }
        calls
    }
}

/// Somebody who sees to the calls of a lane.
struct Turn<'a, I: Item, A: Answer> {
    inner: &'a Inner<I, A>,
    is_over: bool,
}

impl<I: Item, A: Answer> Turn<'_, I, A> {
    /// The calls to send together next. None ends the turn.
    fn next(&mut self) -> Option<Vec<Call<I, A>>> {
        let mut waiting = self.inner.waiting();
        // The others who are under way see to the rest.
        let others = waiting.on_their_way - 1;
        let calls =
            if others == 0 || waiting.tasks >= ENOUGH { waiting.take() } else { Vec::new() };
        if calls.is_empty() {
            // In one step with finding nothing: whoever comes next has to know that nobody is there.
            waiting.on_their_way -= 1;
            self.is_over = true;
            return None;
        }
        Some(calls)
    }
}

impl<I: Item, A: Answer> Drop for Turn<'_, I, A> {
    fn drop(&mut self) {
        if !self.is_over {
            self.inner.waiting().on_their_way -= 1;
        }
    }
}

fn tasks_of<I: Item>(items: &[I]) -> usize {
    items.iter().map(Item::tasks).sum()
}
