//! A list that takes one word and no heap while it is empty, as it mostly is.
//!
//! Plain data. Each client has two, and most clients are idle. The crate `thin-vec` appends bytes one by one,
//! which is 30 times slower for 64 KiB of a request that comes in parts.

use std::ops::{Deref, DerefMut};

/// A list that is mostly empty.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "a list takes three words, also while it is empty")]
pub(super) struct ThinVec<T>(Option<Box<Vec<T>>>);

impl<T> Default for ThinVec<T> {
    fn default() -> Self {
        ThinVec(None)
    }
}

impl<T> Deref for ThinVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |list| list.as_slice())
    }
}

impl<T> DerefMut for ThinVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.0.as_mut().map_or(&mut [], |list| list.as_mut_slice())
    }
}

impl<T> From<Vec<T>> for ThinVec<T> {
    fn from(list: Vec<T>) -> Self {
        ThinVec((!list.is_empty()).then(|| Box::new(list)))
    }
}

impl<T> ThinVec<T> {
    /// Appends one.
    pub(super) fn push(&mut self, item: T) {
        self.0.get_or_insert_default().push(item);
    }

    /// Takes the first for which that holds.
    pub(super) fn take_first(&mut self, holds: impl Fn(&T) -> bool) -> Option<T> {
        let list = self.0.as_mut()?;
        let taken = list.iter().position(holds).map(|at| list.remove(at));
        self.0.take_if(|list| list.is_empty());
        taken
    }

    /// Takes all.
    pub(super) fn take(&mut self) -> Vec<T> {
        self.0.take().map_or_else(Vec::new, |list| *list)
    }

    /// Drops all.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

impl<T: Clone> ThinVec<T> {
    /// Appends copies.
    pub(super) fn extend_from_slice(&mut self, items: &[T]) {
        if !items.is_empty() {
            self.0.get_or_insert_default().extend_from_slice(items);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_word_and_whatever_empties_it_gives_its_heap_back() {
        assert_eq!(size_of::<ThinVec<u8>>(), size_of::<usize>());
        let mut seldom = ThinVec::default();
        seldom.extend_from_slice(&[]);
        assert!(seldom.0.is_none());
        seldom.extend_from_slice(b"ab");
        seldom.push(b'c');
        assert_eq!(&*seldom, b"abc");
        assert_eq!(seldom.take_first(|byte| *byte == b'x'), None);
        assert_eq!(seldom.take_first(|byte| *byte == b'b'), Some(b'b'));
        assert_eq!(seldom.take(), b"ac");
        assert!(seldom.0.is_none());
        seldom.push(b'd');
        assert_eq!(seldom.take_first(|_| true), Some(b'd'));
        assert!(seldom.0.is_none());
        seldom.push(b'e');
        seldom.clear();
        assert!(seldom.0.is_none() && ThinVec::<u8>::from(Vec::with_capacity(9)).0.is_none());
    }
}
