//! The clients that a storm loses: they are online, are lost at once, and are watched until the server has freed them.
//!
//! Runs in a thread of its own, so that the steady load does not wait while this process closes ten thousand sockets. It
//! asks the server rarely enough that the questions are no load.

use std::time::{Duration, Instant};

use super::super::client_pool::{ClientPool, CloseMode};
use super::super::error::StressError;
use super::super::probe::Probe;
use super::super::steady_load::phase::Timeline;

/// How long to wait until all are offline.
const OFFLINE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

/// How long to wait after the grace until their fds are closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// The pause between two looks into the database.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The pause between two questions to the server.
const ASK_EVERY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });

/// The clients that will be lost.
pub(super) struct LostClients<'a> {
    pub(super) pool: &'a mut ClientPool,
    pub(super) ids: &'a [i64],
    pub(super) close_modes: Vec<CloseMode>,
    /// How long to wait before, in seconds.
    pub(super) seconds: u64,
    pub(super) probe: Probe,
    pub(super) timeline: &'a Timeline,
}

/// Times of the loss, from the first close on; `None` where it did not end.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) within: Duration,
    pub(super) offline: Option<Duration>,
    pub(super) closed: Option<Duration>,
}

impl LostClients<'_> {
    pub(super) fn run(mut self) -> Result<Loss, StressError> {
        let lost = self.lose();
        // Also after an error, so that the steady load ends.
        self.timeline.offline.get_or_init(Instant::now);
        self.timeline.over.get_or_init(Instant::now);
        lost
    }

    fn lose(&mut self) -> Result<Loss, StressError> {
        // Before the storm: the server counts its fds for an answer.
        let (closed_before, grace) = (self.probe.closed()?, self.probe.grace()?);
        std::thread::sleep(Duration::from_secs(self.seconds));
        let began = *self.timeline.lost.get_or_init(Instant::now);
        for (who, way) in self.close_modes.iter().enumerate() {
            self.pool.close(who, *way);
        }
        let within = began.elapsed();

        let mut seen = 0;
        let offline = self.until(began, OFFLINE_WITHIN, LOOK_EVERY, |probe, ids| {
            seen += probe.offline_from_first(&ids[seen..])?;
            Ok(seen == ids.len())
        })?;
        self.timeline.offline.get_or_init(Instant::now);
        // Visitors are closed as well, and were before the storm, so this may be early by some.
        let closed = self.until(began, grace + CLOSED_WITHIN, ASK_EVERY, |probe, ids| {
            Ok(probe.closed()? >= closed_before + ids.len() as u64)
        })?;
        Ok(Loss { within, offline, closed })
    }

    /// Asks until the condition holds, and serves the pool meanwhile, so that half-closed clients see their end.
    fn until(
        &mut self,
        began: Instant,
        within: Duration,
        every: Duration,
        mut is_so: impl FnMut(&Probe, &[i64]) -> Result<bool, StressError>,
    ) -> Result<Option<Duration>, StressError> {
        loop {
            if is_so(&self.probe, self.ids)? {
                return Ok(Some(began.elapsed()));
            }
            if began.elapsed() > within {
                return Ok(None);
            }
            let next = Instant::now() + every;
            while Instant::now() < next {
                self.pool.turn(next.saturating_duration_since(Instant::now()), &mut Vec::new())?;
            }
        }
    }
}
