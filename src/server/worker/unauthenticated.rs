//! Channels that have had nobody logged in for long, oldest first: they leave when places run short.
//!
//! Shared by all workers, so that the oldest of the whole server goes first. A channel comes here by its own worker, and is
//! taken off by it when a login or registration begins or the channel leaves. Whoever takes the oldest off has to see for
//! itself whether the channel still stands as it did.

use crate::channel::ChannelId;
use crate::sync::Mutex;
use std::collections::BTreeSet;

/// Channels by the moment since when nobody has been logged in.
#[derive(Debug, Default)]
pub struct Unauthenticated(Mutex<BTreeSet<(u64, ChannelId)>>);

impl Unauthenticated {
    /// None yet.
    pub fn new() -> Self {
        Unauthenticated(Mutex::new(BTreeSet::new()))
    }

    /// A channel has had nobody logged in for long, since `since_us`.
    pub fn add(&self, since_us: u64, channel: ChannelId) {
        self.0.lock().insert((since_us, channel));
    }

    /// It waits no longer.
    pub fn remove(&self, since_us: u64, channel: ChannelId) {
        self.0.lock().remove(&(since_us, channel));
    }

    /// Takes the channel off that has waited longest.
    pub fn take_oldest(&self) -> Option<ChannelId> {
        self.0.lock().pop_first().map(|(_, channel)| channel)
    }
}
