//! Decides from a seed which client gets which fault, and when. Plain data: the scenario carries it out.

use std::time::Duration;

use crate::rng::Rng;

/// What is done to one client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fault {
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
    TwoLogins,
    /// It stops reading for a while.
    Pause,
    /// It is reset and stays away for long, so that its box fills.
    LongAway,
    /// Its process is killed with SIGKILL.
    KillProcess,
}

impl Fault {
    /// The word in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Close => "close",
            Self::HalfClose => "half_close",
            Self::Kick => "kick",
            Self::TakeOver => "takeover",
            Self::TwoLogins => "rivals",
            Self::Pause => "pause",
            Self::LongAway => "long_away",
            Self::KillProcess => "sigkill",
        }
    }
}

/// The faults of a client. A fault that is listed several times is chosen more often.
const CLIENT_FAULTS: [Fault; 14] = [
    Fault::Reset,
    Fault::Reset,
    Fault::Reset,
    Fault::Close,
    Fault::Close,
    Fault::HalfClose,
    Fault::Kick,
    Fault::Kick,
    Fault::Kick,
    Fault::TakeOver,
    Fault::TakeOver,
    Fault::TwoLogins,
    Fault::Pause,
    Fault::LongAway,
];

/// The same for a receiver in a process of its own.
const PROCESS_FAULTS: [Fault; 3] = [Fault::KillProcess, Fault::KillProcess, Fault::Kick];

/// One in so many faults is for a sender.
const SENDERS_SHARE: usize = 3;

/// The clients that can get faults.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets {
    pub(super) senders: usize,
    pub(super) receivers: usize,
    /// Of the receivers, the last so many are processes.
    pub(super) processes: usize,
}

/// Chooses the faults. Times count from the start.
#[derive(Debug)]
pub(super) struct FaultInjector {
    rng: Rng,
    pause_ms: usize,
    next_at: Duration,
    server_kill_ms: usize,
    next_server_kill_at: Duration,
}

impl FaultInjector {
    /// A fault every `pause_ms` on the average, and a kill of the server every `server_kill_ms`.
    pub(super) fn new(seed: u64, pause_ms: usize, server_kill_ms: usize) -> Self {
        let (next_at, next_server_kill_at) = (Duration::ZERO, Duration::ZERO);
        let mut injector = Self { rng: Rng(seed), pause_ms, next_at, server_kill_ms, next_server_kill_at };
        injector.next_at = injector.after(Duration::ZERO, pause_ms);
        injector.next_server_kill_at = injector.after(Duration::ZERO, server_kill_ms);
        injector
    }

    /// The fault that is due, with the number of the client: senders first, then receivers.
    pub(super) fn next_fault(&mut self, now: Duration, targets: Targets) -> Option<(usize, Fault)> {
        if now < self.next_at {
            return None;
        }
        // At most one fault is overdue, so that a slow machine does not get several at once.
        self.next_at = self.after(now, self.pause_ms);
        let Targets { senders, receivers, processes } = targets;
        if self.rng.below(SENDERS_SHARE) == 0 {
            return Some((self.rng.below(senders), CLIENT_FAULTS[self.rng.below(CLIENT_FAULTS.len())]));
        }
        let receiver = self.rng.below(receivers);
        let faults = if receiver >= receivers - processes { &PROCESS_FAULTS[..] } else { &CLIENT_FAULTS };
        Some((senders + receiver, faults[self.rng.below(faults.len())]))
    }

    /// Whether to kill the server now.
    pub(super) fn server_kill_is_due(&mut self, now: Duration) -> bool {
        let kills = now >= self.next_server_kill_at;
        if kills {
            self.next_server_kill_at = self.after(now, self.server_kill_ms);
        }
        kills
    }

    /// A pause up to so long.
    pub(super) fn pause(&mut self, up_to_ms: usize) -> Duration {
        Duration::from_millis(self.rng.below(up_to_ms + 1) as u64)
    }

    /// One in so many.
    pub(super) fn one_in(&mut self, many: usize) -> bool {
        self.rng.below(many) == 0
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

    fn faults(seed: u64) -> Vec<(usize, Fault)> {
        let mut injector = FaultInjector::new(seed, 10, 1000);
        (0..20_000).filter_map(|ms| injector.next_fault(Duration::from_millis(ms), TARGETS)).collect()
    }

    #[test]
    fn a_seed_repeats_its_faults_and_every_client_gets_every_fault_that_fits() {
        let first = faults(7);
        assert_eq!(first, faults(7));
        assert_ne!(first, faults(8));
        assert!((1500..2500).contains(&first.len()), "{}", first.len());
        for who in 0..7 {
            let fits = |fault: Fault| {
                if who == 6 { PROCESS_FAULTS.contains(&fault) } else { CLIENT_FAULTS.contains(&fault) }
            };
            let mut of_this: Vec<_> =
                first.iter().filter(|(end_is_expected, _)| *end_is_expected == who).collect();
            assert!(of_this.iter().all(|(_, fault)| fits(*fault)), "{who}");
            of_this.sort_unstable();
            of_this.dedup();
            assert_eq!(of_this.len(), if who == 6 { 2 } else { 8 }, "{who}");
        }
    }

    #[test]
    fn the_server_is_killed_about_as_often_as_asked_for() {
        let mut injector = FaultInjector::new(1, 10, 1000);
        let kills = (0..100_000).filter(|ms| injector.server_kill_is_due(Duration::from_millis(*ms))).count();
        assert!((70..140).contains(&kills), "{kills}");
    }
}
