//! The users whom main has to do with: their sessions, what waits for them, who waits to be them.
//!
//! Plain data, owned by main.

use super::ask::Login;
use super::chat::Chat;
use super::storage::{BoxUsage, UserRow};
use super::unconfirmed::Unconfirmed;
use crate::addr::Peer;
use crate::channel::{ChannelId, SessionNo};
use crate::hashing::IdMap;
use crate::ident::{Epoch, Mid, UserId};
use crate::protocol::request::Caps;
use crate::sync::Arc;
use std::collections::VecDeque;

/// Users who are remembered although nothing goes on with them.
const IDLE_MAX: usize = 65_536;
/// Messages held for one user between a departure and its settlement; past it, senders get errno 18.
const HELD_MAX: usize = 65_536;
/// The same in bytes of bodies.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bits of a message number that count within one epoch: 268 million messages a session.
///
/// The epoch above them rises durably before a message of it is ever sent, so numbers rise across restarts and
/// crashes without a write of their own; 25 bits of epoch keep them below 2^53.
const MID_BITS: u32 = 28;

/// A user, as main sees one.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) name: Arc<str>,
    /// The highest epoch given out.
    pub(crate) epoch: Epoch,
    pub(crate) session: Option<Session>,
    /// The session whose departure is drained and whose settlement is not. Until it comes, messages are held and
    /// logins parked.
    pub(crate) leaving: Option<(ChannelId, SessionNo)>,
    /// What waits for a settlement or a look; seldom anything.
    waiting: Option<Box<Waiting>>,
    /// What the session's client has to confirm, until the session has settled; none where the client does not.
    pub(crate) unconfirmed: Option<Box<Unconfirmed>>,
    /// What the box holds, once it has been looked at.
    pub(crate) usage: Option<BoxUsage>,
    /// The next message's number; none before an epoch has been begun for it in this run of the server.
    next: Option<Mid>,
}

/// What waits for one user.
#[derive(Debug, Default)]
struct Waiting {
    /// Logins that wait for a settlement, oldest first.
    parked: VecDeque<Login>,
    /// Logins that wait to hear whether the present session's client is still there.
    probing: Vec<Login>,
    /// Messages that wait for a settlement, oldest first.
    held: VecDeque<Chat>,
    /// Bytes of their bodies.
    held_bytes: usize,
}

/// A user's session, as main sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) channel: ChannelId,
    pub(crate) number: SessionNo,
    pub(crate) worker: usize,
    pub(crate) epoch: Epoch,
    pub(crate) peer: Peer,
    pub(crate) since_ms: i64,
    /// True exactly when the client speaks lines.
    pub(crate) lines: bool,
    /// What the client can do.
    pub(crate) caps: Caps,
    /// The newest message of the box that was sent to the channel, while the box may hold newer ones.
    pub(crate) backlog: Option<Mid>,
    /// True exactly when a letter came back because the step is taken; the departure is on its way.
    pub(crate) gone: bool,
    /// The latest batch in which a chat was addressed to it.
    pub(crate) addressed: Option<u64>,
}

impl Person {
    fn new(row: &UserRow) -> Self {
        Person {
            name: row.name.as_str().into(),
            epoch: row.epoch,
            session: None,
            leaving: None,
            waiting: None,
            unconfirmed: None,
            usage: None,
            next: None,
        }
    }

    /// Begins a new epoch: message numbers go on from there.
    pub(crate) fn begin_epoch(&mut self) -> Epoch {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.next = Some(Mid((self.epoch.0 << MID_BITS) + 1));
        self.epoch
    }

    /// Begins a new epoch for the sake of message numbers. A session that goes on is one of that epoch from then on,
    /// for its end must name the epoch of the row.
    pub(crate) fn go_on_in_next_epoch(&mut self) -> Epoch {
        let epoch = self.begin_epoch();
        if let Some(session) = &mut self.session {
            session.epoch = epoch;
        }
        epoch
    }

    /// True exactly when message numbers can be given out.
    pub(crate) fn has_numbers(&self) -> bool {
        self.next.is_some()
    }

    /// The next message's number.
    pub(crate) fn number(&mut self) -> Mid {
        let mid = self.next.unwrap_or(Mid((self.epoch.0 << MID_BITS) + 1));
        // The last number of an epoch is followed by a new epoch.
        self.next = Some(Mid(mid.0 + 1)).filter(|next| next.0 >> MID_BITS == self.epoch.0);
        mid
    }

    /// Forgets the numbers of an epoch that may not have been committed; the next one is higher.
    pub(crate) fn forget_numbers(&mut self) {
        self.next = None;
    }

    /// Has a message wait for a settlement.
    pub(crate) fn hold(&mut self, chat: Chat) {
        let waiting = self.waiting.get_or_insert_default();
        waiting.held_bytes += chat.body.size();
        waiting.held.push_back(chat);
    }

    /// True exactly when no more messages may wait.
    pub(crate) fn holds_too_many(&self) -> bool {
        let waiting = self.waiting.as_deref();
        waiting.is_some_and(|waiting| waiting.held.len() >= HELD_MAX || waiting.held_bytes >= HELD_BYTES_MAX)
    }

    /// Takes the messages that have waited.
    pub(crate) fn take_held(&mut self) -> VecDeque<Chat> {
        self.take_waiting(|waiting| {
            waiting.held_bytes = 0;
            std::mem::take(&mut waiting.held)
        })
    }

    /// Has a login wait for a settlement.
    pub(crate) fn park(&mut self, login: Login) {
        self.waiting.get_or_insert_default().parked.push_back(login);
    }

    /// The same for a login that has ended the session itself: it would fail and have changed something if another took
    /// the place meanwhile.
    pub(crate) fn park_first(&mut self, login: Login) {
        self.waiting.get_or_insert_default().parked.push_front(login);
    }

    /// True exactly when logins wait for a settlement.
    pub(crate) fn has_parked(&self) -> bool {
        self.waiting.as_deref().is_some_and(|waiting| !waiting.parked.is_empty())
    }

    /// Takes the login that has waited longest for a settlement.
    pub(crate) fn take_first_parked(&mut self) -> Option<Login> {
        self.take_waiting(|waiting| waiting.parked.pop_front())
    }

    /// Takes all logins that have waited for a settlement.
    pub(crate) fn take_parked(&mut self) -> VecDeque<Login> {
        self.take_waiting(|waiting| std::mem::take(&mut waiting.parked))
    }

    /// Has a login wait for a look at the present session's client. True exactly when it is the first.
    pub(crate) fn wait_for_look(&mut self, login: Login) -> bool {
        let probing = &mut self.waiting.get_or_insert_default().probing;
        probing.push(login);
        probing.len() == 1
    }

    /// Takes the logins that have waited for that look.
    pub(crate) fn take_probing(&mut self) -> Vec<Login> {
        self.take_waiting(|waiting| std::mem::take(&mut waiting.probing))
    }

    fn take_waiting<R: Default>(&mut self, take: impl FnOnce(&mut Waiting) -> R) -> R {
        let Some(waiting) = self.waiting.as_deref_mut() else { return R::default() };
        let taken = take(waiting);
        if waiting.is_empty() {
            self.waiting = None;
        }
        taken
    }

    /// True exactly when messages have to wait for a settlement.
    pub(crate) fn holds_messages(&self) -> bool {
        self.leaving.is_some() || self.session.as_ref().is_some_and(|session| session.gone)
    }

    /// True exactly when nothing is under way: no end, no login, no message that waits.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.leaving.is_none()
            && self.waiting.is_none()
            && self.session.as_ref().is_none_or(|session| !session.gone)
    }

    fn is_idle(&self) -> bool {
        self.session.is_none() && self.is_at_rest()
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.parked.is_empty() && self.probing.is_empty() && self.held.is_empty()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct People {
    /// Boxed, for a map has room for up to twice as many as it holds.
    known: IdMap<UserId, Box<Person>>,
    /// Users who were met in the batch under way: their rows may have been added in it.
    met: Vec<UserId>,
    online: usize,
}

impl People {
    pub(crate) fn find(&mut self, user: UserId) -> Option<&mut Person> {
        self.known.get_mut(&user).map(|person| &mut **person)
    }

    /// The same, only to look.
    pub(crate) fn look(&self, user: UserId) -> Option<&Person> {
        self.known.get(&user).map(|person| &**person)
    }

    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.known.get(&user).is_some_and(|person| person.session.is_some())
    }

    /// Users with whom something goes on.
    #[cfg(test)]
    pub(crate) fn count_busy(&self) -> usize {
        self.known.values().filter(|person| !person.is_idle() || person.unconfirmed.is_some()).count()
    }

    /// Remembers a user whose row was just read.
    pub(crate) fn meet(&mut self, row: &UserRow) -> &mut Person {
        let met = &mut self.met;
        let person = self.known.entry(row.id).or_insert_with(|| {
            met.push(row.id);
            Box::new(Person::new(row))
        });
        // Another process may have raised it, never lowered.
        person.epoch = person.epoch.max(row.epoch);
        if *person.name != *row.name {
            person.name = row.name.as_str().into();
        }
        person
    }

    /// Forgets what rests on rows that may never have been committed, after a batch that failed.
    pub(crate) fn doubt(&mut self) {
        for person in self.known.values_mut() {
            person.usage = None;
            if person.session.is_none() {
                person.forget_numbers();
            }
        }
    }

    /// Takes the users who were met in the batch that ends.
    pub(crate) fn take_met(&mut self) -> Vec<UserId> {
        std::mem::take(&mut self.met)
    }

    /// Forgets those of these users with whom nothing goes on: their rows may never have been.
    pub(crate) fn unmeet(&mut self, met: &[UserId]) {
        for user in met {
            if self.look(*user).is_some_and(Person::is_idle) {
                self.known.remove(user);
            }
        }
    }

    /// Forgets users with whom nothing goes on, when there are too many.
    pub(crate) fn tidy(&mut self, online: usize) {
        self.online = online;
        if self.known.len() > online + IDLE_MAX {
            self.known.retain(|_, person| !person.is_idle());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: i64) -> UserRow {
        UserRow { id: UserId(1), name: "ann".into(), password: None, epoch: Epoch(epoch), online: false }
    }

    #[test]
    fn message_numbers_rise_within_an_epoch_and_across_epochs() {
        let mut people = People::default();
        let person = people.meet(&row(4));
        person.begin_epoch();
        let (first, second) = (person.number(), person.number());
        person.begin_epoch();
        let third = person.number();
        assert!(first < second && second < third);
        assert!(third.0 < 1 << 53);
    }

    #[test]
    fn an_epoch_without_numbers_left_is_followed_by_the_next() {
        let mut people = People::default();
        let person = people.meet(&row(4));
        person.begin_epoch();
        person.next = Some(Mid((6 << MID_BITS) - 1));
        let last = person.number();
        assert!(!person.has_numbers());
        person.go_on_in_next_epoch();
        assert!(person.number() > last);
    }

    #[test]
    fn only_users_with_whom_nothing_goes_on_are_forgotten() {
        let mut people = People::default();
        for id in 0..=IDLE_MAX as i64 + 1 {
            people.meet(&UserRow { id: UserId(id), ..row(0) });
        }
        people.meet(&row(0)).leaving = Some((ChannelId { slot: 0, generation: 1 }, SessionNo(1)));
        people.tidy(0);
        assert_eq!(people.known.len(), 1);
    }
}
