//! Ends of which not all is known yet: an end is noticed, committed, settled, and its fd closed, and each step adds to its
//! row in the history.
//!
//! Owned by main.

use super::context::Context;
use super::session_map::{SessionKey, SessionMap};
use super::transaction::PendingWrite;
use crate::ids::{Epoch, UserId};
use crate::message::disconnect::{CloseStage, CloseWatcher};
use crate::store::{DepartureUpdate, Storage};
use crate::sync::Arc;

/// What becomes known of a session's end bit by bit.
#[derive(Debug)]
struct OpenDeparture {
    user: UserId,
    epoch: Epoch,
    noticed_us: u64,
    /// True exactly when the channel goes on without the session, so that no fd is closed for it.
    stays: bool,
    settled: bool,
    /// True exactly when the row says all that is known before the fd is closed.
    completed: bool,
    watcher: Option<Arc<CloseWatcher>>,
    completion: DepartureUpdate,
}

const _: () = assert!(size_of::<OpenDeparture>() <= 96);

/// All of them.
#[derive(Debug)]
pub(super) struct OpenDepartures {
    open: SessionMap<OpenDeparture>,
    /// Those whose row and `offline` are in the transaction under way.
    committing: Vec<SessionKey>,
}

/// An end that is committed.
pub(super) struct Committed {
    pub(super) user: UserId,
    pub(super) epoch: Epoch,
    /// From noticed to committed, in microseconds.
    pub(super) offline_us: u64,
}

impl OpenDepartures {
    /// None yet; there will be so many channels at most.
    pub(super) fn new(capacity: usize) -> Self {
        OpenDepartures { open: SessionMap::new(capacity), committing: Vec::new() }
    }

    /// A session has ended; its row is in the transaction under way.
    pub(super) fn begin(
        &mut self,
        key: SessionKey,
        (user, epoch): (UserId, Epoch),
        noticed_us: u64,
        stays: bool,
        watcher: Option<Arc<CloseWatcher>>,
    ) {
        let completion = DepartureUpdate::default();
        let end = OpenDeparture {
            user,
            epoch,
            noticed_us,
            stays,
            settled: false,
            completed: false,
            watcher,
            completion,
        };
        self.open.insert(key, end);
        self.committing.push(key);
    }

    /// The worker has reported how many messages it delivered and how many it left unsent. Answers whose session it was;
    /// none where that end is not open.
    pub(super) fn settle(&mut self, key: SessionKey, delivered: u64, unsent: usize) -> Option<UserId> {
        let end = self.open.get_mut(key)?;
        end.settled = true;
        end.completion.delivered = delivered as i64;
        end.completion.saved = unsent as i64;
        Some(end.user)
    }

    /// What became of the messages to a client that confirms.
    pub(super) fn account(&mut self, key: SessionKey, confirmed: u64, unconfirmed: u64) {
        if let Some(end) = self.open.get_mut(key) {
            end.completion.delivered = confirmed as i64;
            end.completion.saved += unconfirmed as i64;
        }
    }

    /// Chats that counted as delivered, because their rest was to go out first, have never gone out whole.
    pub(super) fn lose(&mut self, key: SessionKey, chats: u64) {
        if let Some(end) = self.open.get_mut(key) {
            end.completion.delivered -= chats as i64;
            end.completion.lost += chats as i64;
        }
    }

    /// Takes the ends that the transaction has committed.
    pub(super) fn take_committing(&mut self) -> Vec<SessionKey> {
        std::mem::take(&mut self.committing)
    }

    /// An end is committed: whoever waits for it is told.
    pub(super) fn commit(&mut self, key: SessionKey, now_us: u64) -> Option<Committed> {
        let end = self.open.get_mut(key)?;
        let offline_us = end.offline(now_us);
        Some(Committed { user: end.user, epoch: end.epoch, offline_us })
    }

    /// A login was not committed, and its session has ended in the same transaction: the history never hears of it. The
    /// rest of its end goes on. True exactly when it was open.
    pub(super) fn forget(&mut self, key: SessionKey, now_us: u64) -> bool {
        let Some(end) = self.open.get_mut(key) else { return false };
        end.offline(now_us);
        self.committing.retain(|committing| *committing != key);
        true
    }

    /// The fd is closed, so long after the end was noticed.
    pub(super) fn close(&mut self, key: SessionKey, closed_us: u64) {
        if let Some(end) = self.open.get_mut(key) {
            end.completion.closed_us = Some(closed_us as i64);
        }
    }

    /// Writes what has become known of an end, with the next commit: once when it is settled and committed, once more when
    /// the fd is closed.
    pub(super) fn complete(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>, key: SessionKey) {
        let Some(end) = self.open.get_mut(key) else { return };
        let last = end.stays || end.completion.closed_us.is_some();
        if !end.settled || end.completion.offline_us.is_none() || end.completed && !last {
            return;
        }
        end.completed = true;
        let completion = end.completion;
        if last {
            self.open.remove(key);
        }
        let write = PendingWrite::DepartureUpdate { key, completion, last };
        cx.transaction.enqueue_later(write, cx.now.mono_us);
    }

    /// True exactly when all is known of every end.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What is left of all kinds, for tests that expect nothing to be.
    #[cfg(test)]
    pub(super) fn left_over(&self) -> [(&'static str, usize); 2] {
        [("open departures", self.open.len()), ("committing", self.committing.len())]
    }
}

impl OpenDeparture {
    /// The user is offline. Answers how long after the end was noticed.
    fn offline(&mut self, now_us: u64) -> u64 {
        let offline_us = now_us.saturating_sub(self.noticed_us);
        self.completion.offline_us = Some(offline_us as i64);
        if let Some(watcher) = &self.watcher {
            watcher.report(now_us, CloseStage::Offline);
        }
        offline_us
    }
}
