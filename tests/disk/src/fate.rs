//! What of that which is not certain survives, as a seed has it.

use fastrand::Rng;

use crate::trace::{EVERYTHING, NOTHING};

/// What disks write whole.
pub(crate) const SECTOR: u64 = 512;
/// What systems write out whole, if they do not crash while they are at it.
pub(crate) const PAGE: u64 = 4096;

/// Decides what survives.
///
/// Whatever goes to the disk by itself, be it a sector or the size of a file, is there as it was after
/// some change to it; the later ones have not arrived. So there is one question: up to which change?
/// Changes are told apart by their order.
pub(crate) struct Fate {
    seed: u64,
    kind: Kind,
    orders: Vec<u64>,
}

enum Kind {
    Nothing,
    Everything,
    /// All that came before this change, and some of it.
    Until(u64),
    /// Units of so many bytes go their own ways. Of ten, so many are as old as can be, and so many as
    /// new; the others are in between.
    Apart {
        unit: u64,
        old: u64,
        new: u64,
    },
}

impl Fate {
    /// The fate that a seed has for changes, given the orders of those that are not certain.
    pub(crate) fn new(seed: u64, orders: Vec<u64>) -> Fate {
        let mut rng = Rng::with_seed(seed);
        let apart = |unit, rng: &mut Rng| {
            let old = rng.u64(0..=9);
            Kind::Apart { unit, old, new: rng.u64(0..=9 - old) }
        };
        let kind = match seed {
            NOTHING => Kind::Nothing,
            EVERYTHING => Kind::Everything,
            _ => match seed % 4 {
                0 => apart(PAGE, &mut rng),
                1 => apart(u64::MAX, &mut rng),
                2 => Kind::Until(rng.choice(&orders).copied().unwrap_or_default()),
                _ => apart(SECTOR, &mut rng),
            },
        };
        Fate { seed, kind, orders }
    }

    /// Whether a change to a sector of a file survives.
    pub(crate) fn of_sector(&self, file: usize, offset: u64, order: u64) -> bool {
        let torn = || self.coin(&[file as u64, offset / SECTOR, order]);
        self.survives(order, torn, |unit| vec![0, file as u64, offset / unit])
    }

    /// Whether a change to a file's size survives.
    pub(crate) fn of_size(&self, file: usize, order: u64) -> bool {
        let torn = || self.coin(&[file as u64, order]);
        self.survives(order, torn, |unit| {
            // Where files go their own ways, sizes go with them.
            if unit == u64::MAX { vec![0, file as u64, 0] } else { vec![1, file as u64] }
        })
    }

    /// Whether a change to the names survives. Not all file systems keep their order.
    pub(crate) fn of_name(&self, order: u64) -> bool {
        self.survives(order, || self.coin(&[order]), |_| vec![2, order])
    }

    /// Whether a file is there of which only the name is known.
    pub(crate) fn of_mapped(&self, file: usize) -> bool {
        match self.kind {
            Kind::Nothing => false,
            Kind::Everything => true,
            _ => self.coin(&[file as u64]),
        }
    }

    fn survives(
        &self,
        order: u64,
        torn: impl Fn() -> bool,
        what: impl Fn(u64) -> Vec<u64>,
    ) -> bool {
        match self.kind {
            Kind::Nothing => false,
            Kind::Everything => true,
            Kind::Until(last) => order < last || order == last && torn(),
            Kind::Apart { unit, old, new } => {
                let mut rng = self.rng(&what(unit));
                let age = rng.u64(0..10);
                if age < old {
                    false
                } else if age < old + new {
                    true
                } else {
                    rng.choice(&self.orders).is_none_or(|last| order <= *last)
                }
            }
        }
    }

    fn coin(&self, what: &[u64]) -> bool {
        self.rng(what).bool()
    }

    /// The same choices for the same thing, however often it is asked.
    fn rng(&self, what: &[u64]) -> Rng {
        let mix = |seed: u64, word: &u64| Rng::with_seed(seed ^ word.wrapping_add(1)).u64(..);
        Rng::with_seed(what.iter().fold(self.seed, mix))
    }
}
