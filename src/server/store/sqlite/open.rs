//! Opening `linger.db`: whose file it is, bringing its schema up to date, and what a crash left behind.
//!
//! Runs on the thread that opens. Never writes a byte, nor switches to WAL, before the file is known to be ours.
//! The first look goes through SQLite, not `std::fs`: closing a plain descriptor would drop the POSIX locks that
//! this process may hold on the file.

use super::checkpoint::LOG_SOFT_BOUND_BYTES;
use super::connect::{
    BUSY_TIMEOUT, Identity, OpenError, database_path, failure, fit_cache, holds_something, identify,
    keep_plans, wait_for_the_lock,
};
use super::opened_files::OpenedFiles;
use super::schema::{APPLICATION_ID, BANS, MIGRATIONS, SCHEMA_VERSION};
use super::sqlite_store::SqliteStore;
use super::{private, row, sql};
use crate::channel::Reason;
use crate::clock::{Now, TimeMark, TrustedClock};
use crate::store::{Ban, DEDUP_WINDOW_US, DedupRecord, TOKEN_LIFE_MS};
use rusqlite::OptionalExtension;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fmt::Write as _;
use std::path::Path;

/// When a commit is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// At once: every commit is synced.
    #[default]
    Full,
    /// At the next checkpoint. A power cut may undo the latest commits, a crash of the server does not.
    Normal,
}

/// An opened store.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: SqliteStore,
    /// The time by which ages are judged.
    pub trusted: TrustedClock,
    /// Users whom the last run left online; they are offline now.
    pub recovered: u64,
    /// Bans that are not over.
    pub bans: Vec<Ban>,
    /// Chats with `seq` that were accepted in the last minutes, oldest first, each with its age in milliseconds.
    pub accepted: Vec<(DedupRecord, u64)>,
    /// Those that had reached some of their receivers and were not accepted, in the same way.
    pub unfinished: Vec<(DedupRecord, u64)>,
}

impl Durability {
    /// The value of `PRAGMA synchronous`.
    const fn synchronous(self) -> &'static str {
        match self {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        }
    }
}

impl SqliteStore {
    /// Opens the database of a data directory, creates it where the file is missing or empty, brings its schema up
    /// to date, and sets everybody offline whom the last run left online: at `wall_ms`, which is what the wall clock says at
    /// the start, with reason `server_crash`.
    ///
    /// The directory must exist, and no other server may use it.
    ///
    /// # Errors
    /// [`OpenError`]. A file that is not ours, or too new, is left as it was, to the byte.
    pub fn open(data_dir: &Path, durability: Durability, wall_ms: i64) -> Result<Opened, OpenError> {
        open_store(data_dir, durability, wall_ms)
    }
}

/// Opens main's connection, creating the database where there is none.
pub(super) fn open_store(data_dir: &Path, durability: Durability, wall_ms: i64) -> Result<Opened, OpenError> {
    let path = database_path(data_dir)?;
    let failed = |doing| {
        let path = &path;
        move |error: rusqlite::Error| failure(doing, path, &error)
    };

    look_without_touching(&path)?;
    private::create(&path)?;
    private::narrow(&path);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(&path, flags).map_err(failed("opening"))?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(failed("opening"))?;
    // The log may hold a newer header than the file did. Until that is known, closing must not apply the log.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed("opening"))?;
    let version = match identify(&conn, &path)? {
        Identity::Empty => 0,
        Identity::Ours(version) => version,
    };
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed("opening"))?;

    conn.pragma_update(None, "foreign_keys", false).map_err(failed("setting up"))?;
    conn.pragma_update(None, "synchronous", "FULL").map_err(failed("setting up"))?;
    // Before WAL, so that a new file carries its identity in its own header from the first commit.
    migrate(&mut conn, version).map_err(failed("bringing the schema up to date in"))?;
    switch_to_wal(&conn, &path)?;
    conn.pragma_update(None, "synchronous", durability.synchronous()).map_err(failed("setting up"))?;
    conn.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed("setting up"))?;
    conn.pragma_update(None, "journal_size_limit", LOG_SOFT_BOUND_BYTES).map_err(failed("setting up"))?;
    fit_cache(&conn, false).map_err(failed("setting up"))?;
    // A batch that changes more pages than that keeps them until it is committed: written early, they would be written twice.
    conn.pragma_update(None, "cache_spill", false).map_err(failed("setting up"))?;
    // What a statement that changes many rows keeps for undoing it is small, and no file beside the database.
    conn.pragma_update(None, "temp_store", "MEMORY").map_err(failed("setting up"))?;
    keep_plans(&conn).map_err(failed("setting up"))?;
    let mark = last_mark(&conn).map_err(failed("reading the time in"))?;
    let trusted = TrustedClock::start(mark, wall_ms);
    let now = Now { mono_us: 0, unix_ms: wall_ms };
    let recovered = recover(&mut conn, trusted, now).map_err(failed("setting users offline in"))?;
    let now_ms = trusted.now_ms(now);
    conn.busy_handler(Some(wait_for_the_lock)).map_err(failed("setting up"))?;
    let header = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
    header.map_err(failed("the first checkpoint of"))?;
    let files = OpenedFiles::of(&path).map_err(|error| OpenError::Failed {
        doing: "looking again at",
        path: path.clone(),
        cause: error.to_string(),
    })?;
    let mut store = SqliteStore::new(conn, path.clone(), files).map_err(failed("reading the tables of"))?;
    store.fill_skeletons().map_err(|error| OpenError::Failed {
        doing: "comparing the names in",
        path: path.clone(),
        cause: error.text,
    })?;
    store.count_boxes();
    let bans = store.bans(now_ms).map_err(failed("reading the bans of"))?;
    let since_ms = now_ms.saturating_sub((DEDUP_WINDOW_US / 1000) as i64);
    let accepted = store.accepted(since_ms, now_ms).map_err(failed("reading the latest chats of"))?;
    let unfinished = store.unfinished(since_ms, now_ms).map_err(failed("reading the unfinished chats of"))?;
    Ok(Opened { store, trusted, recovered, bans, accepted, unfinished })
}

/// Refuses a file that is not ours or too new, by its header alone: without locks, without looking at a log or
/// journal beside it, and so without the recovery that SQLite would begin there.
fn look_without_touching(path: &Path) -> Result<(), OpenError> {
    if !holds_something(path)? {
        return Ok(());
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(immutable_uri(path), flags)
        .map_err(|error| failure("opening", path, &error))?;
    // A kill in the middle of a checkpoint leaves a header that counts pages which only the log has yet. SQLite calls
    // such a file damaged where it may not look at the log, except in this mode.
    conn.pragma_update(None, "writable_schema", true).map_err(|error| failure("opening", path, &error))?;
    match identify(&conn, path)? {
        Identity::Ours(_) => Ok(()),
        // SQLite takes what is shorter than a page for an empty database, and would overwrite it.
        Identity::Empty => {
            Err(OpenError::Foreign { path: path.to_path_buf(), found: "no SQLite database".to_owned() })
        }
    }
}

/// The URI that has SQLite treat a file as one that nobody changes.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// All steps from `version` on, and what later came to the newest, in one transaction.
fn migrate(conn: &mut Connection, version: i32) -> rusqlite::Result<()> {
    let steps = usize::try_from(version).ok().and_then(|done| MIGRATIONS.get(done..)).unwrap_or_default();
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(BANS)?;
    if steps.is_empty() {
        return transaction.commit();
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

fn switch_to_wal(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let mode: String = conn
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|error| failure("switching to WAL in", path, &error))?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    Err(OpenError::Failed {
        doing: "switching to WAL in",
        path: path.to_path_buf(),
        cause: format!("it stays in mode {mode}; the file system may lack shared memory, use a local one"),
    })
}

/// What the last run has noted of the time. A database that has no such note was written by the wall clock alone: then the
/// newest of its times stands for it.
fn last_mark(conn: &Connection) -> rusqlite::Result<Option<TimeMark>> {
    let mark = |row: &rusqlite::Row<'_>| {
        let (trusted, wall) = (row::optional_integer(row, 0)?, row::optional_integer(row, 1)?);
        Ok(trusted.zip(wall).map(|(trusted_ms, wall_ms)| TimeMark { trusted_ms, wall_ms }))
    };
    let noted = conn.query_row("SELECT trusted, wall FROM clock WHERE id = 1", (), mark).optional()?;
    if let Some(noted) = noted {
        return Ok(noted);
    }
    let newest = "SELECT max(at), max(at) FROM (
        SELECT * FROM (SELECT at FROM departure ORDER BY id DESC LIMIT 1)
        UNION ALL SELECT * FROM (SELECT at FROM acceptance ORDER BY id DESC LIMIT 1)
        UNION ALL SELECT * FROM (SELECT at FROM intake ORDER BY id DESC LIMIT 1))";
    conn.query_row(newest, (), mark)
}

/// Sets everybody offline whom the last run left online, each with a departure and a new epoch, so that nothing
/// the last run left behind can name the row again. Their tokens outlive that as they outlive any end. Answers how
/// many users.
fn recover(conn: &mut Connection, mut trusted: TrustedClock, now: Now) -> rusqlite::Result<u64> {
    let reason = Reason::ServerCrash;
    let mark = trusted.mark(now);
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT INTO departure (at, trusted, user, name, reason, initiator)
            SELECT ?1, ?2, id, name, ?3, ?4 FROM user WHERE state = 'online' ORDER BY id",
        (now.unix_ms, mark.trusted_ms, reason.word(), reason.initiator().word()),
    )?;
    // An epoch that an outsider has set to the largest integer would become a fraction.
    let recovered = transaction.execute(
        "UPDATE user SET state = 'offline', epoch = min(epoch, 9223372036854775806) + 1
            WHERE state = 'online'",
        (),
    )?;
    // Their sessions are over from now on, so they run out from now on.
    transaction.execute(
        "UPDATE token SET expires = ?1 WHERE expires IS NULL",
        (mark.trusted_ms.saturating_add(TOKEN_LIFE_MS),),
    )?;
    // Others may have removed the last copies.
    transaction.execute(
        "DELETE FROM message WHERE receivers = '[]' AND NOT EXISTS (SELECT 1 FROM box WHERE message = message.id)",
        (),
    )?;
    transaction.execute(sql::MARK_TIME.text, (mark.trusted_ms, mark.wall_ms))?;
    // Counts as a change of the header. So a copy from before this start, put over the file, is seen to be one ([`OpenedFiles`]).
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(recovered as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_directory_never_reads_as_a_uri() {
        let path = database_path(Path::new("file:data?mode=memory")).unwrap();
        assert!(path.is_absolute(), "{}", path.display());
        assert_eq!(immutable_uri(Path::new("/a b?/%ü")), "file:///a%20b%3F/%25%C3%BC?immutable=1");
    }
}
