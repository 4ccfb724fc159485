//! Chats with `seq` that were accepted, many to a row: those of one millisecond, as they came.
//!
//! Owned by main, beside its connection. What waits here is part of the transaction under way, and is written before
//! that is committed.

use rusqlite::Result;

use super::sql;
use super::statements::Statements;
use crate::ids::UserId;
use crate::store::DedupRecord;

pub(super) mod storage;

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

/// A chat as two columns.
fn columns(chat: &DedupRecord) -> (i64, [u8; size_of::<u128>()]) {
    (chat.sender.0, chat.fingerprint.to_le_bytes())
}

/// Users as one column.
fn users_written(users: &[UserId]) -> Vec<u8> {
    users.iter().flat_map(|user| user.0.to_be_bytes()).collect()
}

/// The users of such a column. What others have spoilt is left out.
fn read_users(column: &[u8]) -> impl Iterator<Item = UserId> {
    let (users, _) = column.as_chunks::<{ size_of::<i64>() }>();
    users.iter().map(|user| UserId(i64::from_be_bytes(*user)))
}

/// The chats of a row. What others have spoilt is left out.
fn read(row: &[u8]) -> impl Iterator<Item = DedupRecord> {
    row.chunks_exact(CHAT_BYTES).filter_map(|chat| {
        let (sender, fingerprint) = chat.split_first_chunk::<SENDER_BYTES>()?;
        let fingerprint = u128::from_le_bytes(fingerprint.try_into().ok()?);
        Some(DedupRecord { sender: UserId(i64::from_be_bytes(*sender)), fingerprint })
    })
}
