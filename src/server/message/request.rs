//! What workers and auth threads ask of main. The channel gets exactly one answer to each.

use super::chat::Body;
use super::reply_to::ReplyTo;
use crate::ids::{GroupId, UserId};
use crate::protocol::request::Caps;
use crate::store::{PasswordMark, TokenHash};
use std::hash::{DefaultHasher, Hasher as _};
use std::net::SocketAddr;

/// A login whose password has been verified, or whose token main is to judge.
#[derive(Debug)]
pub struct Login {
    /// Who asked.
    pub reply_to: ReplyTo,
    /// The other end's address, for the history and for bans.
    pub peer: SocketAddr,
    /// Who logs in.
    pub user: UserId,
    /// The token that stands for the password.
    pub token: Option<Presented>,
    /// The hash that the password was verified against, or that the token goes with; none for a guest. Main compares it
    /// with the row's once more, for another process may have changed the password meanwhile.
    pub verified: Option<HashTag>,
    /// A stronger hash of the same password, where the stored one is weaker than the server's setting.
    pub renewed: Option<Box<str>>,
    /// What to verify once more if the row has another hash by then; none for a guest or a token.
    pub again: Option<(Who, Box<str>)>,
    /// What the client can do.
    pub caps: Caps,
    /// True exactly when the client speaks lines.
    pub lines: bool,
    /// True exactly when the store has just taken a commit for this login's sake: only then is another session
    /// ended for it.
    pub proven: bool,
}

/// A login by token, before anybody knows whose.
#[derive(Debug)]
pub struct Resume {
    /// Who asked.
    pub reply_to: ReplyTo,
    /// The other end's address, for the history and for bans.
    pub peer: SocketAddr,
    /// What the token that was presented hashes to.
    pub token: TokenHash,
    /// What the client can do.
    pub caps: Caps,
}

/// A request, as main takes it.
#[derive(Debug)]
pub enum Ask {
    /// Log in.
    Login(Box<Login>),
    /// Log in by token.
    Resume(Resume),
    /// Log in by a line without a password: as a guest, if no user with a password has the name.
    Guest {
        /// Who asked.
        reply_to: ReplyTo,
        /// The other end's address, for the history and for bans.
        peer: SocketAddr,
        /// The name, already found acceptable.
        name: Box<str>,
    },
    /// Register a name with a password hash.
    Register {
        /// Who asked.
        reply_to: ReplyTo,
        /// The other end's address, for bans.
        peer: SocketAddr,
        /// The name, already found acceptable.
        name: Box<str>,
        /// The password's PHC string.
        password: Box<str>,
    },
    /// Refuse a registration past a limit: main knows whether a ban is to be told instead.
    RefuseNewcomer {
        /// Who asked.
        reply_to: ReplyTo,
        /// The other end's address, for bans.
        peer: SocketAddr,
    },
    /// Say something to one user or to a group.
    Chat(Message),
    /// Add a friend.
    AddFriend {
        /// Who asked.
        reply_to: ReplyTo,
        /// For whom.
        user: UserId,
        /// Whom.
        friend: UserId,
    },
    /// Create a group.
    CreateGroup {
        /// Who asked.
        reply_to: ReplyTo,
        /// Its creator.
        user: UserId,
        /// Its name.
        name: Box<str>,
        /// What its creator says of it.
        desc: Box<str>,
    },
    /// Join a group.
    JoinGroup {
        /// Who asked.
        reply_to: ReplyTo,
        /// Who joins.
        user: UserId,
        /// Which group.
        group: GroupId,
    },
    /// Nothing: the request is done, and its answer only has to keep its place behind others.
    Fence {
        /// Who asked.
        reply_to: ReplyTo,
    },
}

/// Where a chat goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Destination {
    /// One user.
    User(UserId),
    /// Every other member of a group.
    Group(GroupId),
    /// One user, by name.
    Name(Box<str>),
}

/// A chat on its way through main.
#[derive(Debug)]
pub struct Message {
    /// Who asked.
    pub reply_to: ReplyTo,
    /// The sender.
    pub from: UserId,
    /// The receiver or receivers.
    pub to: Destination,
    /// What is said.
    pub body: Body,
    /// What `seq`, receiver and text hash to; only where the request has a `seq`.
    pub fingerprint: Option<u128>,
}

impl Ask {
    /// Whose later request it is: it waits while an earlier one is under way. None for a login, which is looked at when its
    /// user is known.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Ask::Chat(message) => Some(message.from),
            Ask::AddFriend { user, .. } | Ask::CreateGroup { user, .. } | Ask::JoinGroup { user, .. } => {
                Some(*user)
            }
            _ => None,
        }
    }

    /// Who asked.
    pub fn reply_to(&self) -> &ReplyTo {
        match self {
            Ask::Login(login) => &login.reply_to,
            Ask::Resume(resume) => &resume.reply_to,
            Ask::Chat(message) => &message.reply_to,
            Ask::Register { reply_to, .. }
            | Ask::RefuseNewcomer { reply_to, .. }
            | Ask::Guest { reply_to, .. }
            | Ask::AddFriend { reply_to, .. }
            | Ask::CreateGroup { reply_to, .. }
            | Ask::JoinGroup { reply_to, .. }
            | Ask::Fence { reply_to } => reply_to,
        }
    }
}

/// Who wants to log in, as the client names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Who {
    /// By number.
    Id(UserId),
    /// By name.
    Name(Box<str>),
}

/// Tells a stored hash from any other, in far fewer bytes, in this run of the server. A quick hash will do: a program that
/// can write a colliding hash into the database can write any hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashTag(u64);

impl HashTag {
    /// The mark of a stored hash.
    pub fn of(stored: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(stored.as_bytes());
        HashTag(hasher.finish())
    }
}

/// A token that a client logs in by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presented {
    /// What it hashes to.
    pub hash: TokenHash,
    /// Its row's mark when that was last read.
    pub mark: PasswordMark,
}
