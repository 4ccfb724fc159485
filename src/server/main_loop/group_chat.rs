//! A group chat is handed out in parts, a share in each turn of main, as `fan_out` has them wait.
//!
//! On main.

use super::fan_out::{Ended, FanOut};
use super::group_cache::CachedGroup;
use super::offline_box::Placement;
use super::state::{Followup, MainLoop};
use super::transaction::AfterCommit;
use crate::ids::UserId;
use crate::message::delivery::DeliveryTracker;
use crate::message::request::{Ask, Message};
use crate::protocol::errno::Errno;
use crate::store::{BoxCopy, Storage};
use crate::sync::Arc;

/// What a copy costs whose receiver has to be read from the store first, in copies.
const COLD_COST: usize = if cfg!(test) { 2 } else { 8 };
/// Bytes handed to a worker that cost as much as a copy: the worker copies them once for each receiver.
const BYTES_HANDED: usize = 8 * 1024;
/// Bytes stored that cost as much as a copy.
const BYTES_STORED: usize = 1024;
/// Copies from which on a short body is stored once for all of them rather than with each.
const SHARED_MIN: usize = 8;
/// The same for a body of more bytes than that.
const LONG_BODY_BYTES: usize = 512;
const SHARED_LONG_MIN: usize = 2;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A chat to a group whose sender is a member of it.
    pub(super) fn fan_out(
        &mut self,
        message: &Message,
        group: Arc<CachedGroup>,
        tracker: Option<Arc<DeliveryTracker>>,
    ) {
        if self.fan_outs.is_full() {
            return self.cx.refuse_chat(&message.reply_to, tracker, Errno::Busy);
        }
        let mut reached = Vec::new();
        if let Some(tracker) = &tracker {
            if tracker.has_notes()
                && let Some(acceptance) = tracker.note_reached()
            {
                let Some(noted) = self.cx.attempt(|store| store.reached(acceptance)) else {
                    return self.cx.refuse_chat(
                        &message.reply_to,
                        Some(Arc::clone(tracker)),
                        Errno::NotStored,
                    );
                };
                reached = noted;
            }
            // The tracker's own copy is counted off last, so that it cannot settle before all are counted in.
            tracker.expect_more(group.members.len() - 1);
        }
        let mut fan_out = FanOut::new(message, group, tracker, reached);
        let mut left = self.fan_outs.left();
        self.hand_out(&mut fan_out, &mut left);
        self.fan_outs.set_left(left);
        if !fan_out.is_handed_out() {
            self.note_reached(&fan_out, 0);
            return self.fan_outs.wait(fan_out);
        }
        self.cx.let_go_on(&fan_out.reply_to, fan_out.tracker.is_none() && fan_out.rests_on_commit);
        self.cx.count_off(fan_out.tracker.clone());
        self.note_reached(&fan_out, 0);
    }

    /// Notes which members have their copies from the transaction under way, from that one of them on, unless it stores
    /// that the chat is accepted.
    fn note_reached(&mut self, chat: &FanOut, from: usize) {
        let members = &chat.in_batch[from..];
        if !members.is_empty()
            && let Some(acceptance) = chat.tracker.as_ref().and_then(|tracker| tracker.note_reached())
        {
            let at_ms = self.cx.trusted_ms();
            self.cx.attempt(|store| store.note_reached(acceptance, at_ms, members));
        }
    }

    /// Has a request wait while a chat of its user is under way. Gives back what need not wait.
    pub(super) fn wait_in_line(&mut self, user: UserId, ask: Ask) -> Option<Ask> {
        let ask = self.fan_outs.wait_in_line(user, ask)?;
        if let Ask::Chat(message) = &ask
            && self.fan_outs.is_under_way(user)
        {
            let tracker = message.fingerprint.map(|_| DeliveryTracker::new(message.reply_to.clone(), None));
            self.cx.refuse_chat(&message.reply_to, tracker, Errno::Busy);
            return None;
        }
        Some(ask)
    }

    /// Hands out more of the chats under way, some of each.
    pub(super) fn go_on_handing_out(&mut self) {
        let Some((share, mut left)) = self.fan_outs.begin_turn(self.cx.is_a_worker_full()) else { return };
        for _ in 0..self.fan_outs.waiting() {
            if left == 0 {
                return;
            }
            let Some(mut chat) = self.fan_outs.take_next() else { continue };
            let may_cost = share.min(left);
            let mut unspent = may_cost;
            let before = chat.in_batch.len();
            self.hand_out(&mut chat, &mut unspent);
            self.note_reached(&chat, before);
            left -= may_cost - unspent;
            self.fan_outs.put_back(chat);
        }
    }

    /// Hands out a part that costs no more than `left`, but for its last copy.
    fn hand_out(&mut self, chat: &mut FanOut, left: &mut usize) {
        let body_bytes = chat.body.size();
        self.fan_outs.begin_part(body_bytes, chat.begun);
        if *left > 0 {
            chat.begin_part();
        }
        while *left > 0
            && let Some(member) = chat.next()
        {
            if chat.reached.binary_search(&member).is_ok() {
                self.cx.count_off(chat.tracker.clone());
                *left -= 1;
                continue;
            }
            let is_known = self.users.look(member).is_some_and(|person| {
                person.session.is_some() || person.has_numbers() && person.usage().is_some()
            });
            let collected = self.fan_outs.bytes_collected();
            let found = self.users.find_or_load(&mut self.cx, member).map(|found| found.is_some());
            let placed = match found {
                Ok(true) => self.deliver(member, chat.copy()),
                Ok(false) => {
                    self.cx.count_off(chat.tracker.clone());
                    Placement::Elsewhere
                }
                Err(_) => self.not_stored(member, chat.copy()),
            };
            if placed == Placement::NotStored && chat.begun {
                chat.try_again(member);
                break;
            }
            chat.rests_on_commit |= placed != Placement::Elsewhere;
            let is_handed = self.fan_outs.bytes_collected() == collected;
            let cost =
                if is_known { 1 } else { COLD_COST } + if is_handed { body_bytes / BYTES_HANDED } else { 0 };
            *left = left.saturating_sub(cost);
        }
        let copies = self.fan_outs.end_part();
        if !copies.is_empty() {
            *left = left.saturating_sub(body_bytes / BYTES_STORED);
            self.keep_part(chat, &copies);
        }
    }

    /// Puts the copies of a part into their boxes.
    fn keep_part(&mut self, chat: &mut FanOut, copies: &[BoxCopy]) {
        let (object, at_ms) = (chat.body.object(), self.cx.trusted_ms());
        self.cx.transaction.count_bytes(object.len());
        let shared_min = if object.len() > LONG_BODY_BYTES { SHARED_LONG_MIN } else { SHARED_MIN };
        self.cx.attempt(|store| {
            if copies.len() >= shared_min {
                return store.keep_copies(copies, at_ms, &object);
            }
            copies.iter().try_for_each(|copy| store.keep(copy.user, copy.mid, at_ms, &object, copy.sent))
        });
        chat.in_batch.extend(copies.iter().map(|copy| copy.user));
        let Some(tracker) = &chat.tracker else { return };
        let count = copies.len();
        self.cx.mark_safe(tracker, count);
        let tracker = Arc::clone(tracker);
        self.cx.then(if chat.begun {
            AfterCommit::SafeOrAgain { tracker, copies: count }
        } else {
            AfterCommit::Safe { tracker, copies: count }
        });
    }

    /// The transaction is over. Chats that are with all members by now let their senders go on; those of which nothing
    /// is committed fail. What has waited behind them has its turn.
    pub(super) fn end_parts(&mut self, committed: bool) {
        for Ended { mut chat, behind } in self.fan_outs.end_turn(committed) {
            let has_failed = !chat.begun;
            let rest = chat.rest();
            let FanOut { reply_to, tracker, .. } = *chat;
            match tracker {
                // The copies of the first part have failed by themselves.
                Some(tracker) if has_failed => {
                    self.cx.let_go_on(&reply_to, false);
                    self.cx.then(AfterCommit::CountOff { tracker: Arc::clone(&tracker), copies: rest });
                    self.cx.then(AfterCommit::Failed { tracker, errno: Errno::NotStored });
                }
                None if has_failed => self.cx.refuse_request(&reply_to, Errno::NotStored),
                tracker => {
                    self.cx.let_go_on(&reply_to, false);
                    self.cx.count_off(tracker);
                }
            }
            self.followups.extend(behind.into_iter().map(Followup::Request));
        }
    }
}
