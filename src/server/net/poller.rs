//! Which sources are ready, and how a waiting thread is woken.
//!
//! One thread waits, any thread wakes. The poller is `polling`'s, in level mode: an event comes back as long as its
//! cause lasts, so nothing has to be re-armed, and an end behind a short read is told by the next wait.
//!
//! There are two ways to wait, with the same events. On Linux a turn waits on the poller's own fd with one system call;
//! it is woken by an eventfd in edge mode, which is never read: each write is an event, and how many there were does
//! not matter. Elsewhere `polling` itself waits, which on Linux would cost five calls: it sets a timer, registers the
//! timer and its own waker again, waits, and reads the waker.

use super::registered::{Registered, WAKER_KEY};
use crate::sync::Arc;
use polling::Event;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::time::Duration;

/// Events that one wait takes at most.
const EVENTS_MAX: usize = 1024;
/// Events of one wait that may be the poller's own: of what wakes it, and of `polling`'s timer.
const OWN_EVENTS_MAX: usize = 2;
/// Sources that a wait reports at least, when it does not report all that are ready.
pub(crate) const TOLD_MIN: usize = EVENTS_MAX - OWN_EVENTS_MAX;

/// In a debug build, this variable of the environment has every poller wait in the portable way, so that any test can
/// be run on it.
const PORTABLE_WAIT: &str = "PORTABLE_WAIT";

/// A poller with what wakes it.
#[derive(Debug)]
pub struct Poller {
    registry: Arc<polling::Poller>,
    way: Way,
}

/// How a poller waits.
#[derive(Debug)]
enum Way {
    /// With one call on its own fd.
    #[cfg(target_os = "linux")]
    Direct { waker: Registered<std::os::fd::OwnedFd> },
    /// As `polling` does.
    Portable,
}

/// The sources that a wait has found ready, and the room for them.
#[derive(Debug)]
pub struct Events {
    ready: Vec<Event>,
    /// What `polling`'s own wait fills.
    polled: polling::Events,
}

impl Default for Events {
    fn default() -> Self {
        let room = NonZeroUsize::new(EVENTS_MAX).expect("it is not 0");
        Events { ready: Vec::new(), polled: polling::Events::with_capacity(room) }
    }
}

impl Deref for Events {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.ready
    }
}

impl Poller {
    /// A poller without sources, which waits in the way that is best here.
    ///
    /// # Errors
    /// When the kernel has no fds left.
    pub fn new() -> io::Result<Self> {
        if cfg!(debug_assertions) && std::env::var_os(PORTABLE_WAIT).is_some() {
            return Poller::portable();
        }
        #[cfg(target_os = "linux")]
        let poller = Poller::direct();
        #[cfg(not(target_os = "linux"))]
        let poller = Poller::portable();
        poller
    }

    fn portable() -> io::Result<Self> {
        Ok(Poller { registry: Arc::new(polling::Poller::new()?), way: Way::Portable })
    }

    /// A source of this poller's, which is not registered yet.
    pub fn hold<S: AsFd>(&self, source: S, key: usize) -> Registered<S> {
        Registered::new(Arc::clone(&self.registry), source, key)
    }

    /// Registers a source.
    ///
    /// # Errors
    /// When the kernel refuses, or the key is above [`MAX_KEY`](super::registered::MAX_KEY).
    pub fn register<S: AsFd>(
        &self,
        source: S,
        key: usize,
        readable: bool,
        writable: bool,
    ) -> io::Result<Registered<S>> {
        let mut registered = self.hold(source, key);
        registered.set_interest(readable, writable)?;
        Ok(registered)
    }

    /// Waits until something is ready, somebody wakes it, or the time is over. May return for nothing. Answers whether
    /// that is all that is ready; if not, the next waits begin with the rest.
    ///
    /// # Errors
    /// As the kernel says; an interruption is none.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<bool> {
        events.ready.clear();
        match self.way {
            #[cfg(target_os = "linux")]
            Way::Direct { .. } => self.wait_directly(&mut events.ready, timeout),
            Way::Portable => {
                events.polled.clear();
                self.registry.wait(&mut events.polled, timeout)?;
                events.ready.extend(events.polled.iter());
                Ok(events.ready.len() < TOLD_MIN)
            }
        }
    }

    /// Makes the present or next wait return, from any thread.
    pub fn wake(&self) {
        // Either fails only when a wake-up is due already.
        match &self.way {
            #[cfg(target_os = "linux")]
            Way::Direct { waker } => {
                let _ = waker.source().map(|fd| rustix::io::write(fd, &1_u64.to_ne_bytes()));
            }
            Way::Portable => drop(self.registry.notify()),
        }
    }
}

#[cfg(target_os = "linux")]
impl Poller {
    fn direct() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let registry = Arc::new(polling::Poller::new()?);
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = Registered::waker(Arc::clone(&registry), fd)?;
        Ok(Poller { registry, way: Way::Direct { waker } })
    }

    fn wait_directly(&self, ready: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<bool> {
        use rustix::event::{Timespec, epoll};
        let timeout = timeout.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: limit.subsec_nanos().into(),
        });
        let mut room = [const { std::mem::MaybeUninit::uninit() }; EVENTS_MAX];
        match epoll::wait(&*self.registry, &mut room, timeout.as_ref()) {
            Ok((found, _)) => {
                ready.extend(found.iter().map(event).filter(|event| event.key != WAKER_KEY));
                Ok(found.len() < EVENTS_MAX)
            }
            // The kernel has reported nothing.
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The kernel's event as one of `polling`'s.
#[cfg(target_os = "linux")]
fn event(told: &rustix::event::epoll::Event) -> Event {
    use rustix::event::epoll::EventFlags;
    let (flags, over) = (told.flags, EventFlags::HUP | EventFlags::ERR);
    let readable = flags.intersects(over | EventFlags::IN | EventFlags::PRI);
    let mut event = Event::new(told.data.u64() as usize, readable, flags.intersects(over | EventFlags::OUT));
    event.set_interrupt(flags.contains(EventFlags::HUP));
    event
}

/// A poller for each way to wait.
#[cfg(test)]
pub(crate) fn each_way() -> Vec<Poller> {
    let mut pollers = vec![Poller::portable().unwrap()];
    #[cfg(target_os = "linux")]
    pollers.push(Poller::direct().unwrap());
    pollers
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_wake_ends_the_present_or_the_next_wait_and_is_no_sources_event() {
        for poller in each_way() {
            let mut events = Events::default();
            let began = Instant::now();
            for _ in 0..2 {
                poller.wake();
                poller.wake();
                assert!(poller.wait(&mut events, Some(LONG)).unwrap());
                assert!(events.is_empty());
            }
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(20));
                    poller.wake();
                });
                poller.wait(&mut events, Some(LONG)).unwrap();
            });
            assert!(began.elapsed() < LONG, "{poller:?}");
            // One wake-up ends one wait.
            let began = Instant::now();
            poller.wait(&mut events, Some(Duration::from_millis(20))).unwrap();
            assert!(began.elapsed() >= Duration::from_millis(20), "{poller:?}");
        }
    }

    #[test]
    fn without_a_wake_the_wait_ends_in_time() {
        for poller in each_way() {
            let mut events = Events::default();
            let began = Instant::now();
            poller.wait(&mut events, Some(Duration::from_micros(10))).unwrap();
            assert!(events.is_empty());
            assert!(began.elapsed() < LONG, "{poller:?}");
        }
    }

    #[test]
    fn a_wait_that_does_not_tell_of_all_says_so_and_the_next_one_tells_of_others() {
        const SOURCES: usize = EVENTS_MAX + 10;
        for poller in each_way() {
            // The other end of each is closed, so that each is ready.
            let sources: Vec<_> = (0..SOURCES)
                .map(|key| poller.register(UnixStream::pair().unwrap().0, key, true, false).unwrap())
                .collect();
            let (mut events, mut told) = (Events::default(), std::collections::BTreeSet::new());
            for _ in 0..3 {
                // A wake-up takes the place of a source.
                poller.wake();
                assert!(!poller.wait(&mut events, Some(LONG)).unwrap());
                assert!(events.len() >= TOLD_MIN);
                told.extend(events.iter().map(|event| event.key));
            }
            assert_eq!(told.len(), SOURCES);
            drop(sources);
            assert!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap());
            assert!(events.is_empty());
        }
    }
}
