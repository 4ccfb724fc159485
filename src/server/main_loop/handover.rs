//! What lies in a box goes to its user: with the login answer, and then piece by piece as the client takes it over.
//!
//! On main.

use super::ack_delivery::{chat_command, numbered_kept};
use super::session_map::SessionKey;
use super::state::MainLoop;
use super::transaction::{AfterCommit, PendingWrite, RETRY_US};
use crate::channel::{ChannelId, SessionNo};
use crate::ids::{Mid, UserId};
use crate::message::chat::{Body, Chat, OtherCopy};
use crate::message::command::WorkerCommand;
use crate::protocol::chat_object::read_delivered;
use crate::store::{Storage, StoredMessage};
use crate::sync::Arc;

/// What one login answer, or one refill after it, takes out of the box at most, in bytes of bodies.
pub(crate) const HANDOVER_BYTES: usize = 256 * 1024;
/// The same in messages.
pub(crate) const HANDOVER_COUNT: usize = 4096;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// The oldest messages of a box, and whether there are more.
    pub(super) fn open_box(&mut self, user: UserId) -> (Vec<StoredMessage>, bool) {
        let Some(usage) = self.box_usage(user) else { return (Vec::new(), false) };
        if usage.count == 0 {
            return (Vec::new(), false);
        }
        let kept = self.cx.attempt(|store| store.kept(user, Mid(0), HANDOVER_COUNT, HANDOVER_BYTES));
        let kept = kept.unwrap_or_default();
        if kept.first().is_some_and(|kept| kept.body.len() > HANDOVER_BYTES) {
            // It has no place in an answer, and follows.
            return (Vec::new(), true);
        }
        // Others may have taken rows out; then there is nothing to wait for.
        let more = !kept.is_empty() && (kept.len() as u64) < usage.count;
        (kept, more)
    }

    /// True exactly when a session has begun whose box is not empty, and whose answer held nothing of it.
    pub(super) fn has_had_none_of_its_box(&self, user: UserId) -> bool {
        let session = self.users.look(user).and_then(|person| person.session.as_ref());
        session.is_some_and(|session| session.backlog.as_deref() == Some(&Mid(0)))
    }

    /// A channel has taken over messages of its user's box: they are gone from it, and more may follow.
    pub(super) fn taken_over(&mut self, user: UserId, key: (ChannelId, SessionNo), upto: Mid) {
        self.cx.enqueue(PendingWrite::DropKept { user, upto });
        let Some(person) = self.users.find(user) else { return };
        person.forget_usage();
        if let Some(session) = &person.session
            && (session.channel, session.number) == key
            && session.backlog.as_deref().is_some_and(|sent| *sent <= upto)
        {
            self.refills.push(user);
        }
    }

    /// Sends more of the box to those who have taken over all they were sent.
    pub(super) fn refill(&mut self) {
        let mut is_readable = true;
        for user in self.refills.take(self.cx.now.mono_us) {
            is_readable = is_readable && self.refill_one(user).is_some();
            if !is_readable {
                // The next turn tries again.
                self.refills.push(user);
            }
        }
    }

    fn refill_one(&mut self, user: UserId) -> Option<()> {
        let session = self.users.find(user).and_then(|person| person.session.as_ref());
        let Some((session, sent)) = session.and_then(|session| Some((session, *session.backlog.as_deref()?)))
        else {
            return Some(());
        };
        if session.confirms {
            return self.refill_window(user, sent);
        }
        let (channel, number) = (session.channel, session.number);
        let worker = self.cx.handles.table.worker(channel);
        let lines = session.lines;
        let kept = self.cx.attempt(|store| store.kept(user, sent, HANDOVER_COUNT, HANDOVER_BYTES))?;
        let last = kept.last().map(|kept| kept.mid);
        let mut commands: Vec<WorkerCommand> = self
            .chats_of(kept, lines)
            .into_iter()
            .map(|chat| chat_command(user, (channel, number), chat))
            .collect();
        if last.is_none() {
            commands.push(WorkerCommand::Open { channel, session: number });
        }
        if let Some(session) = self.users.find(user).and_then(|person| person.session.as_mut()) {
            session.backlog = last.map(Box::new);
        }
        self.post_now(worker, &mut commands);
        Some(())
    }

    /// Sends more of the box to a client that has room. `None` when the store cannot be read.
    fn refill_window(&mut self, user: UserId, sent: Mid) -> Option<()> {
        let window = self.cx.policy.ack_window;
        let Some(unconfirmed) = self.users.find(user).and_then(|person| person.ack_window.as_deref()) else {
            return Some(());
        };
        let (count, bytes) = unconfirmed.room(window);
        if count == 0 {
            return Some(());
        }
        let kept = self.cx.attempt(|store| store.kept(user, sent, count, bytes))?;
        let last = kept.last().map(|kept| kept.mid);
        let transaction = self.cx.transaction.number();
        let person = self.users.find(user)?;
        let (session, unconfirmed) = (person.session.as_mut()?, person.ack_window.as_mut()?);
        // What comes meanwhile goes into the box, until a look behind the commit finds nothing there.
        session.backlog = last.map(Box::new);
        let Some(upto) = last else { return Some(()) };
        unconfirmed.send_kept(&kept);
        let key = (session.channel, session.number);
        let worker = self.cx.handles.table.worker(session.channel);
        session.addressed = Some(transaction);
        // They go out behind the commit of their mark: a crash in between would have them come again without it.
        self.cx.attempt(|store| store.mark_sent(user, upto));
        let commands = kept.into_iter().map(|kept| chat_command(user, key, numbered_kept(kept))).collect();
        self.cx.then(AfterCommit::Refill { worker, commands, user, key, sent });
        Some(())
    }

    /// The transaction that was to mark messages of the box as sent has failed: they never were, and are looked for again.
    pub(super) fn unsend_kept(&mut self, user: UserId, key: SessionKey, sent: Mid) {
        let Some(person) = self.users.find(user) else { return };
        let Some(unconfirmed) = person.ack_window.as_mut().filter(|unconfirmed| unconfirmed.is_of(key))
        else {
            return;
        };
        unconfirmed.unsend_above(sent);
        if let Some(session) = &mut person.session {
            session.backlog = Some(Box::new(sent));
            self.refills.push(user);
            self.refills.hold_back(self.cx.now.mono_us + RETRY_US);
        }
    }

    /// Chats that lie in a box, with the names of their groups for a client that speaks lines.
    pub(super) fn chats_of(&mut self, kept: Vec<StoredMessage>, lines: bool) -> Vec<Chat> {
        kept.into_iter()
            .map(|kept| {
                let group = lines.then(|| read_delivered(&kept.body)?.groupid).flatten();
                let known = group.and_then(|group| self.group_cache.find(&mut self.cx, group).ok().flatten());
                let group = known.map(|known| Arc::clone(&known.name));
                Chat::copied(Body::Object(kept.body.into()), group, OtherCopy::Box(kept.mid))
            })
            .collect()
    }
}
