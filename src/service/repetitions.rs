//! The chats with `seq` of the last minutes, by sender, so that a repetition is the same message.
//!
//! Plain data, owned by main. The store has the same, for the next run of the server.

use super::storage::Storage;
use super::ticket::{Acceptance, Ticket};
use crate::ident::UserId;
use crate::offline::drain::Drain;
use crate::sync::Arc;
use std::collections::{HashMap, VecDeque};

/// Chats with `seq` that are remembered for one sender.
pub const WINDOW_COUNT: usize = 1024;
/// How long they are remembered, in microseconds (10 minutes).
pub const WINDOW_US: u64 = 600_000_000;
/// Senders whose window is looked at for expiry when their number has doubled since, at least.
const WINDOW_SENDERS: usize = 1024;

/// How often old ones are looked for in the store, in microseconds.
pub(crate) const EXPIRY_US: u64 = 60_000_000;
/// The same while there are some.
const EXPIRY_SOON_US: u64 = 250_000;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Repetitions {
    senders: HashMap<UserId, Recent>,
    tidy_at: usize,
}

#[derive(Debug, Default)]
struct Recent {
    tickets: HashMap<u128, Arc<Ticket>>,
    /// Oldest first, each with when it is forgotten.
    order: VecDeque<(u64, u128)>,
}

impl Repetitions {
    /// The ticket of the same message, if it is remembered.
    pub(crate) fn find(&mut self, chat: Acceptance, now_us: u64) -> Option<Arc<Ticket>> {
        let recent = self.senders.get_mut(&chat.sender)?;
        recent.expire(now_us);
        recent.tickets.get(&chat.fingerprint).cloned()
    }

    /// Remembers a chat that was asked for just now.
    pub(crate) fn remember(&mut self, chat: Acceptance, ticket: &Arc<Ticket>, now_us: u64) {
        if self.senders.len() > self.tidy_at.max(WINDOW_SENDERS) {
            self.senders.retain(|_, recent| {
                recent.expire(now_us);
                !recent.order.is_empty()
            });
            self.tidy_at = self.senders.len() * 2;
        }
        self.insert(chat, ticket, now_us + WINDOW_US);
        if let Some(recent) = self.senders.get_mut(&chat.sender) {
            recent.expire(now_us);
        }
    }

    /// Remembers a chat that an earlier run of the server accepted `age_us` ago. Oldest first.
    pub(crate) fn recall(&mut self, chat: Acceptance, age_us: u64, now_us: u64) {
        if let Some(left_us) = WINDOW_US.checked_sub(age_us) {
            self.insert(chat, &Ticket::of_old(), now_us + left_us);
        }
    }

    fn insert(&mut self, chat: Acceptance, ticket: &Arc<Ticket>, until_us: u64) {
        let recent = self.senders.entry(chat.sender).or_default();
        if recent.tickets.insert(chat.fingerprint, Arc::clone(ticket)).is_none() {
            recent.order.push_back((until_us, chat.fingerprint));
        }
        if recent.order.len() > WINDOW_COUNT
            && let Some((_, oldest)) = recent.order.pop_front()
        {
            recent.tickets.remove(&oldest);
        }
    }
}

impl<St: Storage, S: Send + 'static> Drain<St, S> {
    /// Takes the chats with `seq` that the last run accepted, oldest first, each with its age in milliseconds.
    #[must_use]
    pub fn with_accepted(mut self, accepted: Vec<(Acceptance, u64)>) -> Self {
        for (chat, age_ms) in accepted {
            self.repetitions.recall(chat, age_ms.saturating_mul(1000), self.now.mono_us);
        }
        self
    }

    /// Forgets those that are too old. Many a second may have come, so it is looked again soon when there were many.
    pub(crate) fn expire_accepted(&mut self) {
        if self.now.mono_us < self.expire_accepted_at_us {
            return;
        }
        let before_ms = self.now.unix_ms - (WINDOW_US / 1000) as i64;
        let expired = self.batch.attempt(|store| store.expire_accepted(before_ms));
        let pause_us = if expired.is_some_and(|count| count > 0) { EXPIRY_SOON_US } else { EXPIRY_US };
        self.expire_accepted_at_us = self.now.mono_us + pause_us;
    }
}

impl Recent {
    fn expire(&mut self, now_us: u64) {
        while let Some((until_us, fingerprint)) = self.order.front().copied()
            && now_us >= until_us
        {
            self.order.pop_front();
            self.tickets.remove(&fingerprint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(fingerprint: u128) -> Acceptance {
        Acceptance { sender: UserId(1), fingerprint }
    }

    #[test]
    fn only_the_latest_of_a_sender_are_remembered() {
        let mut window = Repetitions::default();
        for fingerprint in 0..=WINDOW_COUNT as u128 {
            window.remember(chat(fingerprint), &Ticket::of_old(), 1);
        }
        assert!(window.find(chat(0), 1).is_none());
        assert!(window.find(chat(1), 1).is_some());
    }

    #[test]
    fn a_chat_is_forgotten_ten_minutes_after_it_was_asked_for_in_whatever_run_of_the_server() {
        let mut window = Repetitions::default();
        window.recall(chat(1), WINDOW_US - 5, 100);
        window.recall(chat(2), WINDOW_US + 1, 100);
        window.remember(chat(3), &Ticket::of_old(), 100);
        assert!(window.find(chat(1), 104).is_some());
        assert!(window.find(chat(1), 105).is_none());
        assert!(window.find(chat(2), 100).is_none());
        assert!(window.find(chat(3), 99 + WINDOW_US).is_some());
        assert!(window.find(chat(3), 100 + WINDOW_US).is_none());
    }
}
