//! The phases of a scenario. The thread of its work sets them, the others read them.

use std::sync::OnceLock;
use std::time::Instant;

/// A phase of the scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Before the work.
    Baseline,
    /// During the work: clients are lost and not offline yet, or a flood runs.
    Storm,
    /// From then on until the server has done all that it left behind.
    Release,
}

/// When each phase began or ended; what is not set has not come.
#[derive(Default, Debug)]
pub(crate) struct Timeline {
    pub(crate) lost: OnceLock<Instant>,
    pub(crate) offline: OnceLock<Instant>,
    pub(crate) over: OnceLock<Instant>,
}

impl Timeline {
    pub(crate) fn phase(&self, at: Instant) -> Phase {
        let is_past = |mark: &OnceLock<Instant>| mark.get().is_some_and(|mark| at >= *mark);
        match (is_past(&self.lost), is_past(&self.offline)) {
            (false, _) => Phase::Baseline,
            (true, false) => Phase::Storm,
            (true, true) => Phase::Release,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.get().is_some()
    }
}

impl Phase {
    pub(crate) const ALL: [Phase; 3] = [Phase::Baseline, Phase::Storm, Phase::Release];
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_belongs_to_the_part_in_which_it_was() {
        let (timeline, start) = (Timeline::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(timeline.phase(at(5)), Phase::Baseline);
        timeline.lost.set(at(10)).unwrap();
        assert_eq!([timeline.phase(at(9)), timeline.phase(at(50))], [Phase::Baseline, Phase::Storm]);
        timeline.offline.set(at(20)).unwrap();
        assert_eq!([timeline.phase(at(19)), timeline.phase(at(20))], [Phase::Storm, Phase::Release]);
        assert!(!timeline.is_over());
    }
}
