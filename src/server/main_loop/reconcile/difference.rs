//! What may differ, and what has been seen to differ once. Plain data.

use crate::channel::{ChannelId, SessionNo};
use crate::ids::{Epoch, UserId};
use std::collections::HashMap;
use std::fmt;

/// How long a difference has to last before it is believed, in microseconds.
pub(in crate::main_loop) const SURE_US: u64 = 2_000_000;
/// Differences that are remembered until the next round, at most; what is past it waits for its turn.
const SUSPECTS_MAX: usize = 4096;

/// One thing that is said in two places, and differently.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Difference {
    /// A channel has its place, and its worker no connection for it.
    NoSocket { channel: ChannelId },
    /// A worker holds a connection whose name is not its own, or nobody's.
    WrongId { channel: ChannelId, worker: usize },
    /// Somebody is logged in on a channel, and main does not know of it.
    Unknown { channel: ChannelId, session: SessionNo },
    /// Main has a session whose channel has logged out or left.
    Over { channel: ChannelId, session: SessionNo },
    /// A channel has left, and main has heard nothing.
    MissingLinger { channel: ChannelId },
    /// Main waits for the end of a channel that is free.
    Seated { channel: ChannelId },
    /// The grace of a channel is over, and nobody has asked for its socket.
    Overdue { channel: ChannelId },
    /// A channel has left, and its worker has nothing more to settle.
    Unsettled { channel: ChannelId, session: Option<SessionNo> },
    /// Main's map of sessions lacks one.
    Unmapped { user: UserId, channel: ChannelId, session: SessionNo },
    /// Main's map of sessions has one that is not its user's.
    Mapped { user: UserId, channel: ChannelId, session: SessionNo },
    /// The registry lacks a session, or says something else of it.
    Unregistered { user: UserId, channel: ChannelId, session: SessionNo },
    /// The registry has a session that main has not.
    Registered { user: UserId, channel: ChannelId, session: SessionNo },
    /// A name leads to a user who is not online under it.
    Stray { user: UserId },
    /// A user has a session, and the row says something else.
    Row { user: UserId, epoch: Epoch, says: (bool, Epoch) },
    /// A user has no session, and the row says `online`.
    StaleOnline { user: UserId, epoch: Epoch },
    /// A user has a session, and there is no row.
    RowGone { user: UserId, channel: ChannelId, session: SessionNo },
}

impl Difference {
    /// True exactly for what is found on the way through the users; the rest is found among the channels.
    pub(super) fn is_of_user(self) -> bool {
        use Difference::{Mapped, Registered, Row, RowGone, StaleOnline, Stray, Unmapped, Unregistered};
        matches!(
            self,
            Unmapped { .. }
                | Mapped { .. }
                | Unregistered { .. }
                | Registered { .. }
                | Stray { .. }
                | Row { .. }
                | StaleOnline { .. }
                | RowGone { .. }
        )
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::NoSocket { channel } => {
                write!(f, "channel {channel} had no connection at its worker")
            }
            Difference::WrongId { channel, worker } => {
                write!(f, "worker {worker} held a connection as {channel}, which it is not")
            }
            Difference::Unknown { channel, .. } => {
                write!(f, "channel {channel} was live with a session that main did not know")
            }
            Difference::Over { channel, .. } => {
                write!(f, "the session on channel {channel} was over, and main had not heard so")
            }
            Difference::MissingLinger { channel } => {
                write!(f, "channel {channel} had left, and main had not heard so")
            }
            Difference::Seated { channel } => {
                write!(f, "main waited for the end of channel {channel}, which was free")
            }
            Difference::Overdue { channel } => {
                write!(f, "the grace of channel {channel} was over, and nobody had asked for its socket")
            }
            Difference::Unsettled { channel, .. } => {
                write!(f, "channel {channel} had left, and its report never came")
            }
            Difference::Unmapped { user, channel, .. } => {
                write!(f, "user {user} was on channel {channel}, and the map of sessions did not say so")
            }
            Difference::Mapped { user, channel, .. } => {
                write!(f, "user {user} was not on channel {channel}, as the map of sessions said")
            }
            Difference::Unregistered { user, channel, .. } => {
                write!(f, "user {user} was on channel {channel}, and the registry did not say so")
            }
            Difference::Registered { user, channel, .. } => {
                write!(f, "user {user} was not on channel {channel}, as the registry said")
            }
            Difference::Stray { user } => {
                write!(f, "a name in the registry led to user {user}, who was not online under it")
            }
            Difference::Row { user, says: (online, epoch), .. } => {
                let state = if *online { "online" } else { "offline" };
                write!(f, "user {user} was online, and the row said {state}, epoch {}", epoch.0)
            }
            Difference::StaleOnline { user, .. } => {
                write!(f, "user {user} had no session, and the row said online")
            }
            Difference::RowGone { user, .. } => write!(f, "user {user} was online without a row"),
        }
    }
}

/// What was seen to differ once.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    seen: HashMap<Difference, Seen>,
    round: u64,
}

#[derive(Debug)]
struct Seen {
    first_us: u64,
    round: u64,
}

impl Suspects {
    /// True exactly when the same was seen in the round before, and long enough ago.
    pub(super) fn confirms(&mut self, difference: Difference, now_us: u64) -> bool {
        let Some(seen) = self.seen.get_mut(&difference) else {
            if self.seen.len() < SUSPECTS_MAX {
                self.seen.insert(difference, Seen { first_us: now_us, round: self.round });
            }
            return false;
        };
        let again = std::mem::replace(&mut seen.round, self.round) != self.round;
        let sure = again && now_us >= seen.first_us + SURE_US;
        if sure {
            self.seen.remove(&difference);
        }
        sure
    }

    /// Forgets what was not seen in the round that ends.
    pub(super) fn end_round(&mut self) {
        let round = self.round;
        self.seen.retain(|_, seen| seen.round == round);
        self.round += 1;
    }

    /// How many rounds have ended.
    pub(super) fn rounds(&self) -> u64 {
        self.round
    }
}
