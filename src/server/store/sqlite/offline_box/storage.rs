//! What the store is asked of boxes, each in the transaction under way.

use super::{OfflineBoxes, Statements};
use crate::ids::{Mid, UserId};
use crate::store::sqlite::sqlite_store::{EXPIRE_BATCH, SqliteStore};
use crate::store::{BoxCopy, BoxUsage, ExpiredKept, OfflineBox, Stored, StoredMessage};

impl SqliteStore {
    /// Counts what all boxes hold, so that main never has to. Boxes that are spoilt keep nobody from being served: then only
    /// what comes is counted.
    pub(in crate::store::sqlite) fn count_boxes(&mut self) {
        if let Err(error) = self.kept_bytes() {
            tracing::error!(%error, "the messages that are kept cannot be counted; the bound of all boxes is for new ones");
            self.boxes.count_from_zero();
        }
        // The count outlives a rollback.
        self.boxes.committed();
    }

    /// Writes to the boxes.
    fn write_boxes<T>(
        &mut self,
        doing: &'static str,
        operation: impl FnOnce(&mut OfflineBoxes, &Statements<'_>) -> rusqlite::Result<T>,
    ) -> Stored<T> {
        self.expect_open(doing)?;
        self.in_boxes(doing, operation)
    }
}

impl OfflineBox for SqliteStore {
    fn keep(&mut self, user: UserId, mid: Mid, at_ms: i64, body: &[u8], sent: bool) -> Stored<()> {
        self.write_boxes("keeping a message", |boxes, all| boxes.keep(all, user, mid, at_ms, body, sent))
    }

    fn keep_copies(&mut self, copies: &[BoxCopy], at_ms: i64, body: &[u8]) -> Stored<()> {
        self.write_boxes("keeping a message for many", |boxes, all| {
            boxes.keep_copies(all, copies, at_ms, body)
        })
    }

    fn kept_bytes(&mut self) -> Stored<u64> {
        self.in_boxes("measuring all boxes", OfflineBoxes::total)
    }

    fn mark_sent(&mut self, user: UserId, upto: Mid) -> Stored<()> {
        self.write_boxes("marking messages as sent", |boxes, all| boxes.mark_sent(all, user, upto))
    }

    fn box_usage(&mut self, user: UserId) -> Stored<BoxUsage> {
        self.in_boxes("measuring a box", |boxes, all| boxes.usage(all, user))
    }

    fn kept(
        &mut self,
        user: UserId,
        after: Mid,
        max_count: usize,
        max_bytes: usize,
    ) -> Stored<Vec<StoredMessage>> {
        let max_count = max_count.max(1);
        self.in_boxes("reading a box", |boxes, all| boxes.kept(all, user, after, max_count, max_bytes))
    }

    fn drop_kept(&mut self, user: UserId, upto: Mid) -> Stored<BoxUsage> {
        self.write_boxes("dropping messages", |boxes, all| boxes.drop_kept(all, user, upto))
    }

    fn expire_kept(&mut self, before_ms: i64, from: Option<UserId>, max: u64) -> Stored<ExpiredKept> {
        self.write_boxes("expiring messages", |boxes, all| {
            boxes.expire(all, before_ms, from, max, EXPIRE_BATCH)
        })
    }
}
