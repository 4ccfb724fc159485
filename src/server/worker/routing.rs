//! Where a chat goes: to a channel of this worker, to another worker, or through main. And what comes back.

use super::connection::{Codec, Route};
use super::output_buffer::Source;
use super::state::WorkerState;
use crate::channel::ChannelId;
use crate::clock::local_time;
use crate::ids::UserId;
use crate::message::chat::{Body, Chat, Sender};
use crate::message::command::{Origin, WorkerCommand};
use crate::message::fingerprint;
use crate::message::reply_to::ReplyTo;
use crate::message::request::{Ask, Destination, Message};
use crate::net::transport::Transport;
use crate::protocol::errno::Errno;
use crate::protocol::line;
use crate::protocol::msgid::Msgid;
use crate::protocol::request::ChatObject;
use crate::sync::Arc;
use std::cell::OnceCell;

/// How much of the draft's memory is kept for the next one, in bytes.
const KEEP_DRAFT: usize = 16 * 1024;

/// The sender of a chat, and how an answer names the request.
pub(super) struct ChatSender<'a> {
    pub(super) channel: ChannelId,
    pub(super) sender: Arc<Sender>,
    /// What the request was; a chat for a line.
    pub(super) re: Msgid,
    /// The request's `seq`, as raw JSON.
    pub(super) seq: Option<&'a str>,
}

impl ChatSender<'_> {
    fn reply_to(&self) -> ReplyTo {
        ReplyTo { channel: self.channel, re: self.re, seq: self.seq.map(Into::into) }
    }
}

/// What a chat says, as one of the two protocols brings it.
#[derive(Clone, Copy)]
pub(super) enum ChatPayload<'a> {
    /// A JSON request.
    Object(&'a ChatObject<'a>),
    /// A line's text.
    Text {
        /// The text.
        text: &'a str,
        /// A copy for all receivers that this worker cannot write to itself. It is made for the first of them.
        shared: &'a OnceCell<Arc<str>>,
    },
}

impl ChatPayload<'_> {
    /// The chat with its own memory. It is written to `draft` first, which is empty, because its length is not known
    /// before.
    fn body(self, sender: &Arc<Sender>, to: UserId, unix_ms: i64, draft: &mut Vec<u8>) -> Body {
        match self {
            ChatPayload::Object(object) => {
                object.deliver(sender.id, &sender.name, || local_time(unix_ms), draft);
                let body = Body::Object(draft.as_slice().into());
                draft.clear();
                draft.shrink_to(KEEP_DRAFT);
                body
            }
            ChatPayload::Text { text, shared } => {
                let text = Arc::clone(shared.get_or_init(|| text.into()));
                Body::Text { sender: Arc::clone(sender), to, at_ms: unix_ms, text }
            }
        }
    }

    fn fingerprint(self, seq: &str, to: &Destination) -> u128 {
        match self {
            ChatPayload::Object(object) => fingerprint::of(seq, to, object.text().as_bytes()),
            ChatPayload::Text { text, .. } => fingerprint::of(seq, to, text.as_bytes()),
        }
    }
}

impl<T: Transport> WorkerState<T> {
    /// A chat to one user: straight to the receiver's channel where that keeps the order, else through main.
    pub(super) fn chat(&mut self, from: &ChatSender<'_>, to: UserId, payload: ChatPayload<'_>) {
        if from.seq.is_none()
            && self.may_go_directly(from.channel)
            && let Some(route) = self.route_to(from.channel, to)
            && self.chat_by_route(from, &route, payload)
        {
            return;
        }
        self.chat_through_main(from, Destination::User(to), payload);
    }

    /// A chat to a user by name.
    pub(super) fn chat_to_name(&mut self, from: &ChatSender<'_>, name: &str, payload: ChatPayload<'_>) {
        if self.may_go_directly(from.channel)
            && let Some(route) = self.route_to_name(from.channel, name)
            && self.chat_by_route(from, &route, payload)
        {
            return;
        }
        self.chat_through_main(from, Destination::Name(name.into()), payload);
    }

    /// While main works on a request of a channel, the channel's chats go through main too.
    fn may_go_directly(&mut self, sender: ChannelId) -> bool {
        self.connection(sender).is_some_and(|connection| connection.in_main == 0)
    }

    fn route_to(&mut self, sender: ChannelId, to: UserId) -> Option<Route> {
        let latest = self.connection(sender)?.route().filter(|route| route.user == to).cloned();
        if let Some(route) = latest
            && self.handles.table.is_live(route.channel, route.session)
        {
            return Some(route);
        }
        let (worker, channel, session) = self.handles.registry.direct(to)?;
        let route = Route { user: to, worker, channel, session, name: None };
        self.connection(sender)?.active().route = Some(route.clone());
        Some(route)
    }

    fn route_to_name(&mut self, sender: ChannelId, name: &str) -> Option<Route> {
        let latest = self.connection(sender)?.route();
        if let Some(route) = latest.filter(|route| route.name.as_deref() == Some(name)) {
            let route = Route { name: None, ..*route };
            if self.handles.table.is_live(route.channel, route.session) {
                return Some(route);
            }
        }
        let user = self.handles.registry.named(name)?;
        let (worker, channel, session) = self.handles.registry.direct(user)?;
        let route = Route { user, worker, channel, session, name: Some(name.into()) };
        self.connection(sender)?.active().route = Some(route.clone());
        Some(route)
    }

    /// Sends a chat without main. False when that session is over.
    fn chat_by_route(&mut self, from: &ChatSender<'_>, route: &Route, payload: ChatPayload<'_>) -> bool {
        if route.worker == self.index {
            return self.chat_on_this_worker(from, route, payload);
        }
        if self.handles.worker_sender.is_full(route.worker) {
            self.reject(from.channel, Errno::Busy, Errno::Busy.text(), Some(from.re.number()), from.seq);
            return true;
        }
        let body = payload.body(&from.sender, route.user, self.now.unix_ms, &mut self.draft);
        self.handles.metrics.chats_direct.add(1);
        self.to_workers[route.worker].push(WorkerCommand::Chat {
            to: route.channel,
            session: route.session,
            user: route.user,
            chat: Chat::accepted(body, None),
            origin: Some(Origin { channel: from.channel, user: from.sender.id }),
        });
        true
    }

    /// Writes a chat to a channel of the same worker. False when that session is over.
    fn chat_on_this_worker(
        &mut self,
        from: &ChatSender<'_>,
        route: &Route,
        payload: ChatPayload<'_>,
    ) -> bool {
        let unix_ms = self.now.unix_ms;
        if !self.handles.table.is_live(route.channel, route.session) {
            // The step is taken, and what others send goes through main already.
            return false;
        }
        let Some(receiver) = self.connection(route.channel) else { return false };
        if receiver.closing.is_some() || receiver.session() != Some(route.session) {
            return false;
        }
        self.lend_buffer(route.channel);
        let Some(receiver) = self.connection(route.channel) else { return false };
        let sender = &from.sender;
        match (payload, &receiver.codec) {
            (ChatPayload::Object(object), Codec::Json(framer)) => {
                let end = framer.terminator();
                receiver.out.live(None, Source::Bytes, |out| {
                    object.deliver(sender.id, &sender.name, || local_time(unix_ms), out);
                    out.push(end);
                });
            }
            (ChatPayload::Text { text, .. }, Codec::Line(_)) => {
                let source = Source::Line { sender: Arc::clone(sender), to: route.user, at_ms: unix_ms };
                receiver.out.live(None, source, |out| line::write_chat(out, &sender.name, None, text));
            }
            (payload, _) => {
                let body = payload.body(sender, route.user, unix_ms, &mut Vec::new());
                receiver.write_chat(&Chat::accepted(body, None));
            }
        }
        self.handles.metrics.chats_direct.add(1);
        self.mark_dirty(route.channel);
        true
    }

    pub(super) fn chat_through_main(
        &mut self,
        from: &ChatSender<'_>,
        to: Destination,
        payload: ChatPayload<'_>,
    ) {
        let user = if let Destination::User(user) = to { user } else { from.sender.id };
        let body = payload.body(&from.sender, user, self.now.unix_ms, &mut self.draft);
        let fingerprint = from.seq.map(|seq| payload.fingerprint(seq, &to));
        self.handles.metrics.chats_via_main.add(1);
        if let (Some(_), Some(connection)) = (fingerprint, self.connection(from.channel)) {
            connection.trackers += 1;
        }
        let (reply_to, from) = (from.reply_to(), from.sender.id);
        self.ask_main(Ask::Chat(Message { reply_to, from, to, body, fingerprint }));
    }

    /// Asks main; the channel's later requests go through main until it has answered.
    pub(super) fn ask_main(&mut self, ask: Ask) {
        let channel = ask.reply_to().channel;
        if let Some(connection) = self.connection(channel) {
            connection.in_main += 1;
        }
        self.ask(ask);
    }

    /// Sends a chat through main whose receiver has left on the way.
    pub(super) fn redirect(&mut self, command: WorkerCommand) {
        let WorkerCommand::Chat { user, chat, origin: Some(origin), .. } = command else { return };
        self.handles.metrics.chats_via_main.add(1);
        self.ask_main(Ask::Chat(Message {
            reply_to: ReplyTo { channel: origin.channel, re: Msgid::Chat, seq: None },
            from: origin.user,
            to: Destination::User(user),
            body: chat.body,
            fingerprint: None,
        }));
    }

    /// Main's queue has no room for a request.
    pub(super) fn refuse(&mut self, ask: &Ask) {
        let ReplyTo { channel, re, seq } = ask.reply_to().clone();
        let Some(connection) = self.connection(channel) else { return };
        match ask {
            Ask::Login(_)
            | Ask::Resume(_)
            | Ask::Guest { .. }
            | Ask::Register { .. }
            | Ask::RefuseNewcomer { .. } => {
                self.end_login(channel);
                self.refuse_login(channel, re, Errno::Busy, Errno::Busy.text(), seq.as_deref());
            }
            Ask::Fence { .. } => {
                // What it answers is done; it only had to keep its place behind other requests.
                connection.in_main -= 1;
                if let Some(seq) = &seq {
                    connection.write_done(re, seq, None, &[]);
                }
            }
            _ => {
                connection.in_main -= 1;
                if matches!(ask, Ask::Chat(Message { fingerprint: Some(_), .. })) {
                    connection.trackers -= 1;
                }
                connection.write_error(Errno::Busy, Errno::Busy.text(), Some(re.number()), seq.as_deref());
                self.handles.metrics.request_errors.add(1);
            }
        }
        self.unblocked.push(channel);
        self.mark_dirty(channel);
    }
}
