//! Channels that have left and still have their fd: until the grace is over, and then until the worker has handed the
//! socket back.
//!
//! Owned by main. A worker is asked for a socket once, and not before it has reported what the session left unsent.

use super::context::Context;
use crate::channel::{ChannelId, SessionNo};
use crate::message::command::WorkerCommand;
use crate::message::disconnect::CloseWatcher;
use crate::shrink::Shrink;
use crate::store::Storage;
use crate::sync::Arc;
use std::collections::VecDeque;

/// The share of all names from which on lingering channels close early, in percent.
const EARLY_CLOSE_PERCENT: usize = 90;
/// Lingering channels that one turn closes early at most.
const EARLY_CLOSES_MAX: usize = 4096;

/// A channel that has left and still has its fd.
#[derive(Debug)]
pub(super) struct LingeringChannel {
    pub(super) channel: ChannelId,
    pub(super) session: Option<SessionNo>,
    pub(super) noticed_us: u64,
    pub(super) watcher: Option<Arc<CloseWatcher>>,
    /// True exactly when the owning worker has settled, so that closing loses nothing.
    pub(super) settled: bool,
    /// True exactly when the grace is over.
    pub(super) due: bool,
    /// True exactly when the worker has been asked for the socket.
    pub(super) closing: bool,
}

// After a storm there is room for one in each slot up to the highest that has left.
const _: () = assert!(size_of::<LingeringChannel>() <= 40);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// By slot.
    by_slot: Vec<Option<LingeringChannel>>,
    /// When their grace is over, in order (monotonic, in microseconds).
    order: VecDeque<(u64, ChannelId)>,
    /// How many there are.
    count: usize,
    /// How many of them are due.
    due: usize,
}

impl Lingering {
    /// A channel has left; its grace is over at `until_us`.
    pub(super) fn begin(
        &mut self,
        (channel, session): (ChannelId, Option<SessionNo>),
        noticed_us: u64,
        until_us: u64,
        watcher: Option<Arc<CloseWatcher>>,
    ) {
        self.order.push_back((until_us, channel));
        let slot = channel.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, || None);
        }
        self.count += 1;
        self.by_slot[slot] = Some(LingeringChannel {
            channel,
            session,
            noticed_us,
            watcher,
            settled: false,
            due: false,
            closing: false,
        });
    }

    /// The worker has reported what that session left unsent.
    pub(super) fn settle(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        channel: ChannelId,
        session: Option<SessionNo>,
    ) {
        if let Some(entry) = self.find_mut(channel).filter(|entry| entry.session == session) {
            entry.settled = true;
            entry.ask_for_socket(cx);
        }
    }

    /// Ends every grace whose time is over, and that of the oldest channels while more than [`EARLY_CLOSE_PERCENT`] of all
    /// names are taken.
    pub(super) fn end_graces(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) {
        let now_us = cx.now.mono_us;
        while let Some((_, channel)) = self.order.pop_front_if(|(until_us, _)| *until_us <= now_us) {
            self.end_grace(cx, channel);
        }
        self.order.shrink();
        let limit = cx.handles.table.capacity() * EARLY_CLOSE_PERCENT / 100;
        let taken = cx.handles.table.taken();
        let excess = taken.saturating_sub(limit).saturating_sub(self.due).min(EARLY_CLOSES_MAX);
        for _ in 0..excess {
            let Some((_, channel)) = self.order.pop_front() else { break };
            cx.handles.metrics.closed_early.add(1);
            self.end_grace(cx, channel);
        }
    }

    /// The grace of a channel is over: its socket is asked for as soon as its worker has settled.
    pub(super) fn end_grace(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        channel: ChannelId,
    ) {
        let Some(entry) = self.find_mut(channel) else { return };
        let was_due = std::mem::replace(&mut entry.due, true);
        entry.ask_for_socket(cx);
        self.due += usize::from(!was_due);
    }

    /// Ends every grace at once: the server stops.
    pub(super) fn end_every_grace(&mut self) {
        for (until_us, _) in &mut self.order {
            *until_us = 0;
        }
    }

    /// The fd of a channel is closed.
    pub(super) fn remove(&mut self, channel: ChannelId) -> Option<LingeringChannel> {
        let entry = self.by_slot.get_mut(channel.slot as usize)?.take_if(|entry| entry.channel == channel)?;
        self.due -= usize::from(entry.due);
        self.count -= 1;
        Some(entry)
    }

    /// A channel, if it lingers.
    pub(super) fn find(&self, channel: ChannelId) -> Option<&LingeringChannel> {
        self.in_slot(channel.slot as usize).filter(|entry| entry.channel == channel)
    }

    /// The channel that lingers in a slot.
    pub(super) fn in_slot(&self, slot: usize) -> Option<&LingeringChannel> {
        self.by_slot.get(slot)?.as_ref()
    }

    /// The number of slots up to the highest from which a channel has left.
    pub(super) fn slots(&self) -> usize {
        self.by_slot.len()
    }

    /// How many channels linger.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// When the next grace is over (monotonic, in microseconds).
    pub(super) fn next_us(&self) -> Option<u64> {
        self.order.front().map(|(until_us, _)| *until_us)
    }

    /// Forgets when their graces are over, as a fault would.
    #[cfg(test)]
    pub(super) fn forget_order(&mut self) {
        self.order.clear();
    }

    /// What is left of all kinds, for tests that expect nothing to be.
    #[cfg(test)]
    pub(super) fn left_over(&self) -> [(&'static str, usize); 4] {
        [
            ("by_slot", self.by_slot.iter().flatten().count()),
            ("seated", self.count),
            ("closing", self.due),
            ("lingering", self.order.len()),
        ]
    }

    fn find_mut(&mut self, channel: ChannelId) -> Option<&mut LingeringChannel> {
        self.by_slot.get_mut(channel.slot as usize)?.as_mut().filter(|entry| entry.channel == channel)
    }
}

impl LingeringChannel {
    /// Asks the worker for the socket: once, when it is due and settled.
    fn ask_for_socket(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) {
        if self.due && self.settled && !std::mem::replace(&mut self.closing, true) {
            cx.post(self.channel, WorkerCommand::Close { channel: self.channel });
        }
    }
}
