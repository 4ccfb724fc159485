//! What a worker does with a connection, so that a made-up network can stand in for the kernel.

use crate::net::Registered;
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A connection in the hands of its worker. Nothing here ever blocks.
pub trait Transport {
    /// What main gets back to close.
    type Socket: Send;

    /// Reads what is there. 0 means that the client has ended its side.
    ///
    /// # Errors
    /// As the kernel says; `WouldBlock` when nothing is there.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as the kernel takes.
    ///
    /// # Errors
    /// As the kernel says; `WouldBlock` when it takes nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Ends the server's side; what was written before still arrives.
    ///
    /// # Errors
    /// As the kernel says.
    fn end_output(&mut self) -> io::Result<()>;

    /// Sets how long sent data may stay unacknowledged before the kernel gives the connection up.
    ///
    /// # Errors
    /// As the kernel says.
    fn set_user_timeout(&mut self, limit: Duration) -> io::Result<()>;

    /// Changes what events are wanted.
    ///
    /// # Errors
    /// As the kernel says.
    fn watch(&mut self, readable: bool, writable: bool) -> io::Result<()>;

    /// What events are wanted: reading, writing.
    fn watching(&self) -> (bool, bool);

    /// True exactly while it has its socket.
    fn has_socket(&self) -> bool;

    /// Deregisters, and gives the socket up.
    fn into_socket(self) -> Option<Self::Socket>;
}

impl Transport for Registered<TcpStream> {
    type Socket = TcpStream;

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        retrying(|| self.source().map_or(Ok(0), |mut stream| stream.read(into)))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retrying(|| self.source().map_or(Ok(0), |mut stream| stream.write(bytes)))
    }

    fn end_output(&mut self) -> io::Result<()> {
        self.source().map_or(Ok(()), |stream| stream.shutdown(Shutdown::Write))
    }

    fn set_user_timeout(&mut self, limit: Duration) -> io::Result<()> {
        self.source().map_or(Ok(()), |stream| SockRef::from(stream).set_tcp_user_timeout(Some(limit)))
    }

    fn watch(&mut self, readable: bool, writable: bool) -> io::Result<()> {
        self.set_interest(readable, writable)
    }

    fn watching(&self) -> (bool, bool) {
        self.interest()
    }

    fn has_socket(&self) -> bool {
        self.source().is_some()
    }

    fn into_socket(self) -> Option<TcpStream> {
        self.into_inner()
    }
}

fn retrying<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
