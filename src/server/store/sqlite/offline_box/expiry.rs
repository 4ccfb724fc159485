//! Deletion of messages by their age, some boxes at a time.

use rusqlite::{OptionalExtension, Result};

use super::{OfflineBoxes, SharedBody, Statements, sql};
use crate::ids::UserId;
use crate::store::{BoxUsage, ExpiredKept};

/// Rows that one call of [`OfflineBoxes::expire`] moves or removes.
pub(super) const EXPIRE_MOVES: usize = 2_000;

impl OfflineBoxes {
    /// Removes messages as [`OfflineBox::expire_kept`](crate::store::OfflineBox::expire_kept) says, and looks at no
    /// more than `boxes` boxes.
    pub(in crate::store::sqlite) fn expire(
        &mut self,
        all: &Statements<'_>,
        before_ms: i64,
        from: Option<UserId>,
        max: u64,
        boxes: u64,
    ) -> Result<ExpiredKept> {
        // Nothing stays in `intake` for long: nobody looks at its age there. What comes while a round goes on has time
        // until the next one, or a flood would keep it from ever looking at a box.
        self.load(all)?;
        if from.is_none() {
            self.begin_generation();
            self.expires_behind = self.compaction.cursor().rows;
        }
        self.compact(all, EXPIRE_MOVES)?;
        self.fit_cache(all)?;
        let generation = self.compaction.cursor().rows;
        if generation > 0 && generation <= self.expires_behind {
            return Ok(ExpiredKept {
                next: Some(from.unwrap_or(UserId(i64::MIN))),
                ..ExpiredKept::default()
            });
        }
        let mut expired = ExpiredKept::default();
        let mut from = from.map_or(i64::MIN, |user| user.0);
        for _ in 0..boxes {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?));
            let next = all.get(sql::NEXT_BOX).query_row((from, before_ms), read).optional()?;
            let Some((user, is_old)) = next else { return Ok(expired) };
            if is_old {
                let room = max - expired.messages;
                let removed = self.expire_box(all, user, room, before_ms)?;
                expired.messages += removed;
                expired.users.push(UserId(user));
                if removed == room {
                    return Ok(ExpiredKept { next: Some(UserId(user)), ..expired });
                }
            }
            match user.checked_add(1) {
                Some(next) => from = next,
                None => return Ok(expired),
            }
        }
        Ok(ExpiredKept { next: Some(UserId(from)), ..expired })
    }

    /// Removes at most `room` messages of a box that were kept before `before_ms`; answers how many.
    fn expire_box(&mut self, all: &Statements<'_>, user: i64, room: u64, before_ms: i64) -> Result<u64> {
        let columns = (user, i64::try_from(room).unwrap_or(i64::MAX), before_ms);
        let (mut removed, mut shared) = (BoxUsage::default(), Vec::new());
        let mut statement = all.get(sql::EXPIRE_BOX);
        let mut rows = statement.query(columns)?;
        while let Some(row) = rows.next()? {
            removed.count += 1;
            removed.bytes += row.get::<_, i64>(1)? as u64;
            shared.extend(row.get::<_, Option<i64>>(0)?.map(|id| SharedBody { id, bytes: 0 }));
        }
        drop(rows);
        drop(statement);
        self.note_removed(all, removed, shared)?;
        Ok(removed.count)
    }
}
