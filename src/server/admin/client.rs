//! The asking end of the control socket: one request line, one answer line.
//!
//! Belongs to the command that asks. An answer may have any size, but it has to come in time.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{AdminRequest, AnswerError, MAX_ASK_BYTES, parse_answer};
use super::{SOCKET_LOOK, SOCKET_NAME, SocketPath, holder};

/// How long a server may take for all of it; `kick --wait` gives up by itself after 10 s.
const DEADLINE: Duration = Duration::from_secs(15);

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens there.
    #[error("no server in {dir}; is `linger serve --data {dir}` running?", dir = .0.display())]
    NoServer(PathBuf),
    /// A server holds the directory, but there is no socket that it listens on.
    #[error(
        "the server with pid {pid} runs in {}, but its {SOCKET_NAME} is gone; it makes another one within {} s, unless it \
         is starting or stopping",
        data.display(), SOCKET_LOOK.as_secs()
    )]
    NoSocket {
        /// The data directory.
        data: PathBuf,
        /// The server's process.
        pid: u32,
    },
    /// The socket is another user's.
    #[error("the server in {} only serves its own user and root", .0.display())]
    Denied(PathBuf),
    /// The request is longer than a server reads.
    #[error("a request of {0} bytes is too long; the server takes {MAX_ASK_BYTES}")]
    TooLong(usize),
    /// The server took too long.
    #[error("the server in {} did not answer within {} s", .0.display(), DEADLINE.as_secs())]
    TimedOut(PathBuf),
    /// The connection ended before the answer did.
    #[error("the server in {} went away without an answer", .0.display())]
    Closed(PathBuf),
    /// The server answered that it could not do it, or what makes no sense.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The system said no.
    #[error("control socket in {}: {source}", data.display())]
    System {
        /// The data directory.
        data: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Asks the server of that data directory. `T` is the answer that [`AdminRequest`] names.
///
/// # Errors
/// When there is no server, it may not be asked, or it gives no good answer in time.
pub fn ask<T: DeserializeOwned>(data: &Path, ask: &AdminRequest) -> Result<T, AdminError> {
    let request = ask.to_line().map_err(AnswerError::from)?;
    if request.len() > MAX_ASK_BYTES {
        return Err(AdminError::TooLong(request.len()));
    }
    let line = talk(data, &request, Instant::now() + DEADLINE).map_err(|error| explain(data, error))?;
    Ok(parse_answer(&line)?)
}

fn talk(data: &Path, request: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let path = SocketPath::of(data)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // It bounds the connect too: a server that is stuck does not accept.
    socket.set_write_timeout(Some(DEADLINE))?;
    socket.connect(&SockAddr::unix(path.path())?)?;
    let mut stream = UnixStream::from(socket);
    match stream.write_all(request) {
        // A server that refuses us may have said so before it closed.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
        _ => {}
    }
    read_line(&mut stream, deadline)
}

/// Reads up to the first line end, which is not part of the answer.
fn read_line(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut piece = vec![0; READ_BYTES];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut piece) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Some(end) = memchr::memchr(b'\n', &piece[..count]) {
            line.extend_from_slice(&piece[..end]);
            return Ok(line);
        }
        line.extend_from_slice(&piece[..count]);
    }
}

fn explain(data: &Path, source: io::Error) -> AdminError {
    let data = data.to_path_buf();
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused => {
            match holder(&data) {
                Some(pid) => AdminError::NoSocket { data, pid },
                None => AdminError::NoServer(data),
            }
        }
        ErrorKind::PermissionDenied => AdminError::Denied(data),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => AdminError::Closed(data),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => AdminError::TimedOut(data),
        _ => AdminError::System { data, source },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::admin::protocol::{QueueState, Users};

    /// Answers one request with these bytes, then closes; hands back the request.
    fn server(data: &Path, answer: &'static [u8]) -> JoinHandle<String> {
        let listener = UnixListener::bind(SocketPath::of(data).unwrap().path()).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            request
        })
    }

    #[test]
    fn an_answer_in_a_directory_with_a_long_path_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&data).unwrap();
        let server =
            server(&data, b"{\"ok\":true,\"depth\":1,\"oldest_ms\":2,\"lingering\":3,\"drained\":4}\n");
        let expected = QueueState { depth: 1, oldest_ms: 2, lingering: 3, drained: 4 };
        assert_eq!(ask::<QueueState>(&data, &AdminRequest::Queue).unwrap(), expected);
        assert_eq!(server.join().unwrap(), "{\"cmd\":\"queue\"}\n");
    }

    #[test]
    fn no_server_no_directory_and_a_socket_left_behind_all_say_that_nobody_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        for data in [dir.path(), &absent, &dir.path().join("x".repeat(200))] {
            assert!(matches!(ask::<Users>(data, &AdminRequest::Who), Err(AdminError::NoServer(_))));
        }
        drop(UnixListener::bind(dir.path().join("control.sock")).unwrap());
        let error = ask::<Users>(dir.path(), &AdminRequest::Who).unwrap_err();
        assert!(matches!(error, AdminError::NoServer(_)));
        assert!(error.to_string().contains(&format!("linger serve --data {}", dir.path().display())));
    }

    #[test]
    fn a_server_without_its_socket_is_told_from_none() {
        let dir = tempfile::tempdir().unwrap();
        let held = std::fs::File::open(dir.path()).unwrap();
        held.lock().unwrap();
        let error = ask::<Users>(dir.path(), &AdminRequest::Who).unwrap_err();
        assert!(matches!(error, AdminError::NoSocket { pid, .. } if pid == std::process::id()));
        assert!(error.to_string().contains("control.sock is gone"), "{error}");
    }

    #[test]
    fn a_server_that_closes_in_the_middle_is_told_from_one_that_refuses() {
        for answer in [b"".as_slice(), b"{\"ok\":true,\"users\":["] {
            let dir = tempfile::tempdir().unwrap();
            let server = server(dir.path(), answer);
            assert!(matches!(ask::<Users>(dir.path(), &AdminRequest::Who), Err(AdminError::Closed(_))));
            server.join().unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path(), b"{\"ok\":false,\"error\":\"no\"}\n");
        assert_eq!(ask::<Users>(dir.path(), &AdminRequest::Who).unwrap_err().to_string(), "no");
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up() {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let error = read_line(&mut ours, Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert!(matches!(explain(Path::new("d"), error), AdminError::TimedOut(_)));
    }

    #[test]
    fn a_request_that_no_server_would_read_is_not_sent() {
        let targets = vec![crate::admin::target::Target::All; MAX_ASK_BYTES / 6];
        let kick = AdminRequest::Kick(crate::admin::protocol::Kick {
            targets,
            reason: None,
            wait: false,
            ban: None,
        });
        assert!(matches!(ask::<Users>(Path::new("d"), &kick), Err(AdminError::TooLong(_))));
    }
}
