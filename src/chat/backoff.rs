//! How long to wait before the next attempt to connect: longer each time, and never the same for two clients.
//!
//! Plain data of a session. The random seed is an argument, so that a test can repeat a run.

/// The first pause at its longest, in milliseconds.
const FIRST_MS: u64 = 500;

/// The longest pause, in milliseconds, unless the server asks for a longer one.
const MAX_MS: u64 = 30_000;

/// The shortest pause after the advice `retry_after` without a time, in milliseconds.
const RETRY_AFTER_MS: u64 = 3_000;

/// After a session of this length, in milliseconds, pauses begin with the first one again.
const STABLE_MS: u64 = 10_000;

const _: () = assert!(FIRST_MS < RETRY_AFTER_MS && RETRY_AFTER_MS < MAX_MS);

/// The pauses between the attempts of one client.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    failures: u32,
    chance: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Backoff {
        Backoff { failures: 0, chance: seed }
    }

    /// A session of that length has ended.
    pub(super) fn session_ended(&mut self, up_ms: u64) {
        if up_ms >= STABLE_MS {
            self.failures = 0;
        }
    }

    /// The next pause, in milliseconds: between half and all of a maximum that doubles with each failure.
    pub(super) fn next(&mut self) -> u64 {
        let most_ms = FIRST_MS.saturating_mul(1 << self.failures.min(16)).min(MAX_MS);
        self.failures = self.failures.saturating_add(1);
        most_ms / 2 + self.below(most_ms / 2)
    }

    /// The next pause where the server asks for one, in milliseconds: never shorter than asked, and up to a tenth
    /// longer, so that not all clients come back at once.
    pub(super) fn next_after(&mut self, asked_ms: Option<u64>) -> u64 {
        let least_ms = asked_ms.unwrap_or(RETRY_AFTER_MS);
        let own_ms = self.next();
        least_ms.saturating_add(self.below(least_ms / 10)).max(own_ms)
    }

    /// A number from 0 up to and including `most`. Splitmix64; the bias of the remainder does not matter here.
    fn below(&mut self, most: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_keep_away_from_zero() {
        let mut backoff = Backoff::new(7);
        let mut most = FIRST_MS;
        for _ in 0..40 {
            let pause = backoff.next();
            assert!((most / 2..=most).contains(&pause), "{pause} of {most}");
            most = (most * 2).min(MAX_MS);
        }
    }

    #[test]
    fn two_clients_do_not_pause_alike() {
        let [mut one, mut other] = [1, 2].map(Backoff::new);
        assert_ne!([(); 4].map(|()| one.next()), [(); 4].map(|()| other.next()));
    }

    #[test]
    fn the_server_never_sees_a_client_before_the_time_it_asked_for() {
        let mut backoff = Backoff::new(3);
        for _ in 0..20 {
            let pause = backoff.next_after(Some(600_000));
            assert!((600_000..=660_000).contains(&pause), "{pause}");
        }
        assert!(Backoff::new(3).next_after(None) >= RETRY_AFTER_MS);
        assert_eq!(Backoff::new(3).next_after(Some(u64::MAX)), u64::MAX);
    }

    #[test]
    fn only_a_session_that_held_makes_pauses_short_again() {
        let mut backoff = Backoff::new(5);
        for _ in 0..6 {
            backoff.next();
        }
        backoff.session_ended(STABLE_MS - 1);
        assert!(backoff.next() > FIRST_MS);
        backoff.session_ended(STABLE_MS);
        assert!(backoff.next() <= FIRST_MS);
    }
}
