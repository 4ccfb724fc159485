//! One channel in its worker's hands. Nobody else touches it.

use super::output_buffer::OutputBuffer;
use super::presence_queue::PresenceQueue;
use super::rate_limit::TokenBucket;
use super::thin_vec::ThinVec;
use super::timer_wheel::Tick;
use crate::channel::{ChannelId, SessionNo};
use crate::ids::UserId;
use crate::ip_block::{IpBlock, Peer};
use crate::message::chat::{Chat, Sender};
use crate::message::disconnect::{CloseInfo, PartialWrite};
use crate::net::Registered;
use crate::protocol::framing::Framer;
use crate::protocol::line::LineFramer;
use crate::protocol::request::Caps;
use crate::sync::Arc;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;

/// Requests of one channel that may be on their way through main; past it the channel is not read.
pub(super) const IN_MAIN_MAX: u32 = 256;

/// What a connection speaks, and how far its input is understood.
#[derive(Debug)]
pub enum Codec {
    /// JSON objects.
    Json(Framer),
    /// Lines.
    Line(LineFramer),
}

/// A connection and all that its worker knows of it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each said to hold exactly when")]
pub(super) struct Connection<T> {
    pub(super) id: ChannelId,
    pub(super) io: T,
    pub(super) peer: Peer,
    pub(super) codec: Codec,
    /// Bytes that are read and not yet understood.
    pub(super) input: ThinVec<u8>,
    pub(super) out: OutputBuffer,
    /// True exactly when the latest write took less than it was offered.
    pub(super) blocked: bool,
    /// True exactly while the channel is on the worker's list of those with something to write.
    pub(super) dirty: bool,
    /// Who is logged in, or was when the client ended its side.
    pub(super) user: Option<User>,
    /// Sessions that have ended and are not settled yet, oldest first, but for the one with which the channel leaves.
    /// Hardly ever any.
    ended_sessions: ThinVec<EndedSession>,
    /// When the login or registration was asked that is on its way: what is behind it waits.
    pub(super) login_asked_us: Option<NonZeroU64>,
    /// Requests on their way through main. While there are some, later ones follow them.
    pub(super) in_main: u32,
    /// Answers that tickets still owe.
    pub(super) tickets: u32,
    /// True exactly when the client has ended its side.
    pub(super) ended: bool,
    /// The end that waits for a turn that takes it in, while one does.
    pub(super) deferred_eof: Option<Eof>,
    /// True exactly when the channel table has been told that the client is gone.
    pub(super) counted_gone: bool,
    /// What an idle client has no use for.
    active: Option<Box<ActiveState>>,
    /// Why the channel leaves; set from the moment its worker learns that the step is taken.
    pub(super) closing: Option<Box<Closing>>,
    /// Errors 10 to 12 in a row.
    pub(super) faults: u8,
    /// Logins refused on this channel.
    pub(super) refused_logins: u8,
    /// Registrations asked for on this channel.
    pub(super) registrations: u8,
    /// When it was accepted, on the monotonic clock.
    pub(super) since_us: u64,
    /// When input came last.
    pub(super) heard_us: u64,
    /// Since when the user is logged in, or nobody is; that is moved on by the time that logins take.
    pub(super) changed_us: u64,
    /// True exactly when its address counts it, which lasts until the connection is handed back.
    pub(super) counted_in: bool,
    /// When output last moved.
    pub(super) moved_us: u64,
    /// True exactly while the kernel has the user timeout of a connection with output under way.
    pub(super) has_short_user_timeout: bool,
    /// True exactly while it is among those who have had nobody logged in for long.
    pub(super) overstays: bool,
    /// When the wheel will have this channel looked at. Other entries of it are stale.
    pub(super) armed: Option<Tick>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// How an end was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Eof {
    /// The poller told of it; a read has to say which end it is.
    Told,
    /// A read has come to the end of the client's side: there is nothing to read any more.
    Read,
}

// There is one for each client, and most are idle.
const _: () = assert!(size_of::<Connection<Registered<TcpStream>>>() <= 216);

/// What a client has that talks, or is told of friends.
#[derive(Debug, Default)]
pub(super) struct ActiveState {
    /// The way of the latest chat, which the next one often takes too.
    pub(super) route: Option<Route>,
    /// Events that wait until the output has room for them.
    pub(super) news: Option<PresenceQueue>,
    /// What the request rate leaves, where there is one.
    pub(super) token_bucket: Option<TokenBucket>,
}

/// Who is logged in.
#[derive(Debug)]
pub(super) struct User {
    pub(super) sender: Arc<Sender>,
    /// None where the client had ended its side before the login was answered.
    pub(super) session: Option<SessionNo>,
    /// Extensions that the client has asked for.
    pub(super) caps: Caps,
    /// Chats handed to the kernel in this session.
    pub(super) delivered: u64,
    /// Pings of this session, where the client answers them.
    pub(super) pings: Option<Box<Pings>>,
}

/// How a client stands with its pings.
#[derive(Debug)]
pub(super) struct Pings {
    /// When the latest was sent, or the login before the first.
    pub(super) latest_us: u64,
    /// The first of this session's pings behind which, when the latest was sent, nothing had been heard.
    pub(super) first_us: Option<u64>,
}

/// What has to be reported about a session that has ended.
#[derive(Debug)]
pub(super) struct EndedSession {
    pub(super) session: SessionNo,
    pub(super) unsent: Vec<Chat>,
    pub(super) delivered: u64,
}

/// A channel that has left.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each said to hold exactly when")]
pub(super) struct Closing {
    pub(super) parting: CloseInfo,
    /// The session that went on until the channel left, until it is settled.
    pub(super) ended_session: Option<EndedSession>,
    /// True exactly when the connection takes and gives nothing any more.
    pub(super) broken: bool,
    /// True exactly when the server's side is ended.
    pub(super) shut: bool,
    /// True exactly when the client's side has ended too, so that nothing is left to wait for.
    pub(super) gone: bool,
    /// True exactly when the goodbye has been put behind the last of the output.
    pub(super) goodbye_sent: bool,
    /// True exactly when main wants the socket and answers that main owes come first.
    pub(super) socket_wanted: bool,
    /// What had not gone out whole when the connection broke.
    pub(super) torn: Option<PartialWrite>,
}

impl<T> Connection<T> {
    pub(super) fn new(id: ChannelId, io: T, peer: SocketAddr, codec: Codec, now_us: u64) -> Self {
        Connection {
            id,
            io,
            peer: peer.into(),
            codec,
            input: ThinVec::default(),
            out: OutputBuffer::default(),
            blocked: false,
            dirty: false,
            user: None,
            ended_sessions: ThinVec::default(),
            login_asked_us: None,
            in_main: 0,
            tickets: 0,
            ended: false,
            deferred_eof: None,
            counted_gone: false,
            active: None,
            closing: None,
            faults: 0,
            refused_logins: 0,
            registrations: 0,
            since_us: now_us,
            heard_us: now_us,
            changed_us: now_us,
            counted_in: false,
            moved_us: now_us,
            has_short_user_timeout: false,
            overstays: false,
            armed: None,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// What limits take for the client's address.
    pub(super) fn block(&self) -> IpBlock {
        IpBlock::of(self.peer.addr().ip())
    }

    /// The session that goes on, as far as the worker knows.
    pub(super) fn session(&self) -> Option<SessionNo> {
        self.user.as_ref().and_then(|user| user.session)
    }

    /// Has a session wait to be settled, on a channel that stays.
    pub(super) fn add_ended_session(&mut self, ended: EndedSession) {
        self.ended_sessions.push(ended);
    }

    /// A session that has ended and is not settled yet.
    pub(super) fn ended_session(&mut self, session: SessionNo) -> Option<&mut EndedSession> {
        let closing = self.closing.as_mut().and_then(|closing| closing.ended_session.as_mut());
        closing.into_iter().chain(self.ended_sessions.iter_mut()).find(|ended| ended.session == session)
    }

    /// Takes it to settle it.
    pub(super) fn take_ended_session(&mut self, session: SessionNo) -> Option<EndedSession> {
        let is_it = |ended: &EndedSession| ended.session == session;
        let closing =
            self.closing.as_mut().and_then(|closing| closing.ended_session.take_if(|ended| is_it(ended)));
        closing.or_else(|| self.ended_sessions.take_first(is_it))
    }

    /// True exactly when all sessions that have ended are settled.
    pub(super) fn is_settled(&self) -> bool {
        self.ended_sessions.is_empty()
            && self.closing.as_ref().is_none_or(|closing| closing.ended_session.is_none())
    }

    /// What a client has that talks; made where there is none.
    pub(super) fn active(&mut self) -> &mut ActiveState {
        self.active.get_or_insert_default()
    }

    /// The way of the latest chat.
    pub(super) fn route(&self) -> Option<&Route> {
        self.active.as_deref()?.route.as_ref()
    }

    /// True exactly when events wait.
    pub(super) fn has_presence(&self) -> bool {
        self.active.as_deref().is_some_and(|active| active.news.is_some())
    }

    /// No events wait any more. A client that does nothing else is idle again.
    pub(super) fn drop_presence(&mut self) {
        if let Some(active) = &mut self.active {
            active.news = None;
        }
        self.active.take_if(|active| active.route.is_none() && active.token_bucket.is_none());
    }

    /// True exactly when the client speaks lines.
    pub(super) fn speaks_lines(&self) -> bool {
        matches!(self.codec, Codec::Line(_))
    }

    /// True exactly when the next request has to wait.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_logging_in() || self.in_main >= IN_MAIN_MAX
    }

    /// True exactly while a login or registration is on its way.
    pub(super) fn is_logging_in(&self) -> bool {
        self.login_asked_us.is_some()
    }

    /// A login or registration is on its way: the login clock stands still.
    pub(super) fn begin_login(&mut self, now_us: u64) {
        self.login_asked_us = NonZeroU64::new(now_us.max(1));
    }

    /// It is answered: the login clock goes on.
    pub(super) fn end_login(&mut self, now_us: u64) {
        if let (Some(asked_us), None) = (self.login_asked_us.take(), &self.user) {
            self.changed_us += now_us.saturating_sub(asked_us.get());
        }
    }
}

/// A way to a user that was open a moment ago: good exactly as long as that session goes on.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) user: UserId,
    pub(super) worker: usize,
    pub(super) channel: ChannelId,
    pub(super) session: SessionNo,
    /// The user's name, where a line has named it.
    pub(super) name: Option<Box<str>>,
}
