//! Many clients in one thread: connects, sends, reads and leaves, and returns events to the scenario.
//!
//! Level mode, with write interest only while connecting or blocked. The scenario decides what clients send.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::client::{ServerMessage, Splitter};
use super::error::StressError;
use super::poller::{Poller, Ready, Registered};

/// Bytes read at once from one client.
const READ_BYTES: usize = 64 * 1024;

/// Fds that this process needs beside its clients.
const OWN_FDS: u64 = 64;

/// Source addresses on loopback: with 28,000 ports each, those of a minute's closed connections do not run out.
const SOURCES: u32 = 4_000;

/// How a client leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CloseMode {
    /// An ordinary close.
    Fin,
    /// A reset, as of a killed machine.
    Rst,
    /// Ends its own side and listens on until the server ends the other.
    HalfClose,
}

/// Something that happened to a client.
#[derive(Debug)]
pub(super) struct ClientEvent {
    pub(super) who: usize,
    /// When it was seen.
    pub(super) at: Instant,
    pub(super) kind: EventKind,
}

#[derive(Debug)]
pub(super) enum EventKind {
    /// The connection is established.
    Connected,
    /// The server sent an object.
    Message(ServerMessage),
    /// The connection is over, and closed here too. `None` for the end of the stream.
    Closed(Option<io::Error>),
}

/// The clients, by number; each has at most one connection.
#[derive(Debug)]
pub(super) struct ClientPool {
    target: SocketAddr,
    poller: Poller,
    ready: Vec<Ready>,
    connections: Vec<Option<Connection>>,
    /// Clients that have something to write.
    dirty: Vec<usize>,
    connects: u32,
    read_buffer: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: Registered<TcpStream>,
    connected: bool,
    splitter: Splitter,
    out: Vec<u8>,
    written: usize,
    /// True exactly when the poller tells when it is writable.
    awaits_writable: bool,
    /// True exactly when it takes what arrives.
    reads: bool,
}

impl ClientPool {
    /// A pool of `clients` that are not connected yet. Raises this process's soft fd limit.
    pub(super) fn new(target: SocketAddr, clients: usize) -> Result<Self, StressError> {
        raise_fd_limit(clients)?;
        Ok(Self {
            target,
            poller: Poller::new().map_err(StressError::io("cannot make a poller"))?,
            ready: Vec::new(),
            connections: (0..clients).map(|_| None).collect(),
            dirty: Vec::new(),
            connects: 0,
            read_buffer: vec![0; READ_BYTES],
        })
    }

    /// The number of clients, connected or not.
    pub(super) fn size(&self) -> usize {
        self.connections.len()
    }

    /// The server.
    pub(super) fn target(&self) -> SocketAddr {
        self.target
    }

    /// The clients that have a connection.
    pub(super) fn connected(&self) -> usize {
        self.connections.iter().flatten().count()
    }

    /// Starts to connect; [`EventKind::Connected`] or [`EventKind::Closed`] follows.
    pub(super) fn connect(&mut self, who: usize) -> Result<(), StressError> {
        self.connects = self.connects.wrapping_add(1);
        let stream = open(self.target, self.connects).map_err(StressError::io("cannot open a socket"))?;
        let stream = Registered::new(&self.poller, stream, who, (false, true))
            .map_err(StressError::io("cannot watch a socket"))?;
        self.connections[who] = Some(Connection {
            stream,
            connected: false,
            splitter: Splitter::default(),
            out: Vec::new(),
            written: 0,
            awaits_writable: true,
            reads: false,
        });
        Ok(())
    }

    /// Later connects go to that server; the connections there are stay.
    pub(super) fn set_target(&mut self, target: SocketAddr) {
        self.target = target;
    }

    /// Has a connected client stop reading, or read again. It still sends.
    pub(super) fn set_reading(&mut self, who: usize, reads: bool) -> Result<(), StressError> {
        let Some(connection) = self.connections[who].as_mut().filter(|connection| connection.connected)
        else {
            return Ok(());
        };
        connection.reads = reads;
        let interest = connection.stream.set_interest((reads, connection.awaits_writable));
        interest.map_err(StressError::io("cannot watch a socket"))
    }

    /// Queues a request for the next turn. Does nothing where the client is not connected.
    pub(super) fn send(&mut self, who: usize, request: &str) {
        if let Some(connection) = &mut self.connections[who] {
            if connection.out.is_empty() {
                self.dirty.push(who);
            }
            connection.out.extend_from_slice(request.as_bytes());
            connection.out.push(b'\n');
        }
    }

    /// Closes a connection. No more events follow, except [`EventKind::Closed`] after a half close.
    pub(super) fn close(&mut self, who: usize, how: CloseMode) {
        let Some(stream) = self.connections[who].as_ref().map(|connection| connection.stream.source()) else {
            return;
        };
        // These fail where the connection is already gone, which the drop or the next read shows.
        match how {
            CloseMode::Fin => {}
            CloseMode::Rst => {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            CloseMode::HalfClose => {
                let _ = stream.shutdown(std::net::Shutdown::Write);
                return;
            }
        }
        self.connections[who] = None;
    }

    /// Writes what is queued, waits up to `timeout` and appends the events.
    pub(super) fn turn(
        &mut self,
        timeout: Duration,
        events: &mut Vec<ClientEvent>,
    ) -> Result<(), StressError> {
        for who in std::mem::take(&mut self.dirty) {
            // One that is still connecting writes when it is connected.
            if self.connections[who].as_ref().is_some_and(|connection| connection.connected) {
                self.write(who, events);
            }
        }
        let timeout = if events.is_empty() { timeout } else { Duration::ZERO };
        self.poller.wait(&mut self.ready, timeout).map_err(StressError::io("cannot wait for events"))?;
        let ready = std::mem::take(&mut self.ready);
        for &Ready { key: who, readable } in &ready {
            let Some(connection) = &self.connections[who] else { continue };
            if connection.awaits_writable {
                self.write(who, events);
            }
            if readable {
                self.read(who, events);
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn write(&mut self, who: usize, events: &mut Vec<ClientEvent>) {
        let Some(connection) = &mut self.connections[who] else { return };
        match connection.write() {
            Ok(true) => events.push(ClientEvent { who, at: Instant::now(), kind: EventKind::Connected }),
            Ok(false) => {}
            Err(error) => self.end(who, Some(error), events),
        }
    }

    fn read(&mut self, who: usize, events: &mut Vec<ClientEvent>) {
        let Some(connection) = &mut self.connections[who] else { return };
        let mut stream = connection.stream.source();
        match stream.read(&mut self.read_buffer) {
            Ok(0) => self.end(who, None, events),
            Ok(count) => {
                let at = Instant::now();
                connection.splitter.take(&self.read_buffer[..count], |message| {
                    events.push(ClientEvent { who, at, kind: EventKind::Message(message) });
                });
            }
            Err(error) if would_wait(&error) => {}
            Err(error) => self.end(who, Some(error), events),
        }
    }

    fn end(&mut self, who: usize, error: Option<io::Error>, events: &mut Vec<ClientEvent>) {
        self.connections[who] = None;
        events.push(ClientEvent { who, at: Instant::now(), kind: EventKind::Closed(error) });
    }
}

impl Connection {
    /// Continues to connect or write; true when the connection was just established.
    fn write(&mut self) -> io::Result<bool> {
        let mut stream = self.stream.source();
        let mut events = false;
        if !self.connected {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            match stream.peer_addr() {
                Ok(_) => (self.connected, events) = (true, true),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if would_wait(&error) => break,
                // The server's goodbye may still be unread: the read sees the end, after it.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.written = self.out.len(),
                Err(error) => return Err(error),
            }
        }
        let blocked = self.written < self.out.len();
        if !blocked {
            // A new one: thousands of idle clients keep no buffers.
            (self.out, self.written) = (Vec::new(), 0);
        }
        self.reads |= events;
        if blocked != self.awaits_writable || events {
            self.stream.set_interest((self.reads, blocked))?;
            self.awaits_writable = blocked;
        }
        Ok(events)
    }
}

fn would_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A socket that is on its way to the target, from its own source address where the target is on loopback.
fn open(target: SocketAddr, count: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source(target.ip(), count) {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Only Linux answers on all of 127.0.0.0/8 without being told to.
fn source(target: IpAddr, count: u32) -> Option<Ipv4Addr> {
    let IpAddr::V4(target) = target else { return None };
    let spread = cfg!(target_os = "linux") && target.is_loopback();
    spread.then(|| Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + count % SOURCES))
}

/// Raises this process's soft fd limit, so that it can hold so many clients, in all its pools.
pub(super) fn raise_fd_limit(clients: usize) -> Result<(), StressError> {
    let needed = clients as u64 + OWN_FDS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|&hard| hard < needed) {
        return Err(StressError::Fds { clients, limit: hard });
    }
    let wanted = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted)
        .map_err(|errno| StressError::Io { doing: "cannot raise the fd limit", source: errno.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_spread_over_loopback_only() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        if cfg!(target_os = "linux") {
            assert_ne!(source(loopback, 1), source(loopback, 2));
            assert!((0..=SOURCES).all(|count| source(loopback, count).is_some_and(|ip| ip.is_loopback())));
        }
        assert_eq!(source(IpAddr::from([192, 0, 2, 1]), 1), None);
        assert_eq!(source("::1".parse().unwrap(), 1), None);
    }

    #[test]
    fn more_clients_than_the_hard_limit_is_an_error_that_says_so() {
        let Err(error) = raise_fd_limit(usize::MAX >> 1) else { return };
        assert!(error.to_string().contains("ulimit -n"), "{error}");
    }
}
