//! The watchdog: an alert when departures wait too long in main's queue.
//!
//! It has a thread of its own, because it watches main.

/// Age of the oldest departure in the queue at which the watchdog raises an alert, in microseconds (1 s).
pub const TOO_OLD_US: u64 = 1_000_000;

/// Raises an alert once when main falls behind, and once when it has caught up.
#[derive(Debug, Default)]
pub struct Watchdog {
    is_behind: bool,
}

/// What the watchdog has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alert {
    /// The oldest departure has waited that long, in microseconds.
    Behind(u64),
    /// Nothing is too old any more.
    CaughtUp,
}

impl Watchdog {
    /// Looks at when the oldest departure in the queue was noticed.
    pub fn look(&mut self, oldest_us: Option<u64>, now_us: u64) -> Option<Alert> {
        let age_us = oldest_us.map_or(0, |then_us| now_us.saturating_sub(then_us));
        let behind = age_us > TOO_OLD_US;
        if behind == std::mem::replace(&mut self.is_behind, behind) {
            return None;
        }
        Some(if behind { Alert::Behind(age_us) } else { Alert::CaughtUp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_raises_one_alert_for_each_time_that_main_falls_behind() {
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.look(Some(5), TOO_OLD_US), None);
        assert_eq!(watchdog.look(Some(5), TOO_OLD_US + 6), Some(Alert::Behind(TOO_OLD_US + 1)));
        assert_eq!(watchdog.look(Some(5), TOO_OLD_US + 7), None);
        assert_eq!(watchdog.look(None, TOO_OLD_US + 8), Some(Alert::CaughtUp));
        assert_eq!(watchdog.look(None, TOO_OLD_US + 9), None);
    }
}
