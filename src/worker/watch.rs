//! A source registered with a poller, which deregisters before it is closed.
//!
//! Owned by one thread.

use super::poller::{MAX_KEY, Poller};
use crate::sync::Arc;
use std::io;
use std::os::fd::AsFd;

/// A socket that a poller watches.
#[derive(Debug)]
pub struct Watched<S: AsFd> {
    poller: Arc<Poller>,
    registration: Registration,
    source: Option<S>,
}

// Each client has one.
const _: () = assert!(size_of::<Watched<std::net::TcpStream>>() <= 16);

/// A key, and in the two lowest bits what the poller watches for under it. Neither while deregistered.
#[derive(Clone, Copy, Debug)]
struct Registration(u32);

impl Registration {
    const READABLE: u32 = 1;
    const WRITABLE: u32 = 2;
    const KEY_SHIFT: u32 = 2;

    /// A key that is too high stays one that the poller refuses.
    fn new(key: usize) -> Self {
        Registration((key.min(MAX_KEY + 1) as u32) << Self::KEY_SHIFT)
    }

    fn key(self) -> usize {
        (self.0 >> Self::KEY_SHIFT) as usize
    }

    fn interest(self) -> (bool, bool) {
        (self.0 & Self::READABLE != 0, self.0 & Self::WRITABLE != 0)
    }

    fn is_registered(self) -> bool {
        self.interest() != (false, false)
    }

    fn set(&mut self, (readable, writable): (bool, bool)) {
        self.0 &= !(Self::READABLE | Self::WRITABLE);
        self.0 |= if readable { Self::READABLE } else { 0 };
        self.0 |= if writable { Self::WRITABLE } else { 0 };
    }
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
        Watched { poller, registration: Registration::new(key), source: Some(source) }
    }

    /// Changes what is watched for. Watching for nothing deregisters, for a hang-up would be reported on and on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_interest(&mut self, readable: bool, writable: bool) -> io::Result<()> {
        let wanted = (readable, writable);
        if wanted == self.interest() {
            return Ok(());
        }
        let Some(source) = &self.source else { return Ok(()) };
        let key = self.registration.key();
        match (self.is_watched(), readable || writable) {
            (false, true) => self.poller.add(source, key, wanted)?,
            (true, true) => self.poller.modify(source, key, wanted)?,
            (true, false) => self.poller.delete(source)?,
            (false, false) => {}
        }
        self.registration.set(wanted);
        Ok(())
    }

    /// True exactly while the poller watches for something.
    pub fn is_watched(&self) -> bool {
        self.registration.is_registered()
    }

    /// What is watched for: reading, writing.
    pub fn interest(&self) -> (bool, bool) {
        self.registration.interest()
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
        if let Some(source) = self.source.as_ref().filter(|_| self.registration.is_registered()) {
            // It fails only for an fd that is not registered, and then there is nothing left to do.
            let _ = self.poller.delete(source);
            self.registration.set((false, false));
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
    use std::net::{Shutdown, TcpListener, TcpStream};
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
    fn the_highest_key_is_told_whatever_is_watched_for_and_a_higher_one_is_refused() {
        let (mut near, far) = pair();
        let poller = Arc::new(Poller::new().unwrap());
        let too_high = Watched::new(Arc::clone(&poller), far.try_clone().unwrap(), MAX_KEY + 1, true, false);
        assert_eq!(too_high.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let mut watched = Watched::new(Arc::clone(&poller), far, MAX_KEY, false, true).unwrap();
        watched.set_interest(true, false).unwrap();
        assert_eq!(watched.interest(), (true, false));
        near.write_all(b"x").unwrap();
        let mut events = Events::new();
        poller.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(events.iter().map(|e| (e.key, e.readable)).collect::<Vec<_>>(), [(MAX_KEY, true)]);
    }

    #[test]
    fn an_end_behind_what_can_be_read_is_told_with_it() {
        let (mut near, far) = pair();
        let poller = Arc::new(Poller::new().unwrap());
        let _watched = Watched::new(Arc::clone(&poller), far, 5, true, false).unwrap();
        let mut events = Events::new();
        let mut wait = || {
            poller.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
            events.iter().map(|e| (e.readable, e.ended, e.over)).collect::<Vec<_>>()
        };
        near.write_all(b"x").unwrap();
        assert_eq!(wait(), [(true, false, false)]);
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(wait(), [(true, true, false)]);
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
