//! argon2id on one thread: all its hashes use one block of memory, which is given back while there is nothing to hash.
//!
//! Owned by an auth thread. What one password costs does not tell whether there is such a user, or how its hash is
//! stored: whatever fails has cost as much as a new hash does.

use crate::sync::{Arc, Mutex};
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};

/// The most memory that one hash may need, in KiB, whether it is made or read from the database.
pub const HASH_MEMORY_MAX_KIB: u32 = 1024 * 1024;
/// The most passes over it.
pub const HASH_PASSES_MAX: u32 = 64;
/// The algorithm needs that much memory for each lane, in KiB.
pub const LANE_MEMORY_KIB: u32 = 8;

/// Room that a thread reserves at least, in blocks of 1 KiB: from 32 MiB on, the allocator maps what it is asked for and
/// gives it back to the system as a whole. Room that is not used is not resident.
const MAPPED_BLOCKS: usize = 32 * 1024 + 1;
/// The salt of hashes that are made for nothing but their cost.
const NO_SALT: [u8; 16] = [0; 16];

/// The cost of new password hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// What decides how long a hash takes: KiB that are written. Lanes are computed one after another.
    fn work_kib(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    fn params(self) -> Option<Params> {
        Params::new(self.memory_kib, self.passes, self.lanes, None).ok()
    }
}

/// One thread's argon2id.
pub struct Hasher {
    cost: Cost,
    /// Its length is what was needed so far.
    memory: Vec<Block>,
    /// Held for each hash that needs more memory than a new one, so that only one thread does at a time.
    large: Arc<Mutex<()>>,
    /// KiB that all hashes have written so far.
    worked_kib: u64,
}

impl Hasher {
    /// Without memory yet. Threads that share `large` share the memory for hashes of a higher cost than `cost`.
    pub fn new(cost: Cost, large: Arc<Mutex<()>>) -> Self {
        Hasher { cost, memory: Vec::new(), large, worked_kib: 0 }
    }

    /// A new hash, as a PHC string. None where there is no memory, or no random salt.
    pub fn hash(&mut self, password: &[u8]) -> Option<String> {
        let params = self.cost.params()?;
        let mut salt = NO_SALT;
        getrandom::fill(&mut salt).ok()?;
        let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        self.compute(&argon2, password, &salt, &mut out)?;
        let hash = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).ok()?,
            salt: Some(Salt::new(&salt).ok()?),
            hash: Some(Output::new(&out).ok()?),
        };
        Some(hash.to_string())
    }

    /// True exactly when `stored` is a hash of that password. Where it is not, or where nothing is stored, what the stored
    /// hash has cost less than a new one would is spent as well.
    pub fn verify(&mut self, stored: Option<&str>, password: &[u8]) -> bool {
        let before_kib = self.worked_kib;
        let is_right = stored.and_then(Stored::read).is_some_and(|stored| self.matches(&stored, password));
        if !is_right {
            let rest_kib = self.cost.work_kib().saturating_sub(self.worked_kib - before_kib);
            self.spend(rest_kib, password);
        }
        is_right
    }

    /// True exactly when a stored hash costs less than a new one would.
    pub fn is_weaker(&self, stored: &str) -> bool {
        Stored::read(stored).is_some_and(|stored| {
            stored.cost.memory_kib < self.cost.memory_kib || stored.cost.passes < self.cost.passes
        })
    }

    /// Gives the memory back.
    pub fn rest(&mut self) {
        self.memory = Vec::new();
    }

    /// True exactly while there is memory to be given back.
    pub fn holds_memory(&self) -> bool {
        self.memory.capacity() > 0
    }

    fn matches(&mut self, stored: &Stored, password: &[u8]) -> bool {
        let Some(expected) = &stored.hash.hash else { return false };
        let Some(salt) = &stored.hash.salt else { return false };
        let mut out = [0; Output::MAX_LENGTH];
        let out = &mut out[..expected.len()];
        if stored.cost.memory_kib <= self.cost.memory_kib {
            self.compute(&stored.argon2, password, salt, out);
        } else {
            let large = Arc::clone(&self.large);
            let _one_at_a_time = large.lock();
            self.compute(&stored.argon2, password, salt, out);
            self.rest();
        }
        // The comparison takes the same time wherever they differ.
        Output::new(out).is_ok_and(|found| found == *expected)
    }

    /// Hashes for nothing but the cost.
    fn spend(&mut self, work_kib: u64, password: &[u8]) {
        let Cost { passes, lanes, .. } = self.cost;
        let memory_kib = (work_kib / u64::from(passes)) as u32;
        let Some(params) = (Cost { memory_kib, passes, lanes }).params() else { return };
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        self.compute(&argon2, password, &NO_SALT, &mut [0; Params::DEFAULT_OUTPUT_LEN]);
    }

    fn compute(&mut self, argon2: &Argon2<'_>, password: &[u8], salt: &[u8], out: &mut [u8]) -> Option<()> {
        let params = argon2.params();
        let needed = params.block_count();
        if self.memory.len() < needed {
            self.rest();
            self.memory.try_reserve_exact(needed.max(MAPPED_BLOCKS)).ok()?;
            self.memory.resize(needed, Block::new());
        }
        self.worked_kib += u64::from(params.m_cost()) * u64::from(params.t_cost());
        argon2.hash_password_into_with_memory(password, salt, out, &mut self.memory[..needed]).ok()
    }

    #[cfg(test)]
    pub(crate) fn worked_kib(&self) -> u64 {
        self.worked_kib
    }
}

/// A hash from the database that can be computed.
struct Stored {
    hash: PasswordHash,
    argon2: Argon2<'static>,
    cost: Cost,
}

impl Stored {
    /// None for what is no argon2 hash, and for what costs more than any hash may.
    fn read(text: &str) -> Option<Stored> {
        let hash = PasswordHash::new(text).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let cost = Cost { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() };
        let is_bearable = cost.memory_kib <= HASH_MEMORY_MAX_KIB && cost.passes <= HASH_PASSES_MAX;
        is_bearable.then(|| Stored { hash, argon2: Argon2::new(algorithm, version, params), cost })
    }
}

/// True exactly when a stored password is a hash that can be computed; else nobody can log in by it.
pub fn is_computable(stored: &str) -> bool {
    Stored::read(stored).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
    const USUAL: Cost = Cost { memory_kib: 64, passes: 2, lanes: 1 };

    fn hasher(cost: Cost) -> Hasher {
        Hasher::new(cost, Arc::default())
    }

    fn hash(password: &str, cost: Cost) -> String {
        hasher(cost).hash(password.as_bytes()).unwrap()
    }

    #[test]
    fn a_hash_is_verified_with_its_own_parameters() {
        let mut usual = hasher(USUAL);
        for cost in [CHEAP, USUAL, Cost { memory_kib: 256, passes: 3, lanes: 2 }] {
            let stored = hash("secret", cost);
            let Cost { memory_kib, passes, lanes } = cost;
            assert!(
                stored.starts_with(&format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}$")),
                "{stored}"
            );
            assert!(usual.verify(Some(&stored), b"secret"));
            assert!(!usual.verify(Some(&stored), b"Secret"));
        }
        assert_ne!(hash("secret", CHEAP), hash("secret", CHEAP), "each with its own salt");
        assert!(!usual.verify(Some("not a hash"), b"secret"));
    }

    #[test]
    fn hashes_of_other_programs_are_verified() {
        // The reference implementation's, of "password".
        for stored in [
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2i$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
        ] {
            assert!(hasher(CHEAP).verify(Some(stored), b"password"), "{stored}");
        }
    }

    #[test]
    fn only_weaker_hashes_are_renewed() {
        let stored = hash("secret", CHEAP);
        assert!(!hasher(CHEAP).is_weaker(&stored));
        assert!(hasher(Cost { passes: 2, ..CHEAP }).is_weaker(&stored));
        assert!(hasher(Cost { memory_kib: 16, ..CHEAP }).is_weaker(&stored));
    }

    #[test]
    fn whatever_fails_has_cost_as_much_as_a_present_hash() {
        let (present, cheap) = (hash("secret", USUAL), hash("secret", CHEAP));
        let too_much = present.replace("m=64", "m=1048577");
        let endless = present.replace("t=2", "t=4294967295");
        let mut hasher = hasher(USUAL);
        let mut cost = |stored: Option<&str>| {
            let before_kib = hasher.worked_kib();
            assert!(!hasher.verify(stored, b"guess"));
            hasher.worked_kib() - before_kib
        };
        let usual = cost(Some(&present));
        assert_eq!(usual, USUAL.work_kib());
        assert_eq!(cost(None), usual, "nobody, or a guest");
        assert_eq!(cost(Some(&cheap)), usual, "a hash of another cost");
        for stored in ["", "secret", "$1$salt$hash", &too_much, &endless] {
            assert_eq!(cost(Some(stored)), usual, "{stored:?}");
        }
    }

    #[test]
    fn a_thread_has_one_block_of_memory_as_large_as_a_new_hash_needs_and_none_at_rest() {
        let mut hasher = hasher(USUAL);
        assert!(!hasher.holds_memory());
        hasher.hash(b"secret").unwrap();
        let block = hasher.memory.as_ptr();
        for _ in 0..3 {
            hasher.hash(b"secret").unwrap();
            hasher.verify(Some(&hash("secret", CHEAP)), b"guess");
        }
        assert_eq!((hasher.memory.as_ptr(), hasher.memory.len()), (block, 64), "the same one");
        assert!(hasher.verify(Some(&hash("secret", Cost { memory_kib: 4096, ..USUAL })), b"secret"));
        assert!(!hasher.holds_memory(), "what a larger hash has needed is not kept");
        hasher.hash(b"secret").unwrap();
        hasher.rest();
        assert!(!hasher.holds_memory());
    }

    #[test]
    fn a_hash_that_would_cost_more_than_any_may_is_never_computed() {
        let stored = hash("secret", USUAL);
        for (from, to) in [("m=64", "m=4294967295"), ("t=2", "t=65"), ("p=1", "p=16777215")] {
            assert!(!is_computable(&stored.replace(from, to)), "{to}");
        }
        assert!(is_computable(&stored));
    }
}
