//! A client's end of a connection: what is on its way to the server, what the server has written, what is read of it.
//!
//! The network between them delays: bytes leave the client when the scheduler says so, in pieces of any size, and what
//! the server has written is read the same way. What is written counts from its first byte, as in the kernel.

use super::presence_oracle::View;
use crate::channel::ChannelId;
use crate::ids::{Epoch, UserId};
use crate::testing::fake_socket::Client;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};

/// A chat as a stream brings it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ReceivedChat {
    /// Its text, which no other chat has.
    pub(super) text: String,
    pub(super) from: UserId,
    pub(super) mid: Option<i64>,
    pub(super) again: bool,
}

/// An object of the server's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Received {
    Welcome {
        user: UserId,
        token: Option<String>,
        kept: Vec<ReceivedChat>,
        /// The friends, and whether each is online.
        friends: Vec<(UserId, bool)>,
    },
    Refused,
    Chat(ReceivedChat),
    /// An answer to a request with `seq`.
    Answer {
        seq: i64,
        errno: i64,
        full: Vec<UserId>,
    },
    /// A chat without `seq` was not taken.
    Complaint,
    Ping,
    Goodbye,
    Presence {
        of: UserId,
        online: bool,
        epoch: Epoch,
    },
    Other,
}

/// What has been done to a connection, so that the reason of its end can be judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum ClientAct {
    LoggedOut,
    LoggedInAgain,
    Ended,
    Reset,
    TimedOut,
    Pinged,
    Garbage,
    Kicked,
}

/// One connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each said to hold exactly when")]
pub(super) struct SimLink {
    pub(super) client: Client,
    /// Whose device it is.
    pub(super) owner: UserId,
    pub(super) worker: usize,
    pub(super) channel: Option<ChannelId>,
    pub(super) acts: BTreeSet<ClientAct>,
    /// What the client has sent and the server cannot read yet.
    pub(super) outgoing: VecDeque<u8>,
    /// True exactly when the client's end of its side follows that.
    pub(super) end_follows: bool,
    /// The part of an object that has come so far, and when its first byte did.
    partial: Vec<u8>,
    began: u64,
    /// Bytes that the server has written, and those that the client has read.
    written: u64,
    read: u64,
    /// Objects that are written and not read yet, by the place where they end.
    unread: VecDeque<(u64, Received)>,
    /// Who is logged in, as the stream says.
    pub(super) user: Option<UserId>,
    /// The same, as far as the client has read.
    pub(super) known: Option<UserId>,
    /// True exactly while a login is sent whose answer is not read.
    pub(super) logging_in: bool,
    /// True exactly when the client neither reads nor writes for now.
    pub(super) stalled: bool,
    /// True exactly when nothing reaches either side any more, and neither is told.
    pub(super) silent: bool,
    /// True exactly when the client has left it, or the server is gone.
    pub(super) dead: bool,
    /// True exactly when main has closed the fd, and what was torn is counted.
    pub(super) closed: bool,
    pub(super) has_logged_in: bool,
    /// The tokens of logins that are not answered, oldest first; none where it went by password.
    pub(super) asked: VecDeque<Option<String>>,
    /// Whose login was asked last.
    pub(super) asked_for: Option<UserId>,
    /// When it was.
    pub(super) asked_us: u64,
    /// What its session was told of friends.
    pub(super) view: View,
    /// Chats without `seq` that were not taken.
    pub(super) complaints: usize,
    /// True exactly when the server has said goodbye.
    pub(super) is_sent_away: bool,
    /// When a kick of it was answered with yes.
    pub(super) kicked_us: Option<u64>,
}

impl SimLink {
    pub(super) fn new(client: Client, owner: UserId, worker: usize) -> Self {
        SimLink {
            client,
            owner,
            worker,
            channel: None,
            acts: BTreeSet::new(),
            outgoing: VecDeque::new(),
            end_follows: false,
            partial: Vec::new(),
            began: 0,
            written: 0,
            read: 0,
            unread: VecDeque::new(),
            user: None,
            known: None,
            logging_in: false,
            stalled: false,
            silent: false,
            dead: false,
            closed: false,
            has_logged_in: false,
            asked: VecDeque::new(),
            asked_for: None,
            asked_us: 0,
            view: View::default(),
            complaints: 0,
            is_sent_away: false,
            kicked_us: None,
        }
    }

    /// True exactly when the client can still say something.
    pub(super) fn can_speak(&self) -> bool {
        !self.dead && !self.silent && !self.end_follows && !self.acts.contains(&ClientAct::Ended)
    }

    /// True exactly when nobody but the client has ended it, and the server has ended its side then.
    pub(super) fn has_ended_in_order(&self) -> bool {
        let only_ended = |deed: &ClientAct| {
            !matches!(deed, ClientAct::Reset | ClientAct::TimedOut | ClientAct::Kicked | ClientAct::Garbage)
        };
        self.acts.contains(&ClientAct::Ended)
            && self.acts.iter().all(only_ended)
            && self.client.sees_the_end()
    }

    /// True exactly when the server has ended it, and its client could hear why.
    pub(super) fn is_ended_by_the_server(&self) -> bool {
        let by_client =
            |deed: &ClientAct| matches!(deed, ClientAct::Ended | ClientAct::Reset | ClientAct::TimedOut);
        self.client.sees_the_end() && !self.acts.iter().any(by_client)
    }

    pub(super) fn say(&mut self, object: &str) {
        self.outgoing.extend(object.as_bytes());
        self.outgoing.push_back(b'\n');
    }

    /// The network brings the server up to so many bytes more.
    pub(super) fn carry(&mut self, bytes: usize) {
        let count = bytes.min(self.outgoing.len());
        let piece: Vec<u8> = self.outgoing.drain(..count).collect();
        self.client.send_bytes(&piece);
        if self.outgoing.is_empty() && self.end_follows {
            self.end_follows = false;
            self.acts.insert(ClientAct::Ended);
            self.client.end();
        }
    }

    /// Notes what the server has written since: objects that are whole now, each with when its first byte came.
    pub(super) fn note_written(&mut self, stamp: &mut u64) -> Vec<(u64, Received)> {
        let bytes = self.client.heard_bytes();
        let mut whole = Vec::new();
        for byte in bytes {
            self.written += 1;
            if self.partial.is_empty() {
                *stamp += 1;
                self.began = *stamp;
            }
            if byte != b'\n' {
                self.partial.push(byte);
                continue;
            }
            let object = std::mem::take(&mut self.partial);
            if object.is_empty() {
                continue;
            }
            let heard = understood(&object);
            self.unread.push_back((self.written, heard.clone()));
            whole.push((self.began, heard));
        }
        whole
    }

    /// The beginning of an object whose rest has not come.
    pub(super) fn partial(&self) -> &[u8] {
        &self.partial
    }

    pub(super) fn unread_bytes(&self) -> u64 {
        self.written - self.read
    }

    /// The client reads up to so many bytes; answers the objects that are whole with them.
    pub(super) fn take(&mut self, bytes: u64) -> Vec<Received> {
        let count = bytes.min(self.unread_bytes());
        self.read += count;
        self.client.make_room(count as usize);
        let mut heard = Vec::new();
        while let Some((_, object)) = self.unread.pop_front_if(|(at, _)| *at <= self.read) {
            heard.push(object);
        }
        heard
    }
}

fn understood(object: &[u8]) -> Received {
    let value: Value = serde_json::from_slice(object).unwrap_or_else(|error| {
        panic!("the server sends JSON: {error}: {}", String::from_utf8_lossy(object))
    });
    let number = |key: &str| value.get(key).and_then(Value::as_i64);
    match number("msgid") {
        Some(2) if number("errno") == Some(0) => {
            let strings = |key: &str| {
                let strings = value.get(key).and_then(Value::as_array).into_iter().flatten();
                strings.map(|string| -> Value {
                    serde_json::from_str(string.as_str().expect("a string")).expect("an object")
                })
            };
            let kept = strings("offlinemsg").map(|chat| seen(&chat));
            Received::Welcome {
                user: UserId(number("id").expect("an id")),
                token: value.get("token").and_then(Value::as_str).map(Into::into),
                kept: kept.collect(),
                friends: strings("friends").map(|friend| friend_of(&friend)).collect(),
            }
        }
        Some(2) => Received::Refused,
        Some(6 | 10) => Received::Chat(seen(&value)),
        Some(0) if number("seq").is_some() => {
            let full = value.get("full").and_then(Value::as_array).cloned().unwrap_or_default();
            Received::Answer {
                seq: number("seq").expect("it is there"),
                errno: number("errno").expect("an errno"),
                full: full.iter().filter_map(Value::as_i64).map(UserId).collect(),
            }
        }
        Some(0) if matches!(number("re"), Some(6 | 10)) => Received::Complaint,
        Some(20) => Received::Goodbye,
        Some(21) => Received::Presence {
            of: UserId(number("id").expect("an id")),
            online: value["state"] == "online",
            epoch: Epoch(number("epoch").expect("an epoch")),
        },
        Some(22) => Received::Ping,
        _ => Received::Other,
    }
}

fn seen(chat: &Value) -> ReceivedChat {
    ReceivedChat {
        text: chat["msg"].as_str().expect("a text").into(),
        from: UserId(chat["id"].as_i64().expect("a sender")),
        mid: chat.get("mid").and_then(Value::as_i64),
        again: chat.get("again").is_some_and(|again| again == true),
    }
}

fn friend_of(friend: &Value) -> (UserId, bool) {
    (UserId(friend["id"].as_i64().expect("an id")), friend["state"] == "online")
}
