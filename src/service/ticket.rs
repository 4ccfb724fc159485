//! The promise behind a `seq`: the answer goes out once every copy of the chat is safe.
//!
//! A copy is safe when it is in the kernel or when it is committed to a box. Main counts copies off;
//! whoever counts the last one off sends the answers. That it was accepted is stored with the last copy, in one
//! transaction, so that a repetition is known after a restart too.

use super::answer::Answer;
use super::ask::Asker;
use crate::ident::UserId;
use crate::protocol::errno::Errno;
use crate::sync::{Arc, Lock};

/// That a chat with `seq` was accepted: what makes a repetition known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Acceptance {
    /// Whose chat.
    pub sender: UserId,
    /// What `seq`, receiver and text hash to.
    pub fingerprint: u128,
}

/// A chat with `seq` under way.
#[derive(Debug)]
pub struct Ticket(Lock<State>);

#[derive(Debug)]
struct State {
    /// Copies that are not safe yet.
    left: usize,
    /// Copies that are neither written to a transaction nor handed over yet.
    unsecured: usize,
    /// What is to be stored with the last copy.
    acceptance: Option<Acceptance>,
    /// True exactly when nothing more will be counted: the answers are out or about to be.
    settled: bool,
    /// Those to be answered: the first sender, and repetitions that came before it was settled.
    askers: Vec<Asker>,
    full: Vec<UserId>,
    failed: Option<Errno>,
}

/// An answer that a ticket owes, with the channel it goes to.
pub type Owed = (Asker, Answer);

impl Ticket {
    /// A ticket for one sender, with one copy to be counted off.
    pub fn new(asker: Asker, acceptance: Option<Acceptance>) -> Arc<Self> {
        Arc::new(Ticket(Lock::new(State {
            left: 1,
            unsecured: 1,
            acceptance,
            settled: false,
            askers: vec![asker],
            full: Vec::new(),
            failed: None,
        })))
    }

    /// A ticket for a repetition that came when the first was settled: the answer is the same.
    pub fn for_repetition(&self, asker: Asker) -> Arc<Self> {
        let full = self.0.lock().full.clone();
        let ticket = Ticket::new(asker, None);
        ticket.0.lock().full = full;
        ticket
    }

    /// A ticket of an earlier run of the server: settled, and every copy was safe.
    pub fn of_old() -> Arc<Self> {
        Arc::new(Ticket(Lock::new(State {
            left: 0,
            unsecured: 0,
            acceptance: None,
            settled: true,
            askers: Vec::new(),
            full: Vec::new(),
            failed: None,
        })))
    }

    /// Counts more copies in. Only while at least one is still to be counted off.
    pub fn expect_more(&self, copies: usize) {
        let mut state = self.0.lock();
        state.left += copies;
        state.unsecured += copies;
    }

    /// Notes that one copy is written to the transaction under way, is handed over, or need not be. With the last one
    /// comes what is to be stored in the same transaction.
    #[must_use]
    pub fn secure(&self) -> Option<Acceptance> {
        let mut state = self.0.lock();
        state.unsecured = state.unsecured.saturating_sub(1);
        if state.unsecured > 0 || state.failed.is_some() {
            return None;
        }
        state.acceptance.take()
    }

    /// Counts one copy off as safe. The last one yields the answers.
    #[must_use]
    pub fn safe(&self) -> Vec<Owed> {
        self.count_off(|_| {})
    }

    /// Counts one copy off as refused by a full box.
    #[must_use]
    pub fn full(&self, user: UserId) -> Vec<Owed> {
        self.count_off(|state| state.full.push(user))
    }

    /// Counts one copy off as failed.
    #[must_use]
    pub fn failed(&self, errno: Errno) -> Vec<Owed> {
        self.count_off(|state| state.failed = Some(errno))
    }

    /// Adds a repetition of the same request. Gives the asker back when the ticket is settled already.
    ///
    /// # Errors
    /// The asker, when the answers have gone out.
    pub fn join(&self, asker: Asker) -> Result<(), Asker> {
        let mut state = self.0.lock();
        if state.settled {
            return Err(asker);
        }
        state.askers.push(asker);
        Ok(())
    }

    /// True exactly when it is settled and every copy was safe.
    pub fn succeeded(&self) -> bool {
        let state = self.0.lock();
        state.settled && state.failed.is_none()
    }

    fn count_off(&self, note: impl FnOnce(&mut State)) -> Vec<Owed> {
        let mut state = self.0.lock();
        note(&mut state);
        state.left = state.left.saturating_sub(1);
        if state.left > 0 || state.settled {
            return Vec::new();
        }
        state.settled = true;
        let (failed, full) = (state.failed, state.full.clone());
        std::mem::take(&mut state.askers)
            .into_iter()
            .filter_map(|asker| {
                let answer = outcome(&asker, failed, full.clone())?;
                Some((asker, answer))
            })
            .collect()
    }
}

fn outcome(asker: &Asker, failed: Option<Errno>, full: Vec<UserId>) -> Option<Answer> {
    match failed {
        Some(errno) => Some(Answer::Error {
            errno,
            text: errno.text().into(),
            re: Some(asker.re),
            seq: asker.seq.clone(),
        }),
        None => asker.seq.clone().map(|seq| Answer::Done { re: asker.re, seq, id: None, full }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelId;

    fn asker(slot: u32) -> Asker {
        Asker { channel: ChannelId { slot, generation: 1 }, re: 6, seq: Some("1".into()) }
    }

    #[test]
    fn the_last_copy_brings_the_answer() {
        let ticket = Ticket::new(asker(1), None);
        ticket.expect_more(1);
        assert!(ticket.safe().is_empty());
        assert!(!ticket.succeeded());
        assert_eq!(ticket.full(UserId(9)).len(), 1);
        assert!(ticket.succeeded());
    }

    #[test]
    fn a_repetition_is_answered_with_the_first() {
        let ticket = Ticket::new(asker(1), None);
        assert_eq!(ticket.join(asker(2)), Ok(()));
        assert_eq!(ticket.safe().len(), 2);
        assert_eq!(ticket.join(asker(3)), Err(asker(3)));
    }

    #[test]
    fn the_last_copy_brings_what_is_to_be_stored_unless_one_has_failed() {
        let acceptance = Acceptance { sender: UserId(1), fingerprint: 7 };
        let ticket = Ticket::new(asker(1), Some(acceptance));
        ticket.expect_more(1);
        assert_eq!(ticket.secure(), None);
        assert_eq!(ticket.secure(), Some(acceptance));
        let ticket = Ticket::new(asker(1), Some(acceptance));
        ticket.expect_more(1);
        assert!(ticket.failed(Errno::NotStored).is_empty());
        assert_eq!((ticket.secure(), ticket.secure()), (None, None));
    }

    #[test]
    fn a_failure_is_not_a_success() {
        let ticket = Ticket::new(asker(1), None);
        assert!(matches!(ticket.failed(Errno::NotStored)[..], [(_, Answer::Error { .. })]));
        assert!(!ticket.succeeded());
    }
}
