//! Failed logins of the last minute, so that nobody tries passwords by the thousand.
//!
//! Shared by the workers, which ask before they pass a login on, and the auth threads, which know whose login it is,
//! ask again, and count. Loopback is exempt: there everybody has the same address.

use super::auth::Who;
use crate::addr::IpBlock;
use crate::ident::UserId;
use crate::protocol::request::MAX_NAME_CHARS;
use crate::sync::Lock;
use std::collections::{HashMap, VecDeque};

/// For how long a failure counts, in microseconds.
const WINDOW_US: u64 = 60_000_000;
/// Addresses, and users of addresses, that are remembered at once; past it the oldest are forgotten.
const REMEMBERED_MAX: usize = 65_536;
/// The sentence behind errno 17 for a login that is not even tried.
pub const TOO_MANY_FAILURES: &str = "too many failed logins; try again in a minute";

/// How many failures a minute are borne.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttemptLimits {
    /// Of one address for one user.
    pub per_user: usize,
    /// Of one address altogether.
    pub per_address: usize,
}

/// Whose password is tried.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Account {
    /// A user's, however the client named him; or that of a number which nobody has.
    User(UserId),
    /// That of a name which nobody has.
    Name(Box<str>),
}

impl Account {
    /// The account that a client means, with the user whom that name or number belongs to. None for what cannot be
    /// anybody's name.
    pub fn named(who: &Who, user: Option<UserId>) -> Option<Self> {
        match (user, who) {
            (Some(user), _) => Some(Account::User(user)),
            (None, Who::Id(user)) => Some(Account::User(*user)),
            (None, Who::Name(name)) => {
                let is_short = name.chars().nth(MAX_NAME_CHARS).is_none();
                is_short.then(|| Account::Name(name.clone()))
            }
        }
    }
}

/// Failures by address, and by address and user.
#[derive(Debug)]
pub struct Attempts {
    limits: AttemptLimits,
    windows: Lock<Windows>,
}

/// An address altogether, or for one account.
type Key = (IpBlock, Option<Account>);

#[derive(Debug, Default)]
struct Windows {
    by_key: HashMap<Key, Window>,
    /// When each began, oldest first. One that has begun anew since is here twice, the first time in vain.
    order: VecDeque<(u64, Key)>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began_us: u64,
    failures: usize,
}

impl Attempts {
    /// No failures yet.
    pub fn new(limits: AttemptLimits) -> Self {
        Attempts { limits, windows: Lock::default() }
    }

    /// True exactly when that address has failed too often, for that account or altogether.
    pub fn are_exhausted(&self, address: IpBlock, account: Option<&Account>, now_us: u64) -> bool {
        if address.is_loopback() {
            return false;
        }
        let windows = self.windows.lock();
        windows.failures(&(address, None), now_us) >= self.limits.per_address
            || account.is_some_and(|account| {
                windows.failures(&(address, Some(account.clone())), now_us) >= self.limits.per_user
            })
    }

    /// Counts a failure.
    pub fn note_failure(&self, address: IpBlock, account: Option<Account>, now_us: u64) {
        if address.is_loopback() {
            return;
        }
        let mut windows = self.windows.lock();
        windows.note((address, None), now_us);
        if account.is_some() {
            windows.note((address, account), now_us);
        }
    }
}

impl Windows {
    fn failures(&self, key: &Key, now_us: u64) -> usize {
        self.by_key.get(key).filter(|window| !window.is_over(now_us)).map_or(0, |window| window.failures)
    }

    fn note(&mut self, key: Key, now_us: u64) {
        if let Some(window) = self.by_key.get_mut(&key)
            && !window.is_over(now_us)
        {
            window.failures += 1;
            return;
        }
        self.forget(now_us);
        self.order.push_back((now_us, key.clone()));
        self.by_key.insert(key, Window { began_us: now_us, failures: 1 });
    }

    /// Makes room for one: the oldest goes if there is none, and two that are over go in any case.
    fn forget(&mut self, now_us: u64) {
        for _ in 0..2 {
            let full = self.order.len() >= REMEMBERED_MAX;
            let Some((began_us, key)) = self.order.pop_front_if(|(began_us, _)| {
                full || Window { began_us: *began_us, failures: 0 }.is_over(now_us)
            }) else {
                return;
            };
            if self.by_key.get(&key).is_some_and(|window| window.began_us == began_us) {
                self.by_key.remove(&key);
            }
        }
    }
}

impl Window {
    fn is_over(self, now_us: u64) -> bool {
        now_us >= self.began_us + WINDOW_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: [u8; 4] = [192, 0, 2, 1];

    fn block(ip: impl Into<std::net::IpAddr>) -> IpBlock {
        IpBlock::of(ip.into())
    }

    fn attempts() -> Attempts {
        Attempts::new(AttemptLimits { per_user: 2, per_address: 3 })
    }

    fn user(user: i64) -> Account {
        Account::User(UserId(user))
    }

    #[test]
    fn a_user_is_closed_to_an_address_that_has_failed_too_often_for_a_minute() {
        let attempts = attempts();
        let (ann, bob) = (user(1), user(2));
        attempts.note_failure(block(FAR), Some(ann.clone()), 0);
        assert!(!attempts.are_exhausted(block(FAR), Some(&ann), 1));
        attempts.note_failure(block(FAR), Some(ann.clone()), 1);
        assert!(attempts.are_exhausted(block(FAR), Some(&ann), 2));
        assert!(!attempts.are_exhausted(block(FAR), Some(&bob), 2));
        assert!(!attempts.are_exhausted(block(FAR), Some(&ann), WINDOW_US), "the minute is over");
        attempts.note_failure(block(FAR), Some(ann.clone()), WINDOW_US);
        assert!(!attempts.are_exhausted(block(FAR), Some(&ann), WINDOW_US + 1), "a new minute counts anew");
    }

    #[test]
    fn an_address_is_closed_to_all_users_in_the_end() {
        let attempts = attempts();
        for id in 1..=3 {
            attempts.note_failure(block(FAR), Some(user(id)), 0);
        }
        assert!(attempts.are_exhausted(block(FAR), Some(&user(9)), 1));
        assert!(attempts.are_exhausted(block(FAR), None, 1), "whoever is meant");
    }

    #[test]
    fn a_user_is_one_account_by_number_and_by_name() {
        let (number, name) = (Who::Id(UserId(1)), Who::Name("ann".into()));
        assert_eq!(Account::named(&name, Some(UserId(1))), Account::named(&number, Some(UserId(1))));
        assert_eq!(Account::named(&number, None), Some(user(1)));
        assert_eq!(Account::named(&name, None), Some(Account::Name("ann".into())));
        let long = Who::Name("x".repeat(MAX_NAME_CHARS + 1).into());
        assert_eq!(Account::named(&long, None), None, "nobody has such a name, and it is not kept");
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_are_forgotten_and_nobody_else() {
        let attempts = attempts();
        let (oldest, old) = (block([192, 0, 2, 1]), block([192, 0, 2, 2]));
        let fail = |address, at_us| attempts.note_failure(address, None, at_us);
        for (address, at_us) in [(oldest, 0), (old, 1)] {
            for _ in 0..3 {
                fail(address, at_us);
            }
        }
        let others = (2..REMEMBERED_MAX as u32).map(|n| block((0x0A00_0000 + n).to_be_bytes()));
        for address in others {
            fail(address, 2);
        }
        assert!(attempts.are_exhausted(oldest, None, 3), "there was room for all");
        fail(block([192, 0, 2, 3]), 3);
        assert!(!attempts.are_exhausted(oldest, None, 4), "its place was needed");
        assert!(attempts.windows.lock().by_key.len() <= REMEMBERED_MAX);
        assert!(attempts.are_exhausted(old, None, 4), "no other place was needed");
    }

    #[test]
    fn what_is_over_is_forgotten_bit_by_bit() {
        let attempts = attempts();
        for n in 0..100u32 {
            attempts.note_failure(block((0x0A00_0000 + n).to_be_bytes()), None, 0);
        }
        for n in 0..50u32 {
            attempts.note_failure(block((0x0B00_0000 + n).to_be_bytes()), None, WINDOW_US);
        }
        let windows = attempts.windows.lock();
        assert_eq!((windows.by_key.len(), windows.order.len()), (50, 50));
    }

    #[test]
    fn an_address_that_goes_on_is_remembered_by_its_newest_minute() {
        let attempts = attempts();
        let minutes = 5;
        for minute in 0..minutes {
            for _ in 0..3 {
                attempts.note_failure(block(FAR), None, minute * WINDOW_US);
            }
        }
        assert!(attempts.are_exhausted(block(FAR), None, (minutes - 1) * WINDOW_US + 1));
        assert_eq!(attempts.windows.lock().order.len(), 1);
    }

    #[test]
    fn loopback_is_exempt() {
        let attempts = attempts();
        let (address, who) = (block(std::net::Ipv6Addr::LOCALHOST), user(1));
        for _ in 0..10 {
            attempts.note_failure(address, Some(who.clone()), 0);
        }
        assert!(!attempts.are_exhausted(address, Some(&who), 1));
    }
}
