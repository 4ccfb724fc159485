//! Main's answers to requests: what a client hears of a login, a chat or another request.
//!
//! On main. An answer that promises storage goes out after the commit, and says errno 19 where that fails.

use super::context::Context;
use super::transaction::AfterCommit;
use crate::channel::ChannelId;
use crate::ids::{GroupId, UserId};
use crate::message::chat::{Chat, OnFailure};
use crate::message::command::WorkerCommand;
use crate::message::delivery::DeliveryTracker;
use crate::message::reply::Answer;
use crate::message::reply_to::{Completes, ReplyTo};
use crate::protocol::errno::Errno;
use crate::store::Storage;
use crate::sync::Arc;
use std::borrow::Cow;

impl<St: Storage, S: Send + 'static> Context<St, S> {
    /// A login or registration is refused.
    pub(super) fn refuse_login(&mut self, asker: &ReplyTo, errno: Errno) {
        self.post(asker.channel, refusal(asker, errno));
    }

    /// The same for a reason of its own.
    pub(super) fn refuse_login_saying(&mut self, asker: &ReplyTo, errno: Errno, text: &str) {
        self.post(asker.channel, refusal_saying(asker, errno, text.to_owned().into()));
    }

    /// A request without a ticket has succeeded, if the transaction is committed.
    pub(super) fn grant(&mut self, asker: &ReplyTo, id: Option<GroupId>) {
        let worker = self.handles.table.worker(asker.channel);
        let (channel, settles) = (asker.channel, Completes::Request);
        let done = |seq| Answer::Done { re: asker.re, seq, id, full: Vec::new() };
        let answer = asker.seq.clone().map(done);
        let command = WorkerCommand::Answer { channel, settles, answer };
        let otherwise = through(asker, Some(Errno::NotStored));
        self.then(AfterCommit::Commit { worker, command, otherwise: Box::new(otherwise) });
    }

    /// A request without a ticket has failed.
    pub(super) fn refuse_request(&mut self, asker: &ReplyTo, errno: Errno) {
        self.post(asker.channel, through(asker, Some(errno)));
    }

    /// The same, in other words than the errno's own.
    pub(super) fn refuse_request_saying(&mut self, asker: &ReplyTo, errno: Errno, text: String) {
        let (channel, settles) = (asker.channel, Completes::Request);
        let (re, seq) = (Some(asker.re), asker.seq.clone());
        let answer = Some(Answer::Error { errno, text: text.into(), re, seq });
        self.post(channel, WorkerCommand::Answer { channel, settles, answer });
    }

    /// The request is through main; those behind it may take the direct way again. A sender without `seq` hears
    /// nothing of a success, but of a commit that fails.
    pub(super) fn let_go_on(&mut self, asker: &ReplyTo, rests_on_commit: bool) {
        if rests_on_commit {
            self.then(AfterCommit::GoOn { asker: asker.clone() });
        } else {
            self.post(asker.channel, through(asker, None));
        }
    }

    /// A chat is refused as a whole.
    pub(super) fn refuse_chat(
        &mut self,
        asker: &ReplyTo,
        ticket: Option<Arc<DeliveryTracker>>,
        errno: Errno,
    ) {
        if let Some(ticket) = ticket {
            self.let_go_on(asker, false);
            self.then(AfterCommit::Failed { ticket, errno });
        } else {
            self.refuse_request(asker, errno);
        }
    }

    /// A copy of a chat could not be placed: its sender is told.
    pub(super) fn fail_copy(&mut self, user: UserId, chat: Chat, errno: Errno) {
        match (chat.ticket, chat.told) {
            (Some(ticket), OnFailure::Group) if errno == Errno::BoxFull => {
                self.mark_safe(&ticket, 1);
                self.then(AfterCommit::Full { ticket, user });
            }
            (Some(ticket), _) => self.then(AfterCommit::Failed { ticket, errno }),
            (None, OnFailure::Sender(asker)) => {
                let answer = Some(error(&asker, errno));
                let command =
                    WorkerCommand::Answer { channel: asker.channel, settles: Completes::Nothing, answer };
                self.post(asker.channel, command);
            }
            // A sender without `seq` has asked to hear of no member in particular.
            (None, OnFailure::Group) => {}
            (None, OnFailure::ByTicket | OnFailure::Nobody) => {
                tracing::error!(%user, "an accepted message could not be placed");
            }
        }
    }

    /// A copy that nobody has to get.
    pub(super) fn count_off(&mut self, ticket: Option<Arc<DeliveryTracker>>) {
        if let Some(ticket) = ticket {
            self.mark_safe(&ticket, 1);
            self.then(AfterCommit::CountOff { ticket, copies: 1 });
        }
    }

    /// Notes that so many more copies are safe, if the transaction is committed; the last one stores that the chat was
    /// accepted.
    pub(super) fn mark_safe(&mut self, ticket: &DeliveryTracker, copies: usize) {
        if let Some(accepted) = ticket.secure(copies) {
            let at_ms = self.trusted_ms();
            self.attempt(|store| accepted.write(store, at_ms));
        }
    }
}

/// A request is through main, with an error or without a word.
pub(super) fn through(asker: &ReplyTo, errno: Option<Errno>) -> WorkerCommand {
    let answer = errno.map(|errno| error(asker, errno));
    WorkerCommand::Answer { channel: asker.channel, settles: Completes::Request, answer }
}

/// A login or registration that is refused.
pub(super) fn refusal(asker: &ReplyTo, errno: Errno) -> WorkerCommand {
    refusal_saying(asker, errno, errno.text().into())
}

fn refusal_saying(asker: &ReplyTo, errno: Errno, text: Cow<'static, str>) -> WorkerCommand {
    login_answer(asker.channel, Answer::Refused { re: asker.re, errno, text, seq: asker.seq.clone() })
}

/// An answer to a login or registration.
pub(super) fn login_answer(channel: ChannelId, answer: Answer) -> WorkerCommand {
    WorkerCommand::Answer { channel, settles: Completes::Login, answer: Some(answer) }
}

fn error(asker: &ReplyTo, errno: Errno) -> Answer {
    Answer::Error { errno, text: errno.text().into(), re: Some(asker.re), seq: asker.seq.clone() }
}
