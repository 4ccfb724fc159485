//! What each JSON request does: it is answered here, or goes to another channel, to main or to an auth thread.

use super::rate_limit::Pace;
use super::routing::{ChatPayload, ChatSender};
use super::state::WorkerState;
use crate::auth::login_limiter::{Account, TOO_MANY_FAILURES};
use crate::auth::pool::{Job, Task};
use crate::channel::{ChannelId, Reason};
use crate::ids::{Mid, UserId};
use crate::ip_block::IpBlock;
use crate::message::chat::Sender;
use crate::message::disconnect::{CloseInfo, Departure};
use crate::message::event::Event;
use crate::message::reply_to::ReplyTo;
use crate::message::request::Who;
use crate::message::request::{Ask, Destination, Login, Resume};
use crate::net::transport::Transport;
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::protocol::name;
use crate::protocol::request::{self, Body, Fault, Request};
use crate::store::TokenHash;
use crate::sync::Arc;

/// Errors 10 to 12 in a row at which a channel leaves with `protocol_violation`.
pub(super) const FAULTS_MAX: u8 = 100;

/// Registrations of one channel, unless it comes from loopback. They run one at a time: requests behind one wait.
pub(super) const REGISTRATIONS_MAX: u8 = 200;

/// A request, and the channel that it came from.
struct Asked<'a> {
    channel: ChannelId,
    request: &'a Request<'a>,
}

impl Asked<'_> {
    fn reply_to(&self) -> ReplyTo {
        ReplyTo { channel: self.channel, re: self.request.msgid(), seq: self.request.seq.map(Into::into) }
    }
}

impl<T: Transport> WorkerState<T> {
    /// Counts a request against the rate; closes a channel that never slows down.
    pub(super) fn is_too_fast(&mut self, id: ChannelId) -> bool {
        let Some(rate) = self.shared.limits.request_rate else { return false };
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return false };
        let pace = connection.active().token_bucket.get_or_insert_default().take(rate, now_us);
        if pace == Pace::FarTooFast {
            self.step(id, CloseInfo::new(Reason::RateExceeded));
        }
        pace != Pace::Fine
    }

    pub(super) fn refuse_too_fast(&mut self, id: ChannelId, asked: Option<&Request<'_>>) {
        let (re, seq) = asked.map_or((None, None), |asked| (Some(asked.msgid()), asked.seq));
        let text = Errno::TooMany.text();
        match re {
            Some(re @ (Msgid::Login | Msgid::Register)) => {
                self.refuse_login(id, re, Errno::TooMany, text, seq);
            }
            re => self.reject(id, Errno::TooMany, text, re.map(Msgid::number), seq),
        }
    }

    pub(super) fn handle_request(&mut self, id: ChannelId, request: &Result<Request<'_>, Fault>) {
        let request = match request {
            Ok(request) => request,
            Err(fault) => return self.refuse_fault(id, fault),
        };
        let Some(connection) = self.connection(id) else { return };
        let sender = connection.user.as_ref().map(|user| Arc::clone(&user.sender));
        let user = sender.as_ref().map(|sender| sender.id);
        let asked = Asked { channel: id, request };
        if let Some(errno) = misplaced(request, user) {
            return self.refuse_asked(&asked, errno, errno.text());
        }
        connection.faults = 0;
        match &request.body {
            Body::Login { who, password, caps } => {
                let who = match who {
                    request::Who::Id(user) => Who::Id(*user),
                    request::Who::Name(name) => Who::Name(name.as_ref().into()),
                };
                let peer = connection.peer.addr();
                let password = password.as_ref().into();
                let task = Task::Login { peer, who, password, caps: *caps, lines: false };
                self.send_to_auth(asked.reply_to(), task);
            }
            Body::Resume { token, caps } => {
                let (peer, token) = (connection.peer.addr(), TokenHash::of(token));
                self.resume(Resume { reply_to: asked.reply_to(), peer, token, caps: *caps });
            }
            Body::Register { name, password } => {
                let name = match (name::of_new_user(name), request::password_fault(password)) {
                    (Ok(name), None) => name.as_ref().into(),
                    (Err(text), _) | (Ok(_), Some(text)) => {
                        return self.refuse_login(id, Msgid::Register, Errno::Refused, text, request.seq);
                    }
                };
                let (peer, password) = (connection.peer.addr(), password.as_ref().into());
                if self.may_register(id) {
                    self.send_to_auth(asked.reply_to(), Task::Register { peer, name, password });
                } else {
                    self.await_login(id);
                    self.ask(Ask::RefuseNewcomer { reply_to: asked.reply_to(), peer });
                }
            }
            Body::Ping => {
                connection.write_pong(request.seq);
                self.mark_dirty(id);
            }
            Body::Pong => {
                if let Some(seq) = request.seq {
                    connection.write_done(asked.request.msgid(), seq, None, &[]);
                    self.mark_dirty(id);
                }
            }
            Body::Confirm { upto } => self.confirm(&asked, *upto),
            _ => {
                if let Some(sender) = sender {
                    self.handle_as(sender, &asked);
                }
            }
        }
    }

    /// Handles a request of a user who is logged in.
    fn handle_as(&mut self, sender: Arc<Sender>, asked: &Asked<'_>) {
        let user = sender.id;
        let from =
            ChatSender { channel: asked.channel, sender, re: asked.request.msgid(), seq: asked.request.seq };
        match &asked.request.body {
            Body::Logout => self.log_out(asked),
            Body::Chat { to, chat } => self.chat(&from, *to, ChatPayload::Object(chat)),
            Body::GroupChat { group, chat } => {
                self.chat_through_main(&from, Destination::Group(*group), ChatPayload::Object(chat));
            }
            Body::AddFriend { friend } => {
                let reply_to = asked.reply_to();
                self.ask_main(Ask::AddFriend { reply_to, user, friend: *friend });
            }
            Body::CreateGroup { name, desc } => {
                let (name, desc) = (name.as_ref().into(), desc.as_ref().into());
                self.ask_main(Ask::CreateGroup { reply_to: asked.reply_to(), user, name, desc });
            }
            Body::JoinGroup { group } => {
                self.ask_main(Ask::JoinGroup { reply_to: asked.reply_to(), user, group: *group });
            }
            _ => {}
        }
    }

    /// The client has received all up to a number.
    fn confirm(&mut self, asked: &Asked<'_>, upto: Mid) {
        let channel = asked.channel;
        let Some(connection) = self.connection(channel) else { return };
        let Some(user) = connection.user.as_ref() else { return };
        if !user.caps.ack {
            return self.refuse_asked(asked, Errno::Malformed, "nothing to confirm without the cap `ack`");
        }
        let (user, session) = (user.sender.id, user.session);
        if let Some(seq) = asked.request.seq {
            connection.write_done(asked.request.msgid(), seq, None, &[]);
            self.mark_dirty(channel);
        }
        if let Some(session) = session
            && self.handles.table.confirm(channel, upto)
        {
            self.to_main.push(Event::Confirmed { user, channel, session });
        }
    }

    /// Ends the session and leaves the channel as it is.
    fn log_out(&mut self, asked: &Asked<'_>) {
        let id = asked.channel;
        let Some(connection) = self.connection(id) else { return };
        let Some(session) = connection.session() else {
            connection.user = None;
            return self.ask_main(Ask::Fence { reply_to: asked.reply_to() });
        };
        if !self.handles.table.end_session(id, session) {
            // The channel has left meanwhile; the command of whoever took the step is on the way.
            return;
        }
        self.to_main.push(Event::Departure(Departure {
            channel: id,
            session: Some(session),
            stays: true,
            noticed_us: self.now.mono_us,
            queued_us: 0,
            at_ms: self.now.unix_ms,
            close_info: CloseInfo::new(Reason::ClientQuit),
        }));
        self.handles.metrics.left.add(Reason::ClientQuit, 1);
        self.end_session_here(id, session);
        self.report_delivery_later(id, Some(session));
        self.ask_main(Ask::Fence { reply_to: asked.reply_to() });
    }

    /// Stops the login clock; requests behind the login wait for it.
    pub(super) fn await_login(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        self.end_overstay(id);
        if let Some(connection) = self.connection(id) {
            connection.begin_login(now_us);
        }
    }

    /// A login by token goes straight to main: there is nothing to hash.
    fn resume(&mut self, resume: Resume) {
        let id = resume.reply_to.channel;
        if self.handles.attempts.are_exhausted(IpBlock::of(resume.peer.ip()), None, self.now.mono_us) {
            let seq = resume.reply_to.seq.as_deref();
            return self.refuse_login(id, Msgid::Login, Errno::TooMany, TOO_MANY_FAILURES, seq);
        }
        self.await_login(id);
        self.ask(Ask::Resume(resume));
    }

    pub(super) fn send_to_auth(&mut self, reply_to: ReplyTo, task: Task) {
        let (id, re) = (reply_to.channel, reply_to.re);
        let job = Job { reply_to, task };
        let cached = self.handles.auth.cached_login(&job, self.now.mono_us);
        if self.has_failed_too_often(&job.task, cached.as_ref()) {
            let seq = job.reply_to.seq.as_deref();
            return self.refuse_login(id, re, Errno::TooMany, TOO_MANY_FAILURES, seq);
        }
        self.await_login(id);
        if let Some(login) = cached {
            self.handles.metrics.logins_cached.add(1);
            return self.ask(Ask::Login(Box::new(login)));
        }
        if let Err(job) = self.handles.auth.submit(job) {
            let seq = job.reply_to.seq;
            self.end_login(id);
            self.refuse_login(id, re, Errno::Busy, Errno::Busy.text(), seq.as_deref());
        }
    }

    /// Counts a registration of a channel, if it may have one more; the auth threads count for its address.
    fn may_register(&mut self, id: ChannelId) -> bool {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return false };
        let (asked, address) = (connection.registrations, connection.block());
        if asked >= REGISTRATIONS_MAX && !address.is_loopback() {
            return false;
        }
        if let Some(connection) = self.connection(id) {
            connection.registrations = connection.registrations.saturating_add(1);
        }
        self.handles.attempts.may_register(address, now_us)
    }

    /// Checks what is known without the database; the auth threads check again, and count.
    fn has_failed_too_often(&self, task: &Task, cached: Option<&Login>) -> bool {
        let Task::Login { peer, .. } = task else { return false };
        let account = cached.map(|login| Account::User(login.user));
        self.handles.attempts.are_exhausted(IpBlock::of(peer.ip()), account.as_ref(), self.now.mono_us)
    }

    fn refuse_asked(&mut self, asked: &Asked<'_>, errno: Errno, text: &str) {
        let re = Some(asked.request.msgid().number());
        self.reject(asked.channel, errno, text, re, asked.request.seq);
    }

    /// A request cannot be parsed. Existing clients send heartbeats of their own, so a request with an unknown `msgid`
    /// from a user who is logged in is answered and not counted.
    fn refuse_fault(&mut self, id: ChannelId, fault: &Fault) {
        let Some(connection) = self.connection(id) else { return };
        let (re, seq) = (fault.re, fault.seq.as_deref());
        if connection.user.is_some() && fault.is_of_unknown_kind() {
            self.write_error(id, Errno::Malformed, &fault.text, re, seq);
        } else {
            self.reject(id, Errno::Malformed, &fault.text, re, seq);
        }
    }

    /// A request failed. The channel leaves when too many of its own faults come in a row.
    pub(super) fn reject(
        &mut self,
        id: ChannelId,
        errno: Errno,
        text: &str,
        re: Option<i64>,
        seq: Option<&str>,
    ) {
        self.write_error(id, errno, text, re, seq);
        let Some(connection) = self.connection(id) else { return };
        if matches!(errno, Errno::Malformed | Errno::LoginFirst | Errno::WrongId) {
            connection.faults = connection.faults.saturating_add(1);
            if connection.faults >= FAULTS_MAX {
                self.step(id, CloseInfo::new(Reason::ProtocolViolation));
            }
        }
    }

    fn write_error(&mut self, id: ChannelId, errno: Errno, text: &str, re: Option<i64>, seq: Option<&str>) {
        self.handles.metrics.request_errors.add(1);
        let Some(connection) = self.connection(id) else { return };
        connection.write_error(errno, text, re, seq);
        self.mark_dirty(id);
    }
}

/// Why this request is not allowed on a channel of that user: no login, or the id of another user.
fn misplaced(request: &Request<'_>, user: Option<UserId>) -> Option<Errno> {
    if matches!(
        request.body,
        Body::Login { .. } | Body::Resume { .. } | Body::Register { .. } | Body::Ping | Body::Pong
    ) {
        return None;
    }
    match (user, request.claimed) {
        (None, _) => Some(Errno::LoginFirst),
        (Some(user), Some(claimed)) if claimed != user => Some(Errno::WrongId),
        _ => None,
    }
}
