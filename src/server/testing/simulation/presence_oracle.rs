//! Who was online when, as the committed rows say, and whether what watchers are told of it (cap `presence`) is so.

use crate::ids::{Epoch, UserId};
use crate::store::UserRow;
use crate::testing::fixtures::PRESENCE_DELAY_US;
use std::collections::BTreeMap;

/// How late main may look at a friend who has gone, in microseconds.
const LATE_US: u64 = 500_000;

/// One session, from its commit to that of its end, with those behind it that came and went in one batch: no row shows
/// them, and nobody is told that they came.
#[derive(Debug)]
struct Stay {
    epoch: Epoch,
    from_us: u64,
    to_us: Option<u64>,
    /// The epoch of the last of them, and when its end was committed.
    last: Epoch,
    last_us: u64,
    /// True exactly when no row shows the first either: it was the user's first, and came and went in one batch.
    is_hidden: bool,
}

/// What a connection was told of a friend last.
#[derive(Clone, Copy, Debug)]
enum LastTold {
    /// By the answer to a login that was asked for then.
    AtLogin { online: bool, asked_us: u64 },
    /// By an event.
    Since { online: bool, epoch: Epoch },
}

/// What one session was told of all friends whom its login answer has named.
#[derive(Debug, Default)]
pub(super) struct View(BTreeMap<UserId, LastTold>);

/// The sessions of all users.
#[derive(Debug, Default)]
pub(super) struct PresenceOracle(BTreeMap<UserId, Vec<Stay>>);

impl View {
    /// A login that was asked for then is answered with these friends.
    pub(super) fn at_login(friends: &[(UserId, bool)], asked_us: u64) -> Self {
        let told = |(user, online): &(UserId, bool)| (*user, LastTold::AtLogin { online: *online, asked_us });
        View(friends.iter().map(told).collect())
    }
}

impl PresenceOracle {
    /// A user's row after a commit, and the session that began last.
    pub(super) fn note(&mut self, row: &UserRow, latest: Option<Epoch>, now_us: u64) {
        let stays = self.0.entry(row.id).or_default();
        let stay = |epoch| Stay {
            epoch,
            from_us: now_us,
            to_us: None,
            last: epoch,
            last_us: now_us,
            is_hidden: false,
        };
        if let Some(present) = stays.last_mut().filter(|stay| stay.to_us.is_none()) {
            if row.online && present.epoch == row.epoch {
                return;
            }
            (present.to_us, present.last_us) = (Some(now_us), now_us);
            if !row.online {
                // It may have gone on in a later epoch before it ended.
                present.last = row.epoch;
            }
        }
        if row.online {
            return stays.push(stay(row.epoch));
        }
        let Some(latest) = latest else { return };
        match stays.last_mut() {
            None => stays.push(Stay { to_us: Some(now_us), is_hidden: true, ..stay(latest) }),
            Some(before) if before.last < latest => (before.last, before.last_us) = (latest, now_us),
            Some(_) => {}
        }
    }

    /// A connection is told that a friend came or went.
    pub(super) fn tell(&self, view: &mut View, of: UserId, online: bool, epoch: Epoch, now_us: u64) {
        let word = if online { "online" } else { "offline" };
        let stays = self.0.get(&of).map_or(&[][..], Vec::as_slice);
        // What came and went in one batch is told as the end of the session before it.
        let fits = |stay: &Stay| {
            if online {
                stay.epoch == epoch && !stay.is_hidden
            } else {
                stay.epoch <= epoch && epoch <= stay.last
            }
        };
        let at = stays.iter().rposition(fits);
        let Some(at) = at else { panic!("{of} is told to be {word} in {epoch:?}, which never was") };
        // Whoever was added as a friend just now is told of as it is.
        let Some(before) = view.0.insert(of, LastTold::Since { online, epoch }) else { return };
        if !online {
            assert!(self.is_away_after(of, at, now_us), "{of} is told to be offline and was back at once");
        }
        let was_away = |since: &dyn Fn(usize) -> bool| {
            (0..at).any(|earlier| since(earlier) && self.is_away_after(of, earlier, now_us))
        };
        match before {
            LastTold::Since { epoch: before, .. } if epoch < before => {
                panic!("what is told of {of} is not told in order");
            }
            LastTold::Since { online: before, epoch: of_old } if before == online => {
                assert!(stays[at].epoch > of_old, "{of} is told to be {word} again");
                let since = |earlier: usize| stays[earlier].epoch >= of_old;
                assert!(!online || was_away(&since), "{of} is told to be {word} again");
            }
            LastTold::AtLogin { online: true, asked_us } if online => {
                let since = |earlier: usize| stays[earlier + 1].from_us > asked_us;
                assert!(was_away(&since), "{of} is told to be {word} again");
            }
            LastTold::AtLogin { online: false, asked_us } if !online => {
                let is_new = stays[at].to_us.is_some_and(|to_us| to_us > asked_us);
                assert!(is_new && !stays[at].is_hidden, "{of} is told to be {word} again");
            }
            LastTold::AtLogin { online: true, asked_us } => {
                let was_here = stays[at].last_us >= asked_us;
                assert!(was_here, "{of} had gone when a login answer said online");
            }
            _ => {}
        }
    }

    /// True exactly when nobody came for long after the end of that stay. Before and after a hidden one the user was away.
    fn is_away_after(&self, user: UserId, stay: usize, now_us: u64) -> bool {
        let stays = &self.0[&user];
        if stays[stay].is_hidden {
            return true;
        }
        let until_us = stays.get(stay + 1).map_or(now_us, |next| next.from_us);
        stays[stay].to_us.is_some_and(|to_us| until_us >= to_us + PRESENCE_DELAY_US)
    }

    /// Everybody rests, and a connection takes what it is told: it knows what there is to know.
    pub(super) fn is_traced(&self, view: &View, watcher: UserId, now_us: u64) {
        for (user, last) in view.0.iter().filter(|(user, _)| **user != watcher) {
            let (LastTold::AtLogin { online: told, .. } | LastTold::Since { online: told, .. }) = *last;
            match self.0.get(user).and_then(|stays| stays.last()) {
                None => assert!(!told, "{watcher} was told that {user} came, who never did"),
                Some(Stay { to_us: None, .. }) => assert!(told, "{watcher} was never told that {user} came"),
                Some(Stay { to_us: Some(to_us), last_us, .. }) => {
                    // A login answer may name a session that comes and goes in the batch of the answer.
                    let gone_us = if matches!(last, LastTold::AtLogin { .. }) { last_us } else { to_us };
                    let is_due = now_us > gone_us + PRESENCE_DELAY_US + LATE_US;
                    assert!(!told || !is_due, "{watcher} was never told that {user} has gone");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const ANN: UserId = UserId(1);

    fn row(online: bool, epoch: i64) -> UserRow {
        UserRow { id: ANN, name: "ann".into(), password: None, epoch: Epoch(epoch), online }
    }

    /// Ann's first session was the third epoch, and came and went in the batch that was committed then.
    fn came_and_went(at_us: u64) -> PresenceOracle {
        let mut presence = PresenceOracle::default();
        presence.note(&row(false, 2), None, 1);
        presence.note(&row(false, 3), Some(Epoch(3)), at_us);
        presence
    }

    fn holds(check: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(check)).is_ok()
    }

    fn named(online: bool, asked_us: u64) -> View {
        View::at_login(&[(ANN, online)], asked_us)
    }

    #[test]
    fn the_end_of_a_session_that_no_row_shows_is_told_to_those_alone_who_were_told_of_it() {
        let presence = came_and_went(7);
        let may_go =
            |mut view: View, epoch: i64| holds(|| presence.tell(&mut view, ANN, false, Epoch(epoch), 9));
        assert!(may_go(View::default(), 3), "a new friend");
        assert!(may_go(named(true, 5), 3), "the answer has named a session of its own batch");
        assert!(!may_go(named(true, 8), 3), "the answer has named a session that was over");
        assert!(!may_go(named(false, 5), 3));
        let told = LastTold::Since { online: false, epoch: Epoch(3) };
        assert!(!may_go(View(BTreeMap::from([(ANN, told)])), 3));
        for epoch in [2, 4] {
            assert!(
                !may_go(View::default(), epoch) && !may_go(named(true, 5), epoch),
                "there was no {epoch}"
            );
        }
        let mut view = View::default();
        assert!(!holds(|| presence.tell(&mut view, ANN, true, Epoch(3), 9)), "nobody is told that it began");
    }

    #[test]
    fn who_was_told_of_a_session_that_no_row_shows_has_to_be_told_of_its_end() {
        let presence = came_and_went(7);
        let is_traced = |online, now_us| holds(|| presence.is_traced(&named(online, 5), UserId(2), now_us));
        let late_us = 7 + PRESENCE_DELAY_US + LATE_US;
        assert!(is_traced(true, late_us) && !is_traced(true, late_us + 1));
        assert!(is_traced(false, late_us + 1));
    }

    #[test]
    fn an_answer_that_came_long_after_it_was_asked_for_may_name_a_session_that_no_row_shows() {
        let mut presence = came_and_went(7);
        presence.note(&row(true, 4), Some(Epoch(4)), 8);
        presence.note(&row(false, 4), Some(Epoch(4)), 9);
        let late_us = 60_000_000;
        presence.note(&row(false, 5), Some(Epoch(5)), late_us);
        assert!(holds(|| presence.is_traced(&named(true, 5), UserId(2), late_us + 1)));
    }

    #[test]
    fn who_has_not_read_the_end_of_a_session_that_no_row_shows_may_be_told_of_the_next_instead() {
        let mut presence = came_and_went(7);
        presence.note(&row(true, 4), Some(Epoch(4)), 7 + PRESENCE_DELAY_US);
        assert!(holds(|| presence.tell(&mut named(true, 5), ANN, true, Epoch(4), 8 + PRESENCE_DELAY_US)));
    }

    #[test]
    fn an_end_is_told_under_the_last_session_that_came_and_went_behind_it_and_under_no_other() {
        let mut presence = came_and_went(7);
        presence.note(&row(true, 4), Some(Epoch(4)), 8);
        presence.note(&row(false, 4), Some(Epoch(4)), 9);
        // This one gives numbers to messages.
        presence.note(&row(false, 5), Some(Epoch(4)), 10);
        let away_us = 9 + PRESENCE_DELAY_US;
        let may_go = |presence: &PresenceOracle, epoch: i64| {
            let told = LastTold::Since { online: true, epoch: Epoch(4) };
            let mut view = View(BTreeMap::from([(ANN, told)]));
            holds(|| presence.tell(&mut view, ANN, false, Epoch(epoch), away_us))
        };
        assert!(may_go(&presence, 4) && !may_go(&presence, 5));
        presence.note(&row(false, 6), Some(Epoch(6)), 11);
        assert!(may_go(&presence, 6) && !may_go(&presence, 7));
    }
}
