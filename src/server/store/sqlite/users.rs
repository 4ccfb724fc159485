//! Users: who there is, who is online, and what their names look like. Main's writes and reads.

use super::sqlite_store::SqliteStore;
use super::statements::Statements;
use super::{row, sql};
use crate::ids::{EPOCH_BELIEVED, Epoch, UserId};
use crate::protocol::name::Skeletons;
use crate::store::{Lookup, NameTaken, Stored, Transactions, UserMark, Users};

/// Most users whose names' looks one registration writes for those who have come by other programs, so that a turn of
/// main's stays short. The start writes as many in one transaction, until all are written.
const SKELETONS_BATCH: u64 = 256;

impl SqliteStore {
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
}

impl Users for SqliteStore {
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
