//! How a channel ends in its worker's hands: farewell, settlement, hand-over of the socket.
//!
//! The step itself is in [`crate::channel::gate`]. Here is what follows it: one write, the goodbye, the end of
//! the server's side, then input is read and dropped until main asks for the socket.

use super::connection::{Leaving, Settling};
use super::core::Core;
use super::outbuf::Written;
use super::socket::Transport;
use crate::channel::{ChannelId, Reason, SessionNo};
use crate::offline::{Entry, Milestone, Parting, Settlement};
use crate::protocol::answer;
use std::io;

/// The system's error numbers that have a reason of their own, as Linux numbers them.
const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;
const ETIMEDOUT: i32 = 110;

impl<T: Transport> Core<T> {
    /// A system call on the connection failed: it takes and gives nothing any more.
    pub(super) fn fail(&mut self, id: ChannelId, error: &io::Error, otherwise: Reason) {
        let errno = error.raw_os_error();
        let reason = match errno {
            Some(EPIPE | ECONNRESET) => Reason::PeerReset,
            Some(ETIMEDOUT) => Reason::NetworkTimeout,
            _ => otherwise,
        };
        let Some(connection) = self.connection(id) else { return };
        connection.ended = true;
        connection.blocked = false;
        if connection.leaving.is_none() {
            self.step(id, Parting::new(reason).with_errno(errno));
        }
        self.give_up(id);
    }

    /// Marks a connection as one that takes and gives nothing any more.
    fn give_up(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        if let Some(leaving) = &mut connection.leaving {
            leaving.broken = true;
            leaving.gone = true;
            if let (Some(receipt), false) = (&leaving.parting.receipt, leaving.shut) {
                receipt.report(now_us, |_| Milestone::Lost);
            }
        }
        connection.out.clear();
        connection.input = Vec::new();
        // Deregistering an fd cannot fail in a way that matters: the socket is about to be closed.
        let _ = connection.io.watch(false, false);
    }

    /// Starts the farewell of a channel whose step is taken: one write, the cut, the goodbye.
    pub(super) fn part(&mut self, id: ChannelId, session: Option<SessionNo>, parting: Parting) {
        let Some(connection) = self.connection(id) else { return };
        if connection.leaving.is_some() {
            return;
        }
        let broken = matches!(
            parting.reason,
            Reason::PeerReset | Reason::NetworkTimeout | Reason::ReadError | Reason::WriteError
        );
        let mut written = Written::default();
        if !broken && !connection.blocked && !connection.out.is_empty() {
            let offered = connection.out.len();
            // A failure shows again at the goodbye's write, and counts there.
            if let Ok(count) = connection.io.write(connection.out.unsent()) {
                connection.bytes_out += count as u64;
                connection.blocked = count < offered;
                connection.out.advance(count, &mut written);
            }
        }
        self.note_written(id, written);
        let Some(connection) = self.connection(id) else { return };
        let unsent = connection.out.cut();
        if let Some(session) = session {
            // The user stays for what the channel report says of it, but the session is over.
            let delivered = connection.user.as_mut().map_or(0, |user| {
                user.session = None;
                user.delivered
            });
            if connection.settling.is_none() {
                connection.settling = Some(Box::new(Settling { session, unsent, delivered }));
            }
        }
        connection.input = Vec::new();
        tracing::debug!(channel = %id, peer = %connection.peer, reason = parting.reason.word(), errno = parting.errno, "left");
        connection.leaving = Some(Box::new(Leaving {
            parting,
            broken,
            shut: broken,
            gone: broken || connection.ended && connection.out.is_empty() && connection.in_main == 0,
            told: false,
        }));
        if broken {
            self.give_up(id);
        }
        self.mark_dirty(id);
    }

    /// Says goodbye behind the last of the output, and ends the server's side when all of it is written.
    pub(super) fn farewell(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        let waits = connection.in_main > 0 || connection.tickets > 0 || connection.logging_in;
        let end = connection.terminator();
        let Some(leaving) = &mut connection.leaving else { return };
        if leaving.shut || leaving.broken {
            return;
        }
        let by_client = leaving.parting.reason == Reason::PeerClosed;
        if by_client && waits {
            // What was asked before the end is still answered.
            return;
        }
        if !leaving.told {
            leaving.told = true;
            if !by_client {
                let parting = &leaving.parting;
                connection.out.plain(|out| {
                    answer::goodbye(out, parting.reason, &parting.text, parting.retry_after_ms);
                    out.push(end);
                });
                self.mark_dirty(id);
                return;
            }
        }
        if !connection.out.is_empty() {
            if let (true, Some(receipt)) = (connection.blocked, &leaving.parting.receipt) {
                receipt.report(now_us, |_| Milestone::Blocked);
            }
            return;
        }
        if let Some(receipt) = &leaving.parting.receipt {
            receipt.report(now_us, Milestone::Told);
        }
        leaving.shut = true;
        // The other side may be gone already; then there is nothing to end.
        let _ = connection.io.end_output();
        if let Some(receipt) = &leaving.parting.receipt {
            receipt.report(now_us, Milestone::ShutDown);
        }
        if connection.ended {
            leaving.gone = true;
        }
    }

    /// Reports what a session has left unsent. Everything others sent to it has been seen by now.
    pub(super) fn settle(&mut self, id: ChannelId, session: Option<SessionNo>) {
        let Some(connection) = self.connection(id) else { return };
        let (mut unsent, mut delivered) = (Vec::new(), 0);
        if let Some(session) = session {
            let Some(settling) = connection.settling.take_if(|s| s.session == session) else { return };
            Settling { unsent, delivered, .. } = *settling;
        }
        self.to_main.push(Entry::Settlement(Settlement { channel: id, session, unsent, delivered }));
    }

    /// Looks whether the client is still there, because somebody wants its place.
    pub(super) fn probe(&mut self, id: ChannelId) {
        let Some(slot) = self.connection(id).map(|c| c.id.slot as usize) else { return };
        self.ready(slot, true, false);
    }

    /// Deregisters the socket and hands it to main, who closes it.
    pub(super) fn hand_back(&mut self, id: ChannelId) {
        if self.connection(id).is_none() {
            return;
        }
        let Some(mut connection) = self.channels.get_mut(id.slot as usize).and_then(Option::take) else {
            return;
        };
        if !std::mem::replace(&mut connection.counted_gone, true) {
            self.shared.table.note_gone();
        }
        debug_assert!(connection.settling.is_none(), "a channel is settled before it is closed");
        if let Some(socket) = connection.io.into_socket() {
            self.to_main.push(Entry::HandBack { channel: id, socket });
        }
    }
}
