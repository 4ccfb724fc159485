//! Whether the database is still the file that was opened: not deleted, not moved away, not replaced, not copied over.
//!
//! Any thread may look; a look is three `stat`s and one read of 100 bytes, and writes nothing. SQLite goes on writing to the
//! file that it has opened, wherever that file is: what it writes to a deleted file is lost, and what it writes to a file
//! that was copied over spoils the copy.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::schema::APPLICATION_ID;
use crate::escape::shown_path;
use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// What SQLite puts behind the database's name for the files beside it.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// What the server puts behind their names when the database that they belong to is lost. SQLite uses no such name.
const LOST: &str = ".lost";

/// Bytes of an SQLite database's header.
const HEADER_BYTES: usize = 100;
/// Where it says how often it was changed, and whose it is.
const CHANGES_AT: usize = 24;
const APPLICATION_AT: usize = 68;

/// The database's files, as they were opened.
#[derive(Debug)]
pub struct OpenedFiles {
    files: Vec<(PathBuf, FileId)>,
    /// Never closed while SQLite has the same file open: closing it would drop SQLite's locks.
    database: File,
    /// How often the database had been changed at the latest look. It only rises.
    changes: AtomicU32,
    /// True exactly when a look has found something else there.
    lost: AtomicBool,
}

/// Tells one file from another.
type FileId = (u64, u64);

impl OpenedFiles {
    /// Takes down which files these are. They must have been opened by SQLite.
    pub(super) fn of(path: &Path) -> io::Result<OpenedFiles> {
        let mut files = vec![(path.to_path_buf(), id(&fs::metadata(path)?))];
        for suffix in BESIDE {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let beside = PathBuf::from(name);
            let id = id(&fs::metadata(&beside)?);
            files.push((beside, id));
        }
        let database = File::open(path)?;
        let opened =
            OpenedFiles { files, database, changes: AtomicU32::new(0), lost: AtomicBool::new(false) };
        if let Some(found) = opened.differs() {
            return Err(io::Error::other(found));
        }
        Ok(opened)
    }

    /// Looks. Answers what has become of the files, the first time that they are not what they were.
    pub fn look(&self) -> Option<String> {
        // Relaxed: whoever does not see it yet sees it at the next commit.
        let found = (!self.is_lost()).then(|| self.differs()).flatten()?;
        self.lost.store(true, Ordering::Relaxed);
        Some(found)
    }

    /// True exactly when a look has found something else there. It stays so.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Renames the log and what SQLite has with it, where the database is not the file that they belong to: the next start
    /// would apply the log to whatever has the database's name. Files that are not ours stay, and so does the log of a
    /// database that is still there. Answers the new names. SQLite must use the files no more.
    pub fn set_aside(&self) -> Vec<PathBuf> {
        let Some((database, beside)) = self.files.split_first() else { return Vec::new() };
        if differs(database).is_none() && self.content_differs().is_none() {
            return Vec::new();
        }
        let ours = beside.iter().filter(|file| differs(file).is_none());
        ours.filter_map(|(path, _)| rename_lost(path)).collect()
    }

    /// What has become of the files, if they are not what they were.
    pub(super) fn differs(&self) -> Option<String> {
        self.files.iter().find_map(differs).or_else(|| self.content_differs())
    }

    /// What has become of what the database's file holds, if that is not what it was.
    fn content_differs(&self) -> Option<String> {
        let path = self.files.first().map(|(path, _)| shown_path(path))?;
        let mut header = [0; HEADER_BYTES];
        match self.database.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Some(format!("{path} was emptied"));
            }
            Err(_) => return None,
            Ok(()) => {}
        }
        let number = |at: usize| header[at..].first_chunk().copied().map_or(0, u32::from_be_bytes);
        let (changes, before) = (number(CHANGES_AT), self.changes.load(Ordering::Relaxed));
        // The count wraps.
        if number(APPLICATION_AT) != APPLICATION_ID as u32 || (changes.wrapping_sub(before) as i32) < 0 {
            return Some(format!("{path} was overwritten"));
        }
        self.changes.store(changes, Ordering::Relaxed);
        None
    }
}

/// What has become of a file, if it is not the one that was opened.
fn differs((path, opened): &(PathBuf, FileId)) -> Option<String> {
    match fs::metadata(path) {
        Ok(found) if id(&found) == *opened => None,
        Ok(_) => Some(format!("{} was replaced by another file", shown_path(path))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("{} was deleted or moved away", shown_path(path)))
        }
        // The next look may succeed.
        Err(_) => None,
    }
}

/// Gives a file beside a lost database its new name, and answers that. An earlier file of that name is replaced.
fn rename_lost(path: &Path) -> Option<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(LOST);
    let name = PathBuf::from(name);
    match fs::rename(path, &name) {
        Ok(()) => Some(name),
        Err(error) => {
            let path = shown_path(path);
            tracing::error!(%error, "{path} belongs to the lost database and cannot be renamed; remove it before the next start");
            None
        }
    }
}

fn id(metadata: &fs::Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TimeMark;
    use crate::ids::{Mid, UserId};
    use crate::store::sqlite::{DATABASE_FILE, Durability, SqliteStore};
    use crate::store::{OfflineBox, Transactions};

    fn opened(dir: &Path) -> SqliteStore {
        SqliteStore::open(dir, Durability::Normal, 0).unwrap().store
    }

    /// What a look says when that has been done to the files of a running server.
    fn after(act: impl FnOnce(&Path)) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        // From an earlier run.
        opened(dir.path()).close().unwrap();
        fs::copy(dir.path().join(DATABASE_FILE), dir.path().join("copy")).unwrap();
        let mut store = opened(dir.path());
        let files = store.opened_files();
        assert_eq!(files.look(), None);
        store.begin().unwrap();
        store.keep(UserId(1), Mid(1), 0, b"{}", false).unwrap();
        store.mark_time(TimeMark { trusted_ms: 1, wall_ms: 1 }).unwrap();
        store.commit().unwrap();
        assert_eq!(files.look(), None, "what SQLite writes is no difference");
        act(dir.path());
        let said = files.look();
        if said.is_some() {
            assert!(files.is_lost() && files.look().is_none(), "it is said once");
            let refused = store.begin().unwrap_err().to_string();
            assert!(refused.contains(DATABASE_FILE), "{refused}");
            let before = fs::read_dir(dir.path()).unwrap().count();
            store.close().unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before, "nothing is tidied there");
        }
        said
    }

    #[test]
    fn a_database_that_is_still_there_is_not_lost() {
        assert_eq!(after(|_| ()), None);
    }

    #[test]
    fn a_database_that_was_deleted_moved_replaced_or_overwritten_is_lost() {
        let database = |dir: &Path| dir.join(DATABASE_FILE);
        for (act, what) in [
            (
                Box::new(|dir: &Path| fs::remove_file(database(dir)).unwrap()) as Box<dyn Fn(&Path)>,
                "deleted or moved",
            ),
            (Box::new(|dir: &Path| fs::rename(database(dir), dir.join("x")).unwrap()), "deleted or moved"),
            (
                Box::new(|dir: &Path| fs::rename(dir.join("copy"), database(dir)).unwrap()),
                "replaced by another",
            ),
            (
                Box::new(|dir: &Path| assert!(fs::copy(dir.join("copy"), database(dir)).is_ok())),
                "overwritten",
            ),
            (Box::new(|dir: &Path| fs::write(database(dir), "").unwrap()), "emptied"),
            (Box::new(|dir: &Path| fs::write(database(dir), "x".repeat(9_999)).unwrap()), "overwritten"),
            (Box::new(|dir: &Path| fs::remove_file(dir.join("linger.db-wal")).unwrap()), "-wal was deleted"),
            (Box::new(|dir: &Path| fs::remove_file(dir.join("linger.db-shm")).unwrap()), "-shm was deleted"),
        ] {
            let said = after(act).unwrap_or_default();
            assert!(said.contains(what), "{said:?}, not {what:?}");
        }
    }
}
