//! How a connection becomes a channel, and when no connection is accepted.
//!
//! The kernel's listeners are in [`super::event_loop`].

use super::connection::{Codec, Connection};
use super::responses;
use super::state::WorkerState;
use crate::channel::Reason;
use crate::ip_block::IpBlock;
use crate::message::disconnect::CloseInfo;
use crate::message::event::Event;
use crate::net::transport::Transport;
use std::io;
use std::net::SocketAddr;

impl<T: Transport> WorkerState<T> {
    /// Takes a new connection. `make` wraps the socket under the poller key that it is given, and does not register it
    /// yet.
    ///
    /// # Errors
    /// The socket, when no name is free: try again after [`crate::message::command::WorkerCommand::Accept`].
    pub fn accept<S>(
        &mut self,
        socket: S,
        peer: SocketAddr,
        codec: Codec,
        make: impl FnOnce(S, usize) -> T,
    ) -> Result<(), S> {
        let Some(id) = self.handles.table.open(self.index) else { return Err(socket) };
        self.handles.metrics.accepted.add(1);
        let slot = id.slot as usize;
        if self.channels.len() <= slot {
            self.channels.resize_with(slot + 1, || None);
        }
        let mut connection = Connection::new(id, make(socket, slot), peer, codec, self.now.mono_us);
        connection.has_short_user_timeout = self.shared.limits.has_two_user_timeouts();
        let refusal = if self.handles.table.present() > self.shared.limits.max_channels {
            Some(Reason::ServerFull)
        } else {
            connection.counted_in = self.shared.addresses.enter(IpBlock::of(peer.ip()));
            (!connection.counted_in).then_some(Reason::IpLimit)
        };
        self.channels[slot] = Some(Box::new(connection));
        match refusal {
            Some(reason) => self.step(id, CloseInfo::new(reason)),
            None => self.arm(id),
        }
        self.make_room();
        self.adjust_interest(id);
        Ok(())
    }

    /// Counts and logs a connection for which there is no fd to keep; returns the goodbye for it.
    pub fn turn_away(&mut self, peer: SocketAddr, codec: &Codec, error: &io::Error) -> Vec<u8> {
        let close_info = CloseInfo::new(Reason::ResourceExhausted).with_errno(error.raw_os_error());
        self.handles.metrics.left.add(close_info.reason, 1);
        self.log_turned_away(peer, &close_info);
        let mut goodbye = Vec::new();
        responses::append_goodbye(codec, &close_info, &mut goodbye);
        goodbye
    }

    /// Stops accepting until main says that there is room again.
    pub fn pause_accepting(&mut self) {
        if self.accepting {
            self.accepting = false;
            self.handles.metrics.accept_pauses.add(1);
            self.to_main.push(Event::Short { worker: self.index });
        }
    }

    /// The listeners are emptied and closed.
    pub fn stopped_listening(&mut self) {
        self.to_main.push(Event::Quiet);
    }

    /// Counts an accept call that failed for want of fds or memory, and asks main for room.
    pub fn note_accept_error(&mut self) {
        self.handles.metrics.accept_errors.add(1);
        self.to_main.push(Event::Short { worker: self.index });
    }
}
