//! Messages on their way to clients that confirm them (cap `ack`): sent, numbered, not yet confirmed.
//!
//! On main. Every chat to such a client goes through here, so that there is one place that knows what is under way.
//! What does not fit into the window waits in the box. A chat with `seq` is in the box before it is sent: a crash
//! between its confirmation and the answer to its sender must not have it delivered again under another number.

use super::delivery::Placement;
use super::session_map::SessionKey;
use super::state::{MainLoop, RETRY_US};
use super::transaction::{AfterCommit, BoxWrite, PendingWrite};
use super::users::UserState;
use crate::ids::{Mid, UserId};
use crate::message::chat::{Body, Chat, OnFailure, OtherCopy};
use crate::message::command::WorkerCommand;
use crate::protocol::errno::Errno;
use crate::store::{BoxUsage, Storage, StoredMessage};
use std::collections::VecDeque;

/// Bytes of bodies that are under way to one client at most. One message always fits.
pub const UNDER_WAY_BYTES: usize = 256 * 1024;

/// What a session has sent and its client has not confirmed, in order of numbers.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    /// Whose session's it is.
    pub(crate) key: SessionKey,
    under_way: VecDeque<InFlight>,
    /// Bytes of their bodies.
    bytes: usize,
    /// The newest that was sent.
    pub(crate) sent: Mid,
    /// Up to here a message that lay in the box may have expired there.
    expired_upto: Mid,
    /// How many were confirmed.
    pub(crate) confirmed: u64,
}

#[derive(Debug)]
struct InFlight {
    mid: Mid,
    bytes: usize,
    /// None where it lies in the box.
    body: Option<Body>,
}

/// What a confirmation has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Confirmation {
    /// The newest of the confirmed messages that lie in the box.
    stored: Option<Mid>,
    /// What those held.
    usage: BoxUsage,
    /// True exactly when some of them may have expired, so that the box has to be looked at again.
    is_doubtful: bool,
}

impl Unconfirmed {
    pub(crate) fn new(key: SessionKey) -> Self {
        Unconfirmed {
            key,
            under_way: VecDeque::new(),
            bytes: 0,
            sent: Mid(0),
            expired_upto: Mid(0),
            confirmed: 0,
        }
    }

    /// Messages that may still be sent, and bytes of them.
    pub(crate) fn room(&self, window: usize) -> (usize, usize) {
        let bytes = UNDER_WAY_BYTES.saturating_sub(self.bytes);
        (if bytes == 0 { 0 } else { window.saturating_sub(self.under_way.len()) }, bytes)
    }

    /// Notes a message that is sent. `body` is none where it lies in the box.
    pub(crate) fn send(&mut self, mid: Mid, bytes: usize, body: Option<Body>) {
        debug_assert!(mid > self.sent, "numbers rise");
        self.sent = mid;
        self.bytes += bytes;
        self.under_way.push_back(InFlight { mid, bytes, body });
    }

    /// Messages from the box that are sent.
    pub(crate) fn send_kept(&mut self, kept: &[StoredMessage]) {
        for StoredMessage { mid, body, .. } in kept {
            self.send(*mid, body.len(), None);
        }
    }

    /// Takes a message back that could not be put into the box after all.
    fn unsend(&mut self, mid: Mid) {
        if let Some(at) = self.under_way.iter().position(|flight| flight.mid == mid)
            && let Some(flight) = self.under_way.remove(at)
        {
            self.bytes -= flight.bytes;
        }
    }

    /// Takes back all that was sent since that one.
    fn unsend_above(&mut self, sent: Mid) {
        while let Some(flight) = self.under_way.pop_back_if(|flight| flight.mid > sent) {
            self.bytes -= flight.bytes;
        }
        self.sent = sent;
    }

    /// Messages have expired in the box. They stay under way.
    pub(crate) fn note_expiry(&mut self) {
        self.expired_upto = self.sent;
    }

    fn confirm(&mut self, upto: Mid) -> Confirmation {
        let mut confirmation = Confirmation::default();
        while let Some(flight) = self.under_way.pop_front_if(|flight| flight.mid <= upto) {
            self.bytes -= flight.bytes;
            self.confirmed += 1;
            if flight.body.is_none() {
                confirmation.stored = Some(flight.mid);
                confirmation.usage.count += 1;
                confirmation.usage.bytes += flight.bytes as u64;
                confirmation.is_doubtful |= flight.mid <= self.expired_upto;
            }
        }
        confirmation
    }
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A session begins whose client confirms; it gets the oldest messages of the box with the login answer.
    pub(crate) fn begin_confirming(&mut self, user: UserId, key: SessionKey, offline: &[StoredMessage]) {
        let mut unconfirmed = Unconfirmed::new(key);
        unconfirmed.send_kept(offline);
        let upto = unconfirmed.sent;
        if let Some(person) = self.people.find(user) {
            person.unconfirmed = Some(Box::new(unconfirmed));
        }
        if offline.iter().any(|kept| !kept.sent) {
            self.batch.attempt(|store| store.mark_sent(user, upto));
        }
    }

    /// Sends a chat to a client that confirms, if the window has room. Gives back what belongs into the box.
    pub(crate) fn send_numbered(&mut self, user: UserId, chat: Chat) -> Result<Placement, Chat> {
        let window = self.policy.ack_window;
        let Some(person) = self.people.find(user) else { return Err(chat) };
        let (Some(session), Some(unconfirmed)) = (person.session.as_mut(), person.unconfirmed.as_deref_mut())
        else {
            return Err(chat);
        };
        if session.backlog.is_some() || unconfirmed.room(window).0 == 0 {
            session.backlog.get_or_insert_with(|| Box::new(unconfirmed.sent));
            return Err(chat);
        }
        let key = (session.channel, session.number);
        let worker = self.around.table.worker(session.channel);
        if self.around.outlet.is_full(worker) {
            self.fail(user, chat, Errno::Busy);
            return Ok(Placement::Elsewhere);
        }
        // In the words of the box from here on: what is counted is what the box holds, or would.
        let chat = Chat { body: Body::Object(chat.body.object()), ..chat };
        if chat.ticket.is_some() {
            return Ok(self.keep_and_send(user, chat, key, worker));
        }
        let Some(mid) = self.next_mid(user) else { return Ok(self.not_stored(user, chat)) };
        self.note_sent(user, mid, chat.body.size(), Some(chat.body.clone()));
        self.batch.then(AfterCommit::Post { worker, letter: numbered(user, key, chat, mid) });
        Ok(Placement::Elsewhere)
    }

    /// A message is under way to the present session of a user, under that number.
    fn note_sent(&mut self, user: UserId, mid: Mid, bytes: usize, body: Option<Body>) {
        let batch = self.batch.number();
        let Some(person) = self.people.find(user) else { return };
        if let Some(unconfirmed) = &mut person.unconfirmed {
            unconfirmed.send(mid, bytes, body);
        }
        if let Some(session) = &mut person.session {
            session.addressed = Some(batch);
        }
    }

    /// A chat with `seq` goes into the box, and to its receiver when it is there.
    fn keep_and_send(&mut self, user: UserId, chat: Chat, key: SessionKey, worker: usize) -> Placement {
        let copy = chat.clone();
        let mid = match self.keep_as(user, chat, true) {
            Ok(mid) => mid,
            Err(placed) => return placed,
        };
        self.note_sent(user, mid, copy.body.size(), None);
        let letter = numbered(user, key, copy, mid);
        self.batch.then(AfterCommit::Deliver { worker, letter, user, key, mid });
        Placement::Elsewhere
    }

    /// The batch that was to put a message into the box has failed: it was never sent.
    pub(crate) fn unsend(&mut self, user: UserId, key: SessionKey, mid: Mid) {
        let unconfirmed = self.people.find(user).and_then(|person| person.unconfirmed.as_mut());
        if let Some(unconfirmed) = unconfirmed.filter(|unconfirmed| unconfirmed.key == key) {
            unconfirmed.unsend(mid);
        }
    }

    /// The client has confirmed messages: those in the box are gone from it, and more may follow.
    pub(crate) fn confirmed(&mut self, user: UserId, key: SessionKey) {
        let Some(upto) = self.around.table.take_confirmed(key.0) else { return };
        let window = self.policy.ack_window;
        let Some(person) = self.people.find(user) else { return };
        let Some(unconfirmed) = person.unconfirmed.as_mut().filter(|unconfirmed| unconfirmed.key == key)
        else {
            return;
        };
        let confirmation = unconfirmed.confirm(upto);
        let room = unconfirmed.room(window).0 > 0;
        if confirmation.is_doubtful {
            person.forget_usage();
        } else if let Some(usage) = person.usage_mut() {
            usage.count = usage.count.saturating_sub(confirmation.usage.count);
            usage.bytes = usage.bytes.saturating_sub(confirmation.usage.bytes);
        }
        let waits = person.session.as_ref().is_some_and(|session| session.backlog.is_some());
        if waits && room {
            self.refills.push(user);
        }
        if let Some(upto) = confirmation.stored {
            self.batch.owe(PendingWrite::DropKept { user, upto });
        }
    }

    /// A session is over: what its client has not confirmed is in the box from now on. Answers how many were confirmed
    /// and how many were not; none for a client that does not confirm.
    pub(crate) fn keep_unconfirmed(&mut self, user: UserId, key: SessionKey) -> Option<(u64, u64)> {
        let at_ms = self.trusted_ms();
        let person = self.people.find(user)?;
        let unconfirmed = person.unconfirmed.take_if(|unconfirmed| unconfirmed.key == key)?;
        let account = (unconfirmed.confirmed, unconfirmed.under_way.len() as u64);
        for InFlight { mid, bytes, body } in unconfirmed.under_way {
            let Some(body) = body else { continue };
            if let Some(usage) = self.people.find(user).and_then(UserState::usage_mut) {
                usage.count += 1;
                usage.bytes += bytes as u64;
            }
            let keeping =
                BoxWrite { user, mid, at_ms, body, sent: true, ticket: None, accepted: None, reaches: None };
            self.batch.owe(PendingWrite::Keep(Box::new(keeping)));
        }
        Some(account)
    }

    /// A login that could not be committed never was: what was on its way to its client waits with the rest.
    pub(crate) fn hold_unconfirmed(&mut self, user: UserId) {
        let Some(person) = self.people.find(user) else { return };
        for InFlight { body, .. } in person.unconfirmed.take().into_iter().flat_map(|sent| sent.under_way) {
            // Without a body it lies in the box, or its batch has failed with the login's.
            if let Some(body) = body {
                person.hold(Chat::accepted(body, None));
            }
        }
    }

    /// Sends more of the box to a client that has room. `None` when the store cannot be read.
    pub(crate) fn refill_window(&mut self, user: UserId, sent: Mid) -> Option<()> {
        let window = self.policy.ack_window;
        let Some(unconfirmed) = self.people.find(user).and_then(|person| person.unconfirmed.as_deref())
        else {
            return Some(());
        };
        let (count, bytes) = unconfirmed.room(window);
        if count == 0 {
            return Some(());
        }
        let kept = self.batch.attempt(|store| store.kept(user, sent, count, bytes))?;
        let last = kept.last().map(|kept| kept.mid);
        let batch = self.batch.number();
        let person = self.people.find(user)?;
        let (session, unconfirmed) = (person.session.as_mut()?, person.unconfirmed.as_mut()?);
        // What comes meanwhile goes into the box, until a look behind the commit finds nothing there.
        session.backlog = last.map(Box::new);
        let Some(upto) = last else { return Some(()) };
        unconfirmed.send_kept(&kept);
        let key = (session.channel, session.number);
        let worker = self.around.table.worker(session.channel);
        session.addressed = Some(batch);
        // They go out behind the commit of their mark: a crash in between would have them come again without it.
        self.batch.attempt(|store| store.mark_sent(user, upto));
        let letters = kept.into_iter().map(|kept| letter(user, key, numbered_kept(kept))).collect();
        self.batch.then(AfterCommit::Refill { worker, letters, user, key, sent });
        Some(())
    }

    /// The batch that was to mark messages of the box as sent has failed: they never were, and are looked for again.
    pub(crate) fn unsend_kept(&mut self, user: UserId, key: SessionKey, sent: Mid) {
        let Some(person) = self.people.find(user) else { return };
        let Some(unconfirmed) = person.unconfirmed.as_mut().filter(|unconfirmed| unconfirmed.key == key)
        else {
            return;
        };
        unconfirmed.unsend_above(sent);
        if let Some(session) = &mut person.session {
            session.backlog = Some(Box::new(sent));
            self.refills.push(user);
            self.refill_at_us = self.now.mono_us + RETRY_US;
        }
    }
}

/// A message of the box as a client that confirms gets it.
pub(crate) fn numbered_kept(StoredMessage { mid, body, sent }: StoredMessage) -> Chat {
    Chat::copied(Body::Object(body.into()), None, OtherCopy::Unconfirmed { mid, again: sent })
}

fn numbered(user: UserId, key: SessionKey, chat: Chat, mid: Mid) -> WorkerCommand {
    let custody = OtherCopy::Unconfirmed { mid, again: false };
    letter(user, key, Chat { custody, ticket: None, told: OnFailure::Nobody, ..chat })
}

fn letter(user: UserId, (to, session): SessionKey, chat: Chat) -> WorkerCommand {
    WorkerCommand::Chat { to, session, user, chat, origin: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{ChannelId, SessionNo};

    fn sent(numbers: &[i64]) -> Unconfirmed {
        let mut unconfirmed = Unconfirmed::new((ChannelId { slot: 0, generation: 1 }, SessionNo(1)));
        for number in numbers {
            let body = (number % 2 == 1).then(|| Body::Object((*b"{}").into()));
            unconfirmed.send(Mid(*number), 2, body);
        }
        unconfirmed
    }

    #[test]
    fn a_confirmation_is_cumulative_and_says_what_it_takes_out_of_the_box() {
        let mut unconfirmed = sent(&[3, 4, 6, 7]);
        let stored = Some(Mid(4));
        let usage = BoxUsage { count: 1, bytes: 2 };
        let confirmation = Confirmation { stored, usage, is_doubtful: false };
        assert_eq!(unconfirmed.confirm(Mid(5)), confirmation);
        assert_eq!(unconfirmed.confirm(Mid(5)), Confirmation::default());
        assert_eq!((unconfirmed.confirmed, unconfirmed.under_way.len(), unconfirmed.bytes), (2, 2, 4));
    }

    #[test]
    fn the_window_is_bounded_in_messages_and_in_bytes() {
        let mut unconfirmed = sent(&[1, 2]);
        assert_eq!(unconfirmed.room(3).0, 1);
        assert_eq!(unconfirmed.room(2).0, 0);
        unconfirmed.send(Mid(3), UNDER_WAY_BYTES, None);
        assert_eq!(unconfirmed.room(9), (0, 0));
        unconfirmed.unsend(Mid(3));
        assert_eq!(unconfirmed.room(9).0, 7);
    }
}
