//! What the services ask of a store. `crate::store` answers it with SQLite, a simulation with plain maps.
//!
//! Only main holds a [`Storage`]; the auth threads hold a [`Lookup`] each, which can only read. Everything
//! between [`Storage::begin`] and [`Storage::commit`] is one transaction. All times but [`DepartureRow::at_ms`] and
//! [`DepartureRow::since_ms`] are of the [trusted clock](crate::clock::TrustedClock).

use super::bans::{Ban, Banned};
use super::ticket::Acceptance;
use super::tokens::{PasswordMark, TokenHash, TokenRow};
use crate::channel::{ChannelId, Reason};
use crate::clock::TimeMark;
use crate::ident::{Epoch, GroupId, Mid, UserId};
use crate::protocol::name::composed;
use ecow::EcoString;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// What a store answers.
pub type Stored<T> = Result<T, StorageError>;

/// A store that could not do what it was asked. The transaction under way is void; [`Storage::rollback`] it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct StorageError {
    /// Which operation, on what, and why not.
    pub text: String,
    /// True exactly when the database is there and refuses this very operation, as a constraint or a missing table does:
    /// not for want of room, memory or a lock, and not for a disk that fails.
    pub refused: bool,
}

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
pub struct Kept {
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
    /// As in [`Kept`].
    pub sent: bool,
}

/// Bytes that a message takes in each box beside its body, as [`Storage::kept_bytes`] counts them.
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
pub struct Completion {
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

/// What one call of [`Storage::expire_kept`] has removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExpiredKept {
    /// Messages.
    pub messages: u64,
    /// Whose boxes held them.
    pub users: Vec<UserId>,
    /// The user with whom the next call goes on; none when no box is left to look at.
    pub next: Option<UserId>,
}

/// Reading users, for the auth threads.
pub trait Lookup {
    /// The user with that number.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn user(&mut self, id: UserId) -> Stored<Option<UserRow>>;

    /// The user with that name, compared byte by byte.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn user_named(&mut self, name: &str) -> Stored<Option<UserRow>>;

    /// The user whom a client means by that name: the one who has this very name, else the one who has its composed form.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn user_called(&mut self, name: &str) -> Stored<Option<UserRow>> {
        match (self.user_named(name)?, composed(name)) {
            (None, Some(composed)) => self.user_named(&composed),
            (found, _) => Ok(found),
        }
    }
}

/// Everything main reads and writes. Each method fails with [`StorageError`] when the store does.
#[expect(clippy::missing_errors_doc, reason = "said once for all above")]
pub trait Storage: Lookup {
    /// Opens a transaction that may write. Once only before `commit` or `rollback`.
    fn begin(&mut self) -> Stored<()>;
    /// Makes all since `begin` durable, as far as the durability level promises.
    fn commit(&mut self) -> Stored<()>;
    /// Undoes all since `begin`. Harmless without one.
    fn rollback(&mut self);
    /// Notes what time it is, for the next run of the server.
    fn mark_time(&mut self, mark: TimeMark) -> Stored<()>;

    /// Adds a user who is offline, unless somebody has that name or one that can be mistaken for it.
    fn add_user(&mut self, name: &str, password: Option<&str>) -> Stored<Result<UserId, NameTaken>>;
    /// Replaces a password hash, if it is still `old`.
    fn renew_password(&mut self, user: UserId, old: &str, new: &str) -> Stored<()>;
    /// Marks a user online under a new epoch.
    fn set_online(&mut self, user: UserId, epoch: Epoch) -> Stored<()>;
    /// Marks a user online under the epoch of a session that goes on, whatever others have written meanwhile.
    fn restore_online(&mut self, user: UserId, epoch: Epoch) -> Stored<()>;
    /// How the rows of users numbered above `after` stand, by number, at most `max`.
    fn user_marks(&mut self, after: UserId, max: usize) -> Stored<Vec<UserMark>>;
    /// Marks a user offline, if `epoch` is still the row's.
    fn set_offline(&mut self, user: UserId, epoch: Epoch) -> Stored<()>;
    /// Raises the epoch of a user who has no session, and leaves the state alone.
    fn set_epoch(&mut self, user: UserId, epoch: Epoch) -> Stored<()>;

    /// Adds a row to the history.
    fn add_departure(&mut self, row: &DepartureRow) -> Stored<DepartureId>;
    /// Completes rows of the history; those that have expired are no error.
    fn complete_departures(
        &mut self,
        ids: RangeInclusive<DepartureId>,
        completion: &Completion,
    ) -> Stored<()>;
    /// Removes rows of the history older than `before_ms` and all but the newest `keep`, a bounded number a call;
    /// answers how many.
    fn expire_departures(&mut self, before_ms: i64, keep: u64) -> Stored<u64>;

    /// Adds a ban, or replaces the one of the same user or addresses.
    fn put_ban(&mut self, ban: &Ban) -> Stored<()>;
    /// Removes a ban; none is no error.
    fn drop_ban(&mut self, banned: Banned) -> Stored<()>;
    /// Removes bans that are over at `now_ms`.
    fn expire_bans(&mut self, now_ms: i64) -> Stored<()>;

    /// Adds the token of a session that begins, and removes all but the newest `keep` of that user.
    fn add_token(&mut self, token: &TokenRow, keep: usize) -> Stored<()>;
    /// Puts the token of a session that begins in the place of the one that it came by, which the same user has.
    fn replace_token(&mut self, used: &TokenHash, token: &TokenRow) -> Stored<()>;
    /// The token with that hash, whether it is over or not.
    fn token(&mut self, hash: &TokenHash) -> Stored<Option<TokenRow>>;
    /// Removes a token; none is no error.
    fn drop_token(&mut self, hash: &TokenHash) -> Stored<()>;
    /// Removes all tokens of a user.
    fn drop_tokens(&mut self, user: UserId) -> Stored<()>;
    /// A session has ended: says when its token is over, and any of that user up to that epoch that is not running out
    /// yet. Not by the very epoch: a session's may have risen since it began.
    fn end_tokens(&mut self, user: UserId, upto: Epoch, expires_ms: i64) -> Stored<()>;
    /// Has the tokens of a user that go with one stored password go with another.
    fn renew_tokens(&mut self, user: UserId, old: &PasswordMark, new: &PasswordMark) -> Stored<()>;
    /// Removes tokens that are over at `now_ms`, a bounded number a call; answers how many.
    fn expire_tokens(&mut self, now_ms: i64) -> Stored<u64>;

    /// Adds a friend; again is no error. True exactly when that is a new one.
    fn add_friend(&mut self, user: UserId, friend: UserId) -> Stored<bool>;
    /// The users whom this one added and who are numbered above `after`, by number, at most `max`.
    fn friends(&mut self, user: UserId, after: UserId, max: usize) -> Stored<Vec<Friend>>;
    /// How many users this one added; does not count on behind `max`.
    fn count_friends(&mut self, user: UserId, max: usize) -> Stored<usize>;

    /// Creates a group with its first member, role `creator`.
    fn add_group(&mut self, creator: UserId, name: &str, desc: &str) -> Stored<GroupId>;
    /// The group with that number.
    fn group(&mut self, id: GroupId) -> Stored<Option<GroupRow>>;
    /// Adds a member, role `normal`; again is no error and changes nothing. True exactly when that is a new one.
    fn join_group(&mut self, group: GroupId, user: UserId) -> Stored<bool>;
    /// The groups that a user is in and that are numbered above `after`, by number, at most `max`.
    fn groups_of(&mut self, user: UserId, after: GroupId, max: usize) -> Stored<Vec<GroupRow>>;
    /// How many groups a user is in; does not count on behind `max`.
    fn count_groups(&mut self, user: UserId, max: usize) -> Stored<usize>;
    /// The numbers of a group's members, in order; some may have no row of their own any more.
    fn member_ids(&mut self, group: GroupId) -> Stored<Vec<UserId>>;
    /// The members of a group who are numbered above `after`, by number, at most `max`.
    fn members(&mut self, group: GroupId, after: UserId, max: usize) -> Stored<Vec<Member>>;

    /// Puts a message into a box, under a number that no message in it has. `sent` as in [`Kept`].
    fn keep(&mut self, user: UserId, mid: Mid, at_ms: i64, body: &[u8], sent: bool) -> Stored<()>;
    /// Puts one message into many boxes, in each under a number above all that it has had. The body is stored once.
    fn keep_copies(&mut self, copies: &[BoxCopy], at_ms: i64, body: &[u8]) -> Stored<()>;
    /// Bytes that all boxes hold: each stored body once, and [`COPY_BYTES`] for each message of each box.
    fn kept_bytes(&mut self) -> Stored<u64>;
    /// Notes that the messages up to and including `upto` were sent to a client that confirms.
    fn mark_sent(&mut self, user: UserId, upto: Mid) -> Stored<()>;
    /// How much a box holds.
    fn box_usage(&mut self, user: UserId) -> Stored<BoxUsage>;
    /// The oldest messages above `after`: at most `max_count`, and at most `max_bytes` of bodies, but at least one
    /// where there is one.
    fn kept(&mut self, user: UserId, after: Mid, max_count: usize, max_bytes: usize) -> Stored<Vec<Kept>>;
    /// Removes the messages up to and including `upto`; answers what they held.
    fn drop_kept(&mut self, user: UserId, upto: Mid) -> Stored<BoxUsage>;
    /// Removes messages kept before `before_ms`, at most `max`, from a bounded number of boxes: those of the users from
    /// `from` on, by number. A box whose oldest message is new enough is left alone. A round begins with `None`; what has
    /// come since may stay until the next.
    fn expire_kept(&mut self, before_ms: i64, from: Option<UserId>, max: u64) -> Stored<ExpiredKept>;

    /// Notes that a chat with `seq` was accepted.
    fn accept(&mut self, acceptance: Acceptance, at_ms: i64) -> Stored<()>;
    /// Notes that the transaction puts copies of a chat with `seq` into these users' boxes, while others do not have theirs
    /// yet.
    fn note_reached(&mut self, chat: Acceptance, at_ms: i64, users: &[UserId]) -> Stored<()>;
    /// Whom a chat with `seq` has reached by those notes, by number.
    fn reached(&mut self, chat: Acceptance) -> Stored<Vec<UserId>>;
    /// Removes those notes of a chat.
    fn forget_reached(&mut self, chat: Acceptance) -> Stored<()>;
    /// Forgets chats with `seq` that were accepted, and notes of whom others have reached, of `before_ms` or earlier, the
    /// oldest first, a bounded number a call. False when there were none.
    fn expire_accepted(&mut self, before_ms: i64) -> Stored<bool>;
}
