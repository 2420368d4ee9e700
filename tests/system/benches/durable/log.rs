//! The least that being durable costs: a log that is only ever appended to and synced, once for each
//! group of requests. All else is in memory.
//!
//! Groups form by themselves: while one is synced, the next one gathers. This is not a store: nothing
//! reads the log, nothing shortens it, and nothing in memory ever gives way.

mod state;

use std::{
    fs::File,
    io::Write,
    mem,
    path::Path,
    sync::{Condvar, Mutex, mpsc::Receiver},
    thread::{self, JoinHandle},
};

use self::state::State;
use crate::mailbox::{Answer, Mailbox, Request};

/// One thread, which executes a group, then syncs it, then answers it.
pub(crate) fn bare(dir: &Path) -> (Mailbox, JoinHandle<()>) {
    let mut file = create(dir);
    Mailbox::served_by(move |requests| {
        let mut state = State::default();
        let mut group = Group::default();
        while group.gather(&mut state, &requests) {
            group.finish(&mut file);
        }
    })
}

/// Two threads: one executes a group while the other syncs and answers the group before it.
pub(crate) fn overlapped(dir: &Path) -> (Mailbox, JoinHandle<()>) {
    let file = create(dir);
    Mailbox::served_by(move |requests| {
        let handover = Handover::default();
        thread::scope(|scope| {
            scope.spawn(|| handover.serve(file));
            handover.fill(&requests);
        });
    })
}

fn create(dir: &Path) -> File {
    File::create_new(dir.join("log")).unwrap()
}

/// Requests that were executed and are to be synced together.
#[derive(Default)]
struct Group {
    records: Vec<u8>,
    answers: Vec<Answer>,
}

impl Group {
    /// Executes a request, waiting for it if there is none, and those that have come meanwhile.
    /// False if there will never be any more.
    fn gather(&mut self, state: &mut State, requests: &Receiver<Request>) -> bool {
        let Ok(first) = requests.recv() else {
            return false;
        };
        self.answers.push(first.execute(state));
        self.answers.extend(requests.try_iter().map(|request| request.execute(state)));
        self.records.append(&mut state.log);
        true
    }

    fn finish(&mut self, file: &mut File) {
        file.write_all(&self.records).unwrap();
        file.sync_data().unwrap();
        self.records.clear();
        self.answers.drain(..).for_each(Answer::send);
    }

    fn append(&mut self, other: &mut Group) {
        self.records.append(&mut other.records);
        self.answers.append(&mut other.answers);
    }
}

/// Where the executing thread puts groups, and the syncing thread takes all that are there as one.
#[derive(Default)]
struct Handover {
    next: Mutex<Next>,
    changed: Condvar,
}

#[derive(Default)]
struct Next {
    group: Group,
    over: bool,
}

impl Handover {
    fn fill(&self, requests: &Receiver<Request>) {
        let mut state = State::default();
        let mut group = Group::default();
        while group.gather(&mut state, requests) {
            self.next.lock().unwrap().group.append(&mut group);
            self.changed.notify_one();
        }
        self.next.lock().unwrap().over = true;
        self.changed.notify_one();
    }

    fn serve(&self, mut file: File) {
        let mut group = Group::default();
        loop {
            let waiting = |next: &mut Next| next.group.answers.is_empty() && !next.over;
            let mut next = self.changed.wait_while(self.next.lock().unwrap(), waiting).unwrap();
            if next.group.answers.is_empty() {
                return;
            }
            mem::swap(&mut group, &mut next.group);
            drop(next);
            group.finish(&mut file);
        }
    }
}
