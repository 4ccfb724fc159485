//! A directory of its own for one test, and what the database in it says.
//!
//! Reads the database as any other process may; never writes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tempfile::TempDir;

use super::DEADLINE;

/// A temporary directory with the server's data directory in it; removed with its last clone.
#[derive(Clone)]
pub(crate) struct Home(Arc<TempDir>);

/// A row of `departure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) at: i64,
    pub(crate) channel: Option<String>,
    pub(crate) user: i64,
    pub(crate) name: String,
    pub(crate) peer: Option<String>,
    pub(crate) reason: String,
    pub(crate) initiator: String,
    pub(crate) errno: Option<i64>,
    pub(crate) offline_us: Option<i64>,
    pub(crate) closed_us: Option<i64>,
    pub(crate) delivered: Option<i64>,
    pub(crate) saved: Option<i64>,
    pub(crate) lost: Option<i64>,
}

impl Home {
    pub(crate) fn new() -> Home {
        Home(Arc::new(tempfile::Builder::new().prefix("linger-").tempdir().unwrap()))
    }

    /// The directory around the data directory.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The data directory. It does not exist before the first start.
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The data directory as an argument.
    pub(crate) fn data_arg(&self) -> String {
        self.data().to_str().unwrap().to_owned()
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.data().join("control.sock")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data().join("linger.db")
    }

    /// The database, read-only.
    pub(crate) fn db(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(self.database(), flags).unwrap();
        db.busy_timeout(DEADLINE).unwrap();
        db
    }

    /// The database as another process with business of its own opens it.
    pub(crate) fn db_to_write(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(self.database(), flags).unwrap();
        db.busy_timeout(DEADLINE).unwrap();
        db
    }

    /// The column `state` of a user.
    pub(crate) fn state(&self, user: i64) -> String {
        self.db().query_row("SELECT state FROM user WHERE id = ?1", [user], |row| row.get(0)).unwrap()
    }

    /// How many rows of `user` say `online`.
    pub(crate) fn online(&self) -> i64 {
        self.db().query_row("SELECT count(*) FROM user WHERE state = 'online'", [], |row| row.get(0)).unwrap()
    }

    /// The row with that name, where there is one.
    pub(crate) fn id_of(&self, name: &str) -> Option<i64> {
        let found = self.db().query_row("SELECT id FROM user WHERE name = ?1", [name], |row| row.get(0));
        found.optional().unwrap()
    }

    /// How many rows `user` has.
    pub(crate) fn users(&self) -> i64 {
        self.db().query_row("SELECT count(*) FROM user", [], |row| row.get(0)).unwrap()
    }

    /// True when the column `password` of a user is NULL.
    pub(crate) fn is_guest(&self, user: i64) -> bool {
        self.db()
            .query_row("SELECT password IS NULL FROM user WHERE id = ?1", [user], |row| row.get(0))
            .unwrap()
    }

    /// The column `password` of a user.
    pub(crate) fn hash(&self, user: i64) -> String {
        self.db().query_row("SELECT password FROM user WHERE id = ?1", [user], |row| row.get(0)).unwrap()
    }

    /// A user's departures, oldest first.
    pub(crate) fn departures(&self, user: i64) -> Vec<Departure> {
        let db = self.db();
        let mut query = db
            .prepare(
                "SELECT at, channel, user, name, peer, reason, initiator, errno,
                        offline_us, closed_us, delivered, saved, lost
                 FROM departure WHERE user = ?1 ORDER BY rowid",
            )
            .unwrap();
        let rows = query
            .query_map([user], |row| {
                Ok(Departure {
                    at: row.get(0)?,
                    channel: row.get(1)?,
                    user: row.get(2)?,
                    name: row.get(3)?,
                    peer: row.get(4)?,
                    reason: row.get(5)?,
                    initiator: row.get(6)?,
                    errno: row.get(7)?,
                    offline_us: row.get(8)?,
                    closed_us: row.get(9)?,
                    delivered: row.get(10)?,
                    saved: row.get(11)?,
                    lost: row.get(12)?,
                })
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// The reasons of a user's departures, oldest first.
    pub(crate) fn reasons(&self, user: i64) -> Vec<String> {
        self.departures(user).into_iter().map(|departure| departure.reason).collect()
    }

    /// Every file below the home with its bytes, for "nothing changed".
    pub(crate) fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut ahead = vec![self.path().to_owned()];
        while let Some(path) = ahead.pop() {
            let kind = fs::symlink_metadata(&path).unwrap();
            if kind.is_dir() {
                ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                found.push((path, Vec::new()));
            } else if kind.is_file() {
                let bytes = fs::read(&path).unwrap();
                found.push((path, bytes));
            } else {
                found.push((path, Vec::new()));
            }
        }
        found.sort();
        found
    }
}
