//! The hand that interferes: whom it strikes, how, and when. By a seed; it touches nothing itself.

use std::time::Duration;

use crate::seed::Seed;

/// What is done to one client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Blow {
    /// Its connection is reset.
    Reset,
    /// Its connection is closed.
    Close,
    /// It ends its own side and waits for the server's.
    HalfClose,
    /// It is kicked over the control socket.
    Kick,
    /// It logs in a second time.
    TakeOver,
    /// It is reset, and comes back with two logins at once.
    Rivals,
    /// It stops reading for a while.
    Pause,
    /// It is reset and stays away for long, so that its box fills.
    LongAway,
    /// Its process is killed with SIGKILL.
    KillProcess,
}

impl Blow {
    /// The word in the report.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Close => "close",
            Self::HalfClose => "half_close",
            Self::Kick => "kick",
            Self::TakeOver => "takeover",
            Self::Rivals => "rivals",
            Self::Pause => "pause",
            Self::LongAway => "long_away",
            Self::KillProcess => "sigkill",
        }
    }
}

/// What a client may be struck with; more often what stands there more often.
const BLOWS: [Blow; 14] = [
    Blow::Reset,
    Blow::Reset,
    Blow::Reset,
    Blow::Close,
    Blow::Close,
    Blow::HalfClose,
    Blow::Kick,
    Blow::Kick,
    Blow::Kick,
    Blow::TakeOver,
    Blow::TakeOver,
    Blow::Rivals,
    Blow::Pause,
    Blow::LongAway,
];

/// The same for a receiver in a process of its own.
const PROCESS_BLOWS: [Blow; 3] = [Blow::KillProcess, Blow::KillProcess, Blow::Kick];

/// Of so many blows one is for a sender.
const SENDERS_SHARE: usize = 3;

/// Who there is to be struck.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets {
    pub(super) senders: usize,
    pub(super) receivers: usize,
    /// Of the receivers, the last so many are processes.
    pub(super) processes: usize,
}

/// The hand. Times are those since the start.
#[derive(Debug)]
pub(super) struct Hand {
    seed: Seed,
    pause_ms: usize,
    next_at: Duration,
    server_kill_ms: usize,
    next_server_kill_at: Duration,
}

impl Hand {
    /// A hand that strikes every `pause_ms` on the average, and the server every `server_kill_ms`.
    pub(super) fn new(seed: u64, pause_ms: usize, server_kill_ms: usize) -> Self {
        let (next_at, next_server_kill_at) = (Duration::ZERO, Duration::ZERO);
        let mut hand = Self { seed: Seed(seed), pause_ms, next_at, server_kill_ms, next_server_kill_at };
        hand.next_at = hand.after(Duration::ZERO, pause_ms);
        hand.next_server_kill_at = hand.after(Duration::ZERO, server_kill_ms);
        hand
    }

    /// Whom to strike now, by number: senders first, then receivers.
    pub(super) fn strike(&mut self, now: Duration, targets: Targets) -> Option<(usize, Blow)> {
        if now < self.next_at {
            return None;
        }
        // Never behind by more than one blow: a slow machine is not struck faster than it moves.
        self.next_at = self.after(now, self.pause_ms);
        let Targets { senders, receivers, processes } = targets;
        if self.seed.below(SENDERS_SHARE) == 0 {
            return Some((self.seed.below(senders), BLOWS[self.seed.below(BLOWS.len())]));
        }
        let receiver = self.seed.below(receivers);
        let blows = if receiver >= receivers - processes { &PROCESS_BLOWS[..] } else { &BLOWS };
        Some((senders + receiver, blows[self.seed.below(blows.len())]))
    }

    /// Whether to kill the server now.
    pub(super) fn kills_server(&mut self, now: Duration) -> bool {
        let kills = now >= self.next_server_kill_at;
        if kills {
            self.next_server_kill_at = self.after(now, self.server_kill_ms);
        }
        kills
    }

    /// A pause up to so long.
    pub(super) fn pause(&mut self, up_to_ms: usize) -> Duration {
        Duration::from_millis(self.seed.below(up_to_ms + 1) as u64)
    }

    /// One in so many.
    pub(super) fn one_in(&mut self, many: usize) -> bool {
        self.seed.below(many) == 0
    }

    /// Some time after `now`, by `mean_ms` on the average.
    fn after(&mut self, now: Duration, mean_ms: usize) -> Duration {
        now + self.pause(2 * mean_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets { senders: 2, receivers: 5, processes: 1 };

    fn blows(seed: u64) -> Vec<(usize, Blow)> {
        let mut hand = Hand::new(seed, 10, 1000);
        (0..20_000).filter_map(|ms| hand.strike(Duration::from_millis(ms), TARGETS)).collect()
    }

    #[test]
    fn a_seed_repeats_its_blows_and_everybody_is_struck_with_everything_that_fits() {
        let first = blows(7);
        assert_eq!(first, blows(7));
        assert_ne!(first, blows(8));
        assert!((1500..2500).contains(&first.len()), "{}", first.len());
        for who in 0..7 {
            let fits =
                |blow: Blow| if who == 6 { PROCESS_BLOWS.contains(&blow) } else { BLOWS.contains(&blow) };
            let mut of_this: Vec<_> = first.iter().filter(|(struck, _)| *struck == who).collect();
            assert!(of_this.iter().all(|(_, blow)| fits(*blow)), "{who}");
            of_this.sort_unstable();
            of_this.dedup();
            assert_eq!(of_this.len(), if who == 6 { 2 } else { 8 }, "{who}");
        }
    }

    #[test]
    fn the_server_is_killed_about_as_often_as_asked_for() {
        let mut hand = Hand::new(1, 10, 1000);
        let kills = (0..100_000).filter(|ms| hand.kills_server(Duration::from_millis(*ms))).count();
        assert!((70..140).contains(&kills), "{kills}");
    }
}
