//! Enqueues on their way through the writer.
//!
//! They are run in place: the tasks that came in are the ones that are answered with, so that they are
//! copied once less. The other operations carry little that would be worth it.

use codeq_plugin::{Enqueue, Enqueued, Error, Result};
use tokio::sync::oneshot;

use crate::{
    engine::{Engine, Enqueueing},
    fault::Failure,
    writer::Work,
};

type Answers = Vec<Result<Enqueued>>;

/// A batch of enqueues.
pub(crate) struct Enqueues {
    batch: Vec<Enqueue>,
    /// One for each, once they are run.
    outcomes: Vec<Result<Enqueueing>>,
    reply: oneshot::Sender<Result<Answers>>,
}

impl Enqueues {
    pub(crate) fn boxed(
        batch: Vec<Enqueue>,
        reply: oneshot::Sender<Result<Answers>>,
    ) -> Box<dyn Work> {
        Box::new(Enqueues { outcomes: Vec::with_capacity(batch.len()), batch, reply })
    }
}

impl Work for Enqueues {
    fn run(&mut self, engine: &mut Engine<'_>) -> rusqlite::Result<()> {
        // What an earlier run has made of the tasks, this one makes of them again.
        self.outcomes.clear();
        for enqueue in &mut self.batch {
            self.outcomes.push(match engine.enqueue(enqueue) {
                Ok(outcome) => Ok(outcome),
                Err(Failure::Refused(error)) => Err(error),
                Err(Failure::Broken(error)) => return Err(error),
            });
        }
        Ok(())
    }

    fn answer(self: Box<Self>) {
        let answers = self.batch.into_iter().zip(self.outcomes).map(|(enqueue, outcome)| {
            Ok(match outcome? {
                Enqueueing::Created { awoke } => {
                    Enqueued { task: enqueue.task, created: true, awoke }
                }
                Enqueueing::Found(task) => Enqueued { task, created: false, awoke: false },
            })
        });
        // Whoever asked may have gone.
        let _ = self.reply.send(Ok(answers.collect()));
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }

    fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }
}
