//! Appends answers, events and chats to a channel's output, in its protocol.

use super::connection::{Codec, Connection};
use super::output_buffer::Source;
use crate::ids::{GroupId, UserId};
use crate::message::chat::{Chat, OtherCopy};
use crate::message::disconnect::CloseInfo;
use crate::message::reply::{LoggedIn, Token};
use crate::protocol::errno::Errno;
use crate::protocol::line;
use crate::protocol::login_answer::{LoginAnswer, logged_in};
use crate::protocol::msgid::Msgid;
use crate::protocol::responses;

impl<T> Connection<T> {
    /// Appends one JSON object with the client's terminator; nothing in the line protocol.
    pub(super) fn write_object(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Codec::Json(framer) = &self.codec {
            let end = framer.terminator();
            self.out.plain(|out| {
                write(out);
                out.push(end);
            });
        }
    }

    /// A request that failed.
    pub(super) fn write_error(&mut self, errno: Errno, text: &str, re: Option<i64>, seq: Option<&str>) {
        match self.codec {
            Codec::Json(_) => self.write_object(|out| responses::error(out, errno, text, re, seq)),
            Codec::Line(_) => self.out.plain(|out| line::write_error(out, text)),
        }
    }

    /// A login or registration that failed.
    pub(super) fn write_refused(&mut self, re: Msgid, errno: Errno, text: &str, seq: Option<&str>) {
        match self.codec {
            Codec::Json(_) => self.write_object(|out| responses::refused(out, re, errno, text, seq)),
            Codec::Line(_) => self.out.plain(|out| line::write_error(out, text)),
        }
    }

    /// A registration that succeeded.
    pub(super) fn write_registered(&mut self, user: UserId, seq: Option<&str>) {
        self.write_object(|out| responses::registered(out, user, seq));
    }

    /// A request with `seq` that succeeded.
    pub(super) fn write_done(&mut self, re: Msgid, seq: &str, id: Option<GroupId>, full: &[UserId]) {
        self.write_object(|out| responses::done(out, re, seq, id.map(|group| group.0), full));
    }

    /// The answer to a ping.
    pub(super) fn write_pong(&mut self, seq: Option<&str>) {
        self.write_object(|out| responses::pong(out, seq));
    }

    /// The goodbye. A client whose first line was refused has its one line already.
    pub(super) fn write_goodbye(&mut self, close_info: &CloseInfo) {
        if self.refused_logins == 0 || !self.speaks_lines() {
            self.out.plain(|out| append_goodbye(&self.codec, close_info, out));
        }
    }

    /// The answer to a login, with what the box held.
    pub(super) fn write_login_answer(&mut self, login: &LoggedIn) {
        match &self.codec {
            Codec::Json(framer) => {
                let end = framer.terminator();
                let write = |out: &mut Vec<u8>| {
                    write_login(out, login);
                    out.push(end);
                };
                match login.offline.len() as u64 {
                    0 => self.out.greeting(write),
                    chats => self.out.kept(login.upto, chats, write),
                }
            }
            Codec::Line(_) => {
                for chat in &login.offline {
                    self.write_chat(chat);
                }
            }
        }
    }

    /// A chat from another worker, from main or from the box.
    pub(super) fn write_chat(&mut self, chat: &Chat) {
        let (end, source) = match &self.codec {
            Codec::Json(framer) => (Some(framer.terminator()), Source::Bytes),
            Codec::Line(_) => (None, Source::Body(chat.body.clone())),
        };
        let write = |out: &mut Vec<u8>| match end {
            Some(end) => {
                chat.write_object(out);
                out.push(end);
            }
            None => chat.write_line(out),
        };
        match chat.other_copy {
            OtherCopy::Here => self.out.live(chat.tracker.clone(), source, write),
            OtherCopy::Box(mid) => self.out.kept(Some(mid), 1, write),
            OtherCopy::Unconfirmed { .. } => self.out.kept(None, 1, write),
        }
    }
}

/// A goodbye with the client's terminator.
pub(super) fn append_goodbye(codec: &Codec, close_info: &CloseInfo, out: &mut Vec<u8>) {
    let (reason, text) = (close_info.reason, &close_info.text);
    match codec {
        Codec::Json(framer) => {
            responses::goodbye(out, reason, text, close_info.retry_after_ms);
            out.push(framer.terminator());
        }
        Codec::Line(_) => line::write_error(out, &format!("{}: {text}", reason.word())),
    }
}

/// The login answer in JSON.
fn write_login(out: &mut Vec<u8>, login: &LoggedIn) {
    let answer = LoginAnswer {
        id: login.sender.id,
        name: &login.sender.name,
        offline: login.offline.iter().map(|chat| |out: &mut Vec<u8>| chat.write_object(out)),
        friends: &login.friends,
        groups: &login.groups,
        more: login.more,
        seq: login.seq.as_deref(),
        token: login.token.as_ref().map(Token::text),
    };
    logged_in(out, answer);
}
