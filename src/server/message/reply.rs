//! Answers to clients, as plain values: the channel's worker writes them in the form of its protocol.

use super::chat::{Chat, Sender};
use super::reply_to::ReplyTo;
use crate::channel::SessionNo;
use crate::ids::{Epoch, GroupId, Mid, UserId};
use crate::protocol::errno::Errno;
use crate::protocol::login_answer::{FriendState, GroupState};
use crate::protocol::msgid::Msgid;
use crate::protocol::request::Caps;
use crate::sync::Arc;
use std::borrow::Cow;
use std::fmt;

/// An answer on its way to a channel.
#[derive(Debug)]
pub enum Answer {
    /// A login that succeeded (msgid 2).
    LoggedIn(Box<LoggedIn>),
    /// A registration that succeeded (msgid 5).
    Registered {
        /// The new user.
        id: UserId,
        /// The request's `seq`, as raw JSON.
        seq: Option<Arc<str>>,
    },
    /// A login or registration that failed (msgid 2 or 5).
    Refused {
        /// A login or a registration.
        re: Msgid,
        /// Why, as a number.
        errno: Errno,
        /// Why, as a sentence.
        text: Cow<'static, str>,
        /// The request's `seq`, as raw JSON.
        seq: Option<Arc<str>>,
    },
    /// A login or registration that a ban keeps out (msgid 2 or 5), after which the channel leaves.
    Banned {
        /// A login or a registration.
        re: Msgid,
        /// The rest of the ban, in milliseconds.
        retry_after_ms: u64,
        /// What the administrator said, one line.
        reason: Option<Arc<str>>,
        /// The request's `seq`, as raw JSON.
        seq: Option<Arc<str>>,
    },
    /// Another request that failed (msgid 0).
    Error {
        /// Why, as a number.
        errno: Errno,
        /// Why, as a sentence.
        text: Cow<'static, str>,
        /// What the request was, where that is known.
        re: Option<Msgid>,
        /// The request's `seq`, as raw JSON.
        seq: Option<Arc<str>>,
    },
    /// A request with `seq` that succeeded (msgid 0, errno 0).
    Done {
        /// What the request was.
        re: Msgid,
        /// The request's `seq`, as raw JSON.
        seq: Arc<str>,
        /// The new group of msgid 8.
        id: Option<GroupId>,
        /// Members of a group whose boxes were full.
        full: Vec<UserId>,
    },
}

impl Answer {
    /// The answer to a chat, with its outcome: the receivers whose boxes were full, or why it failed. None where it succeeded
    /// and the request had no `seq`.
    pub fn of_chat(reply_to: ReplyTo, outcome: Result<Vec<UserId>, Errno>) -> Option<Answer> {
        let ReplyTo { re, seq, .. } = reply_to;
        match outcome {
            Err(errno) => Some(Answer::Error { errno, text: errno.text().into(), re: Some(re), seq }),
            Ok(full) => seq.map(|seq| Answer::Done { re, seq, id: None, full }),
        }
    }
}

/// All that a login brings.
#[derive(Debug)]
pub struct LoggedIn {
    /// Who.
    pub sender: Arc<Sender>,
    /// The session that began; none where the client had ended its side before.
    pub session: Option<SessionNo>,
    /// The session's epoch.
    pub epoch: Epoch,
    /// What the client can do.
    pub caps: Caps,
    /// The oldest messages of the box.
    pub offline: Vec<Chat>,
    /// The newest of them.
    pub upto: Option<Mid>,
    /// True exactly when the box holds nothing more, so that others may write to the channel directly.
    pub open: bool,
    /// Friends, with their state.
    pub friends: Vec<FriendState>,
    /// Groups, with their members' state.
    pub groups: Vec<GroupState>,
    /// True exactly when the user has friends or groups that are not among these.
    pub more: bool,
    /// What the client may log in again with, where it has asked for that.
    pub token: Option<Token>,
    /// The request's `seq`, as raw JSON.
    pub seq: Option<Arc<str>>,
}

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// How a token is written.
const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

/// A token as its client gets it.
pub struct Token(Box<str>);

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
            text.push(DIGITS[usize::from(byte >> 4)]);
            text.push(DIGITS[usize::from(byte & 0xf)]);
        }
        Ok(Token(text.into()))
    }

    /// What the client is told, and presents.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    /// Says nothing: with a token from a log, its reader could log in as the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
