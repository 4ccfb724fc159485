//! Where the messages of the boxes lie: short ones go to the end of `intake` first, and move on to `box`, in its order,
//! when there are many.
//!
//! A box's place in `box` is a page that few others share, and a commit writes whole pages. A thousand messages for a
//! thousand users would write a thousand pages; at the end of `intake` they are thirty. Whoever confirms at once is
//! never written to `box` at all.
//!
//! They move as a generation: all rows up to a number, user by user, some with each message that comes, so that no turn
//! of main's is long. A row that has moved is not removed at once, for that would touch a page too; the table `settled`
//! says which have, and when all have they are removed from the front.
//!
//! Owned by main, beside its connection. [`Boxes`] remembers which rows of `intake` are whose, for the table has no
//! index. What it remembers follows the transaction under way; after a rollback it is read again.

use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Result, ffi};

use super::prepared::Statements;
use super::{open, row, sql};
use crate::hashing::IdMap;
use crate::ident::{Mid, UserId};
use crate::service::storage::{BoxUsage, ExpiredKept, Kept};

/// How fast messages move on, unless told.
const PACE: Pace = Pace { generation: 32_768, stride: 64, moves: 256 };

/// The longest body that goes through `intake`, in bytes. A longer one fills a good part of a page wherever it lies.
pub(super) const INTAKE_BODY_BYTES: usize = 512;

/// Messages of `intake` that are a flood: some 1 MiB.
const FLOOD: usize = 4_096;

/// Rows that one call of [`Boxes::expire`] moves or removes.
const EXPIRE_MOVES: usize = 2_000;

// Each row is moved once, and its number is passed once when rows are removed. More than two moves a message, and a generation ends.
const _: () = assert!(PACE.moves > 2 * PACE.stride);

/// When messages of `intake` move on, and how many at a time.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Messages at which a generation begins.
    generation: usize,
    /// Messages kept between two moves.
    stride: usize,
    /// Rows that one move moves or removes, gaps included.
    moves: usize,
}

/// Both tables, and whose the rows of `intake` are.
#[derive(Debug)]
pub(super) struct Boxes {
    /// What has not moved, by mid, lowest first; nobody has none.
    taken_in: IdMap<UserId, Vec<TakenIn>>,
    /// How many they are together.
    count: usize,
    /// The next row's number. None that was below [`Settled::rows`] is given out again.
    next_row: i64,
    settled: Settled,
    /// Who is to move with the generation on its way, the next one last; none before that has been put in order.
    moving: Option<Vec<UserId>>,
    /// The last row of the generation that a round of expiry waits for.
    expires_behind: i64,
    /// Messages kept since the last move.
    since: usize,
    /// True exactly when the connection keeps the pages of a flood.
    roomy: bool,
    pace: Pace,
    /// True exactly when the above is what the connection sees.
    known: bool,
}

/// A row of `intake`.
#[derive(Clone, Copy, Debug)]
struct TakenIn {
    mid: Mid,
    row: i64,
    bytes: u64,
}

/// The row of `settled`: those rows of `intake` up to `rows` have moved whose user is not above `users`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Settled {
    /// The generation's last row; 0 when none is on its way.
    rows: i64,
    users: i64,
}

impl Settled {
    const NONE: Settled = Settled { rows: 0, users: i64::MIN };
}

/// The start of what one of the tables holds for a user, by mid.
struct Part {
    kept: Vec<Kept>,
    /// True exactly when the table may hold more.
    cut: bool,
}

impl Boxes {
    pub(super) fn new() -> Self {
        Boxes::with_pace(PACE)
    }

    fn with_pace(pace: Pace) -> Self {
        Boxes {
            taken_in: IdMap::default(),
            count: 0,
            next_row: 1,
            settled: Settled::NONE,
            moving: None,
            expires_behind: 0,
            since: 0,
            roomy: false,
            pace,
            known: false,
        }
    }

    /// Forgets what the rows of `intake` are: the transaction has failed or been undone.
    pub(super) fn forget(&mut self) {
        self.known = false;
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
        if body.len() > INTAKE_BODY_BYTES {
            return all.get(sql::KEEP).execute((user.0, mid.0, at_ms, body, sent)).map(drop);
        }
        self.know(all)?;
        let (row, rows) = (self.next_row, self.taken_in.entry(user).or_default());
        let Err(place) = rows.binary_search_by_key(&mid, |taken_in| taken_in.mid) else {
            return Err(taken(user, mid));
        };
        all.get(sql::TAKE_IN).execute((row, user.0, mid.0, at_ms, body, sent))?;
        rows.insert(place, TakenIn { mid, row, bytes: body.len() as u64 });
        self.next_row = row.saturating_add(1);
        self.count += 1;
        self.since += 1;
        if self.since < self.pace.stride {
            return Ok(());
        }
        self.since = 0;
        self.fit_cache(all)?;
        if self.settled == Settled::NONE {
            if self.count < self.pace.generation {
                return Ok(());
            }
            self.begin_generation();
        }
        self.move_on(all, self.pace.moves)
    }

    /// Marks the messages up to and including `upto` as sent.
    pub(super) fn mark_sent(&mut self, all: &Statements<'_>, user: UserId, upto: Mid) -> Result<()> {
        for taken_in in self.up_to(all, user, upto)? {
            all.get(sql::MARK_TAKEN_IN).execute((taken_in.row,))?;
        }
        all.get(sql::MARK_SENT).execute((user.0, upto.0)).map(drop)
    }

    /// How much a box holds.
    pub(super) fn usage(&mut self, all: &Statements<'_>, user: UserId) -> Result<BoxUsage> {
        let boxed = all.get(sql::BOX_USAGE).query_row((user.0,), usage)?;
        Ok(sum(boxed, self.up_to(all, user, Mid(i64::MAX))?))
    }

    /// The oldest messages above `after`: at most `max_count`, and at most `max_bytes` of bodies, but at least one.
    pub(super) fn kept(
        &mut self,
        all: &Statements<'_>,
        user: UserId,
        after: Mid,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<Kept>> {
        let limit = i64::try_from(max_count).unwrap_or(i64::MAX);
        let mut statement = all.get(sql::KEPT);
        let boxed = statement.query_map((user.0, after.0, limit), kept)?;
        let boxed = Part::read(boxed, max_count, max_bytes)?;

        let mut statement = all.get(sql::TAKEN_IN);
        let rows = self.of(all, user)?.iter().filter(|taken_in| taken_in.mid > after);
        let taken_in = rows.map(|taken_in| statement.query_row((taken_in.row,), kept));
        let taken_in = Part::read(taken_in, max_count, max_bytes)?;
        if taken_in.kept.is_empty() {
            return Ok(boxed.kept);
        }
        merge(boxed, taken_in, max_count, max_bytes)
    }

    /// Removes the messages up to and including `upto`; answers what they held.
    pub(super) fn drop_kept(&mut self, all: &Statements<'_>, user: UserId, upto: Mid) -> Result<BoxUsage> {
        let boxed = all.get(sql::BOX_USAGE_UPTO).query_row((user.0, upto.0), usage)?;
        // Most confirmations are of messages that never came so far.
        if boxed.count > 0 {
            all.get(sql::DROP_KEPT).execute((user.0, upto.0))?;
        }
        let gone = self.up_to(all, user, upto)?;
        for taken_in in gone {
            all.get(sql::DROP_TAKEN_IN).execute((taken_in.row,))?;
        }
        let (dropped, gone) = (sum(boxed, gone), gone.len());
        if let Some(rows) = self.taken_in.get_mut(&user) {
            rows.drain(..gone);
            if rows.is_empty() {
                self.taken_in.remove(&user);
            }
        }
        self.count -= gone;
        Ok(dropped)
    }

    /// Removes messages as [`Storage::expire_kept`](crate::service::storage::Storage::expire_kept) says, and looks at no
    /// more than `boxes` boxes.
    pub(super) fn expire(
        &mut self,
        all: &Statements<'_>,
        before_ms: i64,
        from: Option<UserId>,
        max: u64,
        boxes: u64,
    ) -> Result<ExpiredKept> {
        // Nothing stays in `intake` for long: nobody looks at its age there. What comes while a round goes on has time
        // until the next one, or a flood would keep it from ever looking at a box.
        self.know(all)?;
        if from.is_none() {
            if self.settled == Settled::NONE {
                self.begin_generation();
            }
            self.expires_behind = self.settled.rows;
        }
        self.move_on(all, EXPIRE_MOVES)?;
        self.fit_cache(all)?;
        if self.settled.rows > 0 && self.settled.rows <= self.expires_behind {
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
                let columns = (user, i64::try_from(room).unwrap_or(i64::MAX), before_ms);
                let removed = all.get(sql::EXPIRE_BOX).execute(columns)? as u64;
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

    /// Has the connection keep the pages of a flood until it is over.
    fn fit_cache(&mut self, all: &Statements<'_>) -> Result<()> {
        let flood = self.count >= FLOOD;
        if flood != self.roomy {
            open::fit_cache(all.conn(), flood)?;
            self.roomy = flood;
        }
        Ok(())
    }

    /// All that is in `intake` now is to move.
    fn begin_generation(&mut self) {
        if self.count > 0 {
            self.settled.rows = self.next_row - 1;
        }
    }

    /// Moves or removes about `most` rows of the generation on its way; the last user's may be some more.
    fn move_on(&mut self, all: &Statements<'_>, most: usize) -> Result<()> {
        let before = self.settled;
        let mut left = most;
        while left > 0 && self.settled.users < i64::MAX && self.settled.rows > 0 {
            // Whoever has nothing to move costs a look.
            let moved = self.move_next_user(all)?.max(1);
            left = left.saturating_sub(moved);
        }
        if left > 0 && self.settled.rows > 0 {
            // Where it begins is asked each time: what is confirmed leaves gaps, and they may be wide.
            let first: i64 = all.get(sql::FIRST_TAKEN_IN).query_row((), |row| row.get(0))?;
            let last = self.settled.rows.min(first.saturating_add(left as i64 - 1));
            all.get(sql::CLEAR_INTAKE).execute((last,))?;
            if last == self.settled.rows {
                self.settled = Settled::NONE;
                self.moving = None;
            }
        }
        if self.settled != before {
            let Settled { rows, users } = self.settled;
            all.get(sql::SET_SETTLED).execute((rows, users))?;
        }
        Ok(())
    }

    /// Moves the generation's rows of the next user; answers how many.
    fn move_next_user(&mut self, all: &Statements<'_>) -> Result<usize> {
        let (generation, done) = (self.settled.rows, self.settled.users);
        let moving = self.moving.get_or_insert_with(|| {
            let mut users: Vec<_> = self.taken_in.keys().copied().filter(|user| user.0 > done).collect();
            users.sort_unstable_by(|one, other| other.cmp(one));
            users
        });
        let Some(user) = moving.pop() else {
            self.settled.users = i64::MAX;
            return Ok(0);
        };
        self.settled.users = user.0;
        // All that was theirs may have been confirmed meanwhile.
        let Some(rows) = self.taken_in.get_mut(&user) else { return Ok(0) };
        let old = rows.iter().map(|taken_in| taken_in.row).filter(|row| *row <= generation);
        let old: Vec<Value> = old.map(Value::from).collect();
        let moved = old.len();
        if moved == 0 {
            return Ok(0);
        }
        let mut move_on = all.get(sql::MOVE_ON);
        move_on.execute((user.0, Rc::new(old)))?;
        // Or it would keep the list.
        move_on.clear_bindings();
        rows.retain(|taken_in| taken_in.row > generation);
        if rows.is_empty() {
            self.taken_in.remove(&user);
        }
        self.count -= moved;
        Ok(moved)
    }

    fn know(&mut self, all: &Statements<'_>) -> Result<()> {
        if self.known {
            return Ok(());
        }
        *self = Boxes { roomy: self.roomy, ..Boxes::with_pace(self.pace) };
        let settled = |row: &rusqlite::Row<'_>| Ok(Settled { rows: row.get(0)?, users: row.get(1)? });
        self.settled = all.get(sql::SETTLED).query_row((), settled)?;
        let mut statement = all.get(sql::ALL_TAKEN_IN);
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let (mid, bytes) = (Mid(row.get(1)?), row.get::<_, i64>(3)? as u64);
            self.add(UserId(row.get(0)?), TakenIn { mid, row: row.get(2)?, bytes });
        }
        let highest: i64 = all.get(sql::LAST_TAKEN_IN).query_row((), |row| row.get(0))?;
        // Others may have written the largest number; then the next row is refused.
        self.next_row = highest.max(self.settled.rows).saturating_add(1);
        self.known = true;
        Ok(())
    }

    fn add(&mut self, user: UserId, taken_in: TakenIn) {
        let rows = self.taken_in.entry(user).or_default();
        let place = rows.partition_point(|other| other.mid <= taken_in.mid);
        rows.insert(place, taken_in);
        self.count += 1;
    }

    fn of(&mut self, all: &Statements<'_>, user: UserId) -> Result<&[TakenIn]> {
        self.know(all)?;
        Ok(self.taken_in.get(&user).map_or(&[], Vec::as_slice))
    }

    fn up_to(&mut self, all: &Statements<'_>, user: UserId, upto: Mid) -> Result<&[TakenIn]> {
        let rows = self.of(all, user)?;
        Ok(&rows[..rows.partition_point(|taken_in| taken_in.mid <= upto)])
    }
}

impl Part {
    /// Reads until a limit is reached.
    fn read(rows: impl Iterator<Item = Result<Kept>>, max_count: usize, max_bytes: usize) -> Result<Part> {
        let mut part = Part { kept: Vec::new(), cut: false };
        let mut room = max_bytes;
        for kept in rows {
            let kept = kept?;
            part.cut = part.kept.len() >= max_count || (kept.body.len() > room && !part.kept.is_empty());
            if part.cut {
                return Ok(part);
            }
            room = room.saturating_sub(kept.body.len());
            part.kept.push(kept);
        }
        // The statement itself may have stopped at its limit.
        part.cut = part.kept.len() >= max_count;
        Ok(part)
    }

    /// The highest number up to which nothing is missing here.
    fn complete_up_to(&self) -> Mid {
        match self.kept.last() {
            Some(last) if self.cut => last.mid,
            _ => Mid(i64::MAX),
        }
    }
}

/// What both parts hold, by mid, under the same limits as each: no further than both are complete.
fn merge(one: Part, other: Part, max_count: usize, max_bytes: usize) -> Result<Vec<Kept>> {
    let complete = one.complete_up_to().min(other.complete_up_to());
    let mut both = one.kept;
    both.extend(other.kept);
    both.sort_by_key(|kept| kept.mid);
    both.retain(|kept| kept.mid <= complete);
    Ok(Part::read(both.into_iter().map(Ok), max_count, max_bytes)?.kept)
}

fn kept(row: &rusqlite::Row<'_>) -> Result<Kept> {
    let sent = row::optional_integer(row, 2)?.unwrap_or(0) != 0;
    Ok(Kept { mid: Mid(row.get(0)?), body: row::bytes(row, 1)?, sent })
}

/// What the key of `box` says by itself.
fn taken(user: UserId, mid: Mid) -> rusqlite::Error {
    let text = format!("user {user} has a message with the number {} already", mid.0);
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CONSTRAINT_PRIMARYKEY), Some(text))
}

fn usage(row: &rusqlite::Row<'_>) -> Result<BoxUsage> {
    Ok(BoxUsage { count: row.get::<_, i64>(0)? as u64, bytes: row.get::<_, i64>(1)? as u64 })
}

fn sum(boxed: BoxUsage, taken_in: &[TakenIn]) -> BoxUsage {
    let bytes = taken_in.iter().map(|taken_in| taken_in.bytes).sum::<u64>();
    BoxUsage { count: boxed.count + taken_in.len() as u64, bytes: boxed.bytes + bytes }
}

#[cfg(test)]
mod tests;
