//! Builds requests for tests, and short forms of commands to compare.

use super::memory::text;
use crate::channel::{ChannelId, Reason, SessionNo};
use crate::ids::{GroupId, UserId};
use crate::message::chat::{Body, Chat};
use crate::message::command::WorkerCommand;
use crate::message::fingerprint;
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::message::reply_to::ReplyTo;
use crate::message::request::{Ask, Destination, Login, Message};
use crate::message::request::{HashTag, Who};
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::protocol::request::Caps;

/// The password hash of every user in these tests; nobody computes one.
pub(crate) const HASH: &str = "hash";

/// A second, in the microseconds of the monotonic clock.
pub(crate) const SECOND_US: u64 = 1_000_000;

/// A command, short enough to compare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Summary {
    Chat(String),
    /// A session has begun; what was in the box comes along.
    Welcome(UserId, Vec<String>),
    /// A login was answered, but nobody is online.
    Greeting(UserId),
    Registered(UserId),
    /// A login or registration was refused.
    Refused(Errno),
    /// A request failed.
    Error(Errno),
    /// A request is through, without a word.
    Through,
    /// A request with `seq` succeeded.
    Done,
    /// The same for a group, but for members whose box is full.
    DoneBut(Vec<UserId>),
    /// A group was created.
    Created(GroupId),
    Open,
    Leave(Reason),
    Settle(SessionNo),
    Close,
    Probe,
    /// A word to a worker about itself.
    ToWorker,
}

impl Summary {
    /// All that a command does: an answer may let its channel go on, too.
    pub(crate) fn all_of(command: &WorkerCommand) -> impl Iterator<Item = Summary> {
        let also = matches!(command, WorkerCommand::Answer { settles: Completes::RequestAndChat, .. });
        also.then_some(Summary::Through).into_iter().chain([Summary::of(command).1])
    }

    /// The channel of a command, and its short form.
    pub(crate) fn of(command: &WorkerCommand) -> (Option<ChannelId>, Summary) {
        match command {
            WorkerCommand::Chat { to, chat, .. } => (Some(*to), Summary::Chat(text(&chat.body.object()))),
            WorkerCommand::Answer { channel, settles, answer } => {
                (Some(*channel), Summary::answer(*settles, answer.as_ref()))
            }
            WorkerCommand::Open { channel, .. } => (Some(*channel), Summary::Open),
            WorkerCommand::Leave { channel, close_info, .. } => {
                (Some(*channel), Summary::Leave(close_info.reason))
            }
            WorkerCommand::Settle { channel, session } => (Some(*channel), Summary::Settle(*session)),
            WorkerCommand::Close { channel } => (Some(*channel), Summary::Close),
            WorkerCommand::Probe { channel, .. } => (Some(*channel), Summary::Probe),
            WorkerCommand::Presence(_)
            | WorkerCommand::Report(_)
            | WorkerCommand::Audit { .. }
            | WorkerCommand::Accept
            | WorkerCommand::CloseListeners
            | WorkerCommand::Exit => (None, Summary::ToWorker),
        }
    }

    fn answer(settles: Completes, answer: Option<&Answer>) -> Summary {
        match answer {
            None => {
                assert_eq!(settles, Completes::Request, "only a request is through without a word");
                Summary::Through
            }
            Some(Answer::LoggedIn(login)) if login.session.is_some() => {
                Summary::Welcome(login.sender.id, texts(&login.offline))
            }
            Some(Answer::LoggedIn(login)) => Summary::Greeting(login.sender.id),
            Some(Answer::Registered { id, .. }) => Summary::Registered(*id),
            Some(Answer::Refused { errno, .. }) => Summary::Refused(*errno),
            Some(Answer::Banned { .. }) => Summary::Refused(Errno::TooMany),
            Some(Answer::Error { errno, .. }) => Summary::Error(*errno),
            Some(Answer::Done { id: Some(group), .. }) => Summary::Created(*group),
            Some(Answer::Done { full, .. }) if full.is_empty() => Summary::Done,
            Some(Answer::Done { full, .. }) => Summary::DoneBut(full.clone()),
        }
    }

    /// What a chat with that text says.
    pub(crate) fn chat(text: &str) -> Summary {
        Summary::Chat(text.into())
    }

    /// What a login answer with those messages says.
    pub(crate) fn welcome(user: UserId, texts: &[&str]) -> Summary {
        Summary::Welcome(user, texts.iter().map(|text| (*text).into()).collect())
    }
}

/// Who asks what.
pub(crate) fn reply_to(channel: ChannelId, re: Msgid, seq: Option<&str>) -> ReplyTo {
    ReplyTo { channel, re, seq: seq.map(Into::into) }
}

/// A login whose password has been verified.
pub(crate) fn login(user: UserId, channel: ChannelId) -> Ask {
    Ask::Login(Box::new(Login {
        reply_to: reply_to(channel, Msgid::Login, None),
        peer: ([127, 0, 0, 1], 1).into(),
        user,
        token: None,
        verified: Some(HashTag::of(HASH)),
        renewed: None,
        again: Some((Who::Id(user), "password".into())),
        caps: Caps::default(),
        lines: false,
        proven: false,
    }))
}

/// A chat that goes through main.
pub(crate) fn message(
    (from, channel): (UserId, ChannelId),
    to: Destination,
    text: &str,
    seq: Option<&str>,
) -> Ask {
    let re = if matches!(to, Destination::Group(_)) { Msgid::GroupChat } else { Msgid::Chat };
    let fingerprint = seq.map(|seq| fingerprint::of(seq, &to, text.as_bytes()));
    Ask::Chat(Message {
        reply_to: reply_to(channel, re, seq),
        from,
        to,
        body: Body::Object(text.as_bytes().into()),
        fingerprint,
    })
}

/// A chat that was accepted from another worker.
pub(crate) fn accepted(text: &str) -> Chat {
    Chat::accepted(Body::Object(text.as_bytes().into()), None)
}

/// The texts of chats, in order.
pub(crate) fn texts(chats: &[Chat]) -> Vec<String> {
    chats.iter().map(|chat| text(&chat.body.object())).collect()
}
