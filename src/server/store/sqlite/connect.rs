//! Connections to the database: how each is set up, and why one could not be opened.

use super::error::explain;
use super::schema::{APPLICATION_ID, SCHEMA_VERSION};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database's name in the data directory.
pub const DATABASE_FILE: &str = "linger.db";

/// How long an operation waits for another process that writes.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often main asks for the write lock meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(1);

/// Pages that main's connection keeps in memory, in KiB. With 64 times as many, 10,000 users who come and go cost as much,
/// for the system keeps the pages too; and an idle client takes a fifth more.
const PAGE_CACHE_KIB: i64 = 256;

/// The same while a flood of messages waits to move on, for each of their pages is read again.
const FLOOD_CACHE_KIB: i64 = 16 * 1024;

/// The same for a connection that only reads, of which each auth thread has one. Whatever main commits voids it.
const READER_CACHE_KIB: i64 = 128;

/// Why a database could not be opened. Nothing in the file has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else's file.
    #[error(
        "{} is not a database of Linger ({found}); move it away or choose another data directory",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// Written by a newer Linger.
    #[error(
        "{} is from a newer Linger (schema {found}, this one knows {SCHEMA_VERSION}); start that one, or choose \
         another data directory",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i32,
    },
    /// A reader found nothing to read.
    #[error("there is no database {}; start the server there first", path.display())]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// The file system or SQLite refused. A step of the schema that had begun is undone.
    #[error("{doing} {} failed: {cause}", path.display())]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What came back, with a hint.
        cause: String,
    },
}

/// Has main's connection keep as many pages as the work needs.
pub(super) fn fit_cache(conn: &Connection, flood: bool) -> rusqlite::Result<()> {
    let kib = if flood { FLOOD_CACHE_KIB } else { PAGE_CACHE_KIB };
    conn.pragma_update(None, "cache_size", -kib)
}

/// Asks again soon: the checkpointer holds the lock for some milliseconds only, and all of main waits. SQLite's own
/// handler would sleep for longer and longer.
pub(super) fn wait_for_the_lock(asked: i32) -> bool {
    let again = LOCK_POLL * asked.unsigned_abs() < BUSY_TIMEOUT;
    if again {
        std::thread::sleep(LOCK_POLL);
    }
    again
}

/// Opens a connection that cannot write, to a database that is there.
pub(super) fn open_reader(data_dir: &Path) -> Result<(Connection, PathBuf), OpenError> {
    let (conn, path) = open_present(data_dir, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let cache = conn.pragma_update(None, "cache_size", -READER_CACHE_KIB);
    cache.map_err(|error| failure("setting up", &path, &error))?;
    Ok((conn, path))
}

/// Opens a connection for checkpoints to a database that is there.
pub(super) fn open_checkpointer(data_dir: &Path) -> Result<(Connection, PathBuf), OpenError> {
    let (conn, path) = open_present(data_dir, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // A checkpoint syncs the log before it copies, and the file after, only from this level on.
    conn.pragma_update(None, "synchronous", "NORMAL").map_err(|e| failure("setting up", &path, &e))?;
    // The last connection to close would tidy the files, under the names that they had. The store does that, when it knows that
    // the files are still there.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(|e| failure("setting up", &path, &e))?;
    Ok((conn, path))
}

/// An error of SQLite's while opening.
pub(super) fn failure(doing: &'static str, path: &Path, error: &rusqlite::Error) -> OpenError {
    OpenError::Failed { doing, path: path.to_path_buf(), cause: explain(error) }
}

pub(super) fn open_present(data_dir: &Path, flags: OpenFlags) -> Result<(Connection, PathBuf), OpenError> {
    let path = database_path(data_dir)?;
    if !holds_something(&path)? {
        return Err(OpenError::Missing { path });
    }
    let conn = connect(&path, flags)?;
    keep_plans(&conn).map_err(|error| failure("setting up", &path, &error))?;
    match identify(&conn, &path)? {
        Identity::Empty => Err(OpenError::Missing { path }),
        Identity::Ours(_) => Ok((conn, path)),
    }
}

/// Has statements stay prepared. Otherwise SQLite plans some of them anew for each value that they are given, which
/// costs more than running them.
pub(super) fn keep_plans(conn: &Connection) -> rusqlite::Result<bool> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
}

pub(super) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| failure("opening", path, &error))?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(|error| failure("opening", path, &error))?;
    Ok(conn)
}

/// The database's absolute path. SQLite would take a relative one that begins with `file:` for a URI.
pub(super) fn database_path(data_dir: &Path) -> Result<PathBuf, OpenError> {
    let path = data_dir.join(DATABASE_FILE);
    std::path::absolute(&path).map_err(|error| OpenError::Failed {
        doing: "finding",
        path,
        cause: error.to_string(),
    })
}

/// What a file says of itself.
pub(super) enum Identity {
    /// No page yet.
    Empty,
    /// Ours, of that schema version.
    Ours(i32),
}

/// True exactly when there is a file, and it is not empty.
pub(super) fn holds_something(path: &Path) -> Result<bool, OpenError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(!metadata.is_file() || metadata.len() > 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => {
            Err(OpenError::Failed { doing: "opening", path: path.to_path_buf(), cause: error.to_string() })
        }
    }
}

pub(super) fn identify(conn: &Connection, path: &Path) -> Result<Identity, OpenError> {
    let number = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let foreign = |found: String| OpenError::Foreign { path: path.to_path_buf(), found };
    // The header first: counting pages reads the schema, which need not be whole without the log.
    let said = number("application_id").and_then(|application| {
        let pages = if application == APPLICATION_ID { 1 } else { number("page_count")? };
        Ok((pages, application, number("user_version")?))
    });
    match said {
        Ok((0, _, _)) => Ok(Identity::Empty),
        Ok((_, application, _)) if application != APPLICATION_ID => {
            Err(foreign(format!("an SQLite database with application id {application:#010x}")))
        }
        Ok((_, _, version)) if version > SCHEMA_VERSION => {
            Err(OpenError::Newer { path: path.to_path_buf(), found: version })
        }
        Ok((_, _, version)) if version < 1 => Err(foreign(format!("schema version {version}"))),
        Ok((_, _, version)) => Ok(Identity::Ours(version)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(foreign("no SQLite database".to_owned()))
        }
        Err(error) => Err(failure("reading", path, &error)),
    }
}
