//! The rows of a store: what it is given and what it answers. Plain data.

use crate::channel::{ChannelId, Reason};
use crate::ids::{Epoch, GroupId, Mid, UserId};
use crate::ip_block::AddrBlock;
use crate::sync::Arc;
use blake2::{Blake2s256, Digest};
use ecow::EcoString;
use std::net::SocketAddr;

/// A row of `user`, as far as a login needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserRow {
    /// The user's number.
    pub id: UserId,
    /// The user's name, unique.
    pub name: String,
    /// The password's argon2id hash as a PHC string; none for a guest.
    pub password: Option<String>,
    /// The latest session's epoch; 0 before the first.
    pub epoch: Epoch,
    /// True exactly when the row says `online`.
    pub online: bool,
}

/// Why a name cannot be given to a new user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameTaken {
    /// Somebody has this very name.
    Exactly,
    /// Somebody has a name that can be mistaken for it.
    InLooks,
}

impl NameTaken {
    /// The sentence behind errno 1.
    pub fn text(self) -> &'static str {
        match self {
            NameTaken::Exactly => "the name is taken",
            NameTaken::InLooks => "the name looks like one that is taken",
        }
    }
}

/// How a row of `user` stands, as far as main answers for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserMark {
    /// The user's number.
    pub id: UserId,
    /// True exactly when the row says `online`.
    pub online: bool,
    /// The latest session's epoch.
    pub epoch: Epoch,
}

/// A user whom another one added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Friend {
    /// The friend's number.
    pub id: UserId,
    /// The friend's name.
    pub name: String,
}

/// A group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupRow {
    /// The group's number.
    pub id: GroupId,
    /// The group's name; not unique.
    pub name: String,
    /// What its creator said of it.
    pub desc: String,
}

/// A member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The member's number.
    pub id: UserId,
    /// The member's name.
    pub name: String,
    /// `creator` or `normal`.
    pub role: String,
}

/// A message in a box.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredMessage {
    /// Its number in the box.
    pub mid: Mid,
    /// The JSON object that was sent (msgid 6 or 10), without a terminator.
    pub body: Vec<u8>,
    /// True exactly when it was sent to a client that has not confirmed it.
    pub sent: bool,
}

/// One receiver of a message that is put into many boxes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BoxCopy {
    /// Whose box.
    pub user: UserId,
    /// Its number there.
    pub mid: Mid,
    /// As in [`StoredMessage`].
    pub sent: bool,
}

/// Bytes that a message takes in each box beside its body, as [`OfflineBox::kept_bytes`](super::OfflineBox::kept_bytes) counts them.
pub const COPY_BYTES: u64 = 32;

/// The number of a row of `departure`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DepartureId(pub i64);

/// The end of a session, as far as it is known when the user goes offline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DepartureRow {
    /// When it was noticed, in Unix milliseconds, as the wall clock said.
    pub at_ms: i64,
    /// The trusted time by which it is old one day, in milliseconds.
    pub trusted_ms: i64,
    /// Which channel; none after a crash.
    pub channel: Option<ChannelId>,
    /// Who left.
    pub user: UserId,
    /// The user's name.
    pub name: EcoString,
    /// The other end's address; none after a crash.
    pub peer: Option<SocketAddr>,
    /// Why.
    pub reason: Reason,
    /// The system's error number, where there was one.
    pub errno: Option<i32>,
    /// When the session began, in Unix milliseconds; none after a crash.
    pub since_ms: Option<i64>,
}

/// What is known of a departure only later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DepartureUpdate {
    /// From noticed to committed, in microseconds.
    pub offline_us: Option<i64>,
    /// From noticed to the fd closed, in microseconds; none where the channel stayed.
    pub closed_us: Option<i64>,
    /// Messages handed to the kernel during the session.
    pub delivered: i64,
    /// Messages that went back to the box.
    pub saved: i64,
    /// Messages that could not be kept.
    pub lost: i64,
}

/// How much a box holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BoxUsage {
    /// Messages.
    pub count: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl BoxUsage {
    /// The same box with one more message.
    #[must_use]
    pub fn with(self, body: &[u8]) -> Self {
        BoxUsage { count: self.count + 1, bytes: self.bytes + body.len() as u64 }
    }
}

/// What one call of [`OfflineBox::expire_kept`](super::OfflineBox::expire_kept) has removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExpiredKept {
    /// Messages.
    pub messages: u64,
    /// Whose boxes held them.
    pub users: Vec<UserId>,
    /// The user with whom the next call goes on; none when no box is left to look at.
    pub next: Option<UserId>,
}

/// Whom a ban keeps out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BanSubject {
    /// A user, from anywhere.
    User(UserId),
    /// Whoever comes from there.
    Block(AddrBlock),
}

/// A ban.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ban {
    /// Whom it keeps out.
    pub banned: BanSubject,
    /// The user's name, where it is a user and there is such a row.
    pub name: Option<Arc<str>>,
    /// When it is over, in milliseconds of the trusted clock; of the wall clock in what administrators are told.
    pub until_ms: i64,
    /// What the administrator said, one line.
    pub reason: Option<Arc<str>>,
}

/// How long a token outlives its session, in milliseconds (5 minutes).
pub const TOKEN_LIFE_MS: i64 = 5 * 60 * 1000;

/// What is stored of a token. It needs no salt and no cost, because 32 random bytes cannot be guessed.
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
    /// When it is over, in milliseconds of the trusted clock; none while its session goes on.
    pub expires_ms: Option<i64>,
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
    /// True exactly when its time is over.
    pub(crate) fn has_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }
}

/// The record that a chat with `seq` was accepted, by which a repetition is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DedupRecord {
    /// Whose chat.
    pub sender: UserId,
    /// What `seq`, receiver and text hash to.
    pub fingerprint: u128,
}

/// How long a [`DedupRecord`] is remembered, in microseconds (10 minutes).
pub const DEDUP_WINDOW_US: u64 = 600_000_000;
