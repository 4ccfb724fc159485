//! Reads a channel's socket, and turns the bytes into requests.

use super::connection::{Codec, Eof};
use super::state::WorkerState;
use crate::channel::{ChannelId, Reason};
use crate::message::disconnect::CloseInfo;
use crate::net::transport::Transport;
use crate::protocol::errno::Errno;
use crate::protocol::hint;
use crate::protocol::json::next_request::{self, Taken};
use crate::protocol::line::LineFramed;
use std::io;

/// Ends that one turn handles: each costs a goodbye, and channels with more to read wait behind them.
pub(super) const EOFS_MAX: usize = 64;

impl<T: Transport> WorkerState<T> {
    /// The poller reports that a channel can be read or written.
    pub fn ready(&mut self, slot: usize, readable: bool, writable: bool) {
        let Some(Some(connection)) = self.channels.get_mut(slot) else { return };
        let id = connection.id;
        if writable && connection.blocked {
            connection.blocked = false;
            self.mark_dirty(id);
        }
        if readable
            && self.read(id)
            && self.connection(id).is_some_and(|connection| connection.is_logging_in() && !connection.ended)
        {
            // A client that has ended its side behind a login must not take over another session. So main has to know
            // of the end before the login, and the poller would report the end a turn later.
            self.read(id);
        }
    }

    /// The poller reports that both sides of a channel have ended, or that it is broken. Where the turn has handled
    /// enough ends, this one is not read before a later turn, for a read would take the error away.
    pub fn hung_up(&mut self, slot: usize) {
        let Some(Some(connection)) = self.channels.get(slot) else { return };
        let id = connection.id;
        if self.may_take_eof() { self.ready(slot, true, true) } else { self.defer_eof(id, Eof::Told) }
    }

    /// Reads once. True exactly when that brought something.
    fn read(&mut self, id: ChannelId) -> bool {
        let now_us = self.now.mono_us;
        if self.connection(id).is_some_and(|connection| connection.deferred_eof.is_some()) {
            return false;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let Some(connection) = self.connection(id) else {
            self.scratch = scratch;
            return false;
        };
        let outcome = connection.io.read(&mut scratch);
        if let Ok(count) = outcome {
            connection.bytes_in += count as u64;
            if count > 0 {
                connection.heard_us = now_us;
            }
            self.handles.metrics.bytes_in.add(count as u64);
        }
        match &outcome {
            Ok(0) if !self.may_take_eof() => self.defer_eof(id, Eof::Read),
            Ok(0) => self.input_ended(id),
            Ok(count) => self.take_input(id, &scratch[..*count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.fail(id, error, Reason::ReadError),
        }
        self.scratch = scratch;
        self.adjust_interest(id);
        matches!(outcome, Ok(count) if count > 0)
    }

    /// Takes what was read, handles the requests that are whole, and keeps the rest.
    pub(super) fn take_input(&mut self, id: ChannelId, bytes: &[u8]) {
        let Some(connection) = self.connection(id) else { return };
        if connection.closing.is_some() {
            return;
        }
        if connection.input.is_empty() {
            let used = self.decode(id, bytes);
            if let Some(connection) = self.connection(id) {
                connection.input.extend_from_slice(&bytes[used..]);
            }
        } else {
            connection.input.extend_from_slice(bytes);
            self.decode_waiting(id);
        }
    }

    /// The client has ended its side. What it asked before is still done.
    pub(super) fn input_ended(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        connection.ended = true;
        if let Some(closing) = &mut connection.closing {
            closing.gone = closing.shut;
            self.mark_dirty(id);
            return;
        }
        self.handles.table.mark_ended(id);
        self.resume_input(id);
    }

    /// Goes on with input that has waited, and closes the channel when the client has ended its side and nothing is
    /// left.
    pub(super) fn resume_input(&mut self, id: ChannelId) {
        self.decode_waiting(id);
        let Some(connection) = self.connection(id) else { return };
        if connection.ended && connection.closing.is_none() && !connection.is_held_up() {
            self.step(id, CloseInfo::new(Reason::PeerClosed));
        }
        self.adjust_interest(id);
    }

    fn decode_waiting(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        if connection.input.is_empty() {
            return;
        }
        let mut input = connection.input.take();
        let used = self.decode(id, &input);
        let Some(connection) = self.connection(id) else { return };
        if used < input.len() {
            input.drain(..used);
            connection.input = input.into();
        }
    }

    /// Handles whole requests until the channel has to wait; returns how many bytes are done with.
    fn decode(&mut self, id: ChannelId, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let limits = &self.shared.limits;
            let (before_login, after_login) = (limits.max_frame_before_login, limits.max_frame);
            let Some(connection) = self.connection(id) else { return bytes.len() };
            if connection.closing.is_some() {
                return bytes.len();
            }
            if connection.is_held_up() {
                return at;
            }
            let max_frame = if connection.user.is_some() { after_login } else { before_login };
            let framer = match &mut connection.codec {
                Codec::Json(framer) => framer,
                Codec::Line(framer) => match framer.next(&bytes[at..], max_frame) {
                    LineFramed::More => return at,
                    LineFramed::Line { len, used } => {
                        let line = &bytes[at..at + len];
                        at += used;
                        self.handles.metrics.requests.add(1);
                        if self.is_too_fast(id) {
                            self.refuse_too_fast(id, None);
                        } else {
                            self.handle_line(id, line);
                        }
                        continue;
                    }
                    LineFramed::TooLong => {
                        let text = format!("a line may have {max_frame} bytes at most");
                        self.step(id, CloseInfo::new(Reason::FrameTooLarge).saying(&text));
                        return bytes.len();
                    }
                },
            };
            match next_request::next(framer, &bytes[at..], max_frame) {
                Taken::More { skip } => return at + skip,
                Taken::Request { request, end } => {
                    at += end;
                    self.handles.metrics.requests.add(1);
                    if self.is_too_fast(id) {
                        self.refuse_too_fast(id, request.as_ref().ok());
                    } else {
                        self.handle_request(id, &request);
                    }
                }
                Taken::TooLarge => {
                    let text = format!("a request may have {max_frame} bytes at most");
                    self.reject(id, Errno::TooLarge, &text, None, None);
                    self.step(id, CloseInfo::new(Reason::FrameTooLarge));
                    return bytes.len();
                }
                Taken::Malformed => {
                    self.reject(id, Errno::Malformed, &hint::without_end(&bytes[at..]), None, None);
                    self.step(id, CloseInfo::new(Reason::MalformedFrame));
                    return bytes.len();
                }
            }
        }
    }

    /// Counts an end; false when the turn has handled enough of them.
    fn may_take_eof(&mut self) -> bool {
        self.eofs += 1;
        self.eofs <= EOFS_MAX
    }

    /// Leaves an end to a later turn.
    fn defer_eof(&mut self, id: ChannelId, eof: Eof) {
        let Some(connection) = self.connection(id) else { return };
        if connection.deferred_eof.is_none() {
            connection.deferred_eof = Some(eof);
            self.deferred_eofs.push_back(id);
        }
        self.adjust_interest(id);
    }

    /// Handles an end that has waited, unless its channel is closed meanwhile.
    pub(super) fn take_deferred_eof(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        match connection.deferred_eof.take() {
            None => {}
            Some(Eof::Told) => self.ready(id.slot as usize, true, true),
            Some(Eof::Read) => {
                self.eofs += 1;
                self.input_ended(id);
                self.adjust_interest(id);
            }
        }
    }
}
