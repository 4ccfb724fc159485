//! How long the stages of an end take, so that an operator can watch the offline queue.
//!
//! Main owns the histograms, and copies their percentiles out for `linger stats`. The watchdog has a thread of
//! its own, because it watches main.

use hdrhistogram::Histogram;

/// Significant digits of the histograms.
const DIGITS: u8 = 3;
/// Age of the oldest departure in the queue at which the watchdog raises an alert, in microseconds (1 s).
pub const TOO_OLD_US: u64 = 1_000_000;

/// Times from noticed to each stage, in microseconds.
#[derive(Debug)]
pub struct Stages {
    /// It was put on the queue.
    pub queued: Times,
    /// Main has taken the departure off its queue.
    pub drained: Times,
    /// The user's state is committed.
    pub committed: Times,
    /// The fd is closed.
    pub closed: Times,
    /// Departures in one transaction.
    pub transaction: Times,
    /// Departures that main has taken off its queue.
    taken: u64,
    /// Those of the transaction under way.
    in_turn: u64,
}

/// One histogram. Nothing is counted where it could not be made.
#[derive(Debug)]
pub struct Times(Option<Histogram<u64>>);

impl Default for Stages {
    fn default() -> Self {
        Stages {
            queued: Times::new(),
            drained: Times::new(),
            committed: Times::new(),
            closed: Times::new(),
            transaction: Times::new(),
            taken: 0,
            in_turn: 0,
        }
    }
}

impl Times {
    fn new() -> Self {
        Times(Histogram::new(DIGITS).ok())
    }

    /// Counts one value.
    pub fn note(&mut self, value: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(value);
        }
    }

    fn at(&self, quantile: f64) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }

    fn max(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::max)
    }
}

impl Stages {
    /// Main has taken a departure off its queue.
    pub fn note_departure(&mut self, noticed_us: u64, queued_us: u64, now_us: u64) {
        self.taken += 1;
        self.in_turn += 1;
        self.queued.note(queued_us.saturating_sub(noticed_us));
        self.drained.note(now_us.saturating_sub(noticed_us));
    }

    /// The events of a turn are taken.
    pub fn end_turn(&mut self) {
        if self.in_turn > 0 {
            self.transaction.note(std::mem::take(&mut self.in_turn));
        }
    }

    /// How many departures main has taken off its queue.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Percentiles by name, for `linger stats`.
    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("queued_us_p50", self.queued.at(0.5)),
            ("queued_us_p99", self.queued.at(0.99)),
            ("queued_us_max", self.queued.max()),
            ("drained_us_p50", self.drained.at(0.5)),
            ("drained_us_p99", self.drained.at(0.99)),
            ("drained_us_max", self.drained.max()),
            ("committed_us_p50", self.committed.at(0.5)),
            ("committed_us_p99", self.committed.at(0.99)),
            ("committed_us_max", self.committed.max()),
            ("closed_us_p50", self.closed.at(0.5)),
            ("closed_us_p99", self.closed.at(0.99)),
            ("closed_us_max", self.closed.max()),
            ("drain_batch_p50", self.transaction.at(0.5)),
            ("drain_batch_max", self.transaction.max()),
        ]
    }
}

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

    #[test]
    fn every_stage_shows_what_was_noted() {
        let mut stages = Stages::default();
        stages.committed.note(700);
        let rows = stages.rows();
        let row = |name| rows.iter().find(|row| row.0 == name).map(|row| row.1);
        assert_eq!((row("committed_us_max"), row("closed_us_max")), (Some(700), Some(0)));
    }
}
