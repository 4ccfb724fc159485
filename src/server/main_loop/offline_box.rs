//! A user's offline box, as main fills it: what it holds, the next number in it, one message more.
//!
//! On main.

use super::state::MainLoop;
use super::transaction::{AfterCommit, BoxWrite, PendingWrite};
use crate::ids::{Mid, UserId};
use crate::message::chat::{Body, Chat};
use crate::protocol::errno::Errno;
use crate::store::{BoxCopy, BoxUsage, COPY_BYTES, Storage};

/// Where a chat has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placement {
    /// Into the box, if the transaction is committed.
    Kept,
    /// Nowhere, for the transaction has failed already.
    NotStored,
    /// Somewhere else, or nowhere and its sender has been told.
    Elsewhere,
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// What a box holds. `None` when the transaction has failed.
    pub(super) fn box_usage(&mut self, user: UserId) -> Option<BoxUsage> {
        if let Some(usage) = self.users.find(user)?.usage() {
            return Some(usage);
        }
        let usage = self.cx.attempt(|store| store.box_usage(user))?;
        self.users.find(user)?.remember_usage(usage);
        Some(usage)
    }

    /// The next number in a box. The epoch it belongs to is written first where this run has not begun one.
    pub(super) fn next_mid(&mut self, user: UserId) -> Option<Mid> {
        if self.users.find_or_load(&mut self.cx, user).is_err() {
            return None;
        }
        let unix_ms = self.cx.now.unix_ms;
        let person = self.users.find(user)?;
        if !person.has_numbers() {
            let epoch = person.go_on_in_next_epoch(unix_ms);
            self.cx.attempt(|store| store.set_epoch(user, epoch))?;
        }
        Some(self.users.find(user)?.number())
    }

    /// Puts a chat into a box, if there is room.
    pub(super) fn keep(&mut self, user: UserId, chat: Chat) -> Placement {
        self.keep_numbered(user, chat, false).map_or_else(|placed| placed, |_| Placement::Kept)
    }

    /// The same, and whether it is sent to a client that confirms as soon as it is there. Answers its number, or where
    /// it has come to instead.
    pub(super) fn keep_numbered(&mut self, user: UserId, chat: Chat, sent: bool) -> Result<Mid, Placement> {
        let Some(usage) = self.box_usage(user) else { return Err(self.not_stored(user, chat)) };
        let object = chat.body.object();
        let usage = match self.with_one_more(usage, &object) {
            Err(Errno::NotStored) => return Err(self.not_stored(user, chat)),
            Err(errno) => {
                self.cx.fail_copy(user, chat, errno);
                return Err(Placement::Elsewhere);
            }
            Ok(usage) => usage,
        };
        let at_ms = self.cx.trusted_ms();
        let Some(mid) = self.next_mid(user) else { return Err(self.not_stored(user, chat)) };
        // A chat to a group goes into all boxes of a part together.
        let is_part = self.fan_outs.collect(BoxCopy { user, mid, sent });
        if !is_part {
            self.cx.transaction.count_bytes(object.len());
            if self.cx.attempt(|store| store.keep(user, mid, at_ms, &object, sent)).is_none() {
                return Err(self.not_stored(user, chat));
            }
        }
        if let Some(person) = self.users.find(user) {
            person.remember_usage(usage);
        }
        self.cx.handles.metrics.chats_kept.add(1);
        if let Some(tracker) = chat.tracker.filter(|_| !is_part) {
            self.cx.mark_safe(&tracker, 1);
            self.cx.then(AfterCommit::Safe { tracker, copies: 1 });
        }
        Ok(mid)
    }

    /// What a box holds with one more message. An error where that is too much for it, or for all boxes together.
    pub(super) fn with_one_more(&mut self, usage: BoxUsage, object: &[u8]) -> Result<BoxUsage, Errno> {
        let more = usage.with(object);
        if more.count > self.cx.policy.box_messages || more.bytes > self.cx.policy.box_bytes {
            return Err(Errno::BoxFull);
        }
        let collected = self.fan_outs.bytes_collected();
        // Its body is counted already where others of the same part have it.
        let bytes = COPY_BYTES + if collected > 0 { 0 } else { object.len() as u64 };
        let all = self.cx.attempt(St::kept_bytes).ok_or(Errno::NotStored)?;
        if all + collected + bytes <= self.cx.policy.box_total { Ok(more) } else { Err(Errno::BoxFull) }
    }

    /// A copy could not be stored, because the transaction has failed.
    pub(super) fn not_stored(&mut self, user: UserId, chat: Chat) -> Placement {
        if !self.fan_outs.tries_again() {
            self.cx.fail_copy(user, chat, Errno::NotStored);
        }
        Placement::NotStored
    }

    /// An accepted message goes to the box, whatever the box holds.
    pub(super) fn keep_accepted(&mut self, user: UserId, chat: Chat) {
        let (at_ms, unix_ms) = (self.cx.trusted_ms(), self.cx.now.unix_ms);
        let Ok(Some(person)) = self.users.find_or_load(&mut self.cx, user) else {
            tracing::error!(%user, "an accepted message has no receiver's row to be kept for");
            return;
        };
        let object = chat.body.object();
        if let Some(usage) = person.usage_mut() {
            *usage = usage.with(&object);
        }
        let begun = (!person.has_numbers()).then(|| person.go_on_in_next_epoch(unix_ms));
        let mid = person.number();
        if let Some(epoch) = begun {
            self.cx.enqueue(PendingWrite::Epoch { user, epoch });
        }
        let accepted = chat.tracker.as_ref().and_then(|tracker| tracker.secure(1));
        let reaches = chat.tracker.as_ref().and_then(|tracker| tracker.note_reached());
        self.cx.enqueue(PendingWrite::Keep(Box::new(BoxWrite {
            user,
            mid,
            at_ms,
            body: Body::Object(object),
            sent: false,
            tracker: chat.tracker,
            accepted,
            reaches,
        })));
    }
}
