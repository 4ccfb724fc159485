//! The control threads' way to the history: one connection for all, so that a crowd of questions takes no more fds.
//!
//! Whoever asks takes the connection away and brings it back, so no lock is held while SQLite reads. Main is never
//! asked: what is committed can be read beside it.

use std::net::SocketAddr;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::departures::{Departures, Leaver, Why};
use crate::channel::ChannelId;
use crate::store::sqlite::{Filter, History};
use crate::store::{StorageError, Stored};

/// The history, for several threads.
#[derive(Debug)]
pub struct Archive {
    give_back: Sender<History>,
    take: Receiver<History>,
}

/// Why the history did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Others have kept it busy for too long.
    #[error("the history was busy for {} s", .0.as_secs())]
    Busy(Duration),
    /// It could not be read.
    #[error(transparent)]
    Unread(#[from] StorageError),
}

impl Archive {
    /// Shares that connection.
    pub fn new(history: History) -> Archive {
        let (give_back, take) = crossbeam_channel::bounded(1);
        let archive = Archive { give_back, take };
        archive.put_back(history);
        archive
    }

    /// The departures that are asked for; waits at most that long for its turn.
    ///
    /// # Errors
    /// When its turn did not come, or the store cannot be read.
    pub fn departures(&self, why: &Why, patience: Duration) -> Result<Departures, ArchiveError> {
        let mut history = self.take.recv_timeout(patience).map_err(|_| ArchiveError::Busy(patience))?;
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
        Leaver::User(user) => Filter::User(*user),
        Leaver::Name(name) => Filter::Named(name),
        Leaver::Channel(slot, generation) => {
            channel = ChannelId { slot: *slot, generation: *generation }.to_string();
            Filter::Channel(&channel)
        }
        Leaver::Addr(block) => {
            from_block = |peer: &str| peer.parse().is_ok_and(|peer: SocketAddr| block.contains(peer.ip()));
            Filter::Peer(&from_block)
        }
        Leaver::All => Filter::All,
    };
    let stored = history.departures(filter, why.limit.rows())?;
    Ok(Departures { departures: stored.into_iter().map(Into::into).collect() })
}
