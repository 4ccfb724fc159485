//! What the log says of channels that leave without a login: a line each, up to a bound, then counts.
//!
//! Owned by one worker. Anybody can connect again and again, so the lines must not grow with the connections.

use crate::channel::Reason;

/// Lines that a worker writes in one window. Past it they are only counted, and written at level debug.
const LINES_MAX: u32 = 200;
/// How long a window is, in microseconds (10 s).
const LOG_WINDOW_US: u64 = 10_000_000;

/// What was logged in this window.
#[derive(Debug)]
pub(super) struct CloseLog {
    began_us: u64,
    lines: u32,
    /// Channels that got no line, by reason.
    suppressed: [u64; Reason::ALL.len()],
}

impl CloseLog {
    pub(super) fn new(now_us: u64) -> Self {
        CloseLog { began_us: now_us, lines: 0, suppressed: [0; Reason::ALL.len()] }
    }

    /// A channel has left. True when it may have a line of its own.
    pub(super) fn note(&mut self, reason: Reason, now_us: u64) -> bool {
        if self.suppressed() == 0 && now_us >= self.began_us + LOG_WINDOW_US {
            self.begin(now_us);
        }
        if self.lines < LINES_MAX {
            self.lines += 1;
            return true;
        }
        self.suppressed[reason as usize] += 1;
        false
    }

    /// How many channels got no line, by reason, once their window is over; then a new window begins.
    pub(super) fn take_suppressed(&mut self, now_us: u64) -> Vec<(Reason, u64)> {
        if self.due_us().is_none_or(|due_us| now_us < due_us) {
            return Vec::new();
        }
        let suppressed = Reason::ALL.iter().map(|&reason| (reason, self.suppressed[reason as usize]));
        let suppressed = suppressed.filter(|(_, count)| *count > 0).collect();
        self.begin(now_us);
        suppressed
    }

    /// When there will be something to take.
    pub(super) fn due_us(&self) -> Option<u64> {
        (self.suppressed() > 0).then_some(self.began_us + LOG_WINDOW_US)
    }

    fn suppressed(&self) -> u64 {
        self.suppressed.iter().sum()
    }

    fn begin(&mut self, now_us: u64) {
        *self = CloseLog::new(now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_get_a_line_each_and_a_flood_is_counted_by_reason() {
        let mut close_log = CloseLog::new(0);
        for _ in 0..LINES_MAX {
            assert!(close_log.note(Reason::PeerClosed, 1));
        }
        assert_eq!(close_log.due_us(), None);
        assert!(!close_log.note(Reason::PeerClosed, 2));
        assert!(!close_log.note(Reason::IpLimit, 2));
        assert!(!close_log.note(Reason::IpLimit, LOG_WINDOW_US), "what is unsaid is said first");
        assert_eq!(close_log.due_us(), Some(LOG_WINDOW_US));
        assert_eq!(close_log.take_suppressed(LOG_WINDOW_US - 1), []);
        let suppressed = [(Reason::PeerClosed, 1), (Reason::IpLimit, 2)];
        assert_eq!(close_log.take_suppressed(LOG_WINDOW_US), suppressed);
        assert_eq!(close_log.take_suppressed(2 * LOG_WINDOW_US), [], "once");
        assert!(close_log.note(Reason::PeerClosed, LOG_WINDOW_US));
    }

    #[test]
    fn a_new_window_has_room_again() {
        let mut close_log = CloseLog::new(0);
        for _ in 0..LINES_MAX {
            close_log.note(Reason::PeerClosed, 0);
        }
        assert!(close_log.note(Reason::PeerClosed, LOG_WINDOW_US));
        assert_eq!(close_log.due_us(), None);
    }
}
