//! The close of a client's fd, and what follows from it: the channel's name is free, the history is complete.
//!
//! On main. `lingering` asks the worker for the socket when the grace is over.

use super::state::MainLoop;
use crate::channel::ChannelId;
use crate::message::disconnect::{CloseStage, PartialWrite};
use crate::store::Storage;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Closes the fd of a channel whose worker has handed the socket back: the only place where a client's fd is closed.
    /// Then the name is free, and what went out in part only will never be whole.
    pub(super) fn close_fd(&mut self, channel: ChannelId, socket: Option<S>, partial: Option<PartialWrite>) {
        drop(socket);
        if self.lingering.find(channel).is_none() {
            tracing::error!(%channel, "a socket came back that nobody asked for");
            return;
        }
        self.cx.handles.metrics.closed.add(1);
        self.cx.handles.table.free(channel);
        if let Some(PartialWrite { session, chats }) = partial {
            self.cx.handles.metrics.chats_lost.add(chats);
            self.open_departures.lose((channel, session), chats);
        }
        self.end_lingering(channel);
    }

    /// A channel has no fd any more: nothing of its end is left to wait for.
    pub(super) fn end_lingering(&mut self, channel: ChannelId) {
        let Some(entry) = self.lingering.remove(channel) else { return };
        let closed_us = self.cx.now.mono_us.saturating_sub(entry.noticed_us);
        self.stages.closed.note(closed_us);
        if let Some(watcher) = &entry.watcher {
            watcher.report(self.cx.now.mono_us, |_| CloseStage::Closed);
        }
        if let Some(key) = entry.session.map(|number| (channel, number)) {
            self.open_departures.close(key, closed_us);
            self.open_departures.complete(&mut self.cx, key);
        }
    }
}
