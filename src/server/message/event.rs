//! What main is told: the entries of the offline queue.

use super::delivery::DeliveryTracker;
use super::disconnect::{DeliveryReport, Departure, PartialWrite};
use super::request::Ask;
use crate::channel::{ChannelId, SessionNo};
use crate::ids::{Mid, UserId};
use crate::ip_block::AddrBlock;
use crate::store::{Ban, StorageError};
use crate::sync::Arc;
use crossbeam_channel::{Receiver, Sender};
use std::num::NonZeroU32;
use std::time::Duration;

/// What main is told.
#[derive(Debug)]
pub enum Event<S> {
    /// A channel left, or a session ended.
    Departure(Departure),
    /// Its worker has settled with it.
    DeliveryReport(DeliveryReport),
    /// Its worker has deregistered the socket; main closes it.
    HandBack {
        /// Whose.
        channel: ChannelId,
        /// The socket; dropping it closes the fd. None where the worker could never watch it.
        socket: Option<S>,
        /// What has not gone out whole.
        partial: Option<PartialWrite>,
    },
    /// A request of a client, or what an auth thread has found about one.
    Ask(Ask),
    /// A channel has taken over messages of the box, up to and including one.
    TakenOver {
        /// Whose box.
        user: UserId,
        /// Which channel.
        channel: ChannelId,
        /// Which session.
        session: SessionNo,
        /// The newest.
        upto: Mid,
    },
    /// The client of a session has confirmed messages; up to which, the channel table says.
    Confirmed {
        /// Whose session.
        user: UserId,
        /// Which channel.
        channel: ChannelId,
        /// Which session.
        session: SessionNo,
    },
    /// A copy of a chat with `seq` is in the kernel. There is one at most for each that main has sent out.
    Handed {
        /// Its sender's tracker.
        tracker: Arc<DeliveryTracker>,
    },
    /// The channel that stood in the way of a login has been looked at.
    Probed {
        /// Which channel.
        channel: ChannelId,
        /// Who wants to log in.
        user: UserId,
    },
    /// The channels of which a worker holds a connection with its socket, in the slots it was asked for, by slot.
    Audited {
        /// Which worker.
        worker: usize,
        /// Their names as the worker knows them.
        held: Vec<ChannelId>,
    },
    /// A worker has no names or fds left for new connections.
    Short {
        /// Which worker.
        worker: usize,
    },
    /// A request of the admin socket that only main can answer.
    Control(ControlAsk),
    /// A signal: stop in order.
    Stop,
    /// The database is not the file that was opened: stop in order, without it.
    DatabaseLost,
    /// A worker has emptied and closed its listeners.
    Quiet,
}

/// What control asks of main.
#[derive(Debug)]
pub enum ControlAsk {
    /// How the queue stands.
    Queue(Sender<QueueReport>),
    /// Set a user offline who is marked online without a live channel; answers the user, if there is one.
    StaleOnline {
        /// By number or name.
        who: StaleOnlineName,
        /// The answer.
        reply: Sender<Result<Option<StaleOnline>, StaleOnlineFault>>,
    },
    /// Send everyone away at a pace, then end the server.
    Drain(DrainAsk),
    /// Keep somebody out.
    Ban(BanRequest),
    /// Who is kept out.
    Bans(Sender<Vec<Ban>>),
    /// Let somebody in again.
    Unban {
        /// Whose bans.
        names: Vec<BanName>,
        /// The bans that are lifted, once that is committed.
        reply: Sender<Result<Vec<Ban>, BanFault>>,
    },
}

/// How the server is to be drained.
#[derive(Debug)]
pub struct DrainAsk {
    /// When the server has to be empty.
    pub limit: Duration,
    /// Channels that leave in a second.
    pub rate: NonZeroU32,
    /// The answer: how many channels there are, or none when a drain or a stop is running already.
    pub reply: Sender<Option<usize>>,
    /// Disconnected when the admin has been answered; the server does not end before.
    pub told: Receiver<()>,
}

/// How a user who may be marked online without a channel is named.
#[derive(Debug)]
pub enum StaleOnlineName {
    /// By number.
    Id(UserId),
    /// By name.
    Name(String),
}

/// A user who was marked online without a live channel, and is offline now.
#[derive(Debug)]
pub struct StaleOnline {
    /// Who.
    pub user: UserId,
    /// The name.
    pub name: String,
    /// From the ask to the commit, in microseconds.
    pub offline_us: u64,
}

/// Why a user may still be marked online without a live channel.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StaleOnlineFault {
    /// Nobody knows: the row could not be read.
    #[error("could not be looked up: {0}")]
    Unread(StorageError),
    /// It is so: the change could not be committed.
    #[error("is still marked online, for this could not be stored: {0}")]
    NotStored(StorageError),
}

/// How main's side of the queue stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueReport {
    /// Channels that have left and whose fds are still open.
    pub lingering: usize,
    /// Departures drained since the start.
    pub drained: u64,
    /// Percentiles of the stages, by name.
    pub stages: Vec<(&'static str, u64)>,
}

impl<S> Event<S> {
    /// True exactly when it may go ahead of ends. A session that ends on a channel that stays keeps its place among the
    /// requests of that channel, which must not overtake it. A delivery report never goes ahead, so that logins wait for it.
    pub fn is_urgent(&self) -> bool {
        match self {
            Event::Ask(_) | Event::TakenOver { .. } | Event::Confirmed { .. } | Event::Handed { .. } => true,
            Event::Departure(departure) => departure.stays || departure.close_info.watcher.is_some(),
            _ => false,
        }
    }

    /// True exactly when main must take it at once instead of collecting more first: everything but ends that nothing waits for.
    pub fn is_pressing(&self) -> bool {
        match self {
            Event::Departure(_) => self.is_urgent(),
            Event::DeliveryReport(_) | Event::HandBack { .. } => false,
            _ => true,
        }
    }
}

/// Bans at once, of users and of addresses together.
pub const BANS_MAX: usize = 65_536;

/// Whom an administrator means, as far as control knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BanName {
    /// A user, by number.
    Id(UserId),
    /// A user, by name.
    Name(String),
    /// Addresses.
    Block(AddrBlock),
    /// Everybody who is banned.
    All,
}

/// What an administrator wants of main.
#[derive(Debug)]
pub struct BanRequest {
    /// Whom.
    pub names: Vec<BanName>,
    /// For how long, in milliseconds.
    pub length_ms: u64,
    /// What is said to them, one line.
    pub reason: Option<Arc<str>>,
    /// The bans of those who could be found, once they are committed.
    pub reply: Sender<Result<Vec<Ban>, BanFault>>,
}

/// Why bans could not be changed as asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BanFault {
    /// There are as many bans as there may be.
    #[error("there are {BANS_MAX} bans already; lift some with `linger unban`")]
    TooMany,
    /// They hold while the server runs, and the write is tried again.
    #[error("it holds from now on, but could not be stored yet; storing is tried again")]
    NotStored,
}
