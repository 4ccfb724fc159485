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
    pub(super) fn refuse_login(&mut self, reply_to: &ReplyTo, errno: Errno) {
        self.post(reply_to.channel, refusal(reply_to, errno));
    }

    /// The same for a reason of its own.
    pub(super) fn refuse_login_saying(&mut self, reply_to: &ReplyTo, errno: Errno, text: &str) {
        self.post(reply_to.channel, refusal_saying(reply_to, errno, text.to_owned().into()));
    }

    /// A request without a tracker has succeeded, if the transaction is committed.
    pub(super) fn grant(&mut self, reply_to: &ReplyTo, id: Option<GroupId>) {
        let worker = self.handles.table.worker(reply_to.channel);
        let (channel, settles) = (reply_to.channel, Completes::Request);
        let done = |seq| Answer::Done { re: reply_to.re, seq, id, full: Vec::new() };
        let answer = reply_to.seq.clone().map(done);
        let command = WorkerCommand::Answer { channel, settles, answer };
        let otherwise = through(reply_to, Some(Errno::NotStored));
        self.then(AfterCommit::Commit { worker, command, otherwise: Box::new(otherwise) });
    }

    /// A request without a tracker has failed.
    pub(super) fn refuse_request(&mut self, reply_to: &ReplyTo, errno: Errno) {
        self.post(reply_to.channel, through(reply_to, Some(errno)));
    }

    /// The same, in other words than the errno's own.
    pub(super) fn refuse_request_saying(&mut self, reply_to: &ReplyTo, errno: Errno, text: String) {
        let (channel, settles) = (reply_to.channel, Completes::Request);
        let (re, seq) = (Some(reply_to.re), reply_to.seq.clone());
        let answer = Some(Answer::Error { errno, text: text.into(), re, seq });
        self.post(channel, WorkerCommand::Answer { channel, settles, answer });
    }

    /// The request is through main; those behind it may take the direct way again. A sender without `seq` hears
    /// nothing of a success, but of a commit that fails.
    pub(super) fn let_go_on(&mut self, reply_to: &ReplyTo, rests_on_commit: bool) {
        if rests_on_commit {
            self.then(AfterCommit::GoOn { reply_to: reply_to.clone() });
        } else {
            self.post(reply_to.channel, through(reply_to, None));
        }
    }

    /// A chat is refused as a whole.
    pub(super) fn refuse_chat(
        &mut self,
        reply_to: &ReplyTo,
        tracker: Option<Arc<DeliveryTracker>>,
        errno: Errno,
    ) {
        if let Some(tracker) = tracker {
            self.let_go_on(reply_to, false);
            self.then(AfterCommit::Failed { tracker, errno });
        } else {
            self.refuse_request(reply_to, errno);
        }
    }

    /// A copy of a chat could not be placed: its sender is told.
    pub(super) fn fail_copy(&mut self, user: UserId, chat: Chat, errno: Errno) {
        match (chat.tracker, chat.on_failure) {
            (Some(tracker), OnFailure::Group) if errno == Errno::BoxFull => {
                self.mark_safe(&tracker, 1);
                self.then(AfterCommit::Full { tracker, user });
            }
            (Some(tracker), _) => self.then(AfterCommit::Failed { tracker, errno }),
            (None, OnFailure::Sender(reply_to)) => {
                let answer = Some(error(&reply_to, errno));
                let command =
                    WorkerCommand::Answer { channel: reply_to.channel, settles: Completes::Nothing, answer };
                self.post(reply_to.channel, command);
            }
            // A sender without `seq` has asked to hear of no member in particular.
            (None, OnFailure::Group) => {}
            (None, OnFailure::ByTicket | OnFailure::Nobody) => {
                tracing::error!(%user, "an accepted message could not be placed");
            }
        }
    }

    /// A copy that nobody has to get.
    pub(super) fn count_off(&mut self, tracker: Option<Arc<DeliveryTracker>>) {
        if let Some(tracker) = tracker {
            self.mark_safe(&tracker, 1);
            self.then(AfterCommit::CountOff { tracker, copies: 1 });
        }
    }

    /// Notes that so many more copies are safe, if the transaction is committed; the last one stores that the chat was
    /// accepted.
    pub(super) fn mark_safe(&mut self, tracker: &DeliveryTracker, copies: usize) {
        if let Some(accepted) = tracker.secure(copies) {
            let at_ms = self.trusted_ms();
            self.attempt(|store| accepted.write(store, at_ms));
        }
    }
}

/// A request is through main, with an error or without a word.
pub(super) fn through(reply_to: &ReplyTo, errno: Option<Errno>) -> WorkerCommand {
    let answer = errno.map(|errno| error(reply_to, errno));
    WorkerCommand::Answer { channel: reply_to.channel, settles: Completes::Request, answer }
}

/// A login or registration that is refused.
pub(super) fn refusal(reply_to: &ReplyTo, errno: Errno) -> WorkerCommand {
    refusal_saying(reply_to, errno, errno.text().into())
}

fn refusal_saying(reply_to: &ReplyTo, errno: Errno, text: Cow<'static, str>) -> WorkerCommand {
    login_answer(
        reply_to.channel,
        Answer::Refused { re: reply_to.re, errno, text, seq: reply_to.seq.clone() },
    )
}

/// An answer to a login or registration.
pub(super) fn login_answer(channel: ChannelId, answer: Answer) -> WorkerCommand {
    WorkerCommand::Answer { channel, settles: Completes::Login, answer: Some(answer) }
}

fn error(reply_to: &ReplyTo, errno: Errno) -> Answer {
    Answer::Error { errno, text: errno.text().into(), re: Some(reply_to.re), seq: reply_to.seq.clone() }
}
