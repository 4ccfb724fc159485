//! Failed logins of the last minute, so that nobody tries passwords by the thousand.
//!
//! Shared by all workers. Loopback is exempt: there everybody has the same address.

use super::auth::Who;
use crate::sync::Lock;
use std::collections::HashMap;
use std::net::IpAddr;

/// For how long a failure counts, in microseconds.
const WINDOW_US: u64 = 60_000_000;
/// Addresses and users that are remembered at once; past it those whose minute is over are forgotten, else all.
const REMEMBERED_MAX: usize = 65_536;

/// How many failures a minute are borne.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttemptLimits {
    /// Of one address for one user.
    pub per_user: usize,
    /// Of one address altogether.
    pub per_address: usize,
}

/// What a login was tried with.
#[derive(Clone, Debug)]
pub enum Attempt {
    /// A password of that user.
    Password(Who),
    /// A token, which names nobody.
    Token,
}

/// Failures by address, and by address and user.
#[derive(Debug)]
pub struct Attempts {
    limits: AttemptLimits,
    counts: Lock<HashMap<(IpAddr, Option<Who>), Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began_us: u64,
    failures: usize,
}

impl Attempt {
    fn user(&self) -> Option<&Who> {
        match self {
            Attempt::Password(who) => Some(who),
            Attempt::Token => None,
        }
    }
}

impl Attempts {
    /// No failures yet.
    pub fn new(limits: AttemptLimits) -> Self {
        Attempts { limits, counts: Lock::new(HashMap::new()) }
    }

    /// True exactly when that address has failed too often, for that user or altogether.
    pub fn are_exhausted(&self, address: IpAddr, attempt: &Attempt, now_us: u64) -> bool {
        if address.is_loopback() {
            return false;
        }
        let counts = self.counts.lock();
        let failures = |key: &(IpAddr, Option<Who>)| {
            counts.get(key).filter(|window| now_us < window.began_us + WINDOW_US).map_or(0, |w| w.failures)
        };
        failures(&(address, None)) >= self.limits.per_address
            || attempt
                .user()
                .is_some_and(|who| failures(&(address, Some(who.clone()))) >= self.limits.per_user)
    }

    /// Counts a failure.
    pub fn note_failure(&self, address: IpAddr, attempt: &Attempt, now_us: u64) {
        if address.is_loopback() {
            return;
        }
        let mut counts = self.counts.lock();
        if counts.len() >= REMEMBERED_MAX {
            counts.retain(|_, window| now_us < window.began_us + WINDOW_US);
        }
        if counts.len() >= REMEMBERED_MAX {
            counts.clear();
        }
        let of_user = attempt.user().map(|who| (address, Some(who.clone())));
        for key in std::iter::once((address, None)).chain(of_user) {
            let window = counts.entry(key).or_insert(Window { began_us: now_us, failures: 0 });
            if now_us >= window.began_us + WINDOW_US {
                *window = Window { began_us: now_us, failures: 0 };
            }
            window.failures += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::UserId;

    const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn attempts() -> Attempts {
        Attempts::new(AttemptLimits { per_user: 2, per_address: 3 })
    }

    fn of(user: i64) -> Attempt {
        Attempt::Password(Who::Id(UserId(user)))
    }

    #[test]
    fn a_user_is_closed_to_an_address_that_has_failed_too_often_for_a_minute() {
        let attempts = attempts();
        let (ann, bob) = (of(1), of(2));
        attempts.note_failure(FAR, &ann, 0);
        assert!(!attempts.are_exhausted(FAR, &ann, 1));
        attempts.note_failure(FAR, &ann, 1);
        assert!(attempts.are_exhausted(FAR, &ann, 2));
        assert!(!attempts.are_exhausted(FAR, &bob, 2));
        assert!(!attempts.are_exhausted(FAR, &ann, WINDOW_US), "the minute is over");
    }

    #[test]
    fn an_address_is_closed_to_all_users_in_the_end() {
        let attempts = attempts();
        for user in 1..=3 {
            attempts.note_failure(FAR, &of(user), 0);
        }
        assert!(attempts.are_exhausted(FAR, &of(9), 1));
    }

    #[test]
    fn a_token_that_fails_counts_for_its_address_alone() {
        let attempts = attempts();
        for _ in 0..2 {
            attempts.note_failure(FAR, &Attempt::Token, 0);
        }
        assert!(!attempts.are_exhausted(FAR, &of(1), 1));
        assert!(!attempts.are_exhausted(FAR, &Attempt::Token, 1));
        attempts.note_failure(FAR, &of(1), 0);
        assert!(attempts.are_exhausted(FAR, &Attempt::Token, 1));
        assert!(attempts.are_exhausted(FAR, &of(2), 1));
    }

    #[test]
    fn loopback_is_exempt() {
        let attempts = attempts();
        let (address, who) =
            (IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), Attempt::Password(Who::Name("ann".into())));
        for _ in 0..10 {
            attempts.note_failure(address, &who, 0);
        }
        assert!(!attempts.are_exhausted(address, &who, 1));
    }
}
