//! What main, the workers and the admin socket share: one set for the whole server, made before any of its threads.

use crate::auth::login_limiter::LoginLimiter;
use crate::auth::pool::Auth;
use crate::channel::ChannelTable;
use crate::clock::Clock;
use crate::message::command::WorkerSender;
use crate::metrics::Metrics;
use crate::offline_queue::closer::Kicker;
use crate::offline_queue::queue::OfflineQueue;
use crate::registry::Registry;
use crate::sync::Arc;

/// What the threads share. `S` is a client's socket.
pub struct Handles<S> {
    /// Every channel's state.
    pub table: Arc<ChannelTable>,
    /// Who is online.
    pub registry: Arc<Registry>,
    /// Main's queue.
    pub queue: Arc<OfflineQueue<S>>,
    /// The workers.
    pub worker_sender: Arc<dyn WorkerSender>,
    /// Where passwords go.
    pub auth: Arc<Auth>,
    /// Failed logins, and who registers.
    pub attempts: Arc<LoginLimiter>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Sends channels away.
    pub kicker: Kicker<S>,
    /// Both clocks.
    pub clock: Clock,
}
