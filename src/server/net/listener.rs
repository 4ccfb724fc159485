//! Listening sockets: one a worker on every address, so that the kernel spreads connections over the workers.

use rustix::net::{SocketAddrAny, SocketFlags};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Connections that may wait to be accepted. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// The kernel's send buffer of each connection, in bytes. Without a bound it would hide megabytes a reader from
/// the out-limit and from the account of what was handed over.
const SEND_BUFFER: usize = 128 * 1024;

/// When the kernel gives up connections whose other machine is gone and to which nothing is sent.
///
/// Where a user timeout is set, Linux does not count keepalive probes: it gives a connection up at the first look,
/// after the first probe, at which the silence is longer than the user timeout. So while nothing is under way the user
/// timeout is the time that all the probes take. A connection begins with the shorter one, for most are written to at
/// once; its worker sets the longer one when an acknowledgement must have come (`worker::timeouts`).
#[derive(Clone, Debug)]
pub struct TcpTimeouts {
    /// Silence, interval, probes.
    pub keepalive: TcpKeepalive,
    /// The user timeout that a connection begins with.
    pub user_timeout: Duration,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", explain(.cause))]
pub struct ListenError {
    /// Which.
    pub address: SocketAddr,
    /// Why.
    pub cause: io::Error,
}

fn explain(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "the port is taken; stop the other program or choose another port".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need a privilege".into(),
        _ => cause.to_string(),
    }
}

/// One listener for each worker on one address, all on the same port.
///
/// # Errors
/// When the port is taken, by another Linger too, or cannot be had for another reason.
pub fn listen(
    address: SocketAddr,
    workers: usize,
    timeouts: &TcpTimeouts,
) -> Result<Vec<TcpListener>, ListenError> {
    let failed = |cause| ListenError { address, cause };
    let first = bind_first(address, timeouts).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(bind_next(bound, timeouts).map_err(failed)?);
    }
    Ok(listeners)
}

/// Binds without `SO_REUSEPORT`, so that a port that anybody has is an error, and sets it for those to come.
fn bind_first(address: SocketAddr, timeouts: &TcpTimeouts) -> io::Result<TcpListener> {
    let socket = prepare(address, timeouts)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_next(address: SocketAddr, timeouts: &TcpTimeouts) -> io::Result<TcpListener> {
    let socket = prepare(address, timeouts)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What is set here is inherited by the connections that are accepted, which spares them system calls.
fn prepare(address: SocketAddr, timeouts: &TcpTimeouts) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_keepalive(&timeouts.keepalive)?;
    socket.set_tcp_user_timeout(Some(timeouts.user_timeout))?;
    Ok(socket)
}

/// Takes one connection from a listener, non-blocking from the start.
///
/// # Errors
/// As the kernel says; `WouldBlock` when no connection waits.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (fd, peer) = rustix::net::acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(internet).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((fd.into(), peer))
}

fn internet(address: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(address).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_another_listener_has_is_an_error_even_among_ourselves() {
        let timeouts = TcpTimeouts { keepalive: TcpKeepalive::new(), user_timeout: Duration::from_secs(30) };
        let held = listen("127.0.0.1:0".parse().unwrap(), 2, &timeouts).unwrap();
        let address = held[0].local_addr().unwrap();
        assert_eq!(held[1].local_addr().unwrap(), address);
        let error = listen(address, 1, &timeouts).unwrap_err();
        assert!(error.to_string().contains("the port is taken"), "{error}");
    }
}
