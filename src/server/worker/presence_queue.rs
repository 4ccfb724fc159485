//! Events of friends who come and go, on their way to one channel.
//!
//! Part of the core. They wait apart from all else until the channel takes more output, the latest of each friend
//! alone. So they take no room that counts against the out-limit, and what is old by the time it could be written never
//! is. They belong to the session: nobody keeps them when it ends.

use crate::ids::UserId;
use crate::message::presence::PresenceEvent;
use std::collections::BTreeMap;

/// The latest of each friend that a channel has not been told.
#[derive(Debug, Default)]
pub(super) struct PresenceQueue(BTreeMap<UserId, PresenceEvent>);

impl PresenceQueue {
    /// Takes an event in, unless there is a newer one of that friend.
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
