//! A store without a disk: all of [`Storage`] on plain maps, with faults to order.
//!
//! It answers as `crate::store` does, which a test below compares, and is stricter in two places: a message number
//! or an epoch that does not rise is refused, because nobody in the server may ever ask for that.

use crate::channel::Reason;
use crate::ident::{Epoch, GroupId, Mid, UserId};
use crate::service::bans::{Ban, Banned};
use crate::service::storage::{
    BoxUsage, Completion, DepartureId, DepartureRow, ExpiredKept, Friend, GroupRow, Kept, Lookup, Member,
    Storage, StorageError, Stored, UserMark, UserRow,
};
use crate::service::ticket::Acceptance;
use crate::service::tokens::{PasswordMark, TOKEN_LIFE_MS, TokenHash, TokenRow};
use crate::store::{EXPIRE_ACCEPTED_BATCH, EXPIRE_BATCH};
use crate::sync::{Arc, Lock};
use std::collections::{BTreeMap, BTreeSet};

/// What outlives a server: the committed rows, and the faults that are to come. Copies are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Lock<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    tables: Tables,
    /// Faults to come, each with how many such operations go well before it.
    faults: Vec<(Fault, usize)>,
    full: bool,
    /// True exactly while the history's table takes no row.
    refuses_history: bool,
}

/// An operation that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Another process holds the write lock.
    Begin,
    Read,
    Write,
    Commit,
}

/// A row of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Departed {
    pub(crate) row: DepartureRow,
    pub(crate) completion: Option<Completion>,
}

/// What was ever written of a user's sessions, whatever has expired since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// Sessions that began: each has an epoch of its own.
    pub(crate) begun: u64,
    /// Rows of the history.
    pub(crate) ended: u64,
}

/// A message in a box.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Letter {
    at_ms: i64,
    body: Arc<[u8]>,
    sent: bool,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    users: BTreeMap<UserId, UserRow>,
    /// The highest number ever given out; it is not given out again.
    last_user: i64,
    friends: BTreeSet<(UserId, UserId)>,
    groups: BTreeMap<GroupId, GroupRow>,
    members: BTreeMap<(GroupId, UserId), &'static str>,
    boxes: BTreeMap<UserId, BTreeMap<Mid, Letter>>,
    /// The highest message number of each box, taken out ones included.
    highest: BTreeMap<UserId, Mid>,
    departures: BTreeMap<i64, Departed>,
    bans: Vec<Ban>,
    /// Each of one session, by user and epoch.
    tokens: BTreeMap<(UserId, Epoch), TokenRow>,
    last_departure: i64,
    tallies: BTreeMap<UserId, Tally>,
    /// The most messages that each box has held.
    fullest: BTreeMap<UserId, usize>,
    /// Oldest first.
    accepted: Vec<(i64, Acceptance)>,
}

/// Main's connection to a disk.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    disk: Disk,
    /// The rows as the transaction under way sees them; none outside one, or when it was undone by a full disk.
    draft: Option<Tables>,
    transaction: Transaction,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transaction {
    None,
    Open,
    /// True exactly when something since `begin` has failed and `rollback` is due.
    Void,
}

/// An auth thread's connection: it sees what is committed.
#[derive(Debug)]
pub(crate) struct MemoryLookup(Disk);

impl Disk {
    /// Opens the disk as a starting server does: whoever is still marked online is set offline.
    pub(crate) fn open(&self, now_ms: i64) -> MemoryStore {
        self.0.lock().tables.recover(now_ms);
        self.beside()
    }

    /// Another program's connection.
    pub(crate) fn beside(&self) -> MemoryStore {
        MemoryStore { disk: self.clone(), draft: None, transaction: Transaction::None }
    }

    pub(crate) fn lookup(&self) -> MemoryLookup {
        MemoryLookup(self.clone())
    }

    /// Has the next operation of that kind fail.
    pub(crate) fn fail_next(&self, fault: Fault) {
        self.fail_after(0, fault);
    }

    /// Has an operation of that kind fail when so many have gone well.
    pub(crate) fn fail_after(&self, good: usize, fault: Fault) {
        self.0.lock().faults.push((fault, good));
    }

    /// Fills the disk up, or makes room: while it is full no write succeeds, and the first undoes its transaction.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Another program has put a constraint on the history that no row meets, or taken it away.
    pub(crate) fn set_refusing_history(&self, refuses: bool) {
        self.0.lock().refuses_history = refuses;
    }

    /// Another program changes a user's row.
    pub(crate) fn change_user(&self, user: UserId, change: impl FnOnce(&mut UserRow)) {
        change(self.0.lock().tables.users.get_mut(&user).expect("the user has a row"));
    }

    /// Another program deletes a user.
    pub(crate) fn delete_user(&self, user: UserId) {
        self.0.lock().tables.users.remove(&user).expect("the user has a row");
    }

    /// A user as committed.
    pub(crate) fn user(&self, user: UserId) -> Option<UserRow> {
        self.0.lock().tables.users.get(&user).cloned()
    }

    /// What a box holds, as committed, oldest first.
    pub(crate) fn texts(&self, user: UserId) -> Vec<String> {
        let platter = self.0.lock();
        platter.tables.boxes.get(&user).into_iter().flatten().map(|(_, letter)| text(&letter.body)).collect()
    }

    /// The chats with `seq` that a starting server knows, as `SqliteStore::open` answers them.
    pub(crate) fn accepted(&self, now_ms: i64) -> Vec<(Acceptance, u64)> {
        let age_ms = |at_ms: i64| (now_ms - at_ms).max(0) as u64;
        self.0
            .lock()
            .tables
            .accepted
            .iter()
            .map(|(at_ms, acceptance)| (*acceptance, age_ms(*at_ms)))
            .collect()
    }

    /// The history as committed, oldest first.
    pub(crate) fn departures(&self) -> Vec<Departed> {
        self.0.lock().tables.departures.values().cloned().collect()
    }

    /// The rows of the history above that number, with their numbers, as committed.
    pub(crate) fn departures_above(&self, number: i64) -> Vec<(i64, DepartureRow)> {
        let platter = self.0.lock();
        let newer = platter.tables.departures.range(number + 1..);
        newer.map(|(number, departed)| (*number, departed.row.clone())).collect()
    }

    /// Every user as committed, with what was written of their sessions and the most that their box has held, also
    /// within a transaction.
    pub(crate) fn standing(&self) -> Vec<(UserRow, Tally, usize)> {
        let platter = self.0.lock();
        let tables = &platter.tables;
        let of = |row: &UserRow| {
            let tally = tables.tallies.get(&row.id).copied().unwrap_or_default();
            (row.clone(), tally, tables.fullest.get(&row.id).copied().unwrap_or(0))
        };
        tables.users.values().map(of).collect()
    }

    /// Forgets faults that have not struck.
    pub(crate) fn heal(&self) {
        let mut platter = self.0.lock();
        platter.faults.clear();
        platter.full = false;
    }

    /// How a user's sessions ended, oldest first.
    pub(crate) fn ends(&self, user: UserId) -> Vec<Reason> {
        let of_user = |departed: &Departed| (departed.row.user == user).then_some(departed.row.reason);
        self.departures().iter().filter_map(of_user).collect()
    }

    fn strikes(&self, fault: Fault) -> bool {
        let faults = &mut self.0.lock().faults;
        let mut strikes = false;
        faults.retain_mut(|(kind, good)| {
            let due = *kind == fault && *good == 0;
            *good -= usize::from(*kind == fault && *good > 0);
            strikes |= due;
            !due
        });
        strikes
    }
}

/// Why a constraint keeps a row out.
const REFUSES: &str = "a constraint";

/// A message's body as text.
pub(crate) fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

impl MemoryStore {
    fn begins(&mut self) -> Stored<()> {
        if self.transaction != Transaction::None {
            return Err(refusal("beginning", "the last transaction is not over"));
        }
        if self.disk.strikes(Fault::Begin) {
            return Err(refusal("beginning", "somebody else holds the lock"));
        }
        self.transaction = Transaction::Open;
        self.draft = Some(self.disk.0.lock().tables.clone());
        Ok(())
    }

    fn read<T>(&mut self, look: impl FnOnce(&Tables) -> T) -> Stored<T> {
        if self.disk.strikes(Fault::Read) {
            return Err(self.voided("reading", "a made-up fault"));
        }
        Ok(match &self.draft {
            Some(tables) => look(tables),
            None => look(&self.disk.0.lock().tables),
        })
    }

    fn write<T>(&mut self, change: impl FnOnce(&mut Tables) -> Result<T, &'static str>) -> Stored<T> {
        self.expect_open()?;
        if self.disk.0.lock().full {
            // SQLite undoes the transaction by itself then.
            self.draft = None;
            return Err(self.voided("writing", "the disk is full"));
        }
        if self.disk.strikes(Fault::Write) {
            return Err(self.voided("writing", "a made-up fault"));
        }
        let Some(tables) = &mut self.draft else { return Err(refusal("writing", "nothing to write to")) };
        change(tables).map_err(|why| self.voided("writing", why))
    }

    fn expect_open(&self) -> Stored<()> {
        match self.transaction {
            Transaction::Open => Ok(()),
            Transaction::None => Err(refusal("writing", "no transaction is open")),
            Transaction::Void => Err(refusal("writing", "the transaction has failed before")),
        }
    }

    fn voided(&mut self, doing: &str, why: &str) -> StorageError {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Void;
        }
        refusal(doing, why)
    }
}

fn refusal(doing: &str, why: &str) -> StorageError {
    StorageError { text: format!("{doing} refused in memory: {why}"), refused: why == REFUSES }
}

impl Lookup for MemoryLookup {
    fn user(&mut self, id: UserId) -> Stored<Option<UserRow>> {
        Ok(self.0.user(id))
    }

    fn user_named(&mut self, name: &str) -> Stored<Option<UserRow>> {
        Ok(self.0.0.lock().tables.named(name))
    }
}

impl Lookup for MemoryStore {
    fn user(&mut self, id: UserId) -> Stored<Option<UserRow>> {
        self.read(|tables| tables.users.get(&id).cloned())
    }

    fn user_named(&mut self, name: &str) -> Stored<Option<UserRow>> {
        self.read(|tables| tables.named(name))
    }
}

impl Storage for MemoryStore {
    fn begin(&mut self) -> Stored<()> {
        self.begins()
    }

    fn commit(&mut self) -> Stored<()> {
        self.expect_open()?;
        if self.disk.strikes(Fault::Commit) {
            return Err(self.voided("committing", "a made-up fault"));
        }
        if let Some(tables) = self.draft.take() {
            self.disk.0.lock().tables = tables;
        }
        self.transaction = Transaction::None;
        Ok(())
    }

    fn rollback(&mut self) {
        self.draft = None;
        self.transaction = Transaction::None;
    }

    fn add_user(&mut self, name: &str, password: Option<&str>) -> Stored<Option<UserId>> {
        self.write(|tables| {
            // A name that is taken uses a number up all the same, as SQLite does.
            tables.last_user += 1;
            if tables.named(name).is_some() {
                return Ok(None);
            }
            let id = UserId(tables.last_user);
            let password = password.map(Into::into);
            let row = UserRow { id, name: name.into(), password, epoch: Epoch(0), online: false };
            tables.users.insert(id, row);
            Ok(Some(id))
        })
    }

    fn renew_password(&mut self, user: UserId, old: &str, new: &str) -> Stored<()> {
        self.write(|tables| {
            if let Some(password) = tables.users.get_mut(&user).and_then(|row| row.password.as_mut())
                && password == old
            {
                new.clone_into(password);
            }
            Ok(())
        })
    }

    fn set_online(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write(|tables| {
            let Some(row) = tables.users.get_mut(&user) else { return Ok(()) };
            if epoch < row.epoch || epoch == row.epoch && !row.online {
                return Err("an epoch that does not rise");
            }
            let begins = epoch > row.epoch;
            (row.online, row.epoch) = (true, epoch);
            tables.tallies.entry(user).or_default().begun += u64::from(begins);
            Ok(())
        })
    }

    fn restore_online(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write(|tables| {
            if let Some(row) = tables.users.get_mut(&user) {
                (row.online, row.epoch) = (true, epoch);
            }
            Ok(())
        })
    }

    fn user_marks(&mut self, after: UserId, max: usize) -> Stored<Vec<UserMark>> {
        self.read(|tables| {
            let above = tables.users.values().filter(|row| row.id > after).take(max);
            above.map(|row| UserMark { id: row.id, online: row.online, epoch: row.epoch }).collect()
        })
    }

    fn set_offline(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write(|tables| {
            if let Some(row) = tables.users.get_mut(&user).filter(|row| row.epoch == epoch) {
                row.online = false;
            }
            Ok(())
        })
    }

    fn set_epoch(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write(|tables| {
            if let Some(row) = tables.users.get_mut(&user) {
                row.epoch = row.epoch.max(epoch);
            }
            Ok(())
        })
    }

    fn add_departure(&mut self, row: &DepartureRow) -> Stored<DepartureId> {
        if self.disk.0.lock().refuses_history {
            return Err(self.voided("recording a departure", REFUSES));
        }
        self.write(|tables| Ok(tables.depart(row.clone())))
    }

    fn complete_departure(&mut self, id: DepartureId, completion: &Completion) -> Stored<()> {
        self.write(|tables| {
            if let Some(departed) = tables.departures.get_mut(&id.0) {
                let before = departed.completion.unwrap_or_default();
                departed.completion = Some(Completion {
                    offline_us: completion.offline_us.or(before.offline_us),
                    closed_us: completion.closed_us.or(before.closed_us),
                    ..*completion
                });
            }
            Ok(())
        })
    }

    fn expire_departures(&mut self, before_ms: i64, keep: u64) -> Stored<u64> {
        self.write(|tables| {
            let count = tables.departures.len() as u64;
            let too_many = count.saturating_sub(keep).min(EXPIRE_BATCH);
            for _ in 0..too_many {
                tables.departures.pop_first();
            }
            let oldest = tables.departures.iter().take((EXPIRE_BATCH - too_many) as usize);
            let old: Vec<i64> = oldest.filter(|(_, d)| d.row.at_ms < before_ms).map(|(id, _)| *id).collect();
            for id in &old {
                tables.departures.remove(id);
            }
            Ok(too_many + old.len() as u64)
        })
    }

    fn put_ban(&mut self, ban: &Ban) -> Stored<()> {
        self.write(|tables| {
            tables.bans.retain(|other| other.banned != ban.banned);
            tables.bans.push(ban.clone());
            Ok(())
        })
    }

    fn drop_ban(&mut self, banned: Banned) -> Stored<()> {
        self.write(|tables| {
            tables.bans.retain(|ban| ban.banned != banned);
            Ok(())
        })
    }

    fn expire_bans(&mut self, now_ms: i64) -> Stored<()> {
        self.write(|tables| {
            tables.bans.retain(|ban| ban.until_ms > now_ms);
            Ok(())
        })
    }

    fn add_token(&mut self, token: &TokenRow, keep: usize) -> Stored<()> {
        self.write(|tables| {
            tables.tokens.insert((token.user, token.epoch), token.clone());
            let of_user: Vec<_> = tables.tokens.keys().filter(|key| key.0 == token.user).copied().collect();
            for key in of_user.iter().rev().skip(keep) {
                tables.tokens.remove(key);
            }
            Ok(())
        })
    }

    fn replace_token(&mut self, used: &TokenHash, token: &TokenRow) -> Stored<()> {
        self.write(|tables| {
            let known = tables.tokens.len();
            tables.tokens.retain(|_, other| other.hash != *used);
            if tables.tokens.len() < known {
                tables.tokens.insert((token.user, token.epoch), token.clone());
            }
            Ok(())
        })
    }

    fn token(&mut self, hash: &TokenHash) -> Stored<Option<TokenRow>> {
        self.read(|tables| tables.tokens.values().find(|token| token.hash == *hash).cloned())
    }

    fn drop_token(&mut self, hash: &TokenHash) -> Stored<()> {
        self.write(|tables| {
            tables.tokens.retain(|_, token| token.hash != *hash);
            Ok(())
        })
    }

    fn drop_tokens(&mut self, user: UserId) -> Stored<()> {
        self.write(|tables| {
            tables.tokens.retain(|_, token| token.user != user);
            Ok(())
        })
    }

    fn end_tokens(&mut self, user: UserId, upto: Epoch, expires_ms: i64) -> Stored<()> {
        self.write(|tables| {
            for (_, token) in tables.tokens.range_mut((user, Epoch(i64::MIN))..=(user, upto)) {
                token.expires_ms.get_or_insert(expires_ms);
            }
            Ok(())
        })
    }

    fn renew_tokens(&mut self, user: UserId, old: &PasswordMark, new: &PasswordMark) -> Stored<()> {
        self.write(|tables| {
            for token in tables.tokens.values_mut().filter(|token| token.user == user && token.mark == *old) {
                token.mark = *new;
            }
            Ok(())
        })
    }

    fn expire_tokens(&mut self, now_ms: i64) -> Stored<u64> {
        self.write(|tables| {
            let over = |token: &TokenRow| token.expires_ms.filter(|at_ms| *at_ms <= now_ms);
            let mut old: Vec<_> =
                tables.tokens.iter().filter_map(|(key, token)| Some((over(token)?, *key))).collect();
            old.sort_unstable();
            old.truncate(EXPIRE_BATCH as usize);
            for (_, key) in &old {
                tables.tokens.remove(key);
            }
            Ok(old.len() as u64)
        })
    }

    fn add_friend(&mut self, user: UserId, friend: UserId) -> Stored<()> {
        self.write(|tables| {
            tables.friends.insert((user, friend));
            Ok(())
        })
    }

    fn friends(&mut self, user: UserId) -> Stored<Vec<Friend>> {
        self.read(|tables| {
            let added = tables.friends.iter().filter(|(of, _)| *of == user);
            let rows = added.filter_map(|(_, friend)| tables.users.get(friend));
            rows.map(|row| Friend { id: row.id, name: row.name.clone() }).collect()
        })
    }

    fn add_group(&mut self, creator: UserId, name: &str, desc: &str) -> Stored<GroupId> {
        self.write(|tables| {
            let id = GroupId(tables.groups.len() as i64 + 1);
            tables.groups.insert(id, GroupRow { id, name: name.into(), desc: desc.into() });
            tables.members.insert((id, creator), "creator");
            Ok(id)
        })
    }

    fn group(&mut self, id: GroupId) -> Stored<Option<GroupRow>> {
        self.read(|tables| tables.groups.get(&id).cloned())
    }

    fn join_group(&mut self, group: GroupId, user: UserId) -> Stored<()> {
        self.write(|tables| {
            tables.members.entry((group, user)).or_insert("normal");
            Ok(())
        })
    }

    fn groups_of(&mut self, user: UserId) -> Stored<Vec<GroupRow>> {
        self.read(|tables| {
            let joined = tables.members.keys().filter(|(_, member)| *member == user);
            joined.filter_map(|(group, _)| tables.groups.get(group)).cloned().collect()
        })
    }

    fn members(&mut self, group: GroupId) -> Stored<Vec<Member>> {
        self.read(|tables| {
            let joined = tables.members.iter().filter(|((of, _), _)| *of == group);
            let rows = joined.filter_map(|((_, user), role)| Some((tables.users.get(user)?, *role)));
            rows.map(|(row, role)| Member { id: row.id, name: row.name.clone(), role: role.into() }).collect()
        })
    }

    fn keep(&mut self, user: UserId, mid: Mid, at_ms: i64, body: &[u8], sent: bool) -> Stored<()> {
        self.write(|tables| {
            // What was sent and not confirmed comes back below what has come since.
            if !sent && tables.highest.get(&user).is_some_and(|highest| mid <= *highest) {
                return Err("a message number that does not rise");
            }
            let highest = tables.highest.entry(user).or_insert(mid);
            *highest = mid.max(*highest);
            let body = body.into();
            let messages = tables.boxes.entry(user).or_default();
            let taken = messages.insert(mid, Letter { at_ms, body, sent });
            let fullest = tables.fullest.entry(user).or_default();
            *fullest = messages.len().max(*fullest);
            match taken {
                Some(_) => Err("a message number that is taken"),
                None => Ok(()),
            }
        })
    }

    fn mark_sent(&mut self, user: UserId, upto: Mid) -> Stored<()> {
        self.write(|tables| {
            for (_, letter) in tables.boxes.entry(user).or_default().range_mut(..=upto) {
                letter.sent = true;
            }
            Ok(())
        })
    }

    fn box_usage(&mut self, user: UserId) -> Stored<BoxUsage> {
        self.read(|tables| tables.usage(user, Mid(i64::MAX)))
    }

    fn kept(&mut self, user: UserId, after: Mid, max_count: usize, max_bytes: usize) -> Stored<Vec<Kept>> {
        self.read(|tables| {
            let mut room = max_bytes;
            let mut kept: Vec<Kept> = Vec::new();
            let newer = tables.boxes.get(&user).into_iter().flatten().filter(|(mid, _)| **mid > after);
            for (mid, Letter { body, sent, .. }) in newer {
                if kept.len() >= max_count.max(1) || body.len() > room && !kept.is_empty() {
                    break;
                }
                room = room.saturating_sub(body.len());
                kept.push(Kept { mid: *mid, body: body.to_vec(), sent: *sent });
            }
            kept
        })
    }

    fn drop_kept(&mut self, user: UserId, upto: Mid) -> Stored<BoxUsage> {
        self.write(|tables| {
            let dropped = tables.usage(user, upto);
            if let Some(messages) = tables.boxes.get_mut(&user) {
                messages.retain(|mid, _| *mid > upto);
            }
            Ok(dropped)
        })
    }

    fn expire_kept(&mut self, before_ms: i64, from: Option<UserId>, max: u64) -> Stored<ExpiredKept> {
        self.write(|tables| {
            let mut expired = ExpiredKept::default();
            let boxes = tables
                .boxes
                .iter_mut()
                .filter(|(user, messages)| !messages.is_empty() && from.is_none_or(|from| **user >= from));
            for (looked_at, (user, messages)) in boxes.enumerate() {
                if looked_at as u64 == EXPIRE_BATCH {
                    return Ok(ExpiredKept { next: Some(*user), ..expired });
                }
                if messages.values().next().is_none_or(|oldest| oldest.at_ms >= before_ms) {
                    continue;
                }
                let room = max - expired.messages;
                let oldest = messages.iter().take(room as usize);
                let old: Vec<Mid> =
                    oldest.filter(|(_, letter)| letter.at_ms < before_ms).map(|(mid, _)| *mid).collect();
                messages.retain(|mid, _| !old.contains(mid));
                expired.messages += old.len() as u64;
                expired.users.push(*user);
                if old.len() as u64 == room {
                    return Ok(ExpiredKept { next: Some(*user), ..expired });
                }
            }
            Ok(expired)
        })
    }

    fn accept(&mut self, acceptance: Acceptance, at_ms: i64) -> Stored<()> {
        self.write(|tables| {
            tables.accepted.push((at_ms, acceptance));
            Ok(())
        })
    }

    fn expire_accepted(&mut self, before_ms: i64) -> Stored<u64> {
        self.write(|tables| {
            let old = tables.accepted.iter().take(EXPIRE_ACCEPTED_BATCH as usize);
            let count = old.take_while(|(at_ms, _)| *at_ms <= before_ms).count();
            tables.accepted.drain(..count);
            Ok(count as u64)
        })
    }
}

impl Tables {
    fn named(&self, name: &str) -> Option<UserRow> {
        self.users.values().find(|row| row.name == name).cloned()
    }

    fn usage(&self, user: UserId, upto: Mid) -> BoxUsage {
        let mut usage = BoxUsage::default();
        for (_, letter) in self.boxes.get(&user).into_iter().flatten().filter(|(mid, _)| **mid <= upto) {
            usage.count += 1;
            usage.bytes += letter.body.len() as u64;
        }
        usage
    }

    fn depart(&mut self, row: DepartureRow) -> DepartureId {
        self.last_departure += 1;
        self.tallies.entry(row.user).or_default().ended += 1;
        self.departures.insert(self.last_departure, Departed { row, completion: None });
        DepartureId(self.last_departure)
    }

    fn recover(&mut self, now_ms: i64) {
        for token in self.tokens.values_mut() {
            token.expires_ms.get_or_insert(now_ms + TOKEN_LIFE_MS);
        }
        let online: Vec<UserId> = self.users.values().filter(|row| row.online).map(|row| row.id).collect();
        for id in online {
            let Some(row) = self.users.get_mut(&id) else { continue };
            (row.online, row.epoch) = (false, Epoch(row.epoch.0 + 1));
            let name = row.name.clone();
            self.depart(DepartureRow {
                at_ms: now_ms,
                channel: None,
                user: id,
                name,
                peer: None,
                reason: Reason::ServerCrash,
                errno: None,
                since_ms: None,
            });
        }
    }
}

#[cfg(test)]
mod tests;
