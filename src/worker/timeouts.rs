//! What a channel may do and for how long: login, silence, pings, slow reading, requests a second.
//!
//! Part of the core. A channel has one entry in the wheel, at the earliest of its deadlines; looking at it costs
//! nothing while the deadlines move on.

use super::connection::{Codec, Connection, Pings};
use super::socket::Transport;
use crate::channel::{ChannelId, Reason};
use crate::message::disconnect::Parting;
use crate::protocol::responses;
use crate::worker::state::Core;
use std::time::Duration;

/// Microseconds in a second.
const SECOND_US: u64 = 1_000_000;
/// A burst may be so many times what a second allows.
const BURST_SECONDS: u64 = 2;
/// Requests refused in a row for their rate at which a channel leaves with `rate_exceeded`.
const TOO_FAST_MAX: u32 = 100;
/// How long a channel may have nobody logged in while places are short, in microseconds; less with `--login-timeout`.
const SHORT_LOGIN_US: u64 = 10_000_000;
/// The share of all places from which on they are short, once more than that are taken, in percent.
const SHORT_PERCENT: usize = 50;
/// How much later than the user timeout says the kernel may give up unacknowledged data, in microseconds: it counts
/// from the first repetition.
const REPETITION_US: u64 = 2_000_000;

/// Limits of one server, the same for all workers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request, in bytes.
    pub max_frame: usize,
    /// The largest request before a login, in bytes.
    pub max_frame_before_login: usize,
    /// Unsent output at which a slow reader is sent away, in bytes.
    pub out_limit: usize,
    /// How long a channel may have nobody logged in, in microseconds.
    pub login_timeout_us: u64,
    /// How long a channel may be silent, in microseconds.
    pub idle_us: Option<u64>,
    /// Channels that may be open or live at once.
    pub max_channels: usize,
    /// How long a reader may take nothing of what waits for it, in microseconds.
    pub write_timeout_us: u64,
    /// How long sent data may stay unacknowledged, in microseconds.
    pub user_timeout_us: u64,
    /// The TCP user timeout while nothing is sent, in microseconds; see [`super::listener::Patience`].
    pub quiet_timeout_us: u64,
    /// How often a client that asked for it is pinged, in microseconds.
    pub ping_interval_us: u64,
    /// How long it may be silent after a ping, in microseconds.
    pub ping_timeout_us: u64,
    /// Requests a second.
    pub request_rate: Option<usize>,
}

impl Limits {
    /// True exactly when so many channels that are open or live leave too few places for those on which nobody logs in.
    pub(super) fn are_places_short(&self, present: usize) -> bool {
        present * 100 > self.max_channels * SHORT_PERCENT
    }

    /// True exactly when a connection with output under way has a user timeout of its own.
    pub(super) fn has_two_user_timeouts(&self) -> bool {
        self.user_timeout_us != self.quiet_timeout_us
    }
}

/// What a channel may still ask this second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    /// Requests left, in microseconds' worth.
    left_us: u64,
    at_us: u64,
    /// Requests refused in a row.
    refused: u32,
}

/// What a request rate says to the next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// It may be handled.
    Fine,
    /// It is refused.
    TooFast,
    /// It is refused, and was one too many.
    FarTooFast,
}

impl Allowance {
    /// Takes one request off, with `rate` requests a second.
    pub(super) fn take(&mut self, rate: usize, now_us: u64) -> Pace {
        let price_us = SECOND_US / (rate as u64).max(1);
        let most_us = SECOND_US * BURST_SECONDS;
        let gained_us = if self.at_us == 0 { most_us } else { now_us.saturating_sub(self.at_us) };
        self.at_us = now_us;
        self.left_us = (self.left_us + gained_us).min(most_us);
        if self.left_us >= price_us {
            self.left_us -= price_us;
            self.refused = 0;
            return Pace::Fine;
        }
        self.refused += 1;
        if self.refused >= TOO_FAST_MAX { Pace::FarTooFast } else { Pace::TooFast }
    }
}

/// What a deadline asks for once it has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Leave(Reason),
    Overstay,
    Ping,
    Calm,
}

impl<T> Connection<T> {
    /// The channel's deadlines, and what each asks for.
    fn deadlines(&self, limits: &Limits, now_us: u64) -> impl Iterator<Item = (u64, Due)> {
        let after = |timeout_us: u64| match self.login_asked_us {
            None => self.changed_us + timeout_us,
            // The clock stands still then. What was asked in time may have been read late, and is not too late for that.
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
        let calm = self.hurried.then(|| (self.moved_us + limits.user_timeout_us + REPETITION_US, Due::Calm));
        [login, overstay, idle, write, pong, ping, calm].into_iter().flatten()
    }

    /// When the first ping was sent behind which nothing has been heard. Later pings do not move it.
    fn unanswered_us(&self) -> Option<u64> {
        self.pings()?.first_us.filter(|&at_us| self.heard_us <= at_us)
    }

    fn pings(&self) -> Option<&Pings> {
        self.user.as_ref()?.pings.as_deref()
    }
}

impl<T: Transport> Core<T> {
    /// Looks at a channel whose entry in the wheel has come up, as of a moment up to which its input is read.
    pub(super) fn check_time_limits(&mut self, id: ChannelId, now_us: u64) {
        let shared = crate::sync::Arc::clone(&self.shared);
        let Some(connection) = self.connection(id) else { return };
        if connection.leaving.is_some() || connection.armed.is_none_or(|look| now_us < look.us()) {
            return;
        }
        connection.armed = None;
        let passed: Vec<Due> = connection
            .deadlines(&shared.limits, now_us)
            .filter_map(|(at_us, due)| (now_us >= at_us).then_some(due))
            .collect();
        for due in passed {
            match due {
                Due::Leave(reason) => return self.step(id, Parting::new(reason)),
                Due::Overstay => self.overstay(id),
                Due::Ping => self.ping(id),
                Due::Calm => self.calm(id),
            }
        }
        self.arm(id);
    }

    /// Nobody has been logged in for long: the channel leaves as soon as places are short.
    fn overstay(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        connection.overstays = true;
        let since_us = connection.changed_us;
        self.shared.waiting.add(since_us, id);
        self.make_room();
    }

    /// A login or registration begins, or the channel leaves.
    pub(super) fn wait_no_longer(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        if std::mem::take(&mut connection.overstays) {
            let since_us = connection.changed_us;
            self.shared.waiting.remove(since_us, id);
        }
    }

    /// While places are short, those leave who have had nobody logged in for long: the oldest first, whoever's they are.
    /// Places get short by a channel that comes, and somebody to send away is there from the moment that a wait gets long;
    /// so nobody has to look but in these two cases.
    pub(super) fn make_room(&self) {
        let shared = &self.shared;
        while shared.limits.are_places_short(shared.table.present())
            && let Some(oldest) = shared.waiting.take_oldest()
        {
            // A login that was committed just now, or an end, has come before.
            shared.kicker.kick_open(oldest, Reason::LoginTimeout);
        }
    }

    /// A login or registration is answered or could not be asked: the login clock goes on.
    pub(super) fn end_login(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        if let Some(connection) = self.connection(id) {
            connection.end_login(now_us);
        }
    }

    /// Something was written: until it must have been acknowledged, the kernel waits no longer than the user timeout.
    /// That costs a connection two system calls for each time that it talks again.
    pub(super) fn hurry(&mut self, id: ChannelId) {
        let (short_us, two) =
            (self.shared.limits.user_timeout_us, self.shared.limits.has_two_user_timeouts());
        let Some(connection) = self.connection(id) else { return };
        if connection.hurried || !two || connection.leaving.is_some() {
            return;
        }
        connection.hurried = true;
        // It fails only where there is no connection any more, and then reading says why.
        let _ = connection.io.set_user_timeout(Duration::from_micros(short_us));
        self.arm(id);
    }

    /// Nothing is under way any more: keepalive may send all its probes.
    fn calm(&mut self, id: ChannelId) {
        let long_us = self.shared.limits.quiet_timeout_us;
        let Some(connection) = self.connection(id) else { return };
        connection.hurried = false;
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
            connection.say_object(responses::ping);
        }
        self.mark_dirty(id);
    }

    /// Has the channel looked at when the earliest of its deadlines has passed.
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

    /// A reader that takes nothing any more has a deadline from now on.
    pub(super) fn arm_if_blocked(&mut self, id: ChannelId) {
        if self.connection(id).is_some_and(|connection| connection.blocked && connection.leaving.is_none()) {
            self.arm(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_borne_and_then_only_the_rate() {
        let mut allowance = Allowance::default();
        let start_us = 5 * SECOND_US;
        for _ in 0..20 {
            assert_eq!(allowance.take(10, start_us), Pace::Fine);
        }
        assert_eq!(allowance.take(10, start_us), Pace::TooFast);
        assert_eq!(allowance.take(10, start_us + SECOND_US / 10), Pace::Fine);
        assert_eq!(allowance.take(10, start_us + SECOND_US / 10), Pace::TooFast);
    }

    #[test]
    fn who_never_slows_down_has_to_go() {
        let mut allowance = Allowance::default();
        let last = (0..2 + TOO_FAST_MAX).map(|_| allowance.take(1, SECOND_US)).last();
        assert_eq!(last, Some(Pace::FarTooFast));
    }
}
