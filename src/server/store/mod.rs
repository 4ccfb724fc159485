//! What main and the auth threads ask of a store. [`sqlite`] answers it with SQLite, the simulation with plain maps.
//!
//! Only main holds a [`Storage`]; the auth threads hold a [`Lookup`] each, which can only read. Everything
//! between [`Transactions::begin`] and [`Transactions::commit`] is one transaction. All times but [`DepartureRow::at_ms`] and
//! [`DepartureRow::since_ms`] are of the [trusted clock](crate::clock::TrustedClock).

use crate::clock::TimeMark;
use crate::ids::{Epoch, GroupId, Mid, UserId};
use crate::protocol::name::composed;
mod rows;
pub mod sqlite;

pub use rows::{
    Ban, BanSubject, BoxCopy, BoxUsage, COPY_BYTES, DEDUP_WINDOW_US, DedupRecord, DepartureId, DepartureRow,
    DepartureUpdate, ExpiredKept, Friend, GroupRow, Member, NameTaken, PasswordMark, StoredMessage,
    TOKEN_LIFE_MS, TokenHash, TokenRow, UserMark, UserRow,
};
use std::ops::RangeInclusive;

/// What a store answers.
pub type Stored<T> = Result<T, StorageError>;

/// A store that could not do what it was asked. The transaction under way is void; [`Transactions::rollback`] it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct StorageError {
    /// Which operation, on what, and why not.
    pub text: String,
    /// True exactly when the database is there and refuses this very operation, as a constraint or a missing table does:
    /// not for want of room, memory or a lock, and not for a disk that fails.
    pub refused: bool,
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
pub trait Storage:
    Lookup + Transactions + Users + Departures + Bans + Tokens + FriendsGroups + OfflineBox + DedupLog
{
}

impl<S: Lookup + Transactions + Users + Departures + Bans + Tokens + FriendsGroups + OfflineBox + DedupLog>
    Storage for S
{
}

/// The transaction under way, and the time that outlives a run.
#[expect(clippy::missing_errors_doc, reason = "said once for all of `Storage`")]
pub trait Transactions {
    /// Opens a transaction that may write. Once only before `commit` or `rollback`.
    fn begin(&mut self) -> Stored<()>;
    /// Makes all since `begin` durable, as far as the durability level promises.
    fn commit(&mut self) -> Stored<()>;
    /// Undoes all since `begin`. Harmless without one.
    fn rollback(&mut self);
    /// Notes what time it is, for the next run of the server.
    fn mark_time(&mut self, mark: TimeMark) -> Stored<()>;
}

/// Users, and who is online.
#[expect(clippy::missing_errors_doc, reason = "said once for all of `Storage`")]
pub trait Users {
    /// Adds a user who is offline, unless another has that name or one that can be mistaken for it.
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
}

/// The history of ended sessions.
#[expect(clippy::missing_errors_doc, reason = "said once for all of `Storage`")]
pub trait Departures {
    /// Adds a row to the history.
    fn add_departure(&mut self, row: &DepartureRow) -> Stored<DepartureId>;
    /// Completes rows of the history; rows that have expired are no error.
    fn complete_departures(
        &mut self,
        ids: RangeInclusive<DepartureId>,
        completion: &DepartureUpdate,
    ) -> Stored<()>;
    /// answers how many.
    fn expire_departures(&mut self, before_ms: i64, keep: u64) -> Stored<u64>;
}

/// Bans.
#[expect(clippy::missing_errors_doc, reason = "said once for all of `Storage`")]
pub trait Bans {
    /// Adds a ban, or replaces the one of the same user or addresses.
    fn put_ban(&mut self, ban: &Ban) -> Stored<()>;
    /// Removes a ban; it is no error where there is none.
    fn drop_ban(&mut self, banned: BanSubject) -> Stored<()>;
    /// Removes bans that are over at `now_ms`.
    fn expire_bans(&mut self, now_ms: i64) -> Stored<()>;
}

/// Resume tokens.
#[expect(clippy::missing_errors_doc, reason = "said once for all of `Storage`")]
pub trait Tokens {
    /// Adds the token of a session that begins, and removes all but the newest `keep` of that user.
    fn add_token(&mut self, token: &TokenRow, keep: usize) -> Stored<()>;
    /// Replaces the token that a session began with by the one that it was given; both are of the same user.
    fn replace_token(&mut self, used: &TokenHash, token: &TokenRow) -> Stored<()>;
    /// The token with that hash, whether it is over or not.
    fn token(&mut self, hash: &TokenHash) -> Stored<Option<TokenRow>>;
    /// Removes a token; it is no error where there is none.
    fn drop_token(&mut self, hash: &TokenHash) -> Stored<()>;
    /// Removes all tokens of a user.
    fn drop_tokens(&mut self, user: UserId) -> Stored<()>;
    /// A session has ended: sets when its token is over, and every other token of the user up to that epoch that has no end
    /// yet. Up to it, because the epoch of a session may have risen since its token was given.
    fn end_tokens(&mut self, user: UserId, upto: Epoch, expires_ms: i64) -> Stored<()>;
    /// Moves the tokens of a user from one stored password to another.
    fn renew_tokens(&mut self, user: UserId, old: &PasswordMark, new: &PasswordMark) -> Stored<()>;
    /// Removes tokens that are over at `now_ms`, a bounded number a call; answers how many.
    fn expire_tokens(&mut self, now_ms: i64) -> Stored<u64>;
}

/// Friends and groups.
#[expect(clippy::missing_errors_doc, reason = "said once for all of `Storage`")]
pub trait FriendsGroups {
    /// Adds a friend. True exactly when the friend is new; adding one again is no error.
    fn add_friend(&mut self, user: UserId, friend: UserId) -> Stored<bool>;
    /// The users whom this one added and who are numbered above `after`, by number, at most `max`.
    fn friends(&mut self, user: UserId, after: UserId, max: usize) -> Stored<Vec<Friend>>;
    /// How many users this one added; does not count on behind `max`.
    fn count_friends(&mut self, user: UserId, max: usize) -> Stored<usize>;
    /// Creates a group with its first member, role `creator`.
    fn add_group(&mut self, creator: UserId, name: &str, desc: &str) -> Stored<GroupId>;
    /// The group with that number.
    fn group(&mut self, id: GroupId) -> Stored<Option<GroupRow>>;
    /// Adds a member, role `normal`. True exactly when the member is new; adding one again is no error and changes nothing.
    fn join_group(&mut self, group: GroupId, user: UserId) -> Stored<bool>;
    /// The groups that a user is in and that are numbered above `after`, by number, at most `max`.
    fn groups_of(&mut self, user: UserId, after: GroupId, max: usize) -> Stored<Vec<GroupRow>>;
    /// How many groups a user is in; does not count on behind `max`.
    fn count_groups(&mut self, user: UserId, max: usize) -> Stored<usize>;
    /// The numbers of a group's members, in order; some may have no row of their own any more.
    fn member_ids(&mut self, group: GroupId) -> Stored<Vec<UserId>>;
    /// The members of a group who are numbered above `after`, by number, at most `max`.
    fn members(&mut self, group: GroupId, after: UserId, max: usize) -> Stored<Vec<Member>>;
}

/// Messages that wait for their receivers.
#[expect(clippy::missing_errors_doc, reason = "said once for all of `Storage`")]
pub trait OfflineBox {
    /// Puts a message into a box, under a number that no message in it has. `sent` as in [`StoredMessage`].
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
    fn kept(
        &mut self,
        user: UserId,
        after: Mid,
        max_count: usize,
        max_bytes: usize,
    ) -> Stored<Vec<StoredMessage>>;
    /// Removes the messages up to and including `upto`; answers what they held.
    fn drop_kept(&mut self, user: UserId, upto: Mid) -> Stored<BoxUsage>;
    /// Removes messages kept before `before_ms`, at most `max`, from a bounded number of boxes: those of the users from
    /// `from` on, by number. A box whose oldest message is new enough is left alone. A round begins with `None`; what has
    /// come since may stay until the next.
    fn expire_kept(&mut self, before_ms: i64, from: Option<UserId>, max: u64) -> Stored<ExpiredKept>;
}

/// Chats with `seq` that were accepted, so that a repeated one is known.
#[expect(clippy::missing_errors_doc, reason = "said once for all of `Storage`")]
pub trait DedupLog {
    /// Notes that a chat with `seq` was accepted.
    fn accept(&mut self, acceptance: DedupRecord, at_ms: i64) -> Stored<()>;
    /// Notes that the transaction puts copies of a chat with `seq` into these users' boxes, while others do not have theirs
    /// yet.
    fn note_reached(&mut self, chat: DedupRecord, at_ms: i64, users: &[UserId]) -> Stored<()>;
    /// Whom a chat with `seq` has reached by those notes, by number.
    fn reached(&mut self, chat: DedupRecord) -> Stored<Vec<UserId>>;
    /// Removes those notes of a chat.
    fn forget_reached(&mut self, chat: DedupRecord) -> Stored<()>;
    /// Forgets chats with `seq` that were accepted, and notes of whom others have reached, of `before_ms` or earlier, the
    /// oldest first, a bounded number a call. False when there were none.
    fn expire_accepted(&mut self, before_ms: i64) -> Stored<bool>;
}
