//! The data directory: created for its owner alone, held by one server at a time.

use crate::control::{SOCKET_NAME, SocketPath};
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Only the owner may look into a data directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Only the owner may ask the control socket.
const SOCKET_MODE: u32 = 0o600;

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another live server holds it.
    #[error("{} is held by another running server; stop that one or choose another --data", .0.display())]
    Held(PathBuf),
    /// It cannot be created or opened.
    #[error("cannot use the data directory {}: {source}; check the path and its permissions", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The control socket cannot be bound.
    #[error("cannot bind the control socket {}: {source}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A data directory that this process holds. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    /// The lock is on the directory itself, so it needs no file of its own.
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory if need be, and holds it.
    pub(super) fn hold(path: &Path) -> Result<Self, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(unusable)?;
        let lock = File::open(path).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DataDirectory { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DirectoryError::Held(path.to_owned())),
            Err(errno) => Err(unusable(errno.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The control socket, as people find it.
    pub(super) fn control(&self) -> PathBuf {
        self.path.join(SOCKET_NAME)
    }

    /// Binds the control socket. One that a killed server left is removed: the lock says that nobody has it.
    pub(super) fn bind_control(&self) -> Result<UnixListener, DirectoryError> {
        let failed = |source| DirectoryError::Socket { path: self.control(), source };
        match std::fs::remove_file(self.control()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let address = SocketPath::of(&self.path).map_err(failed)?;
        let listener = UnixListener::bind(address.path()).map_err(failed)?;
        std::fs::set_permissions(self.control(), Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(listener)
    }

    /// Removes the control socket: nobody answers on it any more.
    pub(super) fn release(&self) {
        if let Err(error) = std::fs::remove_file(self.control()) {
            tracing::debug!(%error, "the control socket could not be removed");
        }
    }
}
