//! Signals that must not end the server. Runs once, on main, before any other thread; it handles nothing.
//!
//! The signals that stop the server are caught in `server` itself.

use nix::sys::signal::{SigSet, Signal};

/// Lets a write past the file size limit fail with EFBIG, as a full disk does with ENOSPC, instead of ending the process.
///
/// A blocked signal stays pending and harms nobody. Threads inherit what is blocked, so this comes before the first one.
pub(super) fn outlive_file_size_limit() -> std::io::Result<()> {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGXFSZ);
    Ok(blocked.thread_block()?)
}
