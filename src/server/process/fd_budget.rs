//! How many connections fit: the fd limit, raised as far as it goes, less what the server needs for itself.

use crate::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fds beside connections and workers: standard streams, database, control socket and its connections, spare.
const FIXED_FDS: usize = 96;
/// Fds of one worker beside its listeners: epoll, two eventfds, a timerfd, spare.
const WORKER_FDS: usize = 6;
/// Connections that the table is made for when nobody says how many, however high the fd limit is.
const CAPACITY_MAX: usize = 262_144;
/// The least that makes sense.
const CAPACITY_MIN: usize = 16;
/// The share of places for channels that have left and for those that are turned away: one in so many.
const LINGERING_SHARE: usize = 64;
/// Such places at least.
const LINGERING_MIN: usize = 8;
const _: () = assert!(LINGERING_MIN < CAPACITY_MIN);

/// An fd limit that does not do.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// Too low for any server.
    #[error("the limit of open files is {0}, which is too low; raise it (ulimit -n) above {1}")]
    TooLow(usize, usize),
    /// Too low for what was asked.
    #[error(
        "--max-channels {wanted} does not fit: the limit of open files ({limit}) leaves {fit}; raise it (ulimit -n) or ask for less"
    )]
    TooMany {
        /// What was asked.
        wanted: usize,
        /// The fd limit.
        limit: usize,
        /// What fits.
        fit: usize,
    },
}

/// What the fd limit allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FdBudget {
    /// Connections, lingering ones included.
    pub(crate) capacity: usize,
    /// Channels that may be present at once.
    pub(crate) max_channels: usize,
}

impl FdBudget {
    /// Raises the soft limit to the hard one, and divides it up.
    pub(crate) fn raise(config: &Config) -> Result<Self, LimitError> {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: maximum, maximum };
        let limit = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => maximum,
            Err(_) => current,
        };
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let own = FIXED_FDS
            + config.workers * (WORKER_FDS + config.listen.len() + usize::from(config.line.is_some()));
        Self::divide(limit, own, config.max_channels)
    }

    fn divide(limit: usize, own: usize, wanted: Option<usize>) -> Result<Self, LimitError> {
        let room = limit.saturating_sub(own);
        if room < CAPACITY_MIN {
            return Err(LimitError::TooLow(limit, own + CAPACITY_MIN));
        }
        let most = |capacity: usize| capacity - (capacity / LINGERING_SHARE).max(LINGERING_MIN);
        let Some(wanted) = wanted else {
            let capacity = room.min(CAPACITY_MAX);
            return Ok(FdBudget { capacity, max_channels: most(capacity) });
        };
        if wanted > most(room) {
            return Err(LimitError::TooMany { wanted, limit, fit: most(room) });
        }
        let capacity = room.min(CAPACITY_MAX.max(wanted * 2));
        Ok(FdBudget { capacity, max_channels: wanted })
    }
}

/// How many cores this machine gives the process.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nineteen_thousand_channels_fit_into_twenty_thousand_fds() {
        let budget = FdBudget::divide(20_000, FIXED_FDS + 2 * (WORKER_FDS + 2), None).unwrap();
        assert!(budget.max_channels >= 19_000, "{budget:?}");
        assert!(budget.capacity > budget.max_channels, "those who left need places too");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(matches!(FdBudget::divide(64, FIXED_FDS, None), Err(LimitError::TooLow(64, _))));
        assert!(matches!(FdBudget::divide(1024, 100, Some(2000)), Err(LimitError::TooMany { .. })));
        assert_eq!(FdBudget::divide(1024, 100, Some(5)).unwrap().max_channels, 5);
    }
}
