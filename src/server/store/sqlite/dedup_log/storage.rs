//! What the store is asked of accepted chats.

use super::{UnwrittenRecords, columns, read, read_users, users_written};
use crate::ids::UserId;
use crate::store::sqlite::sqlite_store::SqliteStore;
use crate::store::sqlite::{row, sql};
use crate::store::{DedupLog, DedupRecord, Stored};
use rusqlite::Result;

/// Most rows that one call of [`DedupLog::expire_accepted`] removes. They lie side by side.
pub const EXPIRE_ACCEPTED_BATCH: u64 = 1_000;

impl SqliteStore {
    /// The chats with `seq` that were accepted after `since_ms`, oldest first, each with its age in milliseconds at
    /// `now_ms`. What others have spoilt is left out.
    pub(in crate::store::sqlite) fn accepted(
        &mut self,
        since_ms: i64,
        now_ms: i64,
    ) -> Result<Vec<(DedupRecord, u64)>> {
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
    pub(in crate::store::sqlite) fn unfinished(
        &mut self,
        since_ms: i64,
        now_ms: i64,
    ) -> Result<Vec<(DedupRecord, u64)>> {
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
