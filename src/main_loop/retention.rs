//! Main's removal of what is old: rows of the history, messages in boxes, bans and tokens that are over.
//!
//! Owned by main, a bounded number a turn. The history is looked at from its oldest row on. The boxes are walked user
//! by user, from one look to the next: they have no index on age, which every message kept would pay for, whereas the
//! walk costs one seek for each user with a box, and nobody waits for it. So a message may lie a few minutes longer
//! than its age, and is handed over to who logs in meanwhile.

use super::state::MainLoop;
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
pub(super) struct Expiry {
    /// When main looks next.
    at_us: u64,
    history: ScanState,
    boxes: ScanState,
    tokens: ScanState,
    /// The user with whom the walk goes on; none before it begins.
    next: Option<UserId>,
    /// Messages that the batch under way removes.
    removing: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ScanState {
    /// True exactly when all was looked at since the latest look began.
    Done,
    /// True exactly when the next look goes on with it.
    UnderWay,
}

impl Default for Expiry {
    fn default() -> Self {
        Expiry {
            at_us: EXPIRY_US,
            history: ScanState::UnderWay,
            boxes: ScanState::UnderWay,
            tokens: ScanState::UnderWay,
            next: None,
            removing: 0,
        }
    }
}

impl Expiry {
    /// When main looks next, in microseconds of the monotonic clock.
    pub(super) fn due_us(&self) -> u64 {
        self.at_us
    }
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Looks, if it is time.
    pub(super) fn expire(&mut self) {
        if self.now.mono_us < self.expiry.at_us {
            return;
        }
        if self.expiry.history == ScanState::UnderWay {
            self.expire_history();
        }
        if self.expiry.boxes == ScanState::UnderWay {
            self.expire_boxes();
        }
        if self.expiry.tokens == ScanState::UnderWay {
            self.expire_tokens();
        }
        self.expire_bans();
        let Expiry { history, boxes, tokens, at_us, .. } = &mut self.expiry;
        let is_done = [*history, *boxes, *tokens] == [ScanState::Done; 3];
        if is_done {
            (*history, *boxes, *tokens) = (ScanState::UnderWay, ScanState::UnderWay, ScanState::UnderWay);
        }
        *at_us = self.now.mono_us + if is_done { EXPIRY_US } else { EXPIRY_AGAIN_US };
        if is_done {
            self.mark_time();
        }
    }

    /// Counts what a batch has removed, now that it is over.
    pub(super) fn count_expired(&mut self, committed: bool) {
        let removed = std::mem::take(&mut self.expiry.removing);
        if committed {
            self.around.metrics.chats_expired.add(removed);
        }
    }

    fn expire_history(&mut self) {
        let (before_ms, rows) =
            (self.trusted_ms().saturating_sub_unsigned(self.policy.history_age_ms), self.policy.history_rows);
        let removed = self.batch.attempt(|store| store.expire_departures(before_ms, rows));
        // Those who come back in a crowd leave in one: then a batch a minute would not keep up.
        let is_done = removed.unwrap_or(0) == 0;
        self.expiry.history = if is_done { ScanState::Done } else { ScanState::UnderWay };
    }

    fn expire_tokens(&mut self) {
        let now_ms = self.trusted_ms();
        let removed = self.batch.attempt(|store| store.expire_tokens(now_ms));
        self.expiry.tokens = if removed.unwrap_or(0) == 0 { ScanState::Done } else { ScanState::UnderWay };
    }

    fn expire_boxes(&mut self) {
        let before_ms = self.trusted_ms().saturating_sub_unsigned(self.policy.box_age_ms);
        let next = self.expiry.next;
        let expired = self.batch.attempt(|store| store.expire_kept(before_ms, next, EXPIRE_MESSAGES));
        let expired = expired.unwrap_or_default();
        for user in &expired.users {
            if let Some(person) = self.people.find(*user) {
                person.forget_usage();
                if let Some(unconfirmed) = &mut person.unconfirmed {
                    unconfirmed.note_expiry();
                }
            }
        }
        self.expiry.removing += expired.messages;
        self.expiry.next = expired.next;
        self.expiry.boxes = if expired.next.is_none() { ScanState::Done } else { ScanState::UnderWay };
    }
}
