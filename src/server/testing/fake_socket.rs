//! A connection without a network: the server's end is a [`Transport`], the test holds the client's.

use crate::net::transport::Transport;
use crate::sync::{Arc, AtomicBool, Ordering};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// The system's error number for a write to a connection that is reset, as Linux has it.
pub(crate) const EPIPE: i32 = 32;
/// The same for a read.
pub(crate) const ECONNRESET: i32 = 104;

/// The same for a client of which nothing was heard for too long.
pub(crate) const ETIMEDOUT: i32 = 110;

/// The same where the poller takes nothing more.
pub(crate) const ENOSPC: i32 = 28;

/// The server's end.
#[derive(Debug)]
pub(crate) struct FakeSocket(Rc<RefCell<Line>>);

/// The client's end. A client reads everything at once unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Client(Rc<RefCell<Line>>);

/// What main gets to close; dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Fd(Arc<AtomicBool>);

#[derive(Debug)]
struct Line {
    /// What the server reads next; an empty piece is the end of the client's side.
    input: VecDeque<Result<Vec<u8>, i32>>,
    output: Vec<u8>,
    /// Bytes that the kernel still takes.
    room: usize,
    /// Bytes that it takes with the next write, whatever room there is.
    next_write: usize,
    /// The error of every write from now on.
    write_error: Option<i32>,
    /// True exactly when the poller has no memory for the connection.
    unwatchable: bool,
    /// The latest user timeout; none while it is the listener's.
    user_timeout: Option<Duration>,
    ended: bool,
    /// How often the server has read the end of the client's side.
    ends_read: u32,
    interest: (bool, bool),
    closed: Arc<AtomicBool>,
}

/// Both ends of a new connection.
pub(crate) fn connection() -> (FakeSocket, Client) {
    let line = Rc::new(RefCell::new(Line {
        input: VecDeque::new(),
        output: Vec::new(),
        room: usize::MAX,
        next_write: usize::MAX,
        write_error: None,
        unwatchable: false,
        user_timeout: None,
        ended: false,
        ends_read: 0,
        interest: (false, false),
        closed: Arc::default(),
    }));
    (FakeSocket(Rc::clone(&line)), Client(line))
}

impl Client {
    /// Sends bytes, which the server reads in one piece.
    pub(crate) fn send(&self, bytes: &str) {
        self.send_bytes(bytes.as_bytes());
    }

    /// The same for bytes that need not be text. None at all would be the end.
    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.borrow_mut().input.push_back(Ok(bytes.into()));
        }
    }

    /// Ends the client's side.
    pub(crate) fn end(&self) {
        self.0.borrow_mut().input.push_back(Ok(Vec::new()));
    }

    /// Resets the connection: the server reads so, and every write fails from now on.
    pub(crate) fn reset(&self) {
        let mut line = self.0.borrow_mut();
        line.input.push_back(Err(ECONNRESET));
        line.write_error = Some(EPIPE);
    }

    /// Reads no more than so many bytes from now on.
    pub(crate) fn take_only(&self, room: usize) {
        self.0.borrow_mut().room = room;
    }

    /// Has read so many bytes, which makes room for more.
    pub(crate) fn make_room(&self, bytes: usize) {
        let mut line = self.0.borrow_mut();
        line.room = line.room.saturating_add(bytes);
    }

    /// True exactly when the kernel takes more.
    pub(crate) fn has_room(&self) -> bool {
        self.0.borrow().room > 0
    }

    /// The kernel takes no more than so many bytes with the server's next write.
    pub(crate) fn shorten_next_write(&self, bytes: usize) {
        self.0.borrow_mut().next_write = bytes.max(1);
    }

    /// Resets the connection, and what the server has not read is gone.
    pub(crate) fn reset_at_once(&self) {
        self.0.borrow_mut().input.clear();
        self.reset();
    }

    /// The kernel gives the connection up: nothing was heard of the client for too long.
    pub(crate) fn time_out(&self) {
        let mut line = self.0.borrow_mut();
        line.input.push_back(Err(ETIMEDOUT));
        line.write_error = Some(ETIMEDOUT);
    }

    /// The user timeout that the server has set last, in seconds.
    pub(crate) fn user_timeout_s(&self) -> Option<u64> {
        self.0.borrow().user_timeout.map(|limit| limit.as_secs())
    }

    /// The poller does not take what it does not have already.
    pub(crate) fn cannot_be_watched(&self) {
        self.0.borrow_mut().unwatchable = true;
    }

    /// Everything the server has written since the last look.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8(self.heard_bytes()).unwrap()
    }

    /// The same, which may end within a character.
    pub(crate) fn heard_bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().output)
    }

    /// The same by lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.heard().lines().map(Into::into).collect()
    }

    /// True exactly when the server has ended its side.
    pub(crate) fn sees_the_end(&self) -> bool {
        self.0.borrow().ended
    }

    /// True exactly when main has closed the fd.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.borrow().closed.load(Ordering::Relaxed)
    }

    /// How often the server has read the end of the client's side.
    pub(crate) fn ends_read(&self) -> u32 {
        self.0.borrow().ends_read
    }

    /// What a poller in level mode would report: can be read, can be written.
    pub(crate) fn events(&self) -> (bool, bool) {
        let line = self.0.borrow();
        let readable = line.interest.0 && !line.input.is_empty();
        (readable, line.interest.1 && (line.room > 0 || line.write_error.is_some()))
    }
}

impl Transport for FakeSocket {
    type Socket = Fd;

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut line = self.0.borrow_mut();
        match line.input.front() {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(Err(errno)) => Err(io::Error::from_raw_os_error(*errno)),
            // The end stays: it is read again and again.
            Some(Ok(bytes)) if bytes.is_empty() => {
                line.ends_read += 1;
                Ok(0)
            }
            Some(Ok(_)) => {
                let bytes = line.input.pop_front().and_then(Result::ok).unwrap_or_default();
                into[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = self.0.borrow_mut();
        assert!(!line.ended, "nothing is written behind the end");
        if let Some(errno) = line.write_error {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let count = bytes.len().min(line.room).min(std::mem::replace(&mut line.next_write, usize::MAX));
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        line.room -= count;
        line.output.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn end_output(&mut self) -> io::Result<()> {
        self.0.borrow_mut().ended = true;
        Ok(())
    }

    fn set_user_timeout(&mut self, limit: Duration) -> io::Result<()> {
        self.0.borrow_mut().user_timeout = Some(limit);
        Ok(())
    }

    fn watch(&mut self, readable: bool, writable: bool) -> io::Result<()> {
        let mut line = self.0.borrow_mut();
        if line.unwatchable && (readable || writable) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        line.interest = (readable, writable);
        Ok(())
    }

    fn watching(&self) -> (bool, bool) {
        self.0.borrow().interest
    }

    fn has_socket(&self) -> bool {
        !self.0.borrow().closed.load(Ordering::Relaxed)
    }

    fn into_socket(self) -> Option<Fd> {
        self.0.borrow_mut().interest = (false, false);
        Some(Fd(Arc::clone(&self.0.borrow().closed)))
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        assert!(!self.0.swap(true, Ordering::Relaxed), "an fd is closed once");
    }
}
