//! A source that a poller watches in level mode: registered while the value lives, deregistered when it is dropped.
//!
//! The one place with unsafe code. Used by the thread that owns the source; it never reads, writes or waits.

use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use polling::{Event, PollMode, Poller};

/// A source and its registration with a poller, in level mode.
///
/// It dereferences to the source, but not mutably: whoever could replace the source could drop it while it is
/// registered. Sockets read and write through a shared reference, so [`Read`] and [`Write`] are here all the same.
#[derive(Debug)]
pub struct Watched<S: AsFd> {
    poller: Arc<Poller>,
    /// `None` only after `into_inner` has taken it, which consumes the value.
    source: Option<S>,
    key: usize,
}

const PRESENT: &str = "the source is there until `into_inner`, which consumes the value";

impl<S: AsFd> Watched<S> {
    /// Registers `source`; its events carry `key`. With no interest at all, hang-ups and errors are still told.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when the key is `usize::MAX`, which the poller keeps for itself; else the
    /// system's error. The source is dropped then.
    pub fn new(
        poller: Arc<Poller>,
        source: S,
        key: usize,
        readable: bool,
        writable: bool,
    ) -> io::Result<Self> {
        if key == usize::MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the key usize::MAX is the poller's own",
            ));
        }
        add(&poller, &source, Event::new(key, readable, writable))?;
        Ok(Self { poller, source: Some(source), key })
    }

    /// Says anew what to wait for.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set_interest(&self, readable: bool, writable: bool) -> io::Result<()> {
        self.poller.modify_with_mode(&**self, Event::new(self.key, readable, writable), PollMode::Level)
    }

    /// Deregisters and hands the source back.
    #[expect(clippy::missing_panics_doc, reason = "it cannot: nobody else takes the source")]
    pub fn into_inner(mut self) -> S {
        let source = self.source.take().expect(PRESENT);
        deregister(&self.poller, source.as_fd());
        source
    }
}

impl<S: AsFd> Deref for Watched<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.source.as_ref().expect(PRESENT)
    }
}

impl<S: AsFd> Read for Watched<S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&mut &**self).read(into)
    }
}

impl<S: AsFd> Write for Watched<S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &**self).write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        (&mut &**self).write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&mut &**self).flush()
    }
}

impl<S: AsFd> Drop for Watched<S> {
    fn drop(&mut self) {
        if let Some(source) = &self.source {
            deregister(&self.poller, source.as_fd());
        }
    }
}

#[expect(unsafe_code, reason = "`Poller::add_with_mode` leaves it to the caller to deregister in time")]
fn add<S: AsFd>(poller: &Poller, source: &S, interest: Event) -> io::Result<()> {
    let fd = source.as_fd();
    // SAFETY: the source must be deregistered before its fd is closed. The only caller moves it into a `Watched`,
    // which deregisters before it drops the source or hands it back, and never lends it mutably.
    unsafe { poller.add_with_mode(&fd, interest, PollMode::Level) }
}

/// Fails only where the kernel has already forgotten the fd, and then there is nothing to undo.
fn deregister(poller: &Poller, fd: BorrowedFd<'_>) {
    let _ = poller.delete(fd);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use polling::Events;

    use super::*;

    fn pair(poller: &Arc<Poller>, key: usize) -> (Watched<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Watched::new(Arc::clone(poller), ours, key, true, false).unwrap(), theirs)
    }

    fn wait(poller: &Poller, timeout: Duration) -> Vec<usize> {
        let mut events = Events::new();
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline && events.is_empty() {
            poller.wait(&mut events, Some(deadline.saturating_duration_since(Instant::now()))).unwrap();
        }
        events.iter().map(|event| event.key).collect()
    }

    const SOON: Duration = Duration::from_secs(5);
    const NOW: Duration = Duration::from_millis(10);

    #[test]
    fn what_was_not_read_is_told_again() {
        let poller = Arc::new(Poller::new().unwrap());
        let (mut ours, mut theirs) = pair(&poller, 7);
        theirs.write_all(b"ab").unwrap();
        assert_eq!(wait(&poller, SOON), [7]);
        ours.read_exact(&mut [0]).unwrap();
        assert_eq!(wait(&poller, SOON), [7]);
        ours.read_exact(&mut [0]).unwrap();
        assert!(wait(&poller, NOW).is_empty());
    }

    #[test]
    fn interest_can_be_taken_back() {
        let poller = Arc::new(Poller::new().unwrap());
        let (ours, mut theirs) = pair(&poller, 7);
        theirs.write_all(b"a").unwrap();
        ours.set_interest(false, false).unwrap();
        assert!(wait(&poller, NOW).is_empty());
        ours.set_interest(false, true).unwrap();
        assert_eq!(wait(&poller, SOON), [7]);
    }

    #[test]
    fn a_source_handed_back_is_no_longer_watched_and_still_open() {
        let poller = Arc::new(Poller::new().unwrap());
        let (ours, mut theirs) = pair(&poller, 7);
        let mut ours = ours.into_inner();
        theirs.write_all(b"a").unwrap();
        assert!(wait(&poller, NOW).is_empty());
        ours.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_dropped_source_is_no_longer_watched_even_where_its_fd_lives_on() {
        let poller = Arc::new(Poller::new().unwrap());
        let (ours, mut theirs) = pair(&poller, 7);
        let twin = ours.try_clone().unwrap();
        drop(ours);
        theirs.write_all(b"a").unwrap();
        assert!(wait(&poller, NOW).is_empty());
        drop(twin);
    }

    #[test]
    fn the_pollers_own_key_is_refused() {
        let poller = Arc::new(Poller::new().unwrap());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let refused = Watched::new(poller, ours, usize::MAX, true, false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
