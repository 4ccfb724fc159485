//! Random numbers from a seed, so that a run can be repeated. And the first `seq` of a run, which must not repeat.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where the `seq` of a run's chats begin. A server that has the same `seq` and text again from the same user within
/// minutes takes it for the same chat, so runs that follow each other need their own.
pub(super) fn first_seq() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// A number below `bound`, which is small, so that the bias of the remainder does not matter.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}
