//! One channel as its worker has it. No other thread touches it.

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
use crate::protocol::json::framing::Framer;
use crate::protocol::line::LineFramer;
use crate::protocol::request::Caps;
use crate::sync::Arc;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;

/// Requests of one channel that main may work on at once; past it the channel is not read.
pub(super) const IN_MAIN_MAX: u32 = 256;

/// The protocol of a connection, and how far its input is parsed.
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
    /// Bytes that are read and not yet parsed.
    pub(super) input: ThinVec<u8>,
    pub(super) out: OutputBuffer,
    /// True exactly when the latest write took less than it was offered.
    pub(super) blocked: bool,
    /// True exactly while the channel is on the worker's list of those with something to write.
    pub(super) dirty: bool,
    /// Who is logged in, or was when the client ended its side.
    pub(super) user: Option<User>,
    /// Sessions that have ended and are not reported yet, oldest first, without the one that `closing` has. Hardly ever
    /// any.
    ended_sessions: ThinVec<EndedSession>,
    /// When the login or registration was asked that main or an auth thread works on. Requests behind it wait.
    pub(super) login_asked_us: Option<NonZeroU64>,
    /// Requests that main works on. While there are some, later ones go through main too.
    pub(super) in_main: u32,
    /// Chats with `seq` that are not answered yet.
    pub(super) trackers: u32,
    /// True exactly when the client has ended its side.
    pub(super) ended: bool,
    /// The end of the client's side, while it waits for a later turn.
    pub(super) deferred_eof: Option<Eof>,
    /// True exactly when the channel table has been told that the client is gone.
    pub(super) counted_gone: bool,
    /// What only a client that is active needs.
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
    /// Since when the user is logged in, or no user is. The time that logins take is added, so that it does not count.
    pub(super) changed_us: u64,
    /// True exactly when its address counts it, from the accept until main has the socket.
    pub(super) counted_in: bool,
    /// When output last moved.
    pub(super) moved_us: u64,
    /// True exactly while the kernel has the short user timeout, for output that is not acknowledged.
    pub(super) has_short_user_timeout: bool,
    /// True exactly while it is listed as having had no user logged in for long.
    pub(super) overstays: bool,
    /// The tick at which the wheel has this channel checked. Its other entries in the wheel are stale.
    pub(super) armed: Option<Tick>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// How an end was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Eof {
    /// The poller reported it; a read has to find out which end it is.
    Told,
    /// A read has reached the end of the client's side.
    Read,
}

// There is one for each client, and most are idle.
const _: () = assert!(size_of::<Connection<Registered<TcpStream>>>() <= 216);

/// What a client has that sends requests, or gets events of friends.
#[derive(Debug, Default)]
pub(super) struct ActiveState {
    /// The route of the latest chat, which the next one often takes too.
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
    /// The first ping of this session since which no input had come when the latest ping was sent.
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
    pub(super) close_info: CloseInfo,
    /// The session that lasted until the channel left, until its delivery report.
    pub(super) ended_session: Option<EndedSession>,
    /// True exactly when nothing can be read from the connection or written to it any more.
    pub(super) broken: bool,
    /// True exactly when the server's side is ended.
    pub(super) shut: bool,
    /// True exactly when the client's side has ended too, so that nothing is left to wait for.
    pub(super) gone: bool,
    /// True exactly when the goodbye is in the output, or none is due.
    pub(super) goodbye_sent: bool,
    /// True exactly when main wants the socket, and answers from main have to be written before.
    pub(super) socket_wanted: bool,
    /// What had not gone out whole when the connection broke.
    pub(super) partial: Option<PartialWrite>,
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
            trackers: 0,
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

    /// Keeps a session for its delivery report, on a channel that stays.
    pub(super) fn add_ended_session(&mut self, ended: EndedSession) {
        self.ended_sessions.push(ended);
    }

    /// A session that has ended and is not reported yet.
    pub(super) fn ended_session(&mut self, session: SessionNo) -> Option<&mut EndedSession> {
        let closing = self.closing.as_mut().and_then(|closing| closing.ended_session.as_mut());
        closing.into_iter().chain(self.ended_sessions.iter_mut()).find(|ended| ended.session == session)
    }

    /// Takes a session off for its delivery report.
    pub(super) fn take_ended_session(&mut self, session: SessionNo) -> Option<EndedSession> {
        let is_it = |ended: &EndedSession| ended.session == session;
        let closing =
            self.closing.as_mut().and_then(|closing| closing.ended_session.take_if(|ended| is_it(ended)));
        closing.or_else(|| self.ended_sessions.take_first(is_it))
    }

    /// True exactly when all sessions that have ended are reported.
    pub(super) fn is_settled(&self) -> bool {
        self.ended_sessions.is_empty()
            && self.closing.as_ref().is_none_or(|closing| closing.ended_session.is_none())
    }

    /// What an active client has; made where there is none.
    pub(super) fn active(&mut self) -> &mut ActiveState {
        self.active.get_or_insert_default()
    }

    /// The route of the latest chat.
    pub(super) fn route(&self) -> Option<&Route> {
        self.active.as_deref()?.route.as_ref()
    }

    /// True exactly when events of friends wait.
    pub(super) fn has_presence(&self) -> bool {
        self.active.as_deref().is_some_and(|active| active.news.is_some())
    }

    /// Drops the events of friends that wait. A client that does nothing else is idle again.
    pub(super) fn drop_presence(&mut self) {
        if let Some(active) = &mut self.active {
            active.news = None;
        }
        self.active.take_if(|active| active.route.is_none() && active.token_bucket.is_none());
    }

    /// True exactly when the client uses the line protocol.
    pub(super) fn speaks_lines(&self) -> bool {
        matches!(self.codec, Codec::Line(_))
    }

    /// True exactly when the next request has to wait.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_logging_in() || self.in_main >= IN_MAIN_MAX
    }

    /// True exactly while a login or registration waits for its answer.
    pub(super) fn is_logging_in(&self) -> bool {
        self.login_asked_us.is_some()
    }

    /// A login or registration begins: the login clock stops.
    pub(super) fn begin_login(&mut self, now_us: u64) {
        self.login_asked_us = NonZeroU64::new(now_us.max(1));
    }

    /// A login or registration is answered: the login clock goes on.
    pub(super) fn end_login(&mut self, now_us: u64) {
        if let (Some(asked_us), None) = (self.login_asked_us.take(), &self.user) {
            self.changed_us += now_us.saturating_sub(asked_us.get());
        }
    }
}

/// A route to a user, good exactly as long as that session lasts.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) user: UserId,
    pub(super) worker: usize,
    pub(super) channel: ChannelId,
    pub(super) session: SessionNo,
    /// The user's name, where a line has named it.
    pub(super) name: Option<Box<str>>,
}
