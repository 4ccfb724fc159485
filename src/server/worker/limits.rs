//! The bounds within which a worker serves its channels: sizes and times. Plain data, from the configuration.

/// The share of all places from which on they are short, once more than that are taken, in percent.
const SHORT_PERCENT: usize = 50;

/// Limits of one server, the same for all workers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request, in bytes.
    pub max_frame: usize,
    /// The largest request before a login, in bytes.
    pub max_frame_before_login: usize,
    /// Unsent output at which a slow reader is closed, in bytes.
    pub out_limit: usize,
    /// How long a channel may stay without a login, in microseconds.
    pub login_timeout_us: u64,
    /// How long a channel may be silent, in microseconds.
    pub idle_us: Option<u64>,
    /// Channels that may be open or live at once.
    pub max_channels: usize,
    /// How long a client may read nothing of what waits for it, in microseconds.
    pub write_timeout_us: u64,
    /// How long sent data may stay unacknowledged, in microseconds.
    pub user_timeout_us: u64,
    /// The TCP user timeout while nothing is sent, in microseconds; see [`crate::net::listener::TcpTimeouts`].
    pub quiet_timeout_us: u64,
    /// How often a client that asked for it is pinged, in microseconds.
    pub ping_interval_us: u64,
    /// How long it may be silent after a ping, in microseconds.
    pub ping_timeout_us: u64,
    /// Requests a second.
    pub request_rate: Option<usize>,
}

impl Limits {
    /// True exactly when channels that are open or live have taken so many places that those without a login have to
    /// go.
    pub(super) fn are_places_short(&self, present: usize) -> bool {
        present * 100 > self.max_channels * SHORT_PERCENT
    }

    /// True exactly when a connection with output under way has a user timeout of its own.
    pub(super) fn has_two_user_timeouts(&self) -> bool {
        self.user_timeout_us != self.quiet_timeout_us
    }
}
