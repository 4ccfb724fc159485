//! The moment up to which a worker has read everything: what any client had sent by then has been read.
//!
//! Owned by one worker. Time limits are judged as of that moment and not as of now. Now may be long after the last
//! read, as when the process was stopped for a while or the machine slept: then no client that sent in time is closed
//! for being late.

use crate::net::poller::TOLD_MIN;

/// How far a worker has read.
#[derive(Debug, Default)]
pub(super) struct InputHorizon {
    heard_us: u64,
    /// Waits that did not report all, since the last time that everything was read.
    waits: usize,
    /// Before the first of them.
    began_us: u64,
}

impl InputHorizon {
    /// A wait that began at `before_us` is over, and what it reported is read. `places` is the most that can be ready.
    /// Returns the moment up to which everything is read.
    pub(super) fn waited(&mut self, before_us: u64, told_all: bool, places: usize) -> u64 {
        if told_all {
            (self.heard_us, self.waits) = (before_us, 0);
            return self.heard_us;
        }
        if self.waits == 0 {
            self.began_us = before_us;
        }
        self.waits += 1;
        // The poller takes the ready ones in turn, so that even under endless load all have been read after so many
        // waits.
        if self.waits > places / TOLD_MIN + 1 {
            (self.heard_us, self.waits) = (self.began_us, 0);
        }
        self.heard_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_had_spoken_before_a_wait_that_tells_all_has_been_heard() {
        let mut horizon = InputHorizon::default();
        assert_eq!(horizon.waited(7, true, 10), 7);
        assert_eq!(horizon.waited(90, true, 10), 90);
    }

    #[test]
    fn an_interrupted_wait_has_heard_nobody() {
        let mut horizon = InputHorizon::default();
        horizon.waited(7, true, 10);
        assert_eq!(horizon.waited(90, false, 10), 7);
        assert_eq!(horizon.waited(95, true, 10), 95);
    }

    #[test]
    fn when_waits_never_tell_all_everybody_has_been_heard_after_enough_of_them() {
        let mut horizon = InputHorizon::default();
        let heard: Vec<u64> = (1..=8).map(|at| horizon.waited(at, false, 2 * TOLD_MIN)).collect();
        assert_eq!(heard, [0, 0, 0, 1, 1, 1, 1, 5]);
    }
}
