//! Events of friends who come and go, on their way to one channel.
//!
//! They wait apart from other output until the channel takes more of it, and only the latest event of each friend. So
//! they do not count against the out-limit, and an event that is out of date is never written. They belong to the
//! session, and are dropped when it ends.

use crate::ids::UserId;
use crate::message::presence::PresenceEvent;
use std::collections::BTreeMap;

/// The latest event of each friend that is not written yet.
#[derive(Debug, Default)]
pub(super) struct PresenceQueue(BTreeMap<UserId, PresenceEvent>);

impl PresenceQueue {
    /// Adds an event, unless there is a newer one of that friend.
    pub(super) fn add(&mut self, event: PresenceEvent) {
        let known = self.0.get(&event.user);
        if known.is_none_or(|known| known.epoch <= event.epoch) {
            self.0.insert(event.user, event);
        }
    }

    /// Takes the event of the first friend, by number.
    pub(super) fn take_first(&mut self) -> Option<PresenceEvent> {
        self.0.pop_first().map(|(_, event)| event)
    }
}
