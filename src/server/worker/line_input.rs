//! The line protocol's requests: the first line logs in, every other line is a chat.

use super::routing::{ChatPayload, ChatSender};
use super::state::WorkerState;
use crate::auth::login_limiter::TOO_MANY_FAILURES;
use crate::auth::pool::Task;
use crate::channel::{ChannelId, Reason};
use crate::ip_block::IpBlock;
use crate::message::disconnect::CloseInfo;
use crate::message::reply_to::ReplyTo;
use crate::message::request::Ask;
use crate::message::request::Who;
use crate::net::transport::Transport;
use crate::protocol::errno::Errno;
use crate::protocol::line;
use crate::protocol::msgid::Msgid;
use crate::protocol::request::Caps;
use crate::protocol::written_name::read_name;
use std::cell::OnceCell;

impl<T: Transport> WorkerState<T> {
    pub(super) fn handle_line(&mut self, id: ChannelId, line: &[u8]) {
        let Some(connection) = self.connection(id) else { return };
        match connection.user.as_ref().map(|user| user.sender.clone()) {
            None => self.handle_login_line(id, line),
            Some(sender) => {
                let from = ChatSender { channel: id, sender, re: Msgid::Chat, seq: None };
                self.handle_chat_line(&from, line);
            }
        }
    }

    fn handle_login_line(&mut self, id: ChannelId, line: &[u8]) {
        let opening = match line::opening(line) {
            Ok(opening) => opening,
            Err(fault) => return self.refuse_login(id, Msgid::Login, Errno::Refused, fault, None),
        };
        let Some(connection) = self.connection(id) else { return };
        let peer = connection.peer.addr();
        let reply_to = ReplyTo { channel: id, re: Msgid::Login, seq: None };
        let name: Box<str> = opening.name.into();
        match opening.password {
            // Nothing to verify: main knows whether a user has the name.
            None => {
                if self.handles.attempts.are_exhausted(IpBlock::of(peer.ip()), None, self.now.mono_us) {
                    return self.refuse_login(id, Msgid::Login, Errno::TooMany, TOO_MANY_FAILURES, None);
                }
                self.await_login(id);
                self.ask(Ask::Guest { reply_to, peer, name });
            }
            Some(password) => {
                let (who, password) = (Who::Name(name), password.into());
                let caps = Caps::default();
                self.send_to_auth(reply_to, Task::Login { peer, who, password, caps, lines: true });
            }
        }
    }

    fn handle_chat_line(&mut self, from: &ChatSender<'_>, line: &[u8]) {
        match line::said(line) {
            Ok(said) => {
                if let Some(connection) = self.connection(from.channel) {
                    connection.faults = 0;
                }
                let shared = OnceCell::new();
                for name in said.to() {
                    self.chat_to_name(
                        from,
                        &read_name(name),
                        ChatPayload::Text { text: said.text, shared: &shared },
                    );
                }
            }
            Err(fault) => self.reject(from.channel, Errno::Malformed, fault, None, None),
        }
    }

    /// A login or registration is refused. A client of the line protocol has only this one try.
    pub(super) fn refuse_login(
        &mut self,
        id: ChannelId,
        re: Msgid,
        errno: Errno,
        text: &str,
        seq: Option<&str>,
    ) {
        self.handles.metrics.request_errors.add(1);
        let Some(connection) = self.connection(id) else { return };
        connection.write_refused(re, errno, text, seq);
        let wrong = re == Msgid::Login && errno == Errno::Refused;
        let only_try = connection.speaks_lines();
        if wrong || only_try {
            connection.refused_logins += 1;
        }
        if only_try || connection.refused_logins >= REFUSED_LOGINS_MAX {
            self.step(id, CloseInfo::new(Reason::AuthFailed));
        }
        self.mark_dirty(id);
    }

    /// A ban refuses a login or registration: first a refusal, then the goodbye. In the line protocol one line is both.
    pub(super) fn refuse_banned(
        &mut self,
        id: ChannelId,
        re: Msgid,
        close_info: &CloseInfo,
        seq: Option<&str>,
    ) {
        self.handles.metrics.request_errors.add(1);
        let Some(connection) = self.connection(id) else { return };
        let text = format!("{}: {}", close_info.reason.word(), close_info.text);
        connection.write_refused(re, Errno::TooMany, &text, seq);
        connection.refused_logins += 1;
        self.step(id, close_info.clone());
        self.mark_dirty(id);
    }
}

/// Refused logins at which a channel leaves with `auth_failed`.
const REFUSED_LOGINS_MAX: u8 = 10;
