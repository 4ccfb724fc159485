//! Main's connection, with every statement prepared from the start.
//!
//! Looking one up in the connection's own cache, and putting it back, would cost a sixth of running it. Owned by main.

#![expect(clippy::mem_forget, reason = "in the code of self_cell, which frees by itself what it forgets")]

use std::cell::{RefCell, RefMut};

use rusqlite::{Connection, PrepFlags, Result, Statement};

use super::sql::{self, Sql};

self_cell::self_cell!(
    /// A connection and its statements, which are finalized before it is closed.
    pub(super) struct Prepared {
        owner: Connection,
        #[not_covariant]
        dependent: Statements,
    }

    impl {Debug}
);

/// Every statement of a connection.
#[derive(Debug)]
pub(super) struct Statements<'c> {
    conn: &'c Connection,
    /// By place. Each is used by one at a time.
    all: Vec<RefCell<Statement<'c>>>,
}

impl<'c> Statements<'c> {
    /// Prepares them.
    pub(super) fn prepare(conn: &'c Connection) -> Result<Statements<'c>> {
        // They stay: else SQLite takes their memory from the little that is quick to have, and running them is slower.
        let prepare = |sql: &Sql| conn.prepare_with_flags(sql.text, PrepFlags::SQLITE_PREPARE_PERSISTENT);
        let all = sql::ALL.iter().map(|sql| prepare(sql).map(RefCell::new)).collect::<Result<_>>()?;
        Ok(Statements { conn, all })
    }

    /// One of them, as long as what it reads is used.
    pub(super) fn get(&self, sql: Sql) -> RefMut<'_, Statement<'c>> {
        self.all[sql.place].borrow_mut()
    }

    /// The connection itself.
    pub(super) fn conn(&self) -> &'c Connection {
        self.conn
    }
}

impl Prepared {
    /// Prepares a connection's statements. It must have the module for lists of rows.
    ///
    /// # Errors
    /// When a table is not as a statement expects it.
    pub(super) fn of(conn: Connection) -> Result<Prepared> {
        Prepared::try_new(conn, |conn| Statements::prepare(conn))
    }

    /// Does something with the statements.
    pub(super) fn with<R>(&self, act: impl FnOnce(&Statements<'_>) -> R) -> R {
        self.with_dependent(|_, statements| act(statements))
    }
}
