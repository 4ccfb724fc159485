//! The database's files are for their owner alone.
//!
//! Runs on the thread that opens. SQLite gives the files that it makes beside a database the mode of the database. So
//! the database is made here, with its mode, and what is older than this rule is narrowed. Files are named, not opened:
//! closing a descriptor would drop the POSIX locks that this process may hold.

use super::connect::OpenError;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The owner reads and writes.
const FILE_MODE: u32 = 0o600;
/// What SQLite adds to the database's name for the files beside it.
const BESIDE: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Makes an empty database where there is none, before SQLite would, whose mode is wider.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
    match made {
        // The umask may have taken from the mode.
        Ok(file) => file.set_permissions(Permissions::from_mode(FILE_MODE)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|error| failed("creating", path, &error))
}

/// Takes from others what they may do with a database that is ours, and with the files beside it.
pub(super) fn narrow(path: &Path) {
    // Where the name is a link, SQLite has its other files beside the file that it leads to.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    for end in BESIDE {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        let file = PathBuf::from(file);
        if let Err(error) = narrow_one(&file) {
            let file = file.display();
            tracing::warn!(%error, "{file} can be read or written by others, and its mode cannot be changed to 0600");
        }
    }
}

fn narrow_one(file: &Path) -> io::Result<()> {
    match fs::metadata(file) {
        Ok(found) if found.permissions().mode() & !FILE_MODE & 0o777 != 0 => {
            fs::set_permissions(file, Permissions::from_mode(FILE_MODE))
        }
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path, error: &io::Error) -> OpenError {
    OpenError::Failed { doing, path: path.to_path_buf(), cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_database_is_made_for_its_owner_and_an_older_one_is_narrowed_with_all_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("linger.db");
        create(&path).unwrap();
        assert_eq!(mode(&path), FILE_MODE);
        fs::write(&path, "kept").unwrap();
        create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        let wal = dir.path().join("linger.db-wal");
        fs::write(&wal, "").unwrap();
        for file in [&path, &wal] {
            fs::set_permissions(file, Permissions::from_mode(0o664)).unwrap();
        }
        narrow(&path);
        assert_eq!([mode(&path), mode(&wal)], [FILE_MODE; 2]);
    }
}
