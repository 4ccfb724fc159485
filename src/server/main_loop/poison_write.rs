//! Owed writes that can never succeed, and when they are given up.
//!
//! Part of the transaction. Other processes may change the database beside us: put a constraint on a table, or drop it. An owed
//! write that is refused for that would keep everything behind it from being committed, for ever. So one that has been
//! refused often and for long is given up: the log has it whole, `writes_set_aside` counts it, and whoever waits for it
//! hears errno 19. A full disk, a lock or a disk that fails does not count towards that.
//!
//! That a user is offline, and the epoch of a box, are never given up: without them the rows say what is not true, and the
//! table that refuses them is the one without which nobody can log in anyhow.

/// How long the same write is refused before it is given up, in microseconds.
const REFUSED_MAX_US: u64 = 10_000_000;
/// How often, at least: main may have stood still meanwhile.
const TRIES_MIN: u32 = 10;

/// How long the first refused write has been refused.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    /// The write's place, counted from the oldest owed one. It holds until a commit, and a commit begins a new budget.
    place: usize,
    since_us: u64,
    tries: u32,
}

impl RetryBudget {
    /// The write at that place was refused once more. True exactly when that was often and long enough.
    pub(super) fn ends(&mut self, place: usize, now_us: u64) -> bool {
        if self.tries == 0 || self.place != place {
            *self = RetryBudget { place, since_us: now_us, tries: 0 };
        }
        self.tries += 1;
        let ends = self.tries >= TRIES_MIN && now_us >= self.since_us + REFUSED_MAX_US;
        if ends {
            // The next write has a budget of its own.
            *self = RetryBudget::default();
        }
        ends
    }
}
