//! The admin socket: what is said on it, and where it is.

pub mod ban_protocol;
pub mod bans;
pub mod client;
pub mod departures;
pub mod history_pool;
pub mod protocol;
mod refusal;
pub mod server;
pub mod target;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket's name in the data directory.
pub const SOCKET_NAME: &str = "control.sock";

/// How often a server looks whether its control socket is still there, and makes it anew otherwise.
pub const SOCKET_LOOK: Duration = Duration::from_secs(5);

/// Bytes of a path that the kernel takes as a socket's address.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A path that reaches the control socket, however long the data directory's own is.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// Keeps `path` valid while it goes through the directory's descriptor.
    _directory: Option<File>,
}

impl SocketPath {
    /// The socket in that data directory; the socket need not exist.
    ///
    /// # Errors
    /// When the path is too long for the kernel and the directory cannot be opened.
    pub fn of(data: &Path) -> io::Result<SocketPath> {
        let path = data.join(SOCKET_NAME);
        if path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH_BYTES {
            return Ok(SocketPath { path, _directory: None });
        }
        Ok(SocketPath::inside(File::open(data)?))
    }

    /// The socket in that open directory, wherever it has been moved to.
    pub fn inside(directory: File) -> SocketPath {
        let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd()).into();
        SocketPath { path, _directory: Some(directory) }
    }

    /// What to bind or connect to, while this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The process that holds the lock on a data directory, as far as `/proc` shows it to this one. The lock itself is not
/// touched: a server that starts meanwhile must not find it taken.
pub fn holder(data: &Path) -> Option<u32> {
    let directory = fs::metadata(data).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().filter_map(|line| lock_on(line, directory.ino())).find(|pid| has_open(*pid, &directory))
}

/// Who has an flock on a file with that inode, by a line such as `1: FLOCK  ADVISORY  WRITE 4242 fd:01:5678 0 EOF`.
fn lock_on(line: &str, inode: u64) -> Option<u32> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", pid, place, ..] = words[..] else { return None };
    (place.rsplit(':').next()?.parse() == Ok(inode)).then(|| pid.parse().ok())?
}

/// The device in `/proc/locks` is not that of `stat` on every file system, so the process is asked what it has open.
fn has_open(pid: u32, directory: &Metadata) -> bool {
    let same = |other: Metadata| (other.dev(), other.ino()) == (directory.dev(), directory.ino());
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|entry| fs::metadata(entry.path()).is_ok_and(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_in_its_line() {
        let line = "1: FLOCK  ADVISORY  WRITE 4242 fd:01:5678 0 EOF";
        assert_eq!(lock_on(line, 5678), Some(4242));
        assert_eq!(lock_on(line, 567), None);
        assert_eq!(lock_on("1: POSIX  ADVISORY  WRITE 4242 fd:01:5678 0 EOF", 5678), None);
        assert_eq!(lock_on("1: -> FLOCK  ADVISORY  WRITE 4242 fd:01:5678 0 EOF", 5678), None);
    }

    #[test]
    fn a_directory_is_held_by_whoever_has_locked_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), None);
        let open = File::open(dir.path()).unwrap();
        assert_eq!(holder(dir.path()), None, "open is not locked");
        open.lock().unwrap();
        assert_eq!(holder(dir.path()), Some(std::process::id()));
    }
}
