//! The admin threads' connection to the history: one for all of them, so that many questions take no more fds.
//!
//! A thread takes the connection out and puts it back, so no lock is held while SQLite reads. Main is not asked: what is
//! committed can be read beside it.

use std::net::SocketAddr;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::departures::{DepartureTarget, Departures, Why};
use crate::channel::ChannelId;
use crate::store::sqlite::{Filter, History};
use crate::store::{StorageError, Stored};

/// The history, for several threads.
#[derive(Debug)]
pub struct HistoryPool {
    give_back: Sender<History>,
    take: Receiver<History>,
}

/// Why the history did not answer.
#[derive(Debug, thiserror::Error)]
pub enum HistoryPoolError {
    /// Others have kept it busy for too long.
    #[error("the history was busy for {} s", .0.as_secs())]
    Busy(Duration),
    /// It could not be read.
    #[error(transparent)]
    Unread(#[from] StorageError),
}

impl HistoryPool {
    /// Shares that connection.
    pub fn new(history: History) -> HistoryPool {
        let (give_back, take) = crossbeam_channel::bounded(1);
        let archive = HistoryPool { give_back, take };
        archive.put_back(history);
        archive
    }

    /// The departures that are asked for; waits at most that long for its turn.
    ///
    /// # Errors
    /// When its turn did not come, or the store cannot be read.
    pub fn departures(&self, why: &Why, timeout: Duration) -> Result<Departures, HistoryPoolError> {
        let mut history = self.take.recv_timeout(timeout).map_err(|_| HistoryPoolError::Busy(timeout))?;
        let found = find(&mut history, why);
        self.put_back(history);
        Ok(found?)
    }

    fn put_back(&self, history: History) {
        // There is one connection and one place for it, and both ends of the channel are ours: it always fits.
        let _ = self.give_back.try_send(history);
    }
}

fn find(history: &mut History, why: &Why) -> Stored<Departures> {
    let channel;
    let from_block;
    let filter = match &why.target {
        DepartureTarget::User(user) => Filter::User(*user),
        DepartureTarget::Name(name) => Filter::Named(name),
        DepartureTarget::Channel(slot, generation) => {
            channel = ChannelId { slot: *slot, generation: *generation }.to_string();
            Filter::Channel(&channel)
        }
        DepartureTarget::Addr(block) => {
            from_block = |peer: &str| peer.parse().is_ok_and(|peer: SocketAddr| block.contains(peer.ip()));
            Filter::Peer(&from_block)
        }
        DepartureTarget::All => Filter::All,
    };
    let stored = history.departures(filter, why.limit.rows())?;
    Ok(Departures { departures: stored.into_iter().map(Into::into).collect() })
}
