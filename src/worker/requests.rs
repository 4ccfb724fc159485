//! Bytes to requests, and requests to where they belong: another channel, main, or an auth thread.

use super::connection::Connection;
use super::core::{Core, IN_MAIN_MAX};
use super::socket::Transport;
use crate::channel::Reason;
use crate::channel::{ChannelId, SessionNo};
use crate::clock::local_time;
use crate::ident::UserId;
use crate::offline::{Departure, Entry, Mail, Origin, Parting};
use crate::protocol::answer;
use crate::protocol::errno::Errno;
use crate::protocol::framing::Framed;
use crate::protocol::request::{self, Body, ChatObject, Request};
use crate::service::ask::{Ask, Asker, Destination, Message};
use crate::service::auth::{Job, Task, Who};
use crate::service::chat::Chat;
use crate::service::fingerprint;
use crate::sync::Arc;

/// Errors 10 to 12 in a row at which a channel leaves with `protocol_violation`.
pub(super) const FAULTS_MAX: u32 = 100;

/// A request that was understood, with who asked.
struct Asked<'a> {
    channel: ChannelId,
    request: &'a Request<'a>,
}

impl Asked<'_> {
    fn asker(&self) -> Asker {
        Asker { channel: self.channel, re: self.request.msgid(), seq: self.request.seq.map(Into::into) }
    }
}

impl<T: Transport> Core<T> {
    /// Takes what was read, understands what is whole, and keeps the rest.
    pub(super) fn take_input(&mut self, id: ChannelId, bytes: &[u8]) {
        let Some(connection) = self.connection(id) else { return };
        if connection.leaving.is_some() {
            return;
        }
        if connection.input.is_empty() {
            let used = self.understand(id, bytes);
            if let Some(connection) = self.connection(id) {
                connection.input.extend_from_slice(&bytes[used..]);
            }
        } else {
            connection.input.extend_from_slice(bytes);
            self.understand_waiting(id);
        }
    }

    /// The client has ended its side. What it asked before is still done.
    pub(super) fn input_ended(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        connection.ended = true;
        if let Some(leaving) = &mut connection.leaving {
            leaving.gone = leaving.shut;
            self.mark_dirty(id);
            return;
        }
        self.shared.table.mark_ended(id);
        self.go_on(id);
    }

    /// Goes on with input that has waited, and leaves when that was all.
    pub(super) fn go_on(&mut self, id: ChannelId) {
        self.understand_waiting(id);
        let Some(connection) = self.connection(id) else { return };
        if connection.ended && connection.leaving.is_none() && !connection.is_held_up() {
            self.step(id, Parting::new(Reason::PeerClosed));
        }
        self.adjust_interest(id);
    }

    fn understand_waiting(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        if connection.input.is_empty() {
            return;
        }
        let mut input = std::mem::take(&mut connection.input);
        let used = self.understand(id, &input);
        let Some(connection) = self.connection(id) else { return };
        if used < input.len() {
            input.drain(..used);
            connection.input = input;
        }
    }

    /// Handles whole requests until the channel has to wait; answers how many bytes are done with.
    fn understand(&mut self, id: ChannelId, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let limits = &self.shared.limits;
            let (before_login, after_login) = (limits.max_frame_before_login, limits.max_frame);
            let Some(connection) = self.connection(id) else { return bytes.len() };
            if connection.leaving.is_some() {
                return bytes.len();
            }
            if connection.is_held_up() {
                return at;
            }
            let max_frame = if connection.user.is_some() { after_login } else { before_login };
            match connection.framer.next(&bytes[at..], max_frame) {
                Framed::More { skip } => return at + skip,
                Framed::Request { start, end } => {
                    let frame = &bytes[at + start..at + end];
                    at += end;
                    self.shared.metrics.requests.add(1);
                    self.handle(id, frame);
                }
                Framed::TooLarge => {
                    let text = format!("a request may have {max_frame} bytes at most");
                    self.reject(id, Errno::TooLarge, &text, None, None);
                    self.step(id, Parting::new(Reason::FrameTooLarge));
                    return bytes.len();
                }
                Framed::Malformed => {
                    self.reject(id, Errno::Malformed, "no end of the request can be found", None, None);
                    self.step(id, Parting::new(Reason::MalformedFrame));
                    return bytes.len();
                }
            }
        }
    }

    fn handle(&mut self, id: ChannelId, frame: &[u8]) {
        let request = match request::parse(frame) {
            Ok(request) => request,
            Err(fault) => {
                return self.reject(id, Errno::Malformed, &fault.text, fault.re, fault.seq.as_deref());
            }
        };
        let Some(connection) = self.connection(id) else { return };
        let user = connection.user.as_ref().map(|user| user.id);
        let asked = Asked { channel: id, request: &request };
        if let Some(errno) = misplaced(&request, user) {
            return self.refuse_asked(&asked, errno, errno.text());
        }
        connection.faults = 0;
        match &request.body {
            Body::Login { who, password, .. } => {
                let who = match who {
                    request::Who::Id(user) => Who::Id(*user),
                    request::Who::Name(name) => Who::Name(name.as_ref().into()),
                };
                let peer = connection.peer.to_string().into();
                self.send_to_auth(&asked, Task::Login { peer, who, password: password.as_ref().into() });
            }
            Body::Register { name, password } => {
                let fault = request::name_fault(name).or_else(|| request::password_fault(password));
                if let Some(text) = fault {
                    let seq = request.seq;
                    connection.say(|out| answer::refused(out, 5, Errno::Refused, text, seq));
                    self.shared.metrics.request_errors.add(1);
                    return self.mark_dirty(id);
                }
                let (name, password) = (name.as_ref().into(), password.as_ref().into());
                self.send_to_auth(&asked, Task::Register { name, password });
            }
            Body::Ping => {
                let seq = request.seq;
                connection.say(|out| answer::pong(out, seq));
                self.mark_dirty(id);
            }
            Body::Pong => {
                if let Some(seq) = request.seq {
                    connection.say(|out| answer::done(out, 23, seq, None, &[]));
                    self.mark_dirty(id);
                }
            }
            Body::Resume { .. } | Body::Confirm { .. } => {
                self.refuse_asked(&asked, Errno::Malformed, "this server has no such extension");
            }
            _ => {
                if let Some(user) = user {
                    self.handle_as(user, &asked);
                }
            }
        }
    }

    /// Handles a request of somebody who is logged in.
    fn handle_as(&mut self, user: UserId, asked: &Asked<'_>) {
        match &asked.request.body {
            Body::Logout => self.log_out(asked),
            Body::Chat { to, chat } => self.chat(user, *to, chat, asked),
            Body::GroupChat { group, chat } => {
                self.chat_through_main(user, Destination::Group(*group), chat, asked);
            }
            Body::AddFriend { friend } => {
                let asker = asked.asker();
                self.ask_main(Ask::AddFriend { asker, user, friend: *friend });
            }
            Body::CreateGroup { name, desc } => {
                let (name, desc) = (name.as_ref().into(), desc.as_ref().into());
                self.ask_main(Ask::CreateGroup { asker: asked.asker(), user, name, desc });
            }
            Body::JoinGroup { group } => {
                self.ask_main(Ask::JoinGroup { asker: asked.asker(), user, group: *group });
            }
            _ => {}
        }
    }

    /// A chat to one user: straight to the receiver's channel where that keeps the order, else through main.
    fn chat(&mut self, from: UserId, to: UserId, chat: &ChatObject<'_>, asked: &Asked<'_>) {
        let follows = self.connection(asked.channel).is_none_or(|c| c.in_main > 0);
        if follows || asked.request.seq.is_some() {
            return self.chat_through_main(from, Destination::User(to), chat, asked);
        }
        match self.shared.registry.direct(to) {
            Some((worker, channel, session)) if worker == self.index => {
                if !self.chat_here(from, (channel, session), chat, asked) {
                    self.chat_through_main(from, Destination::User(to), chat, asked);
                }
            }
            Some((worker, ..)) if self.shared.outlet.is_full(worker) => {
                self.refuse_asked(asked, Errno::Busy, Errno::Busy.text());
            }
            Some((worker, channel, session)) => {
                let body = self.deliverable(from, chat, asked.channel);
                self.shared.metrics.chats_direct.add(1);
                self.to_workers[worker].push(Mail::Chat {
                    to: channel,
                    session,
                    user: to,
                    chat: Chat::accepted(body, None),
                    origin: Some(Origin { channel: asked.channel, user: from }),
                });
            }
            None => self.chat_through_main(from, Destination::User(to), chat, asked),
        }
    }

    /// Writes a chat to a channel of the same worker. False when that session is over.
    fn chat_here(
        &mut self,
        from: UserId,
        to: (ChannelId, SessionNo),
        chat: &ChatObject<'_>,
        asked: &Asked<'_>,
    ) -> bool {
        let (channel, session) = to;
        let unix_ms = self.now.unix_ms;
        let Some(name) = self.name_json(asked.channel) else { return false };
        let table = Arc::clone(&self.shared.table);
        let Some(receiver) = self.connection(channel) else { return false };
        if receiver.leaving.is_some() || receiver.session() != Some(session) {
            return false;
        }
        if !table.is_live(channel, session) {
            // Somebody has taken the step, and what others send goes through main already.
            return false;
        }
        let end = receiver.terminator();
        receiver.out.live(None, |out| {
            chat.deliver(from, &name, || local_time(unix_ms), out);
            out.push(end);
        });
        self.shared.metrics.chats_direct.add(1);
        self.mark_dirty(channel);
        true
    }

    fn chat_through_main(&mut self, from: UserId, to: Destination, chat: &ChatObject<'_>, asked: &Asked<'_>) {
        let body = self.deliverable(from, chat, asked.channel);
        let fingerprint = asked.request.seq.map(|seq| fingerprint::of(seq, to, chat.text().as_bytes()));
        let asker = asked.asker();
        self.shared.metrics.chats_via_main.add(1);
        if let (Some(_), Some(connection)) = (fingerprint, self.connection(asked.channel)) {
            connection.tickets += 1;
        }
        self.ask_main(Ask::Chat(Message { asker, from, to, body, fingerprint }));
    }

    fn deliverable(&mut self, from: UserId, chat: &ChatObject<'_>, sender: ChannelId) -> Arc<[u8]> {
        let unix_ms = self.now.unix_ms;
        let name = self.name_json(sender).unwrap_or_else(|| "\"\"".into());
        let mut body = Vec::new();
        chat.deliver(from, &name, || local_time(unix_ms), &mut body);
        body.into()
    }

    fn name_json(&mut self, id: ChannelId) -> Option<Arc<str>> {
        let user = self.connection(id)?.user.as_ref()?;
        Some(Arc::clone(&user.name_json))
    }

    /// Ends the session and leaves the channel as it is.
    fn log_out(&mut self, asked: &Asked<'_>) {
        let id = asked.channel;
        let Some(connection) = self.connection(id) else { return };
        let Some(session) = connection.session() else {
            connection.user = None;
            return self.ask_main(Ask::Nothing { asker: asked.asker() });
        };
        if !self.shared.table.end_session(id, session) {
            // The channel has left meanwhile; a letter that says so is on its way.
            return;
        }
        self.to_main.push(Entry::Departure(Departure {
            channel: id,
            session: Some(session),
            stays: true,
            noticed_us: self.now.mono_us,
            at_ms: self.now.unix_ms,
            parting: Parting::new(Reason::ClientQuit),
        }));
        self.end_session_here(id, session);
        let index = self.index;
        self.to_workers[index].push(Mail::Settle { channel: id, session });
        self.ask_main(Ask::Nothing { asker: asked.asker() });
    }

    fn send_to_auth(&mut self, asked: &Asked<'_>, task: Task) {
        let asker = asked.asker();
        let now_us = self.now.mono_us;
        if let Some(connection) = self.connection(asked.channel) {
            connection.logging_in = true;
            connection.asked_us = now_us;
        }
        let job = Job { asker, task };
        if let Some(login) = self.shared.auth.recall(&job, self.now.mono_us) {
            self.shared.metrics.logins_cached.add(1);
            return self.ask(Ask::Login(login));
        }
        if let Err(job) = self.shared.auth.submit(job) {
            let (msgid, seq) = (job.task.answered_by(), job.asker.seq);
            if let Some(connection) = self.connection(asked.channel) {
                connection.logging_in = false;
                connection.say(|out| {
                    answer::refused(out, msgid, Errno::Busy, Errno::Busy.text(), seq.as_deref());
                });
            }
            self.mark_dirty(asked.channel);
        }
    }

    /// Asks main, and has the channel's later requests follow.
    fn ask_main(&mut self, ask: Ask) {
        let channel = ask.asker().channel;
        if let Some(connection) = self.connection(channel) {
            connection.in_main += 1;
        }
        self.ask(ask);
    }

    /// Sends a chat through main whose receiver has left on the way.
    pub(super) fn redirect(&mut self, letter: Mail) {
        let Mail::Chat { user, chat, origin: Some(origin), .. } = letter else { return };
        self.shared.metrics.chats_via_main.add(1);
        self.ask_main(Ask::Chat(Message {
            asker: Asker { channel: origin.channel, re: 6, seq: None },
            from: origin.user,
            to: Destination::User(user),
            body: chat.body,
            fingerprint: None,
        }));
    }

    /// Main has no room for an ask.
    pub(super) fn refuse(&mut self, ask: &Ask) {
        let Asker { channel, re, seq } = ask.asker().clone();
        let Some(connection) = self.connection(channel) else { return };
        match ask {
            Ask::Login(_) | Ask::Register { .. } => {
                connection.logging_in = false;
                let msgid = if matches!(ask, Ask::Login(_)) { 2 } else { 5 };
                connection.say(|out| {
                    answer::refused(out, msgid, Errno::Busy, Errno::Busy.text(), seq.as_deref());
                });
            }
            Ask::Nothing { .. } => {
                // What it answers is done; it only had to keep its place behind others.
                connection.in_main -= 1;
                if let Some(seq) = &seq {
                    connection.say(|out| answer::done(out, re, seq, None, &[]));
                }
                self.unblocked.push(channel);
                return self.mark_dirty(channel);
            }
            _ => {
                connection.in_main -= 1;
                if matches!(ask, Ask::Chat(Message { fingerprint: Some(_), .. })) {
                    connection.tickets -= 1;
                }
                connection.say(|out| {
                    answer::error(out, Errno::Busy, Errno::Busy.text(), Some(re), seq.as_deref());
                });
            }
        }
        self.shared.metrics.request_errors.add(1);
        self.unblocked.push(channel);
        self.mark_dirty(channel);
    }

    fn refuse_asked(&mut self, asked: &Asked<'_>, errno: Errno, text: &str) {
        let re = asked.request.msgid();
        self.reject(asked.channel, errno, text, Some(re), asked.request.seq);
    }

    fn reject(&mut self, id: ChannelId, errno: Errno, text: &str, re: Option<i64>, seq: Option<&str>) {
        self.shared.metrics.request_errors.add(1);
        let Some(connection) = self.connection(id) else { return };
        connection.say(|out| answer::error(out, errno, text, re, seq));
        if matches!(errno, Errno::Malformed | Errno::LoginFirst | Errno::WrongId) {
            connection.faults += 1;
            if connection.faults >= FAULTS_MAX {
                self.step(id, Parting::new(Reason::ProtocolViolation));
            }
        }
        self.mark_dirty(id);
    }
}

/// What is wrong with asking this on a channel of that user: nobody logged in, or somebody else.
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

impl<T> Connection<T> {
    /// True exactly when the next request has to wait.
    pub(super) fn is_held_up(&self) -> bool {
        self.logging_in || self.in_main >= IN_MAIN_MAX
    }
}
