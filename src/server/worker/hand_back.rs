//! How a socket goes back to main, which closes it: main asks for it when the channel's grace is over.

use super::state::WorkerState;
use crate::channel::{ChannelId, Reason};
use crate::message::event::Event;
use crate::net::transport::Transport;

impl<T: Transport> WorkerState<T> {
    /// Main wants the socket. What is ready to go goes first.
    pub(super) fn return_socket(&mut self, id: ChannelId) {
        // Closing may have begun just now: the first call writes what waits, the second the goodbye behind it.
        self.flush(id);
        self.flush(id);
        let Some(connection) = self.connection(id) else {
            // The poller never took it.
            return self.to_main.push(Event::HandBack { channel: id, socket: None, partial: None });
        };
        let asks = connection.in_main > 0;
        if let Some(closing) = &mut connection.closing
            && closing.close_info.reason == Reason::PeerClosed
            && !closing.broken
            && asks
        {
            // What the client asked before it ended its side is still answered; main works on it.
            closing.socket_wanted = true;
            return;
        }
        let Some(mut connection) = self.channels.get_mut(id.slot as usize).and_then(Option::take) else {
            return;
        };
        if !std::mem::replace(&mut connection.counted_gone, true) {
            self.handles.table.note_gone();
        }
        if connection.counted_in {
            self.shared.addresses.leave(connection.block());
        }
        debug_assert!(connection.is_settled(), "a channel is settled before it is closed");
        let partial = connection.closing.and_then(|closing| closing.partial).or(connection.out.clear());
        let socket = connection.io.into_socket();
        self.to_main.push(Event::HandBack { channel: id, socket, partial });
    }
}
