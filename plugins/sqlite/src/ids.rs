//! Which task has which id.
//!
//! Ids are random. Written one by one, each would change a page of its own: the larger the file, the
//! more a new task would cost. So the ids of the newest tasks are in memory only, and are written
//! to the table `ids` in bulk and in order, when enough have come together that several fall on each
//! page. After a crash they are read again from the tasks themselves, from `meta.indexed` on.
//!
//! The table has hashes of ids rather than the ids themselves, which makes it a third as large.
//!
//! An entry, here or in the table, may outlive its task. Whoever finds one looks whether the task is
//! there.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock, mpsc},
    thread,
};

use std::hash::Hasher;

use hashbrown::HashMap;
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use crate::queues::Seq;

/// An id as it is kept in memory: most are UUIDs, which take no memory of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Id {
    /// One in the usual spelling.
    Uuid(Uuid),
    /// Any other text.
    Text(Box<str>),
}

impl Id {
    pub(crate) fn of(text: &str) -> Id {
        let uuid = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten();
        // Two spellings are two ids.
        let usual =
            |uuid: &Uuid| uuid.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
        uuid.filter(usual).map_or_else(|| Id::Text(text.into()), Id::Uuid)
    }

    /// Does something with the id's text.
    pub(crate) fn with_text<T>(&self, run: impl FnOnce(&str) -> T) -> T {
        match self {
            Id::Uuid(uuid) => run(uuid.as_hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            Id::Text(text) => run(text),
        }
    }
}

/// Finds the task with an id, by the id's hash and the id itself.
macro_rules! find_id {
    () => {
        "SELECT t.seq FROM ids i CROSS JOIN tasks t ON t.seq = i.seq WHERE i.hash = ?1 AND t.id = ?2"
    };
}
pub(crate) use find_id;

/// Hashes ids as one file has them. The secret keeps those who choose ids from choosing ones that
/// meet.
#[derive(Clone, Copy, Default)]
pub(crate) struct IdHash(u64, u64);

impl IdHash {
    pub(crate) fn new(secret: (i64, i64)) -> IdHash {
        IdHash(secret.0.cast_unsigned(), secret.1.cast_unsigned())
    }

    /// 48 bits, which SQLite keeps in six bytes. Two ids that meet are told apart by their tasks.
    pub(crate) fn of(self, id: &str) -> i64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(id.as_bytes());
        (hasher.finish() >> 16).cast_signed()
    }
}

/// The ids that are not in the table yet.
#[derive(Default)]
pub(crate) struct RecentIds(RwLock<Generations>);

/// An id that was inserted, and the task that had it before, which may be gone.
pub(crate) struct Inserted {
    pub(crate) id: Id,
    pub(crate) before: Option<Seq>,
}

#[derive(Default)]
struct Generations {
    /// Those of the newest tasks.
    new: HashMap<Id, Seq>,
    /// Those that are being written to the table.
    old: Arc<HashMap<Id, Seq>>,
}

impl RecentIds {
    pub(crate) fn find(&self, id: &Id) -> Option<Seq> {
        let ids = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ids.new.get(id).or_else(|| ids.old.get(id)).copied()
    }

    /// Answers with what had the id before, for [`RecentIds::undo`].
    pub(crate) fn insert(&self, id: Id, seq: Seq) -> Option<Seq> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).new.insert(id, seq)
    }

    /// Makes it so that some ids were never inserted, the last one first.
    pub(crate) fn undo(&self, inserted: Vec<Inserted>) {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for Inserted { id, before } in inserted.into_iter().rev() {
            match before {
                Some(seq) => generations.new.insert(id, seq),
                None => generations.new.remove(&id),
            };
        }
    }

    /// Starts over with these.
    pub(crate) fn replace(&self, ids: HashMap<Id, Seq>) {
        let fresh = Generations { new: ids, old: Arc::default() };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// How many have come since the last batch was closed.
    pub(crate) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).new.len()
    }

    /// Closes a batch: everything up to now, to be written to the table.
    fn close_batch(&self) -> Arc<HashMap<Id, Seq>> {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        generations.old = Arc::new(std::mem::take(&mut generations.new));
        Arc::clone(&generations.old)
    }

    /// Forgets the batch, which is in the table now.
    fn forget_batch(&self) -> Arc<HashMap<Id, Seq>> {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut generations.old)
    }
}

/// A batch of ids on its way into the table.
pub(crate) struct Merge {
    /// Every task before this one is in the table once the batch is.
    pub(crate) up_to: Seq,
    sorting: Mutex<mpsc::Receiver<Hashed>>,
    sorted: Option<std::vec::IntoIter<(i64, Seq)>>,
}

/// Hashes of ids, with their tasks.
type Hashed = Vec<(i64, Seq)>;

impl Merge {
    /// Closes a batch, and sorts it in a thread of its own.
    pub(crate) fn start(ids: &RecentIds, hash: IdHash, up_to: Seq) -> Merge {
        let batch = ids.close_batch();
        let (sender, sorting) = mpsc::sync_channel(1);
        let (its, here) = (Arc::clone(&batch), sender.clone());
        // Nobody waits for it once the store is closed.
        let sort = move || drop(sender.send(sorted(&its, hash)));
        if thread::Builder::new().name("codeq-sqlite-i".into()).spawn(sort).is_err() {
            // The system has no thread left.
            let _ = here.send(sorted(&batch, hash));
        }
        Merge { up_to, sorting: Mutex::new(sorting), sorted: None }
    }

    /// The next ids to write; nothing if they are not sorted yet.
    pub(crate) fn next(&mut self, count: usize, wait: bool) -> Option<Hashed> {
        if self.sorted.is_none() {
            let sorting = self.sorting.lock().unwrap_or_else(PoisonError::into_inner);
            let sorted = if wait { sorting.recv().ok() } else { sorting.try_recv().ok() };
            self.sorted = Some(sorted?.into_iter());
        }
        Some(self.sorted.as_mut()?.by_ref().take(count).collect())
    }

    /// Whether all have been handed out.
    pub(crate) fn is_finished(&self) -> bool {
        self.sorted.as_ref().is_some_and(|rest| rest.len() == 0)
    }

    /// Forgets the batch once it is in the table for good.
    pub(crate) fn finish(self, ids: &RecentIds) {
        let batch = ids.forget_batch();
        // Freeing many texts takes its time; the writer has better things to do. Without a thread it is
        // done here.
        let _ = thread::Builder::new().name("codeq-sqlite-i".into()).spawn(move || drop(batch));
    }
}

fn sorted(batch: &HashMap<Id, Seq>, hash: IdHash) -> Hashed {
    let hashed = |(id, seq): (&Id, &Seq)| (id.with_text(|id| hash.of(id)), *seq);
    let mut sorted: Hashed = batch.iter().map(hashed).collect();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_form_in_memory_letter_by_letter() {
        let uuid = "1f0e8a52-6c1b-4a3e-9d5f-0123456789ab";
        let upper = uuid.to_uppercase();
        let odd = "{1f0e8a52-6c1b-4a3e-9d5f-012345678}";
        for text in [uuid, &upper, odd, "", "task-7", &"ü".repeat(18)] {
            Id::of(text).with_text(|same| assert_eq!(same, text));
        }
        assert!(matches!(Id::of(uuid), Id::Uuid(_)));
        assert_ne!(Id::of(uuid), Id::of(&upper));
    }

    #[test]
    fn an_id_is_found_while_its_batch_is_on_the_way_and_a_newer_one_goes_first() {
        let ids = RecentIds::default();
        let id = Id::of;
        for (seq, text) in ["c", "a", "b"].into_iter().enumerate() {
            ids.insert(id(text), seq as Seq);
        }
        let mut merge = Merge::start(&ids, IdHash::new((7, -7)), 3);
        assert_eq!(ids.len(), 0);
        ids.insert(id("a"), 9);
        assert_eq!((ids.find(&id("a")), ids.find(&id("b"))), (Some(9), Some(2)));
        let mut hashes = merge.next(2, true).unwrap();
        assert!(!merge.is_finished());
        hashes.extend(merge.next(2, true).unwrap());
        assert!(merge.is_finished() && hashes.is_sorted());
        let mut seqs: Vec<_> = hashes.into_iter().map(|(_, seq)| seq).collect();
        seqs.sort();
        assert_eq!(seqs, [0, 1, 2]);
        merge.finish(&ids);
        assert_eq!((ids.find(&id("a")), ids.find(&id("b"))), (Some(9), None));
    }

    #[test]
    fn what_is_undone_leaves_the_task_that_had_the_id_before() {
        let ids = RecentIds::default();
        let insert = |text: &str, seq| {
            let id = Id::of(text);
            Inserted { before: ids.insert(id.clone(), seq), id }
        };
        insert("a", 1);
        let inserted = vec![insert("a", 2), insert("b", 3), insert("a", 4)];
        assert_eq!(ids.find(&Id::of("a")), Some(4));
        ids.undo(inserted);
        assert_eq!((ids.find(&Id::of("a")), ids.find(&Id::of("b"))), (Some(1), None));
    }
}
