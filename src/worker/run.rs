//! A worker's thread: it waits on its poller, and gives its core one turn after another.
//!
//! The only place of the worker that waits. Accepting is here too, for it needs the kernel's listeners.

use super::connection::Codec;
use super::input_horizon::Hearing;
use super::listener;
use super::mailbox::{Mailbox, Wake};
use super::state::{Core, Shared};
use crate::clock::Clock;
use crate::net::registered::MAX_KEY;
use crate::net::{Events, Poller, Registered};
use crate::protocol::framing::Framer;
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
/// How long a listener rests after it has failed for want of fds or memory.
const REST: Duration = Duration::from_millis(100);
/// What is read and dropped of a client who was turned away, in bytes: more than any login.
const LAST_WORDS_MAX: usize = 16 * 1024;

/// What clients of a listener speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// JSON objects.
    Json,
    /// Lines.
    Lines,
}

impl Speaks {
    fn codec(self) -> Codec {
        match self {
            Speaks::Json => Codec::Json(Framer::default()),
            Speaks::Lines => Codec::Line(LineFramer::default()),
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
pub struct Desk {
    poller: Arc<Poller>,
    /// Where others write to it.
    pub mailbox: Arc<Mailbox>,
}

impl Desk {
    /// A poller, and a mailbox that wakes it.
    ///
    /// # Errors
    /// When the kernel gives no poller.
    pub fn new() -> io::Result<Self> {
        let poller = Arc::new(Poller::new()?);
        let mailbox = Arc::new(Mailbox::new(Box::new(Waker(Arc::clone(&poller)))));
        Ok(Desk { poller, mailbox })
    }
}

/// An fd that is kept for the moment when there is no other.
enum Spare {
    /// Nobody needs it.
    Idle { _file: File },
    /// It is the connection of a client who was turned away, until the rest is over.
    TurnedAway(TcpStream),
}

impl Spare {
    fn idle() -> Option<Spare> {
        File::open("/dev/null").ok().map(|file| Spare::Idle { _file: file })
    }

    fn is_client(&self) -> bool {
        matches!(self, Spare::TurnedAway(_))
    }
}

/// A worker's thread.
pub struct Worker {
    core: Core<Registered<TcpStream>>,
    poller: Arc<Poller>,
    listeners: Vec<(Speaks, Registered<TcpListener>)>,
    /// A connection that was accepted when no name was free.
    waiting: Option<(TcpStream, SocketAddr, Speaks)>,
    /// An fd to give up when the table of fds is full, so that whoever knocks can be accepted and turned away.
    spare: Option<Spare>,
    /// True exactly from an accept that failed for want of fds or memory to the next that does not.
    short: bool,
    /// Until when the listeners rest, on the monotonic clock.
    rest_until_us: u64,
    clock: Clock,
}

impl Worker {
    /// A worker with its listeners.
    ///
    /// # Errors
    /// When the poller does not take the listeners.
    pub fn new(
        index: usize,
        desk: &Desk,
        listeners: Vec<(Speaks, TcpListener)>,
        shared: Arc<Shared<TcpStream>>,
        clock: Clock,
    ) -> io::Result<Self> {
        let poller = Arc::clone(&desk.poller);
        let listeners = listeners
            .into_iter()
            .enumerate()
            .map(|(i, (speaks, listener))| {
                let key = LISTENER_KEYS + i;
                Ok((speaks, poller.register(listener, key, true, false)?))
            })
            .collect::<io::Result<_>>()?;
        let core = Core::new(index, shared, Arc::clone(&desk.mailbox), clock.now());
        let spare = Spare::idle();
        Ok(Worker { core, poller, listeners, waiting: None, spare, short: false, rest_until_us: 0, clock })
    }

    /// Works until it is told to end.
    pub fn run(mut self) {
        let mut events = Events::default();
        let mut knocked = Vec::new();
        let mut hearing = Hearing::default();
        while !self.core.is_exiting() {
            let before_us = self.clock.now().mono_us;
            let told_all = self.poller.wait(&mut events, self.timeout(before_us)).unwrap_or_else(|error| {
                tracing::error!(%error, "waiting for events failed");
                std::thread::sleep(REST);
                false
            });
            self.core.begin(self.clock.now());
            for event in events.iter() {
                match event.key.checked_sub(LISTENER_KEYS) {
                    Some(listener) => knocked.push(listener),
                    None if event.is_interrupt() => self.core.over(event.key),
                    None => self.core.ready(event.key, event.readable, event.writable),
                }
            }
            self.attend_listeners(&mut knocked);
            let (heard_us, clock) = (hearing.waited(before_us, told_all, self.core.places()), self.clock);
            self.core.finish(heard_us, &|| clock.now());
        }
    }

    fn timeout(&self, now_us: u64) -> Option<Duration> {
        if self.core.has_more() {
            return Some(Duration::ZERO);
        }
        let core = self.core.timeout_us(now_us);
        let rest = (self.rest_until_us > 0).then(|| self.rest_until_us.saturating_sub(now_us));
        [core, rest].into_iter().flatten().min().map(Duration::from_micros)
    }

    fn attend_listeners(&mut self, knocked: &mut Vec<usize>) {
        if self.core.is_stopping() {
            knocked.clear();
            if !self.listeners.is_empty() {
                self.close_listeners();
            }
            return;
        }
        if self.rest_until_us > 0 && self.clock.now().mono_us >= self.rest_until_us {
            self.end_rest();
        }
        if let Some((stream, peer, speaks)) = self.waiting.take() {
            self.admit(stream, peer, speaks);
        }
        for listener in knocked.drain(..) {
            self.accept_from(listener, ACCEPTS_MAX);
        }
        let wanted = self.core.is_accepting() && self.rest_until_us == 0;
        for (_, listener) in &mut self.listeners {
            if let Err(error) = listener.set_interest(wanted, false) {
                tracing::error!(%error, "a listener could not be watched");
            }
        }
    }

    /// Takes up to `max` connections; true when somebody may still wait.
    fn accept_from(&mut self, listener: usize, max: usize) -> bool {
        for _ in 0..max {
            if !self.core.is_accepting() || self.waiting.is_some() {
                return false;
            }
            let Some((speaks, listening)) = self.listeners.get(listener) else { return false };
            let (speaks, Some(source)) = (*speaks, listening.source()) else { return false };
            match listener::accept(source) {
                Ok((stream, peer)) => {
                    self.short = false;
                    self.admit(stream, peer, speaks);
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

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, speaks: Speaks) {
        let wrap = |stream, key| self.poller.hold(stream, key);
        if let Err(stream) = self.core.accept(stream, peer, speaks.codec(), wrap) {
            self.waiting = Some((stream, peer, speaks));
            self.core.pause_accepting();
        }
    }

    /// No fds or no memory: gives up the spare fd to tell one client, and rests.
    fn turn_away(&mut self, listener: usize, error: &io::Error) {
        let Some((speaks, listening)) = self.listeners.get(listener) else { return };
        let (codec, Some(source)) = (speaks.codec(), listening.source()) else { return };
        self.spare = None;
        match listener::accept(source) {
            Ok((stream, peer)) => {
                let goodbye = self.core.turn_away(peer, &codec, error);
                // A new connection has room for it, unless the client is gone already.
                let _ = (&stream).write(&goodbye);
                let _ = stream.shutdown(Shutdown::Write);
                self.spare = Some(Spare::TurnedAway(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // The kernel looks for an fd first, and nobody needs one.
                self.spare = Spare::idle();
                return;
            }
            Err(second) => tracing::debug!(error = %second, "there is no fd to tell a client"),
        }
        if !std::mem::replace(&mut self.short, true) {
            tracing::warn!(%error, "accepting failed; is the limit of open files too low?");
        }
        self.core.note_accept_error();
        self.rest_until_us = self.clock.now().mono_us + REST.as_micros() as u64;
    }

    /// The rest is over: whoever was turned away has had it to read the goodbye, and his fd is the spare one again.
    fn end_rest(&mut self) {
        self.rest_until_us = 0;
        if let Some(Spare::TurnedAway(mut stream)) = self.spare.take_if(|spare| spare.is_client()) {
            // What he said before he knew would become a reset, which eats the goodbye.
            let _ = stream.read(&mut [0; LAST_WORDS_MAX]);
        }
        if self.spare.is_none() {
            self.spare = Spare::idle();
        }
    }

    /// Accepts whoever is queued, so that main can tell them, and closes.
    fn close_listeners(&mut self) {
        for listener in 0..self.listeners.len() {
            while self.accept_from(listener, ACCEPTS_MAX) {}
        }
        self.listeners.clear();
        self.waiting = None;
        self.core.stopped_listening();
    }
}

/// Errors that belong to the one connection that could not be accepted.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NetworkDown, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | NetworkDown | TimedOut)
        || error.raw_os_error() == Some(rustix::io::Errno::PROTO.raw_os_error())
}
