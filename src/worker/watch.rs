//! A source registered with a poller, which deregisters before it is closed.
//!
//! Owned by one thread.

use super::poller::Poller;
use crate::sync::Arc;
use std::io;
use std::os::fd::AsFd;

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
    /// When the kernel refuses, or the key is the one that the poller keeps for itself.
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
        match (self.interest, wanted) {
            (None, Some(interest)) => self.poller.add(source, self.key, interest)?,
            (Some(_), Some(interest)) => self.poller.modify(source, self.key, interest)?,
            (Some(_), None) => self.poller.delete(source)?,
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
            let _ = self.poller.delete(source);
        }
    }
}

impl<S: AsFd> Drop for Watched<S> {
    fn drop(&mut self) {
        self.deregister();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::poller::Events;
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
        assert_eq!(events, []);
        assert!(!watched.is_watched());
    }
}
