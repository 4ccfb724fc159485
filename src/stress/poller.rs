//! The kernel's epoll in level mode, and sockets registered with it. One thread owns both.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// Events that one wait takes at most.
const EVENTS_MAX: usize = 1024;

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Poller(Arc<OwnedFd>);

/// A socket that can go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    /// Under which it was registered.
    pub(super) key: usize,
    /// It can be read, or has an end or an error to tell.
    pub(super) readable: bool,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Poller(Arc::new(epoll::create(CreateFlags::CLOEXEC)?)))
    }

    /// Waits until a socket is ready or the time is over. May return for nothing.
    pub(super) fn wait(&self, ready: &mut Vec<Ready>, timeout: Duration) -> io::Result<()> {
        ready.clear();
        let timeout = Timespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut room = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        match epoll::wait(&*self.0, &mut room, Some(&timeout)) {
            Ok((events, _)) => {
                ready.extend(events.iter().map(|event| Ready {
                    key: event.data.u64() as usize,
                    readable: { event.flags }.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP),
                }));
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A socket that is registered, until it is dropped.
#[derive(Debug)]
pub(super) struct Registered<S: AsFd> {
    epoll: Arc<OwnedFd>,
    source: S,
    key: usize,
}

impl<S: AsFd> Registered<S> {
    /// Registers a socket for reading, writing or both.
    pub(super) fn new(poller: &Poller, source: S, key: usize, interest: (bool, bool)) -> io::Result<Self> {
        let registered = Registered { epoll: Arc::clone(&poller.0), source, key };
        epoll::add(&*registered.epoll, &registered.source, registered.data(), flags(interest))?;
        Ok(registered)
    }

    /// Changes what is waited for: reading, writing. Its end is told with either.
    pub(super) fn set_interest(&self, interest: (bool, bool)) -> io::Result<()> {
        Ok(epoll::modify(&*self.epoll, &self.source, self.data(), flags(interest))?)
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    fn data(&self) -> EventData {
        EventData::new_u64(self.key as u64)
    }
}

fn flags((readable, writable): (bool, bool)) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN | EventFlags::RDHUP, readable);
    flags.set(EventFlags::OUT, writable);
    flags
}
