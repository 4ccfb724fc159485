//! The few words in which tests ask and compare.

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

/// What a letter says, short enough to compare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
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

impl Said {
    /// All that a letter says: an answer may let its channel go on, too.
    pub(crate) fn all_of(letter: &WorkerCommand) -> impl Iterator<Item = Said> {
        let also = matches!(letter, WorkerCommand::Answer { settles: Completes::RequestAndChat, .. });
        also.then_some(Said::Through).into_iter().chain([Said::of(letter).1])
    }

    /// Which channel a letter is about, and what it says.
    pub(crate) fn of(letter: &WorkerCommand) -> (Option<ChannelId>, Said) {
        match letter {
            WorkerCommand::Chat { to, chat, .. } => (Some(*to), Said::Chat(text(&chat.body.object()))),
            WorkerCommand::Answer { channel, settles, answer } => {
                (Some(*channel), Said::answer(*settles, answer.as_ref()))
            }
            WorkerCommand::Open { channel, .. } => (Some(*channel), Said::Open),
            WorkerCommand::Leave { channel, parting, .. } => (Some(*channel), Said::Leave(parting.reason)),
            WorkerCommand::Settle { channel, session } => (Some(*channel), Said::Settle(*session)),
            WorkerCommand::Close { channel } => (Some(*channel), Said::Close),
            WorkerCommand::Probe { channel, .. } => (Some(*channel), Said::Probe),
            WorkerCommand::Presence(_)
            | WorkerCommand::Report(_)
            | WorkerCommand::Audit { .. }
            | WorkerCommand::Accept
            | WorkerCommand::CloseListeners
            | WorkerCommand::Exit => (None, Said::ToWorker),
        }
    }

    fn answer(settles: Completes, answer: Option<&Answer>) -> Said {
        match answer {
            None => {
                assert_eq!(settles, Completes::Request, "only a request is through without a word");
                Said::Through
            }
            Some(Answer::LoggedIn(login)) if login.session.is_some() => {
                Said::Welcome(login.sender.id, texts(&login.offline))
            }
            Some(Answer::LoggedIn(login)) => Said::Greeting(login.sender.id),
            Some(Answer::Registered { id, .. }) => Said::Registered(*id),
            Some(Answer::Refused { errno, .. }) => Said::Refused(*errno),
            Some(Answer::Banned { .. }) => Said::Refused(Errno::TooMany),
            Some(Answer::Error { errno, .. }) => Said::Error(*errno),
            Some(Answer::Done { id: Some(group), .. }) => Said::Created(*group),
            Some(Answer::Done { full, .. }) if full.is_empty() => Said::Done,
            Some(Answer::Done { full, .. }) => Said::DoneBut(full.clone()),
        }
    }

    /// What a chat with that text says.
    pub(crate) fn chat(text: &str) -> Said {
        Said::Chat(text.into())
    }

    /// What a login answer with those messages says.
    pub(crate) fn welcome(user: UserId, texts: &[&str]) -> Said {
        Said::Welcome(user, texts.iter().map(|text| (*text).into()).collect())
    }
}

/// Who asks what.
pub(crate) fn asker(channel: ChannelId, re: Msgid, seq: Option<&str>) -> ReplyTo {
    ReplyTo { channel, re, seq: seq.map(Into::into) }
}

/// A login whose password has been verified.
pub(crate) fn login(user: UserId, channel: ChannelId) -> Ask {
    Ask::Login(Box::new(Login {
        asker: asker(channel, Msgid::Login, None),
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
        asker: asker(channel, re, seq),
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
