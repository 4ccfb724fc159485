//! What a channel is told, in the words of its protocol.

use super::connection::{Codec, Connection};
use super::outbuf::Source;
use crate::ident::{GroupId, UserId};
use crate::offline::Parting;
use crate::protocol::answer::{self, FriendState, GroupState, LoginAnswer, MemberState};
use crate::protocol::errno::Errno;
use crate::protocol::line;
use crate::service::answer::LoggedIn;
use crate::service::chat::Chat;
use crate::service::tokens::Token;

impl<T> Connection<T> {
    /// Appends one JSON object, ended in the way the client speaks; nothing for a client that speaks lines.
    pub(super) fn say_object(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Codec::Json(framer) = &self.codec {
            let end = framer.terminator();
            self.out.plain(|out| {
                write(out);
                out.push(end);
            });
        }
    }

    /// A request that failed.
    pub(super) fn say_error(&mut self, errno: Errno, text: &str, re: Option<i64>, seq: Option<&str>) {
        match self.codec {
            Codec::Json(_) => self.say_object(|out| answer::error(out, errno, text, re, seq)),
            Codec::Line(_) => self.out.plain(|out| line::write_error(out, text)),
        }
    }

    /// A login or registration that failed; `msgid` is that of the answer.
    pub(super) fn say_refused(&mut self, msgid: i64, errno: Errno, text: &str, seq: Option<&str>) {
        match self.codec {
            Codec::Json(_) => self.say_object(|out| answer::refused(out, msgid, errno, text, seq)),
            Codec::Line(_) => self.out.plain(|out| line::write_error(out, text)),
        }
    }

    /// A registration that succeeded.
    pub(super) fn say_registered(&mut self, user: UserId, seq: Option<&str>) {
        self.say_object(|out| answer::registered(out, user, seq));
    }

    /// A request with `seq` that succeeded.
    pub(super) fn say_done(&mut self, re: i64, seq: &str, id: Option<GroupId>, full: &[UserId]) {
        self.say_object(|out| answer::done(out, re, seq, id.map(|group| group.0), full));
    }

    /// The answer to a ping.
    pub(super) fn say_pong(&mut self, seq: Option<&str>) {
        self.say_object(|out| answer::pong(out, seq));
    }

    /// The last words. A refused first line has had its one line already.
    pub(super) fn say_goodbye(&mut self, parting: &Parting) {
        let (reason, text) = (parting.reason, &parting.text);
        match self.codec {
            Codec::Json(_) => {
                self.say_object(|out| answer::goodbye(out, reason, text, parting.retry_after_ms));
            }
            Codec::Line(_) if self.refused_logins > 0 => {}
            Codec::Line(_) => {
                let line = format!("{}: {text}", reason.word());
                self.out.plain(|out| line::write_error(out, &line));
            }
        }
    }

    /// The answer to a login, with what the box held.
    pub(super) fn say_welcome(&mut self, login: &LoggedIn) {
        match &self.codec {
            Codec::Json(framer) => {
                let end = framer.terminator();
                let write = |out: &mut Vec<u8>| {
                    write_login(out, login);
                    out.push(end);
                };
                match login.upto {
                    Some(upto) => self.out.kept(upto, login.offline.len() as u64, write),
                    None => self.out.greeting(write),
                }
            }
            Codec::Line(_) => {
                for chat in &login.offline {
                    self.take_chat(chat.clone());
                }
            }
        }
    }

    /// A chat from another worker, from main or from the box.
    pub(super) fn take_chat(&mut self, chat: Chat) {
        match (&self.codec, chat.kept) {
            (Codec::Json(framer), kept) => {
                let end = framer.terminator();
                let write = |out: &mut Vec<u8>| {
                    chat.body.write_object(out);
                    out.push(end);
                };
                match kept {
                    Some(mid) => self.out.kept(mid, 1, write),
                    None => self.out.live(chat.ticket, Source::Bytes, write),
                }
            }
            (Codec::Line(_), Some(mid)) => self.out.kept(mid, 1, |out| chat.write_line(out)),
            (Codec::Line(_), None) => {
                let source = Source::Body(chat.body.clone());
                self.out.live(chat.ticket.clone(), source, |out| chat.write_line(out));
            }
        }
    }
}

/// The login answer in JSON.
fn write_login(out: &mut Vec<u8>, login: &LoggedIn) {
    let objects: Vec<_> = login.offline.iter().map(|chat| chat.body.object()).collect();
    let offline: Vec<&[u8]> = objects.iter().map(|object| &**object).collect();
    let friends: Vec<_> = login
        .friends
        .iter()
        .map(|friend| FriendState { id: friend.id, name: &friend.name, online: friend.online })
        .collect();
    let members: Vec<Vec<MemberState<'_>>> = login
        .groups
        .iter()
        .map(|group| {
            let members = group.members.iter();
            members
                .map(|m| MemberState { id: m.id, name: &m.name, online: m.online, role: &m.role })
                .collect()
        })
        .collect();
    let groups: Vec<_> = login
        .groups
        .iter()
        .zip(&members)
        .map(|(group, users)| GroupState { id: group.id, name: &group.name, desc: &group.desc, users })
        .collect();
    answer::logged_in(
        out,
        &LoginAnswer {
            id: login.user,
            name: &login.name,
            offline: &offline,
            friends: &friends,
            groups: &groups,
            seq: login.seq.as_deref(),
            token: login.token.as_ref().map(Token::text),
        },
    );
}
