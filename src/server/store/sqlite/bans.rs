//! Bans, of users and of addresses.

use super::sqlite_store::SqliteStore;
use super::{row, sql};
use crate::store::{Ban, BanSubject, Bans, Stored};

impl SqliteStore {
    /// The bans that are not over at `now_ms`. Rows that ban nobody, as others may have written them, are left out.
    pub(super) fn bans(&mut self, now_ms: i64) -> rusqlite::Result<Vec<Ban>> {
        self.prepared.with(|all| {
            let mut statement = all.get(sql::BANS);
            let rows = statement.query_map((now_ms,), row::ban)?;
            rows.filter_map(Result::transpose).collect()
        })
    }
}

impl Bans for SqliteStore {
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
}
