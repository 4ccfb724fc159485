//! The admin socket: what is said on it, and where it is.

pub mod archive;
pub mod client;
pub mod message;
pub mod server;
pub mod target;
pub mod why;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The socket's name in the data directory.
pub const SOCKET_NAME: &str = "control.sock";

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
        let directory = File::open(data)?;
        let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd()).into();
        Ok(SocketPath { path, _directory: Some(directory) })
    }

    /// What to bind or connect to, while this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
