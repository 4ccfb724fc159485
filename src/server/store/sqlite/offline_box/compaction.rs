//! Moves messages from `intake` and `message` on to `box`, in its order, so that one page takes several.
//!
//! They move as a generation: all rows up to a number, user by user, some with each message that comes, so that no turn
//! of main's is long. A row that has moved is not removed at once, for that would write a page of its own; the table
//! `settled` says how far the generation is, and when all have moved, the rows are removed from the front.

use std::rc::Rc;

use rusqlite::Result;
use rusqlite::types::Value;

use super::staged::RowKind;
use super::{OfflineBoxes, Statements, sql};
use crate::ids::UserId;
use crate::store::sqlite::connect;

/// How fast messages move on, unless told.
pub(super) const COMPACTION: CompactionPolicy =
    CompactionPolicy { generation: 32_768, copies: 1_048_576, stride: 64, moves: 256 };

/// Messages of `intake` that are a flood: some 1 MiB.
pub(super) const FLOOD: usize = 4_096;

// Each row is moved once, and its number is passed once when rows are removed. More than two moves a message, and a generation ends.
const _: () = assert!(COMPACTION.moves > 2 * COMPACTION.stride);

/// When messages of `intake` move on, and how many at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompactionPolicy {
    /// Messages at which a generation begins.
    pub(super) generation: usize,
    /// Copies of shared messages at which a generation begins: 24 bytes of memory each.
    pub(super) copies: usize,
    /// Messages kept between two moves.
    pub(super) stride: usize,
    /// Rows that one move moves or removes, gaps included.
    pub(super) moves: usize,
}

/// The row of `settled`: those rows of `intake` up to `rows` have moved whose user is not above `users`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CompactionCursor {
    /// The generation's last row; 0 when none is on its way.
    pub(super) rows: i64,
    pub(super) users: i64,
}

impl CompactionCursor {
    pub(super) const NONE: CompactionCursor = CompactionCursor { rows: 0, users: i64::MIN };
}

/// How far the generation on its way has moved.
#[derive(Debug)]
pub(super) struct Compaction {
    policy: CompactionPolicy,
    cursor: CompactionCursor,
    /// Who is to move with the generation, the next user last; none before they have been put in order.
    moving: Option<Vec<UserId>>,
    /// Messages kept since the last move.
    since: usize,
    /// True exactly when the connection keeps the pages of a flood.
    roomy: bool,
}

impl Compaction {
    pub(super) fn new(policy: CompactionPolicy) -> Self {
        Compaction { policy, cursor: CompactionCursor::NONE, moving: None, since: 0, roomy: false }
    }

    pub(super) fn cursor(&self) -> CompactionCursor {
        self.cursor
    }

    /// Goes on from what the table says.
    pub(super) fn restart_at(&mut self, cursor: CompactionCursor) {
        *self = Compaction { cursor, roomy: self.roomy, ..Compaction::new(self.policy) };
    }
}

impl OfflineBoxes {
    /// One message more has come to `intake`: moves some rows each [`CompactionPolicy::stride`] messages.
    pub(super) fn compact_after_keep(&mut self, all: &Statements<'_>) -> Result<()> {
        self.compaction.since += 1;
        if self.compaction.since < self.compaction.policy.stride {
            return Ok(());
        }
        self.compaction.since = 0;
        self.fit_cache(all)?;
        self.compact_if_due(all, self.compaction.policy.moves)
    }

    /// Moves some rows of the generation on its way, or begins one where there is enough for it.
    pub(super) fn compact_if_due(&mut self, all: &Statements<'_>, most: usize) -> Result<()> {
        let CompactionPolicy { generation, copies, .. } = self.compaction.policy;
        if self.staged.rows() >= generation || self.staged.copies() >= copies {
            self.begin_generation();
        }
        self.compact(all, most)
    }

    /// All that is in `intake` and `message` now is to move, unless a generation is on its way.
    pub(super) fn begin_generation(&mut self) {
        let is_free = self.compaction.cursor == CompactionCursor::NONE;
        if is_free && (self.staged.rows() > 0 || self.staged.copies() > 0) {
            self.compaction.cursor.rows = self.next_row - 1;
        }
    }

    /// Moves or removes about `most` rows of the generation on its way; the last user's may be some more.
    pub(super) fn compact(&mut self, all: &Statements<'_>, most: usize) -> Result<()> {
        let before = self.compaction.cursor;
        let mut left = most;
        while left > 0 && self.compaction.cursor.users < i64::MAX && self.compaction.cursor.rows > 0 {
            // A user without anything to move costs a look.
            let moved = self.move_next_user(all)?.max(1);
            left = left.saturating_sub(moved);
        }
        let generation = self.compaction.cursor.rows;
        if left > 0 && generation > 0 {
            // Where it begins is asked each time: what is confirmed leaves gaps, and they may be wide.
            let first: i64 = all.get(sql::FIRST_STAGED).query_row((), |row| row.get(0))?;
            let last = generation.min(first.saturating_add(left as i64 - 1));
            all.get(sql::CLEAR_STAGED).execute((last,))?;
            if last == generation {
                self.compaction.cursor = CompactionCursor::NONE;
                self.compaction.moving = None;
                self.clear_marks(all)?;
            }
        }
        if self.compaction.cursor != before {
            let CompactionCursor { rows, users } = self.compaction.cursor;
            all.get(sql::SET_CURSOR).execute((rows, users))?;
        }
        Ok(())
    }

    /// Has the connection keep the pages of a flood until it is over.
    pub(super) fn fit_cache(&mut self, all: &Statements<'_>) -> Result<()> {
        let flood = self.staged.rows() >= FLOOD;
        if flood != self.compaction.roomy {
            connect::fit_cache(all.conn(), flood)?;
            self.compaction.roomy = flood;
        }
        Ok(())
    }

    /// Removes the marks of copies when there are no copies that they could be of.
    fn clear_marks(&mut self, all: &Statements<'_>) -> Result<()> {
        if self.marked && self.staged.copies() == 0 {
            all.get(sql::CLEAR_MARKS).execute(())?;
            self.marked = false;
        }
        Ok(())
    }

    /// Moves the generation's rows of the next user; answers how many.
    fn move_next_user(&mut self, all: &Statements<'_>) -> Result<usize> {
        let Compaction { cursor, moving, .. } = &mut self.compaction;
        let Some(user) = moving.get_or_insert_with(|| self.staged.users_above(cursor.users)).pop() else {
            cursor.users = i64::MAX;
            return Ok(0);
        };
        cursor.users = user.0;
        // Empty where all of them have been confirmed meanwhile.
        let old = self.staged.take_rows_up_to(user, cursor.rows);
        let alone: Vec<Value> = old
            .iter()
            .filter(|staged| staged.kind == RowKind::Alone)
            .map(|staged| staged.row.into())
            .collect();
        if !alone.is_empty() {
            let mut move_staged = all.get(sql::MOVE_STAGED);
            move_staged.execute((user.0, Rc::new(alone)))?;
            // Or it would keep the list.
            move_staged.clear_bindings();
        }
        for staged in &old {
            let RowKind::Shared { sent } = staged.kind else { continue };
            all.get(sql::MOVE_COPY).execute((user.0, staged.mid.0, sent, staged.row))?;
            self.remove_copy(all, staged.row)?;
        }
        Ok(old.len())
    }
}
