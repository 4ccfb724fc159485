//! How long the stages of an end take, so that an operator can watch the offline queue.
//!
//! Main owns the histograms, and copies their percentiles out for `linger stats`.

use hdrhistogram::Histogram;

/// Significant digits of the histograms.
const DIGITS: u8 = 3;

/// Times from noticed to each stage, in microseconds.
#[derive(Debug)]
pub struct Stages {
    /// It was put on the queue.
    pub queued: LatencyHistogram,
    /// Main has taken the departure off its queue.
    pub drained: LatencyHistogram,
    /// The user's state is committed.
    pub committed: LatencyHistogram,
    /// The fd is closed.
    pub closed: LatencyHistogram,
    /// Departures in one transaction.
    pub transaction: LatencyHistogram,
    /// Departures that main has taken off its queue.
    taken: u64,
    /// Those of the transaction under way.
    in_turn: u64,
}

/// One histogram. Nothing is counted where it could not be made.
#[derive(Debug)]
pub struct LatencyHistogram(Option<Histogram<u64>>);

impl Default for Stages {
    fn default() -> Self {
        Stages {
            queued: LatencyHistogram::new(),
            drained: LatencyHistogram::new(),
            committed: LatencyHistogram::new(),
            closed: LatencyHistogram::new(),
            transaction: LatencyHistogram::new(),
            taken: 0,
            in_turn: 0,
        }
    }
}

impl LatencyHistogram {
    fn new() -> Self {
        LatencyHistogram(Histogram::new(DIGITS).ok())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_shows_what_was_noted() {
        let mut stages = Stages::default();
        stages.committed.note(700);
        let rows = stages.rows();
        let row = |name| rows.iter().find(|row| row.0 == name).map(|row| row.1);
        assert_eq!((row("committed_us_max"), row("closed_us_max")), (Some(700), Some(0)));
    }
}
