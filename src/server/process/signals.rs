//! Signals: which stop the server, which it outlives, and which stay ignored.
//!
//! Main sets all of it up before it starts another thread. Then the threads of `ctrlc` (SIGINT) and of `signal-hook`
//! (SIGTERM, SIGHUP) take signals and push a stop on main's queue; they decide nothing else.

use crate::logs::Logs;
use crate::message::event::Event;
use crate::offline_queue::queue::OfflineQueue;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags, open};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// From then on after the first signal to stop, another one ends the process at once. Two that come together are one
/// stop: a service manager may send SIGTERM and SIGHUP at once.
const IMPATIENT_AFTER: Duration = Duration::from_secs(1);

/// Blocks the signals that would end or stop the process for what it writes. They stay pending and harm nobody.
///
/// With SIGXFSZ blocked, a write past the file size limit fails with EFBIG, as a full disk does with ENOSPC. With SIGTTOU
/// blocked, a server in the background may write to a terminal in which background jobs must not (`stty tostop`).
/// Threads inherit what is blocked, so this comes before the first one.
///
/// # Errors
/// When the system refuses.
pub fn block_signals_of_writing() -> io::Result<()> {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGXFSZ);
    blocked.add(Signal::SIGTTOU);
    Ok(blocked.thread_block()?)
}

/// Catches SIGINT and SIGTERM always: a shell without job control ignores SIGINT for its background jobs, and they are to
/// stop in order too. Catches SIGHUP unless it was ignored at the start (`nohup`).
pub(crate) fn catch(
    queue: &Arc<OfflineQueue<TcpStream>>,
    terminal: &Arc<Terminal>,
    logs: &Logs,
) -> io::Result<()> {
    // Without `/proc` nothing counts as ignored.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut caught = vec![SIGTERM];
    if !is_ignored(&status, SIGHUP) {
        caught.push(SIGHUP);
    }
    let mut signals = Signals::new(caught)?;
    let stops = Arc::new(Stops { queue: Arc::clone(queue), logs: logs.clone(), first: Mutex::default() });
    let on_interrupt = Arc::clone(&stops);
    ctrlc::set_handler(move || on_interrupt.ask()).map_err(io::Error::other)?;
    let terminal = Arc::clone(terminal);
    let take = move || {
        for signal in signals.forever() {
            if signal != SIGHUP {
                stops.ask();
            } else if terminal.is_in_foreground() {
                stops.begin();
            } else {
                tracing::warn!(
                    "SIGHUP changes nothing: restart the server for it to read its configuration again"
                );
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(take)?;
    Ok(())
}

/// True exactly when the mask `SigIgn` of that `/proc/PID/status` has the signal.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Signals that ask the server to stop.
struct Stops {
    queue: Arc<OfflineQueue<TcpStream>>,
    logs: Logs,
    /// When the first one came.
    first: Mutex<Option<Instant>>,
}

impl Stops {
    /// A signal that asks for a stop, and for the end at once if somebody has waited for the stop.
    fn ask(&self) {
        if self.begin().elapsed() >= IMPATIENT_AFTER {
            self.logs.flush();
            std::process::exit(1);
        }
    }

    /// Begins the stop unless it has begun; answers when that was.
    fn begin(&self) -> Instant {
        let now = Instant::now();
        let before = {
            let mut first = self.first.lock();
            let before = *first;
            first.get_or_insert(now);
            before
        };
        before.unwrap_or_else(|| {
            self.queue.push(Event::Stop);
            now
        })
    }
}

/// The terminal that the server was started in, where there is one.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    /// As seen last, while the terminal was there: a hang-up takes it away before the signal comes.
    foreground: AtomicBool,
}

impl Terminal {
    /// Looks whether the server is in the foreground; to be called now and then.
    pub(crate) fn look(&self) {
        // A line without a carrier would keep whoever opens it otherwise.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(terminal) = open("/dev/tty", flags, Mode::empty()) else { return };
        if let Ok(group) = rustix::termios::tcgetpgrp(terminal) {
            self.foreground.store(group == rustix::process::getpgrp(), Ordering::Relaxed);
        }
    }

    /// True exactly when the server is in the foreground of a terminal, or was when the terminal hung up.
    fn is_in_foreground(&self) -> bool {
        self.look();
        self.foreground.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_at_the_start_is_read_from_the_mask() {
        let status = "Name:\tlinger\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\t0\n";
        assert!(is_ignored(status, SIGHUP) && is_ignored(status, 2));
        assert!(!is_ignored(status, SIGTERM));
        assert!(!is_ignored("", SIGHUP));
    }
}
