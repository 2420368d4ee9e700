//! What happened to a directory, and what a power cut would have left of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use fastrand::Rng;

use crate::{Event, What, fate::Fate, model::Model};

/// The seed with which nothing survives but what is certain.
pub const NOTHING: u64 = 0;
/// The seed with which everything survives, as after a crash of the process alone.
pub const EVERYTHING: u64 = 1;

/// The files of a directory and what is in them, by their paths. Directories have nothing in them.
pub type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What happened to the files of a directory, from when the disk was put under it.
pub struct Trace {
    events: Vec<Event>,
}

impl Trace {
    pub(crate) fn read(mut bytes: &[u8]) -> Trace {
        let mut events = Vec::new();
        while let Some(event) = Event::decode(&mut bytes) {
            events.push(event);
        }
        assert!(bytes.is_empty(), "the trace breaks off after {} events", events.len());
        Trace { events }
    }

    pub(crate) fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// The events, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// At most so many moments, from one on, at which a power cut is of interest, in order: just before
    /// and at the end of each sync, in the middle of it, and any others. The last event's is always there.
    pub fn moments(&self, since: u64, count: usize, seed: u64) -> Vec<u64> {
        let mut rng = Rng::with_seed(seed);
        let mut events = self.events.iter().filter(|event| event.moment >= since);
        let Some((first, last)) = events.next().zip(self.events.last()) else {
            return Vec::new();
        };
        let mut begun = BTreeMap::new();
        let mut moments = Vec::new();
        for event in &self.events {
            match event.what {
                What::SyncBegin { sync, .. } => {
                    begun.insert(sync, event.moment);
                }
                What::SyncEnd { sync, .. } => {
                    let begin = begun.get(&sync).copied().unwrap_or(event.moment);
                    let middle = begin + (event.moment - begin) / 2;
                    let all = [middle, event.moment - 1, event.moment];
                    moments.extend(all.into_iter().filter(|moment| *moment >= since));
                }
                _ => {}
            }
        }
        // As many again as there are for syncs; or all of them, where there are none.
        for _ in 0..(moments.len() / 3).max(count.saturating_sub(moments.len())) {
            moments.push(rng.u64(first.moment..=last.moment));
        }
        rng.shuffle(&mut moments);
        moments.truncate(count.saturating_sub(1));
        moments.push(last.moment);
        moments.sort_unstable();
        moments.dedup();
        moments
    }

    /// Builds in a directory, which is empty, what a power cut at a moment may leave on the disk. What
    /// happened at that very moment has happened.
    ///
    /// What is not certain then survives as the seed says. [`NOTHING`] and [`EVERYTHING`] do what they
    /// are called. The others take turns: everything survives up to some event, which is torn; each
    /// sector is as new or old as it likes; or each page of 4096 bytes; or each file.
    pub fn power_cut(&self, moment: u64, seed: u64, target: &Path) {
        fs::create_dir_all(target).expect("a directory for what is left");
        let empty = fs::read_dir(target).expect("a directory").next().is_none();
        assert!(empty, "{} is not empty", target.display());
        for (path, content) in self.contents(moment, seed) {
            let path = target.join(path);
            match content {
                Some(content) => fs::write(path, content).expect("room for what is left"),
                None => fs::create_dir(path).expect("room for what is left"),
            }
        }
    }

    /// The same without writing it anywhere.
    pub fn contents(&self, moment: u64, seed: u64) -> Contents {
        let model = self.model(moment);
        let fate = Fate::new(seed, model.orders());
        model.left(&fate)
    }

    /// Where a directory is not what the trace makes of it.
    pub(crate) fn differences(&self, found: &Event) -> Vec<PathBuf> {
        let model = self.model(u64::MAX);
        let mut expected = model.left(&Fate::new(EVERYTHING, Vec::new()));
        let What::Found(found) = &found.what else { return Vec::new() };
        let mut differences = Vec::new();
        for found in found {
            let same = expected.remove(&found.path).is_some_and(|content| {
                // Nobody knows what is in a file that is mapped.
                content == found.content || model.is_mapped(&found.path)
            });
            if !same {
                differences.push(found.path.clone());
            }
        }
        differences.extend(expected.into_keys());
        differences
    }

    fn model(&self, moment: u64) -> Model<'_> {
        let mut model = Model::default();
        let happened = self.events.iter().take_while(|event| event.moment <= moment);
        happened.zip(0..).for_each(|(event, order)| model.apply(event, order));
        model
    }
}
