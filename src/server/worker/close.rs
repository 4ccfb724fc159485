//! How a worker closes a channel: the goodbye and the delivery report. The socket goes back to main by `hand_back`.
//!
//! The step itself is in [`crate::channel::state`]. Here a worker takes it, and here is what follows the step,
//! whichever thread took it: one write, the goodbye, the end of the server's side. Then input is read and dropped until
//! main asks for the socket.

use super::connection::{Closing, EndedSession};
use super::output_buffer::Written;
use super::state::WorkerState;
use crate::channel::{ChannelId, Initiator, Reason, SessionNo};
use crate::message::disconnect::{CloseInfo, CloseStage, DeliveryReport, Departure};
use crate::message::event::Event;
use crate::net::transport::Transport;
use std::io;
use std::net::SocketAddr;

/// The system's error numbers that have a reason of their own, as Linux numbers them.
const EPIPE: i32 = 32;
const ENETUNREACH: i32 = 101;
const ECONNRESET: i32 = 104;
const ETIMEDOUT: i32 = 110;
const EHOSTUNREACH: i32 = 113;

impl<T: Transport> WorkerState<T> {
    /// A system call on the connection failed: nothing can be read from it or written to it any more.
    pub(super) fn fail(&mut self, id: ChannelId, error: &io::Error, otherwise: Reason) {
        let errno = error.raw_os_error();
        let reason = match errno {
            Some(EPIPE | ECONNRESET) => Reason::PeerReset,
            // When its timers run out, the kernel reports what a router has said of the path meanwhile, if one has.
            Some(ETIMEDOUT | EHOSTUNREACH | ENETUNREACH) => Reason::NetworkTimeout,
            _ => otherwise,
        };
        let Some(connection) = self.connection(id) else { return };
        connection.ended = true;
        connection.blocked = false;
        if connection.closing.is_none() {
            self.step(id, CloseInfo::new(reason).with_errno(errno));
        }
        let Some(connection) = self.connection(id) else { return };
        if connection.closing.is_some() {
            self.give_up(id);
        } else {
            // Another thread has taken the step. Its command comes, reports what is unsent, and fails at the goodbye.
            let _ = connection.io.watch(false, false);
        }
    }

    /// Takes the one step for a reason that the worker has found, and starts to close.
    pub(super) fn step(&mut self, id: ChannelId, close_info: CloseInfo) {
        let Some(left) = self.handles.table.leave(id) else {
            // Another thread has taken it; its command is on the way.
            return;
        };
        self.handles.metrics.note_departure(close_info.reason);
        self.to_main.push(Event::Departure(Departure {
            channel: id,
            session: left.session,
            stays: false,
            noticed_us: self.now.mono_us,
            queued_us: 0,
            at_ms: self.now.unix_ms,
            close_info: close_info.clone(),
        }));
        self.start_close(id, left.session, close_info);
        // Others may have sent to the session until just now, so its report waits for the next turn. A channel's report
        // comes after those of all its sessions.
        if left.session.is_some() || self.connection(id).is_some_and(|connection| !connection.is_settled()) {
            self.report_delivery_later(id, left.session);
        } else {
            self.report_delivery(id, None);
        }
    }

    /// The poller does not take the connection, for want of memory. The goodbye needs no poller as long as the kernel
    /// takes all of it at once.
    pub(super) fn go_unwatched(&mut self, id: ChannelId, error: &io::Error) {
        let Some(connection) = self.connection(id) else { return };
        match &connection.closing {
            None => {
                let errno = error.raw_os_error();
                self.step(id, CloseInfo::new(Reason::ResourceExhausted).with_errno(errno));
            }
            // The goodbye is written in this turn.
            Some(closing) if !closing.shut && !connection.blocked => {}
            Some(_) => {
                self.give_up(id);
                self.mark_dirty(id);
            }
        }
    }

    /// Marks a connection as broken: nothing can be read from it or written to it any more.
    fn give_up(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        if let Some(closing) = &mut connection.closing {
            closing.broken = true;
            closing.gone = true;
            if let (Some(watcher), false) = (&closing.close_info.watcher, closing.shut) {
                watcher.report(now_us, |_| CloseStage::Lost);
            }
        }
        let partial = connection.out.clear();
        if let Some(closing) = &mut connection.closing {
            closing.partial = closing.partial.or(partial);
        }
        connection.input.clear();
        // Deregistering an fd cannot fail in a way that matters: the socket is about to be closed.
        let _ = connection.io.watch(false, false);
    }

    /// Starts to close a channel whose step is taken: one write, then what is unsent comes off, then the goodbye.
    pub(super) fn start_close(&mut self, id: ChannelId, session: Option<SessionNo>, close_info: CloseInfo) {
        let Some(connection) = self.connection(id) else { return };
        if connection.closing.is_some() {
            return;
        }
        self.end_overstay(id);
        let broken = matches!(
            close_info.reason,
            Reason::PeerReset | Reason::NetworkTimeout | Reason::ReadError | Reason::WriteError
        );
        // The step has usually ended this session. Otherwise main has ended it before, and main's command is on the
        // way: what is unsent belongs to this session all the same.
        let present = self.connection(id).and_then(|connection| connection.session());
        let ended_session = present.and_then(|present| self.take_unsent(id, present, broken));
        let Some(connection) = self.connection(id) else { return };
        if let Some(session) = session
            && ended_session.as_ref().is_none_or(|ended| ended.session != session)
            && connection.ended_session(session).is_none()
        {
            connection.add_ended_session(EndedSession { session, unsent: Vec::new(), delivered: 0 });
        }
        self.log_departure(id, session.is_some(), &close_info);
        let Some(connection) = self.connection(id) else { return };
        connection.input.clear();
        let waits = connection.in_main > 0 || connection.trackers > 0;
        connection.closing = Some(Box::new(Closing {
            close_info,
            ended_session,
            broken,
            shut: broken,
            gone: broken || connection.ended && connection.out.is_empty() && !waits,
            goodbye_sent: false,
            socket_wanted: false,
            partial: None,
        }));
        if broken {
            self.give_up(id);
        }
        self.mark_dirty(id);
    }

    /// Takes a session that is over off its channel, if the worker still thinks that it goes on.
    pub(super) fn end_session_here(&mut self, id: ChannelId, session: SessionNo) {
        if self.connection(id).is_none_or(|connection| connection.session() != Some(session)) {
            return;
        }
        let ended_session = self.take_unsent(id, session, false);
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        if let Some(ended) = ended_session {
            connection.add_ended_session(ended);
        }
        connection.user = None;
        connection.changed_us = now_us;
        self.arm(id);
        self.mark_dirty(id);
    }

    /// Writes once, then takes everything that is unsent off the channel, to wait for the delivery report.
    fn take_unsent(&mut self, id: ChannelId, session: SessionNo, broken: bool) -> Option<EndedSession> {
        let connection = self.connection(id)?;
        let mut written = Written::default();
        if !broken && !connection.blocked && !connection.out.is_empty() {
            let offered = connection.out.len();
            // A failure shows again at the next write, and counts there.
            if let Ok(count) = connection.io.write(connection.out.unsent()) {
                connection.bytes_out += count as u64;
                connection.blocked = count < offered;
                connection.out.advance(count, &mut written);
            }
        }
        connection.drop_presence();
        let unsent = connection.out.cut(session, broken, &mut written);
        self.note_written(id, written);
        let connection = self.connection(id)?;
        // The user stays, for the list of channels names it, but the session is over.
        let delivered = connection.user.as_mut().map_or(0, |user| {
            user.session = None;
            user.delivered
        });
        Some(EndedSession { session, unsent, delivered })
    }

    /// Appends the goodbye to the output, and ends the server's side when all output is written.
    pub(super) fn send_goodbye(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        let asks = connection.in_main > 0;
        let waits = asks || connection.trackers > 0 || connection.is_logging_in();
        let Some(closing) = &mut connection.closing else { return };
        if closing.shut || closing.broken {
            return;
        }
        let by_client = closing.close_info.reason == Reason::PeerClosed;
        let by_fault = closing.close_info.reason.initiator() == Initiator::Client;
        if by_client && waits || by_fault && asks {
            // What was asked before the end is still answered.
            return;
        }
        if !closing.goodbye_sent {
            closing.goodbye_sent = true;
            if !by_client {
                let close_info = closing.close_info.clone();
                connection.write_goodbye(&close_info);
                self.mark_dirty(id);
                return;
            }
        }
        if !connection.out.is_empty() {
            if let (true, Some(watcher)) = (connection.blocked, &closing.close_info.watcher) {
                watcher.report(now_us, |_| CloseStage::Blocked);
            }
            return;
        }
        if let Some(watcher) = &closing.close_info.watcher {
            watcher.report(now_us, CloseStage::Told);
        }
        closing.shut = true;
        // The other side may be gone already; then there is nothing to end.
        let _ = connection.io.end_output();
        if let Some(watcher) = &closing.close_info.watcher {
            watcher.report(now_us, CloseStage::ShutDown);
        }
        if connection.ended {
            closing.gone = true;
        }
    }

    /// Reports what a session has left unsent. By now the worker has seen everything that others sent to it.
    pub(super) fn report_delivery(&mut self, id: ChannelId, session: Option<SessionNo>) {
        let (mut unsent, mut delivered) = (Vec::new(), 0);
        if let (Some(session), Some(connection)) = (session, self.connection(id)) {
            let Some(ended) = connection.take_ended_session(session) else { return };
            EndedSession { unsent, delivered, .. } = ended;
        }
        self.to_main.push(Event::DeliveryReport(DeliveryReport { channel: id, session, unsent, delivered }));
    }

    /// Reads once to see whether the client is still there, because another login wants its place.
    pub(super) fn probe(&mut self, id: ChannelId) {
        let Some((slot, deferred_eof)) =
            self.connection(id).map(|c| (c.id.slot as usize, c.deferred_eof.is_some()))
        else {
            return;
        };
        if deferred_eof { self.take_deferred_eof(id) } else { self.ready(slot, true, false) }
    }
}

impl<T: Transport> WorkerState<T> {
    /// Logs that a channel has left. Where a user was logged in, main logs it too, with the user.
    pub(super) fn log_departure(&mut self, id: ChannelId, had_session: bool, close_info: &CloseInfo) {
        let Some(peer) = self.connection(id).map(|connection| connection.peer.addr()) else { return };
        let (reason, errno) = (close_info.reason.word(), close_info.errno);
        if !had_session && self.close_log.note(close_info.reason, self.now.mono_us) {
            tracing::info!(channel = %id, %peer, reason, errno, "left; nobody was logged in");
        } else {
            tracing::debug!(channel = %id, %peer, reason, errno, "left");
        }
    }

    /// Logs that a connection was ended before it became a channel.
    pub(super) fn log_turned_away(&mut self, peer: SocketAddr, close_info: &CloseInfo) {
        let (reason, errno) = (close_info.reason.word(), close_info.errno);
        if self.close_log.note(close_info.reason, self.now.mono_us) {
            tracing::info!(%peer, reason, errno, "turned away");
        } else {
            tracing::debug!(%peer, reason, errno, "turned away");
        }
    }

    /// Logs how many channels got no line of their own, once their window is over or the worker ends.
    pub(super) fn log_suppressed(&mut self) {
        let now_us = if self.exiting { u64::MAX } else { self.now.mono_us };
        for (reason, count) in self.close_log.take_suppressed(now_us) {
            tracing::info!(count, reason = reason.word(), "more left; nobody was logged in");
        }
    }
}
