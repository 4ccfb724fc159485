//! A disk without a disk: what is committed, and the faults that are to come.

use super::tables::{Departed, Tables, Tally};
use crate::channel::Reason;
use crate::ids::UserId;
use crate::store::Ban;
use crate::store::DedupRecord;
use crate::store::{DepartureId, UserRow};
use crate::sync::{Arc, Mutex};
use std::collections::BTreeMap;

/// What outlives a server: the committed rows, and the faults that are to come. Copies are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(pub(super) Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
pub(super) struct Platter {
    pub(super) tables: Tables,
    /// Faults to come, each with how many such operations go well before it.
    faults: Vec<(Fault, usize)>,
    pub(super) full: bool,
    /// True exactly while the history's table takes no row.
    pub(super) refuses_history: bool,
    /// The row of the history that cannot be completed, if there is one.
    pub(super) refused_row: Option<DepartureId>,
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

/// A user, as committed.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) row: UserRow,
    /// What was ever written of their sessions.
    pub(crate) tally: Tally,
    /// Messages in the box.
    pub(crate) kept: usize,
    /// The most that it has held, also within a transaction.
    pub(crate) kept_at_most: usize,
}

impl Disk {
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

    /// Another program has put a constraint on the history that no completion of this row meets.
    pub(crate) fn refuse_to_complete(&self, row: DepartureId) {
        self.0.lock().refused_row = Some(row);
    }

    /// Another program changes a user's row.
    pub(crate) fn change_user(&self, user: UserId, change: impl FnOnce(&mut UserRow)) {
        change(self.0.lock().tables.users.get_mut(&user).expect("the user has a row"));
    }

    /// Another program deletes a user.
    pub(crate) fn delete_user(&self, user: UserId) {
        let tables = &mut self.0.lock().tables;
        tables.users.remove(&user).expect("the user has a row");
        tables.skeletons.remove(&user);
    }

    /// A user as committed.
    pub(crate) fn user(&self, user: UserId) -> Option<UserRow> {
        self.0.lock().tables.users.get(&user).cloned()
    }

    /// What a box holds, as committed, oldest first.
    pub(crate) fn texts(&self, user: UserId) -> Vec<String> {
        let platter = self.0.lock();
        platter
            .tables
            .boxes
            .get(&user)
            .into_iter()
            .flatten()
            .map(|(_, command)| text(&command.body))
            .collect()
    }

    /// The chats with `seq` that a starting server knows, accepted and unfinished, as `SqliteStore::open` answers them.
    pub(crate) fn chats(&self, now_ms: i64) -> [Vec<(DedupRecord, u64)>; 2] {
        let tables = &self.0.lock().tables;
        let aged = |at_ms: i64, chat: DedupRecord| (chat, (now_ms - at_ms).max(0) as u64);
        [
            tables.accepted.iter().map(|(at_ms, chat)| aged(*at_ms, *chat)).collect(),
            tables.reached.iter().map(|(at_ms, chat, _)| aged(*at_ms, *chat)).collect(),
        ]
    }

    /// The bans that a starting server knows.
    pub(crate) fn bans(&self) -> Vec<Ban> {
        self.0.lock().tables.bans.clone()
    }

    /// The history as committed, oldest first.
    pub(crate) fn departures(&self) -> Vec<Departed> {
        self.0.lock().tables.departures.values().cloned().collect()
    }

    /// The rows of the history above that number, with their numbers, as committed.
    pub(crate) fn departures_above(&self, number: i64) -> Vec<(i64, Departed)> {
        let platter = self.0.lock();
        let newer = platter.tables.departures.range(number + 1..);
        newer.map(|(number, departed)| (*number, departed.clone())).collect()
    }

    /// Every user as committed.
    pub(crate) fn standing(&self) -> Vec<Standing> {
        let platter = self.0.lock();
        let tables = &platter.tables;
        let of = |row: &UserRow| Standing {
            row: row.clone(),
            tally: tables.tallies.get(&row.id).copied().unwrap_or_default(),
            kept: tables.boxes.get(&row.id).map_or(0, BTreeMap::len),
            kept_at_most: tables.fullest.get(&row.id).copied().unwrap_or(0),
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

    pub(super) fn strikes(&self, fault: Fault) -> bool {
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

/// A message's body as text.
pub(crate) fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}
