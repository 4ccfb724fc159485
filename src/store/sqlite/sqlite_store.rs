//! Main's connection: the one that writes. Owned by main; it never checkpoints while the server runs.
//!
//! A write outside a transaction, or in one that has failed, is refused: SQLite may have rolled back by itself
//! (a full disk), and what followed would be committed one by one.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Params};

use super::dedup_log::{self, Acceptances};
use super::error::storage_error;
use super::offline_box::Boxes;
use super::place::Place;
use super::sql::Sql;
use super::statements::{Prepared, Statements};
use super::user_reader::find_user;
use super::{format, row, sql};
use crate::clock::TimeMark;
use crate::ids::{EPOCH_BELIEVED, Epoch, GroupId, Mid, UserId};
use crate::protocol::name::Skeletons;
use crate::store::{
    Ban, BanSubject, BoxCopy, BoxUsage, DedupRecord, DepartureId, DepartureRow, DepartureUpdate, ExpiredKept,
    Friend, GroupRow, Lookup, Member, NameTaken, PasswordMark, Storage, StorageError, Stored, StoredMessage,
    TokenHash, TokenRow, UserMark, UserRow,
};
use crate::sync::Arc;

/// Most departures or tokens that one call of [`Storage::expire_departures`] or [`Storage::expire_tokens`] removes, and
/// most boxes that one of [`Storage::expire_kept`] looks at, so that a turn of main's stays short.
pub const EXPIRE_BATCH: u64 = 1_000;

/// Most rows that one call of [`Storage::expire_accepted`] removes. They lie side by side.
pub const EXPIRE_ACCEPTED_BATCH: u64 = 1_000;

/// Most users whose names' looks one registration writes for those who have come by other programs, so that a turn of
/// main's stays short. The start writes as many in one transaction, until all are written.
const SKELETONS_BATCH: u64 = 256;

/// The store on SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    prepared: Prepared,
    path: PathBuf,
    transaction: Transaction,
    boxes: Boxes,
    acceptances: Acceptances,
    /// The highest number that a departure was given since the start.
    last_departure: i64,
    /// Behind the connection, so that it is dropped later.
    place: Arc<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transaction {
    /// True exactly when there is none: before `begin`, after `commit` or `rollback`.
    None,
    /// True exactly when all since `begin` has succeeded.
    Open,
    /// True exactly when something since `begin` has failed and `rollback` is due.
    Void,
}

impl SqliteStore {
    /// Prepares every statement once.
    pub(super) fn new(conn: Connection, path: PathBuf, place: Place) -> rusqlite::Result<SqliteStore> {
        // Hands a list of rows to one statement.
        rusqlite::vtab::array::load_module(&conn)?;
        let prepared = Prepared::of(conn)?;
        let (boxes, acceptances) = (Boxes::new(), Acceptances::default());
        let transaction = Transaction::None;
        let place = Arc::new(place);
        Ok(SqliteStore { prepared, path, transaction, boxes, acceptances, last_departure: 0, place })
    }

    /// Says whether the files are still those that were opened. Once they are not, no transaction begins or is committed.
    pub fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place)
    }

    fn expect_in_place(&self, doing: &str) -> Stored<()> {
        if !self.place.is_lost() {
            return Ok(());
        }
        let text = format!("{doing} refused: {} is not the file that was opened", self.path.display());
        Err(StorageError { text, refused: false })
    }

    /// The chats with `seq` that were accepted after `since_ms`, oldest first, each with its age in milliseconds at
    /// `now_ms`. What others have spoilt is left out.
    pub(super) fn accepted(
        &mut self,
        since_ms: i64,
        now_ms: i64,
    ) -> rusqlite::Result<Vec<(DedupRecord, u64)>> {
        self.prepared.with(|all| {
            let mut statement = all.get(sql::ACCEPTED);
            let mut rows = statement.query((since_ms,))?;
            let mut accepted = Vec::new();
            while let Some(row) = rows.next()? {
                // Others may have written any time.
                let age_ms = now_ms.saturating_sub(row.get(0)?).max(0) as u64;
                accepted.extend(dedup_log::read(&row::bytes(row, 1)?).map(|chat| (chat, age_ms)));
            }
            Ok(accepted)
        })
    }

    /// The chats with `seq` that had reached some of their receivers after `since_ms` and were not accepted, as
    /// [`SqliteStore::accepted`].
    pub(super) fn unfinished(
        &mut self,
        since_ms: i64,
        now_ms: i64,
    ) -> rusqlite::Result<Vec<(DedupRecord, u64)>> {
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

    /// The bans that are not over at `now_ms`. Rows that ban nobody, as others may have written them, are left out.
    pub(super) fn bans(&mut self, now_ms: i64) -> rusqlite::Result<Vec<Ban>> {
        self.prepared.with(|all| {
            let mut statement = all.get(sql::BANS);
            let rows = statement.query_map((now_ms,), row::ban)?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// Writes what the names of all users look like whose rows do not say so yet: all of them after a migration, and later
    /// those whom others have added.
    pub(super) fn fill_skeletons(&mut self) -> Stored<()> {
        loop {
            self.begin()?;
            let filled = self.run("comparing names", |all| set_skeletons(all, SKELETONS_BATCH))?;
            self.commit()?;
            if filled < SKELETONS_BATCH {
                return Ok(());
            }
        }
    }

    /// Counts what all boxes hold, so that main never has to. Boxes that are spoilt keep nobody from being served: then only
    /// what comes is counted.
    pub(super) fn count_boxes(&mut self) {
        if let Err(error) = self.kept_bytes() {
            tracing::error!(%error, "the messages that are kept cannot be counted; the bound of all boxes is for new ones");
            self.boxes.count_from_zero();
        }
        // The count outlives a rollback.
        self.boxes.committed();
    }

    /// Closes the store: an open transaction is undone, and the log moves into the database file, as far as
    /// nobody else reads. Without this call the next start finds the log, and nothing is lost.
    ///
    /// # Errors
    /// When the log could not be moved.
    pub fn close(mut self) -> Stored<()> {
        self.rollback();
        if let Some(found) = self.place.look() {
            tracing::error!("{found} before the server stopped; its last states are not stored there");
        }
        if self.place.is_lost() {
            // What has these names is not ours to tidy.
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            let kept = self.conn().set_db_config(keep, true).map(drop);
            return kept.map_err(|error| storage_error("leaving the files alone", &self.path, &error));
        }
        self.conn()
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
            .map_err(|error| storage_error("the last checkpoint", &self.path, &error))
    }

    fn conn(&self) -> &Connection {
        self.prepared.borrow_owner()
    }

    /// Runs a read, or the inside of a write. A failure voids the transaction, if there is one.
    fn run<T>(
        &mut self,
        doing: &'static str,
        operation: impl FnOnce(&Statements<'_>) -> rusqlite::Result<T>,
    ) -> Stored<T> {
        self.in_boxes(doing, |_, all| operation(all))
    }

    /// The same, for what concerns the boxes.
    fn in_boxes<T>(
        &mut self,
        doing: &'static str,
        operation: impl FnOnce(&mut Boxes, &Statements<'_>) -> rusqlite::Result<T>,
    ) -> Stored<T> {
        let result = self.prepared.with(|all| operation(&mut self.boxes, all));
        self.note(doing, result)
    }

    /// The accepted chats of the transaction under way go into their table.
    fn write_acceptances(&mut self) -> Stored<()> {
        let doing = "noting accepted chats";
        self.expect_open(doing)?;
        let written = self.prepared.with(|all| self.acceptances.write(all));
        self.note(doing, written)
    }

    /// A failure voids the transaction, if there is one.
    fn note<T>(&mut self, doing: &'static str, result: rusqlite::Result<T>) -> Stored<T> {
        result.map_err(|error| {
            if self.transaction == Transaction::Open {
                self.transaction = Transaction::Void;
            }
            // SQLite may have undone the transaction by itself.
            self.boxes.forget();
            storage_error(doing, &self.path, &error)
        })
    }

    /// Runs one statement that writes; answers how many rows it changed.
    fn write(&mut self, doing: &'static str, statement: Sql, params: impl Params) -> Stored<usize> {
        self.expect_open(doing)?;
        self.run(doing, |all| all.get(statement).execute(params))
    }

    /// Reads all rows of one statement.
    fn read_all<T>(
        &mut self,
        doing: &'static str,
        statement: Sql,
        params: impl Params,
        read: fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Stored<Vec<T>> {
        self.run(doing, |all| all.get(statement).query_map(params, read)?.collect())
    }

    fn count(&mut self, doing: &'static str, statement: Sql, user: UserId, max: usize) -> Stored<usize> {
        let params = (user.0, at_most(max));
        self.run(doing, |all| all.get(statement).query_row(params, |row| row.get::<_, i64>(0)))
            .map(|count| count as usize)
    }

    fn expect_open(&self, doing: &'static str) -> Stored<()> {
        let state = match self.transaction {
            Transaction::Open => return Ok(()),
            Transaction::None => "no transaction is open",
            Transaction::Void => "its transaction has failed before",
        };
        let text = format!("{doing} refused in {}: {state}", self.path.display());
        Err(StorageError { text, refused: false })
    }
}

impl Lookup for SqliteStore {
    fn user(&mut self, id: UserId) -> Stored<Option<UserRow>> {
        self.run("finding a user by number", |all| find_user(&mut all.get(sql::USER_BY_ID), id.0))
    }

    fn user_named(&mut self, name: &str) -> Stored<Option<UserRow>> {
        self.run("finding a user by name", |all| find_user(&mut all.get(sql::USER_BY_NAME), name))
    }
}

impl Storage for SqliteStore {
    fn begin(&mut self) -> Stored<()> {
        if self.transaction != Transaction::None {
            let text = format!(
                "beginning a transaction refused in {}: the last one is not over",
                self.path.display()
            );
            return Err(StorageError { text, refused: false });
        }
        self.expect_in_place("beginning a transaction")?;
        // IMMEDIATE waits for another writer here, where nothing is lost yet, and never in the middle.
        self.run("beginning a transaction", |all| all.get(sql::BEGIN).execute(()))?;
        self.transaction = Transaction::Open;
        Ok(())
    }

    fn commit(&mut self) -> Stored<()> {
        self.expect_open("committing")?;
        self.write_acceptances()?;
        self.expect_in_place("committing")?;
        self.run("committing", |all| all.get(sql::COMMIT).execute(()))?;
        self.transaction = Transaction::None;
        self.boxes.committed();
        Ok(())
    }

    fn rollback(&mut self) {
        self.transaction = Transaction::None;
        self.boxes.forget();
        self.acceptances.forget();
        // SQLite may have ended it already.
        if self.conn().is_autocommit() {
            return;
        }
        let undone = self.prepared.with(|all| all.get(sql::ROLLBACK).execute(()));
        if let Err(error) = undone {
            tracing::error!(error = %storage_error("rolling back", &self.path, &error), "store");
        }
    }

    fn mark_time(&mut self, mark: TimeMark) -> Stored<()> {
        self.write("noting the time", sql::MARK_TIME, (mark.trusted_ms, mark.wall_ms)).map(drop)
    }

    fn add_user(&mut self, name: &str, password: Option<&str>) -> Stored<Result<UserId, NameTaken>> {
        let doing = "adding a user";
        self.expect_open(doing)?;
        self.run(doing, |all| set_skeletons(all, SKELETONS_BATCH))?;
        let Skeletons { folded, cased } = Skeletons::of(name);
        if self.write(doing, sql::ADD_USER, (name, password, folded, cased))? > 0 {
            return Ok(Ok(UserId(self.conn().last_insert_rowid())));
        }
        Ok(Err(if self.user_named(name)?.is_some() { NameTaken::Exactly } else { NameTaken::InLooks }))
    }

    fn renew_password(&mut self, user: UserId, old: &str, new: &str) -> Stored<()> {
        self.write("renewing a password", sql::RENEW_PASSWORD, (user.0, old, new)).map(drop)
    }

    fn set_online(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write("setting a user online", sql::SET_ONLINE, (user.0, epoch.0)).map(drop)
    }

    fn restore_online(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write("setting a user online again", sql::SET_ONLINE, (user.0, epoch.0)).map(drop)
    }

    fn user_marks(&mut self, after: UserId, max: usize) -> Stored<Vec<UserMark>> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.read_all("reading users' states", sql::USER_MARKS, (after.0, max), row::mark)
    }

    fn set_offline(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write("setting a user offline", sql::SET_OFFLINE, (user.0, epoch.0)).map(drop)
    }

    fn set_epoch(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write("raising an epoch", sql::SET_EPOCH, (user.0, epoch.0, EPOCH_BELIEVED)).map(drop)
    }

    fn add_departure(&mut self, row: &DepartureRow) -> Stored<DepartureId> {
        let (channel, peer) = (row.channel.map(format::channel), row.peer.map(format::peer));
        let columns = (
            row.at_ms,
            channel.as_deref(),
            row.user.0,
            row.name.as_str(),
            peer.as_deref(),
            row.reason.word(),
            row.reason.initiator().word(),
            row.errno,
            row.since_ms,
            row.trusted_ms,
        );
        self.write("recording a departure", sql::ADD_DEPARTURE, columns)?;
        let mut id = self.conn().last_insert_rowid();
        if id <= self.last_departure {
            // What had that number is gone, but main may still complete it.
            let free = self.last_departure.saturating_add(1);
            self.write("renumbering a departure", sql::RENUMBER_DEPARTURE, (id, free))?;
            id = free;
        }
        self.last_departure = id;
        Ok(DepartureId(id))
    }

    fn complete_departures(
        &mut self,
        ids: RangeInclusive<DepartureId>,
        completion: &DepartureUpdate,
    ) -> Stored<()> {
        let DepartureUpdate { offline_us, closed_us, delivered, saved, lost } = *completion;
        let columns = (ids.start().0, ids.end().0, offline_us, closed_us, delivered, saved, lost);
        self.write("completing departures", sql::COMPLETE_DEPARTURES, columns).map(drop)
    }

    fn expire_departures(&mut self, before_ms: i64, keep: u64) -> Stored<u64> {
        let doing = "expiring departures";
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let mut expired = self.write(doing, sql::EXPIRE_OLDEST, (EXPIRE_BATCH as i64, keep))? as u64;
        let rest = EXPIRE_BATCH.saturating_sub(expired);
        if rest > 0 {
            expired += self.write(doing, sql::EXPIRE_BEFORE, (rest as i64, before_ms))? as u64;
        }
        Ok(expired)
    }

    fn put_ban(&mut self, ban: &Ban) -> Stored<()> {
        let (user, address) = row::banned_columns(ban.banned);
        let columns = (user, address, ban.until_ms, ban.reason.as_deref());
        self.write("banning", sql::PUT_BAN, columns).map(drop)
    }

    fn drop_ban(&mut self, banned: BanSubject) -> Stored<()> {
        self.write("lifting a ban", sql::DROP_BAN, row::banned_columns(banned)).map(drop)
    }

    fn expire_bans(&mut self, now_ms: i64) -> Stored<()> {
        self.write("expiring bans", sql::EXPIRE_BANS, (now_ms,)).map(drop)
    }

    fn add_token(&mut self, token: &TokenRow, keep: usize) -> Stored<()> {
        let doing = "adding a token";
        let (user, hash, mark) = (token.user.0, &token.hash.0[..], &token.mark.0[..]);
        self.write(doing, sql::ADD_TOKEN, (user, token.epoch.0, hash, mark, token.expires_ms))?;
        self.write(doing, sql::TRIM_TOKENS, (user, i64::try_from(keep).unwrap_or(i64::MAX))).map(drop)
    }

    fn replace_token(&mut self, used: &TokenHash, token: &TokenRow) -> Stored<()> {
        let (hash, mark) = (&token.hash.0[..], &token.mark.0[..]);
        let columns = (&used.0[..], token.epoch.0, hash, mark, token.expires_ms);
        self.write("replacing a token", sql::REPLACE_TOKEN, columns).map(drop)
    }

    fn token(&mut self, hash: &TokenHash) -> Stored<Option<TokenRow>> {
        self.run("finding a token", |all| {
            let found = all.get(sql::TOKEN).query_row((&hash.0[..],), row::token).optional()?;
            Ok(found.flatten())
        })
    }

    fn drop_token(&mut self, hash: &TokenHash) -> Stored<()> {
        self.write("removing a token", sql::DROP_TOKEN, (&hash.0[..],)).map(drop)
    }

    fn drop_tokens(&mut self, user: UserId) -> Stored<()> {
        self.write("removing a user's tokens", sql::DROP_TOKENS, (user.0,)).map(drop)
    }

    fn end_tokens(&mut self, user: UserId, upto: Epoch, expires_ms: i64) -> Stored<()> {
        self.write("ending tokens", sql::END_TOKENS, (user.0, upto.0, expires_ms)).map(drop)
    }

    fn renew_tokens(&mut self, user: UserId, old: &PasswordMark, new: &PasswordMark) -> Stored<()> {
        self.write("renewing tokens", sql::RENEW_TOKENS, (user.0, &old.0[..], &new.0[..])).map(drop)
    }

    fn expire_tokens(&mut self, now_ms: i64) -> Stored<u64> {
        let columns = (now_ms, EXPIRE_BATCH as i64);
        self.write("expiring tokens", sql::EXPIRE_TOKENS, columns).map(|count| count as u64)
    }

    fn add_friend(&mut self, user: UserId, friend: UserId) -> Stored<bool> {
        self.write("adding a friend", sql::ADD_FRIEND, (user.0, friend.0)).map(|count| count > 0)
    }

    fn count_friends(&mut self, user: UserId, max: usize) -> Stored<usize> {
        self.count("counting friends", sql::COUNT_FRIENDS, user, max)
    }

    fn friends(&mut self, user: UserId, after: UserId, max: usize) -> Stored<Vec<Friend>> {
        self.read_all("reading friends", sql::FRIENDS, (user.0, after.0, at_most(max)), |row| {
            Ok(Friend { id: UserId(row.get(0)?), name: row::text(row, 1)? })
        })
    }

    fn add_group(&mut self, creator: UserId, name: &str, desc: &str) -> Stored<GroupId> {
        let doing = "adding a group";
        self.write(doing, sql::ADD_GROUP, (name, desc))?;
        let group = GroupId(self.conn().last_insert_rowid());
        self.write(doing, sql::ADD_MEMBER, (group.0, creator.0, "creator"))?;
        Ok(group)
    }

    fn group(&mut self, id: GroupId) -> Stored<Option<GroupRow>> {
        self.run("reading a group", |all| all.get(sql::GROUP).query_row((id.0,), group_row).optional())
    }

    fn join_group(&mut self, group: GroupId, user: UserId) -> Stored<bool> {
        self.write("joining a group", sql::ADD_MEMBER, (group.0, user.0, "normal")).map(|count| count > 0)
    }

    fn count_groups(&mut self, user: UserId, max: usize) -> Stored<usize> {
        self.count("counting a user's groups", sql::COUNT_GROUPS, user, max)
    }

    fn groups_of(&mut self, user: UserId, after: GroupId, max: usize) -> Stored<Vec<GroupRow>> {
        let params = (user.0, after.0, at_most(max));
        self.read_all("reading a user's groups", sql::GROUPS_OF, params, group_row)
    }

    fn member_ids(&mut self, group: GroupId) -> Stored<Vec<UserId>> {
        self.read_all("reading who is in a group", sql::MEMBER_IDS, (group.0,), |row| Ok(UserId(row.get(0)?)))
    }

    fn members(&mut self, group: GroupId, after: UserId, max: usize) -> Stored<Vec<Member>> {
        let params = (group.0, after.0, at_most(max));
        self.read_all("reading a group's members", sql::MEMBERS, params, |row| {
            Ok(Member { id: UserId(row.get(0)?), name: row::text(row, 1)?, role: row::text(row, 2)? })
        })
    }

    fn keep(&mut self, user: UserId, mid: Mid, at_ms: i64, body: &[u8], sent: bool) -> Stored<()> {
        let doing = "keeping a message";
        self.expect_open(doing)?;
        self.in_boxes(doing, |boxes, all| boxes.keep(all, user, mid, at_ms, body, sent))
    }

    fn keep_copies(&mut self, copies: &[BoxCopy], at_ms: i64, body: &[u8]) -> Stored<()> {
        let doing = "keeping a message for many";
        self.expect_open(doing)?;
        self.in_boxes(doing, |boxes, all| boxes.keep_copies(all, copies, at_ms, body))
    }

    fn kept_bytes(&mut self) -> Stored<u64> {
        self.in_boxes("measuring all boxes", Boxes::total)
    }

    fn mark_sent(&mut self, user: UserId, upto: Mid) -> Stored<()> {
        let doing = "marking messages as sent";
        self.expect_open(doing)?;
        self.in_boxes(doing, |boxes, all| boxes.mark_sent(all, user, upto))
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
        let doing = "dropping messages";
        self.expect_open(doing)?;
        self.in_boxes(doing, |boxes, all| boxes.drop_kept(all, user, upto))
    }

    fn expire_kept(&mut self, before_ms: i64, from: Option<UserId>, max: u64) -> Stored<ExpiredKept> {
        let doing = "expiring messages";
        self.expect_open(doing)?;
        self.in_boxes(doing, |boxes, all| boxes.expire(all, before_ms, from, max, EXPIRE_BATCH))
    }

    fn accept(&mut self, acceptance: DedupRecord, at_ms: i64) -> Stored<()> {
        let doing = "noting an accepted chat";
        self.expect_open(doing)?;
        let added = self.prepared.with(|all| self.acceptances.add(all, acceptance, at_ms));
        self.note(doing, added)
    }

    fn expire_accepted(&mut self, before_ms: i64) -> Stored<bool> {
        self.write_acceptances()?;
        let columns = (EXPIRE_ACCEPTED_BATCH as i64, before_ms);
        let doing = "expiring accepted chats";
        let notes = self.write(doing, sql::EXPIRE_REACHED, columns)?;
        Ok(self.write(doing, sql::EXPIRE_ACCEPTED, columns)? + notes > 0)
    }

    fn note_reached(&mut self, chat: DedupRecord, at_ms: i64, users: &[UserId]) -> Stored<()> {
        let (sender, fingerprint) = dedup_log::columns(&chat);
        let columns = (at_ms, sender, fingerprint, dedup_log::users_written(users));
        self.write("noting whom a chat has reached", sql::NOTE_REACHED, columns).map(drop)
    }

    fn reached(&mut self, chat: DedupRecord) -> Stored<Vec<UserId>> {
        let rows = self.read_all(
            "reading whom a chat has reached",
            sql::REACHED,
            dedup_log::columns(&chat),
            |row| row::bytes(row, 0),
        )?;
        let mut users: Vec<_> = rows.iter().flat_map(|row| dedup_log::read_users(row)).collect();
        users.sort_unstable();
        Ok(users)
    }

    fn forget_reached(&mut self, chat: DedupRecord) -> Stored<()> {
        let columns = dedup_log::columns(&chat);
        self.write("forgetting whom a chat has reached", sql::FORGET_REACHED, columns).map(drop)
    }
}

/// Writes what names look like whose rows do not say so yet, of so many users at most; answers of how many.
fn set_skeletons(all: &Statements<'_>, max: u64) -> rusqlite::Result<u64> {
    let mut statement = all.get(sql::WITHOUT_SKELETON);
    let rows = statement.query_map((max as i64,), |row| Ok((row.get::<_, i64>(0)?, row::text(row, 1)?)))?;
    let users = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for (user, name) in &users {
        let Skeletons { folded, cased } = Skeletons::of(name);
        all.get(sql::SET_SKELETON).execute((user, folded, cased))?;
    }
    Ok(users.len() as u64)
}

/// A number of rows, as SQLite takes it.
fn at_most(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn group_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<GroupRow> {
    Ok(GroupRow { id: GroupId(row.get(0)?), name: row::text(row, 1)?, desc: row::text(row, 2)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Durability;
    use rusqlite::StatementStatus;

    fn opened() -> (tempfile::TempDir, SqliteStore) {
        let dir = tempfile::tempdir().unwrap();
        let opened = SqliteStore::open(dir.path(), Durability::Normal, 0).unwrap();
        (dir, opened.store)
    }

    fn pragma(store: &SqliteStore, name: &str) -> i64 {
        store.conn().pragma_query_value(None, name, |row| row.get(0)).unwrap()
    }

    fn keep_until_full(store: &mut SqliteStore) -> StorageError {
        let body = [b' '; 4_096];
        (1..10_000)
            .find_map(|mid| store.keep(UserId(1), Mid(mid), 0, &body, false).err())
            .expect("the page limit is far lower")
    }

    #[test]
    fn the_durability_level_is_sqlites_synchronous() {
        for (durability, expected) in [(Durability::Normal, 1), (Durability::Full, 2)] {
            let dir = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(dir.path(), durability, 0).unwrap().store;
            assert_eq!(pragma(&store, "synchronous"), expected);
        }
    }

    #[test]
    fn the_writer_never_checkpoints_by_itself_and_checks_no_foreign_keys() {
        let (_dir, store) = opened();
        assert_eq!(pragma(&store, "wal_autocheckpoint"), 0);
        assert_eq!(pragma(&store, "foreign_keys"), 0);
    }

    #[test]
    fn a_statement_is_planned_once_whatever_values_it_is_given() {
        let (_dir, mut store) = opened();
        store.begin().unwrap();
        for user in (1..5).map(UserId) {
            store.add_user(&user.to_string(), None).unwrap().unwrap();
            store.set_online(user, Epoch(user.0)).unwrap();
            store.user(user).unwrap();
            store.friends(user, UserId(user.0 - 9), 9 + user.0 as usize).unwrap();
            store.groups_of(user, GroupId(user.0), 9 + user.0 as usize).unwrap();
            store.members(GroupId(user.0), user, 9 + user.0 as usize).unwrap();
            store.count_friends(user, 9 + user.0 as usize).unwrap();
            store.count_groups(user, 9 + user.0 as usize).unwrap();
            store.box_usage(user).unwrap();
            store.kept(user, Mid(0), 4 + user.0 as usize, 1024).unwrap();
            store.user_marks(user, 4 + user.0 as usize).unwrap();
            store.set_offline(user, Epoch(user.0)).unwrap();
            store.end_tokens(user, Epoch(user.0), user.0).unwrap();
        }
        store.commit().unwrap();
        for statement in sql::ALL {
            let again = store.prepared.with(|all| all.get(*statement).get_status(StatementStatus::RePrepare));
            assert_eq!(again, 0, "{}", statement.text);
        }
    }

    #[test]
    fn a_full_disk_voids_the_transaction_and_room_makes_the_store_work_again() {
        let (_dir, mut store) = opened();
        let limit = pragma(&store, "page_count") + 20;
        store.conn().pragma_update(None, "max_page_count", limit).unwrap();

        store.begin().unwrap();
        let error = keep_until_full(&mut store).to_string();
        assert!(error.contains("keeping a message"), "{error}");
        assert!(error.contains("linger.db"), "{error}");
        assert!(error.contains("make room"), "{error}");
        // SQLite has rolled back by itself here; a write would be a transaction of its own.
        assert!(store.set_online(UserId(1), Epoch(1)).is_err());
        assert!(store.commit().is_err());
        store.rollback();
        assert_eq!(store.box_usage(UserId(1)).unwrap(), BoxUsage::default());

        store.conn().pragma_update(None, "max_page_count", limit + 1_000).unwrap();
        store.begin().unwrap();
        store.keep(UserId(1), Mid(1), 0, b"{}", false).unwrap();
        store.commit().unwrap();
        assert_eq!(store.box_usage(UserId(1)).unwrap(), BoxUsage { count: 1, bytes: 2 });
    }

    #[test]
    fn all_boxes_are_counted_at_the_start_and_by_nothing_that_is_undone_again() {
        let (dir, mut store) = opened();
        let kept = |store: &mut SqliteStore, mid| {
            store.begin().unwrap();
            store.keep(UserId(1), Mid(mid), 0, b"{}", false).unwrap();
        };
        kept(&mut store, 1);
        store.commit().unwrap();
        store.close().unwrap();
        let mut store = SqliteStore::open(dir.path(), Durability::Normal, 0).unwrap().store;
        kept(&mut store, 2);
        let with_both = store.kept_bytes().unwrap();
        store.rollback();
        assert_eq!(store.kept_bytes().unwrap() * 2, with_both);
        let counts = store.prepared.with(|all| all.get(sql::BOXED_TOTAL).get_status(StatementStatus::Run));
        assert_eq!(counts, 1);
    }

    fn plan_of(store: &SqliteStore, statement: Sql, params: impl Params) -> Vec<String> {
        let mut plan = store.conn().prepare(&format!("EXPLAIN QUERY PLAN {}", statement.text)).unwrap();
        let steps = plan.query_map(params, |row| row.get::<_, String>(3)).unwrap();
        steps.map(Result::unwrap).collect()
    }

    #[test]
    fn a_row_with_the_largest_number_does_not_use_up_all_numbers() {
        let (_dir, mut store) = opened();
        for table in ["user", "chatgroup"] {
            let last = format!("INSERT INTO {table} (id, name) VALUES (9223372036854775807, 'last')");
            store.conn().execute(&last, ()).unwrap();
        }
        store.begin().unwrap();
        assert_eq!(store.add_user("ann", None).unwrap(), Ok(UserId(1)));
        assert!(store.add_user("ann", None).unwrap().is_err(), "the name is taken");
        assert_eq!(store.add_user("bob", None).unwrap(), Ok(UserId(2)));
        assert_eq!(store.add_group(UserId(1), "all", "").unwrap(), GroupId(1));
        store.commit().unwrap();
    }

    #[test]
    fn finding_the_next_box_is_one_seek() {
        let (_dir, store) = opened();
        let steps = plan_of(&store, sql::NEXT_BOX, (1, 9));
        assert_eq!(steps, ["SEARCH box USING PRIMARY KEY (user>?)"]);
    }

    #[test]
    fn finding_names_that_look_alike_never_reads_all_users() {
        let (_dir, store) = opened();
        let adding = plan_of(&store, sql::ADD_USER, ("a", "hash", "a", "b"));
        let filling = plan_of(&store, sql::WITHOUT_SKELETON, (9,));
        assert!(adding.iter().any(|step| step.contains("INDEX user_by_cased_skeleton")), "{adding:?}");
        assert!(adding.iter().any(|step| step.contains("INDEX user_by_skeleton")), "{adding:?}");
        assert_eq!(filling, ["SEARCH user USING INDEX user_by_skeleton (skeleton=?)"]);
        assert!(adding.iter().all(|step| !step.starts_with("SCAN user")), "{adding:?}");
    }

    #[test]
    fn lists_are_read_from_where_they_go_on_and_nothing_is_sorted() {
        let (_dir, store) = opened();
        for statement in [sql::FRIENDS, sql::GROUPS_OF, sql::MEMBERS, sql::COUNT_FRIENDS, sql::COUNT_GROUPS] {
            let mut plan = store.conn().prepare(&format!("EXPLAIN QUERY PLAN {}", statement.text)).unwrap();
            let params = rusqlite::params_from_iter(vec![1; plan.parameter_count()]);
            let steps = plan.query_map(params, |row| row.get::<_, String>(3)).unwrap();
            for step in steps.map(Result::unwrap) {
                let is_read_through = step.starts_with("SCAN") && !step.contains("(subquery");
                assert!(!is_read_through && !step.contains("TEMP"), "{}: {step}", statement.text);
            }
        }
    }

    #[test]
    fn a_commit_that_fails_leaves_no_transaction_behind_the_rollback() {
        let (_dir, mut store) = opened();
        // A deferred foreign key is the one way to have COMMIT itself fail and the transaction stay open.
        store
            .conn()
            .execute_batch(
                "PRAGMA foreign_keys = ON;
                CREATE TEMP TABLE parent (x PRIMARY KEY);
                CREATE TEMP TABLE child (x REFERENCES parent DEFERRABLE INITIALLY DEFERRED);",
            )
            .unwrap();
        store.begin().unwrap();
        let user = store.add_user("alice", None).unwrap().unwrap();
        store.conn().execute("INSERT INTO child VALUES (1)", ()).unwrap();
        let error = store.commit().unwrap_err().to_string();
        assert!(error.contains("committing"), "{error}");
        assert!(!store.conn().is_autocommit(), "the test needs a transaction that is still open");
        store.rollback();
        assert!(store.conn().is_autocommit());
        assert_eq!(store.user(user).unwrap(), None);

        store.begin().unwrap();
        store.add_user("alice", None).unwrap().unwrap();
        store.commit().unwrap();
    }
}
