//! How long a channel may do what: stay without a login, be silent, leave pings unanswered, read slowly.
//!
//! A channel has one entry in the wheel, at the earliest of its deadlines. A deadline that moves on costs nothing until
//! that entry comes up.

use super::connection::{Codec, Connection, Pings};
use super::limits::Limits;
use super::state::WorkerState;
use crate::channel::{ChannelId, Reason};
use crate::message::disconnect::CloseInfo;
use crate::net::transport::Transport;
use crate::protocol::responses;
use std::time::Duration;

/// How long a channel may stay without a login while places are short, in microseconds; less with `--login-timeout`.
const SHORT_LOGIN_US: u64 = 10_000_000;
/// How much later than the user timeout says the kernel may give up unacknowledged data, in microseconds: it counts
/// from the first retransmission.
const RETRANSMISSION_US: u64 = 2_000_000;

/// What a deadline asks for once it has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Leave(Reason),
    Overstay,
    Ping,
    LongUserTimeout,
}

impl<T> Connection<T> {
    /// The channel's deadlines, and what each asks for.
    fn deadlines(&self, limits: &Limits, now_us: u64) -> impl Iterator<Item = (u64, Due)> {
        let after = |timeout_us: u64| match self.login_asked_us {
            None => self.changed_us + timeout_us,
            // The clock stands still then. A request that came in time may have been read late; that does not make it
            // late.
            Some(asked_us) => {
                let stood_us = now_us.saturating_sub(asked_us.get());
                (self.changed_us + timeout_us + stood_us).max(now_us + 1)
            }
        };
        let nobody = self.user.is_none();
        let login = nobody.then(|| (after(limits.login_timeout_us), Due::Leave(Reason::LoginTimeout)));
        let overstay = (nobody && !self.overstays).then(|| (after(SHORT_LOGIN_US), Due::Overstay));
        let idle = limits.idle_us.map(|idle_us| (self.heard_us + idle_us, Due::Leave(Reason::IdleTimeout)));
        let blocked = self.blocked && !self.out.is_empty();
        let write =
            blocked.then(|| (self.moved_us + limits.write_timeout_us, Due::Leave(Reason::SlowConsumer)));
        let ping = self.pings().map(|pings| (pings.latest_us + limits.ping_interval_us, Due::Ping));
        let pong = self
            .unanswered_us()
            .map(|at_us| (at_us + limits.ping_timeout_us, Due::Leave(Reason::KeepaliveTimeout)));
        // By then what was written is acknowledged, or the kernel has given up.
        let long_user_timeout = self
            .has_short_user_timeout
            .then(|| (self.moved_us + limits.user_timeout_us + RETRANSMISSION_US, Due::LongUserTimeout));
        [login, overstay, idle, write, pong, ping, long_user_timeout].into_iter().flatten()
    }

    /// When the first ping was sent since which no input has come. Later pings do not move it.
    fn unanswered_us(&self) -> Option<u64> {
        self.pings()?.first_us.filter(|&at_us| self.heard_us <= at_us)
    }

    fn pings(&self) -> Option<&Pings> {
        self.user.as_ref()?.pings.as_deref()
    }
}

impl<T: Transport> WorkerState<T> {
    /// Checks a channel whose entry in the wheel has come up, as of a moment up to which its input is read.
    pub(super) fn check_time_limits(&mut self, id: ChannelId, now_us: u64) {
        let shared = crate::sync::Arc::clone(&self.shared);
        let Some(connection) = self.connection(id) else { return };
        if connection.closing.is_some() || connection.armed.is_none_or(|look| now_us < look.us()) {
            return;
        }
        connection.armed = None;
        let passed: Vec<Due> = connection
            .deadlines(&shared.limits, now_us)
            .filter_map(|(at_us, due)| (now_us >= at_us).then_some(due))
            .collect();
        for due in passed {
            match due {
                Due::Leave(reason) => return self.step(id, CloseInfo::new(reason)),
                Due::Overstay => self.overstay(id),
                Due::Ping => self.ping(id),
                Due::LongUserTimeout => self.set_long_user_timeout(id),
            }
        }
        self.arm(id);
    }

    /// The channel has been without a login for long: it leaves as soon as places are short.
    fn overstay(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        connection.overstays = true;
        let since_us = connection.changed_us;
        self.shared.unauthenticated.add(since_us, id);
        self.make_room();
    }

    /// A login or registration begins, or the channel leaves.
    pub(super) fn end_overstay(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        if std::mem::take(&mut connection.overstays) {
            let since_us = connection.changed_us;
            self.shared.unauthenticated.remove(since_us, id);
        }
    }

    /// While places are short, channels that have been without a login for long leave, the oldest of all workers first.
    /// A new channel makes places short, and a channel whose wait gets long can be closed; so this is called in these
    /// two cases.
    pub(super) fn make_room(&self) {
        let shared = &self.shared;
        while shared.limits.are_places_short(self.handles.table.present())
            && let Some(oldest) = shared.unauthenticated.take_oldest()
        {
            // It does nothing to a channel that has logged in or left just now.
            self.handles.kicker.kick_open(oldest, Reason::LoginTimeout);
        }
    }

    /// A login or registration is answered or could not be asked: the login clock goes on.
    pub(super) fn end_login(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        if let Some(connection) = self.connection(id) {
            connection.end_login(now_us);
        }
    }

    /// Something was written: until it must have been acknowledged, the kernel waits no longer than the short user
    /// timeout. That costs two system calls each time that a quiet connection becomes active.
    pub(super) fn set_short_user_timeout(&mut self, id: ChannelId) {
        let (short_us, two) =
            (self.shared.limits.user_timeout_us, self.shared.limits.has_two_user_timeouts());
        let Some(connection) = self.connection(id) else { return };
        if connection.has_short_user_timeout || !two || connection.closing.is_some() {
            return;
        }
        connection.has_short_user_timeout = true;
        // It fails only where there is no connection any more, and then a read says why.
        let _ = connection.io.set_user_timeout(Duration::from_micros(short_us));
        self.arm(id);
    }

    /// Everything is acknowledged: keepalive may send all its probes.
    fn set_long_user_timeout(&mut self, id: ChannelId) {
        let long_us = self.shared.limits.quiet_timeout_us;
        let Some(connection) = self.connection(id) else { return };
        connection.has_short_user_timeout = false;
        let _ = connection.io.set_user_timeout(Duration::from_micros(long_us));
    }

    fn ping(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        let first_us = connection.unanswered_us().or(Some(now_us));
        if let Some(user) = &mut connection.user {
            user.pings = Some(Box::new(Pings { latest_us: now_us, first_us }));
        }
        if let Codec::Json(_) = connection.codec {
            connection.write_object(responses::ping);
        }
        self.mark_dirty(id);
    }

    /// Has the channel checked when the earliest of its deadlines has passed.
    pub(super) fn arm(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        let shared = crate::sync::Arc::clone(&self.shared);
        let Some(connection) = self.connection(id) else { return };
        let earliest = connection.deadlines(&shared.limits, now_us).map(|(at_us, _)| at_us).min();
        let Some(at_us) = earliest else { return };
        if connection.armed.is_some_and(|look| look.us() <= at_us) {
            return;
        }
        let look = self.wheel.arm(id, at_us);
        if let Some(connection) = self.connection(id) {
            connection.armed = Some(look);
        }
    }

    /// Sets the deadline of a client that has stopped to read.
    pub(super) fn arm_if_blocked(&mut self, id: ChannelId) {
        if self.connection(id).is_some_and(|connection| connection.blocked && connection.closing.is_none()) {
            self.arm(id);
        }
    }
}
