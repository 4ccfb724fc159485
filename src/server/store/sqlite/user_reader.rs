//! Reading users: the auth threads' connection, one each, which cannot write and never holds up the writer.
//!
//! Each look is a read transaction of its own and ends at once, so that no checkpoint waits for it.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Statement, ToSql};

use super::connect::{OpenError, failure, open_reader};
use super::error::storage_error;
use super::sql::Sql;
use super::{row, sql};
use crate::ids::UserId;
use crate::store::{Lookup, Stored, UserRow};

/// A connection that reads users.
#[derive(Debug)]
pub struct SqliteLookup {
    conn: Connection,
    path: PathBuf,
}

impl SqliteLookup {
    /// Opens the database of a data directory, which must be there.
    ///
    /// # Errors
    /// [`OpenError`], when there is none, or none of ours.
    pub fn open(data_dir: &Path) -> Result<SqliteLookup, OpenError> {
        let (conn, path) = open_reader(data_dir)?;
        for statement in [sql::USER_BY_ID, sql::USER_BY_NAME] {
            conn.prepare_cached(statement.text).map_err(|error| failure("reading", &path, &error))?;
        }
        Ok(SqliteLookup { conn, path })
    }

    fn find(&self, statement: Sql, key: impl ToSql) -> rusqlite::Result<Option<UserRow>> {
        find_user(&mut *self.conn.prepare_cached(statement.text)?, key)
    }
}

impl Lookup for SqliteLookup {
    fn user(&mut self, id: UserId) -> Stored<Option<UserRow>> {
        self.find(sql::USER_BY_ID, id.0)
            .map_err(|error| storage_error("finding a user by number", &self.path, &error))
    }

    fn user_named(&mut self, name: &str) -> Stored<Option<UserRow>> {
        self.find(sql::USER_BY_NAME, name)
            .map_err(|error| storage_error("finding a user by name", &self.path, &error))
    }
}

/// Counts the users who are online in the database of a data directory, for whoever watches a server from outside.
///
/// # Errors
/// [`OpenError`], when there is no database, none of ours, or it cannot be read.
pub fn online_users(data_dir: &Path) -> Result<u64, OpenError> {
    let (conn, path) = open_reader(data_dir)?;
    conn.query_row("SELECT count(*) FROM user WHERE state = 'online'", (), |row| row.get::<_, i64>(0))
        .map(|count| count as u64)
        .map_err(|error| failure("counting users in", &path, &error))
}

/// The user whom a statement of [`sql`] finds by its one parameter.
pub(super) fn find_user(statement: &mut Statement<'_>, key: impl ToSql) -> rusqlite::Result<Option<UserRow>> {
    statement.query_row((key,), row::user).optional()
}
