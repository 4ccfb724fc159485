//! A worker's state: its channels, and what it is about to tell others. No poller, no clock, no thread of its own.
//!
//! Owned by one worker thread. It never waits, and holds no lock while it reads or writes a socket.

use super::close_log::CloseLog;
use super::connection::Connection;
use super::ip_limit::IpLimit;
use super::limits::Limits;
use super::mailbox::Mailbox;
use super::output_buffer::BufferPool;
use super::timer_wheel::TimerWheel;
use super::unauthenticated::Unauthenticated;
use crate::channel::{ChannelId, SessionNo};
use crate::clock::Now;
use crate::handles::Handles;
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::message::request::Ask;
use crate::net::transport::Transport;
use crate::sync::Arc;
use std::collections::VecDeque;

/// How much is read from one channel a turn, in bytes, so that one busy channel does not starve the others.
pub const READ_BUDGET: usize = 65_536;
/// Bytes of input that may wait behind a login or behind requests in main; past it the channel is not read.
pub const WAITING_INPUT_MAX: usize = 65_536;

/// What a worker shares with the rest of the server. `S` is a client's socket as main gets it back.
pub struct Shared {
    /// Limits.
    pub limits: Limits,
    /// Channels of each address.
    pub addresses: IpLimit,
    /// Channels that have been without a login for long.
    pub unauthenticated: Unauthenticated,
}

/// One worker's channels.
pub struct WorkerState<T: Transport> {
    pub(super) index: usize,
    pub(super) handles: Arc<Handles<T::Socket>>,
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: Arc<Mailbox>,
    /// By slot of the channel table.
    pub(super) channels: Vec<Option<Box<Connection<T>>>>,
    pub(super) now: Now,
    /// What to tell main at the end of the turn, in order.
    pub(super) to_main: Vec<Event<T::Socket>>,
    /// Sessions that this worker has ended itself in this turn, and channels that have left after one of theirs. They
    /// are reported in the next turn, when the worker has taken all that others had sent to them out of its mailbox.
    pub(super) reports_due: Vec<(ChannelId, Option<SessionNo>)>,
    /// What to tell the other workers at the end of the turn, by worker.
    pub(super) to_workers: Vec<Vec<WorkerCommand>>,
    /// Channels with something to write.
    pub(super) dirty: Vec<ChannelId>,
    /// Channels that may go on with the input that has waited.
    pub(super) unblocked: Vec<ChannelId>,
    pub(super) wheel: TimerWheel,
    /// What the log has said of channels without a login.
    pub(super) close_log: CloseLog,
    pub(super) scratch: Box<[u8]>,
    /// A chat's object while it is written. Empty between two.
    pub(super) draft: Vec<u8>,
    /// Buffers for the next channels that need one.
    pub(super) pool: BufferPool,
    /// True exactly while the listeners are watched.
    pub(super) accepting: bool,
    /// True exactly when the server stops: after the connections that are queued none is accepted.
    pub(super) stopping: bool,
    /// True exactly when the thread is to end.
    pub(super) exiting: bool,
    /// Ends handled in this turn.
    pub(super) eofs: usize,
    /// Channels whose end waits for a later turn, oldest first. Meanwhile they are not registered, or the poller would
    /// report all of them in every turn.
    pub(super) deferred_eofs: VecDeque<ChannelId>,
    pub(super) commands: Vec<WorkerCommand>,
    pub(super) due: Vec<ChannelId>,
}

impl<T: Transport> WorkerState<T> {
    /// A worker without channels.
    pub fn new(
        index: usize,
        handles: Arc<Handles<T::Socket>>,
        shared: Arc<Shared>,
        mailbox: Arc<Mailbox>,
        now: Now,
    ) -> Self {
        let workers = handles.worker_sender.workers().max(index + 1);
        // Memory for all: what is not used is not resident, and a list that grows leaves holes behind.
        let channels = Vec::with_capacity(handles.table.capacity());
        WorkerState {
            index,
            handles,
            shared,
            mailbox,
            channels,
            now,
            to_main: Vec::new(),
            reports_due: Vec::new(),
            to_workers: (0..workers).map(|_| Vec::new()).collect(),
            dirty: Vec::new(),
            unblocked: Vec::new(),
            wheel: TimerWheel::new(now.mono_us),
            close_log: CloseLog::new(now.mono_us),
            scratch: vec![0; READ_BUDGET].into_boxed_slice(),
            draft: Vec::new(),
            pool: BufferPool::default(),
            accepting: true,
            stopping: false,
            exiting: false,
            eofs: 0,
            deferred_eofs: VecDeque::new(),
            commands: Vec::new(),
            due: Vec::new(),
        }
    }

    /// No more channels than that are registered.
    pub fn places(&self) -> usize {
        self.channels.len()
    }

    /// True exactly while new connections are wanted.
    pub fn is_accepting(&self) -> bool {
        self.accepting
    }

    /// True exactly when the server stops, and the listeners are to be emptied and closed.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// True exactly when the thread is to end.
    pub fn is_exiting(&self) -> bool {
        self.exiting
    }

    pub(super) fn connection(&mut self, id: ChannelId) -> Option<&mut Connection<T>> {
        let connection = self.channels.get_mut(id.slot as usize)?.as_deref_mut()?;
        (connection.id == id).then_some(connection)
    }

    pub(super) fn mark_dirty(&mut self, id: ChannelId) {
        if let Some(connection) = self.connection(id)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Reports in the next turn on a session that this worker has ended, or after it on a channel that has left.
    pub(super) fn report_delivery_later(&mut self, id: ChannelId, session: Option<SessionNo>) {
        self.reports_due.push((id, session));
    }

    /// Tells main at the end of the turn.
    pub(super) fn ask(&mut self, ask: Ask) {
        self.to_main.push(Event::Ask(ask));
    }

    /// Reads only while there is room for what is read, writes only while the kernel has refused some.
    pub(super) fn adjust_interest(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        let held_up = connection.is_held_up();
        let wants_input = match &connection.closing {
            _ if connection.deferred_eof.is_some() => false,
            None => !(connection.ended || held_up && connection.input.len() >= WAITING_INPUT_MAX),
            Some(closing) => !(closing.gone || closing.broken || connection.ended),
        };
        let gone = connection.closing.as_ref().is_some_and(|closing| closing.gone);
        let news = gone && !std::mem::replace(&mut connection.counted_gone, gone);
        let wanted = (wants_input, connection.blocked && !connection.out.is_empty());
        if connection.io.watching() == wanted {
            // The usual case costs no system call.
        } else if let Err(error) = connection.io.watch(wanted.0, wanted.1) {
            self.go_unwatched(id, &error);
        }
        if news {
            self.handles.table.note_gone();
        }
    }
}
