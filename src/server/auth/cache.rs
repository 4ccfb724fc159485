//! Passwords that were verified a short time ago, so that a reconnect does not cost a full argon2.
//!
//! Shared: auth threads add, workers look, main removes. A password is kept as a keyed hash in memory, which says neither
//! what it is nor whose.

use crate::ids::{IdMap, UserId};
use crate::message::request::{HashTag, Who};
use crate::sync::Mutex;
use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};

/// Verified passwords for which there is room from the start. What is not used is not resident, and a small map that
/// grows leaves holes behind in the memory of the auth threads, which have no other use for them.
const CACHE_ROOM: usize = 3500;
/// Verified passwords that are remembered at once.
const CACHE_MAX: usize = 65_536;
/// Microseconds in a second.
const SECOND_US: u64 = 1_000_000;
/// How long a verified password is remembered at most, in microseconds (10 minutes).
const CACHE_US: u64 = 600_000_000;

/// The passwords.
pub(super) struct PasswordCache {
    key: [u8; 32],
    entries: Mutex<IdMap<u64, Entry>>,
}

/// The keyed hash of an account and a password. `place` finds the entry, `rest` tells whether it is the right one.
#[derive(Clone, Copy)]
struct CacheKey {
    place: u64,
    rest: u32,
}

struct Entry {
    rest: u32,
    /// When it is forgotten, in whole seconds.
    until_s: u32,
    user: UserId,
    verified: HashTag,
}

const _: () = assert!(size_of::<(u64, Entry)>() <= 32);

impl Entry {
    fn is_good(&self, rest: u32, now_us: u64) -> bool {
        self.rest == rest && now_us < u64::from(self.until_s) * SECOND_US
    }
}

impl PasswordCache {
    /// An empty one.
    ///
    /// # Errors
    /// When the kernel gives no random key.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let entries = IdMap::with_capacity_and_hasher(CACHE_ROOM, rustc_hash::FxBuildHasher);
        Ok(PasswordCache { key, entries: Mutex::new(entries) })
    }

    /// The user whose password that was a short time ago, and the stored hash that it was verified against.
    pub(super) fn find(&self, who: &Who, password: &str, now_us: u64) -> Option<(UserId, HashTag)> {
        let key = self.key_of(who, password);
        let entries = self.entries.lock();
        let entry = entries.get(&key.place).filter(|entry| entry.is_good(key.rest, now_us))?;
        Some((entry.user, entry.verified))
    }

    /// Removes a password that has been changed.
    pub(super) fn forget(&self, who: &Who, password: &str) {
        let key = self.key_of(who, password);
        self.entries.lock().remove(&key.place);
    }

    /// Adds a password that was verified just now. When there is no room, what is over goes, and else everything.
    pub(super) fn remember(&self, who: &Who, password: &str, user: UserId, verified: HashTag, now_us: u64) {
        let key = self.key_of(who, password);
        let mut entries = self.entries.lock();
        if entries.len() >= CACHE_MAX {
            entries.retain(|_, entry| entry.is_good(entry.rest, now_us));
        }
        if entries.len() >= CACHE_MAX {
            entries.clear();
        }
        let until_s = ((now_us + CACHE_US) / SECOND_US) as u32;
        entries.insert(key.place, Entry { rest: key.rest, until_s, user, verified });
    }

    fn key_of(&self, who: &Who, password: &str) -> CacheKey {
        let mut mac = Blake2sMac256::new(&self.key.into());
        match who {
            Who::Id(user) => {
                mac.update(&[0]);
                mac.update(&user.0.to_le_bytes());
            }
            Who::Name(name) => {
                mac.update(&[1]);
                mac.update(&(name.len() as u64).to_le_bytes());
                mac.update(name.as_bytes());
            }
        }
        mac.update(password.as_bytes());
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        let place = u64::from_le_bytes(std::array::from_fn(|at| hash[at]));
        let rest = u32::from_le_bytes(std::array::from_fn(|at| hash[size_of::<u64>() + at]));
        CacheKey { place, rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verified_password_is_found_only_as_it_was_and_until_it_is_over() {
        let cache = PasswordCache::new().unwrap();
        let ann = Who::Id(UserId(1));
        let verified = HashTag::of("hash");
        cache.remember(&ann, "secret", UserId(1), verified, 0);
        assert_eq!(cache.find(&ann, "secret", 1), Some((UserId(1), verified)));
        assert_eq!(cache.find(&ann, "guess", 1), None);
        assert_eq!(cache.find(&Who::Name("1".into()), "secret", 1), None);
        assert_eq!(cache.find(&ann, "secret", CACHE_US), None, "it is over");
        cache.forget(&ann, "secret");
        assert_eq!(cache.find(&ann, "secret", 1), None);
    }
}
