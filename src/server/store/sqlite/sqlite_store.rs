//! Main's connection: the one that writes. Owned by main; it never checkpoints while the server runs.
//!
//! A write outside a transaction, or in one that has failed, is refused: SQLite may have rolled back by itself
//! (a full disk), and what followed would be committed one by one.

use std::path::PathBuf;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Params};

use super::dedup_log::UnwrittenRecords;
use super::error::storage_error;
use super::offline_box::OfflineBoxes;
use super::opened_files::OpenedFiles;
use super::sql;
use super::sql::Sql;
use super::statements::{Prepared, Statements};
use super::user_reader::find_user;
use crate::clock::TimeMark;
use crate::ids::UserId;
use crate::store::{Lookup, StorageError, Stored, Transactions, UserRow};
use crate::sync::Arc;

/// Most departures, or tokens, that one call to expire them removes, and most boxes that one call to expire messages looks at,
/// so that a turn of main's stays short.
pub const EXPIRE_BATCH: u64 = 1_000;

/// The store on SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    pub(super) prepared: Prepared,
    path: PathBuf,
    transaction: Transaction,
    pub(super) boxes: OfflineBoxes,
    records: UnwrittenRecords,
    /// The highest number that a departure was given since the start.
    pub(super) last_departure: i64,
    /// Behind the connection, so that it is dropped later.
    files: Arc<OpenedFiles>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transaction {
    /// True exactly when there is none: before `begin`, after `commit` or `rollback`.
    None,
    /// True exactly when all since `begin` has succeeded.
    Open,
    /// True exactly when something since `begin` has failed and `rollback` is due.
    Void,
}

impl SqliteStore {
    /// Prepares every statement once.
    pub(super) fn new(conn: Connection, path: PathBuf, files: OpenedFiles) -> rusqlite::Result<SqliteStore> {
        // Hands a list of rows to one statement.
        rusqlite::vtab::array::load_module(&conn)?;
        let prepared = Prepared::of(conn)?;
        let (boxes, records) = (OfflineBoxes::new(), UnwrittenRecords::default());
        let transaction = Transaction::None;
        let files = Arc::new(files);
        Ok(SqliteStore { prepared, path, transaction, boxes, records, last_departure: 0, files })
    }

    /// Says whether the files are still those that were opened. Once they are not, no transaction begins or is committed.
    pub fn opened_files(&self) -> Arc<OpenedFiles> {
        Arc::clone(&self.files)
    }

    fn expect_in_place(&self, doing: &str) -> Stored<()> {
        if !self.files.is_lost() {
            return Ok(());
        }
        let text = format!("{doing} refused: {} is not the file that was opened", self.path.display());
        Err(StorageError { text, refused: false })
    }

    /// Closes the store: an open transaction is undone, and the log moves into the database file, as far as
    /// nobody else reads. Without this call the next start finds the log, and nothing is lost.
    ///
    /// # Errors
    /// When the log could not be moved.
    pub fn close(mut self) -> Stored<()> {
        self.rollback();
        if let Some(found) = self.files.look() {
            tracing::error!("{found} before the server stopped; its last states are not stored there");
        }
        if self.files.is_lost() {
            // What has these names is not ours to tidy.
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            let kept = self.conn().set_db_config(keep, true).map(drop);
            return kept.map_err(|error| storage_error("leaving the files alone", &self.path, &error));
        }
        self.conn()
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
            .map_err(|error| storage_error("the last checkpoint", &self.path, &error))
    }

    pub(super) fn conn(&self) -> &Connection {
        self.prepared.borrow_owner()
    }

    /// Runs a read, or the inside of a write. A failure voids the transaction, if there is one.
    pub(super) fn run<T>(
        &mut self,
        doing: &'static str,
        operation: impl FnOnce(&Statements<'_>) -> rusqlite::Result<T>,
    ) -> Stored<T> {
        let result = self.prepared.with(operation);
        self.note(doing, result)
    }

    /// The same for what concerns the boxes.
    pub(super) fn in_boxes<T>(
        &mut self,
        doing: &'static str,
        operation: impl FnOnce(&mut OfflineBoxes, &Statements<'_>) -> rusqlite::Result<T>,
    ) -> Stored<T> {
        let result = self.prepared.with(|all| operation(&mut self.boxes, all));
        self.note(doing, result)
    }

    /// Writes records of accepted chats.
    pub(super) fn write_records(
        &mut self,
        doing: &'static str,
        operation: impl FnOnce(&mut UnwrittenRecords, &Statements<'_>) -> rusqlite::Result<()>,
    ) -> Stored<()> {
        self.expect_open(doing)?;
        let result = self.prepared.with(|all| operation(&mut self.records, all));
        self.note(doing, result)
    }

    /// A failure voids the transaction, if there is one.
    fn note<T>(&mut self, doing: &'static str, result: rusqlite::Result<T>) -> Stored<T> {
        result.map_err(|error| {
            if self.transaction == Transaction::Open {
                self.transaction = Transaction::Void;
            }
            // SQLite may have undone the transaction by itself.
            self.boxes.forget();
            storage_error(doing, &self.path, &error)
        })
    }

    /// Runs one statement that writes; answers how many rows it changed.
    pub(super) fn write(
        &mut self,
        doing: &'static str,
        statement: Sql,
        params: impl Params,
    ) -> Stored<usize> {
        self.expect_open(doing)?;
        self.run(doing, |all| all.get(statement).execute(params))
    }

    /// Reads all rows of one statement.
    pub(super) fn read_all<T>(
        &mut self,
        doing: &'static str,
        statement: Sql,
        params: impl Params,
        read: fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Stored<Vec<T>> {
        self.run(doing, |all| all.get(statement).query_map(params, read)?.collect())
    }

    pub(super) fn expect_open(&self, doing: &'static str) -> Stored<()> {
        let state = match self.transaction {
            Transaction::Open => return Ok(()),
            Transaction::None => "no transaction is open",
            Transaction::Void => "its transaction has failed before",
        };
        let text = format!("{doing} refused in {}: {state}", self.path.display());
        Err(StorageError { text, refused: false })
    }
}

impl Lookup for SqliteStore {
    fn user(&mut self, id: UserId) -> Stored<Option<UserRow>> {
        self.run("finding a user by number", |all| find_user(&mut all.get(sql::USER_BY_ID), id.0))
    }

    fn user_named(&mut self, name: &str) -> Stored<Option<UserRow>> {
        self.run("finding a user by name", |all| find_user(&mut all.get(sql::USER_BY_NAME), name))
    }
}

impl Transactions for SqliteStore {
    fn begin(&mut self) -> Stored<()> {
        if self.transaction != Transaction::None {
            let text = format!(
                "beginning a transaction refused in {}: the last one is not over",
                self.path.display()
            );
            return Err(StorageError { text, refused: false });
        }
        self.expect_in_place("beginning a transaction")?;
        // IMMEDIATE waits for another writer here, where nothing is lost yet, and never in the middle.
        self.run("beginning a transaction", |all| all.get(sql::BEGIN).execute(()))?;
        self.transaction = Transaction::Open;
        Ok(())
    }

    fn commit(&mut self) -> Stored<()> {
        self.expect_open("committing")?;
        self.write_records("noting accepted chats", UnwrittenRecords::write)?;
        self.expect_in_place("committing")?;
        self.run("committing", |all| all.get(sql::COMMIT).execute(()))?;
        self.transaction = Transaction::None;
        self.boxes.committed();
        Ok(())
    }

    fn rollback(&mut self) {
        self.transaction = Transaction::None;
        self.boxes.forget();
        self.records.forget();
        // SQLite may have ended it already.
        if self.conn().is_autocommit() {
            return;
        }
        let undone = self.prepared.with(|all| all.get(sql::ROLLBACK).execute(()));
        if let Err(error) = undone {
            tracing::error!(error = %storage_error("rolling back", &self.path, &error), "store");
        }
    }

    fn mark_time(&mut self, mark: TimeMark) -> Stored<()> {
        self.write("noting the time", sql::MARK_TIME, (mark.trusted_ms, mark.wall_ms)).map(drop)
    }
}

/// A number of rows, as SQLite takes it.
pub(super) fn at_most(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
