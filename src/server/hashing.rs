//! Maps by numbers that the server itself gives out, or by hashes.
//!
//! Plain data, used by any thread. Who can choose such a key gains nothing by having many of them collide, so a
//! multiplication does where the standard library defends itself with a keyed hash of several times the price.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// A map by users, channels, sessions, or what is a hash already. Not for what clients can make up.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// The hash of a key as in an [`IdMap`], for tables whose entries are their own keys.
pub fn id_hash(key: impl Hash) -> u64 {
    BuildHasherDefault::<IdHasher>::default().hash_one(key)
}

/// An odd number with bits well spread, so that each bit of a key moves many of the product.
const SPREAD: u64 = 0xf135_7aea_2e62_a9c5;
/// A map looks at the lowest and the highest bits; the best ones of a product are the highest.
const ROTATION: u32 = 26;

/// The hash behind [`IdMap`].
#[derive(Clone, Copy, Default, Debug)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(size_of::<u64>()) {
            let mut word = [0; size_of::<u64>()];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, part: u32) {
        self.write_u64(part.into());
    }

    fn write_u64(&mut self, part: u64) {
        self.0 = self.0.wrapping_add(part).wrapping_mul(SPREAD);
    }

    fn write_i64(&mut self, part: i64) {
        self.write_u64(part.cast_unsigned());
    }

    fn write_usize(&mut self, part: usize) {
        self.write_u64(part as u64);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(ROTATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{ChannelId, SessionNo};
    use crate::ids::UserId;
    use std::collections::HashSet;

    /// How many of 4,096 keys share their bucket or their tag with no more than a few, as a map sees them.
    fn spread<K: Hash>(keys: impl Iterator<Item = K>) -> (usize, usize) {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        let hashes: Vec<u64> = keys.map(|key| hasher.hash_one(key)).collect();
        assert_eq!(hashes.len(), 4096);
        let buckets: HashSet<u64> = hashes.iter().map(|hash| hash % 4096).collect();
        let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        (buckets.len(), tags.len())
    }

    #[test]
    fn numbers_in_a_row_spread_over_buckets_and_tags() {
        // Thrown at random, 4,096 keys hit 2,589 buckets; a map has more buckets than keys, and looks at 16 at once.
        for step in [1, 2, 64, 4096] {
            let (buckets, tags) = spread((0..4096).map(|user| UserId(user * step)));
            assert!(buckets > 1500 && tags > 120, "every {step}th user: {buckets} {tags}");
        }
        let channel = |slot| (ChannelId { slot, generation: 1 }, SessionNo(1));
        let (buckets, tags) = spread((0..4096).map(channel));
        assert!(buckets > 1500 && tags > 120, "channels: {buckets} {tags}");
        let reused = |generation| (ChannelId { slot: 7, generation }, SessionNo(1));
        let (buckets, tags) = spread((0..4096).map(reused));
        assert!(buckets > 1500 && tags > 120, "one slot: {buckets} {tags}");
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        assert_ne!(hasher.hash_one((1_u32, 2_u32)), hasher.hash_one((2_u32, 1_u32)));
        assert_ne!(hasher.hash_one([1_u8; 9]), hasher.hash_one([[1_u8; 8].as_slice(), &[2]].concat()));
    }
}
