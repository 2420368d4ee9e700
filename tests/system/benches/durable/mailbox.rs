//! The way to the contestants that are not plugins: requests go to a thread through a channel, and
//! answers come back through one of their own each.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
};

use codeq_plugin::{Boxed, Claim, Complete, Completed, Enqueue, Enqueued, Task};
use tokio::sync::oneshot;

use crate::contestant::Contestant;

/// Carries out one request at a time.
pub(crate) trait Engine {
    fn enqueue(&mut self, enqueue: Enqueue) -> Enqueued;
    fn claim(&mut self, claim: Claim) -> Option<Boxed<Task>>;
    fn complete(&mut self, complete: Complete) -> Completed;
}

/// What is asked, and where the answer goes.
pub(crate) enum Request {
    Enqueue(Enqueue, oneshot::Sender<Enqueued>),
    Claim(Claim, oneshot::Sender<Option<Boxed<Task>>>),
    Complete(Complete, oneshot::Sender<Completed>),
}

/// An answer that is not sent yet.
pub(crate) enum Answer {
    Enqueued(Enqueued, oneshot::Sender<Enqueued>),
    Claimed(Option<Boxed<Task>>, oneshot::Sender<Option<Boxed<Task>>>),
    Completed(Completed, oneshot::Sender<Completed>),
}

impl Request {
    pub(crate) fn execute(self, engine: &mut impl Engine) -> Answer {
        match self {
            Request::Enqueue(enqueue, reply) => Answer::Enqueued(engine.enqueue(enqueue), reply),
            Request::Claim(claim, reply) => Answer::Claimed(engine.claim(claim), reply),
            Request::Complete(complete, reply) => {
                Answer::Completed(engine.complete(complete), reply)
            }
        }
    }
}

impl Answer {
    /// Sends it, unless nobody waits any more.
    pub(crate) fn send(self) {
        match self {
            Answer::Enqueued(answer, reply) => drop(reply.send(answer)),
            Answer::Claimed(answer, reply) => drop(reply.send(answer)),
            Answer::Completed(answer, reply) => drop(reply.send(answer)),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Mailbox(Sender<Request>);

impl Mailbox {
    /// Starts the thread that serves the requests. It ends when there is no clone left to ask it.
    pub(crate) fn served_by(
        serve: impl FnOnce(Receiver<Request>) + Send + 'static,
    ) -> (Mailbox, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel();
        (Mailbox(sender), thread::spawn(move || serve(receiver)))
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> T {
        let (reply, answer) = oneshot::channel();
        assert!(self.0.send(request(reply)).is_ok(), "the contestant's thread has died");
        answer.await.unwrap()
    }
}

impl Contestant for Mailbox {
    async fn enqueue(&self, enqueue: Enqueue) -> Enqueued {
        self.ask(|reply| Request::Enqueue(enqueue, reply)).await
    }

    async fn claim(&self, claim: Claim) -> Option<Boxed<Task>> {
        self.ask(|reply| Request::Claim(claim, reply)).await
    }

    async fn complete(&self, complete: Complete) -> Completed {
        self.ask(|reply| Request::Complete(complete, reply)).await
    }
}
