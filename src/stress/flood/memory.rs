//! What the server's process holds: its anonymous memory, as the kernel counts it.
//!
//! Looked at from a thread of its own while something happens. The process is the one that answers the control socket.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use super::super::control::Control;
use super::super::error::StressError;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A process whose memory is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory(Pid);

impl Memory {
    /// The memory of the server behind that socket.
    pub(super) fn of(control: &Control) -> Result<Self, StressError> {
        Ok(Self(control.server()?))
    }

    /// Bytes held before `work`, and the most while it ran.
    pub(super) fn peak_during(
        self,
        work: impl FnOnce() -> Result<(), StressError>,
    ) -> Result<(u64, u64), StressError> {
        let before = self.bytes()?;
        let (done, is_done) = channel::<()>();
        thread::scope(|scope| {
            let looks = scope.spawn(move || {
                let mut peak = before;
                loop {
                    peak = peak.max(self.bytes()?);
                    if is_done.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                        return Ok(peak);
                    }
                }
            });
            let worked = work();
            drop(done);
            let peak = looks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            worked.and_then(|()| Ok((before, peak?)))
        })
    }

    fn bytes(self) -> Result<u64, StressError> {
        let path = format!("/proc/{}/status", self.0.as_raw_nonzero());
        let failed = StressError::io("cannot read the memory of the server's process under /proc");
        let status = std::fs::read_to_string(path).map_err(failed)?;
        anonymous(&status)
            .ok_or_else(|| StressError::Server("its status under /proc does not tell its memory".to_owned()))
    }
}

/// `RssAnon` of a process's status, in bytes.
fn anonymous(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(kib.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_found_in_a_status() {
        assert_eq!(anonymous("Name:\tlinger\nRssAnon:\t    1234 kB\nRssFile:\t 1 kB\n"), Some(1234 * 1024));
        assert_eq!(anonymous("Name:\tlinger\n"), None);
    }

    #[test]
    fn a_peak_is_seen_though_it_is_over_at_the_end() {
        const BYTES: usize = 64 << 20;
        let own = Memory(rustix::process::getpid());
        let (before, peak) = own
            .peak_during(|| {
                let block = vec![1u8; BYTES];
                thread::sleep(LOOK_EVERY * 20);
                drop(block);
                Ok(())
            })
            .unwrap();
        assert!(peak >= before + BYTES as u64 / 2, "{before} {peak}");
    }
}
