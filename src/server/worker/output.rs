//! Writes what waits for a channel to its socket, and notes what the kernel has taken.

use super::output_buffer::Written;
use super::state::WorkerState;
use crate::channel::{ChannelId, Reason};
use crate::message::disconnect::CloseInfo;
use crate::message::event::Event;
use crate::net::transport::Transport;
use std::io;

/// Reads that are still done on a connection that takes no more output, for what was asked before.
const LAST_READS: usize = 16;

impl<T: Transport> WorkerState<T> {
    /// Writes what waits, once.
    pub(super) fn flush(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        self.write_presence(id);
        let Some(connection) = self.connection(id) else { return };
        connection.dirty = false;
        if connection.out.is_empty() || connection.blocked {
            self.check_out_limit(id);
            self.send_goodbye(id);
            self.adjust_interest(id);
            return;
        }
        let offered = connection.out.len();
        match connection.io.write(connection.out.unsent()) {
            Ok(count) => {
                connection.bytes_out += count as u64;
                connection.blocked = count < offered;
                connection.moved_us = now_us;
                let mut written = Written::default();
                connection.out.advance(count, &mut written);
                self.handles.metrics.bytes_out.add(count as u64);
                self.note_written(id, written);
                self.set_short_user_timeout(id);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.blocked = true,
            Err(error) => {
                self.drain_before_failing(id);
                self.fail(id, &error, Reason::WriteError);
                return self.adjust_interest(id);
            }
        }
        self.mark_waiting_presence(id);
        self.check_out_limit(id);
        self.arm_if_blocked(id);
        self.send_goodbye(id);
        self.adjust_interest(id);
    }

    pub(super) fn note_written(&mut self, id: ChannelId, written: Written) {
        let Some(connection) = self.connection(id) else { return };
        let session = connection.session();
        if let Some(user) = &mut connection.user {
            user.delivered += written.delivered;
        }
        let user = connection.user.as_ref().map(|user| user.sender.id);
        if let (Some(upto), Some(session), Some(user)) = (written.taken_over, session, user) {
            self.to_main.push(Event::TakenOver { user, channel: id, session, upto });
        }
        self.handles.metrics.chats_delivered.add(written.delivered);
        self.to_main.extend(written.trackers.into_iter().map(|tracker| Event::Handed { tracker }));
    }

    fn check_out_limit(&mut self, id: ChannelId) {
        let limit = self.shared.limits.out_limit;
        let Some(connection) = self.connection(id) else { return };
        if connection.out.is_over(limit) && connection.closing.is_none() {
            self.step(id, CloseInfo::new(Reason::SlowConsumer));
        }
    }

    /// Reads what a client asked before its connection broke.
    fn drain_before_failing(&mut self, id: ChannelId) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..LAST_READS {
            let Some(connection) = self.connection(id) else { break };
            if connection.closing.is_some() {
                break;
            }
            match connection.io.read(&mut scratch) {
                Ok(count) if count > 0 => self.take_input(id, &scratch[..count]),
                _ => break,
            }
        }
        self.scratch = scratch;
    }

    /// A channel is about to get something to write.
    pub(super) fn lend_buffer(&mut self, id: ChannelId) {
        if let Some(Some(connection)) = self.channels.get_mut(id.slot as usize) {
            connection.out.borrow_buffer(&mut self.pool);
        }
    }

    pub(super) fn return_buffer(&mut self, id: ChannelId) {
        if let Some(Some(connection)) = self.channels.get_mut(id.slot as usize) {
            connection.out.return_buffer(&mut self.pool);
        }
    }
}
