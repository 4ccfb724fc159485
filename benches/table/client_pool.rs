//! Many clients in one thread: connects, writes, reads and passes messages on. It decides nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use linger_server::net::{Events, Poller, Registered};
use socket2::{Domain, Socket, Type};

use super::protocol::{Protocol, ServerMessage};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Source addresses on loopback: the ports of a minute's closed connections do not run out.
const SOURCES: u32 = 4_000;

/// The clients, by number; each has at most one connection.
pub(crate) struct ClientPool {
    target: SocketAddr,
    protocol: Protocol,
    poller: Poller,
    events: Events,
    clients: Vec<Option<Client>>,
    dirty: Vec<usize>,
    connects: u32,
    buffer: Vec<u8>,
}

struct Client {
    stream: Registered<TcpStream>,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    out: Vec<u8>,
    awaits_writable: bool,
}

impl ClientPool {
    pub(crate) fn new(target: SocketAddr, protocol: Protocol) -> Result<Self> {
        Ok(Self {
            target,
            protocol,
            poller: Poller::new().context("cannot make a poller")?,
            events: Events::default(),
            clients: Vec::new(),
            dirty: Vec::new(),
            connects: 0,
            buffer: vec![0; READ_BYTES],
        })
    }

    pub(crate) fn target(&self) -> SocketAddr {
        self.target
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn connect(&mut self, who: usize) -> Result<()> {
        self.connects = self.connects.wrapping_add(1);
        let stream = open(self.target, self.connects).context("cannot open a socket")?;
        let stream = self.poller.register(stream, who, true, true).context("cannot watch a socket")?;
        if self.clients.len() <= who {
            self.clients.resize_with(who + 1, || None);
        }
        self.clients[who] =
            Some(Client { stream, partial: Vec::new(), out: Vec::new(), awaits_writable: true });
        Ok(())
    }

    /// An ordinary close. The place can be connected again.
    pub(crate) fn close(&mut self, who: usize) {
        self.clients[who] = None;
    }

    pub(crate) fn close_all(&mut self) {
        self.clients.clear();
    }

    /// Has something written at the next turn.
    pub(crate) fn send(&mut self, who: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(client) = &mut self.clients[who] else { return };
        if client.out.is_empty() {
            self.dirty.push(who);
        }
        write(&mut client.out);
    }

    /// Writes, waits up to `timeout`, reads once from each that is ready, and hands out what they heard.
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        mut on_message: impl FnMut(usize, ServerMessage<'_>),
    ) -> Result<()> {
        for who in std::mem::take(&mut self.dirty) {
            // One that still connects writes when it is connected.
            if let Some(client) = &mut self.clients[who]
                && !client.awaits_writable
            {
                client.write()?;
            }
        }
        self.poller.wait(&mut self.events, Some(timeout)).context("cannot wait")?;
        for event in self.events.iter() {
            let Some(client) = &mut self.clients[event.key] else { continue };
            if event.writable && client.awaits_writable {
                client.write().with_context(|| format!("client {}", event.key))?;
            }
            if event.readable {
                let protocol = self.protocol;
                client
                    .read(&mut self.buffer, |line| on_message(event.key, protocol.parse(line)))
                    .with_context(|| format!("client {}", event.key))?;
            }
        }
        Ok(())
    }
}

impl Client {
    fn write(&mut self) -> Result<()> {
        let Some(mut stream) = self.stream.source() else { return Ok(()) };
        let mut written = 0;
        while written < self.out.len() {
            match stream.write(&self.out[written..]) {
                Ok(count) => written += count,
                Err(error) if waits(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.out.drain(..written);
        let blocked = !self.out.is_empty();
        if blocked != self.awaits_writable {
            self.stream.set_interest(true, blocked)?;
            self.awaits_writable = blocked;
        }
        if !blocked && self.out.capacity() > READ_BYTES {
            self.out = Vec::new();
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], mut on_message: impl FnMut(&str)) -> Result<()> {
        let Some(mut stream) = self.stream.source() else { return Ok(()) };
        let count = match stream.read(buffer) {
            Ok(0) => bail!("the server has ended the connection"),
            Ok(count) => count,
            Err(error) if waits(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for piece in buffer[..count].split_inclusive(|&byte| byte == b'\n') {
            if !piece.ends_with(b"\n") {
                self.partial.extend_from_slice(piece);
            } else if self.partial.is_empty() {
                on_message(text(piece));
            } else {
                self.partial.extend_from_slice(piece);
                on_message(text(&self.partial));
                self.partial = Vec::new();
            }
        }
        Ok(())
    }
}

fn text(line: &[u8]) -> &str {
    std::str::from_utf8(line).unwrap_or_default().trim_end_matches('\n')
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}

/// A socket that is on its way to the target, from its own source address.
fn open(target: SocketAddr, count: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + count % SOURCES);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(socket.into()),
    }
}
