//! What a scenario found: figures, latencies, and the verdict. Printed as a table for people or as one JSON document.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::error::Failure;

/// Digits that a latency keeps.
const PRECISION: u8 = 3;

/// Latencies above one hour, in microseconds, count as one hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// What was judged: good exactly when nothing failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Everything that the server did wrong.
    pub failures: Vec<Failure>,
}

impl Verdict {
    /// True exactly when nothing failed.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    /// All failures in one line; `None` for a good verdict.
    pub fn reason(&self) -> Option<String> {
        let told: Vec<_> = self.failures.iter().map(Failure::to_string).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// Latencies, in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_max(MAX_LATENCY_US, PRECISION);
        Self(histogram.expect("an hour and three digits are within what a histogram can keep"))
    }

    pub(super) fn record(&mut self, took: Duration) {
        self.record_us(took.as_micros() as u64);
    }

    /// What 99 of 100 stay within, in microseconds; `None` where nothing was measured.
    pub(super) fn p99_us(&self) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(0.99))
    }

    /// The longest, in microseconds; `None` where nothing was measured.
    pub(super) fn max_us(&self) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.max())
    }

    pub(super) fn record_us(&mut self, us: u64) {
        self.0.saturating_record(us);
    }
}

/// Figures in the order in which they were found, and what failed.
#[derive(Debug)]
pub(super) struct Report {
    scenario: &'static str,
    figures: Vec<(String, Figure)>,
    details: Vec<String>,
    pub(super) failures: Vec<Failure>,
}

#[derive(Debug)]
enum Figure {
    Count(u64),
    Rate(f64),
    Took(Option<Duration>),
    Latencies(Latencies),
    Counts(Vec<(String, u64)>),
}

impl Report {
    pub(super) fn new(scenario: &'static str) -> Self {
        Self { scenario, figures: Vec::new(), details: Vec::new(), failures: Vec::new() }
    }

    pub(super) fn count(&mut self, key: impl Into<String>, count: u64) {
        self.figures.push((key.into(), Figure::Count(count)));
    }

    /// How many a second.
    pub(super) fn rate(&mut self, key: impl Into<String>, count: u64, over: Duration) {
        self.figures
            .push((key.into(), Figure::Rate(count as f64 / over.as_secs_f64().max(f64::MIN_POSITIVE))));
    }

    /// How long it took; `None` where the end never came.
    pub(super) fn took(&mut self, key: impl Into<String>, took: Option<Duration>) {
        self.figures.push((key.into(), Figure::Took(took)));
    }

    pub(super) fn latencies(&mut self, key: impl Into<String>, latencies: Latencies) {
        self.figures.push((key.into(), Figure::Latencies(latencies)));
    }

    pub(super) fn counts(&mut self, key: impl Into<String>, counts: impl IntoIterator<Item = (String, u64)>) {
        self.figures.push((key.into(), Figure::Counts(counts.into_iter().collect())));
    }

    /// How something came about; told before what failed.
    pub(super) fn detail(&mut self, detail: String) {
        self.details.push(detail);
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failures.push(failure);
    }

    pub(super) fn into_verdict(self) -> Verdict {
        Verdict { failures: self.failures }
    }

    /// One document: units end the keys.
    pub(super) fn json(&self) -> Value {
        let figures: Map<String, Value> = self.figures.iter().map(|(key, figure)| figure.json(key)).collect();
        json!({
            "scenario": self.scenario,
            "good": self.failures.is_empty(),
            "failures": self.failures.iter().map(Failure::to_string).collect::<Vec<_>>(),
            "figures": figures,
        })
    }

    /// A table, with the verdict as its last lines.
    pub(super) fn table(&self) -> String {
        let label = |key: &str| key.replace('_', " ");
        let width = self.figures.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        let mut table = String::new();
        for (key, figure) in &self.figures {
            let _ = writeln!(table, "  {:width$}  {}", label(key), figure.text());
        }
        for detail in &self.details {
            let _ = writeln!(table, "  {detail}");
        }
        for failure in &self.failures {
            let _ = writeln!(table, "  FAILED: {failure}");
        }
        let verdict = if self.failures.is_empty() { "good" } else { "bad" };
        let _ = writeln!(table, "{}: {verdict}", self.scenario);
        table
    }
}

impl Figure {
    fn json(&self, key: &str) -> (String, Value) {
        match self {
            Self::Count(count) => (key.to_owned(), json!(count)),
            Self::Rate(rate) => (format!("{key}_per_s"), json!(rate.round())),
            Self::Took(took) => (format!("{key}_ms"), json!(took.map(|took| took.as_micros() as f64 / 1e3))),
            Self::Latencies(latencies) => (format!("{key}_us"), latencies.json()),
            Self::Counts(counts) => {
                (key.to_owned(), counts.iter().map(|(name, n)| (name.clone(), json!(n))).collect())
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Rate(rate) => format!("{rate:.0} /s"),
            Self::Took(None) => "never".to_owned(),
            Self::Took(Some(took)) => format!("{:.1} ms", took.as_micros() as f64 / 1e3),
            Self::Latencies(latencies) => latencies.text(),
            Self::Counts(counts) if counts.is_empty() => "none".to_owned(),
            Self::Counts(counts) => {
                counts.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

impl Latencies {
    fn json(&self) -> Value {
        let at = |quantile| self.0.value_at_quantile(quantile);
        json!({"count": self.0.len(), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": self.0.max()})
    }

    fn text(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let ms = |us: u64| us as f64 / 1e3;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), ms(self.0.max()));
        format!("p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut report = Report::new("vanish");
        report.count("clients", 3);
        report.rate("logins", 10, Duration::from_secs(2));
        report.took("gone_from_who", Some(Duration::from_micros(1500)));
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        report.latencies("goodbye", latencies);
        report.counts("reasons", [("peer_closed".to_owned(), 3)]);
        report
    }

    #[test]
    fn the_document_names_units_and_percentiles() {
        let mut report = sample();
        report.took("never_came", None);
        let figures = &report.json()["figures"];
        assert_eq!(figures["clients"], 3);
        assert_eq!(figures["logins_per_s"], 5.0);
        assert_eq!(figures["gone_from_who_ms"], 1.5);
        assert_eq!(figures["never_came_ms"], Value::Null);
        assert_eq!(figures["reasons"]["peer_closed"], 3);
        let p50 = figures["goodbye_us"]["p50"].as_u64().unwrap();
        assert!((499_000..=501_000).contains(&p50), "{p50}");
        assert_eq!(figures["goodbye_us"]["count"], 1000);
    }

    #[test]
    fn one_failure_makes_the_verdict_bad_and_shows_everywhere() {
        let good = sample();
        assert!(good.table().ends_with("vanish: good\n"));
        assert_eq!(good.json()["good"], true);
        assert_eq!(good.into_verdict().reason(), None);

        let mut bad = sample();
        bad.fail(Failure::FdsLeaked(7));
        bad.detail("it began on a Monday".to_owned());
        assert!(bad.table().contains("  it began on a Monday\n  FAILED: "));
        assert!(bad.table().contains("FAILED: 7 fds leaked"));
        assert!(bad.table().ends_with("vanish: bad\n"));
        assert_eq!(bad.json()["failures"][0], "7 fds leaked");
        assert_eq!(bad.into_verdict().reason().as_deref(), Some("7 fds leaked"));
    }
}
