//! Whose box has more to send: users who have taken over, or confirmed, what they were sent of it.
//!
//! Plain data, owned by main.

use crate::ids::UserId;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Refills {
    users: Vec<UserId>,
    /// Until then nobody is sent more, because a commit has failed (monotonic, in microseconds).
    not_before_us: u64,
}

impl Refills {
    /// A user may be sent more.
    pub(super) fn push(&mut self, user: UserId) {
        self.users.push(user);
    }

    /// Nobody is sent more before then (monotonic, in microseconds).
    pub(super) fn hold_back(&mut self, until_us: u64) {
        self.not_before_us = until_us;
    }

    /// Takes those who may be sent more now, each once: twice in one turn would be to look behind what is not committed.
    pub(super) fn take(&mut self, now_us: u64) -> Vec<UserId> {
        if now_us < self.not_before_us {
            return Vec::new();
        }
        let mut users = std::mem::take(&mut self.users);
        users.sort_unstable();
        users.dedup();
        users
    }

    /// How many may be sent more.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}
