//! The ack window of a session whose client confirms messages (cap `ack`): what is sent, numbered and not yet confirmed.
//!
//! Plain data, owned by main.

use super::session_map::SessionKey;
use crate::ids::Mid;
use crate::message::chat::Body;
use crate::store::{BoxUsage, StoredMessage};
use std::collections::VecDeque;

/// Bytes of bodies that are under way to one client at most. One message always fits.
pub const UNDER_WAY_BYTES: usize = 256 * 1024;

/// What a session has sent and its client has not confirmed, in order of numbers.
#[derive(Debug)]
pub(super) struct AckWindow {
    /// Whose session's it is.
    key: SessionKey,
    under_way: VecDeque<InFlight>,
    /// Bytes of their bodies.
    bytes: usize,
    /// The newest that was sent.
    sent: Mid,
    /// Up to here a message that lay in the box may have expired there.
    expired_upto: Mid,
    /// How many were confirmed.
    confirmed: u64,
}

#[derive(Debug)]
struct InFlight {
    mid: Mid,
    bytes: usize,
    /// None where it lies in the box.
    body: Option<Body>,
}

/// What a confirmation has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Confirmation {
    /// The newest of the confirmed messages that lie in the box.
    pub(super) stored: Option<Mid>,
    /// What those held.
    pub(super) usage: BoxUsage,
    /// True exactly when some of them may have expired, so that the box has to be looked at again.
    pub(super) is_doubtful: bool,
}

impl AckWindow {
    pub(super) fn new(key: SessionKey) -> Self {
        AckWindow {
            key,
            under_way: VecDeque::new(),
            bytes: 0,
            sent: Mid(0),
            expired_upto: Mid(0),
            confirmed: 0,
        }
    }

    /// Messages that may still be sent, and bytes of them.
    pub(super) fn room(&self, window: usize) -> (usize, usize) {
        let bytes = UNDER_WAY_BYTES.saturating_sub(self.bytes);
        (if bytes == 0 { 0 } else { window.saturating_sub(self.under_way.len()) }, bytes)
    }

    /// Notes a message that is sent. `body` is none where it lies in the box.
    pub(super) fn send(&mut self, mid: Mid, bytes: usize, body: Option<Body>) {
        debug_assert!(mid > self.sent, "numbers rise");
        self.sent = mid;
        self.bytes += bytes;
        self.under_way.push_back(InFlight { mid, bytes, body });
    }

    /// Messages from the box that are sent.
    pub(super) fn send_kept(&mut self, kept: &[StoredMessage]) {
        for StoredMessage { mid, body, .. } in kept {
            self.send(*mid, body.len(), None);
        }
    }

    /// True exactly when it is that session's.
    pub(super) fn is_of(&self, key: SessionKey) -> bool {
        self.key == key
    }

    /// The newest that was sent.
    pub(super) fn sent(&self) -> Mid {
        self.sent
    }

    /// How many messages were confirmed, and how many were not.
    pub(super) fn account(&self) -> (u64, u64) {
        (self.confirmed, self.under_way.len() as u64)
    }

    /// The messages that were not confirmed and do not lie in the box, with their numbers and bytes.
    pub(super) fn into_unstored(self) -> impl Iterator<Item = (Mid, usize, Body)> {
        self.under_way.into_iter().filter_map(|flight| Some((flight.mid, flight.bytes, flight.body?)))
    }

    /// Takes a message back that could not be put into the box after all.
    pub(super) fn unsend(&mut self, mid: Mid) {
        if let Some(at) = self.under_way.iter().position(|flight| flight.mid == mid)
            && let Some(flight) = self.under_way.remove(at)
        {
            self.bytes -= flight.bytes;
        }
    }

    /// Takes back all that was sent since that one.
    pub(super) fn unsend_above(&mut self, sent: Mid) {
        while let Some(flight) = self.under_way.pop_back_if(|flight| flight.mid > sent) {
            self.bytes -= flight.bytes;
        }
        self.sent = sent;
    }

    /// Messages have expired in the box. They stay under way.
    pub(super) fn note_expiry(&mut self) {
        self.expired_upto = self.sent;
    }

    /// The client has confirmed all messages up to that one.
    pub(super) fn confirm(&mut self, upto: Mid) -> Confirmation {
        let mut confirmation = Confirmation::default();
        while let Some(flight) = self.under_way.pop_front_if(|flight| flight.mid <= upto) {
            self.bytes -= flight.bytes;
            self.confirmed += 1;
            if flight.body.is_none() {
                confirmation.stored = Some(flight.mid);
                confirmation.usage.count += 1;
                confirmation.usage.bytes += flight.bytes as u64;
                confirmation.is_doubtful |= flight.mid <= self.expired_upto;
            }
        }
        confirmation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{ChannelId, SessionNo};

    fn sent(numbers: &[i64]) -> AckWindow {
        let mut unconfirmed = AckWindow::new((ChannelId { slot: 0, generation: 1 }, SessionNo(1)));
        for number in numbers {
            let body = (number % 2 == 1).then(|| Body::Object((*b"{}").into()));
            unconfirmed.send(Mid(*number), 2, body);
        }
        unconfirmed
    }

    #[test]
    fn a_confirmation_is_cumulative_and_says_what_it_takes_out_of_the_box() {
        let mut unconfirmed = sent(&[3, 4, 6, 7]);
        let stored = Some(Mid(4));
        let usage = BoxUsage { count: 1, bytes: 2 };
        let confirmation = Confirmation { stored, usage, is_doubtful: false };
        assert_eq!(unconfirmed.confirm(Mid(5)), confirmation);
        assert_eq!(unconfirmed.confirm(Mid(5)), Confirmation::default());
        assert_eq!((unconfirmed.confirmed, unconfirmed.under_way.len(), unconfirmed.bytes), (2, 2, 4));
    }

    #[test]
    fn the_window_is_bounded_in_messages_and_in_bytes() {
        let mut unconfirmed = sent(&[1, 2]);
        assert_eq!(unconfirmed.room(3).0, 1);
        assert_eq!(unconfirmed.room(2).0, 0);
        unconfirmed.send(Mid(3), UNDER_WAY_BYTES, None);
        assert_eq!(unconfirmed.room(9), (0, 0));
        unconfirmed.unsend(Mid(3));
        assert_eq!(unconfirmed.room(9).0, 7);
    }
}
