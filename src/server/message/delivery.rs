//! The promise behind a `seq`: the answer goes out once every copy of the chat is safe.
//!
//! A copy is safe when it is in the kernel or when it is committed to a box. Main counts copies off; the thread that counts
//! the last one off sends the answers. The record that the chat was accepted is stored with the last copy, in one
//! transaction, so that a repetition is known after a restart too.

use super::reply_to::Completes;
use super::reply_to::ReplyTo;
use crate::ids::UserId;
use crate::protocol::errno::Errno;
use crate::store::DedupRecord;
use crate::sync::{Arc, Mutex};

/// The record that a chat with `seq` was accepted, stored by the transaction with its last copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Which chat.
    pub chat: DedupRecord,
    /// True exactly when earlier transactions may have noted whom the chat has reached: then those notes are removed.
    pub has_notes: bool,
}

/// A chat with `seq` under way.
#[derive(Debug)]
pub struct DeliveryTracker(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Copies that are not safe yet.
    left: usize,
    /// Copies that are neither written to a transaction nor handed over yet.
    unsecured: usize,
    /// What is to be stored with the last copy.
    acceptance: Option<DedupRecord>,
    /// True exactly when the store may have notes of whom it has reached.
    has_notes: bool,
    /// True exactly when nothing more will be counted: the answers are out or about to be.
    settled: bool,
    /// The sender, who is to be answered.
    reply_to: Option<ReplyTo>,
    /// True exactly when the answer lets the sender's channel go on, too.
    lets_go_on: bool,
    /// Repetitions that came before it was settled.
    repetitions: Vec<ReplyTo>,
    full: Vec<UserId>,
    failed: Option<Errno>,
}

/// An answer that a tracker owes.
#[derive(Debug)]
pub struct PendingReply {
    /// Whom it goes to.
    pub reply_to: ReplyTo,
    /// What it settles there.
    pub settles: Completes,
    /// The receivers whose boxes were full, or why the chat failed.
    pub outcome: Result<Vec<UserId>, Errno>,
}

impl DeliveryTracker {
    /// For one sender, with one copy to be counted off.
    pub fn new(reply_to: ReplyTo, acceptance: Option<DedupRecord>) -> Arc<Self> {
        Arc::new(DeliveryTracker(Mutex::new(State {
            left: 1,
            unsecured: 1,
            acceptance,
            has_notes: false,
            settled: false,
            reply_to: Some(reply_to),
            lets_go_on: false,
            repetitions: Vec::new(),
            full: Vec::new(),
            failed: None,
        })))
    }

    /// For a repetition that came after the answer to the first: it gets the same answer.
    pub fn for_repetition(&self, reply_to: ReplyTo) -> Arc<Self> {
        let full = self.0.lock().full.clone();
        let tracker = DeliveryTracker::new(reply_to, None);
        tracker.0.lock().full = full;
        tracker
    }

    /// For a chat of an earlier run of the server: answered, and every copy was safe.
    pub fn of_old() -> Arc<Self> {
        Arc::new(DeliveryTracker(Mutex::new(State {
            left: 0,
            unsecured: 0,
            acceptance: None,
            has_notes: false,
            settled: true,
            reply_to: None,
            lets_go_on: false,
            repetitions: Vec::new(),
            full: Vec::new(),
            failed: None,
        })))
    }

    /// For a chat that an earlier run of the server had not handed out to all receivers: a repetition does that.
    pub fn of_unfinished() -> Arc<Self> {
        let tracker = DeliveryTracker::of_old();
        let mut state = tracker.0.lock();
        (state.failed, state.has_notes) = (Some(Errno::NotStored), true);
        drop(state);
        tracker
    }

    /// Adds copies. Allowed only while at least one is still to be counted off.
    pub fn expect_more(&self, copies: usize) {
        let mut state = self.0.lock();
        state.left += copies;
        state.unsecured += copies;
    }

    /// Has the answer let the sender's channel go on, because nothing else will.
    pub fn answer_lets_go_on(&self) {
        self.0.lock().lets_go_on = true;
    }

    /// Notes that so many copies are written to the transaction under way, are handed over, or need not be. The last one
    /// yields what is to be stored in the same transaction.
    #[must_use]
    pub fn secure(&self, copies: usize) -> Option<Accepted> {
        let mut state = self.0.lock();
        state.unsecured = state.unsecured.saturating_sub(copies);
        if state.unsecured > 0 || state.failed.is_some() {
            return None;
        }
        let has_notes = state.has_notes;
        state.acceptance.take().map(|chat| Accepted { chat, has_notes })
    }

    /// The transaction under way stores copies. Answers the record under which it has to note their receivers, so that a
    /// repetition of the chat leaves them out if the chat fails or the server is killed; none where the transaction also
    /// stores that the chat was accepted.
    #[must_use]
    pub fn note_reached(&self) -> Option<DedupRecord> {
        let mut state = self.0.lock();
        state.has_notes |= state.acceptance.is_some();
        state.acceptance
    }

    /// An earlier attempt at the same chat, or an earlier run of the server, has left notes of whom it reached.
    pub fn expect_notes(&self) {
        self.0.lock().has_notes = true;
    }

    /// True exactly when the store may have notes of whom it has reached.
    pub fn has_notes(&self) -> bool {
        self.0.lock().has_notes
    }

    /// Undoes [`DeliveryTracker::secure`]: the transaction has failed, and the copies follow in another one. Allowed only while
    /// at least one more copy is still to be counted off.
    pub fn unsecure(&self, copies: usize) {
        self.0.lock().unsecured += copies;
    }

    /// Counts so many copies off as safe. The last one yields the answers.
    pub fn safe(&self, copies: usize) -> impl Iterator<Item = PendingReply> + use<> {
        self.count_off(copies, |_| {}).answers()
    }

    /// Counts one copy off as refused by a full box.
    pub fn full(&self, user: UserId) -> impl Iterator<Item = PendingReply> + use<> {
        self.count_off(1, |state| state.full.push(user)).answers()
    }

    /// Counts so many copies off as failed.
    pub fn failed(&self, copies: usize, errno: Errno) -> impl Iterator<Item = PendingReply> + use<> {
        self.count_off(copies, |state| state.failed = Some(errno)).answers()
    }

    /// Adds a repetition of the same request, unless the answers have gone out.
    ///
    /// # Errors
    /// The sender, when the answers have gone out.
    pub fn join(&self, reply_to: ReplyTo) -> Result<(), ReplyTo> {
        let mut state = self.0.lock();
        if state.settled {
            return Err(reply_to);
        }
        state.repetitions.push(reply_to);
        Ok(())
    }

    /// True exactly when the answers have gone out.
    pub fn is_settled(&self) -> bool {
        self.0.lock().settled
    }

    /// True exactly when the answers have gone out, every copy was safe, and no box was full.
    pub fn is_plain(&self) -> bool {
        let state = self.0.lock();
        state.settled && state.failed.is_none() && state.full.is_empty()
    }

    /// True exactly when the answers have gone out and every copy was safe.
    pub fn succeeded(&self) -> bool {
        let state = self.0.lock();
        state.settled && state.failed.is_none()
    }

    fn count_off(&self, copies: usize, note: impl FnOnce(&mut State)) -> Due {
        let mut state = self.0.lock();
        note(&mut state);
        state.left = state.left.saturating_sub(copies);
        if state.left > 0 || state.settled {
            return Due::default();
        }
        state.settled = true;
        let settles = if state.lets_go_on { Completes::RequestAndChat } else { Completes::Chat };
        Due {
            first: state.reply_to.take().map(|reply_to| (reply_to, settles)),
            repetitions: std::mem::take(&mut state.repetitions),
            full: state.full.clone(),
            failed: state.failed,
        }
    }
}

/// Who is to be answered, and what.
#[derive(Default)]
struct Due {
    first: Option<(ReplyTo, Completes)>,
    repetitions: Vec<ReplyTo>,
    full: Vec<UserId>,
    failed: Option<Errno>,
}

impl Due {
    fn answers(self) -> impl Iterator<Item = PendingReply> {
        let Due { first, repetitions, full, failed } = self;
        let repetitions = repetitions.into_iter().map(|reply_to| (reply_to, Completes::Chat));
        first.into_iter().chain(repetitions).map(move |(reply_to, settles)| PendingReply {
            reply_to,
            settles,
            outcome: failed.map_or_else(|| Ok(full.clone()), Err),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelId;
    use crate::protocol::msgid::Msgid;

    fn reply_to(slot: u32) -> ReplyTo {
        ReplyTo { channel: ChannelId { slot, generation: 1 }, re: Msgid::Chat, seq: Some("1".into()) }
    }

    #[test]
    fn the_last_copy_brings_the_answer() {
        let tracker = DeliveryTracker::new(reply_to(1), None);
        tracker.expect_more(1);
        assert_eq!(tracker.safe(1).count(), 0);
        assert!(!tracker.succeeded());
        assert_eq!(tracker.full(UserId(9)).count(), 1);
        assert!(tracker.succeeded());
    }

    #[test]
    fn a_repetition_is_answered_with_the_first() {
        let tracker = DeliveryTracker::new(reply_to(1), None);
        assert_eq!(tracker.join(reply_to(2)), Ok(()));
        tracker.answer_lets_go_on();
        let owed: Vec<_> = tracker.safe(1).map(|owed| (owed.reply_to.channel.slot, owed.settles)).collect();
        assert_eq!(owed, [(1, Completes::RequestAndChat), (2, Completes::Chat)]);
        assert_eq!(tracker.join(reply_to(3)), Err(reply_to(3)));
    }

    #[test]
    fn the_last_copy_brings_what_is_to_be_stored_unless_one_has_failed() {
        let acceptance = DedupRecord { sender: UserId(1), fingerprint: 7 };
        let tracker = DeliveryTracker::new(reply_to(1), Some(acceptance));
        tracker.expect_more(1);
        assert_eq!(tracker.secure(1), None);
        assert_eq!(tracker.note_reached(), Some(acceptance));
        assert_eq!(tracker.secure(1), Some(Accepted { chat: acceptance, has_notes: true }));
        assert_eq!(tracker.note_reached(), None);
        let tracker = DeliveryTracker::new(reply_to(1), Some(acceptance));
        tracker.expect_more(1);
        assert_eq!(tracker.failed(1, Errno::NotStored).count(), 0);
        assert_eq!((tracker.secure(1), tracker.secure(1)), (None, None));
    }

    #[test]
    fn a_failure_is_not_a_success() {
        let tracker = DeliveryTracker::new(reply_to(1), None);
        let answers: Vec<_> = tracker.failed(1, Errno::NotStored).map(|owed| owed.outcome).collect();
        assert_eq!(answers, [Err(Errno::NotStored)]);
        assert!(!tracker.succeeded());
    }
}
