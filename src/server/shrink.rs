//! Gives the room of lists and tables back that a flood has needed. Plain data.
//!
//! The rule: whatever grows with load and outlives it calls [`Shrink::shrink`] where things are taken out. It keeps room
//! for what is in it twice over, and always for [`ROOM_KEPT`], so that what comes and goes all the time copies nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

/// Room that is always kept, in entries.
pub(crate) const ROOM_KEPT: usize = 1_024;

/// Room is given back when so many times as much is there as is needed.
const SPARE_FACTOR: usize = 4;

/// A list or a table that can give room back.
pub(crate) trait Shrink {
    /// Gives room back where most of it is not needed. Costs no more, on the average, than what was taken out.
    fn shrink(&mut self);
}

/// The capacity to shrink to, if any.
fn target(len: usize, capacity: usize) -> Option<usize> {
    (capacity > ROOM_KEPT.max(len * SPARE_FACTOR)).then_some(ROOM_KEPT.max(len * SPARE_FACTOR / 2))
}

macro_rules! shrink {
    ($($kind:ty, [$($generics:tt)*];)*) => {$(
        impl<$($generics)*> Shrink for $kind {
            fn shrink(&mut self) {
                if let Some(capacity) = target(self.len(), self.capacity()) {
                    self.shrink_to(capacity);
                }
            }
        }
    )*};
}

shrink! {
    Vec<T>, [T];
    VecDeque<T>, [T];
    HashMap<K, V, S>, [K: Eq + Hash, V, S: BuildHasher];
    HashSet<T, S>, [T: Eq + Hash, S: BuildHasher];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_flood_has_needed_is_given_back_and_what_is_needed_stays() {
        const FLOOD: usize = 100 * ROOM_KEPT;
        let mut list: VecDeque<usize> = (0..FLOOD).collect();
        let mut table: HashMap<usize, usize> = (0..FLOOD).map(|n| (n, n)).collect();
        list.drain(..FLOOD / 2);
        list.shrink();
        assert!(list.capacity() >= FLOOD, "half of it is needed");
        list.drain(ROOM_KEPT / 2..);
        table.retain(|n, _| *n < ROOM_KEPT / 2);
        list.shrink();
        table.shrink();
        assert!(list.capacity() < 4 * ROOM_KEPT && table.capacity() < 4 * ROOM_KEPT);
        assert_eq!((list.len(), table.len()), (ROOM_KEPT / 2, ROOM_KEPT / 2));
        let room = (list.capacity(), table.capacity());
        list.clear();
        list.shrink();
        assert!(list.capacity() >= ROOM_KEPT.min(room.0), "some is kept");
    }
}
