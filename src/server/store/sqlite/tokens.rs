//! Resume tokens, each of one session.

use super::sqlite_store::{EXPIRE_BATCH, SqliteStore};
use super::{row, sql};
use crate::ids::{Epoch, UserId};
use crate::store::{PasswordMark, Stored, TokenHash, TokenRow, Tokens};
use rusqlite::OptionalExtension;

impl Tokens for SqliteStore {
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
}
