//! Where the messages of the boxes lie: short ones go to the end of `intake` first, and move on to `box`, in its order,
//! when there are many.
//!
//! A row of `box` lies on a page that few others share, and a commit writes whole pages: a thousand messages for a
//! thousand users would write a thousand pages, and at the end of `intake` they write thirty. A message that is confirmed
//! at once is never written to `box`. `docs/performance.md` has what a plain table costs instead.
//!
//! A message for many boxes is one row of `message`, with the list of its receivers: a copy costs some 20 bytes there
//! instead of a row. Such a row never changes. Up to which number a receiver's copies were sent or removed is a row of
//! `copy_mark` for each user. The copies move on to `box` as rows of `intake` do; their rows there name the message, whose
//! body stays where it is until its last copy is gone.
//!
//! Owned by main, beside its connection. The tables have no index, so [`OfflineBoxes`] remembers which rows of `intake`
//! and `message` are whose. What it remembers follows the transaction under way; after a rollback it is read again.
//!
//! | file | duty |
//! |---|---|
//! | `staged` | what is remembered of messages that have not moved on |
//! | `compaction` | when they move on to `box`, and how many at a time |
//! | `page` | some messages of a box, from both places |
//! | `expiry` | deletion by age |

use rusqlite::{OptionalExtension, Result};

use super::statements::Statements;
use super::{row, sql};
use crate::ids::IdMap;
use crate::ids::{Mid, UserId};
use crate::store::{BoxCopy, BoxUsage, COPY_BYTES, StoredMessage};
use compaction::{COMPACTION, Compaction, CompactionCursor, CompactionPolicy};
use page::Page;
use staged::{RowKind, Staged, StagedRow};

mod compaction;
mod expiry;
mod page;
mod staged;
mod storage;

/// The longest body that goes through `intake`, in bytes. A longer one fills a good part of a page wherever it lies.
pub(super) const INTAKE_BODY_BYTES: usize = 512;

/// Rows that one call of [`OfflineBoxes::keep_copies`] moves at most.
const COPY_MOVES: usize = 2_560;

/// All three tables, and whose the rows of `intake` and `message` are.
#[derive(Debug)]
pub(super) struct OfflineBoxes {
    staged: Staged,
    compaction: Compaction,
    total: TotalBytes,
    /// True exactly when `copy_mark` may have rows.
    marked: bool,
    /// The next row's number. No number up to that of the generation on its way is given out again.
    next_row: i64,
    /// The last row of the generation that a round of expiry waits for.
    expires_behind: i64,
    /// True exactly when `staged`, the cursor, `marked` and `next_row` are what the connection sees.
    loaded: bool,
}

/// Bytes that all boxes hold.
#[derive(Default, Debug)]
struct TotalBytes {
    /// None before they have been counted.
    now: Option<u64>,
    /// The same as of the last commit.
    committed: Option<u64>,
}

/// A row of `message` that a row of `box` names.
struct SharedBody {
    id: i64,
    /// Bytes of its body, as a box counts them.
    bytes: u64,
}

impl OfflineBoxes {
    pub(super) fn new() -> Self {
        OfflineBoxes::with_policy(COMPACTION)
    }

    fn with_policy(policy: CompactionPolicy) -> Self {
        OfflineBoxes {
            staged: Staged::default(),
            compaction: Compaction::new(policy),
            total: TotalBytes::default(),
            marked: false,
            next_row: 1,
            expires_behind: 0,
            loaded: false,
        }
    }

    /// Forgets what the rows are: the transaction has failed or been undone.
    pub(super) fn forget(&mut self) {
        self.loaded = false;
        self.total.now = self.total.committed;
    }

    /// The transaction under way is committed.
    pub(super) fn committed(&mut self) {
        self.total.committed = self.total.now;
    }

    /// Bytes that all boxes hold: each body once, however many boxes share it, and [`COPY_BYTES`] for each message of
    /// each box. What others remove beside the server is noticed at the next start.
    pub(super) fn total(&mut self, all: &Statements<'_>) -> Result<u64> {
        if let Some(total) = self.total.now {
            return Ok(total);
        }
        self.load(all)?;
        let boxed = all.get(sql::BOXED_TOTAL).query_row((), usage)?;
        let staged = all.get(sql::STAGED_TOTAL).query_row((), usage)?;
        let rows = boxed.count + staged.count + self.staged.copies() as u64;
        let total = rows * COPY_BYTES + boxed.bytes + staged.bytes;
        self.total.now = Some(total);
        Ok(total)
    }

    /// Counts only what comes from here on.
    pub(super) fn count_from_zero(&mut self) {
        self.total.now = Some(0);
    }

    /// Puts a message into a box.
    pub(super) fn keep(
        &mut self,
        all: &Statements<'_>,
        user: UserId,
        mid: Mid,
        at_ms: i64,
        body: &[u8],
        sent: bool,
    ) -> Result<()> {
        self.total.add(1, body.len() as u64);
        if body.len() > INTAKE_BODY_BYTES {
            return all.get(sql::KEEP).execute((user.0, mid.0, at_ms, body, sent)).map(drop);
        }
        self.load(all)?;
        let row = self.next_row;
        self.staged.insert(user, StagedRow { mid, row, bytes: body.len() as u32, kind: RowKind::Alone })?;
        all.get(sql::STAGE).execute((row, user.0, mid.0, at_ms, body, sent))?;
        self.next_row = row.saturating_add(1);
        self.compact_after_keep(all)
    }

    /// Puts one message into many boxes. Its body is stored once.
    pub(super) fn keep_copies(
        &mut self,
        all: &Statements<'_>,
        copies: &[BoxCopy],
        at_ms: i64,
        body: &[u8],
    ) -> Result<()> {
        self.load(all)?;
        let (row, bytes) = (self.next_row, body.len() as u32);
        for BoxCopy { user, mid, sent } in copies {
            let kind = RowKind::Shared { sent: *sent };
            self.staged.insert(*user, StagedRow { mid: *mid, row, bytes, kind })?;
        }
        all.get(sql::ADD_SHARED).execute((row, at_ms, receivers(copies), body))?;
        self.next_row = row.saturating_add(1);
        self.total.add(copies.len(), body.len() as u64);
        self.compact_if_due(all, copies.len().saturating_mul(2).min(COPY_MOVES))
    }

    /// Marks the messages up to and including `upto` as sent.
    pub(super) fn mark_sent(&mut self, all: &Statements<'_>, user: UserId, upto: Mid) -> Result<()> {
        self.load(all)?;
        let mut newest_copy = None;
        for StagedRow { mid, row, kind, .. } in self.staged.up_to_mut(user, upto) {
            match kind {
                RowKind::Alone => drop(all.get(sql::MARK_STAGED).execute((*row,))?),
                RowKind::Shared { sent } => {
                    *sent = true;
                    newest_copy = Some(*mid);
                }
            }
        }
        if let Some(mid) = newest_copy {
            all.get(sql::MARK_COPIES_SENT).execute((user.0, mid.0))?;
            self.marked = true;
        }
        all.get(sql::MARK_SENT).execute((user.0, upto.0)).map(drop)
    }

    /// How much a box holds.
    pub(super) fn usage(&mut self, all: &Statements<'_>, user: UserId) -> Result<BoxUsage> {
        self.load(all)?;
        let boxed = all.get(sql::BOX_USAGE).query_row((user.0,), usage)?;
        Ok(sum(boxed, self.staged.of(user)))
    }

    /// The oldest messages above `after`: at most `max_count`, and at most `max_bytes` of bodies, but at least one.
    pub(super) fn kept(
        &mut self,
        all: &Statements<'_>,
        user: UserId,
        after: Mid,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredMessage>> {
        self.load(all)?;
        let limit = i64::try_from(max_count).unwrap_or(i64::MAX);
        let mut statement = all.get(sql::KEPT);
        let boxed =
            Page::read(statement.query_map((user.0, after.0, limit), stored_message)?, max_count, max_bytes)?;

        let (mut alone, mut shared) = (all.get(sql::STAGED_MESSAGE), all.get(sql::SHARED_BODY));
        let rows = self.staged.above(user, after).iter().map(|staged| match staged.kind {
            RowKind::Alone => alone.query_row((staged.row,), stored_message),
            RowKind::Shared { sent } => shared.query_row((staged.row,), |row| {
                Ok(StoredMessage { mid: staged.mid, body: row::bytes(row, 0)?, sent })
            }),
        });
        let staged = Page::read(rows, max_count, max_bytes)?;
        boxed.merge(staged, max_count, max_bytes)
    }

    /// Removes the messages up to and including `upto`; answers what they held.
    pub(super) fn drop_kept(&mut self, all: &Statements<'_>, user: UserId, upto: Mid) -> Result<BoxUsage> {
        self.load(all)?;
        let boxed = all.get(sql::BOX_USAGE_UPTO).query_row((user.0, upto.0), usage)?;
        // Most confirmations are of messages that never moved on.
        if boxed.count > 0 {
            let shared = all
                .get(sql::SHARED_IN_BOX)
                .query_map((user.0, upto.0), shared_body)?
                .collect::<Result<_>>()?;
            all.get(sql::DROP_KEPT).execute((user.0, upto.0))?;
            self.note_removed(all, boxed, shared)?;
        }
        let removed = self.staged.take_up_to(user, upto);
        let mut newest_copy = None;
        for staged in &removed {
            match staged.kind {
                RowKind::Alone => {
                    all.get(sql::DROP_STAGED).execute((staged.row,))?;
                    self.total.subtract(1, staged.bytes.into());
                }
                RowKind::Shared { .. } => {
                    self.total.subtract(1, 0);
                    if !self.remove_copy(all, staged.row)? {
                        newest_copy = Some(staged.mid);
                    }
                }
            }
        }
        // Not `upto`, below which a message may still come.
        if let Some(mid) = newest_copy {
            all.get(sql::MARK_COPIES_DROPPED).execute((user.0, mid.0))?;
            self.marked = true;
        }
        Ok(sum(boxed, &removed))
    }

    /// Messages of `box` have been removed, some of them rows that name one of `shared`.
    fn note_removed(
        &mut self,
        all: &Statements<'_>,
        removed: BoxUsage,
        shared: Vec<SharedBody>,
    ) -> Result<()> {
        let own = removed.bytes.saturating_sub(shared.iter().map(|body| body.bytes).sum());
        self.total.subtract(removed.count, own);
        for SharedBody { id, .. } in shared {
            self.drop_unused_body(all, id)?;
        }
        Ok(())
    }

    /// One copy of a row of `message` is removed or has moved on. False exactly when others are left in its list, so
    /// that the next start has to be told that this one is gone.
    fn remove_copy(&mut self, all: &Statements<'_>, message: i64) -> Result<bool> {
        if !self.staged.release_copy(message) {
            return Ok(false);
        }
        if !self.drop_unused_body(all, message)? {
            all.get(sql::CLEAR_RECEIVERS).execute((message,))?;
        }
        Ok(true)
    }

    /// Removes a row of `message` if no box has a copy of it any more. False when one has.
    fn drop_unused_body(&mut self, all: &Statements<'_>, message: i64) -> Result<bool> {
        if self.staged.has_copies_of(message) {
            return Ok(false);
        }
        let bytes =
            all.get(sql::DROP_MESSAGE).query_row((message,), |row| row.get::<_, i64>(0)).optional()?;
        self.total.subtract(0, bytes.unwrap_or(0) as u64);
        Ok(bytes.is_some())
    }

    /// Reads whose the rows of `intake` and `message` are, unless that is known.
    fn load(&mut self, all: &Statements<'_>) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        let cursor = |row: &rusqlite::Row<'_>| Ok(CompactionCursor { rows: row.get(0)?, users: row.get(1)? });
        let cursor = all.get(sql::CURSOR).query_row((), cursor)?;
        self.compaction.restart_at(cursor);
        self.staged = Staged::default();
        self.expires_behind = 0;
        let mut statement = all.get(sql::ALL_STAGED);
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let (mid, bytes) = (Mid(row.get(1)?), row.get::<_, i64>(3)? as u32);
            let staged = StagedRow { mid, row: row.get(2)?, bytes, kind: RowKind::Alone };
            self.staged.push(UserId(row.get(0)?), staged);
        }
        self.load_copies(all, cursor)?;
        self.staged.sort();
        let highest: i64 = all.get(sql::LAST_STAGED).query_row((), |row| row.get(0))?;
        // Others may have written the largest number; then the next row is refused.
        self.next_row = highest.max(cursor.rows).saturating_add(1);
        self.loaded = true;
        Ok(())
    }

    /// Reads whose the copies are that have not moved on. What others have spoilt is left out.
    fn load_copies(&mut self, all: &Statements<'_>, cursor: CompactionCursor) -> Result<()> {
        let mut statement = all.get(sql::ALL_COPY_MARKS);
        let marks = statement.query_map((), |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        let marks: IdMap<i64, (i64, i64)> = marks.collect::<Result<_>>()?;
        self.marked = !marks.is_empty();
        let mut statement = all.get(sql::ALL_SHARED);
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let (id, bytes) = (row.get(0)?, row.get::<_, i64>(2)? as u32);
            let receivers: Vec<(i64, i64, u8)> =
                serde_json::from_slice(&row::bytes(row, 1)?).unwrap_or_default();
            for (user, mid, sent) in receivers {
                let (dropped, sent_upto) = marks.get(&user).copied().unwrap_or((i64::MIN, i64::MIN));
                let moved = id <= cursor.rows && user <= cursor.users;
                if mid > dropped && !moved {
                    let kind = RowKind::Shared { sent: sent != 0 || mid <= sent_upto };
                    self.staged.push(UserId(user), StagedRow { mid: Mid(mid), row: id, bytes, kind });
                }
            }
        }
        Ok(())
    }
}

impl TotalBytes {
    fn add(&mut self, copies: usize, bytes: u64) {
        if let Some(total) = &mut self.now {
            *total += copies as u64 * COPY_BYTES + bytes;
        }
    }

    fn subtract(&mut self, copies: u64, bytes: u64) {
        if let Some(total) = &mut self.now {
            *total = total.saturating_sub(copies * COPY_BYTES + bytes);
        }
    }
}

/// The column `receivers`: what [`OfflineBoxes::load_copies`] and the view `kept` read.
fn receivers(copies: &[BoxCopy]) -> String {
    let mut text = String::with_capacity(copies.len() * 24);
    let mut digits = itoa::Buffer::new();
    for BoxCopy { user, mid, sent } in copies {
        text.push_str(if text.is_empty() { "[[" } else { ",[" });
        text.push_str(digits.format(user.0));
        text.push(',');
        text.push_str(digits.format(mid.0));
        text.push_str(if *sent { ",1]" } else { ",0]" });
    }
    text.push(']');
    text
}

fn shared_body(row: &rusqlite::Row<'_>) -> Result<SharedBody> {
    Ok(SharedBody { id: row.get(0)?, bytes: row.get::<_, i64>(1)? as u64 })
}

fn stored_message(row: &rusqlite::Row<'_>) -> Result<StoredMessage> {
    let sent = row::optional_integer(row, 2)?.unwrap_or(0) != 0;
    Ok(StoredMessage { mid: Mid(row.get(0)?), body: row::bytes(row, 1)?, sent })
}

fn usage(row: &rusqlite::Row<'_>) -> Result<BoxUsage> {
    Ok(BoxUsage { count: row.get::<_, i64>(0)? as u64, bytes: row.get::<_, i64>(1)? as u64 })
}

fn sum(boxed: BoxUsage, staged: &[StagedRow]) -> BoxUsage {
    let bytes = staged.iter().map(|staged| u64::from(staged.bytes)).sum::<u64>();
    BoxUsage { count: boxed.count + staged.len() as u64, bytes: boxed.bytes + bytes }
}

#[cfg(test)]
mod tests;
