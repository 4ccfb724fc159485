//! Tokens: each logs in once without a password, so that many who come back at once cost no password hashing.
//!
//! On main, which makes them and judges them. A worker only hashes what a client presents; the store knows hashes,
//! nobody keeps the tokens themselves. A token belongs to the session that it was given to: it is good while that
//! goes on and [`TOKEN_LIFE_MS`] longer. It is used up in the same transaction that begins the next session, so a
//! login that fails leaves it good, and of two logins by one token only one begins a session.

use super::ask::{Asker, Login, Resume};
use super::auth::Verified;
use super::storage::{Storage, UserRow};
use crate::ident::{Epoch, UserId};
use crate::offline::batch::Effect;
use crate::offline::drain::{Drain, refusal};
use crate::protocol::errno::Errno;
use blake2::{Blake2s256, Digest};
use std::fmt::{self, Write as _};

/// How long a token outlives its session, in milliseconds (5 minutes).
pub const TOKEN_LIFE_MS: i64 = 5 * 60 * 1000;
/// Tokens of one user at once, each of another session; the newest stay.
pub const TOKENS_MAX: usize = 8;
/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// A token as its client gets it.
pub struct Token(Box<str>);

/// What is stored of a token. It needs no salt and no cost: nobody tries 32 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TokenHash(pub [u8; 32]);

/// Tells one stored password from the next. A token dies when its user's mark is another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasswordMark(pub [u8; 32]);

/// A row of `token`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRow {
    /// Whose.
    pub user: UserId,
    /// The session that it was given to.
    pub epoch: Epoch,
    /// What the token hashes to.
    pub hash: TokenHash,
    /// The user's password when it was given.
    pub mark: PasswordMark,
    /// When it is over, in Unix milliseconds; none while its session goes on.
    pub expires_ms: Option<i64>,
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn random() -> Result<Token, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        let mut text = String::with_capacity(2 * TOKEN_BYTES);
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Token(text.into()))
    }

    /// What the client is told, and presents.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    /// Says nothing: whoever reads a log must not become somebody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl TokenHash {
    /// Of what a client presents, whatever that is.
    pub fn of(text: &str) -> TokenHash {
        TokenHash(Blake2s256::digest(text.as_bytes()).into())
    }
}

impl PasswordMark {
    /// Of a password's PHC string, whose salt makes it unique.
    pub fn of(stored: &str) -> PasswordMark {
        PasswordMark(Blake2s256::digest(stored.as_bytes()).into())
    }
}

impl TokenRow {
    /// True exactly when it still logs in a user with that password hash.
    fn is_good(&self, stored: &str, now_ms: i64) -> bool {
        self.expires_ms.is_none_or(|at_ms| now_ms < at_ms) && self.mark == PasswordMark::of(stored)
    }
}

impl<St: Storage, S: Send + 'static> Drain<St, S> {
    /// A login by token.
    pub(crate) fn resume(&mut self, resume: Resume) {
        let Resume { asker, peer, token, caps } = resume;
        match self.batch.attempt(|store| store.token(&token)) {
            Some(Some(row)) => self.log_in(Login {
                asker,
                peer,
                user: row.user,
                token: Some(token),
                verified: None,
                renewed: None,
                again: None,
                caps,
                lines: false,
                proven: false,
            }),
            Some(None) | None => self.refuse_token(&asker),
        }
    }

    /// True exactly when the login goes by no token or by one that is good; else it is answered. To be asked each time
    /// that a login goes on: while it waited, another may have used the token, or the token may have died.
    pub(crate) fn token_holds(&mut self, login: &mut Login) -> bool {
        let Some(hash) = login.token else { return true };
        let now_ms = self.now.unix_ms;
        let stored = self.batch.attempt(|store| {
            let Some(token) = store.token(&hash)? else { return Ok(None) };
            let stored = store.user(token.user)?.and_then(|row| row.password);
            Ok(stored.filter(|stored| token.is_good(stored, now_ms)))
        });
        let Some(Some(stored)) = stored else {
            self.refuse_token(&login.asker);
            return false;
        };
        login.verified = Some(Verified::of(&stored));
        true
    }

    /// A session begins: the token that it came by is used up, and it gets one of its own if it wants one.
    pub(crate) fn exchange_token(&mut self, login: &Login, row: &UserRow, epoch: Epoch) -> Option<Token> {
        let user = login.user;
        if let Some(hash) = login.token {
            self.batch.attempt(|store| store.drop_token(&hash));
            self.around.metrics.logins_resumed.add(1);
        }
        let before = row.password.as_deref()?;
        let now = login.renewed.as_deref().unwrap_or(before);
        let (before, mark) = (PasswordMark::of(before), PasswordMark::of(now));
        if before != mark {
            // The hash is another one, the password is not.
            self.batch.attempt(|store| store.renew_tokens(user, &before, &mark));
        }
        if !login.caps.resume {
            return None;
        }
        let token = match Token::random() {
            Ok(token) => token,
            Err(error) => {
                tracing::error!(%user, %error, "a session gets no token");
                return None;
            }
        };
        let given = TokenRow { user, epoch, hash: TokenHash::of(token.text()), mark, expires_ms: None };
        self.batch.attempt(|store| store.add_token(&given, TOKENS_MAX));
        Some(token)
    }

    /// A token that was used up in this batch may be good again if the batch fails, so then nothing is said of it.
    fn refuse_token(&mut self, asker: &Asker) {
        let worker = self.around.table.worker(asker.channel);
        self.batch.then(Effect::Commit {
            worker,
            letter: refusal(asker, Errno::Refused),
            otherwise: refusal(asker, Errno::NotStored),
        });
    }
}

#[cfg(test)]
mod tests;
