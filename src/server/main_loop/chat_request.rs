//! A request to send a chat: to a user by number or by name, or to a group; a repetition is answered with the first.
//!
//! On main.

use super::offline_box::Placement;
use super::state::MainLoop;
use super::transaction::AfterCommit;
use crate::ids::{GroupId, UserId};
use crate::message::chat::{Chat, OnFailure, OtherCopy};
use crate::message::delivery::DeliveryTracker;
use crate::message::request::{Destination, Message};
use crate::protocol::errno::Errno;
use crate::protocol::name::MAX_NAME_CHARS;
use crate::store::{DedupRecord, Storage};
use crate::sync::Arc;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A chat to one user or to a group.
    pub(super) fn chat(&mut self, message: &Message) {
        let tracker = match message.fingerprint {
            None => None,
            Some(fingerprint) => match self.new_ticket(message, fingerprint) {
                Some(tracker) => Some(tracker),
                None => return,
            },
        };
        match &message.to {
            Destination::User(user) => self.chat_to_user(*user, message, tracker),
            Destination::Group(group) => self.chat_to_group(*group, message, tracker),
            Destination::Name(name) => self.chat_to_name(name, message, tracker),
        }
    }

    /// A tracker for a chat with `seq`; none for a repetition, which is answered with the first.
    fn new_ticket(&mut self, message: &Message, fingerprint: u128) -> Option<Arc<DeliveryTracker>> {
        let reply_to = message.reply_to.clone();
        let now_us = self.cx.now.mono_us;
        let acceptance = DedupRecord { sender: message.from, fingerprint };
        let known = self.dedup.find(acceptance, now_us);
        if let Some(known) = &known {
            let late = known.join(reply_to).err();
            if late.is_none() || known.succeeded() {
                self.cx.let_go_on(&message.reply_to, false);
                if let Some(reply_to) = late {
                    self.cx.then(AfterCommit::Safe { tracker: known.for_repetition(reply_to), copies: 1 });
                }
                return None;
            }
        }
        let tracker = DeliveryTracker::new(message.reply_to.clone(), Some(acceptance));
        if known.is_some_and(|failed| failed.has_notes()) {
            tracker.expect_notes();
        }
        self.dedup.remember(acceptance, &tracker, now_us);
        Some(tracker)
    }

    fn chat_to_name(&mut self, name: &str, message: &Message, tracker: Option<Arc<DeliveryTracker>>) {
        let online = self.cx.handles.registry.named(name);
        let found = match online {
            Some(user) => Some(Some(user)),
            None => self.cx.attempt(|store| Ok(store.user_called(name)?.map(|row| row.id))),
        };
        match found {
            None => self.cx.refuse_chat(&message.reply_to, tracker, Errno::NotStored),
            Some(Some(user)) => self.chat_to_user(user, message, tracker),
            Some(None) => {
                // Nobody has a longer name, and the error may not be longer than what was sent.
                let text: String =
                    "no such user: ".chars().chain(name.chars().take(MAX_NAME_CHARS)).collect();
                self.cx.refuse_request_saying(&message.reply_to, Errno::NoSuchUser, text);
            }
        }
    }

    fn chat_to_user(&mut self, user: UserId, message: &Message, tracker: Option<Arc<DeliveryTracker>>) {
        let reply_to = &message.reply_to;
        let fault = match self.users.find_or_load(&mut self.cx, user) {
            Err(_) => Some(Errno::NotStored),
            Ok(None) => Some(Errno::NoSuchUser),
            Ok(Some(_)) => None,
        };
        if let Some(errno) = fault {
            return self.cx.refuse_chat(reply_to, tracker, errno);
        }
        let on_failure = if tracker.is_some() {
            OnFailure::ByTicket
        } else {
            OnFailure::Sender(Box::new(reply_to.clone()))
        };
        let answered = tracker.clone();
        let placed = self.deliver(
            user,
            Chat {
                body: message.body.clone().addressed_to(user),
                group: None,
                tracker,
                other_copy: OtherCopy::Here,
                on_failure,
            },
        );
        match answered {
            // It is settled with this transaction.
            Some(tracker) if placed != Placement::Elsewhere => tracker.answer_lets_go_on(),
            answered => self.cx.let_go_on(reply_to, answered.is_none() && placed == Placement::Kept),
        }
    }

    fn chat_to_group(&mut self, group: GroupId, message: &Message, tracker: Option<Arc<DeliveryTracker>>) {
        let reply_to = &message.reply_to;
        let known = match self.group_cache.find(&mut self.cx, group) {
            Ok(Some(known)) => known,
            Ok(None) => return self.cx.refuse_chat(reply_to, tracker, Errno::NoSuchGroup),
            Err(_) => return self.cx.refuse_chat(reply_to, tracker, Errno::NotStored),
        };
        if known.members.binary_search(&message.from).is_err() {
            return self.cx.refuse_chat(reply_to, tracker, Errno::NotMember);
        }
        if self.cx.is_a_worker_full() {
            return self.cx.refuse_chat(reply_to, tracker, Errno::Busy);
        }
        self.fan_out(message, known, tracker);
    }
}
