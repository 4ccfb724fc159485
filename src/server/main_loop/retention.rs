//! Main's removal of what is old: rows of the history, messages in boxes, bans and tokens that are over.
//!
//! Owned by main, a bounded number a turn. The history is looked at from its oldest row on. The boxes are walked user
//! by user, from one look to the next: they have no index on age, which every message kept would pay for, whereas the
//! walk costs one seek for each user with a box, and nobody waits for it. So a message may lie a few minutes longer
//! than its age, and is handed over to who logs in meanwhile.

use super::context::Context;
use crate::ids::UserId;
use crate::store::Storage;

/// How often main begins to look for what is old, in microseconds.
const EXPIRY_US: u64 = 60_000_000;
/// The pause between two looks while there is more, in microseconds.
const EXPIRY_AGAIN_US: u64 = 100_000;
/// Messages that one look removes: few enough that large ones keep a turn short.
const EXPIRE_MESSAGES: u64 = 256;

/// How far main is with it.
#[derive(Debug)]
pub(super) struct Retention {
    /// When main looks next.
    at_us: u64,
    history: ScanState,
    boxes: ScanState,
    tokens: ScanState,
    /// The user with whom the walk goes on; none before it begins.
    next: Option<UserId>,
    /// Messages that the transaction under way removes.
    removing: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ScanState {
    /// True exactly when all was looked at since the latest look began.
    Done,
    /// True exactly when the next look goes on with it.
    UnderWay,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            at_us: EXPIRY_US,
            history: ScanState::UnderWay,
            boxes: ScanState::UnderWay,
            tokens: ScanState::UnderWay,
            next: None,
            removing: 0,
        }
    }
}

impl Retention {
    /// When main looks next, in microseconds of the monotonic clock.
    pub(super) fn due_us(&self) -> u64 {
        self.at_us
    }

    /// Looks, if it is time. Answers the users from whose boxes messages have gone; none when it is not time.
    pub(super) fn look(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
    ) -> Option<Vec<UserId>> {
        if cx.now.mono_us < self.at_us {
            return None;
        }
        if self.history == ScanState::UnderWay {
            self.expire_history(cx);
        }
        let expired = if self.boxes == ScanState::UnderWay { self.expire_boxes(cx) } else { Vec::new() };
        if self.tokens == ScanState::UnderWay {
            self.expire_tokens(cx);
        }
        let Retention { history, boxes, tokens, at_us, .. } = self;
        let is_done = [*history, *boxes, *tokens] == [ScanState::Done; 3];
        if is_done {
            (*history, *boxes, *tokens) = (ScanState::UnderWay, ScanState::UnderWay, ScanState::UnderWay);
            cx.mark_time();
        }
        *at_us = cx.now.mono_us + if is_done { EXPIRY_US } else { EXPIRY_AGAIN_US };
        Some(expired)
    }

    /// Counts what a transaction has removed, now that it is over.
    pub(super) fn end_turn(&mut self, cx: &Context<impl Storage, impl Send + 'static>, committed: bool) {
        let removed = std::mem::take(&mut self.removing);
        if committed {
            cx.handles.metrics.chats_expired.add(removed);
        }
    }

    fn expire_history(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) {
        let (before_ms, rows) =
            (cx.trusted_ms().saturating_sub_unsigned(cx.policy.history_age_ms), cx.policy.history_rows);
        let removed = cx.attempt(|store| store.expire_departures(before_ms, rows));
        // Those who come back in a crowd leave in one: then one look a minute would not keep up.
        let is_done = removed.unwrap_or(0) == 0;
        self.history = if is_done { ScanState::Done } else { ScanState::UnderWay };
    }

    fn expire_tokens(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) {
        let now_ms = cx.trusted_ms();
        let removed = cx.attempt(|store| store.expire_tokens(now_ms));
        self.tokens = if removed.unwrap_or(0) == 0 { ScanState::Done } else { ScanState::UnderWay };
    }

    fn expire_boxes(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) -> Vec<UserId> {
        let before_ms = cx.trusted_ms().saturating_sub_unsigned(cx.policy.box_age_ms);
        let next = self.next;
        let expired = cx.attempt(|store| store.expire_kept(before_ms, next, EXPIRE_MESSAGES));
        let expired = expired.unwrap_or_default();
        self.removing += expired.messages;
        self.next = expired.next;
        self.boxes = if expired.next.is_none() { ScanState::Done } else { ScanState::UnderWay };
        expired.users
    }
}
