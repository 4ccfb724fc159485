//! The users whom main has to do with: their sessions, what waits for them, who waits to be them.
//!
//! Plain data, owned by main.

use super::ask::{Asker, Login};
use super::storage::{BoxUsage, UserRow};
use super::ticket::Ticket;
use crate::channel::{ChannelId, SessionNo};
use crate::ident::{Epoch, Mid, UserId};
use crate::sync::Arc;
use std::collections::{HashMap, VecDeque};

/// Users who are remembered although nothing goes on with them.
const IDLE_MAX: usize = 65_536;
/// Messages held for one user between a departure and its settlement; past it, senders get errno 18.
pub(crate) const HELD_MAX: usize = 65_536;
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
    /// Logins that wait for a settlement, oldest first.
    pub(crate) parked: VecDeque<Login>,
    /// Logins that wait to hear whether the present session's client is still there.
    pub(crate) probing: Vec<Login>,
    /// Messages that wait for a settlement, oldest first.
    pub(crate) held: VecDeque<Copy>,
    /// What the box holds, once it has been looked at.
    pub(crate) usage: Option<BoxUsage>,
    /// The next message's number; none before an epoch has been begun for it in this run of the server.
    next: Option<Mid>,
}

/// A user's session, as main sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) channel: ChannelId,
    pub(crate) number: SessionNo,
    pub(crate) worker: usize,
    pub(crate) epoch: Epoch,
    pub(crate) peer: Arc<str>,
    pub(crate) since_ms: i64,
    /// The newest message of the box that was sent to the channel, while the box may hold newer ones.
    pub(crate) backlog: Option<Mid>,
    /// True exactly when a letter came back because the step is taken; the departure is on its way.
    pub(crate) gone: bool,
    /// The latest batch in which a chat was addressed to it.
    pub(crate) addressed: Option<u64>,
}

/// A message for one user.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) body: Arc<[u8]>,
    pub(crate) ticket: Option<Arc<Ticket>>,
    /// Who is told of a failure; none for a copy whose failure nobody wants to hear of.
    pub(crate) asker: Option<Asker>,
}

impl Person {
    fn new(row: &UserRow) -> Self {
        Person {
            name: row.name.as_str().into(),
            epoch: row.epoch,
            session: None,
            leaving: None,
            parked: VecDeque::new(),
            probing: Vec::new(),
            held: VecDeque::new(),
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

    /// True exactly when message numbers can be given out.
    pub(crate) fn has_numbers(&self) -> bool {
        self.next.is_some()
    }

    /// The next message's number.
    pub(crate) fn number(&mut self) -> Mid {
        let mid = self.next.unwrap_or(Mid((self.epoch.0 << MID_BITS) + 1));
        self.next = Some(Mid(mid.0 + 1));
        mid
    }

    /// True exactly when messages have to wait for a settlement.
    pub(crate) fn holds_messages(&self) -> bool {
        self.leaving.is_some() || self.session.as_ref().is_some_and(|session| session.gone)
    }

    fn is_idle(&self) -> bool {
        self.session.is_none()
            && self.leaving.is_none()
            && self.parked.is_empty()
            && self.probing.is_empty()
            && self.held.is_empty()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct People {
    known: HashMap<UserId, Person>,
    online: usize,
}

impl People {
    pub(crate) fn find(&mut self, user: UserId) -> Option<&mut Person> {
        self.known.get_mut(&user)
    }

    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.known.get(&user).is_some_and(|person| person.session.is_some())
    }

    /// Remembers a user whose row was just read.
    pub(crate) fn meet(&mut self, row: &UserRow) -> &mut Person {
        let person = self.known.entry(row.id).or_insert_with(|| Person::new(row));
        // Another process may have raised it, never lowered.
        person.epoch = person.epoch.max(row.epoch);
        person
    }

    /// Forgets what the boxes hold; after a batch that failed, nothing in memory is sure.
    pub(crate) fn forget_usage(&mut self) {
        for person in self.known.values_mut() {
            person.usage = None;
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
