//! A chat on its way to one receiver: to the receiver's channel, into the box, or held until a delivery report comes.
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

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Brings a chat to its receiver's channel or into the box, or holds it while a delivery report is awaited.
    pub(super) fn deliver(&mut self, user: UserId, chat: Chat) -> Placement {
        match self.send(user, chat) {
            Ok(placed) => placed,
            Err(chat) => self.keep(user, chat),
        }
    }

    /// The same for a chat that has waited. Its sender has gone on, so a failed commit does not give up its way into the box.
    pub(super) fn deliver_held(&mut self, user: UserId, chat: Chat) {
        let Err(chat) = self.send(user, chat) else { return };
        let usage = if matches!(chat.on_failure, OnFailure::Nobody) { None } else { self.box_usage(user) };
        if usage.is_some_and(|usage| self.with_one_more(usage, &chat.body.object()) == Err(Errno::BoxFull)) {
            return self.cx.fail_copy(user, chat, Errno::BoxFull);
        }
        self.cx.handles.metrics.chats_kept.add(1);
        self.keep_accepted(user, chat);
    }

    /// Has a chat wait, or sends it to its receiver's channel. Gives back what belongs into the box.
    fn send(&mut self, user: UserId, chat: Chat) -> Result<Placement, Chat> {
        let transaction = self.cx.transaction.number();
        let Some(person) = self.users.find(user) else { return Err(chat) };
        if person.holds_messages() {
            if person.holds_too_many() && !matches!(chat.on_failure, OnFailure::Nobody) {
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
        if self.cx.handles.worker_sender.is_full(worker) {
            self.cx.fail_copy(user, chat, Errno::Busy);
            return Ok(Placement::Elsewhere);
        }
        session.addressed = Some(transaction);
        // Should the session be over by then, or its login not be committed, the command comes back.
        let command = chat_command(user, (channel, number), chat);
        self.cx.then(AfterCommit::Post { worker, command });
        Ok(Placement::Elsewhere)
    }

    /// A command came back because its session has ended: its departure is on its way through the queue.
    pub(super) fn came_back(&mut self, command: WorkerCommand) {
        let WorkerCommand::Chat { to, session, user, chat, .. } = command else { return };
        let Some(person) = self.users.find(user) else { return };
        if let Some(present) = &mut person.session
            && (present.channel, present.number) == (to, session)
        {
            present.gone = true;
        }
        if chat.other_copy == OtherCopy::Here {
            person.hold(chat);
        }
        if !person.holds_messages() {
            // The session never was: its login could not be committed.
            self.followups.push_back(Followup::Release(user));
        }
    }

    /// Posts commands at once.
    pub(super) fn post_now(&mut self, worker: usize, commands: &mut Vec<WorkerCommand>) {
        let mut refused = Vec::new();
        self.cx.handles.worker_sender.post(worker, commands, &mut refused);
        for command in refused {
            self.came_back(command);
        }
    }

    /// Messages to a session that are not posted yet wait from now on with those that come after them.
    pub(super) fn take_back_unposted(&mut self, user: UserId) {
        let transaction = self.cx.transaction.number();
        let Some(person) = self.users.find(user) else { return };
        let Some(session) = person.session.as_mut().filter(|session| session.addressed == Some(transaction))
        else {
            return;
        };
        session.addressed = None;
        let key = (session.channel, session.number);
        for chat in self.cx.transaction.take_back(key) {
            person.hold(chat);
        }
    }
}
