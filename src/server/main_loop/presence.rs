//! Friends who come and go (cap `presence`): who watches whom, what each watcher was told last, who is held back.
//!
//! Owned by main. Only what is committed is shown: a login or an addition when its transaction has ended well, an end when its
//! row is written. A friend is shown as one state, and a watcher is told when that is not what it was told last, by the login answer or by an event. So nothing
//! is queued for anybody: what changes twice before it is told is told once, and what changes back is not told at all.
//! Nobody is known here who has no watcher online.

use super::context::Context;
use super::session_map::SessionKey;
use super::users::UserTable;
use crate::ids::IdMap;
use crate::ids::{Epoch, UserId};
use crate::message::command::WorkerCommand;
use crate::message::presence::{Notice, PresenceBatch, PresenceEvent};
use crate::protocol::login_answer::FriendState;
use crate::store::Storage;
use crate::sync::{Arc, AtomicUsize, Ordering};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Friends of one session of whom it is told; a login answer names the others too.
pub const WATCHED_MAX: usize = 16_384;
/// Watchers who are looked at in one turn; the next turn goes on from there. Also the most events of one turn.
pub const VISITS_MAX: usize = 8192;
/// Users of whom one turn finds that they are not back.
const GONE_MAX: usize = 8192;
/// When main looks again at a user who is about to be back, in microseconds.
const AGAIN_US: u64 = 100_000;
/// When main looks again whether the workers have taken the events before, in microseconds.
const BUSY_US: u64 = 1000;

/// How a user is shown to those who watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    Online,
    /// Gone, but nobody is told before then (monotonic, in microseconds).
    Held {
        until_us: u64,
    },
    Offline,
}

#[derive(Debug)]
struct Watched {
    name: Arc<str>,
    shown: Shown,
    /// The session that this is about.
    epoch: Epoch,
    /// Who watches, and whether each was told last that the user is online.
    watchers: BTreeMap<UserId, bool>,
}

#[derive(Debug)]
struct Watcher {
    key: SessionKey,
    worker: usize,
    friends: Vec<UserId>,
}

/// All who watch and all who are watched.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    watchers: IdMap<UserId, Watcher>,
    watched: IdMap<UserId, Watched>,
    /// Those who are held back, by when that ends.
    held: BTreeSet<(u64, UserId)>,
    /// Those whose watchers have to be looked at, and from which watcher on.
    changed: BTreeMap<UserId, UserId>,
    /// Who of them had the latest turn.
    latest: Option<UserId>,
    under_way: Arc<AtomicUsize>,
}

/// No user comes before this one.
const FIRST: UserId = UserId(i64::MIN);

impl Presence {
    /// A session with the cap begins; its login answer says how its friends are.
    pub(super) fn watch_friends(
        &mut self,
        users: &UserTable,
        (watcher, key): (UserId, SessionKey),
        worker: usize,
        friends: &[FriendState],
    ) {
        self.begin(watcher, key, worker);
        for FriendState { id, name, online } in friends {
            self.watch_user(users, watcher, *id, name, *online);
        }
    }

    /// A friend was added, who was online then or not.
    pub(super) fn watch_added(&mut self, users: &UserTable, watcher: UserId, friend: UserId, online: bool) {
        if let Some(person) = users.look(friend) {
            self.watch_user(users, watcher, friend, &person.sender.name, online);
        }
    }

    fn watch_user(&mut self, users: &UserTable, watcher: UserId, friend: UserId, name: &str, told: bool) {
        let person = users.look(friend);
        let session = person.and_then(|person| Some(person.session.as_ref()?.epoch));
        let epoch = session.or(person.map(|person| person.epoch)).unwrap_or(Epoch(0));
        self.watch(watcher, friend, name, told, (session.is_some(), epoch));
    }

    /// A login is committed. Nothing is told of a session that was over before.
    pub(super) fn show_online(
        &mut self,
        cx: &Context<impl Storage, impl Send + 'static>,
        users: &UserTable,
        user: UserId,
    ) {
        let Some(person) = users.look(user) else { return };
        let Some(session) = &person.session else { return };
        if self.came(user, &person.sender.name, session.epoch) {
            cx.handles.metrics.presence_spared.add(1);
        }
    }

    /// Tells watchers what has changed for them. Nothing during a stop or drain, when everybody goes.
    pub(super) fn tell_watchers(
        &mut self,
        cx: &Context<impl Storage, impl Send + 'static>,
        users: &UserTable,
        is_stopping: bool,
    ) {
        if is_stopping {
            *self = Presence::default();
            return;
        }
        let now_us = cx.now.mono_us;
        for _ in 0..GONE_MAX {
            let Some(user) = self.take_due(now_us) else { break };
            let person = users.look(user);
            // Whoever takes a place over, or waits for the delivery report of the session before, is not gone.
            let is_back = person.is_some_and(|person| person.session.is_some() || person.has_parked());
            self.decide(user, is_back.then_some(now_us + AGAIN_US));
        }
        for (worker, bulletin) in self.bulletins() {
            let mut mail = vec![WorkerCommand::Presence(bulletin)];
            cx.handles.worker_sender.post(worker, &mut mail, &mut Vec::new());
        }
    }

    /// A session begins that wants to be told of friends.
    pub(crate) fn begin(&mut self, watcher: UserId, key: SessionKey, worker: usize) {
        self.end(watcher);
        self.watchers.insert(watcher, Watcher { key, worker, friends: Vec::new() });
    }

    /// True exactly when that user has a session that wants to be told.
    pub(crate) fn is_watching(&self, watcher: UserId) -> bool {
        self.watchers.contains_key(&watcher)
    }

    /// A watcher was told whether a friend is online, and is told from now on when that changes. `now` is the friend's
    /// state and session at present, for a friend whom nobody has watched.
    pub(crate) fn watch(
        &mut self,
        watcher: UserId,
        friend: UserId,
        name: &str,
        told: bool,
        now: (bool, Epoch),
    ) {
        let Some(Watcher { friends, .. }) = self.watchers.get_mut(&watcher) else { return };
        // One's own comings and goings are no news.
        if friend == watcher || friends.len() >= WATCHED_MAX {
            return;
        }
        let watched = self.watched.entry(friend).or_insert_with(|| Watched {
            name: name.into(),
            shown: if now.0 { Shown::Online } else { Shown::Offline },
            epoch: now.1,
            watchers: BTreeMap::new(),
        });
        if watched.watchers.contains_key(&watcher) {
            return;
        }
        watched.watchers.insert(watcher, told);
        friends.push(friend);
        if watched.shown == (if told { Shown::Offline } else { Shown::Online }) {
            self.changed.insert(friend, FIRST);
        }
    }

    /// A watcher's session is over.
    pub(crate) fn end(&mut self, watcher: UserId) {
        let Some(Watcher { friends, .. }) = self.watchers.remove(&watcher) else { return };
        for friend in friends {
            let Some(watched) = self.watched.get_mut(&friend) else { continue };
            watched.watchers.remove(&watcher);
            if watched.watchers.is_empty() {
                if let Shown::Held { until_us } = watched.shown {
                    self.held.remove(&(until_us, friend));
                }
                self.watched.remove(&friend);
                self.changed.remove(&friend);
            }
        }
    }

    /// A watcher's session is over, if it is that one.
    pub(crate) fn end_session(&mut self, watcher: UserId, key: SessionKey) {
        if self.watchers.get(&watcher).is_some_and(|watcher| watcher.key == key) {
            self.end(watcher);
        }
    }

    /// A user's login is committed. True exactly when the user was held back.
    pub(crate) fn came(&mut self, user: UserId, name: &str, epoch: Epoch) -> bool {
        let Some(watched) = self.watched.get_mut(&user).filter(|watched| watched.epoch <= epoch) else {
            return false;
        };
        watched.epoch = epoch;
        if *watched.name != *name {
            watched.name = name.into();
        }
        let before = std::mem::replace(&mut watched.shown, Shown::Online);
        self.changed.insert(user, FIRST);
        if let Shown::Held { until_us } = before {
            self.held.remove(&(until_us, user));
        }
        matches!(before, Shown::Held { .. })
    }

    /// The end of a user's session is committed; nobody is told before `until_us`. The end of an older session than the
    /// one shown is no news.
    pub(crate) fn left(&mut self, user: UserId, epoch: Epoch, until_us: u64) {
        let Some(watched) = self.watched.get_mut(&user).filter(|watched| watched.epoch <= epoch) else {
            return;
        };
        watched.epoch = epoch;
        if watched.shown == Shown::Online {
            watched.shown = Shown::Held { until_us };
            self.held.insert((until_us, user));
            // Who was not yet told that the user came need not hear of it.
            self.changed.remove(&user);
        }
    }

    /// Takes a user who has been held back long enough.
    pub(crate) fn take_due(&mut self, now_us: u64) -> Option<UserId> {
        let due = self.held.first().copied().filter(|(until_us, _)| *until_us <= now_us)?;
        self.held.remove(&due);
        Some(due.1)
    }

    /// The user is shown as gone, or held back once more.
    pub(crate) fn decide(&mut self, user: UserId, again_us: Option<u64>) {
        let Some(watched) = self.watched.get_mut(&user) else { return };
        if let Some(until_us) = again_us {
            watched.shown = Shown::Held { until_us };
            self.held.insert((until_us, user));
        } else {
            watched.shown = Shown::Offline;
            self.changed.insert(user, FIRST);
        }
    }

    /// Bulletins for the workers, as many events as one turn may bring. None while a worker has one to take: what
    /// changes meanwhile is told in the next.
    pub(crate) fn bulletins(&mut self) -> BTreeMap<usize, PresenceBatch> {
        let mut bulletins = BTreeMap::new();
        if self.is_busy() {
            return bulletins;
        }
        let mut visits = VISITS_MAX;
        while visits > 0
            && let Some((user, from)) = self.next_changed()
        {
            self.latest = Some(user);
            self.changed.remove(&user);
            let Some(watched) = self.watched.get_mut(&user) else { continue };
            let online = watched.shown == Shown::Online;
            for (watcher, told) in watched.watchers.range_mut(from..) {
                if visits == 0 {
                    self.changed.insert(user, *watcher);
                    break;
                }
                visits -= 1;
                let Some(Watcher { key, worker, .. }) = self.watchers.get(watcher) else { continue };
                if std::mem::replace(told, online) == online {
                    continue;
                }
                let event =
                    PresenceEvent { user, name: Arc::clone(&watched.name), online, epoch: watched.epoch };
                let bulletin =
                    bulletins.entry(*worker).or_insert_with(|| PresenceBatch::new(&self.under_way));
                bulletin.notices.push(Notice { to: key.0, session: key.1, event });
            }
        }
        bulletins
    }

    /// Who is next: each in turn, so that nobody who comes and goes all the time keeps others waiting.
    fn next_changed(&self) -> Option<(UserId, UserId)> {
        let after = self.latest.map_or(Bound::Unbounded, Bound::Excluded);
        let next =
            self.changed.range((after, Bound::Unbounded)).next().or_else(|| self.changed.iter().next());
        next.map(|(user, from)| (*user, *from))
    }

    fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// How long main may sleep, in microseconds.
    pub(crate) fn timeout_us(&self, now_us: u64) -> Option<u64> {
        let told = (!self.changed.is_empty()).then(|| if self.is_busy() { BUSY_US } else { 0 });
        let held = self.held.first().map(|(until_us, _)| until_us.saturating_sub(now_us));
        [told, held].into_iter().flatten().min()
    }

    /// A bulletin out of nothing, for tests of what becomes of one.
    #[cfg(test)]
    pub(crate) fn bulletin(&self, notices: Vec<Notice>) -> PresenceBatch {
        let mut bulletin = PresenceBatch::new(&self.under_way);
        bulletin.notices = notices;
        bulletin
    }

    /// Panics when the parts disagree; for tests.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        for (user, watched) in &self.watched {
            assert!(!watched.watchers.is_empty(), "{user} has no watcher");
            assert!(watched.watchers.keys().all(|watcher| self.watchers[watcher].friends.contains(user)));
            match watched.shown {
                Shown::Held { until_us } => {
                    assert!(self.held.contains(&(until_us, *user)));
                    assert!(!self.changed.contains_key(user));
                }
                _ => assert!(self.held.iter().all(|(_, held)| held != user)),
            }
        }
        let watched: usize = self.watched.values().map(|watched| watched.watchers.len()).sum();
        let watching: usize = self.watchers.values().map(|watcher| watcher.friends.len()).sum();
        assert_eq!(watched, watching);
        assert!(self.changed.keys().all(|user| self.watched.contains_key(user)));
        assert!(self.held.iter().all(|(_, user)| self.watched.contains_key(user)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelId;
    use crate::channel::SessionNo;

    const FRIEND: UserId = UserId(0);

    fn key(slot: u32) -> SessionKey {
        (ChannelId { slot, generation: 1 }, SessionNo(1))
    }

    /// So many watchers of one friend who is offline, on one worker.
    fn watched_by(watchers: i64) -> Presence {
        let mut presence = Presence::default();
        for watcher in 1..=watchers {
            presence.begin(UserId(watcher), key(watcher as u32), 0);
            presence.watch(UserId(watcher), FRIEND, "ann", false, (false, Epoch(0)));
        }
        presence
    }

    fn came(presence: &mut Presence, epoch: i64) -> bool {
        let held = presence.came(FRIEND, "ann", Epoch(epoch));
        presence.check_invariants();
        held
    }

    fn left(presence: &mut Presence, epoch: i64, until_us: u64) {
        presence.left(FRIEND, Epoch(epoch), until_us);
        presence.check_invariants();
    }

    fn gone(presence: &mut Presence, now_us: u64) {
        while let Some(user) = presence.take_due(now_us) {
            presence.decide(user, None);
        }
        presence.check_invariants();
    }

    /// What there is to tell, as whether the friend is online and in which session.
    fn told(presence: &mut Presence) -> Vec<(bool, i64)> {
        let events = presence.bulletins().into_values().flat_map(|mut bulletin| {
            let notices = std::mem::take(&mut bulletin.notices);
            notices.into_iter().map(|Notice { event, .. }| (event.online, event.epoch.0))
        });
        events.collect()
    }

    #[test]
    fn a_storm_is_told_in_pieces_and_no_piece_before_the_one_before_is_taken() {
        let mut presence = watched_by(VISITS_MAX as i64 + 10);
        came(&mut presence, 1);
        let first = presence.bulletins();
        assert_eq!(first[&0].notices.len(), VISITS_MAX);
        assert!(presence.bulletins().is_empty());
        assert_eq!(presence.timeout_us(0), Some(BUSY_US));
        drop(first);
        assert_eq!(presence.timeout_us(0), Some(0));
        assert_eq!(told(&mut presence).len(), 10);
        assert_eq!(presence.timeout_us(0), None);
    }

    #[test]
    fn what_changes_before_it_is_told_is_told_once_and_what_changes_back_not_at_all() {
        let mut presence = watched_by(1);
        came(&mut presence, 1);
        let untaken = presence.bulletins();
        left(&mut presence, 1, 10);
        gone(&mut presence, 10);
        assert!(told(&mut presence).is_empty(), "the worker has a bulletin to take");
        came(&mut presence, 2);
        drop(untaken);
        assert_eq!(told(&mut presence), []);
        left(&mut presence, 2, 20);
        gone(&mut presence, 20);
        came(&mut presence, 3);
        left(&mut presence, 3, 30);
        gone(&mut presence, 30);
        assert_eq!(told(&mut presence), [(false, 3)]);
    }

    #[test]
    fn a_late_end_of_an_older_session_is_no_news_and_neither_is_a_late_login() {
        let mut presence = watched_by(1);
        came(&mut presence, 5);
        assert_eq!(told(&mut presence), [(true, 5)]);
        left(&mut presence, 4, 10);
        gone(&mut presence, 10);
        assert_eq!(told(&mut presence), []);
        left(&mut presence, 6, 20);
        gone(&mut presence, 20);
        assert_eq!(told(&mut presence), [(false, 6)], "a session may go on in a later epoch");
        came(&mut presence, 5);
        assert_eq!(told(&mut presence), []);
    }

    #[test]
    fn whoever_was_not_told_that_a_friend_came_is_not_told_that_the_friend_went() {
        let mut presence = watched_by(1);
        came(&mut presence, 1);
        left(&mut presence, 1, 10);
        gone(&mut presence, 10);
        assert_eq!(told(&mut presence), []);
    }

    #[test]
    fn users_without_a_watcher_are_forgotten_with_all_that_waits_for_them() {
        let mut presence = watched_by(2);
        came(&mut presence, 1);
        told(&mut presence);
        left(&mut presence, 1, 10);
        presence.end_session(UserId(1), key(7));
        presence.end_session(UserId(1), key(1));
        presence.check_invariants();
        assert_eq!((presence.watched.len(), presence.held.len()), (1, 1));
        presence.end(UserId(2));
        presence.check_invariants();
        assert!(presence.watched.is_empty() && presence.watchers.is_empty());
        assert_eq!(presence.timeout_us(0), None);
    }

    #[test]
    fn a_session_watches_only_so_many_friends_and_never_itself() {
        let mut presence = Presence::default();
        let watcher = UserId(-1);
        presence.begin(watcher, key(1), 0);
        presence.watch(watcher, watcher, "me", false, (true, Epoch(1)));
        assert!(presence.watched.is_empty());
        for friend in 0..WATCHED_MAX as i64 + 5 {
            presence.watch(watcher, UserId(friend), "ann", false, (false, Epoch(0)));
        }
        assert_eq!(presence.watched.len(), WATCHED_MAX);
    }

    #[test]
    fn a_friend_who_comes_and_goes_all_the_time_does_not_keep_others_waiting() {
        let mut presence = watched_by(VISITS_MAX as i64);
        let other = UserId(1_000_000);
        presence.watch(UserId(1), other, "bob", false, (false, Epoch(0)));
        let mut heard = false;
        for epoch in 1..=2 {
            came(&mut presence, epoch);
            presence.came(other, "bob", Epoch(epoch));
            let bulletins = presence.bulletins();
            heard |= bulletins[&0].notices.iter().any(|notice| notice.event.user == other);
            drop(bulletins);
            left(&mut presence, epoch, 0);
            gone(&mut presence, 0);
        }
        assert!(heard);
    }
}
