//! One connection to the server: a thread that connects and reads, and the writing half for the event loop.
//!
//! The thread ends with its connection. It reads no faster than the session takes objects, and it never writes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;

use linger_server::protocol::json::framing::{Framed, Framer};

/// How long one address may take to accept, in seconds.
const CONNECT_S: u64 = 5;

/// How long a write may be blocked, in seconds.
const WRITE_S: u64 = 20;

/// Bytes that are read at once.
const READ_BYTES: usize = 32 << 10;

/// The largest object that is understood, in bytes: a login answer with friends, groups and what was kept.
const OBJECT_MAX_BYTES: usize = 32 << 20;

/// An event, with the number of its connection.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) connection: u64,
    pub(super) event: Event,
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// It is connected; the writing half.
    Connected(TcpStream),
    /// The server has sent one object.
    Received(Vec<u8>),
    /// It is over, or could not be made.
    Lost(String),
}

/// Connects to `server`, as `host:port`, and reports all that happens until the connection is over.
pub(super) fn open(connection: u64, server: &str, reports: Sender<Report>) -> io::Result<()> {
    let server = server.to_owned();
    let run = move || {
        let report = |event| reports.send(Report { connection, event }).is_ok();
        let why = match connect(&server).and_then(|stream| Ok((stream.try_clone()?, stream))) {
            Err(error) => format!("cannot reach {server}: {error}"),
            Ok((writer, reader)) => {
                if !report(Event::Connected(writer)) {
                    return;
                }
                read(&reader, report)
            }
        };
        report(Event::Lost(why));
    };
    thread::Builder::new().name(format!("connection {connection}")).spawn(run).map(drop)
}

/// Sends one object.
pub(super) fn send(mut stream: &TcpStream, object: &str) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(object.len() + 1);
    bytes.extend_from_slice(object.as_bytes());
    bytes.push(b'\n');
    stream.write_all(&bytes)
}

/// Ends this side; the thread still reads.
pub(super) fn half_close(stream: &TcpStream) {
    // It fails where the connection is broken, and its reader reports that.
    let _ = stream.shutdown(Shutdown::Write);
}

/// Ends both sides, and with them the thread.
pub(super) fn disconnect(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Tries every address that the name has.
fn connect(server: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(CONNECT_S)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(Duration::from_secs(WRITE_S)))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads objects until the connection ends, the session ends, or the input is not valid, and returns which of these.
fn read(mut stream: &TcpStream, report: impl Fn(Event) -> bool) -> String {
    let mut framer = Framer::default();
    let mut input: Vec<u8> = Vec::new();
    let mut piece = vec![0; READ_BYTES];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return "the server has closed the connection".into(),
            Ok(count) => input.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return format!("connection lost: {error}"),
        }
        let mut done = 0;
        loop {
            match framer.next(&input[done..], OBJECT_MAX_BYTES) {
                Framed::More { skip } => {
                    done += skip;
                    break;
                }
                Framed::Request { start, end } => {
                    let object = input[done + start..done + end].to_vec();
                    done += end;
                    if !report(Event::Received(object)) {
                        return "nobody listens".into();
                    }
                }
                Framed::TooLarge | Framed::Malformed => return "the other end is no chat server".into(),
            }
        }
        input.drain(..done);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use crossbeam_channel::{Receiver, unbounded};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn next(reports: &Receiver<Report>) -> Event {
        reports.recv_timeout(DEADLINE).unwrap().event
    }

    #[test]
    fn objects_come_one_by_one_and_then_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (tell, reports) = unbounded();
        open(1, &listener.local_addr().unwrap().to_string(), tell).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let Event::Connected(writer) = next(&reports) else { panic!("up first") };
        server.write_all(b"{\"a\":\"}\"}\n{}\0{\"b\"").unwrap();
        assert!(matches!(next(&reports), Event::Received(object) if object == b"{\"a\":\"}\"}"));
        assert!(matches!(next(&reports), Event::Received(object) if object == b"{}"));
        server.write_all(b":1}\n").unwrap();
        assert!(matches!(next(&reports), Event::Received(object) if object == b"{\"b\":1}"));
        send(&writer, "{}").unwrap();
        half_close(&writer);
        let mut received = String::new();
        server.read_to_string(&mut received).unwrap();
        assert_eq!(received, "{}\n");
        drop(server);
        assert!(matches!(next(&reports), Event::Lost(_)));
    }

    #[test]
    fn what_is_no_chat_server_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (tell, reports) = unbounded();
        open(1, &listener.local_addr().unwrap().to_string(), tell).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        assert!(matches!(next(&reports), Event::Connected(_)));
        assert!(matches!(next(&reports), Event::Lost(why) if why == "the other end is no chat server"));
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (tell, reports) = unbounded();
        open(1, &address, tell).unwrap();
        assert!(matches!(next(&reports), Event::Lost(why) if why.contains(&address)));
    }
}
