//! The crowd of a storm: it is there, it is lost, and it is looked after until nothing of it is left.
//!
//! Runs in a thread of its own, so that those who stay do not wait for ten thousand closes of this process. It asks
//! the server so little that asking does not become the load.

use std::time::{Duration, Instant};

use super::super::bystanders::timeline::Timeline;
use super::super::fault::StressError;
use super::super::fleet::{Fleet, Leave};
use super::super::view::View;

/// How long the crowd is waited for to be offline.
const OFFLINE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

/// How long, after the grace, its fds are waited for to be closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// The pause between two looks into the database.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The pause between two questions to the server.
const ASK_EVERY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });

/// Everybody who will be lost.
pub(super) struct Crowd<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) ids: &'a [i64],
    pub(super) ways: Vec<Leave>,
    /// How long it is quiet before.
    pub(super) seconds: u64,
    pub(super) view: View,
    pub(super) timeline: &'a Timeline,
}

/// How the crowd was lost. Times are from the first loss on; `None` where the end never came.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) within: Duration,
    pub(super) offline: Option<Duration>,
    pub(super) closed: Option<Duration>,
}

impl Crowd<'_> {
    pub(super) fn run(mut self) -> Result<Lost, StressError> {
        let lost = self.lose();
        // However it went: those who stay must not wait for ever.
        self.timeline.offline.get_or_init(Instant::now);
        self.timeline.over.get_or_init(Instant::now);
        lost
    }

    fn lose(&mut self) -> Result<Lost, StressError> {
        // Before the storm: the server counts its fds for an answer.
        let (closed_before, grace) = (self.view.closed()?, self.view.grace()?);
        std::thread::sleep(Duration::from_secs(self.seconds));
        let began = *self.timeline.lost.get_or_init(Instant::now);
        for (who, way) in self.ways.iter().enumerate() {
            self.fleet.leave(who, *way);
        }
        let within = began.elapsed();

        let mut seen = 0;
        let offline = self.until(began, OFFLINE_WITHIN, LOOK_EVERY, |view, ids| {
            seen += view.offline_from_first(&ids[seen..])?;
            Ok(seen == ids.len())
        })?;
        self.timeline.offline.get_or_init(Instant::now);
        // Visitors are closed as well, and were before the storm, so this may be early by some.
        let closed = self.until(began, grace + CLOSED_WITHIN, ASK_EVERY, |view, ids| {
            Ok(view.closed()? >= closed_before + ids.len() as u64)
        })?;
        Ok(Lost { within, offline, closed })
    }

    /// Looks until it is so, and lets those who closed half see their end meanwhile.
    fn until(
        &mut self,
        began: Instant,
        within: Duration,
        every: Duration,
        mut is_so: impl FnMut(&View, &[i64]) -> Result<bool, StressError>,
    ) -> Result<Option<Duration>, StressError> {
        loop {
            if is_so(&self.view, self.ids)? {
                return Ok(Some(began.elapsed()));
            }
            if began.elapsed() > within {
                return Ok(None);
            }
            let next = Instant::now() + every;
            while Instant::now() < next {
                self.fleet.turn(next.saturating_duration_since(Instant::now()), &mut Vec::new())?;
            }
        }
    }
}
