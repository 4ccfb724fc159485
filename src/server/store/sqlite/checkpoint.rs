//! Checkpoints, on their own thread and connection: what main's commits append to the log (`linger.db-wal`) is
//! copied into the database file, outside main's turn.
//!
//! Passive checkpoints wait for nobody and hold nobody up. When the log is wholly copied and no reader is in it,
//! SQLite by itself starts it again from the front at the next write, so it is never truncated here. A busy writer
//! leaves no such moment. Past [`LOG_SOFT_BOUND_BYTES`] a checkpoint therefore takes the write lock between two
//! transactions, when little is left to copy, and tries again as long as it does not get it: at once at first, then
//! more and more seldom, for a reader that holds a transaction open can make it fail for as long as it likes.
//!
//! Such a reader keeps the log growing. The log's size is a metric, and from [`LOG_WARN_BYTES`] on the server says so.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::Connection;

use super::connect::{BUSY_TIMEOUT, OpenError, open_checkpointer};
use super::error::explain;
use super::opened_files::OpenedFiles;
use crate::metrics::Metrics;
use crate::sync::Arc;

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

/// The longest pause between two such checkpoints that fail; the first is [`RESTART_WAIT`], and each is twice the one
/// before.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The log's size, in bytes (256 MiB), from which on the server warns of it: then, and whenever it has doubled.
const LOG_WARN_BYTES: u64 = 256 * 1024 * 1024;

const _: () = assert!(ENOUGH_PAGES < TOO_MANY_PAGES);
const _: () = assert!(RESTART_WAIT.as_millis() < LOOK_EVERY.as_millis());
const _: () = assert!(RESTART_WAIT.as_millis() < BUSY_TIMEOUT.as_millis());

/// The checkpoint thread. Dropping it stops it too.
#[derive(Debug)]
pub struct Checkpointer {
    /// Each message means "look now", and dropping it means "stop". None once stopped.
    nudges: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread for the database of a data directory, which must have been opened by a store.
    ///
    /// # Errors
    /// [`OpenError`], when there is no database of ours, or no thread.
    pub fn start(
        data_dir: &Path,
        files: Arc<OpenedFiles>,
        metrics: Arc<Metrics>,
    ) -> Result<Checkpointer, OpenError> {
        Checkpointer::warning_from(LOG_WARN_BYTES, data_dir, files, metrics)
    }

    fn warning_from(
        warn_bytes: u64,
        data_dir: &Path,
        files: Arc<OpenedFiles>,
        metrics: Arc<Metrics>,
    ) -> Result<Checkpointer, OpenError> {
        let (conn, path) = open_checkpointer(data_dir)?;
        // One pending "look now" says all that more could.
        let (nudges, told) = bounded(1);
        let looker = Looker {
            conn,
            path: path.clone(),
            told,
            files,
            metrics,
            growth: Growth::warning_from(warn_bytes),
            waiting_since: None,
            restart_at: None,
            restart_pause: RESTART_WAIT,
            failing: false,
        };
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
            // Where the channel is full, a look is due anyway; where it is closed, the thread has ended.
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

/// When the log's size is worth a line.
#[derive(Debug)]
struct Growth {
    warn_bytes: u64,
    /// The size at which the next warning is due.
    next_bytes: u64,
}

/// What there is to say of the log's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Growing {
    TooLong,
    SmallAgain,
}

impl Growth {
    fn warning_from(warn_bytes: u64) -> Growth {
        Growth { warn_bytes, next_bytes: warn_bytes }
    }

    /// What there is to say, now that the log has that size.
    fn look(&mut self, bytes: u64) -> Option<Growing> {
        if bytes >= self.next_bytes {
            while self.next_bytes <= bytes {
                self.next_bytes = self.next_bytes.saturating_mul(2).max(self.next_bytes + 1);
            }
            return Some(Growing::TooLong);
        }
        if bytes < self.warn_bytes && self.next_bytes > self.warn_bytes {
            self.next_bytes = self.warn_bytes;
            return Some(Growing::SmallAgain);
        }
        None
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
    files: Arc<OpenedFiles>,
    metrics: Arc<Metrics>,
    growth: Growth,
    /// Since when there has been something to copy.
    waiting_since: Option<Instant>,
    /// When the log is to start again, if the last look left one that should have.
    restart_at: Option<Instant>,
    /// The pause after the next look that leaves such a log.
    restart_pause: Duration,
    /// True exactly when the last look failed; one that keeps failing is logged once.
    failing: bool,
}

impl Looker {
    fn run(mut self) {
        loop {
            let restart = self.restart_at.filter(|_| !self.failing);
            let pause =
                restart.map_or(LOOK_EVERY, |at| at.saturating_duration_since(Instant::now()).min(LOOK_EVERY));
            if self.told.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            self.measure();
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

    /// Takes down how long the log's file is, and says so when it is too long.
    fn measure(&mut self) {
        let mut name = self.path.as_os_str().to_owned();
        name.push("-wal");
        // A log that is not there is found out elsewhere.
        let bytes = std::fs::metadata(Path::new(&name)).map_or(0, |metadata| metadata.len());
        self.metrics.wal_bytes.set(bytes);
        let path = self.path.display();
        match self.growth.look(bytes) {
            None => {}
            Some(Growing::TooLong) => tracing::warn!(
                %path, bytes,
                "the database's log grows: another process may hold a read transaction open; the log is cut when that ends"
            ),
            Some(Growing::SmallAgain) => tracing::info!(%path, bytes, "the database's log is small again"),
        }
    }

    fn look(&mut self) -> rusqlite::Result<()> {
        // What is at that path is not ours to write to.
        if self.files.is_lost() || self.files.differs().is_some() {
            return Ok(());
        }
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
            if self.restart_at.is_some_and(|at| Instant::now() < at) {
                return Ok(());
            }
            self.conn.busy_timeout(RESTART_WAIT)?;
            let restarted = self.checkpoint("RESTART");
            self.conn.busy_timeout(BUSY_TIMEOUT)?;
            log = restarted?;
            self.restart_at = Some(Instant::now() + self.restart_pause);
            self.restart_pause = RESTART_PAUSE_MAX.min(self.restart_pause * 2);
        }
        if log.uncopied() == 0 {
            (self.waiting_since, self.restart_at, self.restart_pause) = (None, None, RESTART_WAIT);
        }
        Ok(())
    }

    fn checkpoint(&self, mode: &str) -> rusqlite::Result<Log> {
        checkpoint(&self.conn, mode)
    }
}

/// Runs a checkpoint; `NOOP` only tells how far the log has come. One that had to leave a rest is no error.
fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<Log> {
    // Both counts are -1 when another process's checkpoint was in the way.
    let statement = format!("PRAGMA wal_checkpoint({mode})");
    conn.prepare_cached(&statement)?.query_row((), |row| Ok(Log { pages: row.get(1)?, copied: row.get(2)? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Mid, UserId};
    use crate::store::sqlite::{DATABASE_FILE, Durability, SqliteStore};
    use crate::store::{OfflineBox, Transactions};

    const DEADLINE: Duration = Duration::from_secs(20);

    fn log_bytes(dir: &Path) -> i64 {
        let log = dir.join(format!("{DATABASE_FILE}-wal"));
        std::fs::metadata(log).map_or(0, |metadata| metadata.len() as i64)
    }

    fn log(dir: &Path) -> Log {
        let (conn, _) = open_checkpointer(dir).unwrap();
        checkpoint(&conn, "NOOP").unwrap()
    }

    fn start(dir: &Path, store: &SqliteStore) -> Checkpointer {
        Checkpointer::start(dir, store.opened_files(), Arc::default()).unwrap()
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

        let checkpointer = start(dir.path(), &store);
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
        let checkpointer = start(dir.path(), &store);
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
    fn the_logs_size_is_worth_a_line_when_it_has_doubled_and_when_it_is_small_again() {
        let mut growth = Growth::warning_from(256);
        let said =
            [0, 255, 256, 511, 512, 4_000, 4_095, 4_096, 256, 255, 255, 300].map(|bytes| growth.look(bytes));
        let (long, small) = (Some(Growing::TooLong), Some(Growing::SmallAgain));
        assert_eq!(said, [None, None, long, None, long, long, None, long, None, small, None, long]);
    }

    #[test]
    fn a_reader_that_does_not_end_makes_the_log_grow_which_is_measured_and_the_log_is_cut_when_it_has_ended()
    {
        const WARN_BYTES: u64 = LOG_SOFT_BOUND_BYTES as u64 + 1;
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path(), Durability::Normal, 0).unwrap().store;
        let reader = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM user").unwrap();
        let metrics = Arc::<Metrics>::default();
        let checkpointer =
            Checkpointer::warning_from(WARN_BYTES, dir.path(), store.opened_files(), Arc::clone(&metrics))
                .unwrap();
        write_pages(&mut store, 1, TOO_MANY_PAGES + 100);
        wait_until("the metric", || metrics.wal_bytes.value() >= WARN_BYTES);
        let begun = Instant::now();
        write_pages(&mut store, 100_000, 1);
        assert!(begun.elapsed() < DEADLINE, "the writer goes on");
        reader.execute_batch("COMMIT").unwrap();
        let mut mid = 200_000;
        wait_until("a short log", || {
            mid += 1;
            write_pages(&mut store, mid, 1);
            checkpointer.nudge();
            metrics.wal_bytes.value() <= LOG_SOFT_BOUND_BYTES as u64
        });
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
