//! The kernel's epoll, and a way to wake whoever waits in it.
//!
//! One thread waits, any thread wakes. Level mode: an event comes back as long as its cause lasts, so nothing has to be
//! re-armed and a turn costs one system call. The waker is an eventfd in edge mode, which is never read: each write is
//! an event, and nobody cares how many there were.

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The key of the waker's own events.
const WAKER_KEY: u64 = u64::MAX;

/// The highest key that a source may have: 30 bits, for what is watched for shares a word with it, less the one that is
/// refused.
pub const MAX_KEY: usize = (1 << 30) - 2;

/// An epoll instance with its waker.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    waker: OwnedFd,
}

/// Events that one wait takes at most.
pub(super) const EVENTS_MAX: usize = 1024;

/// The sources that a wait has found ready.
pub type Events = Vec<Ready>;

/// One source that is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what the kernel tells, a bit each")]
pub struct Ready {
    /// The source's key.
    pub key: usize,
    /// It can be read, or has an end or an error to tell.
    pub readable: bool,
    /// It can be written, or has an error to tell.
    pub writable: bool,
    /// The other side has ended, behind what there may be to read. Told where it is watched for reading.
    pub ended: bool,
    /// Both sides have ended, or it is broken: nothing more will come.
    pub over: bool,
}

impl Ready {
    fn new(event: &epoll::Event) -> Self {
        let flags = event.flags;
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        Ready {
            key: event.data.u64() as usize,
            readable: broken || flags.contains(EventFlags::IN),
            writable: broken || flags.contains(EventFlags::OUT),
            ended: broken || flags.contains(EventFlags::RDHUP),
            over: flags.contains(EventFlags::HUP),
        }
    }
}

impl Poller {
    /// A poller that watches nothing yet.
    ///
    /// # Errors
    /// When the kernel has no fds left.
    pub fn new() -> io::Result<Self> {
        let poller = Poller {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            waker: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        };
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&poller.epoll, &poller.waker, EventData::new_u64(WAKER_KEY), flags)?;
        Ok(poller)
    }

    /// Waits until something is ready, somebody wakes it, or the time is over. May return for nothing. Answers whether
    /// that is all that is ready; if not, the next waits begin with the rest.
    ///
    /// # Errors
    /// As the kernel says; an interruption is none.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<bool> {
        events.clear();
        let timeout = timeout.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: limit.subsec_nanos().into(),
        });
        let mut room = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        match epoll::wait(&self.epoll, &mut room, timeout.as_ref()) {
            Ok((found, _)) => {
                let sources = found.iter().filter(|event| event.data.u64() != WAKER_KEY);
                events.extend(sources.map(Ready::new));
                Ok(found.len() < EVENTS_MAX)
            }
            // Nothing has been looked at.
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes the present or next wait return, from any thread.
    pub fn wake(&self) {
        // It can only fail when the count is at its end, and then there is an event already.
        let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
    }

    pub(super) fn add(&self, source: impl AsFd, key: usize, interest: (bool, bool)) -> io::Result<()> {
        if key > MAX_KEY {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this poller key is too high"));
        }
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(key as u64), flags(interest))?)
    }

    pub(super) fn modify(&self, source: impl AsFd, key: usize, interest: (bool, bool)) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(key as u64), flags(interest))?)
    }

    pub(super) fn delete(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }
}

fn flags((readable, writable): (bool, bool)) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN | EventFlags::RDHUP, readable);
    flags.set(EventFlags::OUT, writable);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_wake_ends_the_present_or_the_next_wait_and_is_no_sources_event() {
        let poller = Poller::new().unwrap();
        let mut events = Events::new();
        for _ in 0..2 {
            poller.wake();
            poller.wake();
            poller.wait(&mut events, Some(LONG)).unwrap();
            assert_eq!(events, []);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| poller.wake());
            poller.wait(&mut events, None).unwrap();
        });
    }

    #[test]
    fn without_a_wake_the_wait_ends_in_time() {
        let poller = Poller::new().unwrap();
        let mut events = Events::new();
        poller.wait(&mut events, Some(Duration::from_micros(10))).unwrap();
        assert_eq!(events, []);
    }

    #[test]
    fn a_key_as_high_as_the_wakers_is_refused() {
        let poller = Poller::new().unwrap();
        let source = eventfd(0, EventfdFlags::empty()).unwrap();
        assert!(poller.add(&source, usize::MAX, (true, false)).is_err());
    }
}
