//! Messages to clients that confirm them (cap `ack`): sent under a number, confirmed, or kept when the session ends.
//!
//! On main. Every chat to such a client goes through here, so that there is one place that knows what is under way.
//! What does not fit into the window waits in the box. A chat with `seq` is in the box before it is sent: a crash
//! between its confirmation and the answer to its sender must not have it delivered again under another number.

use super::ack_window::AckWindow;
use super::offline_box::Placement;
use super::session_map::SessionKey;
use super::state::MainLoop;
use super::transaction::{AfterCommit, BoxWrite, PendingWrite};
use super::users::UserState;
use crate::ids::{Mid, UserId};
use crate::message::chat::{Body, Chat, OnFailure, OtherCopy};
use crate::message::command::WorkerCommand;
use crate::protocol::errno::Errno;
use crate::store::{Storage, StoredMessage};

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A session begins whose client confirms; it gets the oldest messages of the box with the login answer.
    pub(super) fn begin_confirming(&mut self, user: UserId, key: SessionKey, offline: &[StoredMessage]) {
        let mut unconfirmed = AckWindow::new(key);
        unconfirmed.send_kept(offline);
        let upto = unconfirmed.sent();
        if let Some(person) = self.users.find(user) {
            person.ack_window = Some(Box::new(unconfirmed));
        }
        if offline.iter().any(|kept| !kept.sent) {
            self.cx.attempt(|store| store.mark_sent(user, upto));
        }
    }

    /// Sends a chat to a client that confirms, if the window has room. Gives back what belongs into the box.
    pub(super) fn send_numbered(&mut self, user: UserId, chat: Chat) -> Result<Placement, Chat> {
        let window = self.cx.policy.ack_window;
        let Some(person) = self.users.find(user) else { return Err(chat) };
        let (Some(session), Some(unconfirmed)) = (person.session.as_mut(), person.ack_window.as_deref_mut())
        else {
            return Err(chat);
        };
        if session.backlog.is_some() || unconfirmed.room(window).0 == 0 {
            session.backlog.get_or_insert_with(|| Box::new(unconfirmed.sent()));
            return Err(chat);
        }
        let key = (session.channel, session.number);
        let worker = self.cx.handles.table.worker(session.channel);
        if self.cx.handles.worker_sender.is_full(worker) {
            self.cx.fail_copy(user, chat, Errno::Busy);
            return Ok(Placement::Elsewhere);
        }
        // In the words of the box from here on: what is counted is what the box holds, or would.
        let chat = Chat { body: Body::Object(chat.body.object()), ..chat };
        if chat.tracker.is_some() {
            return Ok(self.keep_and_send(user, chat, key, worker));
        }
        let Some(mid) = self.next_mid(user) else { return Ok(self.not_stored(user, chat)) };
        self.note_sent(user, mid, chat.body.size(), Some(chat.body.clone()));
        self.cx.then(AfterCommit::Post { worker, command: numbered(user, key, chat, mid) });
        Ok(Placement::Elsewhere)
    }

    /// A message is under way to the present session of a user, under that number.
    fn note_sent(&mut self, user: UserId, mid: Mid, bytes: usize, body: Option<Body>) {
        let transaction = self.cx.transaction.number();
        let Some(person) = self.users.find(user) else { return };
        if let Some(unconfirmed) = &mut person.ack_window {
            unconfirmed.send(mid, bytes, body);
        }
        if let Some(session) = &mut person.session {
            session.addressed = Some(transaction);
        }
    }

    /// A chat with `seq` goes into the box, and to its receiver when it is there.
    fn keep_and_send(&mut self, user: UserId, chat: Chat, key: SessionKey, worker: usize) -> Placement {
        let copy = chat.clone();
        let mid = match self.keep_numbered(user, chat, true) {
            Ok(mid) => mid,
            Err(placed) => return placed,
        };
        self.note_sent(user, mid, copy.body.size(), None);
        let command = numbered(user, key, copy, mid);
        self.cx.then(AfterCommit::Deliver { worker, command, user, key, mid });
        Placement::Elsewhere
    }

    /// The transaction that was to put a message into the box has failed: it was never sent.
    pub(super) fn unsend(&mut self, user: UserId, key: SessionKey, mid: Mid) {
        let unconfirmed = self.users.find(user).and_then(|person| person.ack_window.as_mut());
        if let Some(unconfirmed) = unconfirmed.filter(|unconfirmed| unconfirmed.is_of(key)) {
            unconfirmed.unsend(mid);
        }
    }

    /// The client has confirmed messages: those in the box are gone from it, and more may follow.
    pub(super) fn confirmed(&mut self, user: UserId, key: SessionKey) {
        let Some(upto) = self.cx.handles.table.take_confirmed(key.0) else { return };
        let window = self.cx.policy.ack_window;
        let Some(person) = self.users.find(user) else { return };
        let Some(unconfirmed) = person.ack_window.as_mut().filter(|unconfirmed| unconfirmed.is_of(key))
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
            self.cx.enqueue(PendingWrite::DropKept { user, upto });
        }
    }

    /// A session is over: what its client has not confirmed is in the box from now on. Answers how many were confirmed
    /// and how many were not; none for a client that does not confirm.
    pub(super) fn keep_unconfirmed(&mut self, user: UserId, key: SessionKey) -> Option<(u64, u64)> {
        let at_ms = self.cx.trusted_ms();
        let person = self.users.find(user)?;
        let unconfirmed = person.ack_window.take_if(|unconfirmed| unconfirmed.is_of(key))?;
        let account = unconfirmed.account();
        for (mid, bytes, body) in unconfirmed.into_unstored() {
            if let Some(usage) = self.users.find(user).and_then(UserState::usage_mut) {
                usage.count += 1;
                usage.bytes += bytes as u64;
            }
            let keeping =
                BoxWrite { user, mid, at_ms, body, sent: true, tracker: None, accepted: None, reaches: None };
            self.cx.enqueue(PendingWrite::Keep(Box::new(keeping)));
        }
        Some(account)
    }

    /// A login that could not be committed never was: what was on its way to its client waits with the rest.
    pub(super) fn hold_unconfirmed(&mut self, user: UserId) {
        let Some(person) = self.users.find(user) else { return };
        let Some(window) = person.ack_window.take() else { return };
        // What the box is to hold lies there, or its transaction has failed with the login's.
        for (_, _, body) in window.into_unstored() {
            person.hold(Chat::accepted(body, None));
        }
    }
}

/// A message of the box as a client that confirms gets it.
pub(super) fn numbered_kept(StoredMessage { mid, body, sent }: StoredMessage) -> Chat {
    Chat::copied(Body::Object(body.into()), None, OtherCopy::Unconfirmed { mid, again: sent })
}

/// A chat under its number.
fn numbered(user: UserId, key: SessionKey, chat: Chat, mid: Mid) -> WorkerCommand {
    let other_copy = OtherCopy::Unconfirmed { mid, again: false };
    chat_command(user, key, Chat { other_copy, tracker: None, on_failure: OnFailure::Nobody, ..chat })
}

/// The command that brings a chat to a session.
pub(super) fn chat_command(user: UserId, (to, session): SessionKey, chat: Chat) -> WorkerCommand {
    WorkerCommand::Chat { to, session, user, chat, origin: None }
}
