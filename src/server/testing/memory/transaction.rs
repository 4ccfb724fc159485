//! Connections to a made-up disk: what is read, what a transaction has changed, and what has voided it.

use super::disk::{Disk, Fault};
use super::tables::Tables;
use crate::clock::TrustedClock;
use crate::ids::UserId;
use crate::store::{Lookup, StorageError, Stored, UserRow};

/// Why a constraint keeps a row out.
pub(super) const REFUSES: &str = "a constraint";

/// Main's connection to a disk.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    pub(super) disk: Disk,
    /// The rows as the transaction under way sees them; none outside one, or when it was undone by a full disk.
    pub(super) draft: Option<Tables>,
    pub(super) transaction: Transaction,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transaction {
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
    pub(crate) fn open(&self, wall_ms: i64) -> MemoryStore {
        self.start(wall_ms).0
    }

    /// The same, and the time by which ages are judged.
    pub(crate) fn start(&self, wall_ms: i64) -> (MemoryStore, TrustedClock) {
        let trusted = self.0.lock().tables.recover(wall_ms);
        (self.beside(), trusted)
    }

    /// Another program's connection.
    pub(crate) fn beside(&self) -> MemoryStore {
        MemoryStore::on(self.clone())
    }

    pub(crate) fn lookup(&self) -> MemoryLookup {
        MemoryLookup(self.clone())
    }
}

impl MemoryStore {
    fn on(disk: Disk) -> Self {
        MemoryStore { disk, draft: None, transaction: Transaction::None }
    }

    pub(super) fn begins(&mut self) -> Stored<()> {
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

    pub(super) fn read<T>(&mut self, look: impl FnOnce(&Tables) -> T) -> Stored<T> {
        if self.disk.strikes(Fault::Read) {
            return Err(self.voided("reading", "a made-up fault"));
        }
        Ok(match &self.draft {
            Some(tables) => look(tables),
            None => look(&self.disk.0.lock().tables),
        })
    }

    pub(super) fn write<T>(
        &mut self,
        change: impl FnOnce(&mut Tables) -> Result<T, &'static str>,
    ) -> Stored<T> {
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

    pub(super) fn expect_open(&self) -> Stored<()> {
        match self.transaction {
            Transaction::Open => Ok(()),
            Transaction::None => Err(refusal("writing", "no transaction is open")),
            Transaction::Void => Err(refusal("writing", "the transaction has failed before")),
        }
    }

    pub(super) fn voided(&mut self, doing: &str, why: &str) -> StorageError {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Void;
        }
        refusal(doing, why)
    }
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

fn refusal(doing: &str, why: &str) -> StorageError {
    StorageError { text: format!("{doing} refused in memory: {why}"), refused: why == REFUSES }
}
