//! Reading departures, for `linger why`, by a connection of the admin socket's that cannot write.
//!
//! There is no index but the number of the row: whatever is asked for, the table is read from its newest row on. The
//! writer keeps it bounded. Reading never holds up the writer, but a checkpoint may have to leave a rest until it is over.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, Rows};

use super::connect::{OpenError, open_reader};
use super::error::storage_error;
use super::row;
use crate::ids::UserId;
use crate::store::{DepartureId, Stored};

/// Which departures.
#[derive(Clone, Copy)]
pub enum Filter<'a> {
    /// All.
    All,
    /// Those of a user.
    User(UserId),
    /// Those of the user who has that name now, under whatever name they were written down.
    Named(&'a str),
    /// Those of a channel, by its name, such as `7.3`.
    Channel(&'a str),
    /// Those whose other end's address, where one is known, this accepts.
    Peer(&'a dyn Fn(&str) -> bool),
}

/// A row of `departure` as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredDeparture {
    /// Its number; rises with every departure.
    pub id: DepartureId,
    /// When it was noticed, in Unix milliseconds.
    pub at_ms: i64,
    /// The channel's name; none after a crash.
    pub channel: Option<String>,
    /// Who left.
    pub user: UserId,
    /// The user's name then.
    pub name: String,
    /// The other end's address; none after a crash.
    pub peer: Option<String>,
    /// Why: the word of a [`crate::channel::Reason`], or one that another version wrote.
    pub reason: String,
    /// Who brought it about, likewise.
    pub initiator: String,
    /// The system's error number, where there was one.
    pub errno: Option<i64>,
    /// From noticed to committed, in microseconds; none until it is known.
    pub offline_us: Option<i64>,
    /// From noticed to the fd closed, in microseconds; none until it is known, or where the channel stayed.
    pub closed_us: Option<i64>,
    /// Messages handed to the kernel during the session; none until the account is settled.
    pub delivered: Option<i64>,
    /// Messages that went back to the box; none until the account is settled.
    pub saved: Option<i64>,
    /// Messages that could not be kept; none until the account is settled.
    pub lost: Option<i64>,
    /// When the session began, in Unix milliseconds; none after a crash.
    pub since_ms: Option<i64>,
}

/// A connection that reads departures.
#[derive(Debug)]
pub struct History {
    conn: Connection,
    path: PathBuf,
}

impl History {
    /// Opens the database of a data directory, which must be there.
    ///
    /// # Errors
    /// [`OpenError`], when there is none, or none of ours.
    pub fn open(data_dir: &Path) -> Result<History, OpenError> {
        let (conn, path) = open_reader(data_dir)?;
        Ok(History { conn, path })
    }

    /// The newest departures that pass the filter, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn departures(&mut self, filter: Filter<'_>, limit: usize) -> Stored<Vec<StoredDeparture>> {
        self.query(filter, limit).map_err(|error| storage_error("reading departures", &self.path, &error))
    }

    fn query(&self, filter: Filter<'_>, limit: usize) -> rusqlite::Result<Vec<StoredDeparture>> {
        match filter {
            Filter::All => collect(self.conn.prepare_cached(ALL)?.query(())?, limit, |_| true),
            Filter::User(user) => {
                collect(self.conn.prepare_cached(BY_USER)?.query((user.0,))?, limit, |_| true)
            }
            Filter::Named(name) => {
                collect(self.conn.prepare_cached(BY_NAME)?.query((name,))?, limit, |_| true)
            }
            Filter::Channel(name) => {
                collect(self.conn.prepare_cached(BY_CHANNEL)?.query((name,))?, limit, |_| true)
            }
            Filter::Peer(accepts) => collect(self.conn.prepare_cached(ALL)?.query(())?, limit, |departure| {
                departure.peer.as_deref().is_some_and(accepts)
            }),
        }
    }
}

macro_rules! newest_first {
    ($condition:literal) => {
        concat!(
            "SELECT id, at, channel, user, name, peer, reason, initiator, errno, offline_us, closed_us, \
             delivered, saved, lost, since FROM departure ",
            $condition,
            " ORDER BY id DESC"
        )
    };
}

const ALL: &str = newest_first!("");
const BY_USER: &str = newest_first!("WHERE user = ?1");
const BY_NAME: &str = newest_first!("WHERE user = (SELECT id FROM user WHERE name = ?1)");
const BY_CHANNEL: &str = newest_first!("WHERE channel = ?1");

fn collect(
    mut rows: Rows<'_>,
    limit: usize,
    wanted: impl Fn(&StoredDeparture) -> bool,
) -> rusqlite::Result<Vec<StoredDeparture>> {
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(row) = rows.next()? else { break };
        let departure = stored(row)?;
        if wanted(&departure) {
            found.push(departure);
        }
    }
    Ok(found)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredDeparture> {
    Ok(StoredDeparture {
        id: DepartureId(row.get(0)?),
        at_ms: row::optional_integer(row, 1)?.unwrap_or(0),
        channel: row::optional_text(row, 2)?,
        user: UserId(row::optional_integer(row, 3)?.unwrap_or(0)),
        name: row::text(row, 4)?,
        peer: row::optional_text(row, 5)?,
        reason: row::text(row, 6)?,
        initiator: row::text(row, 7)?,
        errno: row::optional_integer(row, 8)?,
        offline_us: row::optional_integer(row, 9)?,
        closed_us: row::optional_integer(row, 10)?,
        delivered: row::optional_integer(row, 11)?,
        saved: row::optional_integer(row, 12)?,
        lost: row::optional_integer(row, 13)?,
        since_ms: row::optional_integer(row, 14)?,
    })
}
