//! What main and the workers of one test server share.

use super::fake_socket::Fd;
use crate::auth::login_limiter::AddressLimit;
use crate::auth::login_limiter::{LoginLimiter, LoginLimits};
use crate::auth::pool::{Auth, Jobs};
use crate::channel::ChannelTable;
use crate::clock::Clock;
use crate::handles::Handles;
use crate::main_loop::context::Policy;
use crate::message::command::WorkerSender;
use crate::metrics::Metrics;
use crate::offline_queue::closer::Kicker;
use crate::offline_queue::queue::OfflineQueue;
use crate::registry::Registry;
use crate::sync::Arc;
use crate::worker::{IpLimit, Limits, Shared, Unauthenticated};

/// Channels of a test server.
pub(crate) const CAPACITY: usize = 64;
/// The grace of a test server, in microseconds.
pub(crate) const GRACE_US: u64 = 5_000_000;

/// New users an hour of one address.
pub(crate) const REGISTRATIONS: usize = 5;

/// Messages that a box takes.
pub(crate) const BOX_MESSAGES: u64 = 20;
/// Bytes of all boxes together.
pub(crate) const BOX_TOTAL: u64 = 1024 * 1024;
/// How long a box keeps a message, in milliseconds.
pub(crate) const BOX_AGE_MS: u64 = 60 * 60 * 1000;
/// How long the history is kept, in milliseconds.
pub(crate) const HISTORY_AGE_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Messages under way to a client that confirms.
pub(crate) const ACK_WINDOW: usize = 4;

/// How long nobody is told that a user has gone, in microseconds.
pub(crate) const PRESENCE_DELAY_US: u64 = 5_000_000;

/// The shared parts.
pub(crate) struct Fixtures {
    pub(crate) table: Arc<ChannelTable>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) queue: Arc<OfflineQueue<Fd>>,
    pub(crate) auth: Arc<Auth>,
    /// Where passwords come out that nobody verifies.
    pub(crate) jobs: Jobs,
    pub(crate) attempts: Arc<LoginLimiter>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
}

impl Fixtures {
    pub(crate) fn new(capacity: usize) -> Self {
        Fixtures::at(capacity, Clock::by_hand())
    }

    /// The same with a clock of the test's own.
    pub(crate) fn at(capacity: usize, clock: Clock) -> Self {
        let (auth, jobs) = Auth::new().unwrap();
        let metrics = Arc::<Metrics>::default();
        let registrations = AddressLimit { at_most: REGISTRATIONS, spares_loopback: true };
        let limits = LoginLimits { per_user: 5, per_address: 60, registrations };
        Fixtures {
            table: Arc::new(ChannelTable::new(capacity)),
            registry: Arc::default(),
            queue: Arc::default(),
            auth: Arc::new(auth),
            jobs,
            attempts: Arc::new(LoginLimiter::new(limits, Arc::clone(&metrics))),
            metrics,
            clock,
        }
    }

    pub(crate) fn kicker(&self, worker_sender: &Arc<dyn WorkerSender>) -> Kicker<Fd> {
        Kicker::new(
            Arc::clone(&self.table),
            Arc::clone(&self.queue),
            Arc::clone(worker_sender),
            Arc::clone(&self.metrics),
            self.clock,
        )
    }

    /// What all threads share.
    pub(crate) fn surroundings(&self, worker_sender: &Arc<dyn WorkerSender>) -> Arc<Handles<Fd>> {
        Arc::new(Handles {
            table: Arc::clone(&self.table),
            registry: Arc::clone(&self.registry),
            queue: Arc::clone(&self.queue),
            worker_sender: Arc::clone(worker_sender),
            auth: Arc::clone(&self.auth),
            attempts: Arc::clone(&self.attempts),
            metrics: Arc::clone(&self.metrics),
            kicker: self.kicker(worker_sender),
            clock: self.clock,
        })
    }

    /// The limits of a test server, unless a test says otherwise.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_frame: 65_536,
            max_frame_before_login: 8192,
            out_limit: 1 << 20,
            login_timeout_us: 10_000_000,
            idle_us: None,
            max_channels: self.table.capacity(),
            write_timeout_us: 30_000_000,
            user_timeout_us: 40_000_000,
            quiet_timeout_us: 90_000_000,
            ping_interval_us: 25_000_000,
            ping_timeout_us: 8_000_000,
            request_rate: None,
        }
    }

    /// What the workers share.
    pub(crate) fn shared(limits: Limits) -> Arc<Shared> {
        Arc::new(Shared {
            limits,
            addresses: IpLimit::new(CAPACITY),
            unauthenticated: Unauthenticated::new(),
        })
    }
}

/// The policy of a test server, unless a test says otherwise.
pub(crate) fn policy() -> Policy {
    Policy {
        grace_us: GRACE_US,
        stop_drain_us: 2_000_000,
        box_messages: BOX_MESSAGES,
        box_bytes: 16 * 1024 * 1024,
        box_total: BOX_TOTAL,
        ack_window: ACK_WINDOW,
        box_age_ms: BOX_AGE_MS,
        history_age_ms: HISTORY_AGE_MS,
        history_rows: 100_000,
        presence_delay_us: PRESENCE_DELAY_US,
        friends_max: 5_000,
        groups_max: 1_000,
        reject_duplicates: false,
    }
}
