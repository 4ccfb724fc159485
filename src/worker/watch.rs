//! A source registered with a poller, which deregisters before it is closed. The crate's only `unsafe`.
//!
//! Owned by one thread. Level mode: an event comes back as long as its cause lasts, so nothing has to be re-armed
//! and a short read needs no second one.

use crate::sync::Arc;
use polling::{Event, PollMode, Poller};
use std::io;
use std::os::fd::AsFd;

/// The key that `polling` keeps for its own wake-ups.
const RESERVED_KEY: usize = usize::MAX;

/// A socket that a poller watches.
#[derive(Debug)]
pub struct Watched<S: AsFd> {
    poller: Arc<Poller>,
    key: usize,
    /// What the poller watches for; `None` while deregistered.
    interest: Option<(bool, bool)>,
    source: Option<S>,
}

impl<S: AsFd> Watched<S> {
    /// Registers a source.
    ///
    /// # Errors
    /// When the kernel refuses, or the key is the one that `polling` keeps for itself.
    pub fn new(
        poller: Arc<Poller>,
        source: S,
        key: usize,
        readable: bool,
        writable: bool,
    ) -> io::Result<Self> {
        let mut watched = Watched::unwatched(poller, source, key);
        watched.set_interest(readable, writable)?;
        Ok(watched)
    }

    /// A source that is not registered yet.
    pub fn unwatched(poller: Arc<Poller>, source: S, key: usize) -> Self {
        Watched { poller, key, interest: None, source: Some(source) }
    }

    /// Changes what is watched for. Watching for nothing deregisters, for a hang-up would be reported on and on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_interest(&mut self, readable: bool, writable: bool) -> io::Result<()> {
        let wanted = (readable || writable).then_some((readable, writable));
        if wanted == self.interest {
            return Ok(());
        }
        let Some(source) = &self.source else { return Ok(()) };
        let event = Event::new(self.key, readable, writable);
        match (self.interest, wanted) {
            (None, Some(_)) => add(&self.poller, source, event)?,
            (Some(_), Some(_)) => {
                self.poller.modify_with_mode(source.as_fd(), event, PollMode::Level)?;
            }
            (Some(_), None) => self.poller.delete(source.as_fd())?,
            (None, None) => {}
        }
        self.interest = wanted;
        Ok(())
    }

    /// True exactly while the poller watches for something.
    pub fn is_watched(&self) -> bool {
        self.interest.is_some()
    }

    /// What is watched for: reading, writing.
    pub fn interest(&self) -> (bool, bool) {
        self.interest.unwrap_or((false, false))
    }

    /// The source itself.
    pub fn source(&self) -> Option<&S> {
        self.source.as_ref()
    }

    /// Deregisters, and gives the source up.
    pub fn into_inner(mut self) -> Option<S> {
        self.deregister();
        self.source.take()
    }

    fn deregister(&mut self) {
        if let (Some(source), Some(_)) = (&self.source, self.interest.take()) {
            // It fails only for an fd that is not registered, and then there is nothing left to do.
            let _ = self.poller.delete(source.as_fd());
        }
    }
}

impl<S: AsFd> Drop for Watched<S> {
    fn drop(&mut self) {
        self.deregister();
    }
}

#[expect(unsafe_code, reason = "Poller::add is unsafe; here its one condition is kept by construction")]
fn add<S: AsFd>(poller: &Poller, source: &S, event: Event) -> io::Result<()> {
    if event.key == RESERVED_KEY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this poller key is reserved"));
    }
    // SAFETY: the source must be deleted from the poller before it is dropped. Only `Watched` calls this, it owns
    // the source, and it deregisters in `into_inner` and in `Drop`, both before the source is given up.
    unsafe { poller.add_with_mode(&source.as_fd(), event, PollMode::Level) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polling::Events;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn an_event_comes_back_until_its_cause_is_gone() {
        let (mut near, far) = pair();
        let poller = Arc::new(Poller::new().unwrap());
        let _watched = Watched::new(Arc::clone(&poller), far, 5, true, false).unwrap();
        near.write_all(b"x").unwrap();
        let mut events = Events::new();
        for _ in 0..2 {
            events.clear();
            poller.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert_eq!(events.iter().map(|e| e.key).collect::<Vec<_>>(), [5]);
        }
    }

    #[test]
    fn watching_for_nothing_reports_no_hang_up() {
        let (near, far) = pair();
        let poller = Arc::new(Poller::new().unwrap());
        let mut watched = Watched::new(Arc::clone(&poller), far, 5, true, false).unwrap();
        watched.set_interest(false, false).unwrap();
        drop(near);
        let mut events = Events::new();
        poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
        assert!(!watched.is_watched());
    }

    #[test]
    fn the_reserved_key_is_refused() {
        let (_near, far) = pair();
        let poller = Arc::new(Poller::new().unwrap());
        assert!(Watched::new(poller, far, usize::MAX, true, false).is_err());
    }
}
