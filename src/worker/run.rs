//! A worker's thread: it waits on its poller, and gives its core one turn after another.
//!
//! The only place of the worker that waits. Accepting is here too, for it needs the kernel's listeners.

use super::connection::Codec;
use super::core::{Core, Shared};
use super::listener;
use super::mailbox::{Mailbox, Wake};
use super::watch::Watched;
use crate::clock::Clock;
use crate::protocol::framing::Framer;
use crate::protocol::line::LineFramer;
use crate::sync::Arc;
use polling::{Events, Poller};
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::time::Duration;

/// Events that one wait takes at most.
const EVENTS_MAX: usize = 4096;
/// Connections that one turn accepts at most from one listener, so that a storm of them starves nobody.
const ACCEPTS_MAX: usize = 64;
/// Listeners have the highest keys, below the one that `polling` keeps for itself.
const LISTENER_KEYS: usize = usize::MAX - 4096;
/// How long a listener rests after it has failed for want of fds or memory.
const REST: Duration = Duration::from_millis(100);

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
        // It fails only when the eventfd is gone, and then the worker is too.
        let _ = self.0.notify();
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

/// A worker's thread.
pub struct Worker {
    core: Core<Watched<TcpStream>>,
    poller: Arc<Poller>,
    listeners: Vec<(Speaks, Watched<TcpListener>)>,
    /// A connection that was accepted when no name was free.
    waiting: Option<(TcpStream, SocketAddr, Speaks)>,
    /// An fd to give up when the table of fds is full, so that whoever knocks can be accepted and turned away.
    spare: Option<File>,
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
                Ok((speaks, Watched::new(Arc::clone(&poller), listener, key, true, false)?))
            })
            .collect::<io::Result<_>>()?;
        let core = Core::new(index, shared, Arc::clone(&desk.mailbox), clock.now());
        let spare = File::open("/dev/null").ok();
        Ok(Worker { core, poller, listeners, waiting: None, spare, rest_until_us: 0, clock })
    }

    /// Works until it is told to end.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(NonZeroUsize::new(EVENTS_MAX).unwrap_or(NonZeroUsize::MIN));
        let mut knocked = Vec::new();
        while !self.core.is_exiting() {
            events.clear();
            if let Err(error) = self.poller.wait(&mut events, self.timeout())
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "waiting for events failed");
                std::thread::sleep(REST);
            }
            self.core.begin(self.clock.now());
            for event in events.iter() {
                match event.key.checked_sub(LISTENER_KEYS) {
                    Some(listener) => knocked.push(listener),
                    // A broken connection; a read would take the error away.
                    None if event.is_interrupt() && !self.core.may_take_end() => {}
                    None => self.core.ready(event.key, event.readable, event.writable),
                }
            }
            self.attend_listeners(&mut knocked);
            self.core.finish();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now_us = self.clock.now().mono_us;
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
            self.rest_until_us = 0;
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
                Ok((stream, peer)) => self.admit(stream, peer, speaks),
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
        let poller = Arc::clone(&self.poller);
        let watch = |stream, key| Watched::new(poller, stream, key, true, false);
        if let Err(stream) = self.core.accept(stream, peer, speaks.codec(), watch) {
            self.waiting = Some((stream, peer, speaks));
            self.core.pause_accepting();
        }
    }

    /// No fds or no memory: gives up the spare fd to turn one client away, and rests.
    fn turn_away(&mut self, listener: usize, error: &io::Error) {
        tracing::warn!(%error, "accepting failed; is the limit of open files too low?");
        self.spare = None;
        if let Some(source) = self.listeners.get(listener).and_then(|(_, l)| l.source()) {
            drop(listener::accept(source));
        }
        self.spare = File::open("/dev/null").ok();
        self.core.note_accept_error();
        self.rest_until_us = self.clock.now().mono_us + REST.as_micros() as u64;
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
