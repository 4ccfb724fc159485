//! Notices that friends came or went, on their way to the users who watch them.

use crate::channel::{ChannelId, SessionNo};
use crate::ids::{Epoch, UserId};
use crate::sync::{Arc, AtomicUsize, Ordering};

/// A notice that a friend came or went, for one watcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The watcher's channel.
    pub to: ChannelId,
    /// The watcher's session; a later one ignores it.
    pub session: SessionNo,
    /// What there is to tell.
    pub event: PresenceEvent,
}

/// That somebody came or went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PresenceEvent {
    /// Who.
    pub user: UserId,
    /// The user's name.
    pub name: Arc<str>,
    /// True exactly when the user came.
    pub online: bool,
    /// The session that began or ended.
    pub epoch: Epoch,
}

/// What one turn of main tells the watchers of one worker.
#[derive(Debug)]
pub struct PresenceBatch {
    /// In the order of the friends.
    pub notices: Vec<Notice>,
    _under_way: UnderWay,
}

impl PresenceBatch {
    /// One that is counted until a worker has taken it.
    pub fn new(under_way: &Arc<AtomicUsize>) -> Self {
        PresenceBatch { notices: Vec::new(), _under_way: UnderWay::new(under_way) }
    }
}

/// Counts the bulletins that no worker has taken yet. Relaxed: nothing but the count is passed on.
#[derive(Debug)]
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
