//! Batches: the form in which everything that is written crosses the boundary.

use abi_stable::{
    StableAbi,
    std_types::{RResult, RVec},
};

use crate::Error;

/// What became of one item of a batch.
pub type Outcome<T> = RResult<T, Error>;

/// Items that are handled in one call.
///
/// A batch of one, which is what most calls carry, needs no memory of its own.
#[repr(u8)]
#[derive(StableAbi, Clone, Debug)]
pub enum Batch<T> {
    /// A single item.
    One(T),
    /// Any number of items.
    Many(RVec<T>),
}

impl<T> Batch<T> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items, in order.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Batch::One(item) => std::slice::from_ref(item),
            Batch::Many(items) => items,
        }
    }

    /// The items, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.as_slice().iter()
    }

    /// Replaces every item by what `change` makes of it, in order.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Batch<U> {
        match self {
            Batch::One(item) => Batch::One(change(item)),
            Batch::Many(items) => Batch::Many(items.into_iter().map(change).collect()),
        }
    }

    /// The only item; nothing if there are none or several.
    pub fn into_only(self) -> Option<T> {
        match self {
            Batch::One(item) => Some(item),
            Batch::Many(items) if items.len() == 1 => items.into_iter().next(),
            Batch::Many(_) => None,
        }
    }

    /// Adds an item at the end.
    pub fn push(&mut self, item: T) {
        *self = match std::mem::take(self) {
            Batch::Many(items) if items.is_empty() => Batch::One(item),
            Batch::Many(mut items) => {
                items.push(item);
                Batch::Many(items)
            }
            Batch::One(first) => Batch::Many([first, item].into_iter().collect()),
        };
    }
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Batch::Many(RVec::new())
    }
}

impl<T: PartialEq> PartialEq for Batch<T> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<T: Eq> Eq for Batch<T> {}

impl<T> From<Vec<T>> for Batch<T> {
    fn from(items: Vec<T>) -> Self {
        Batch::Many(items.into())
    }
}

impl<T> FromIterator<T> for Batch<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items = items.into_iter();
        let Some(first) = items.next() else {
            return Batch::default();
        };
        let Some(second) = items.next() else {
            return Batch::One(first);
        };
        let mut many = RVec::with_capacity(2 + items.size_hint().0);
        many.push(first);
        many.push(second);
        many.extend(items);
        Batch::Many(many)
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        match self {
            Batch::One(item) => IntoIter::One(Some(item)),
            Batch::Many(items) => IntoIter::Many(items.into_iter()),
        }
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The items of a [`Batch`], one after another.
pub enum IntoIter<T> {
    /// Of a single item.
    One(Option<T>),
    /// Of any number.
    Many(abi_stable::std_types::vec::IntoIter<T>),
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            IntoIter::One(item) => item.take(),
            IntoIter::Many(items) => items.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            IntoIter::One(item) => (item.iter().len(), Some(item.iter().len())),
            IntoIter::Many(items) => items.size_hint(),
        }
    }
}

impl<T> ExactSizeIterator for IntoIter<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_its_items_in_order_however_it_was_made() {
        for len in 0..4 {
            let items: Vec<_> = (0..len).collect();
            let collected: Batch<_> = items.iter().copied().collect();
            let mut pushed = Batch::default();
            items.iter().for_each(|item| pushed.push(*item));
            assert_eq!(collected.as_slice(), items);
            assert_eq!(pushed, collected);
            assert_eq!(pushed.into_iter().collect::<Vec<_>>(), items);
            assert_eq!(collected.into_only().is_some(), len == 1);
        }
    }
}
