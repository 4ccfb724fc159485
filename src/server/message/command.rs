//! What main, control and workers tell a worker, and the way there.

use super::chat::Chat;
use super::disconnect::CloseInfo;
use super::presence::PresenceBatch;
use super::reply::Answer;
use super::reply_to::Completes;
use crate::channel::{ChannelId, SessionNo};
use crate::ids::UserId;
use crossbeam_channel::Sender;
use std::net::SocketAddr;

/// A message to a worker, about one of its channels or about itself.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Write a chat to a channel. Refused on the way if that session has ended.
    Chat {
        /// The receiver's channel.
        to: ChannelId,
        /// The receiver's session.
        session: SessionNo,
        /// Who the receiver is.
        user: UserId,
        /// What to write.
        chat: Chat,
        /// Who sent it directly, around main.
        origin: Option<Origin>,
    },
    /// Friends of this worker's users have come or gone. Sessions that have ended ignore it.
    Presence(PresenceBatch),
    /// Something the channel asked for is done.
    Answer {
        /// Who asked.
        channel: ChannelId,
        /// What this settles.
        settles: Completes,
        /// What to tell the client, if anything.
        answer: Option<Answer>,
    },
    /// All that was held for that session has been handed over before this.
    Open {
        /// The session's channel.
        channel: ChannelId,
        /// The session.
        session: SessionNo,
    },
    /// Another thread took the step from live to offline: say goodbye, and report what was not delivered.
    Leave {
        /// Who leaves.
        channel: ChannelId,
        /// The session that ended with it.
        session: Option<SessionNo>,
        /// What to say.
        close_info: CloseInfo,
    },
    /// Main has ended a session whose channel stays: everything that others sent to that session lies before this.
    Settle {
        /// Whose.
        channel: ChannelId,
        /// Which session.
        session: SessionNo,
    },
    /// The grace is over: deregister, and hand the socket to main.
    Close {
        /// Which.
        channel: ChannelId,
    },
    /// Look whether the client of a channel is still there, then tell main.
    Probe {
        /// Which.
        channel: ChannelId,
        /// Who wants to log in instead.
        user: UserId,
    },
    /// Describe your channels.
    Report(Sender<Vec<ChannelReport>>),
    /// Tell main which of these slots you hold a connection for.
    Audit {
        /// From that slot on.
        from: u32,
        /// Up to the one before that.
        to: u32,
    },
    /// Names or fds have become free: accept again.
    Accept,
    /// The server stops: accept what is queued, so that main can send it away, and close the listeners.
    CloseListeners,
    /// Everything is closed: end the thread.
    Exit,
}

/// The sender of a chat that goes from worker to worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The sender's channel.
    pub channel: ChannelId,
    /// The sender.
    pub user: UserId,
}

/// A channel as its worker sees it.
#[derive(Clone, Debug)]
pub struct ChannelReport {
    /// Its name.
    pub channel: ChannelId,
    /// Its stage, as `linger channels` shows it.
    pub state: &'static str,
    /// Its worker.
    pub worker: usize,
    /// Who is logged in.
    pub user: Option<(UserId, String)>,
    /// The other end.
    pub peer: SocketAddr,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Bytes waiting to be written.
    pub queued: usize,
    /// Since it was accepted, in milliseconds.
    pub age_ms: u64,
    /// Since the latest input, in milliseconds.
    pub idle_ms: u64,
    /// Since the login, in milliseconds.
    pub session_ms: Option<u64>,
}

/// The way to the workers. Never blocks.
pub trait WorkerSender: Send + Sync {
    /// Puts commands for one worker into its mailbox and wakes it. Chats for sessions that have ended come back in
    /// `refused`.
    fn post(&self, worker: usize, mail: &mut Vec<WorkerCommand>, refused: &mut Vec<WorkerCommand>);

    /// True exactly when so many commands wait for a worker that new chats should be refused.
    fn is_full(&self, worker: usize) -> bool;

    /// How many workers there are.
    fn workers(&self) -> usize;
}
