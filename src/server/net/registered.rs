//! A source that a poller watches, which deregisters before it is closed.
//!
//! Owned by one thread. The only unsafe code of the project is here.

use crate::sync::Arc;
use polling::{Event, PollMode};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The highest key of 30 bits, for what is watched for shares a word with it. No source has it.
const REFUSED_KEY: usize = (1 << 30) - 1;
/// The key of what wakes a poller.
pub(super) const WAKER_KEY: usize = REFUSED_KEY - 1;
/// The highest key that a source may have.
pub const MAX_KEY: usize = WAKER_KEY - 1;

/// A source in the hands of a poller.
#[derive(Debug)]
pub struct Registered<S: AsFd> {
    registry: Arc<polling::Poller>,
    registration: Registration,
    source: Option<S>,
}

// Each client has one.
const _: () = assert!(size_of::<Registered<std::net::TcpStream>>() <= 16);

/// A key, and in the two lowest bits what the poller watches for under it. Neither while deregistered.
#[derive(Clone, Copy, Debug)]
struct Registration(u32);

impl Registration {
    const READABLE: u32 = 1;
    const WRITABLE: u32 = 2;
    const KEY_SHIFT: u32 = 2;

    fn new(key: usize) -> Self {
        Registration((key as u32) << Self::KEY_SHIFT)
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

impl<S: AsFd> Registered<S> {
    /// A source that is not registered yet. A key above [`MAX_KEY`] is refused when it is.
    pub(super) fn new(registry: Arc<polling::Poller>, source: S, key: usize) -> Self {
        let key = if key > MAX_KEY { REFUSED_KEY } else { key };
        Registered { registry, registration: Registration::new(key), source: Some(source) }
    }

    /// The source that wakes a poller: reported once each time that it becomes readable.
    pub(super) fn waker(registry: Arc<polling::Poller>, source: S) -> io::Result<Self> {
        let registration = Registration::new(WAKER_KEY);
        let mut registered = Registered { registry, registration, source: Some(source) };
        registered.watch((true, false), PollMode::Edge)?;
        Ok(registered)
    }

    /// Changes what is watched for. Watching for nothing deregisters, for a hang-up would be reported on and on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_interest(&mut self, readable: bool, writable: bool) -> io::Result<()> {
        self.watch((readable, writable), PollMode::Level)
    }

    #[expect(unsafe_code, reason = "what `polling` watches has to be deregistered before it is closed")]
    fn watch(&mut self, wanted: (bool, bool), mode: PollMode) -> io::Result<()> {
        if wanted == self.interest() {
            return Ok(());
        }
        let Some(source) = self.source.as_ref() else { return Ok(()) };
        let key = self.registration.key();
        if key == REFUSED_KEY {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this poller key is too high"));
        }
        let event = Event::new(key, wanted.0, wanted.1);
        match (self.is_registered(), wanted != (false, false)) {
            // SAFETY: the source is held here, so it stays open, and it is given up or dropped only by `into_inner` and
            // `drop`, which deregister it first.
            (false, true) => unsafe {
                self.registry.add_with_mode(source.as_fd().as_raw_fd(), event, mode)?;
            },
            (true, true) => self.registry.modify_with_mode(source, event, mode)?,
            (true, false) => self.registry.delete(source)?,
            (false, false) => {}
        }
        self.registration.set(wanted);
        Ok(())
    }

    /// True exactly while the poller watches for something.
    pub fn is_registered(&self) -> bool {
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
        // It fails only for an fd that is not registered, and then there is nothing left to do.
        let _ = self.set_interest(false, false);
    }
}

impl<S: AsFd> Drop for Registered<S> {
    fn drop(&mut self) {
        self.deregister();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::poller::each_way;
    use crate::net::{Events, Poller};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(10);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        far.set_nonblocking(true).unwrap();
        (near, far)
    }

    /// The keys of what is ready, and whether each can be read.
    fn wait(poller: &Poller, limit: Duration) -> Vec<(usize, bool)> {
        let mut events = Events::default();
        poller.wait(&mut events, Some(limit)).unwrap();
        events.iter().map(|event| (event.key, event.readable)).collect()
    }

    #[test]
    fn an_event_comes_back_until_its_cause_is_gone() {
        for poller in each_way() {
            let (mut near, far) = pair();
            let _registered = poller.register(far, 5, true, false).unwrap();
            near.write_all(b"x").unwrap();
            for _ in 0..2 {
                assert_eq!(wait(&poller, LONG), [(5, true)]);
            }
        }
    }

    #[test]
    fn an_end_behind_a_short_read_is_told() {
        for poller in each_way() {
            let (mut near, far) = pair();
            let registered = poller.register(far, 5, true, false).unwrap();
            near.write_all(b"x").unwrap();
            drop(near);
            let reads = || {
                assert_eq!(wait(&poller, LONG), [(5, true)]);
                registered.source().unwrap().read(&mut [0; 64]).unwrap()
            };
            assert_eq!(reads(), 1);
            assert_eq!(reads(), 0, "the end");
        }
    }

    #[test]
    fn a_broken_connection_is_told_as_such() {
        for poller in each_way() {
            let (near, far) = pair();
            let _registered = poller.register(far, 5, true, false).unwrap();
            socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
            drop(near);
            let mut events = Events::default();
            poller.wait(&mut events, Some(LONG)).unwrap();
            let told: Vec<_> = events.iter().map(|event| (event.readable, event.is_interrupt())).collect();
            assert_eq!(told, [(true, cfg!(target_os = "linux"))]);
        }
    }

    #[test]
    fn an_urgent_byte_is_read_away_and_not_told_on_and_on() {
        for poller in each_way() {
            let (near, far) = pair();
            let registered = poller.register(far, 5, true, false).unwrap();
            socket2::SockRef::from(&near).send_out_of_band(b"!").unwrap();
            assert_eq!(wait(&poller, LONG), [(5, true)]);
            let read = registered.source().unwrap().read(&mut [0; 64]);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(wait(&poller, Duration::ZERO), []);
        }
    }

    #[test]
    fn the_highest_key_is_told_whatever_is_watched_for_and_a_higher_one_is_refused() {
        for poller in each_way() {
            let (mut near, far) = pair();
            for key in [MAX_KEY + 1, usize::MAX] {
                let too_high = poller.register(far.try_clone().unwrap(), key, true, false);
                assert_eq!(too_high.unwrap_err().kind(), io::ErrorKind::InvalidInput);
            }
            let mut registered = poller.register(far, MAX_KEY, false, true).unwrap();
            registered.set_interest(true, false).unwrap();
            assert_eq!(registered.interest(), (true, false));
            near.write_all(b"x").unwrap();
            assert_eq!(wait(&poller, LONG), [(MAX_KEY, true)]);
        }
    }

    #[test]
    fn watching_for_nothing_reports_no_hang_up() {
        for poller in each_way() {
            let (near, far) = pair();
            let mut registered = poller.register(far, 5, true, false).unwrap();
            registered.set_interest(false, false).unwrap();
            drop(near);
            assert_eq!(wait(&poller, Duration::ZERO), []);
            assert!(!registered.is_registered());
        }
    }

    #[test]
    fn what_is_dropped_or_given_up_is_deregistered_though_its_socket_stays_open() {
        for poller in each_way() {
            let (mut near, far) = pair();
            // The kernel watches the socket and not the fd: a copy of the fd keeps what was not deregistered.
            let copy = || far.try_clone().unwrap();
            near.write_all(b"x").unwrap();
            drop(poller.register(copy(), 5, true, false).unwrap());
            assert_eq!(wait(&poller, Duration::ZERO), []);
            let given_up = poller.register(copy(), 6, true, false).unwrap().into_inner();
            assert_eq!(wait(&poller, Duration::ZERO), []);
            let _again = poller.register(given_up.unwrap(), 7, true, false).unwrap();
            assert_eq!(wait(&poller, LONG), [(7, true)]);
        }
    }
}
