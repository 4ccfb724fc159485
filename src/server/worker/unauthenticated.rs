//! Channels that have been without a login for long, oldest first: they leave when places are short.
//!
//! Shared by all workers, so that the oldest of the whole server goes first. A channel's own worker adds it, and
//! removes it when a login or registration begins or the channel leaves. A worker that takes the oldest has to check
//! whether the channel is still without a login.

use crate::channel::ChannelId;
use crate::sync::Mutex;
use std::collections::BTreeSet;

/// Channels by the moment since when they are without a login.
#[derive(Debug, Default)]
pub struct Unauthenticated(Mutex<BTreeSet<(u64, ChannelId)>>);

impl Unauthenticated {
    /// None yet.
    pub fn new() -> Self {
        Unauthenticated(Mutex::new(BTreeSet::new()))
    }

    /// A channel has been without a login for long, since `since_us`.
    pub fn add(&self, since_us: u64, channel: ChannelId) {
        self.0.lock().insert((since_us, channel));
    }

    /// A login or registration begins on the channel, or it leaves.
    pub fn remove(&self, since_us: u64, channel: ChannelId) {
        self.0.lock().remove(&(since_us, channel));
    }

    /// Takes the channel off that has waited longest.
    pub fn take_oldest(&self) -> Option<ChannelId> {
        self.0.lock().pop_first().map(|(_, channel)| channel)
    }
}
