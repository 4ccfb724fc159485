//! Tokens: each logs in once without a password, so that many who come back at once cost no password hashing.
//!
//! On main, which makes them and judges them. A worker only hashes what a client presents; the store knows hashes,
//! nobody keeps the tokens themselves. A token belongs to the session that it was given to: it is good while that
//! goes on and [`TOKEN_LIFE_MS`](crate::store::TOKEN_LIFE_MS) longer. It is used up in the same transaction that begins the next session, so a
//! login that fails leaves it good, and of two logins by one token only one begins a session.

use super::context::Context;
use super::replies::refusal;
use super::transaction::AfterCommit;
use crate::auth::login_limiter::{Failure, Tried};
use crate::ids::{Epoch, UserId};
use crate::message::reply::Token;
use crate::message::reply_to::ReplyTo;
use crate::message::request::{HashTag, Login, Presented};
use crate::protocol::errno::Errno;
use crate::store::{PasswordMark, Storage, TokenHash, TokenRow, UserRow};
use std::net::SocketAddr;

/// Tokens of one user at once, each of another session; the newest stay.
pub const TOKENS_MAX: usize = 8;

impl<St: Storage, S: Send + 'static> Context<St, S> {
    /// The row of the user whom a token that is good names; else the login is answered. To be asked each time that a login
    /// goes on: while it waited, another may have used the token, or the token may have died. `known` is the token's row,
    /// if it was read just now.
    pub(super) fn owner_of(
        &mut self,
        hash: TokenHash,
        known: Option<TokenRow>,
        login: &mut Login,
    ) -> Option<UserRow> {
        let found = self.attempt(|store| {
            let token = if known.is_some() { known } else { store.token(&hash)? };
            let Some(token) = token else { return Ok(None) };
            Ok(store.user(token.user)?.map(|row| (token, row)))
        });
        let read = found.is_some();
        if let Some(Some((token, row))) = found
            && let Some(password) = row.password.as_deref()
            && !token.has_expired(self.trusted_ms())
        {
            let verified = Some(HashTag::of(password));
            // The mark of a password costs more than all the rest, and most are looked at twice: a token that went with
            // this very password still does.
            if login.verified == verified || token.mark == PasswordMark::of(password) {
                login.verified = verified;
                login.token = Some(Presented { hash, mark: token.mark });
                return Some(row);
            }
        }
        self.refuse_token(&login.reply_to, login.peer, read);
        None
    }

    /// A session begins: the token that it came by is used up, and it gets one of its own if it wants one.
    pub(super) fn exchange_token(&mut self, login: &Login, row: &UserRow, epoch: Epoch) -> Option<Token> {
        if login.token.is_some() {
            self.handles.metrics.logins_resumed.add(1);
        }
        if let (Some(before), Some(now)) = (&row.password, &login.renewed) {
            let (before, now) = (PasswordMark::of(before), PasswordMark::of(now));
            // The hash is another one, the password is not.
            self.attempt(|store| store.renew_tokens(login.user, &before, &now));
        }
        let used = login.token.map(|used| used.hash);
        let given = if login.caps.resume {
            let stored = login.renewed.as_deref().or(row.password.as_deref());
            // The password is the one that the token went with.
            let mark = login.token.map(|used| used.mark).or_else(|| stored.map(PasswordMark::of));
            mark.and_then(|mark| new_token(login.user, epoch, mark))
        } else {
            None
        };
        match (used, &given) {
            (Some(used), Some((_, row))) => drop(self.attempt(|store| store.replace_token(&used, row))),
            (Some(used), None) => drop(self.attempt(|store| store.drop_token(&used))),
            (None, Some((_, row))) => drop(self.attempt(|store| store.add_token(row, TOKENS_MAX))),
            (None, None) => {}
        }
        given.map(|(token, _)| token)
    }

    /// A token that was used up in this transaction may be good again if the transaction fails, so then nothing is said of it. `read`
    /// where the store could be read: else nobody knows whether it is good.
    pub(super) fn refuse_token(&mut self, reply_to: &ReplyTo, peer: SocketAddr, read: bool) {
        if read {
            let failure = Failure { channel: reply_to.channel, peer, tried: Tried::Token };
            self.handles.attempts.fail(&failure, self.now.mono_us);
        }
        let worker = self.handles.table.worker(reply_to.channel);
        self.then(AfterCommit::Commit {
            worker,
            command: refusal(reply_to, Errno::Refused),
            otherwise: Box::new(refusal(reply_to, Errno::NotStored)),
        });
    }
}

/// A token for a session of a user whose password has that mark, and its row.
fn new_token(user: UserId, epoch: Epoch, mark: PasswordMark) -> Option<(Token, TokenRow)> {
    match Token::random() {
        Ok(token) => {
            let hash = TokenHash::of(token.text());
            Some((token, TokenRow { user, epoch, hash, mark, expires_ms: None }))
        }
        Err(error) => {
            tracing::error!(%user, %error, "a session gets no token");
            None
        }
    }
}

#[cfg(test)]
mod tests;
