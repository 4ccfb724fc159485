//! Some messages of a box: what `box` holds and what has not moved on to it, merged by number.

use rusqlite::Result;

use crate::ids::Mid;
use crate::store::StoredMessage;

/// The first messages that one of the two places holds for a user above some number, by mid.
pub(super) struct Page {
    kept: Vec<StoredMessage>,
    /// True exactly when the place may hold more.
    cut: bool,
}

impl Page {
    /// Reads until a limit is reached: so many messages, and so many bytes of bodies, but at least one message.
    pub(super) fn read(
        rows: impl Iterator<Item = Result<StoredMessage>>,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Page> {
        let mut page = Page { kept: Vec::new(), cut: false };
        let mut room = max_bytes;
        for kept in rows {
            let kept = kept?;
            page.cut = page.kept.len() >= max_count || (kept.body.len() > room && !page.kept.is_empty());
            if page.cut {
                return Ok(page);
            }
            room = room.saturating_sub(kept.body.len());
            page.kept.push(kept);
        }
        // The statement itself may have stopped at its limit.
        page.cut = page.kept.len() >= max_count;
        Ok(page)
    }

    /// What both places hold, under the same limits as each: no further than both are complete.
    pub(super) fn merge(self, other: Page, max_count: usize, max_bytes: usize) -> Result<Vec<StoredMessage>> {
        if other.kept.is_empty() {
            return Ok(self.kept);
        }
        let complete = self.complete_up_to().min(other.complete_up_to());
        let mut both = self.kept;
        both.extend(other.kept);
        both.sort_by_key(|kept| kept.mid);
        both.retain(|kept| kept.mid <= complete);
        Ok(Page::read(both.into_iter().map(Ok), max_count, max_bytes)?.kept)
    }

    /// The highest number up to which nothing is missing here.
    fn complete_up_to(&self) -> Mid {
        match self.kept.last() {
            Some(last) if self.cut => last.mid,
            _ => Mid(i64::MAX),
        }
    }
}
