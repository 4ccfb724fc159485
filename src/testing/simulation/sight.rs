//! Who was online when, as the committed rows say, and whether what watchers are told of it (cap `presence`) is so.

use crate::ident::{Epoch, UserId};
use crate::service::storage::UserRow;
use crate::testing::commons::PRESENCE_DELAY_US;
use std::collections::BTreeMap;

/// How late main may look at a friend who has gone, in microseconds.
const LATE_US: u64 = 500_000;

/// How long after the request a login answer may be committed, in microseconds. At rest far more time passes.
const ANSWER_US: u64 = 2_000_000;

/// One session, from its commit to that of its end.
#[derive(Debug)]
struct Stay {
    epoch: Epoch,
    from_us: u64,
    to_us: Option<u64>,
}

/// What a connection was told of a friend last.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// By the answer to a login that was asked for then.
    AtLogin { online: bool, asked_us: u64 },
    /// By an event.
    Since { online: bool, epoch: Epoch },
}

/// What one session was told of all friends whom its login answer has named.
#[derive(Debug, Default)]
pub(super) struct View(BTreeMap<UserId, Told>);

/// Everybody's sessions.
#[derive(Debug, Default)]
pub(super) struct Sight(BTreeMap<UserId, Vec<Stay>>);

impl View {
    /// A login that was asked for then is answered with these friends.
    pub(super) fn at_login(friends: &[(UserId, bool)], asked_us: u64) -> Self {
        let told = |(user, online): &(UserId, bool)| (*user, Told::AtLogin { online: *online, asked_us });
        View(friends.iter().map(told).collect())
    }
}

impl Sight {
    /// A user's row after a commit.
    pub(super) fn note(&mut self, row: &UserRow, now_us: u64) {
        let stays = self.0.entry(row.id).or_default();
        let present = stays.last_mut().filter(|stay| stay.to_us.is_none());
        if let Some(stay) = present {
            if row.online && stay.epoch == row.epoch {
                return;
            }
            stay.to_us = Some(now_us);
        }
        if row.online {
            stays.push(Stay { epoch: row.epoch, from_us: now_us, to_us: None });
        }
    }

    /// A connection is told that a friend came or went.
    pub(super) fn tell(&self, view: &mut View, of: UserId, online: bool, epoch: Epoch, now_us: u64) {
        let word = if online { "online" } else { "offline" };
        let stays = self.0.get(&of).map_or(&[][..], Vec::as_slice);
        // A session that began and ended in one batch is told as the end of the one before it.
        let fits = |stay: &Stay| stay.epoch == epoch || !online && stay.epoch < epoch;
        let at = stays.iter().rposition(fits);
        let Some(at) = at else {
            // A first session that comes and goes in one batch is no row's stay. Somebody hears of its end who was told of
            // it in that very batch, by a login answer or as of a new friend.
            let heard = matches!(view.0.get(&of), None | Some(Told::AtLogin { online: true, .. }));
            assert!(!online && heard, "{of} is told to be {word} in {epoch:?}, which never was");
            view.0.insert(of, Told::Since { online, epoch });
            return;
        };
        // Whoever was added as a friend just now is told of as it is.
        let Some(before) = view.0.insert(of, Told::Since { online, epoch }) else { return };
        if !online {
            assert!(self.is_away_after(of, at, now_us), "{of} is told to be offline and was back at once");
        }
        let was_away = |since: &dyn Fn(usize) -> bool| {
            (0..at).any(|earlier| since(earlier) && self.is_away_after(of, earlier, now_us))
        };
        match before {
            Told::Since { epoch: before, .. } if epoch < before => {
                panic!("what is told of {of} is not told in order");
            }
            Told::Since { online: before, epoch: of_old } if before == online => {
                assert!(epoch > of_old, "{of} is told to be {word} again");
                let since = |earlier: usize| stays[earlier].epoch >= of_old;
                assert!(!online || was_away(&since), "{of} is told to be {word} again");
            }
            Told::AtLogin { online: true, asked_us } if online => {
                let since = |earlier: usize| stays[earlier + 1].from_us > asked_us;
                assert!(was_away(&since), "{of} is told to be {word} again");
            }
            Told::AtLogin { online: false, asked_us } if !online => {
                let is_new = stays[at].to_us.is_some_and(|to_us| to_us > asked_us);
                assert!(is_new, "{of} is told to be {word} again");
            }
            _ => {}
        }
    }

    /// True exactly when nobody came for long after the end of that stay.
    fn is_away_after(&self, user: UserId, stay: usize, now_us: u64) -> bool {
        let stays = &self.0[&user];
        let until_us = stays.get(stay + 1).map_or(now_us, |next| next.from_us);
        stays[stay].to_us.is_some_and(|to_us| until_us >= to_us + PRESENCE_DELAY_US)
    }

    /// Everybody rests, and a connection takes what it is told: it knows what there is to know.
    pub(super) fn is_told(&self, view: &View, watcher: UserId, now_us: u64) {
        for (user, told) in view.0.iter().filter(|(user, _)| **user != watcher) {
            // A login answer may name a session that comes and goes in the batch of the answer: it is no row's stay.
            let (told, since_us) = match *told {
                Told::AtLogin { online, asked_us } => (online, asked_us + ANSWER_US),
                Told::Since { online, .. } => (online, 0),
            };
            let latest = self.0.get(user).and_then(|stays| stays.last());
            match latest.map(|stay| stay.to_us) {
                Some(None) => assert!(told, "{watcher} was never told that {user} came"),
                Some(Some(to_us)) if now_us > to_us.max(since_us) + PRESENCE_DELAY_US + LATE_US => {
                    assert!(!told, "{watcher} was never told that {user} has gone");
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const ANN: UserId = UserId(1);

    /// Whether it may be said that somebody went who never was online at a commit.
    fn may_go(mut view: View) -> bool {
        let tell = || Sight::default().tell(&mut view, ANN, false, Epoch(3), 9);
        catch_unwind(AssertUnwindSafe(tell)).is_ok()
    }

    #[test]
    fn who_never_was_is_gone_for_those_alone_who_were_told_of_that_session() {
        assert!(may_go(View::default()), "a new friend");
        assert!(may_go(View::at_login(&[(ANN, true)], 5)), "the answer has named a session of its own batch");
        assert!(!may_go(View::at_login(&[(ANN, false)], 5)));
        let told = Told::Since { online: false, epoch: Epoch(2) };
        assert!(!may_go(View(BTreeMap::from([(ANN, told)]))));
    }
}
