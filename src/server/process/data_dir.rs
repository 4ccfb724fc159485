//! The data directory: created for its owner alone, held by one server at a time.

use crate::admin;
use crate::admin::{SOCKET_NAME, SocketPath};
use rustix::fs::{AtFlags, FlockOperation, Mode, fchmod, flock, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::umask;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What a server's files and directories lack, whatever the umask was at its start: others have no business there.
const MASK: Mode = Mode::RWXG.union(Mode::RWXO);
/// Only the owner may look into a data directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Only the owner may ask the control socket.
const SOCKET_MODE: u32 = 0o600;
/// Connections to the control socket that may wait to be accepted.
const CONTROL_BACKLOG: i32 = 128;

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another live server holds it.
    #[error(
        "{} is held by another running server{}; stop that one or choose another --data",
        path.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Held {
        /// Which.
        path: PathBuf,
        /// That server's process, where the system tells.
        pid: Option<u32>,
    },
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

/// Has all that this process creates from now on be for its owner alone.
pub(crate) fn create_privately() {
    umask(MASK);
}

/// A data directory that this process holds. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    /// The lock is on the directory itself, so it needs no file of its own. What the server does in the directory later
    /// goes through this descriptor, for the path may lead to another server's by then.
    lock: File,
    /// The control socket that this server has made; none before and after. Not of `crate::sync`, because control and main
    /// hold it over system calls, at a stop.
    socket: Mutex<Option<FileId>>,
}

/// A file, whatever its name.
type FileId = (u64, u64);

impl DataDirectory {
    /// Creates the directory if need be, and holds it.
    pub(crate) fn hold(path: &Path) -> Result<Self, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(unusable)?;
        let lock = File::open(path).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DataDirectory { path: path.to_owned(), lock, socket: Mutex::default() }),
            Err(Errno::WOULDBLOCK) => {
                Err(DirectoryError::Held { path: path.to_owned(), pid: admin::holder(path) })
            }
            Err(errno) => Err(unusable(errno.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The control socket, as people find it.
    pub(crate) fn control(&self) -> PathBuf {
        self.path.join(SOCKET_NAME)
    }

    /// Binds the control socket. One that a killed server left is removed: the lock says that nobody has it.
    pub(crate) fn bind_control(&self) -> Result<UnixListener, DirectoryError> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        self.bind(&mut socket).map_err(|source| DirectoryError::Socket { path: self.control(), source })
    }

    /// Binds the control socket again where somebody has removed it; none where it is there, or must not be any more.
    pub(crate) fn renew_control(&self) -> Option<UnixListener> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.is_none() || *socket == self.socket_there() {
            return None;
        }
        match self.bind(&mut socket) {
            Ok(listener) => {
                tracing::warn!("the control socket was gone, and is made anew");
                Some(listener)
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket is gone, and cannot be made anew");
                None
            }
        }
    }

    /// Removes the control socket that this server has made: nobody answers on it any more.
    pub(crate) fn release(&self) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = socket.take()
            && self.socket_there() == Some(made)
            && let Err(error) = unlinkat(&self.lock, SOCKET_NAME, AtFlags::empty())
        {
            tracing::debug!(%error, "the control socket could not be removed");
        }
    }

    fn bind(&self, socket: &mut Option<FileId>) -> io::Result<UnixListener> {
        match unlinkat(&self.lock, SOCKET_NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let held = self.lock.metadata()?;
        let is_here = std::fs::metadata(&self.path).is_ok_and(|found| id(&found) == id(&held));
        let address =
            if is_here { SocketPath::of(&self.path)? } else { SocketPath::inside(self.lock.try_clone()?) };
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // The name gets the mode that the socket has, so it is never there with a wider one.
        fchmod(&listener, Mode::from_raw_mode(SOCKET_MODE))?;
        listener.bind(&SockAddr::unix(address.path())?)?;
        listener.listen(CONTROL_BACKLOG)?;
        *socket = self.socket_there();
        Ok(listener.into())
    }

    /// Which control socket is in the directory.
    fn socket_there(&self) -> Option<FileId> {
        let found = statat(&self.lock, SOCKET_NAME, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((found.st_dev, found.st_ino))
    }
}

fn id(file: &Metadata) -> FileId {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_that_this_server_made_is_removed_wherever_its_directory_is() {
        let dir = tempfile::tempdir().unwrap();
        let (here, away) = (dir.path().join("here"), dir.path().join("away"));
        let first = DataDirectory::hold(&here).unwrap();
        let _listening = first.bind_control().unwrap();
        std::fs::rename(&here, &away).unwrap();
        let second = DataDirectory::hold(&here).unwrap();
        let _also_listening = second.bind_control().unwrap();
        first.release();
        assert!(here.join(SOCKET_NAME).exists() && !away.join(SOCKET_NAME).exists());
        std::fs::remove_file(here.join(SOCKET_NAME)).unwrap();
        std::fs::write(here.join(SOCKET_NAME), "somebody else's").unwrap();
        second.release();
        assert!(here.join(SOCKET_NAME).exists());
    }

    #[test]
    fn a_socket_that_is_gone_is_made_anew_in_the_directory_that_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let (here, away) = (dir.path().join("here"), dir.path().join("away"));
        let held = DataDirectory::hold(&here).unwrap();
        let _listening = held.bind_control().unwrap();
        assert!(held.renew_control().is_none(), "it is there");
        std::fs::rename(&here, &away).unwrap();
        std::fs::remove_file(away.join(SOCKET_NAME)).unwrap();
        let _again = held.renew_control().unwrap();
        assert!(away.join(SOCKET_NAME).exists());
        held.release();
        assert!(held.renew_control().is_none(), "not behind the stop");
        assert!(!away.join(SOCKET_NAME).exists());
    }
}
