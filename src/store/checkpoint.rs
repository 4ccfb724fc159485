//! Checkpoints, on their own thread and connection: what main's commits append to the log (`linger.db-wal`) is
//! copied into the database file, outside main's turn.
//!
//! Passive checkpoints wait for nobody and hold nobody up. When the log is wholly copied and no reader is in it,
//! SQLite by itself starts it again from the front at the next write, so it is never truncated here. A busy writer
//! leaves no such moment. Past [`LOG_SOFT_BOUND_BYTES`] a checkpoint therefore takes the write lock between two
//! transactions, when little is left to copy, and tries again as long as it does not get it.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::Connection;

use super::fault::explain;
use super::open::{BUSY_TIMEOUT, OpenError, open_checkpointer};

/// How often the log is looked at, unless told.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Pages in the log, not yet copied, from which on a checkpoint is worth it.
const ENOUGH_PAGES: i64 = 1_000;

/// The age from which on even a single page is copied. It bounds what durability `normal` can lose.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// The size of a page, in bytes; SQLite's default, which the schema keeps.
const PAGE_BYTES: i64 = 4_096;

/// Pages in the log, copied or not, from which on the checkpointer insists that it starts again.
const TOO_MANY_PAGES: i64 = 16_384;

/// The log's size, in bytes, at which it is made to start again, and to which a longer one is cut then. A reader
/// that does not end can still keep it growing.
pub(super) const LOG_SOFT_BOUND_BYTES: i64 = TOO_MANY_PAGES * PAGE_BYTES;

/// How long such a checkpoint waits for the writer, and then for readers while it holds the writer up.
const RESTART_WAIT: Duration = Duration::from_millis(20);

const _: () = assert!(ENOUGH_PAGES < TOO_MANY_PAGES);
const _: () = assert!(RESTART_WAIT.as_millis() < LOOK_EVERY.as_millis());
const _: () = assert!(RESTART_WAIT.as_millis() < BUSY_TIMEOUT.as_millis());

/// The checkpoint thread. Dropping it stops it too.
#[derive(Debug)]
pub struct Checkpointer {
    /// Each message is "look now"; its end is "stop". None once stopped.
    nudges: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread for the database of a data directory, which must have been opened by a store.
    ///
    /// # Errors
    /// [`OpenError`], when there is no database of ours, or no thread.
    pub fn start(data_dir: &Path) -> Result<Checkpointer, OpenError> {
        let (conn, path) = open_checkpointer(data_dir)?;
        // One pending "look now" says all that more could.
        let (nudges, told) = bounded(1);
        let looker =
            Looker { conn, path: path.clone(), told, waiting_since: None, too_long: false, failing: false };
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(|| looker.run())
            .map_err(|error| OpenError::Failed {
                doing: "starting the checkpoint thread for",
                path,
                cause: error.to_string(),
            })?;
        Ok(Checkpointer { nudges: Some(nudges), thread: Some(thread) })
    }

    /// Asks for a look at the log now. Does not wait for it.
    pub fn nudge(&self) {
        if let Some(nudges) = &self.nudges {
            // Full: a look is due anyway. Gone: so is the thread.
            let _ = nudges.try_send(());
        }
    }

    /// Stops the thread and waits for it, a checkpoint under way included.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.nudges = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread had panicked");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// How far the log has come, in pages.
#[derive(Clone, Copy, Debug)]
struct Log {
    pages: i64,
    copied: i64,
}

impl Log {
    fn uncopied(self) -> i64 {
        self.pages - self.copied
    }
}

struct Looker {
    conn: Connection,
    path: PathBuf,
    told: Receiver<()>,
    /// Since when there has been something to copy.
    waiting_since: Option<Instant>,
    /// True exactly when the last look left a log that should have started again.
    too_long: bool,
    /// True exactly when the last look failed; one that keeps failing is logged once.
    failing: bool,
}

impl Looker {
    fn run(mut self) {
        loop {
            let pause = if self.too_long && !self.failing { RESTART_WAIT } else { LOOK_EVERY };
            if self.told.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            match self.look() {
                Ok(()) if self.failing => {
                    tracing::info!(path = %self.path.display(), "checkpoints work again");
                    self.failing = false;
                }
                Ok(()) => {}
                Err(error) => {
                    if !self.failing {
                        let (path, error) = (self.path.display(), explain(&error));
                        tracing::warn!(%path, error, "a checkpoint failed; the log grows until one works");
                    }
                    self.failing = true;
                }
            }
        }
    }

    fn look(&mut self) -> rusqlite::Result<()> {
        self.too_long = false;
        let mut log = self.checkpoint("NOOP")?;
        if log.uncopied() > 0 {
            let waiting_since = *self.waiting_since.get_or_insert_with(Instant::now);
            if log.uncopied() < ENOUGH_PAGES
                && log.pages < TOO_MANY_PAGES
                && waiting_since.elapsed() < LONG_ENOUGH
            {
                return Ok(());
            }
            self.checkpoint("PASSIVE")?;
            // It tells how long the log was when it began; the writer has gone on since.
            log = self.checkpoint("NOOP")?;
        }
        if log.uncopied() > 0 && log.pages >= TOO_MANY_PAGES {
            self.conn.busy_timeout(RESTART_WAIT)?;
            let restarted = self.checkpoint("RESTART");
            self.conn.busy_timeout(BUSY_TIMEOUT)?;
            log = restarted?;
            self.too_long = log.uncopied() > 0;
        }
        if log.uncopied() == 0 {
            self.waiting_since = None;
        }
        Ok(())
    }

    /// Runs a checkpoint; `NOOP` only tells how far the log has come. One that had to leave a rest is no error.
    fn checkpoint(&self, mode: &str) -> rusqlite::Result<Log> {
        // Both counts are -1 when another process's checkpoint was in the way.
        let statement = format!("PRAGMA wal_checkpoint({mode})");
        self.conn
            .prepare_cached(&statement)?
            .query_row((), |row| Ok(Log { pages: row.get(1)?, copied: row.get(2)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::{Mid, UserId};
    use crate::service::storage::Storage;
    use crate::store::{DATABASE_FILE, Durability, SqliteStore};

    const DEADLINE: Duration = Duration::from_secs(20);

    fn log_bytes(dir: &Path) -> i64 {
        let log = dir.join(format!("{DATABASE_FILE}-wal"));
        std::fs::metadata(log).map_or(0, |metadata| metadata.len() as i64)
    }

    fn log(dir: &Path) -> Log {
        let (conn, path) = open_checkpointer(dir).unwrap();
        let (_, told) = bounded(1);
        Looker { conn, path, told, waiting_since: None, too_long: false, failing: false }
            .checkpoint("NOOP")
            .unwrap()
    }

    fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds() {
            assert!(Instant::now() < deadline, "{what} did not come");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Puts `pages` or so pages into the log, in one transaction.
    fn write_pages(store: &mut SqliteStore, first_mid: i64, pages: i64) {
        store.begin().unwrap();
        for mid in first_mid..first_mid + pages {
            store.keep(UserId(1), Mid(mid), 0, &[b' '; PAGE_BYTES as usize], false).unwrap();
        }
        store.commit().unwrap();
    }

    #[test]
    fn the_log_is_copied_once_it_is_long_enough_and_then_starts_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path(), Durability::Normal, 0).unwrap().store;
        write_pages(&mut store, 1, ENOUGH_PAGES + 100);
        assert_eq!(log(dir.path()).copied, 0, "nobody but the checkpointer may copy");
        let longest = log(dir.path()).pages;

        let checkpointer = Checkpointer::start(dir.path()).unwrap();
        checkpointer.nudge();
        wait_until("a checkpoint", || log(dir.path()).uncopied() == 0);
        write_pages(&mut store, 100_000, 1);
        assert!(log(dir.path()).pages < longest, "the log goes on instead of starting again");
        checkpointer.stop();
    }

    #[test]
    fn a_log_that_is_too_long_starts_again_although_the_writer_is_never_idle_for_long() {
        const GAP: Duration = Duration::from_millis(2);
        // Bounds what a failing test writes: 200 MB or so.
        const ROUNDS: i64 = 300;
        const ROUND_PAGES: i64 = 100;
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path(), Durability::Normal, 0).unwrap().store;
        write_pages(&mut store, 1, TOO_MANY_PAGES + 1);
        let checkpointer = Checkpointer::start(dir.path()).unwrap();
        checkpointer.nudge();
        let restarted = (1..=ROUNDS).any(|round| {
            write_pages(&mut store, TOO_MANY_PAGES + round * ROUND_PAGES, ROUND_PAGES);
            std::thread::sleep(GAP);
            log(dir.path()).pages < TOO_MANY_PAGES
        });
        assert!(restarted, "the log only grows");
        assert!(log_bytes(dir.path()) <= LOG_SOFT_BOUND_BYTES, "the log's file keeps its length");
        checkpointer.stop();
    }

    #[test]
    fn an_orderly_close_leaves_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path(), Durability::Full, 0).unwrap().store;
        write_pages(&mut store, 1, 10);
        assert!(log_bytes(dir.path()) > 0);
        store.close().unwrap();
        assert_eq!(log_bytes(dir.path()), 0);
    }
}
