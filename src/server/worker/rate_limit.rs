//! How many requests a client may send: a bucket of tokens, filled at the rate. Plain data, owned by the connection.

/// Microseconds in a second.
const SECOND_US: u64 = 1_000_000;
/// A burst may be so many times what a second allows.
const BURST_SECONDS: u64 = 2;

/// Requests refused in a row for their rate at which a channel leaves with `rate_exceeded`.
const TOO_FAST_MAX: u32 = 100;

/// The tokens of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TokenBucket {
    /// Requests left, in microseconds' worth.
    left_us: u64,
    at_us: u64,
    /// Requests refused in a row.
    refused: u32,
}

/// What happens to the next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// It may be handled.
    Fine,
    /// It is refused.
    TooFast,
    /// It is refused, and was one too many.
    FarTooFast,
}

impl TokenBucket {
    /// Takes one request off, with `rate` requests a second.
    pub(super) fn take(&mut self, rate: usize, now_us: u64) -> Pace {
        let price_us = SECOND_US / (rate as u64).max(1);
        let most_us = SECOND_US * BURST_SECONDS;
        let gained_us = if self.at_us == 0 { most_us } else { now_us.saturating_sub(self.at_us) };
        self.at_us = now_us;
        self.left_us = (self.left_us + gained_us).min(most_us);
        if self.left_us >= price_us {
            self.left_us -= price_us;
            self.refused = 0;
            return Pace::Fine;
        }
        self.refused += 1;
        if self.refused >= TOO_FAST_MAX { Pace::FarTooFast } else { Pace::TooFast }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_borne_and_then_only_the_rate() {
        let mut token_bucket = TokenBucket::default();
        let start_us = 5 * SECOND_US;
        for _ in 0..20 {
            assert_eq!(token_bucket.take(10, start_us), Pace::Fine);
        }
        assert_eq!(token_bucket.take(10, start_us), Pace::TooFast);
        assert_eq!(token_bucket.take(10, start_us + SECOND_US / 10), Pace::Fine);
        assert_eq!(token_bucket.take(10, start_us + SECOND_US / 10), Pace::TooFast);
    }

    #[test]
    fn who_never_slows_down_has_to_go() {
        let mut token_bucket = TokenBucket::default();
        let last = (0..2 + TOO_FAST_MAX).map(|_| token_bucket.take(1, SECOND_US)).last();
        assert_eq!(last, Some(Pace::FarTooFast));
    }
}
