//! How far a scenario is: a bar on a terminal, else a short line at the end of each phase, or nothing.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar is drawn at most.
const REDRAW: Duration = Duration::from_millis(100);

/// Tells how far a scenario is.
#[derive(Debug)]
pub(super) struct Progress {
    mode: Mode,
    phase: &'static str,
    total: u64,
    since: Instant,
    drawn: Instant,
    bar: ProgressBar,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Bar,
    Lines,
    Silent,
}

impl Progress {
    /// Bars where stderr is a terminal, else lines on stdout; nothing where `silent`.
    pub(super) fn new(silent: bool) -> Self {
        let mode = match silent {
            true => Mode::Silent,
            false if std::io::stderr().is_terminal() => Mode::Bar,
            false => Mode::Lines,
        };
        let now = Instant::now();
        Self { mode, phase: "", total: 0, since: now, drawn: now, bar: ProgressBar::hidden() }
    }

    /// Begins a phase that is done at `total`.
    pub(super) fn phase(&mut self, phase: &'static str, total: u64) {
        (self.phase, self.total, self.since) = (phase, total, Instant::now());
        if self.mode == Mode::Bar {
            let style = ProgressStyle::with_template("{msg:>16} {wide_bar} {pos}/{len} {elapsed}");
            self.bar = ProgressBar::new(total).with_message(phase);
            if let Ok(style) = style {
                self.bar.set_style(style);
            }
        }
    }

    /// Now at `done`.
    pub(super) fn set(&mut self, done: u64) {
        if self.mode == Mode::Bar && self.drawn.elapsed() >= REDRAW {
            self.drawn = Instant::now();
            self.bar.set_position(done);
        }
    }

    /// Ends the phase.
    pub(super) fn done(&mut self) {
        match self.mode {
            Mode::Bar => self.bar.finish_and_clear(),
            Mode::Lines => {
                let took = self.since.elapsed().as_secs_f64();
                // Whoever closed stdout does not want to know.
                let _ = writeln!(std::io::stdout(), "  {}: {} in {took:.2} s", self.phase, self.total);
            }
            Mode::Silent => {}
        }
    }
}
