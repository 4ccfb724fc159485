//! A worker's thread: it waits in its poller, and gives its state one turn after another.
//!
//! The only file of the worker that waits. Accepting is here too, because it needs the kernel's listeners.

use super::connection::Codec;
use super::input_horizon::InputHorizon;
use super::mailbox::{Mailbox, Wake};
use super::state::{Shared, WorkerState};
use crate::clock::Clock;
use crate::handles::Handles;
use crate::net::listener;
use crate::net::registered::MAX_KEY;
use crate::net::{Events, Poller, Registered};
use crate::protocol::json::framing::Framer;
use crate::protocol::line::LineFramer;
use crate::sync::Arc;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Connections that one turn accepts at most from one listener, so that a storm of them starves nobody.
const ACCEPTS_MAX: usize = 64;
/// Listeners have the highest keys.
const LISTENER_KEYS: usize = MAX_KEY - 4096;
/// How long a worker accepts nobody after an accept has failed for want of fds or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What is read and dropped of a client that was turned away, in bytes: more than any login.
const DISCARD_MAX: usize = 16 * 1024;

/// The protocol of a listener's clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolKind {
    /// JSON objects.
    Json,
    /// Lines.
    Lines,
}

impl ProtocolKind {
    fn codec(self) -> Codec {
        match self {
            ProtocolKind::Json => Codec::Json(Framer::default()),
            ProtocolKind::Lines => Codec::Line(LineFramer::default()),
        }
    }
}

/// Wakes a worker out of its poller.
struct Waker(Arc<Poller>);

impl Wake for Waker {
    fn wake(&self) {
        self.0.wake();
    }
}

/// A worker's own poller and mailbox, made before the workers know each other.
pub struct WorkerSetup {
    poller: Arc<Poller>,
    /// Where others write to it.
    pub mailbox: Arc<Mailbox>,
}

impl WorkerSetup {
    /// A poller, and a mailbox that wakes it.
    ///
    /// # Errors
    /// When the kernel gives no poller.
    pub fn new() -> io::Result<Self> {
        let poller = Arc::new(Poller::new()?);
        let mailbox = Arc::new(Mailbox::new(Box::new(Waker(Arc::clone(&poller)))));
        Ok(WorkerSetup { poller, mailbox })
    }
}

/// An fd that is kept for the moment when there is no other.
enum ReserveFd {
    /// It is not needed.
    Idle { _file: File },
    /// It is the connection of a client that was turned away, until the pause is over.
    TurnedAway(TcpStream),
}

impl ReserveFd {
    fn idle() -> Option<ReserveFd> {
        File::open("/dev/null").ok().map(|file| ReserveFd::Idle { _file: file })
    }

    fn is_client(&self) -> bool {
        matches!(self, ReserveFd::TurnedAway(_))
    }
}

/// A worker's thread.
pub struct Worker {
    state: WorkerState<Registered<TcpStream>>,
    poller: Arc<Poller>,
    listeners: Vec<(ProtocolKind, Registered<TcpListener>)>,
    /// A connection that was accepted when no channel id was free.
    unplaced: Option<(TcpStream, SocketAddr, ProtocolKind)>,
    /// An fd to give up when the table of fds is full, so that a new connection can be accepted and turned away.
    reserve: Option<ReserveFd>,
    /// True exactly from an accept that failed for want of fds or memory to the next that does not.
    is_short: bool,
    /// Until when nobody is accepted, on the monotonic clock. 0 while there is no pause.
    paused_until_us: u64,
    clock: Clock,
}

impl Worker {
    /// A worker with its listeners.
    ///
    /// # Errors
    /// When the poller does not take the listeners.
    pub fn new(
        index: usize,
        setup: &WorkerSetup,
        listeners: Vec<(ProtocolKind, TcpListener)>,
        handles: Arc<Handles<TcpStream>>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let poller = Arc::clone(&setup.poller);
        let listeners = listeners
            .into_iter()
            .enumerate()
            .map(|(i, (kind, listener))| {
                let key = LISTENER_KEYS + i;
                Ok((kind, poller.register(listener, key, true, false)?))
            })
            .collect::<io::Result<_>>()?;
        let clock = handles.clock;
        let state = WorkerState::new(index, handles, shared, Arc::clone(&setup.mailbox), clock.now());
        let reserve = ReserveFd::idle();
        Ok(Worker {
            state,
            poller,
            listeners,
            unplaced: None,
            reserve,
            is_short: false,
            paused_until_us: 0,
            clock,
        })
    }

    /// Works until it is told to end.
    pub fn run(mut self) {
        let mut events = Events::default();
        let mut ready_listeners = Vec::new();
        let mut horizon = InputHorizon::default();
        while !self.state.is_exiting() {
            let before_us = self.clock.now().mono_us;
            let told_all = self.poller.wait(&mut events, self.timeout(before_us)).unwrap_or_else(|error| {
                tracing::error!(%error, "waiting for events failed");
                std::thread::sleep(ACCEPT_PAUSE);
                false
            });
            self.state.begin(self.clock.now());
            for event in events.iter() {
                match event.key.checked_sub(LISTENER_KEYS) {
                    Some(listener) => ready_listeners.push(listener),
                    None if event.is_interrupt() => self.state.hung_up(event.key),
                    None => self.state.ready(event.key, event.readable, event.writable),
                }
            }
            self.serve_listeners(&mut ready_listeners);
            let (horizon_us, clock) = (horizon.waited(before_us, told_all, self.state.places()), self.clock);
            self.state.finish(horizon_us, &|| clock.now());
        }
    }

    fn timeout(&self, now_us: u64) -> Option<Duration> {
        if self.state.has_more() {
            return Some(Duration::ZERO);
        }
        let state = self.state.timeout_us(now_us);
        let rest = (self.paused_until_us > 0).then(|| self.paused_until_us.saturating_sub(now_us));
        [state, rest].into_iter().flatten().min().map(Duration::from_micros)
    }

    fn serve_listeners(&mut self, ready_listeners: &mut Vec<usize>) {
        if self.state.is_stopping() {
            ready_listeners.clear();
            if !self.listeners.is_empty() {
                self.close_listeners();
            }
            return;
        }
        if self.paused_until_us > 0 && self.clock.now().mono_us >= self.paused_until_us {
            self.end_pause();
        }
        if let Some((stream, peer, kind)) = self.unplaced.take() {
            self.admit(stream, peer, kind);
        }
        for listener in ready_listeners.drain(..) {
            self.accept_from(listener, ACCEPTS_MAX);
        }
        let wanted = self.state.is_accepting() && self.paused_until_us == 0;
        for (_, listener) in &mut self.listeners {
            if let Err(error) = listener.set_interest(wanted, false) {
                tracing::error!(%error, "a listener could not be registered");
            }
        }
    }

    /// Takes up to `max` connections; true when more may wait.
    fn accept_from(&mut self, listener: usize, max: usize) -> bool {
        for _ in 0..max {
            if !self.state.is_accepting() || self.unplaced.is_some() {
                return false;
            }
            let Some((kind, listening)) = self.listeners.get(listener) else { return false };
            let (kind, Some(source)) = (*kind, listening.source()) else { return false };
            match listener::accept(source) {
                Ok((stream, peer)) => {
                    self.is_short = false;
                    self.admit(stream, peer, kind);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    self.turn_away(listener, &error);
                    return false;
                }
            }
        }
        true
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, kind: ProtocolKind) {
        let wrap = |stream, key| self.poller.hold(stream, key);
        if let Err(stream) = self.state.accept(stream, peer, kind.codec(), wrap) {
            self.unplaced = Some((stream, peer, kind));
            self.state.pause_accepting();
        }
    }

    /// No fds or no memory: gives up the reserve fd to tell one client, and pauses.
    fn turn_away(&mut self, listener: usize, error: &io::Error) {
        let Some((kind, listening)) = self.listeners.get(listener) else { return };
        let (codec, Some(source)) = (kind.codec(), listening.source()) else { return };
        self.reserve = None;
        match listener::accept(source) {
            Ok((stream, peer)) => {
                let goodbye = self.state.turn_away(peer, &codec, error);
                // A new connection has room for the goodbye, unless the client is gone already.
                let _ = (&stream).write(&goodbye);
                let _ = stream.shutdown(Shutdown::Write);
                self.reserve = Some(ReserveFd::TurnedAway(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // The kernel looks for an fd first: no connection waited.
                self.reserve = ReserveFd::idle();
                return;
            }
            Err(second) => tracing::debug!(error = %second, "there is no fd to tell a client"),
        }
        if !std::mem::replace(&mut self.is_short, true) {
            tracing::warn!(%error, "accepting failed; is the limit of open files too low?");
        }
        self.state.note_accept_error();
        self.paused_until_us = self.clock.now().mono_us + ACCEPT_PAUSE.as_micros() as u64;
    }

    /// The pause is over: the client that was turned away had that long to read the goodbye. Its fd is given back, and
    /// a new reserve is opened.
    fn end_pause(&mut self) {
        self.paused_until_us = 0;
        if let Some(ReserveFd::TurnedAway(mut stream)) = self.reserve.take_if(|reserve| reserve.is_client()) {
            // What the client has sent meanwhile would make the kernel reset the connection, and the goodbye would be
            // lost.
            let _ = stream.read(&mut [0; DISCARD_MAX]);
        }
        if self.reserve.is_none() {
            self.reserve = ReserveFd::idle();
        }
    }

    /// Accepts the connections that are queued, so that main can close them with a goodbye, and closes the listeners.
    fn close_listeners(&mut self) {
        for listener in 0..self.listeners.len() {
            while self.accept_from(listener, ACCEPTS_MAX) {}
        }
        self.listeners.clear();
        self.unplaced = None;
        self.state.stopped_listening();
    }
}

/// Errors that concern only the one connection that could not be accepted.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NetworkDown, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | NetworkDown | TimedOut)
        || error.raw_os_error() == Some(rustix::io::Errno::PROTO.raw_os_error())
}
