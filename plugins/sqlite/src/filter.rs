//! Which ids the table of ids may have.
//!
//! The id of a new task is new, nearly always; to look for it in the table took a tenth of what a task
//! costs the writer, and more in a large file. A Bloom filter knows without looking: it never denies
//! what is there, and asks for a look at one in a hundred of what is not. Another thread makes it when
//! a file is opened, from the table, so nobody waits for that.

use std::{
    sync::{Arc, Weak},
    thread::{self, JoinHandle},
};

use codeq_plugin::Result;
use fastbloom::AtomicBloomFilter;
use hashbrown::DefaultHashBuilder;

use crate::{config::Config, connection, fault::fault};

type Bits = AtomicBloomFilter<DefaultHashBuilder>;

/// How many of those that are not there are looked for all the same.
const FALSE_POSITIVES: f64 = 0.01;
/// A filter has room for twice what is there when it is made, and for so many at least. With the false
/// positives above that takes ten bits for each.
const ROOM: u64 = 1 << 18;
/// How many hashes are read at once.
const STEP: i64 = 8_192;

/// What the writer knows of the table of ids without looking.
#[derive(Default)]
pub(crate) struct IdFilter {
    /// Has everything that is in the table.
    whole: Option<Arc<Bits>>,
    making: Option<Making>,
    /// How many more ids `whole` has room for.
    room: u64,
}

/// A filter that lacks some of what was in the table when it was begun.
struct Making {
    bits: Arc<Bits>,
    room: u64,
    thread: JoinHandle<Result<()>>,
}

impl IdFilter {
    /// The filter of a table that has nothing.
    pub(crate) fn empty() -> IdFilter {
        IdFilter { whole: Some(Arc::new(bits(ROOM))), making: None, room: ROOM }
    }

    /// Begins a filter of what is in the table, which is about so many ids.
    pub(crate) fn make(&mut self, config: &Config, count: u64) {
        let room = ROOM.max(count);
        let bits = Arc::new(bits(count + room));
        let (target, config) = (Arc::downgrade(&bits), config.clone());
        let thread = thread::Builder::new().name("codeq-sqlite-f".into());
        match thread.spawn(move || fill(&target, &config)) {
            Ok(thread) => self.making = Some(Making { bits, room, thread }),
            Err(error) => tracing::debug!("there is no thread to make a filter of ids: {error}"),
        }
    }

    /// Whether a filter has to be made: there is none, or it is full.
    pub(crate) fn is_wanted(&self) -> bool {
        self.making.is_none() && (self.whole.is_none() || self.room == 0)
    }

    /// Uses the filter that was being made, if it is complete.
    pub(crate) fn take_over(&mut self) {
        let Some(made) = self.making.take_if(|making| making.thread.is_finished()) else { return };
        match made.thread.join() {
            Ok(Ok(())) => {
                self.whole = Some(made.bits);
                self.room = made.room;
            }
            Ok(Err(error)) => tracing::debug!("a filter of ids was not made: {error}"),
            // A panic was told already.
            Err(_) => {}
        }
    }

    /// Takes note of an id that goes into the table.
    pub(crate) fn add(&mut self, hash: i64) {
        if let Some(making) = &mut self.making {
            making.bits.insert(&hash);
            making.room = making.room.saturating_sub(1);
        }
        if let Some(whole) = &self.whole {
            whole.insert(&hash);
            self.room = self.room.saturating_sub(1);
        }
    }

    /// Whether the table may have an id.
    pub(crate) fn may_have(&self, hash: i64) -> bool {
        self.whole.as_ref().is_none_or(|whole| whole.contains(&hash))
    }
}

fn bits(count: u64) -> Bits {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    AtomicBloomFilter::with_false_pos(FALSE_POSITIVES)
        .hasher(DefaultHashBuilder::default())
        .expected_items(count)
}

/// Adds everything that is in the table to a filter, for as long as somebody wants it. What comes into
/// the table meanwhile is added by whoever writes it.
fn fill(target: &Weak<Bits>, config: &Config) -> Result<()> {
    let db = connection::reader(config)?;
    let read = || -> rusqlite::Result<()> {
        let step = "SELECT hash FROM ids WHERE hash > ?1 ORDER BY hash LIMIT ?2";
        let mut step = db.prepare(step)?;
        let mut last = i64::MIN;
        while let Some(bits) = target.upgrade() {
            // A short look each, so that the log can be copied into the file in between.
            let mut rows = step.query([last, STEP])?;
            let from = last;
            while let Some(row) = rows.next()? {
                last = row.get(0)?;
                bits.insert(&last);
            }
            if last == from {
                break;
            }
        }
        Ok(())
    };
    read().map_err(|error| fault(&error, &config.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_denies_nothing_that_is_there_and_most_of_what_is_not() {
        let mut filter = IdFilter::empty();
        (0..10_000).for_each(|hash| filter.add(hash));
        assert!((0..10_000).all(|hash| filter.may_have(hash)));
        let wrong = (10_000..20_000).filter(|hash| filter.may_have(*hash)).count();
        assert!(wrong < 200, "{wrong} of 10,000");
        assert!(!filter.is_wanted());
        (0..ROOM.cast_signed()).for_each(|hash| filter.add(hash));
        assert!(filter.is_wanted());
    }

    #[test]
    fn without_a_filter_everything_is_looked_for() {
        let filter = IdFilter::default();
        assert!(filter.may_have(1) && filter.is_wanted());
    }
}
