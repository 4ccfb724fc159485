//! A chat on its way to one receiver: to the receiver's channel, behind a settlement that is awaited, or into the box.
//!
//! On main.

use super::ack_delivery::chat_command;
use super::offline_box::Placement;
use super::state::{Followup, MainLoop};
use super::transaction::AfterCommit;
use crate::ids::UserId;
use crate::message::chat::{Chat, OnFailure, OtherCopy};
use crate::message::command::WorkerCommand;
use crate::protocol::errno::Errno;
use crate::store::Storage;
use crate::sync::Arc;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Brings a chat to where its receiver is: a channel, a settlement that is awaited, or the box.
    pub(super) fn place(&mut self, user: UserId, chat: Chat) -> Placement {
        match self.forward(user, chat) {
            Ok(placed) => placed,
            Err(chat) => self.keep(user, chat),
        }
    }

    /// The same for a chat that has waited. Its sender has gone on, so that its way into the box is not given up.
    pub(super) fn place_held(&mut self, user: UserId, chat: Chat) {
        let Err(chat) = self.forward(user, chat) else { return };
        let usage = if matches!(chat.told, OnFailure::Nobody) { None } else { self.box_usage(user) };
        if usage.is_some_and(|usage| self.with_one_more(usage, &chat.body.object()) == Err(Errno::BoxFull)) {
            return self.cx.fail_copy(user, chat, Errno::BoxFull);
        }
        self.cx.handles.metrics.chats_kept.add(1);
        self.save(user, chat);
    }

    /// Has a chat wait, or sends it to its receiver's channel. Gives back what belongs into the box.
    fn forward(&mut self, user: UserId, chat: Chat) -> Result<Placement, Chat> {
        let batch = self.cx.transaction.number();
        let outlet = Arc::clone(&self.cx.handles.outlet);
        let Some(person) = self.users.find(user) else { return Err(chat) };
        if person.holds_messages() {
            if person.holds_too_many() && !matches!(chat.told, OnFailure::Nobody) {
                self.cx.fail_copy(user, chat, Errno::Busy);
            } else {
                person.hold(chat);
            }
            return Ok(Placement::Elsewhere);
        }
        if person.ack_window.is_some() {
            return self.send_numbered(user, chat);
        }
        let Some(session) = person.session.as_mut().filter(|session| session.backlog.is_none()) else {
            return Err(chat);
        };
        let (channel, number) = (session.channel, session.number);
        let worker = self.cx.handles.table.worker(channel);
        if outlet.is_full(worker) {
            self.cx.fail_copy(user, chat, Errno::Busy);
            return Ok(Placement::Elsewhere);
        }
        session.addressed = Some(batch);
        // Should the session be over by then, or its login not be committed, the letter comes back.
        let letter = chat_command(user, (channel, number), chat);
        self.cx.then(AfterCommit::Post { worker, letter });
        Ok(Placement::Elsewhere)
    }

    /// A letter came back because its session has ended: its departure is on its way through the queue.
    pub(super) fn came_back(&mut self, letter: WorkerCommand) {
        let WorkerCommand::Chat { to, session, user, chat, .. } = letter else { return };
        let Some(person) = self.users.find(user) else { return };
        if let Some(present) = &mut person.session
            && (present.channel, present.number) == (to, session)
        {
            present.gone = true;
        }
        if chat.custody == OtherCopy::Here {
            person.hold(chat);
        }
        if !person.holds_messages() {
            // The session never was: its login could not be committed.
            self.followups.push_back(Followup::Release(user));
        }
    }

    /// Letters that hang on no batch.
    pub(super) fn post_now(&mut self, worker: usize, letters: &mut Vec<WorkerCommand>) {
        let mut refused = Vec::new();
        self.cx.handles.outlet.post(worker, letters, &mut refused);
        for letter in refused {
            self.came_back(letter);
        }
    }

    /// Messages to a session that are not posted yet wait from now on with those that come after them.
    pub(super) fn recall_letters(&mut self, user: UserId) {
        let batch = self.cx.transaction.number();
        let Some(person) = self.users.find(user) else { return };
        let Some(session) = person.session.as_mut().filter(|session| session.addressed == Some(batch)) else {
            return;
        };
        session.addressed = None;
        let key = (session.channel, session.number);
        for chat in self.cx.transaction.take_back(key) {
            person.hold(chat);
        }
    }
}
