//! Names of things that outlive a connection: users and groups.
//!
//! Plain values, owned by nobody. A channel's name is in [`crate::channel::ChannelId`].

use rustc_hash::{FxBuildHasher, FxHashMap};
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// A map by users, channels, sessions, or by keys that are hashes already. Its own hash is a multiplication, which is quick
/// and makes collisions easy to find: so it is not for keys that a client can choose.
pub type IdMap<K, V> = FxHashMap<K, V>;

/// The hash of a key as in an [`IdMap`], for tables whose entries are their own keys.
pub fn id_hash(key: impl Hash) -> u64 {
    FxBuildHasher.hash_one(key)
}

/// A user's number: the primary key of table `user`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UserId(pub i64);

/// A group's number: the primary key of table `chatgroup`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub i64);

/// The number of a user's session. It rises with every login of that user, across restarts and restored copies of the
/// database too, so that what an older session leaves behind can be told from the newer one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub i64);

/// The number of a message in its receiver's box: its epoch, and its place in that. It rises per receiver, as epochs do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mid(pub i64);

/// Bits of a [`Mid`] that are the place: 16,383 messages, then the next epoch begins.
const PLACE_BITS: u32 = 14;
/// Message numbers of one epoch, the one that is never given out included.
pub const EPOCH_MIDS: u32 = 1 << PLACE_BITS;
/// The largest epoch: numbers of messages stay below 2^53, as far as every JSON reader counts exactly.
const EPOCH_MAX: i64 = (1 << (53 - PLACE_BITS)) - 1;
/// Epochs of rows are believed below this one. Another process has written what is larger; the epochs above are for going
/// on from what is believed.
pub const EPOCH_BELIEVED: i64 = EPOCH_MAX - (1 << 32);
/// The Unix time at which epochs begin, in milliseconds: 2020-01-01.
const EPOCHS_BEGAN_MS: i64 = 1_577_836_800_000;
/// The time in which the lowest epoch that may be given out rises by one, in milliseconds. So a copy of the database that is
/// older than the latest sessions takes no number again while the wall clock is right, unless somebody has logged in more
/// often than that for all the time in between. It lasts until the year 2192.
const EPOCH_MS: i64 = 10;

impl Epoch {
    /// What the epoch of a row says: before the first session where another process has written what cannot be one.
    #[must_use]
    pub fn believed(self) -> Epoch {
        if (0..EPOCH_BELIEVED).contains(&self.0) { self } else { Epoch(0) }
    }

    /// The lowest epoch that may be given out at that time of the wall clock (Unix milliseconds). A clock that cannot be right
    /// says nothing.
    #[must_use]
    pub fn lowest_at(unix_ms: i64) -> Epoch {
        Epoch(unix_ms.saturating_sub(EPOCHS_BEGAN_MS) / EPOCH_MS).believed()
    }

    /// The epoch of the next session. Once all epochs are used up, which takes another process, the clock decides.
    #[must_use]
    pub fn next(self, unix_ms: i64) -> Epoch {
        let lowest = Epoch::lowest_at(unix_ms);
        if self.0 >= EPOCH_MAX { lowest } else { Epoch(self.0 + 1).max(lowest) }
    }

    /// The number of the message at that place of the epoch.
    #[must_use]
    pub fn mid(self, place: u32) -> Mid {
        Mid(self.0 << PLACE_BITS | i64::from(place))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
