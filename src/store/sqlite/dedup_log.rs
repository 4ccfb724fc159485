//! Chats with `seq` that were accepted, many to a row: those of one millisecond, as they came.
//!
//! Owned by main, beside its connection. What waits here is part of the transaction under way, and is written before
//! that is committed.

use rusqlite::Result;

use super::sqlite_store::SqliteStore;
use super::statements::Statements;
use super::{row, sql};
use crate::ids::UserId;
use crate::store::{DedupLog, DedupRecord, Stored};

/// Bytes of a sender.
const SENDER_BYTES: usize = size_of::<i64>();

/// Bytes of one chat: its sender, big-endian, then its fingerprint, little-endian.
const CHAT_BYTES: usize = SENDER_BYTES + size_of::<u128>();

/// Chats of a row. They fill most of a page of 4 KiB, and never need a second.
const ROW_CHATS: usize = 150;

/// The chats that no row holds yet.
#[derive(Default, Debug)]
pub(super) struct UnwrittenRecords {
    /// When they were accepted, in Unix milliseconds.
    at_ms: i64,
    /// As in the row.
    chats: Vec<u8>,
}

impl UnwrittenRecords {
    /// Adds a chat. What it finds may be written first.
    pub(super) fn add(&mut self, all: &Statements<'_>, chat: DedupRecord, at_ms: i64) -> Result<()> {
        if at_ms != self.at_ms || self.chats.len() >= ROW_CHATS * CHAT_BYTES {
            self.write(all)?;
            self.at_ms = at_ms;
        }
        self.chats.extend_from_slice(&chat.sender.0.to_be_bytes());
        self.chats.extend_from_slice(&chat.fingerprint.to_le_bytes());
        Ok(())
    }

    /// Writes what waits.
    pub(super) fn write(&mut self, all: &Statements<'_>) -> Result<()> {
        if !self.chats.is_empty() {
            all.get(sql::ACCEPT).execute((self.at_ms, &*self.chats))?;
            self.chats.clear();
        }
        Ok(())
    }

    /// Forgets what waits: its transaction has been undone.
    pub(super) fn forget(&mut self) {
        self.chats.clear();
    }
}

/// Most rows that one call of [`DedupLog::expire_accepted`] removes. They lie side by side.
pub const EXPIRE_ACCEPTED_BATCH: u64 = 1_000;

impl SqliteStore {
    /// The chats with `seq` that were accepted after `since_ms`, oldest first, each with its age in milliseconds at
    /// `now_ms`. What others have spoilt is left out.
    pub(super) fn accepted(&mut self, since_ms: i64, now_ms: i64) -> Result<Vec<(DedupRecord, u64)>> {
        self.prepared.with(|all| {
            let mut statement = all.get(sql::ACCEPTED);
            let mut rows = statement.query((since_ms,))?;
            let mut accepted = Vec::new();
            while let Some(row) = rows.next()? {
                // Others may have written any time.
                let age_ms = now_ms.saturating_sub(row.get(0)?).max(0) as u64;
                accepted.extend(read(&row::bytes(row, 1)?).map(|chat| (chat, age_ms)));
            }
            Ok(accepted)
        })
    }

    /// The chats with `seq` that had reached some of their receivers after `since_ms` and were not accepted, as
    /// [`SqliteStore::accepted`].
    pub(super) fn unfinished(&mut self, since_ms: i64, now_ms: i64) -> Result<Vec<(DedupRecord, u64)>> {
        self.prepared.with(|all| {
            let mut statement = all.get(sql::UNFINISHED);
            let rows = statement.query_map((since_ms,), |row| {
                let (at_ms, sender, fingerprint): (i64, i64, [u8; 16]) =
                    (row.get(0)?, row.get(1)?, row.get(2)?);
                let chat =
                    DedupRecord { sender: UserId(sender), fingerprint: u128::from_le_bytes(fingerprint) };
                Ok((chat, now_ms.saturating_sub(at_ms).max(0) as u64))
            })?;
            rows.collect()
        })
    }
}

impl DedupLog for SqliteStore {
    fn accept(&mut self, acceptance: DedupRecord, at_ms: i64) -> Stored<()> {
        self.write_records("noting an accepted chat", |records, all| records.add(all, acceptance, at_ms))
    }

    fn expire_accepted(&mut self, before_ms: i64) -> Stored<bool> {
        self.write_records("noting accepted chats", UnwrittenRecords::write)?;
        let columns = (EXPIRE_ACCEPTED_BATCH as i64, before_ms);
        let doing = "expiring accepted chats";
        let notes = self.write(doing, sql::EXPIRE_REACHED, columns)?;
        Ok(self.write(doing, sql::EXPIRE_ACCEPTED, columns)? + notes > 0)
    }

    fn note_reached(&mut self, chat: DedupRecord, at_ms: i64, users: &[UserId]) -> Stored<()> {
        let (sender, fingerprint) = columns(&chat);
        let columns = (at_ms, sender, fingerprint, users_written(users));
        self.write("noting whom a chat has reached", sql::NOTE_REACHED, columns).map(drop)
    }

    fn reached(&mut self, chat: DedupRecord) -> Stored<Vec<UserId>> {
        let rows = self.read_all("reading whom a chat has reached", sql::REACHED, columns(&chat), |row| {
            row::bytes(row, 0)
        })?;
        let mut users: Vec<_> = rows.iter().flat_map(|row| read_users(row)).collect();
        users.sort_unstable();
        Ok(users)
    }

    fn forget_reached(&mut self, chat: DedupRecord) -> Stored<()> {
        let columns = columns(&chat);
        self.write("forgetting whom a chat has reached", sql::FORGET_REACHED, columns).map(drop)
    }
}

/// A chat as two columns.
pub(super) fn columns(chat: &DedupRecord) -> (i64, [u8; size_of::<u128>()]) {
    (chat.sender.0, chat.fingerprint.to_le_bytes())
}

/// Users as one column.
pub(super) fn users_written(users: &[UserId]) -> Vec<u8> {
    users.iter().flat_map(|user| user.0.to_be_bytes()).collect()
}

/// The users of such a column. What others have spoilt is left out.
pub(super) fn read_users(column: &[u8]) -> impl Iterator<Item = UserId> {
    let (users, _) = column.as_chunks::<{ size_of::<i64>() }>();
    users.iter().map(|user| UserId(i64::from_be_bytes(*user)))
}

/// The chats of a row. What others have spoilt is left out.
pub(super) fn read(row: &[u8]) -> impl Iterator<Item = DedupRecord> {
    row.chunks_exact(CHAT_BYTES).filter_map(|chat| {
        let (sender, fingerprint) = chat.split_first_chunk::<SENDER_BYTES>()?;
        let fingerprint = u128::from_le_bytes(fingerprint.try_into().ok()?);
        Some(DedupRecord { sender: UserId(i64::from_be_bytes(*sender)), fingerprint })
    })
}
