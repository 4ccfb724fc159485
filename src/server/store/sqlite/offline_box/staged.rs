//! What is remembered of messages that have not moved on to `box`: for each user their numbers, rows and lengths.
//!
//! Plain data; which rows there are is up to [`super::OfflineBoxes`].

use rusqlite::{Result, ffi};

use crate::ids::IdMap;
use crate::ids::{Mid, UserId};

/// Which rows of `intake` and `message` are whose.
#[derive(Default, Debug)]
pub(super) struct Staged {
    /// By mid, lowest first; each user here has at least one.
    by_user: IdMap<UserId, Vec<StagedRow>>,
    /// How many of them are rows of `intake`.
    rows: usize,
    /// How many of them are copies.
    copies: usize,
    /// How many copies of each row of `message` are among them; each has at least one.
    shared: IdMap<i64, usize>,
}

/// A message that has not moved on to `box`.
#[derive(Clone, Copy, Debug)]
pub(super) struct StagedRow {
    pub(super) mid: Mid,
    pub(super) row: i64,
    pub(super) bytes: u32,
    pub(super) kind: RowKind,
}

/// Where such a message lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RowKind {
    /// In a row of `intake`, which says whether it was sent.
    Alone,
    /// In a row of `message`, with others.
    Shared { sent: bool },
}

// There may be a million of them.
const _: () = assert!(size_of::<StagedRow>() <= 24);

impl Staged {
    /// How many are rows of `intake`.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// How many are copies.
    pub(super) fn copies(&self) -> usize {
        self.copies
    }

    /// Adds a message in its place.
    pub(super) fn insert(&mut self, user: UserId, staged: StagedRow) -> Result<()> {
        let rows = self.by_user.entry(user).or_default();
        let place = rows.partition_point(|other| other.mid < staged.mid);
        if rows.get(place).is_some_and(|other| other.mid == staged.mid) {
            return Err(number_taken(user, staged.mid));
        }
        rows.insert(place, staged);
        self.count(staged);
        Ok(())
    }

    /// Adds a message at the end, whatever its place is; [`Staged::sort`] follows.
    pub(super) fn push(&mut self, user: UserId, staged: StagedRow) {
        self.by_user.entry(user).or_default().push(staged);
        self.count(staged);
    }

    pub(super) fn sort(&mut self) {
        for rows in self.by_user.values_mut() {
            rows.sort_by_key(|staged| staged.mid);
        }
    }

    /// The messages of a user.
    pub(super) fn of(&self, user: UserId) -> &[StagedRow] {
        self.by_user.get(&user).map_or(&[], Vec::as_slice)
    }

    /// Those above `after`.
    pub(super) fn above(&self, user: UserId, after: Mid) -> &[StagedRow] {
        let rows = self.of(user);
        &rows[rows.partition_point(|staged| staged.mid <= after)..]
    }

    /// Those up to and including `upto`.
    pub(super) fn up_to_mut(&mut self, user: UserId, upto: Mid) -> &mut [StagedRow] {
        let rows = self.by_user.get_mut(&user).map_or(&mut [][..], Vec::as_mut_slice);
        let end = rows.partition_point(|staged| staged.mid <= upto);
        &mut rows[..end]
    }

    /// Takes out the messages of a user up to and including `upto`. [`Staged::release_copy`] is due for each copy.
    pub(super) fn take_up_to(&mut self, user: UserId, upto: Mid) -> Vec<StagedRow> {
        self.take(user, |staged| staged.mid <= upto)
    }

    /// Takes out the messages of a user whose rows are not above `row`. [`Staged::release_copy`] is due for each copy.
    pub(super) fn take_rows_up_to(&mut self, user: UserId, row: i64) -> Vec<StagedRow> {
        self.take(user, |staged| staged.row <= row)
    }

    /// A copy of a row of `message` has been taken out. True exactly when it was the last here.
    pub(super) fn release_copy(&mut self, message: i64) -> bool {
        self.copies -= 1;
        if let Some(left) = self.shared.get_mut(&message) {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.shared.remove(&message);
        }
        true
    }

    pub(super) fn has_copies_of(&self, message: i64) -> bool {
        self.shared.contains_key(&message)
    }

    /// The users above `after` who have something here, the lowest last.
    pub(super) fn users_above(&self, after: i64) -> Vec<UserId> {
        let mut users: Vec<_> = self.by_user.keys().copied().filter(|user| user.0 > after).collect();
        users.sort_unstable_by(|one, other| other.cmp(one));
        users
    }

    fn take(&mut self, user: UserId, is_meant: impl Fn(&StagedRow) -> bool) -> Vec<StagedRow> {
        let Some(rows) = self.by_user.get_mut(&user) else { return Vec::new() };
        let taken: Vec<_> = rows.extract_if(.., |staged| is_meant(staged)).collect();
        if rows.is_empty() {
            self.by_user.remove(&user);
        }
        self.rows -= taken.iter().filter(|staged| staged.kind == RowKind::Alone).count();
        taken
    }

    fn count(&mut self, staged: StagedRow) {
        match staged.kind {
            RowKind::Alone => self.rows += 1,
            RowKind::Shared { .. } => {
                self.copies += 1;
                *self.shared.entry(staged.row).or_default() += 1;
            }
        }
    }
}

/// What the key of `box` says by itself.
fn number_taken(user: UserId, mid: Mid) -> rusqlite::Error {
    let text = format!("user {user} has a message with the number {} already", mid.0);
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CONSTRAINT_PRIMARYKEY), Some(text))
}
