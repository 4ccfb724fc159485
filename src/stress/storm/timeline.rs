//! Which part of the storm a moment belongs to. Written by the crowd's thread, read by the others.

use std::sync::OnceLock;
use std::time::Instant;

/// A part of the scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The crowd is online and quiet.
    Before,
    /// From the first loss until the database calls nobody of the crowd online.
    Storm,
    /// From then on until the server has closed what the crowd has left behind.
    Release,
}

/// When each part began or ended; what is not set has not come.
#[derive(Default, Debug)]
pub(super) struct Timeline {
    pub(super) lost: OnceLock<Instant>,
    pub(super) offline: OnceLock<Instant>,
    pub(super) over: OnceLock<Instant>,
}

impl Timeline {
    pub(super) fn phase(&self, at: Instant) -> Phase {
        let is_past = |mark: &OnceLock<Instant>| mark.get().is_some_and(|mark| at >= *mark);
        match (is_past(&self.lost), is_past(&self.offline)) {
            (false, _) => Phase::Before,
            (true, false) => Phase::Storm,
            (true, true) => Phase::Release,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.get().is_some()
    }
}

impl Phase {
    pub(super) const ALL: [Phase; 3] = [Phase::Before, Phase::Storm, Phase::Release];

    /// How the report names this part's chats, chats with `seq`, their answers, logins, goodbyes and kicks.
    pub(super) fn keys(self) -> [&'static str; 6] {
        match self {
            Phase::Before => [
                "chat_before",
                "seq_chat_before",
                "seq_answer_before",
                "login_before",
                "goodbye_before",
                "kick_before",
            ],
            Phase::Storm => [
                "chat_storm",
                "seq_chat_storm",
                "seq_answer_storm",
                "login_storm",
                "goodbye_storm",
                "kick_storm",
            ],
            Phase::Release => [
                "chat_release",
                "seq_chat_release",
                "seq_answer_release",
                "login_release",
                "goodbye_release",
                "kick_release",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_belongs_to_the_part_in_which_it_was() {
        let (timeline, start) = (Timeline::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(timeline.phase(at(5)), Phase::Before);
        timeline.lost.set(at(10)).unwrap();
        assert_eq!([timeline.phase(at(9)), timeline.phase(at(50))], [Phase::Before, Phase::Storm]);
        timeline.offline.set(at(20)).unwrap();
        assert_eq!([timeline.phase(at(19)), timeline.phase(at(20))], [Phase::Storm, Phase::Release]);
        assert!(!timeline.is_over());
    }
}
