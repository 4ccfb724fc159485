//! Closes a channel from any thread, without waiting for main.

use super::queue::OfflineQueue;
use crate::channel::{ChannelId, ChannelTable, Closed, Reason, SessionNo};
use crate::clock::Clock;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::disconnect::{CloseInfo, Departure};
use crate::message::event::Event;
use crate::metrics::Metrics;
use crate::sync::Arc;

/// Takes the step, pushes the departure, sends the worker a command. The admin socket, takeover and shutdown use it.
pub struct Kicker<S> {
    table: Arc<ChannelTable>,
    queue: Arc<OfflineQueue<S>>,
    worker_sender: Arc<dyn WorkerSender>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl<S> Clone for Kicker<S> {
    fn clone(&self) -> Self {
        Kicker {
            table: Arc::clone(&self.table),
            queue: Arc::clone(&self.queue),
            worker_sender: Arc::clone(&self.worker_sender),
            metrics: Arc::clone(&self.metrics),
            clock: self.clock,
        }
    }
}

impl<S> Kicker<S> {
    /// A kicker for one server.
    pub fn new(
        table: Arc<ChannelTable>,
        queue: Arc<OfflineQueue<S>>,
        worker_sender: Arc<dyn WorkerSender>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Kicker { table, queue, worker_sender, metrics, clock }
    }

    /// Closes a channel. True for exactly one caller in the life of a channel; a stale id does nothing.
    pub fn kick(&self, channel: ChannelId, reason: Reason) -> bool {
        self.kick_saying(channel, CloseInfo::new(reason))
    }

    /// The same, with a text, and perhaps with a watcher for the stages.
    pub fn kick_saying(&self, channel: ChannelId, close_info: CloseInfo) -> bool {
        self.table.leave(channel).is_some_and(|left| self.push(channel, left, close_info))
    }

    /// The same, only while that session lasts: a later session on the channel stays.
    pub fn kick_session(&self, channel: ChannelId, session: SessionNo, close_info: CloseInfo) -> bool {
        let left = self.table.leave_session(channel, session);
        left.is_some_and(|left| self.push(channel, left, close_info))
    }

    /// Closes a channel on which no user is logged in; any other stays.
    pub fn kick_open(&self, channel: ChannelId, reason: Reason) -> bool {
        let left = self.table.leave_open(channel).then_some(Closed { session: None });
        left.is_some_and(|left| self.push(channel, left, CloseInfo::new(reason)))
    }

    /// The step is taken: the departure for main, then the goodbye for the worker.
    fn push(&self, channel: ChannelId, left: Closed, close_info: CloseInfo) -> bool {
        let worker = self.table.worker(channel);
        let now = self.clock.now();
        self.metrics.note_departure(close_info.reason);
        self.queue.push(Event::Departure(Departure {
            channel,
            session: left.session,
            stays: false,
            noticed_us: now.mono_us,
            queued_us: now.mono_us,
            at_ms: now.unix_ms,
            close_info: close_info.clone(),
        }));
        let mut mail = vec![WorkerCommand::Leave { channel, session: left.session, close_info }];
        self.worker_sender.post(worker, &mut mail, &mut Vec::new());
        true
    }
}
