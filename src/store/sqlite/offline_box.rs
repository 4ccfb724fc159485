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
//! A message for many boxes is one row of `message`, with the list of its receivers: a copy costs some 20 bytes there
//! instead of a row. Such a row never changes. What each receiver has taken out or been sent is a row of `copy_mark` for
//! each user, by number. The copies move on to `box` with the generation; their rows there name the message, whose body
//! stays where it is until the last of them is gone.
//!
//! Owned by main, beside its connection. [`Boxes`] remembers which rows of `intake` and `message` are whose, for the
//! tables have no index. What it remembers follows the transaction under way; after a rollback it is read again.

use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Result, ffi};

use super::statements::Statements;
use super::{connect, row, sql};
use crate::hashing::IdMap;
use crate::ids::{Mid, UserId};
use crate::store::{BoxCopy, BoxUsage, COPY_BYTES, ExpiredKept, StoredMessage};

/// How fast messages move on, unless told.
const PACE: CompactionPolicy =
    CompactionPolicy { generation: 32_768, copies: 1_048_576, stride: 64, moves: 256 };

/// The longest body that goes through `intake`, in bytes. A longer one fills a good part of a page wherever it lies.
pub(super) const INTAKE_BODY_BYTES: usize = 512;

/// Messages of `intake` that are a flood: some 1 MiB.
const FLOOD: usize = 4_096;

/// Rows that one call of [`Boxes::expire`] moves or removes.
const EXPIRE_MOVES: usize = 2_000;

/// Rows that one call of [`Boxes::keep_copies`] moves at most.
const COPY_MOVES: usize = 2_560;

// Each row is moved once, and its number is passed once when rows are removed. More than two moves a message, and a generation ends.
const _: () = assert!(PACE.moves > 2 * PACE.stride);

/// When messages of `intake` move on, and how many at a time.
#[derive(Clone, Copy, Debug)]
struct CompactionPolicy {
    /// Messages at which a generation begins.
    generation: usize,
    /// Copies of shared messages at which a generation begins: 24 bytes of memory each.
    copies: usize,
    /// Messages kept between two moves.
    stride: usize,
    /// Rows that one move moves or removes, gaps included.
    moves: usize,
}

/// All three tables, and whose the rows of `intake` and `message` are.
#[derive(Debug)]
pub(super) struct Boxes {
    /// What has not moved, by mid, lowest first; each user here has at least one.
    taken_in: IdMap<UserId, Vec<StagedRow>>,
    /// How many of them are rows of `intake`.
    count: usize,
    /// How many of them are copies.
    copies: usize,
    /// How many copies of each row of `message` have not moved; each has at least one.
    shared: IdMap<i64, usize>,
    /// True exactly when `copy_mark` may have rows.
    marked: bool,
    /// Bytes that all boxes hold, as [`Boxes::total`] counts them; none before they have been counted.
    total: Option<u64>,
    /// The same as of the last commit.
    committed_total: Option<u64>,
    /// The next row's number. None that was below [`CompactionCursor::rows`] is given out again.
    next_row: i64,
    settled: CompactionCursor,
    /// Who is to move with the generation on its way, the next one last; none before that has been put in order.
    moving: Option<Vec<UserId>>,
    /// The last row of the generation that a round of expiry waits for.
    expires_behind: i64,
    /// Messages kept since the last move.
    since: usize,
    /// True exactly when the connection keeps the pages of a flood.
    roomy: bool,
    pace: CompactionPolicy,
    /// True exactly when the above is what the connection sees.
    known: bool,
}

/// A message that has not moved on to `box`.
#[derive(Clone, Copy, Debug)]
struct StagedRow {
    mid: Mid,
    row: i64,
    bytes: u32,
    lies: Lies,
}

/// Where such a message lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lies {
    /// In a row of `intake`, which says whether it was sent.
    Alone,
    /// In a row of `message`, with others.
    Shared { sent: bool },
}

// There may be a million of them.
const _: () = assert!(size_of::<StagedRow>() <= 24);

/// The row of `settled`: those rows of `intake` up to `rows` have moved whose user is not above `users`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CompactionCursor {
    /// The generation's last row; 0 when none is on its way.
    rows: i64,
    users: i64,
}

impl CompactionCursor {
    const NONE: CompactionCursor = CompactionCursor { rows: 0, users: i64::MIN };
}

/// The start of what one of the tables holds for a user, by mid.
struct Part {
    kept: Vec<StoredMessage>,
    /// True exactly when the table may hold more.
    cut: bool,
}

impl Boxes {
    pub(super) fn new() -> Self {
        Boxes::with_pace(PACE)
    }

    fn with_pace(pace: CompactionPolicy) -> Self {
        Boxes {
            taken_in: IdMap::default(),
            count: 0,
            copies: 0,
            shared: IdMap::default(),
            marked: false,
            total: None,
            committed_total: None,
            next_row: 1,
            settled: CompactionCursor::NONE,
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
        self.total = self.committed_total;
    }

    /// The transaction under way is committed.
    pub(super) fn committed(&mut self) {
        self.committed_total = self.total;
    }

    /// Bytes that all boxes hold: each body once, however many boxes share it, and [`COPY_BYTES`] for each message of
    /// each box. What others remove beside the server is noticed at the next start.
    pub(super) fn total(&mut self, all: &Statements<'_>) -> Result<u64> {
        if let Some(total) = self.total {
            return Ok(total);
        }
        self.know(all)?;
        let boxed = all.get(sql::BOXED_TOTAL).query_row((), usage)?;
        let taken_in = all.get(sql::TAKEN_IN_TOTAL).query_row((), usage)?;
        let rows = boxed.count + taken_in.count + self.copies as u64;
        let total = rows * COPY_BYTES + boxed.bytes + taken_in.bytes;
        self.total = Some(total);
        Ok(total)
    }

    /// Counts only what comes from here on.
    pub(super) fn count_from_zero(&mut self) {
        self.total = Some(0);
    }

    fn add_to_total(&mut self, copies: usize, bytes: u64) {
        if let Some(total) = &mut self.total {
            *total += copies as u64 * COPY_BYTES + bytes;
        }
    }

    fn take_from_total(&mut self, copies: u64, bytes: u64) {
        if let Some(total) = &mut self.total {
            *total = total.saturating_sub(copies * COPY_BYTES + bytes);
        }
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
        self.add_to_total(1, body.len() as u64);
        if body.len() > INTAKE_BODY_BYTES {
            return all.get(sql::KEEP).execute((user.0, mid.0, at_ms, body, sent)).map(drop);
        }
        self.know(all)?;
        let row = self.next_row;
        let taken_in = StagedRow { mid, row, bytes: body.len() as u32, lies: Lies::Alone };
        self.add(user, taken_in)?;
        all.get(sql::TAKE_IN).execute((row, user.0, mid.0, at_ms, body, sent))?;
        self.next_row = row.saturating_add(1);
        self.since += 1;
        if self.since < self.pace.stride {
            return Ok(());
        }
        self.since = 0;
        self.fit_cache(all)?;
        self.go_on_moving(all, self.pace.moves)
    }

    /// Puts one message into many boxes. Its body is stored once.
    pub(super) fn keep_copies(
        &mut self,
        all: &Statements<'_>,
        copies: &[BoxCopy],
        at_ms: i64,
        body: &[u8],
    ) -> Result<()> {
        self.know(all)?;
        let (row, bytes) = (self.next_row, body.len() as u32);
        for BoxCopy { user, mid, sent } in copies {
            let lies = Lies::Shared { sent: *sent };
            self.add(*user, StagedRow { mid: *mid, row, bytes, lies })?;
        }
        all.get(sql::SHARE).execute((row, at_ms, receivers(copies), body))?;
        self.next_row = row.saturating_add(1);
        self.add_to_total(copies.len(), body.len() as u64);
        self.go_on_moving(all, copies.len().saturating_mul(2).min(COPY_MOVES))
    }

    /// Moves some rows of the generation on its way, or begins one where there is enough for it.
    fn go_on_moving(&mut self, all: &Statements<'_>, most: usize) -> Result<()> {
        if self.settled == CompactionCursor::NONE {
            if self.count < self.pace.generation && self.copies < self.pace.copies {
                return Ok(());
            }
            self.begin_generation();
        }
        self.move_on(all, most)
    }

    /// Marks the messages up to and including `upto` as sent.
    pub(super) fn mark_sent(&mut self, all: &Statements<'_>, user: UserId, upto: Mid) -> Result<()> {
        self.know(all)?;
        let rows = self.taken_in.get_mut(&user).map_or(&mut [][..], Vec::as_mut_slice);
        let upto_here = rows.partition_point(|taken_in| taken_in.mid <= upto);
        let mut newest_copy = None;
        for StagedRow { mid, row, lies, .. } in &mut rows[..upto_here] {
            match lies {
                Lies::Alone => drop(all.get(sql::MARK_TAKEN_IN).execute((*row,))?),
                Lies::Shared { sent } => {
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
    ) -> Result<Vec<StoredMessage>> {
        let limit = i64::try_from(max_count).unwrap_or(i64::MAX);
        let mut statement = all.get(sql::KEPT);
        let boxed = statement.query_map((user.0, after.0, limit), kept)?;
        let boxed = Part::read(boxed, max_count, max_bytes)?;

        let (mut alone, mut shared) = (all.get(sql::TAKEN_IN), all.get(sql::SHARED_BODY));
        let rows = self.of(all, user)?;
        let rows = &rows[rows.partition_point(|taken_in| taken_in.mid <= after)..];
        let taken_in = rows.iter().map(|taken_in| match taken_in.lies {
            Lies::Alone => alone.query_row((taken_in.row,), kept),
            Lies::Shared { sent } => shared.query_row((taken_in.row,), |row| {
                Ok(StoredMessage { mid: taken_in.mid, body: row::bytes(row, 0)?, sent })
            }),
        });
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
            let shared =
                all.get(sql::SHARED_IN_BOX).query_map((user.0, upto.0), message)?.collect::<Result<_>>()?;
            all.get(sql::DROP_KEPT).execute((user.0, upto.0))?;
            self.boxed_are_gone(all, boxed, shared)?;
        }
        let gone = self.up_to(all, user, upto)?.to_vec();
        let mut newest_copy = None;
        for taken_in in &gone {
            match taken_in.lies {
                Lies::Alone => {
                    all.get(sql::DROP_TAKEN_IN).execute((taken_in.row,))?;
                    self.count -= 1;
                    self.take_from_total(1, taken_in.bytes.into());
                }
                Lies::Shared { .. } => {
                    self.take_from_total(1, 0);
                    if !self.copy_is_gone(all, taken_in.row)? {
                        newest_copy = Some(taken_in.mid);
                    }
                }
            }
        }
        // Not `upto`, below which a message may still come.
        if let Some(mid) = newest_copy {
            all.get(sql::MARK_COPIES_DROPPED).execute((user.0, mid.0))?;
            self.marked = true;
        }
        if let Some(rows) = self.taken_in.get_mut(&user) {
            rows.drain(..gone.len());
            if rows.is_empty() {
                self.taken_in.remove(&user);
            }
        }
        Ok(sum(boxed, &gone))
    }

    /// Messages of `box` have been removed, some of them rows that name one of `shared`.
    fn boxed_are_gone(&mut self, all: &Statements<'_>, gone: BoxUsage, shared: Vec<Message>) -> Result<()> {
        let own = gone.bytes.saturating_sub(shared.iter().map(|message| message.bytes).sum());
        self.take_from_total(gone.count, own);
        for Message { id, .. } in shared {
            self.drop_message(all, id)?;
        }
        Ok(())
    }

    /// One copy of a row of `message` is taken out or has moved on. False exactly when others are left in its list, so
    /// that somebody who reads the list has to be told that this one is gone.
    fn copy_is_gone(&mut self, all: &Statements<'_>, message: i64) -> Result<bool> {
        self.copies -= 1;
        if let Some(left) = self.shared.get_mut(&message) {
            *left -= 1;
            if *left > 0 {
                return Ok(false);
            }
            self.shared.remove(&message);
        }
        if !self.drop_message(all, message)? {
            all.get(sql::CLEAR_RECEIVERS).execute((message,))?;
        }
        Ok(true)
    }

    /// Removes a row of `message` if no box has a copy of it any more. False when one has.
    fn drop_message(&mut self, all: &Statements<'_>, message: i64) -> Result<bool> {
        if self.shared.contains_key(&message) {
            return Ok(false);
        }
        let bytes =
            all.get(sql::DROP_MESSAGE).query_row((message,), |row| row.get::<_, i64>(0)).optional()?;
        self.take_from_total(0, bytes.unwrap_or(0) as u64);
        Ok(bytes.is_some())
    }

    /// Removes messages as [`Storage::expire_kept`](crate::store::Storage::expire_kept) says, and looks at no
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
            if self.settled == CompactionCursor::NONE {
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
        let (mut gone, mut shared) = (BoxUsage::default(), Vec::new());
        let mut statement = all.get(sql::EXPIRE_BOX);
        let mut rows = statement.query(columns)?;
        while let Some(row) = rows.next()? {
            gone.count += 1;
            gone.bytes += row.get::<_, i64>(1)? as u64;
            shared.extend(row.get::<_, Option<i64>>(0)?.map(|id| Message { id, bytes: 0 }));
        }
        drop(rows);
        drop(statement);
        self.boxed_are_gone(all, gone, shared)?;
        Ok(gone.count)
    }

    /// Has the connection keep the pages of a flood until it is over.
    fn fit_cache(&mut self, all: &Statements<'_>) -> Result<()> {
        let flood = self.count >= FLOOD;
        if flood != self.roomy {
            connect::fit_cache(all.conn(), flood)?;
            self.roomy = flood;
        }
        Ok(())
    }

    /// All that is in `intake` and `message` now is to move.
    fn begin_generation(&mut self) {
        if self.count > 0 || self.copies > 0 {
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
                self.settled = CompactionCursor::NONE;
                self.moving = None;
                self.clear_marks(all)?;
            }
        }
        if self.settled != before {
            let CompactionCursor { rows, users } = self.settled;
            all.get(sql::SET_SETTLED).execute((rows, users))?;
        }
        Ok(())
    }

    /// Removes the marks of copies when there are no copies that they could be of.
    fn clear_marks(&mut self, all: &Statements<'_>) -> Result<()> {
        if self.marked && self.copies == 0 {
            all.get(sql::CLEAR_MARKS).execute(())?;
            self.marked = false;
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
        let old: Vec<StagedRow> =
            rows.iter().filter(|taken_in| taken_in.row <= generation).copied().collect();
        if old.is_empty() {
            return Ok(0);
        }
        rows.retain(|taken_in| taken_in.row > generation);
        if rows.is_empty() {
            self.taken_in.remove(&user);
        }
        let alone: Vec<Value> = old
            .iter()
            .filter(|taken_in| taken_in.lies == Lies::Alone)
            .map(|taken_in| taken_in.row.into())
            .collect();
        if !alone.is_empty() {
            self.count -= alone.len();
            let mut move_on = all.get(sql::MOVE_ON);
            move_on.execute((user.0, Rc::new(alone)))?;
            // Or it would keep the list.
            move_on.clear_bindings();
        }
        for taken_in in &old {
            let Lies::Shared { sent } = taken_in.lies else { continue };
            all.get(sql::MOVE_COPY).execute((user.0, taken_in.mid.0, sent, taken_in.row))?;
            self.copy_is_gone(all, taken_in.row)?;
        }
        Ok(old.len())
    }

    fn know(&mut self, all: &Statements<'_>) -> Result<()> {
        if self.known {
            return Ok(());
        }
        let (total, committed_total) = (self.total, self.committed_total);
        *self = Boxes { roomy: self.roomy, total, committed_total, ..Boxes::with_pace(self.pace) };
        let settled =
            |row: &rusqlite::Row<'_>| Ok(CompactionCursor { rows: row.get(0)?, users: row.get(1)? });
        self.settled = all.get(sql::SETTLED).query_row((), settled)?;
        let mut statement = all.get(sql::ALL_TAKEN_IN);
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let (user, mid, bytes) = (UserId(row.get(0)?), Mid(row.get(1)?), row.get::<_, i64>(3)? as u32);
            self.push(user, StagedRow { mid, row: row.get(2)?, bytes, lies: Lies::Alone });
        }
        self.know_copies(all)?;
        for rows in self.taken_in.values_mut() {
            rows.sort_by_key(|taken_in| taken_in.mid);
        }
        let highest: i64 = all.get(sql::LAST_TAKEN_IN).query_row((), |row| row.get(0))?;
        // Others may have written the largest number; then the next row is refused.
        self.next_row = highest.max(self.settled.rows).saturating_add(1);
        self.known = true;
        Ok(())
    }

    /// Reads whose the copies are that have not moved on. What others have spoilt is left out.
    fn know_copies(&mut self, all: &Statements<'_>) -> Result<()> {
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
                let moved = id <= self.settled.rows && user <= self.settled.users;
                if mid > dropped && !moved {
                    let lies = Lies::Shared { sent: sent != 0 || mid <= sent_upto };
                    self.push(UserId(user), StagedRow { mid: Mid(mid), row: id, bytes, lies });
                }
            }
        }
        Ok(())
    }

    /// Notes a message that has not moved on, in its place.
    fn add(&mut self, user: UserId, taken_in: StagedRow) -> Result<()> {
        let rows = self.taken_in.entry(user).or_default();
        let place = rows.partition_point(|other| other.mid < taken_in.mid);
        if rows.get(place).is_some_and(|other| other.mid == taken_in.mid) {
            return Err(taken(user, taken_in.mid));
        }
        rows.insert(place, taken_in);
        self.count_in(taken_in);
        Ok(())
    }

    /// The same at the end, whatever its place is.
    fn push(&mut self, user: UserId, taken_in: StagedRow) {
        self.taken_in.entry(user).or_default().push(taken_in);
        self.count_in(taken_in);
    }

    fn count_in(&mut self, taken_in: StagedRow) {
        match taken_in.lies {
            Lies::Alone => self.count += 1,
            Lies::Shared { .. } => {
                self.copies += 1;
                *self.shared.entry(taken_in.row).or_default() += 1;
            }
        }
    }

    fn of(&mut self, all: &Statements<'_>, user: UserId) -> Result<&[StagedRow]> {
        self.know(all)?;
        Ok(self.taken_in.get(&user).map_or(&[], Vec::as_slice))
    }

    fn up_to(&mut self, all: &Statements<'_>, user: UserId, upto: Mid) -> Result<&[StagedRow]> {
        let rows = self.of(all, user)?;
        Ok(&rows[..rows.partition_point(|taken_in| taken_in.mid <= upto)])
    }
}

impl Part {
    /// Reads until a limit is reached.
    fn read(
        rows: impl Iterator<Item = Result<StoredMessage>>,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Part> {
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
fn merge(one: Part, other: Part, max_count: usize, max_bytes: usize) -> Result<Vec<StoredMessage>> {
    let complete = one.complete_up_to().min(other.complete_up_to());
    let mut both = one.kept;
    both.extend(other.kept);
    both.sort_by_key(|kept| kept.mid);
    both.retain(|kept| kept.mid <= complete);
    Ok(Part::read(both.into_iter().map(Ok), max_count, max_bytes)?.kept)
}

/// A row of `message` that a row of `box` names.
struct Message {
    id: i64,
    /// Of its body, as a box counts them.
    bytes: u64,
}

fn message(row: &rusqlite::Row<'_>) -> Result<Message> {
    Ok(Message { id: row.get(0)?, bytes: row.get::<_, i64>(1)? as u64 })
}

/// The column `receivers`: what [`Boxes::know_copies`] and the view `kept` read.
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

fn kept(row: &rusqlite::Row<'_>) -> Result<StoredMessage> {
    let sent = row::optional_integer(row, 2)?.unwrap_or(0) != 0;
    Ok(StoredMessage { mid: Mid(row.get(0)?), body: row::bytes(row, 1)?, sent })
}

/// What the key of `box` says by itself.
fn taken(user: UserId, mid: Mid) -> rusqlite::Error {
    let text = format!("user {user} has a message with the number {} already", mid.0);
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CONSTRAINT_PRIMARYKEY), Some(text))
}

fn usage(row: &rusqlite::Row<'_>) -> Result<BoxUsage> {
    Ok(BoxUsage { count: row.get::<_, i64>(0)? as u64, bytes: row.get::<_, i64>(1)? as u64 })
}

fn sum(boxed: BoxUsage, taken_in: &[StagedRow]) -> BoxUsage {
    let bytes = taken_in.iter().map(|taken_in| u64::from(taken_in.bytes)).sum::<u64>();
    BoxUsage { count: boxed.count + taken_in.len() as u64, bytes: boxed.bytes + bytes }
}

#[cfg(test)]
mod tests;
