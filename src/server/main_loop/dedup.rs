//! The chats with `seq` of the last minutes, by sender, so that a repetition is the same message.
//!
//! Owned by main. The store has the same, for the next run of the server.

use super::context::Context;
use crate::ids::UserId;
use crate::ids::{IdMap, id_hash};
use crate::message::delivery::DeliveryTracker;
use crate::store::{DEDUP_WINDOW_US, DedupRecord, Storage};
use crate::sync::Arc;
use hashbrown::HashTable;
use std::collections::VecDeque;

/// Chats with `seq` that are remembered for one sender.
pub const WINDOW_COUNT: usize = 1024;
/// Senders whose window is looked at for expiry when their number has doubled since, at least.
const WINDOW_SENDERS: usize = 1024;

/// How often old ones are looked for in the store, in microseconds.
pub(super) const SCAN_US: u64 = 60_000_000;
/// The same while there are some.
const SCAN_SOON_US: u64 = 100_000;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct DedupWindow {
    senders: IdMap<UserId, Recent>,
    tidy_at: usize,
    /// When old ones are looked for in the store, on the monotonic clock; none before the first look.
    expires_at_us: Option<u64>,
}

/// The chats of one sender.
#[derive(Debug, Default)]
struct Recent {
    /// Oldest first.
    chats: VecDeque<Remembered>,
    /// How many have gone from the front.
    gone: u32,
    /// Where each chat is, by its fingerprint: its place in `chats`, counted from before all that have gone.
    places: HashTable<u32>,
    /// How many at the front have been looked at since they were settled.
    settled: usize,
    /// Before then no chat is old enough to be forgotten, so that none has to be looked at.
    expires_us: u64,
}

#[derive(Debug)]
struct Remembered {
    fingerprint: u128,
    /// When it is forgotten.
    until_us: u64,
    /// None when its answer is known to be that every copy was safe.
    tracker: Option<Arc<DeliveryTracker>>,
}

impl DedupWindow {
    /// The tracker of the same message, if it is remembered.
    pub(super) fn find(&mut self, chat: DedupRecord, now_us: u64) -> Option<Arc<DeliveryTracker>> {
        let recent = self.senders.get_mut(&chat.sender)?;
        recent.expire(now_us);
        let known = recent.find(chat.fingerprint)?;
        Some(known.tracker.clone().unwrap_or_else(DeliveryTracker::of_old))
    }

    /// Remembers a chat that was asked for just now.
    pub(super) fn remember(&mut self, chat: DedupRecord, tracker: &Arc<DeliveryTracker>, now_us: u64) {
        if self.senders.len() > self.tidy_at.max(WINDOW_SENDERS) {
            self.senders.retain(|_, recent| {
                recent.expire(now_us);
                !recent.chats.is_empty()
            });
            self.tidy_at = self.senders.len() * 2;
        }
        self.insert(chat, Some(Arc::clone(tracker)), now_us + DEDUP_WINDOW_US);
        if let Some(recent) = self.senders.get_mut(&chat.sender) {
            recent.expire(now_us);
        }
    }

    /// Remembers a chat that an earlier run of the server accepted `age_us` ago, or began to hand out then, which its
    /// tracker says. Oldest first.
    pub(super) fn recall(
        &mut self,
        chat: DedupRecord,
        tracker: Option<Arc<DeliveryTracker>>,
        age_us: u64,
        now_us: u64,
    ) {
        if let Some(left_us) = DEDUP_WINDOW_US.checked_sub(age_us) {
            self.insert(chat, tracker, now_us + left_us);
        }
    }

    /// When old ones are looked for in the store, on the monotonic clock.
    pub(super) fn due_us(&self) -> u64 {
        self.expires_at_us.unwrap_or(SCAN_US)
    }

    /// Removes from the store what is too old, if it is time. Many a second may have come, so it is looked again soon when
    /// there were many.
    pub(super) fn expire(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) {
        if cx.now.mono_us < self.due_us() {
            return;
        }
        let before_ms = cx.trusted_ms() - (DEDUP_WINDOW_US / 1000) as i64;
        let expired = cx.attempt(|store| store.expire_accepted(before_ms));
        let pause_us = if expired == Some(true) { SCAN_SOON_US } else { SCAN_US };
        self.expires_at_us = Some(cx.now.mono_us + pause_us);
    }

    fn insert(&mut self, chat: DedupRecord, tracker: Option<Arc<DeliveryTracker>>, until_us: u64) {
        let recent = self.senders.entry(chat.sender).or_default();
        let fingerprint = chat.fingerprint;
        recent.forget(fingerprint);
        recent.release();
        if recent.chats.len() >= WINDOW_COUNT {
            recent.pop();
        }
        recent.push(Remembered { fingerprint, until_us, tracker });
    }
}

impl Recent {
    fn find(&self, fingerprint: u128) -> Option<&Remembered> {
        let chat = |place: u32| at(&self.chats, self.gone, place);
        let is_same = |place: &u32| chat(*place).is_some_and(|chat| chat.fingerprint == fingerprint);
        chat(*self.places.find(id_hash(fingerprint), is_same)?)
    }

    /// A chat that failed comes again: its old place stays empty until it is the oldest.
    fn forget(&mut self, fingerprint: u128) {
        let (chats, gone) = (&mut self.chats, self.gone);
        let is_same =
            |place: &u32| at(chats, gone, *place).is_some_and(|chat| chat.fingerprint == fingerprint);
        let Ok(entry) = self.places.find_entry(id_hash(fingerprint), is_same) else { return };
        let (place, _) = entry.remove();
        if let Some(chat) = chats.get_mut(place.wrapping_sub(gone) as usize) {
            chat.tracker = None;
        }
    }

    fn push(&mut self, chat: Remembered) {
        let place = self.gone.wrapping_add(self.chats.len() as u32);
        let hash = id_hash(chat.fingerprint);
        self.chats.push_back(chat);
        let (chats, gone) = (&self.chats, self.gone);
        let hash_at = |place: &u32| at(chats, gone, *place).map_or(0, |chat| id_hash(chat.fingerprint));
        self.places.insert_unique(hash, place, hash_at);
    }

    fn pop(&mut self) {
        let Some(chat) = self.chats.pop_front() else { return };
        let oldest = self.gone;
        if let Ok(entry) = self.places.find_entry(id_hash(chat.fingerprint), |place| *place == oldest) {
            entry.remove();
        }
        self.gone = oldest.wrapping_add(1);
        self.settled = self.settled.saturating_sub(1);
    }

    fn expire(&mut self, now_us: u64) {
        if now_us < self.expires_us {
            return;
        }
        while self.chats.front().is_some_and(|chat| now_us >= chat.until_us) {
            self.pop();
        }
        self.expires_us = self.chats.front().map_or(0, |chat| chat.until_us);
    }

    /// Drops the trackers that only say that every copy was safe. Thousands of senders have a thousand each.
    fn release(&mut self) {
        while let Some(chat) = self.chats.get_mut(self.settled)
            && chat.tracker.as_ref().is_none_or(|tracker| tracker.is_settled())
        {
            chat.tracker.take_if(|tracker| tracker.is_plain());
            self.settled += 1;
        }
    }
}

fn at(chats: &VecDeque<Remembered>, gone: u32, place: u32) -> Option<&Remembered> {
    chats.get(place.wrapping_sub(gone) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelId;
    use crate::protocol::msgid::Msgid;

    use crate::message::reply_to::ReplyTo;
    use crate::protocol::errno::Errno;

    fn chat(fingerprint: u128) -> DedupRecord {
        DedupRecord { sender: UserId(1), fingerprint }
    }

    #[test]
    fn only_the_latest_of_a_sender_are_remembered() {
        let mut window = DedupWindow::default();
        for fingerprint in 0..=WINDOW_COUNT as u128 {
            window.remember(chat(fingerprint), &DeliveryTracker::of_old(), 1);
        }
        assert!(window.find(chat(0), 1).is_none());
        assert!(window.find(chat(1), 1).is_some());
    }

    #[test]
    fn a_ticket_is_held_until_it_is_settled_and_longer_only_where_its_answer_says_more() {
        let reply_to = || ReplyTo {
            channel: ChannelId { slot: 1, generation: 1 },
            re: Msgid::Chat,
            seq: Some("1".into()),
        };
        let trackers: Vec<_> = (0..3).map(|_| DeliveryTracker::new(reply_to(), None)).collect();
        let mut window = DedupWindow::default();
        let mut held_after = |number: u128, tracker: &Arc<DeliveryTracker>| {
            window.remember(chat(number), tracker, 1);
            trackers.iter().map(|tracker| Arc::strong_count(tracker) > 1).collect::<Vec<_>>()
        };
        assert_eq!(held_after(0, &trackers[0]), [true, false, false]);
        assert_eq!(held_after(1, &trackers[1]), [true, true, false]);
        assert_eq!(held_after(2, &trackers[2]), [true; 3], "nothing is settled");
        assert_eq!(
            trackers[0].safe(1).chain(trackers[1].full(UserId(9))).chain(trackers[2].safe(1)).count(),
            3
        );
        assert_eq!(held_after(3, &DeliveryTracker::of_old()), [false, true, false]);
        for number in 0..=3 {
            assert!(window.find(chat(number), 1).is_some_and(|tracker| tracker.succeeded()), "{number}");
        }
        let full = window.find(chat(1), 1).unwrap().for_repetition(reply_to());
        let outcome = full.safe(1).map(|owed| owed.outcome).next();
        assert_eq!(outcome, Some(Ok(vec![UserId(9)])));
    }

    #[test]
    fn a_chat_that_failed_may_come_again_and_is_remembered_from_then_on() {
        let reply_to =
            ReplyTo { channel: ChannelId { slot: 1, generation: 1 }, re: Msgid::Chat, seq: Some("1".into()) };
        let (failed, again) =
            (DeliveryTracker::new(reply_to.clone(), None), DeliveryTracker::new(reply_to, None));
        let mut window = DedupWindow::default();
        window.remember(chat(1), &failed, 1);
        assert_eq!(failed.failed(1, Errno::NotStored).count(), 1);
        window.remember(chat(2), &DeliveryTracker::of_old(), 1);
        window.remember(chat(1), &again, 9);
        assert!(Arc::ptr_eq(&window.find(chat(1), 9).unwrap(), &again));
        let of_first = DEDUP_WINDOW_US + 1;
        assert!(window.find(chat(2), of_first).is_none() && window.find(chat(1), of_first).is_some());
        for number in 3..WINDOW_COUNT as u128 + 2 {
            window.remember(chat(number), &DeliveryTracker::of_old(), 10);
        }
        assert!(window.find(chat(1), 10).is_some());
        window.remember(chat(2), &DeliveryTracker::of_old(), 10);
        assert!(window.find(chat(1), 10).is_none());
        assert!(window.find(chat(3), 10).is_some());
    }

    #[test]
    fn places_are_counted_round_and_round() {
        let mut recent = Recent { gone: u32::MAX - 3, ..Recent::default() };
        for fingerprint in 0..10 {
            recent.push(Remembered { fingerprint, until_us: 1, tracker: None });
            if fingerprint > 4 {
                recent.pop();
            }
            let known: Vec<_> = (0..10).filter(|number| recent.find(*number).is_some()).collect();
            assert_eq!(known, (fingerprint.saturating_sub(4)..=fingerprint).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_chat_is_forgotten_ten_minutes_after_it_was_asked_for_in_whatever_run_of_the_server() {
        let mut window = DedupWindow::default();
        window.recall(chat(1), None, DEDUP_WINDOW_US - 5, 100);
        window.recall(chat(2), None, DEDUP_WINDOW_US + 1, 100);
        window.remember(chat(3), &DeliveryTracker::of_old(), 100);
        assert!(window.find(chat(1), 104).is_some());
        assert!(window.find(chat(1), 105).is_none());
        assert!(window.find(chat(2), 100).is_none());
        assert!(window.find(chat(3), 99 + DEDUP_WINDOW_US).is_some());
        assert!(window.find(chat(3), 100 + DEDUP_WINDOW_US).is_none());
    }
}
